//! `coracle stop`.

use super::flag::selection::SelectionFlags;
use super::{each, present};
use crate::engine::Engine;
use crate::engine::select::{self, Wish};
use crate::engine::stop::{self, Stopped};
use anyhow::Result;
use std::process::ExitCode;

/// Stop one or more containers
///
/// The stop signal is sent to the container's first process, and SIGKILL if it has not ended in time.
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    selection: SelectionFlags,
    /// Pass over containers that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Send this signal instead of the container's stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before the container is killed; -1 waits for ever
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
}

/// Stop them, all at once.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let signal = args.signal.as_deref().map(crate::model::signal::parse).transpose()?;
    let wish = Wish { ignore: args.ignore, ..args.selection.wish() };
    let chosen = select::select(engine, &wish, "stop", |_, state| state.is_live())?;
    let how = stop::Wish { signal, timeout_s: args.time };
    each::run(&chosen, |one| {
        if let Stopped::Exited { warning: Some(warning), .. } = stop::stop(engine, one.id()?, how)? {
            present::warn(&warning);
        }
        Ok(Some(one.shown.clone()))
    })
}
