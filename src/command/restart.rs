//! `coracle restart`.

use super::flag::selection::SelectionFlags;
use super::{each, present};
use crate::engine::Engine;
use crate::engine::select;
use crate::engine::start;
use crate::engine::stop::{self, Stopped};
use anyhow::Result;
use std::process::ExitCode;

/// Restart one or more containers
///
/// Running containers are stopped first; others are just started.
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    selection: SelectionFlags,
    /// Restart all running containers
    #[arg(long)]
    running: bool,
    /// Seconds to wait before a container is killed
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
}

/// Stop and start them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let mut wish = args.selection.wish();
    wish.all |= args.running;
    let only_running = args.running;
    let chosen = select::select(engine, &wish, "restart", |_, state| !only_running || state.is_live())?;
    let how = stop::Wish { signal: None, timeout_s: args.time };
    each::in_order(&chosen, |one| {
        let id = one.id()?;
        if let Stopped::Exited { warning: Some(warning), .. } = stop::stop(engine, id, how)? {
            present::warn(&warning);
        }
        start::start(engine, id, start::Wish::default())?;
        Ok(Some(one.shown.clone()))
    })
}
