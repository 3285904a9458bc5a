//! `coracle manifest add`.

use super::About;
use crate::command::flag::registry::Registry;
use crate::command::present;
use crate::engine::{Engine, manifest};
use anyhow::Result;
use std::process::ExitCode;

/// Add images to a manifest list or image index
///
/// An image of the store is taken first; else IMAGE is a registry's, or TRANSPORT:WHERE. It stays where it is until the
/// list is pushed.
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    about: About,
    /// Add all of the list's images if the image is a list
    #[arg(long)]
    all: bool,
    /// Add files as an artifact; `coracle artifact add` makes one
    #[arg(long, hide = true)]
    artifact: bool,
    #[command(flatten)]
    registry: Registry,
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Add them and print the list's id.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.artifact {
        return Err(crate::failure::Failure::new(crate::failure::Kind::Engine, "--artifact is not supported here")
            .hint("make it with `coracle artifact add`, push it, and add docker://NAME")
            .into());
    }
    let notes = args.about.notes()?;
    let access = args.registry.access()?;
    present::line(manifest::add(engine, &args.list, &args.images, access, args.all, &notes)?)?;
    Ok(ExitCode::SUCCESS)
}
