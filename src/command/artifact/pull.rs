//! `coracle artifact pull`.

use crate::command::flag::registry::Registry;
use crate::command::present;
use crate::command::present::progress::Progress;
use crate::engine::{Engine, artifact};
use anyhow::{Result, ensure};
use std::process::ExitCode;

/// Pull an OCI artifact from a registry
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Key needed to decrypt; encrypted artifacts are refused
    #[arg(long, value_name = "KEY", hide = true)]
    decryption_key: Vec<String>,
    /// Suppress output information when pulling
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: Registry,
    /// The artifact
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
}

/// Fetch it and print its digest.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(args.decryption_key.is_empty(), "--decryption-key: encrypted artifacts are not supported");
    let progress = Progress::new(args.quiet);
    present::line(artifact::pull(engine, &args.artifact, args.registry.access()?, &progress)?.hex())?;
    Ok(ExitCode::SUCCESS)
}
