//! `coracle healthcheck run`.

use crate::command::present;
use crate::engine::Engine;
use crate::engine::{create, health};
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
    if health::check(engine, &id)? {
        return Ok(ExitCode::SUCCESS);
    }
    present::line("unhealthy")?;
    Ok(if args.ignore_result { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
