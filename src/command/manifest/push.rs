//! `coracle manifest push`.

use crate::command::flag::registry::boolean;
use crate::command::push::Sending;
use crate::engine::{Engine, manifest};
use anyhow::{Result, ensure};
use std::process::ExitCode;

/// Push a manifest list or image index to a registry
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Also push the images in the list; they always are, for without them a registry takes no list
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = boolean)]
    all: Option<bool>,
    /// Add further compressions of each image; not supported
    #[arg(long, hide = true, value_name = "FORMAT")]
    add_compression: Vec<String>,
    #[command(flatten)]
    sending: Sending,
    /// Remove the manifest list if push succeeds
    #[arg(long)]
    rm: bool,
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Where to; its own name if not said
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// Send it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let Args { all: _, add_compression, sending, rm, list, destination } = args;
    ensure!(add_compression.is_empty(), "--add-compression is not supported");
    sending.send(true, |access, how, progress| {
        manifest::push(engine, &list, destination.as_deref(), access, &how, progress)
    })?;
    if rm {
        manifest::remove(engine, &list)?;
    }
    Ok(ExitCode::SUCCESS)
}
