//! `coracle pause`.

use super::each;
use crate::engine::Engine;
use crate::engine::pause;
use crate::engine::select::{self, Wish};
use anyhow::Result;
use std::process::ExitCode;

/// Pause all the processes in one or more containers
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Pause all running containers
    #[arg(short, long)]
    all: bool,
    /// Read the container ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<String>,
    /// Only containers that match (KEY=VALUE, as in `ps`)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Freeze them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let wish = Wish {
        names: args.containers,
        all: args.all,
        latest: args.latest,
        filters: args.filter,
        cidfiles: args.cidfile,
        ..Wish::default()
    };
    let chosen = select::select(engine, &wish, "pause", |_, state| state.word() == "running")?;
    each::run(&chosen, |one| {
        pause::pause(engine, one.id()?)?;
        Ok(Some(one.shown.clone()))
    })
}
