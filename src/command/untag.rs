//! `coracle untag`.

use crate::engine::{Engine, image};
use anyhow::Result;
use std::process::ExitCode;

/// Remove one or more names from a locally-stored image
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Names to take away; all of them if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Take them away.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    image::untag(engine, &args.image, &args.names)?;
    Ok(ExitCode::SUCCESS)
}
