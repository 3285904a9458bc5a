//! `coracle network disconnect`.

use crate::engine::{Engine, network};
use anyhow::Result;
use std::process::ExitCode;

/// Disconnect a container from a network
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Do not mind if the container is not there
    #[arg(short, long)]
    force: bool,
    /// Network, by name or id
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Container, by name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Do it, silently.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    network::disconnect(engine, &args.network, &args.container, args.force)?;
    Ok(ExitCode::SUCCESS)
}
