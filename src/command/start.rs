//! `coracle start`.

use super::each;
use crate::engine::Engine;
use crate::engine::attach::{self, Seat};
use crate::engine::select::{self, Wish};
use crate::engine::start;
use crate::failure::{Explain, Failure, Kind};
use crate::state::container::ContainerRecord;
use crate::supervisor::client;
use anyhow::Result;
use std::process::ExitCode;

/// Start one or more containers
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Start all containers that do not run
    #[arg(long)]
    all: bool,
    /// Show output and errors, and exit with the container's exit code
    #[arg(short, long)]
    attach: bool,
    /// Keys that leave the container alone, as ctrl-p,ctrl-q; empty for none
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Only containers that match (KEY=VALUE, as in `ps`)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Send standard input to the container
    #[arg(short, long)]
    interactive: bool,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Send signals on to the container (with --attach, unless false is said)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    sig_proxy: Option<bool>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Start them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    check(&args)?;
    let wish = Wish {
        names: args.containers.clone(),
        all: args.all,
        latest: args.latest,
        filters: args.filter.clone(),
        ..Wish::default()
    };
    let chosen = select::select(engine, &wish, "start", |_, state| !state.is_live())?;
    if args.attach {
        let keys = super::flag::detach_keys(args.detach_keys.as_deref())?;
        let seat = Seat { input: args.interactive, detach_keys: keys, proxy_signals: args.sig_proxy.unwrap_or(true) };
        let Some(one) = chosen.first() else { return Ok(ExitCode::SUCCESS) };
        let id = one.id()?;
        let record = ContainerRecord::load(&engine.layout, id)?;
        let seat = Seat { input: seat.input && record.spec.stdio.interactive, ..seat };
        let signals = client::block_signals()?;
        let watch = attach::everything(seat.input, true);
        let started = start::start(engine, id, start::Wish { prepare_only: false, attach: Some(watch) })?;
        let code = attach::exit_code(attach::sit(started, seat, &signals)?)?;
        return Ok(ExitCode::from(code as u8));
    }
    each::in_order(&chosen, |one| {
        // Not this command's own exit code, as nothing of the container's is waited for.
        start::start(engine, one.id()?, start::Wish::default()).kind(Kind::Engine)?;
        Ok(Some(one.shown.clone()))
    })
}

fn check(args: &Args) -> Result<()> {
    let wrong = |text: &str| Err(Failure::new(Kind::Engine, text).into());
    let named = !args.containers.is_empty();
    if !named && !args.latest && !args.all && args.filter.is_empty() {
        return wrong("start requires at least one argument");
    }
    if args.attach && args.containers.len() > 1 {
        return wrong("you cannot start and attach multiple containers at once");
    }
    if args.latest && args.all {
        return wrong("--all and --latest cannot be used together");
    }
    if named && args.all {
        return wrong("either start all containers or the container(s) provided in the arguments");
    }
    if args.attach && args.all {
        return wrong("you cannot start and attach all containers at once");
    }
    if args.sig_proxy == Some(true) && !args.attach {
        return wrong("you cannot use sig-proxy without --attach: invalid argument");
    }
    Ok(())
}
