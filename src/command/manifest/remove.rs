//! `coracle manifest remove`.

use crate::command::present;
use crate::engine::{Engine, manifest};
use anyhow::Result;
use std::process::ExitCode;

/// Remove an item from a manifest list or image index
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// The entry
    #[arg(value_name = "DIGEST")]
    digest: String,
}

/// Take it out and print the list's id.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    present::line(manifest::remove_entry(engine, &args.list, &args.digest)?)?;
    Ok(ExitCode::SUCCESS)
}
