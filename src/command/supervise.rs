//! `coracle supervise`: what a container's supervisor is started as.

use crate::engine::Engine;
use crate::model::id::Id;
use crate::supervisor::supervise::{self, Place};
use anyhow::Result;
use std::process::ExitCode;

/// Supervise one container (coracle starts this itself).
#[derive(clap::Parser, Debug)]
#[command(hide = true)]
pub struct Args {
    /// The container's whole id.
    id: String,
}

/// Do it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let place = Place {
        layout: &engine.layout,
        privilege: &engine.privilege,
        cgroup_manager: engine.cgroup_manager.as_deref(),
    };
    supervise::supervise(place, &Id::parse(&args.id)?)?;
    Ok(ExitCode::SUCCESS)
}
