//! `coracle volume inspect`.

use crate::command::{present, rmi};
use crate::engine::{Engine, volume};
use crate::storage::volume::{self as stored, Volume};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Display detailed information on one or more volumes
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Inspect all volumes
    #[arg(short, long)]
    all: bool,
    /// Format volume output using Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Their names
    #[arg(value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Show each.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.all != args.volumes.is_empty() {
        bail!("provide one or more volume names or use --all");
    }
    let is_json = matches!(args.format.as_deref().map(str::trim), None | Some("" | "json"));
    let document = if is_json { volume::document } else { volume::fields };
    let mut documents = Vec::new();
    let mut failures = Vec::new();
    let names = if args.all { stored::names(&engine.layout)? } else { args.volumes };
    for name in &names {
        match Volume::find(&engine.layout, name) {
            Ok(found) => documents.push(document(engine, &found)),
            Err(error) => failures.push(error),
        }
    }
    present::documents(args.format.as_deref(), documents)?;
    rmi::outcome(failures)
}
