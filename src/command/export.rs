//! `coracle export`.

use crate::engine::{Engine, transfer};
use crate::failure::{Failure, Kind};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Export container's filesystem contents as a tar archive
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Write to a specified file (default: stdout, which must be redirected)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Write it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    match &args.output {
        Some(path) => {
            let mut file = File::create(path).with_context(|| format!("write {}", path.display()))?;
            transfer::export(engine, &args.container, &mut file)?;
        }
        None if std::io::stdout().is_terminal() => {
            return Err(Failure::new(Kind::Engine, "refusing to export to terminal. Use -o flag or redirect").into());
        }
        None => {
            let mut stdout = std::io::stdout().lock();
            transfer::export(engine, &args.container, &mut stdout)?;
            stdout.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
