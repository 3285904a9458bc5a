//! `coracle port`, and `port add` and `port rm`.

use super::present;
use crate::engine::Engine;
use crate::engine::inspect::ports::{self, Single};
use crate::engine::list::{self, Listed, Scope};
use crate::engine::port::{self, Pattern};
use crate::model::port::{PortMapping, Protocol};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write;
use std::process::ExitCode;

/// List, add or remove the published ports of a container
///
/// `port CONTAINER [PORT]` lists them. `port add CONTAINER SPEC…` publishes more, and `port rm CONTAINER SPEC…` withdraws
/// some, at once where the container runs and from then on with each start. SPEC is that of `run --publish`,
/// [[IP:]HOST:]CONTAINER[/PROTOCOL]; to withdraw, what it leaves out may be anything.
///
/// As root, published ports are reached by forwarding rules of coracle's own. The client's address is kept, and as with
/// podman and docker a host firewall's rules for incoming packets do not see these packets. With `publish = "input"` in
/// the table `network` of containers.conf(5) they do: the ports are then as those of any program that listens on the
/// host, and containers see the bridge's address as the client's. An ordinary user's ports are always of that kind, but
/// for the client's address, which is kept.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Display port information for all containers
    #[arg(short, long)]
    all: bool,
    /// Act on the latest container
    #[arg(short, long)]
    latest: bool,
    /// The container, and the port inside it: PORT[/PROTOCOL]; or `add` or `rm`, the container, and ports
    #[arg(value_name = "CONTAINER [PORT]", num_args = 0..)]
    words: Vec<String>,
}

/// Print the mappings, or change them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(!(args.all && args.latest), "--all and --latest cannot be used together");
    if let [verb, container, specs @ ..] = args.words.as_slice()
        && !specs.is_empty()
        && !args.all
        && !args.latest
    {
        return match verb.as_str() {
            "add" => add(engine, container, specs),
            "rm" | "remove" => remove(engine, container, specs),
            _ => bail!("too many arguments"),
        };
    }
    show(args, engine)
}

/// Publish more, all of it or what came before the first error.
fn add(engine: &Engine, container: &str, specs: &[String]) -> Result<ExitCode> {
    let mappings: Vec<PortMapping> =
        specs.iter().map(|spec| super::flag::port::publish(spec)).collect::<Result<_>>()?;
    for mapping in &mappings {
        let became = port::add(engine, container, mapping)?;
        let mut text = String::new();
        for single in ports::singles_of(std::slice::from_ref(&became)) {
            let _ = writeln!(text, "{}", line(&single));
        }
        present::text(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(engine: &Engine, container: &str, specs: &[String]) -> Result<ExitCode> {
    let patterns: Vec<Pattern> = specs.iter().map(|spec| pattern(spec)).collect::<Result<_>>()?;
    for pattern in patterns {
        port::remove(engine, container, pattern)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn pattern(spec: &str) -> Result<Pattern> {
    let PortMapping { host_ip, host_port, container_port, length, protocol } = super::flag::port::publish(spec)?;
    Ok(Pattern { host_ip, host_port: (host_port != 0).then_some(host_port), container_port, length, protocol })
}

fn show(args: Args, engine: &Engine) -> Result<ExitCode> {
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
        let _ = match wanted {
            None => writeln!(text, "{}", line(&port)),
            Some(wanted) if wanted == (port.inside, port.protocol) => writeln!(text, "{}", host_side(&port)),
            Some(_) => Ok(()),
        };
    }
}

fn line(port: &Single) -> String {
    format!("{}/{} -> {}", port.inside, port.protocol.as_str(), host_side(port))
}

fn host_side(port: &Single) -> String {
    let host = match port.address.as_str() {
        "" => "0.0.0.0".to_owned(),
        address if address.contains(':') => format!("[{address}]"),
        address => address.to_owned(),
    };
    format!("{host}:{}", port.outside)
}
