//! `coracle init`.

use super::each;
use crate::engine::Engine;
use crate::engine::select::{self, Wish};
use crate::engine::start;
use anyhow::Result;
use std::process::ExitCode;

/// Initialize one or more containers
///
/// Everything is made ready, mounts, network and all, but the command is not run before `start`.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Initialize all containers that do not run
    #[arg(short, long)]
    all: bool,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Make them ready.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let wish = Wish { names: args.containers, all: args.all, latest: args.latest, ..Wish::default() };
    let chosen = select::select(engine, &wish, "init", |_, state| !state.is_live())?;
    each::in_order(&chosen, |one| {
        start::start(engine, one.id()?, start::Wish { prepare_only: true, attach: None })?;
        Ok(Some(one.shown.clone()))
    })
}
