//! `start`, `kill`, `pause`, `resume`, `delete`.

use super::IdOnly;
use super::global::Global;
use crate::runtime::lifecycle::{Status, parse_signal};
use anyhow::{Context, Result};
use clap::Parser;
use std::process::ExitCode;

/// Let a created container execute its command.
pub fn start(global: &Global, args: IdOnly) -> Result<ExitCode> {
    global.container(&args.id)?.start()?;
    Ok(ExitCode::SUCCESS)
}

/// The options of `kill`.
#[derive(Parser)]
pub struct Kill {
    /// To all processes, not only to the first one.
    #[arg(short, long)]
    all: bool,
    /// The container.
    id: String,
    /// By name or number.
    #[arg(default_value = "TERM")]
    signal: String,
}

/// Send a signal.
pub fn kill(global: &Global, args: Kill) -> Result<ExitCode> {
    let signal = parse_signal(&args.signal)?;
    let container = global.container(&args.id)?;
    if args.all {
        container.signal_all(signal)?;
    } else if signal == libc::SIGKILL && (container.status()? != Status::Stopped || container.has_survivors()?) {
        container.kill()?;
    } else {
        container.signal(signal)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Stop all processes where they are.
pub fn pause(global: &Global, args: IdOnly) -> Result<ExitCode> {
    global.container(&args.id)?.pause()?;
    Ok(ExitCode::SUCCESS)
}

/// Let them go on.
pub fn resume(global: &Global, args: IdOnly) -> Result<ExitCode> {
    global.container(&args.id)?.resume()?;
    Ok(ExitCode::SUCCESS)
}

/// The options of `delete`.
#[derive(Parser)]
pub struct Delete {
    /// Kill it first, and do not mind one that is not there.
    #[arg(short, long)]
    force: bool,
    /// The ids are regular expressions.
    #[arg(short, long)]
    regex: bool,
    /// The containers.
    #[arg(required = true)]
    ids: Vec<String>,
}

/// Remove containers that have ended.
pub fn delete(global: &Global, args: Delete) -> Result<ExitCode> {
    for id in if args.regex { matching(global, &args.ids)? } else { args.ids } {
        if args.force && !global.root.has(&id)? {
            continue;
        }
        for failure in global.root.container(&id)?.delete(args.force)? {
            global.warn(&failure);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All containers whose id one of the expressions matches.
fn matching(global: &Global, expressions: &[String]) -> Result<Vec<String>> {
    let parse = |text: &String| regex_lite::Regex::new(text).with_context(|| format!("--regex {text:?}"));
    let expressions = expressions.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let (containers, _) = global.root.list()?;
    let ids = containers.into_iter().map(|container| container.record.id);
    Ok(ids.filter(|id| expressions.iter().any(|expression| expression.is_match(id))).collect())
}
