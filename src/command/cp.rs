//! `coracle cp`.

use crate::engine::Engine;
use crate::engine::transfer::{self, End, Wish};
use anyhow::Result;
use std::process::ExitCode;

/// Copy files/folders between a container and the local filesystem
///
/// A directory is copied with its name, or only its content if its path ends in `/.`; a path that is not there becomes the
/// copy's name. `-` is a tar archive on standard input or output. Relative paths in a container begin at its working
/// directory. What is copied into a container belongs to its user.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Give what is copied into a container to its user; `false`: keep the owners
    #[arg(short, long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    archive: bool,
    /// Allow to overwrite directories with non-directories and vice versa
    #[arg(long)]
    overwrite: bool,
    /// Accepted for docker's sake: links that are named are always followed, inside the container
    #[arg(short = 'L', long, hide = true)]
    follow_link: bool,
    /// Where from: [CONTAINER:]PATH or `-`
    #[arg(value_name = "[CONTAINER:]SRC_PATH")]
    source: String,
    /// Where to: [CONTAINER:]PATH or `-`
    #[arg(value_name = "[CONTAINER:]DEST_PATH")]
    target: String,
}

/// Copy.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let wish = Wish { archive: args.archive, overwrite: args.overwrite };
    transfer::copy(engine, &End::parse(&args.source), &End::parse(&args.target), wish)?;
    Ok(ExitCode::SUCCESS)
}
