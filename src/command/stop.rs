//! `coracle stop`.

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
    /// Stop all running containers
    #[arg(short, long)]
    all: bool,
    /// Read the container ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<String>,
    /// Only containers that match (KEY=VALUE, as in `ps`)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Pass over containers that are not there
    #[arg(short, long)]
    ignore: bool,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Send this signal instead of the container's stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before the container is killed; -1 waits for ever
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stop them, all at once.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let signal = args.signal.as_deref().map(crate::model::signal::parse).transpose()?;
    let wish = Wish {
        names: args.containers,
        all: args.all,
        latest: args.latest,
        filters: args.filter,
        cidfiles: args.cidfile,
        ignore: args.ignore,
    };
    let chosen = select::select(engine, &wish, "stop", |_, state| state.is_live())?;
    let how = stop::Wish { signal, timeout_s: args.time };
    each::run(&chosen, |one| {
        if let Stopped::Exited { warning: Some(warning), .. } = stop::stop(engine, one.id()?, how)? {
            present::warn(&warning);
        }
        Ok(Some(one.shown.clone()))
    })
}
