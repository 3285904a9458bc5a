//! `coracle tag`.

use crate::engine::{Engine, image};
use anyhow::Result;
use std::process::ExitCode;

/// Add an additional name to a local image
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Names to add
    #[arg(value_name = "TARGET_NAME", required = true)]
    names: Vec<String>,
}

/// Add them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    image::tag(engine, &args.image, &args.names)?;
    Ok(ExitCode::SUCCESS)
}
