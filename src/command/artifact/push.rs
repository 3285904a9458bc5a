//! `coracle artifact push`.

use crate::command::flag::registry::Registry;
use crate::command::present::progress::Progress;
use crate::command::push::Protection;
use crate::engine::{Engine, artifact};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Push an OCI artifact
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Write the digest to the specified file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Suppress output information when pushing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    registry: Registry,
    /// The artifact
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
    /// Where to; its own name if not said
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// Send it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let signer = args.protection.signer()?;
    let progress = Progress::new(args.quiet);
    let access = args.registry.access()?;
    let digest = artifact::push(engine, &args.artifact, args.destination.as_deref(), (access, signer), &progress)?;
    if let Some(path) = &args.digestfile {
        std::fs::write(path, digest.as_str()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
