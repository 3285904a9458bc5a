//! `coracle manifest rm`.

use crate::command::present;
use crate::engine::{Engine, manifest};
use crate::image::list;
use anyhow::Result;
use std::process::ExitCode;

/// Remove manifest list or image index from local storage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Ignore errors if a specified manifest list is missing
    #[arg(short, long)]
    ignore: bool,
    /// The lists
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<String>,
}

/// Take them away.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    for name in &args.lists {
        if args.ignore && list::find(&engine.layout, name)?.is_none() {
            continue;
        }
        let (name, id) = manifest::remove(engine, name)?;
        present::line(format!("Untagged: {name}\nDeleted: {id}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
