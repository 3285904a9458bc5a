//! `coracle container prune`.

use crate::command::present;
use crate::engine::list::{self, Filters, Scope};
use crate::engine::{Engine, remove};
use crate::failure::{Failure, Kind};
use anyhow::Result;
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

/// Remove all containers that do not run
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Only containers that match: label=, label!=, until=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Remove them and print their ids.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    for word in &args.filter {
        let key = word.split(['=', '!']).next().unwrap_or_default();
        if !["label", "until"].contains(&key) {
            return Err(Failure::new(Kind::Engine, format!("{key} is an invalid filter")).into());
        }
    }
    let filters = Filters::parse(engine, &args.filter)?;
    if !args.force && !confirm("WARNING! This will remove all non running containers.")? {
        return Ok(ExitCode::SUCCESS);
    }
    let (containers, errors) = list::list(engine, Scope::All)?;
    for error in errors {
        eprintln!("coracle: {error:#}");
    }
    let mut failed = false;
    for container in containers.iter().filter(|container| !container.state.is_live() && filters.hold(container)) {
        match remove::remove(engine, &container.record.id, remove::Wish::default()) {
            Ok(removed) => {
                for id in removed {
                    present::line(id)?;
                }
            }
            Err(error) => {
                failed = true;
                eprintln!("coracle: {}", crate::failure::message_of(&error));
            }
        }
    }
    Ok(if failed { ExitCode::from(125) } else { ExitCode::SUCCESS })
}

/// Ask, and read the answer; without a terminal the answer comes from standard input all the same, as with podman.
fn confirm(warning: &str) -> Result<bool> {
    eprintln!("{warning}");
    eprint!("Are you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !std::io::stdin().is_terminal() {
        eprintln!();
    }
    Ok(answer.trim().to_ascii_lowercase().starts_with('y'))
}
