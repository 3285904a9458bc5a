//! `coracle version`.

use super::present;
use crate::engine::Engine;
use anyhow::Result;
use std::process::ExitCode;

/// Display the version of coracle
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output to JSON or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Print it.
pub fn run(_args: Args, _engine: &Engine) -> Result<ExitCode> {
    present::text(&format!("Client:       coracle\nVersion:      {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(ExitCode::SUCCESS)
}
