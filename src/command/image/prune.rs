//! `coracle image prune`.

use crate::command::present::{self, confirm};
use crate::engine::{Engine, image};
use anyhow::Result;
use std::process::ExitCode;

/// Remove all unused images from local storage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all images not in use by containers, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Accepted; images are used by no others than the containers here
    #[arg(long, hide = true)]
    external: bool,
    /// Accepted; there is no cache beside the images
    #[arg(long, hide = true)]
    build_cache: bool,
    /// Provide filter values (e.g. 'label=<key>=<value>')
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Remove them; their ids go to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let filters = image::Filters::parse(&args.filter)?;
    let question = match args.all {
        true => "WARNING! This command removes all images without at least one container associated with them.",
        false => "WARNING! This command removes all dangling images.",
    };
    if !args.force && !confirm(question)? {
        return Ok(ExitCode::SUCCESS);
    }
    let (gone, _) = image::prune(engine, args.all, &filters)?;
    crate::storage::layer::sweep(&engine.layout)?;
    present::text(&gone.iter().map(|id| format!("{id}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}
