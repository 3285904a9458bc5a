//! `coracle volume import`.

use crate::engine::{Engine, volume};
use anyhow::{Context, Result};
use std::fs::File;
use std::process::ExitCode;

/// Import a tarball into an existing volume
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// The archive, compressed or not; `-` or nothing: standard input
    #[arg(value_name = "SOURCE")]
    source: Option<String>,
}

/// Unpack it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    match args.source.as_deref() {
        None | Some("-") => volume::import(engine, &args.volume, std::io::stdin())?,
        Some(path) => {
            let file = File::open(path).with_context(|| format!("open {path}"))?;
            volume::import(engine, &args.volume, file)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
