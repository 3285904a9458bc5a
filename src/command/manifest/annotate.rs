//! `coracle manifest annotate`.

use super::About;
use crate::command::present;
use crate::engine::{Engine, manifest};
use anyhow::{Result, bail, ensure};
use std::process::ExitCode;

/// Add or update information about an entry in a manifest list or image index
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    about: About,
    /// Apply annotations to the index itself, not to an entry
    #[arg(long)]
    index: bool,
    /// Set the subject of the index; only images pushed as artifacts have one
    #[arg(long, value_name = "IMAGE", hide = true)]
    subject: Option<String>,
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// The entry, by digest or by the name of an image of the store
    #[arg(value_name = "DIGEST")]
    image: Option<String>,
}

/// Change it and print the list's id.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(args.subject.is_none(), "--subject is not supported");
    let notes = args.about.notes()?;
    let id = match (args.index, &args.image) {
        (true, None) => manifest::annotate(engine, &args.list, None, &notes)?,
        (true, Some(_)) => bail!("--index applies to the list, not to an image"),
        (false, Some(image)) => manifest::annotate(engine, &args.list, Some(image), &notes)?,
        (false, None) => bail!("name the entry by its digest, or use --index"),
    };
    present::line(id)?;
    Ok(ExitCode::SUCCESS)
}
