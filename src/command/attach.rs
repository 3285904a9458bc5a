//! `coracle attach`.

use crate::engine::Engine;
use crate::engine::attach::{self, Seat};
use crate::engine::select::{self, Wish};
use crate::failure::{Failure, Kind};
use crate::supervisor::client;
use anyhow::Result;
use std::process::ExitCode;

/// Attach to a running container
///
/// Shows what it writes, sends what is typed, and exits with its exit code. The detach keys leave it running.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Keys that leave the container alone, as ctrl-p,ctrl-q; empty for none
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Do not send standard input
    #[arg(long)]
    no_stdin: bool,
    /// Send signals on to the container
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        value_name = "BOOL",
        action = clap::ArgAction::Set
    )]
    sig_proxy: bool,
    /// Name or ID
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

/// Sit before it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.container.is_none() && !args.latest {
        return Err(Failure::new(
            Kind::Engine,
            "attach requires the name or id of one running container or the latest flag",
        )
        .into());
    }
    let wish = Wish { names: args.container.into_iter().collect(), latest: args.latest, ..Wish::default() };
    let chosen = select::select(engine, &wish, "attach", |_, _| true)?;
    let Some(one) = chosen.first() else { return Ok(ExitCode::SUCCESS) };
    let seat = Seat {
        input: !args.no_stdin,
        detach_keys: super::flag::detach_keys(args.detach_keys.as_deref())?,
        proxy_signals: args.sig_proxy,
    };
    let id = one.id()?;
    let signals = client::block_signals()?;
    let started = attach::attach(engine, id, attach::everything(seat.input, false))?;
    let code = attach::exit_code(attach::sit(started, seat, &signals)?)?;
    Ok(ExitCode::from(code as u8))
}
