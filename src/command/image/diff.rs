//! `coracle image diff`.

use crate::command::diff::print;
use crate::engine::{Engine, diff};
use anyhow::Result;
use std::process::ExitCode;

/// Inspect changes of an image's topmost layer
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output format (json)
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What it is compared with, all layers of both; without it, the layers below the topmost one
    #[arg(value_name = "IMAGE")]
    base: Option<String>,
}

/// Show them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let changes = match &args.base {
        Some(base) => diff::between(engine, &args.image, base)?,
        None => diff::of_image(engine, &args.image)?,
    };
    print(&changes, args.format.as_deref())
}
