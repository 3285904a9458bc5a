//! `coracle kill`.

use super::each;
use crate::engine::Engine;
use crate::engine::select::{self, Wish};
use crate::engine::stop;
use crate::model::signal;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Kill one or more running containers with a specific signal
///
/// The signal (SIGKILL, if no other is named) is sent to the container's first process.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Signal all running containers
    #[arg(short, long)]
    all: bool,
    /// Read the container ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<String>,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Signal to send, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", allow_hyphen_values = true)]
    signal: String,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Signal them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let number = parse_signal(&args.signal)?;
    let wish =
        Wish { names: args.containers, all: args.all, latest: args.latest, cidfiles: args.cidfile, ..Wish::default() };
    let chosen =
        select::select(engine, &wish, "kill", |_, state| matches!(state.word(), "running" | "paused" | "stopping"))?;
    each::run(&chosen, |one| {
        stop::kill(engine, one.id()?, number)?;
        Ok(Some(one.shown.clone()))
    })
}

/// `-TERM` and `-15` mean what they mean to kill(1).
fn parse_signal(text: &str) -> Result<i32> {
    let bare = text.strip_prefix('-').unwrap_or(text);
    match bare.parse::<i64>() {
        Ok(0) => bail!("invalid signal: {bare}"),
        Ok(number) if !(1..=64).contains(&number) => bail!("valid signals are 1 through 64"),
        _ => signal::parse(bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in [("KILL", 9), ("-1", 1), ("-INT", 2), ("-SIGUSR1", 10), ("64", 64)] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for (text, message) in [
            ("0", "invalid signal: 0"),
            ("-SIG", "invalid signal: SIG"),
            ("-", "invalid signal: "),
            ("65", "valid signals are 1 through 64"),
            ("-65", "valid signals are 1 through 64"),
            ("BADSIG", "invalid signal: BADSIG"),
        ] {
            assert_eq!(parse_signal(text).unwrap_err().to_string(), message);
        }
    }
}
