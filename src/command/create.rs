//! `coracle create`.

use super::flag::container::{Container, is_passthrough};
use super::flag::{Surroundings, lifecycle};
use super::present;
use crate::engine::Engine;
use crate::engine::create::{self, Wish};
use crate::model::container::ContainerSpec;
use crate::model::network::NetworkMode;
use crate::state::container::ContainerRecord;
use anyhow::Result;
use std::process::ExitCode;

/// Create but do not start a container
#[derive(clap::Parser, Debug)]
#[command(disable_help_flag = true, override_usage = "coracle create [OPTIONS] IMAGE [COMMAND [ARG...]]")]
pub struct Args {
    #[command(flatten)]
    container: Container,
    /// Attach to stdin, stdout or stderr (kept for docker's sake: `start -a` attaches)
    #[arg(short, long, value_name = "STREAM", hide = true)]
    attach: Vec<String>,
}

/// Make the container and print its id.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let wish = args.container.into_wish(&Surroundings::of_new_container(engine)?)?;
    let quiet = is_passthrough(&wish.spec);
    let record = make(engine, wish)?;
    if !quiet {
        present::text(&format!("{}\n", record.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Create, and write the id where `--cidfile` says.
pub fn make(engine: &Engine, mut wish: Wish) -> Result<ContainerRecord> {
    if let Some(warning) = discard_ports(&mut wish.spec) {
        eprintln!("{warning}");
    }
    let cidfile = wish.spec.lifecycle.cidfile.clone();
    let progress = present::progress::Progress::new(wish.pull.quiet);
    let record = create::create(engine, wish, &progress)?;
    if let Some(path) = &cidfile {
        lifecycle::write_cidfile(path, record.id.as_str())?;
    }
    Ok(record)
}

/// A namespace that is not the container's own has no ports of its own to publish; podman's scripts expect the warning.
fn discard_ports(spec: &mut ContainerSpec) -> Option<String> {
    let mode = match spec.network.mode {
        Some(NetworkMode::Host) => "host",
        Some(NetworkMode::None) => "none",
        Some(NetworkMode::Container(_)) => "container",
        _ => return None,
    };
    if spec.network.publish.is_empty() {
        return None;
    }
    spec.network.publish.clear();
    Some(format!("Port mappings have been discarded because {mode:?} network namespace mode does not support them"))
}
