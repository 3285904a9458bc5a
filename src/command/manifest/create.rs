//! `coracle manifest create`.

use crate::command::flag::registry::Tls;
use crate::command::present;
use crate::engine::Engine;
use crate::engine::manifest::{self, Create};
use crate::image::access::Access;
use anyhow::Result;
use std::process::ExitCode;

/// Create manifest list or image index
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Add all of the lists' images if the images to add are lists
    #[arg(long)]
    all: bool,
    /// Modify an existing list if one with the desired name already exists
    #[arg(short, long)]
    amend: bool,
    /// Set annotations on the new list: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    tls: Tls,
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Images to put in
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Make it and print its id.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let access = Access { tls_verify: args.tls.tls_verify, ..Access::default() };
    let how = Create { amend: args.amend, all: args.all, annotations: super::annotations(&args.annotation)? };
    present::line(manifest::create(engine, &args.list, &args.images, access, how)?)?;
    Ok(ExitCode::SUCCESS)
}
