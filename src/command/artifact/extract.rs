//! `coracle artifact extract`.

use crate::engine::Engine;
use crate::engine::artifact::{self, Choice};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Extract an OCI artifact to a local path
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Only the file with the given digest
    #[arg(long, value_name = "DIGEST", conflicts_with = "title")]
    digest: Option<String>,
    /// Only the file with the given title
    #[arg(long, value_name = "TITLE")]
    title: Option<String>,
    /// The artifact
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
    /// A directory, or a file for a single one
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// Write the files.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let choice = Choice { digest: args.digest, title: args.title };
    artifact::extract(engine, &args.artifact, &args.path, &choice)?;
    Ok(ExitCode::SUCCESS)
}
