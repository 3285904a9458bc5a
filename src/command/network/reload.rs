//! `coracle network reload`.

use crate::command::present;
use crate::engine::{Engine, network};
use crate::failure::{Failure, Kind};
use crate::state::container;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Put back the firewall rules of containers' networks
///
/// Needed when another tool flushed them and no container was started since. The rules are those of all networks,
/// whichever containers are named.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// All containers
    #[arg(short, long)]
    all: bool,
    /// The container started last
    #[arg(short, long, hide = true)]
    latest: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Do it and print the ids of those concerned.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.all != args.containers.is_empty() {
        bail!("name containers, or all of them with `--all`");
    }
    let mut wanted = Vec::new();
    for name in &args.containers {
        let Some(id) = container::find(&engine.layout, name)? else {
            let message = format!("no container with name or ID \"{name}\" found: no such container");
            return Err(Failure::new(Kind::Engine, message).into());
        };
        wanted.push(id);
    }
    let reloaded = network::reload(engine)?;
    for id in reloaded.iter().filter(|id| args.all || wanted.contains(id)) {
        present::line(id)?;
    }
    Ok(ExitCode::SUCCESS)
}
