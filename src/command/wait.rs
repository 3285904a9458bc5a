//! `coracle wait`.

use super::{each, present};
use crate::engine::Engine;
use crate::engine::select::{self, Chosen, Wish};
use crate::engine::wait;
use crate::model::unit;
use anyhow::{Context, Result, bail};
use std::process::ExitCode;
use std::time::Duration;

/// Block until one or more containers stop, then print their exit codes
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Wait for a state (stopped, running, healthy, …) instead of the end
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    condition: Vec<String>,
    /// Return as soon as the first container is in one of the states
    #[arg(long)]
    exit_first_match: bool,
    /// Give -1 for containers that are not there
    #[arg(long)]
    ignore: bool,
    /// How often to look for a state other than the end
    #[arg(short, long, value_name = "TIME", default_value = "250ms")]
    interval: String,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Wait for all of them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    for condition in &args.condition {
        if !wait::CONDITIONS.contains(&condition.as_str()) {
            bail!("invalid condition {condition:?}: one of {}", wait::CONDITIONS.join(", "));
        }
    }
    let interval = match args.interval.parse::<u64>() {
        Ok(milliseconds) => Duration::from_millis(milliseconds),
        Err(_) => Duration::from_nanos(unit::parse_duration_ns(&args.interval).context("--interval")?),
    };
    let wish = Wish { names: args.containers, latest: args.latest, ..Wish::default() };
    let chosen = select::select(engine, &wish, "wait", |_, _| true)?;
    let one_code = |one: &Chosen| match &one.id {
        None if args.ignore => Ok(-1),
        _ => wait::wait_for(engine, one.id()?, &args.condition, interval),
    };
    if args.exit_first_match {
        return first(chosen, one_code);
    }
    each::run(&chosen, |one| Ok(Some(one_code(one)?.to_string())))
}

/// The first that is there decides; the others are waited for by nobody when the process ends.
fn first(chosen: Vec<Chosen>, one_code: impl Fn(&Chosen) -> Result<i32> + Sync) -> Result<ExitCode> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for one in &chosen {
            let (sender, one_code) = (sender.clone(), &one_code);
            scope.spawn(move || {
                let _ = sender.send(one_code(one));
            });
        }
        let code = receiver.recv().context("nothing to wait for")??;
        present::text(&format!("{code}\n"))?;
        // A scope would wait for the others.
        std::process::exit(0)
    })
}
