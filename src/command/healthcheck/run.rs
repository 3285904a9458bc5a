//! `coracle healthcheck run`.

use crate::command::present;
use crate::engine::Engine;
use crate::engine::create;
use crate::engine::health::{self, Outcome};
use anyhow::Result;
use std::process::ExitCode;

/// Run the health check of a container now
///
/// Exit status: 0 if it succeeds, 1 if it fails, 125 if there is none or the container does not run.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Exit with 0 although the check fails
    #[arg(long)]
    ignore_result: bool,
    /// Name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Run it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let id = create::find(engine, &args.container)?;
    match health::check(engine, &id)? {
        Outcome::Good => return Ok(ExitCode::SUCCESS),
        Outcome::Bad => present::line("unhealthy")?,
        Outcome::Stopped => present::line("stopped")?,
    }
    Ok(if args.ignore_result { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
