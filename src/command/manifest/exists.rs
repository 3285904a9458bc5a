//! `coracle manifest exists`.

use crate::engine::Engine;
use crate::image::list;
use anyhow::Result;
use std::process::ExitCode;

/// Check if a manifest list exists in local storage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
}

/// Exit code 0: it does; 1: it does not.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let found = list::find(&engine.layout, &args.list)?.is_some();
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
