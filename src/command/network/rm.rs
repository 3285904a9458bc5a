//! `coracle network rm`.

use crate::command::{self, present};
use crate::engine::{Engine, network};
use crate::failure::{self, Kind};
use anyhow::Result;
use std::process::ExitCode;

/// Remove networks
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove the containers that use the network too
    #[arg(short, long)]
    force: bool,
    /// Seconds to wait for running containers to stop before they are killed
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true, requires = "force")]
    time: Option<i64>,
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Remove each and print its name; the code is that of the last failure.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for wanted in &args.networks {
        match remove(engine, wanted, &args) {
            Ok(()) => present::line(wanted)?,
            Err(error) if args.force && failure::kind_of(&error) == Kind::Missing => {}
            Err(error) => code = command::report(&error),
        }
    }
    Ok(code)
}

fn remove(engine: &Engine, wanted: &str, args: &Args) -> Result<()> {
    let record = network::find(engine, wanted)?;
    if args.force {
        network::remove_users(engine, &record, args.time)?;
    }
    network::remove(engine, &record)
}
