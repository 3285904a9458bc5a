//! `coracle rm`.

use super::each;
use crate::engine::Engine;
use crate::engine::remove;
use crate::engine::select::{self, Chosen, Wish};
use crate::failure::{self, Failure, Kind};
use anyhow::{Result, anyhow};
use std::process::ExitCode;

/// Remove one or more containers
///
/// Exit status: 1 if a container is not there, 2 if one is running or paused, 125 for other failures.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all containers
    #[arg(short, long)]
    all: bool,
    /// Read the container ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<String>,
    /// Remove containers that depend on this one first
    #[arg(long)]
    depend: bool,
    /// Only containers that match (KEY=VALUE, as in `ps`)
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Stop and remove running and paused containers too
    #[arg(short, long)]
    force: bool,
    /// Pass over containers that are not there
    #[arg(short, long)]
    ignore: bool,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// With --force: seconds to wait before a container is killed
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Remove anonymous volumes of the container too
    #[arg(short, long)]
    volumes: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Remove them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.time.is_some() && !args.force {
        return Err(anyhow!("--force option must be specified to use the --time option"));
    }
    let wish = Wish {
        names: args.containers,
        all: args.all,
        latest: args.latest,
        filters: args.filter,
        cidfiles: args.cidfile,
        ignore: args.ignore || args.force,
    };
    let chosen = select::select(engine, &wish, "rm", |_, _| true)?;
    let how = remove::Wish {
        force: args.force,
        // With --force podman removes them too.
        volumes: args.volumes,
        timeout_s: args.time,
        dependents: args.depend,
    };
    let one = |one: &Chosen| -> Result<Option<String>> {
        let Some(id) = &one.id else {
            let text = format!("no container with ID or name {:?} found: no such container", one.shown);
            return Err(Failure::new(Kind::Missing, text).into());
        };
        let removed = match remove::remove(engine, id, how) {
            Ok(removed) => removed,
            // Another command was faster, or it went with its process.
            Err(_) if !engine.layout.container(id).exists() => return Ok(Some(one.shown.clone())),
            Err(error) => return Err(error),
        };
        let lines = removed.iter().map(|other| if other == id { one.shown.clone() } else { other.to_string() });
        Ok(Some(lines.collect::<Vec<_>>().join("\n")).filter(|lines| !lines.is_empty()))
    };
    // Those that depend on each other must go one after the other.
    let results = match args.depend || args.all {
        true => chosen.iter().map(one).collect(),
        false => each::in_parallel(&chosen, one),
    };
    let worst =
        results.iter().filter_map(|result| result.as_ref().err()).map(failure::kind_of).max_by_key(|kind| rank(*kind));
    each::report(results).map_err(|error| match worst {
        Some(kind) => each::with_code(error, kind.exit_code()),
        None => error,
    })
}

/// Whose exit code counts, of several failures: podman's order.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Missing => 0,
        Kind::InUse => 1,
        _ => 2,
    }
}
