//! `coracle image unmount`.

use crate::command::{present, rmi};
use crate::engine::{Engine, image_mount as images};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Unmount an image's root filesystem
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Unmount all of the currently mounted images
    #[arg(short, long)]
    all: bool,
    /// Force the complete unmount of the specified mounted images
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Unmount each; ids go to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.all != args.images.is_empty() {
        bail!("image name or ID must be specified, or --all");
    }
    let names = if args.all {
        images::mounted(engine)?.iter().map(|(record, _)| record.id.hex().to_owned()).collect()
    } else {
        args.images
    };
    let mut failures = Vec::new();
    for name in &names {
        match images::unmount(engine, name, args.force) {
            Ok(id) => present::line(id)?,
            Err(error) => failures.push(error),
        }
    }
    rmi::outcome(failures)
}
