//! `coracle load`.

use super::present;
use crate::engine::{Engine, archive};
use crate::failure::{Failure, Kind};
use anyhow::Result;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Load image(s) from a tar archive into container storage
///
/// Takes what `save` of this program, of podman and of docker write: docker-archive, OCI archive, OCI directory and docker's
/// `dir`, compressed or not.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Read from this archive file, directory or URL (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Suppress the output
    #[arg(short, long)]
    quiet: bool,
}

/// Load them and say what they are called.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.input.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Kind::Engine,
            "cannot read from terminal, use command-line redirection or the --input flag",
        )
        .into());
    }
    for image in archive::load(engine, args.input.as_deref())? {
        if image.names.is_empty() {
            present::line(&format!("Loaded image: sha256:{}", image.record.id.hex()))?;
        }
        for name in &image.names {
            present::line(&format!("Loaded image: {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
