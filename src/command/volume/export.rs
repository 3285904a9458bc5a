//! `coracle volume export`.

use crate::engine::{Engine, volume};
use crate::failure::{Failure, Kind};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Export the content of a volume as a tar archive
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Write to a specified file (default: stdout, which must be redirected)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// Write it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    match &args.output {
        Some(path) => {
            let mut file = File::create(path).with_context(|| format!("write {}", path.display()))?;
            volume::export(engine, &args.volume, &mut file)?;
        }
        None if std::io::stdout().is_terminal() => {
            return Err(Failure::new(
                Kind::Engine,
                "cannot write to terminal, use command-line redirection or the --output flag",
            )
            .into());
        }
        None => {
            let mut stdout = std::io::stdout().lock();
            volume::export(engine, &args.volume, &mut stdout)?;
            stdout.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
