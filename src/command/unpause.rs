//! `coracle unpause`.

use super::each;
use super::flag::selection::SelectionFlags;
use crate::engine::Engine;
use crate::engine::pause;
use crate::engine::select;
use anyhow::Result;
use std::process::ExitCode;

/// Unpause all the processes in one or more containers
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    selection: SelectionFlags,
}

/// Let them go on.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let wish = args.selection.wish();
    let chosen = select::select(engine, &wish, "unpause", |_, state| state.word() == "paused")?;
    each::run(&chosen, |one| {
        pause::unpause(engine, one.id()?)?;
        Ok(Some(one.shown.clone()))
    })
}
