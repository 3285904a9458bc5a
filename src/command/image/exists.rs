//! `coracle image exists`.

use crate::engine::Engine;
use crate::image::store;
use anyhow::Result;
use std::process::ExitCode;

/// Check if an image exists in local storage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// 0 if it does, 1 if not.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    Ok(ExitCode::from(u8::from(store::find(&engine.layout, &args.image)?.is_none())))
}
