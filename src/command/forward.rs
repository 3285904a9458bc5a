//! `coracle forward`: what an ordinary user's forwarder is started as.

use crate::engine::Engine;
use crate::network::forward::server;
use anyhow::{Context, Result};
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Connect an ordinary user's networks to the world (coracle starts this itself).
#[derive(clap::Parser, Debug)]
#[command(hide = true)]
pub struct Args {}

/// Do it, for those who connect to the socket that is our standard input.
pub fn run(_args: Args, engine: &Engine) -> Result<ExitCode> {
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("find the listening socket")?;
    let null = std::fs::File::open("/dev/null").context("open /dev/null")?;
    crate::sys::fd::place_at(null.as_fd(), 0)?;
    server::serve(&engine.layout, listener)?;
    Ok(ExitCode::SUCCESS)
}
