//! `coracle network exists`.

use crate::engine::{Engine, network};
use crate::failure::{self, Kind};
use anyhow::Result;
use std::process::ExitCode;

/// Check if a network exists
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Name or id
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// Exit code 0 or 1.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    match network::find(engine, &args.network) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if failure::kind_of(&error) == Kind::Missing => Ok(ExitCode::from(1)),
        Err(error) => Err(error),
    }
}
