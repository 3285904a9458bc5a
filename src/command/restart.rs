//! `coracle restart`.

use super::{each, present};
use crate::engine::Engine;
use crate::engine::select::{self, Wish};
use crate::engine::start;
use crate::engine::stop::{self, Stopped};
use anyhow::Result;
use std::process::ExitCode;

/// Restart one or more containers
///
/// Running containers are stopped first; others are just started.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Restart all containers
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
    /// Restart all running containers
    #[arg(long)]
    running: bool,
    /// Seconds to wait before a container is killed
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stop and start them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let wish = Wish {
        names: args.containers,
        all: args.all || args.running,
        latest: args.latest,
        filters: args.filter,
        cidfiles: args.cidfile,
        ignore: false,
    };
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
