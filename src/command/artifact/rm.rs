//! `coracle artifact rm`.

use crate::command::present;
use crate::engine::{Engine, artifact};
use anyhow::{Result, ensure};
use std::process::ExitCode;

/// Remove one or more OCI artifacts
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all artifacts
    #[arg(short, long)]
    all: bool,
    /// Do not fail if one does not exist
    #[arg(short, long)]
    ignore: bool,
    /// The artifacts
    #[arg(value_name = "ARTIFACT")]
    artifacts: Vec<String>,
}

/// Take them away and print their digests.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(args.all || !args.artifacts.is_empty(), "a single argument or --all is required");
    ensure!(!args.all || args.artifacts.is_empty(), "when using the --all switch, you may not pass any artifact names");
    for digest in artifact::remove(engine, &args.artifacts, args.all, args.ignore)? {
        present::line(digest.hex())?;
    }
    Ok(ExitCode::SUCCESS)
}
