//! `coracle rename`.

use crate::engine::{Engine, rename};
use anyhow::Result;
use std::process::ExitCode;

/// Rename an existing container
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Rename it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    rename::rename(engine, &args.container, &args.name)?;
    Ok(ExitCode::SUCCESS)
}
