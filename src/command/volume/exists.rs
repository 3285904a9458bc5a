//! `coracle volume exists`.

use crate::engine::Engine;
use crate::storage::volume::Volume;
use anyhow::Result;
use std::process::ExitCode;

/// Check if the given volume exists
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// 0 if it does, 1 if not.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    Ok(ExitCode::from(u8::from(Volume::load(&engine.layout, &args.volume)?.is_none())))
}
