//! `coracle volume prune`.

use crate::command::present::{self, confirm};
use crate::engine::{Engine, volume};
use anyhow::Result;
use std::process::ExitCode;

/// Remove unused volumes
///
/// Only anonymous ones, unless --all is given.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Show which volumes would be removed without removing them
    #[arg(long)]
    dry_run: bool,
    /// Provide filter values (e.g. 'label=<key>=<value>')
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Remove them; their names go to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let filters = volume::Filters::parse(&args.filter)?;
    let candidates: Vec<String> =
        volume::unused(engine, args.all, &filters)?.into_iter().map(|volume| volume.name).collect();
    let listed = |names: &[String]| names.iter().map(|name| format!("{name}\n")).collect::<String>();
    if args.dry_run {
        present::text(&listed(&candidates))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force && candidates.is_empty() {
        let kind = if args.all { "" } else { "anonymous " };
        present::line(format!("No dangling {kind}volumes found"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force {
        let which = if args.all { "all volumes" } else { "all anonymous volumes" };
        let warning = format!(
            "WARNING! This will remove {which} not used by at least one container. The following volumes will be removed:\n{}",
            listed(&candidates)
        );
        if !confirm(warning.trim_end())? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let (gone, _) = volume::prune(engine, args.all, &filters)?;
    present::text(&listed(&gone))?;
    Ok(ExitCode::SUCCESS)
}
