//! `coracle volume rm`.

use crate::command::{present, rmi};
use crate::engine::{Engine, volume};
use crate::failure::{self, Kind};
use crate::storage::volume as stored;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Remove one or more volumes
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all volumes
    #[arg(short, long)]
    all: bool,
    /// Remove a volume by force, with the containers that use it
    #[arg(short, long)]
    force: bool,
    /// Seconds to wait for running containers to stop before killing them
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Their names
    #[arg(value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Remove each; its name goes to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.time.is_some() && !args.force {
        bail!("--force option must be specified to use the --time option");
    }
    if args.all != args.volumes.is_empty() {
        bail!("choose volumes by name or use --all");
    }
    let names = if args.all { stored::names(&engine.layout)? } else { args.volumes };
    let mut failures = Vec::new();
    for name in &names {
        match volume::delete(engine, name, args.force, args.time) {
            Ok(name) => present::line(name)?,
            Err(error) if args.force && failure::kind_of(&error) == Kind::Missing => {}
            Err(error) => failures.push(error),
        }
    }
    rmi::outcome(failures)
}
