//! `coracle network prune`.

use super::ls::Filters;
use crate::command::present;
use crate::engine::{Engine, network};
use anyhow::{Context, Result};
use std::io::BufRead;
use std::process::ExitCode;

/// Remove all networks that no container uses
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match, KEY=VALUE: label, until
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Ask, remove, and print what was removed.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let filters = Filters::parse(&args.filter)?;
    if !args.force {
        present::text(
            "WARNING! This will remove all networks not used by at least one container.\n\
             Are you sure you want to continue? [y/N] ",
        )?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut removed = Vec::new();
    for record in network::list(engine)? {
        if network::is_unused(engine, &record)? && filters.matches(engine, &record)? {
            network::remove(engine, &record)?;
            removed.push(record.name);
        }
    }
    if !removed.is_empty() {
        present::text(&format!("Deleted Networks\n{}\n", removed.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}
