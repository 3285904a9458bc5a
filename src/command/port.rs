//! `coracle port`.

use super::present;
use crate::engine::Engine;
use crate::engine::inspect::ports;
use crate::engine::list::{self, Listed, Scope};
use crate::model::port::Protocol;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write;
use std::process::ExitCode;

/// List port mappings or a specific mapping for the container
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Display port information for all containers
    #[arg(short, long)]
    all: bool,
    /// Act on the latest container
    #[arg(short, long)]
    latest: bool,
    /// The container, and the port inside it: PORT[/PROTOCOL]
    #[arg(value_name = "CONTAINER [PORT]", num_args = 0..=2)]
    words: Vec<String>,
}

/// Print the mappings.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(!(args.all && args.latest), "--all and --latest cannot be used together");
    let mut words = args.words.iter();
    let containers = if args.all {
        list::list(engine, Scope::Live)?.0
    } else if args.latest {
        vec![list::latest(engine)?]
    } else {
        let name = words.next().context("you must supply a running container name or id")?;
        vec![list::get(engine, name)?]
    };
    let wanted = words.next().map(|word| wanted(word)).transpose()?;
    ensure!(words.next().is_none() && !(args.all && wanted.is_some()), "too many arguments");
    let mut text = String::new();
    for container in &containers {
        if args.all {
            let _ = writeln!(text, "{}", container.record.id);
        }
        if wanted.is_some() && !container.state.is_live() {
            bail!("container {} is not running: container state improper", container.record.name);
        }
        let before = text.len();
        write_ports(container, wanted, &mut text);
        if let Some((port, protocol)) = wanted
            && text.len() == before
        {
            bail!("failed to find published port \"{port}/{}\"", protocol.as_str());
        }
    }
    present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn wanted(word: &str) -> Result<(u16, Protocol)> {
    let (first, last, protocol) = super::flag::port::expose(word)?;
    ensure!(first == last, "{word}: one port at a time");
    Ok((first, protocol))
}

/// `80/tcp -> 0.0.0.0:8080`; of the wanted port only the host's side.
fn write_ports(container: &Listed, wanted: Option<(u16, Protocol)>, text: &mut String) {
    for port in ports::singles(container) {
        let host = match port.address.as_str() {
            "" => "0.0.0.0".to_owned(),
            address if address.contains(':') => format!("[{address}]"),
            address => address.to_owned(),
        };
        let _ = match wanted {
            None => writeln!(text, "{}/{} -> {host}:{}", port.inside, port.protocol.as_str(), port.outside),
            Some(wanted) if wanted == (port.inside, port.protocol) => writeln!(text, "{host}:{}", port.outside),
            Some(_) => Ok(()),
        };
    }
}
