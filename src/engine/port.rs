//! Ports published and withdrawn while a container lives, and from then on with each start.

use crate::engine::Engine;
use crate::engine::inspect::ports;
use crate::engine::list;
use crate::failure::{Failure, Kind};
use crate::model::network::NetworkMode;
use crate::model::port::{PortMapping, Protocol};
use crate::state::container::ContainerRecord;
use crate::state::lock::{self, Mode, Rank};
use crate::supervisor::client;
use crate::supervisor::message::Request;
use anyhow::{Context, Result};
use std::net::IpAddr;

/// Which ports to withdraw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Address of the host; absent: whatever it is.
    pub host_ip: Option<IpAddr>,
    /// First port on the host; absent: whatever it is.
    pub host_port: Option<u16>,
    /// First port inside.
    pub container_port: u16,
    /// How many.
    pub length: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Pattern {
    fn matches(&self, mapping: &PortMapping) -> bool {
        let PortMapping { host_ip, host_port, container_port, length, protocol } = mapping;
        self.host_ip.is_none_or(|address| Some(address) == *host_ip)
            && self.host_port.is_none_or(|port| port == *host_port)
            && (self.container_port, self.length, self.protocol) == (*container_port, *length, *protocol)
    }
}

/// `port add`. A running container publishes at once; returns the mapping as it became.
pub fn add(engine: &Engine, container: &str, mapping: &PortMapping) -> Result<PortMapping> {
    let id = list::get(engine, container)?.record.id;
    let _guard = lock::lock(&engine.layout.container(&id), Rank::Container, Mode::Exclusive)?;
    let mut record = ContainerRecord::load(&engine.layout, &id)?;
    check_mode(&record)?;
    let what = || format!("publish port {} of {}", mapping.container_port, record.name);
    if mapping.host_port != 0 && record.spec.network.publish.contains(mapping) {
        return Err(Failure::new(Kind::Engine, format!("{}: it is published already", what())).into());
    }
    let mut became = mapping.clone();
    if let Some(connection) = client::connect(&engine.layout, &id)? {
        connection.ask(&Request::Publish(mapping.clone()), &[]).with_context(what)?;
        let now = ports::published(&list::get(engine, id.as_str())?);
        became = now.last().cloned().unwrap_or(became);
    }
    record.spec.network.publish.push(mapping.clone());
    record.save(&engine.layout)?;
    Ok(became)
}

/// `port rm`. Returns the mappings that are published no longer.
pub fn remove(engine: &Engine, container: &str, pattern: Pattern) -> Result<Vec<PortMapping>> {
    let id = list::get(engine, container)?.record.id;
    let _guard = lock::lock(&engine.layout.container(&id), Rank::Container, Mode::Exclusive)?;
    let mut record = ContainerRecord::load(&engine.layout, &id)?;
    let published = ports::published(&list::get(engine, id.as_str())?);
    let found: Vec<&PortMapping> = published.iter().filter(|mapping| pattern.matches(mapping)).collect();
    if found.is_empty() {
        let message = format!("container {} does not publish that port", record.name);
        let has_part = published.iter().find(|mapping| is_part(&pattern, mapping)).map(|mapping| {
            let last = mapping.container_port + (mapping.length - 1);
            format!("it is part of the range {}-{last}, which can be withdrawn as a whole", mapping.container_port)
        });
        let hint = has_part.unwrap_or_else(|| format!("`coracle port {}` lists what it publishes", record.name));
        return Err(Failure::new(Kind::Engine, message).hint(hint).into());
    }
    let connection = client::connect(&engine.layout, &id)?;
    let mut removed = Vec::new();
    for mapping in found {
        let Some(at) = record.spec.network.publish.iter().position(|wanted| became(wanted, mapping)) else {
            let message = format!("port {} of {}: published by --publish-all", mapping.container_port, record.name);
            return Err(Failure::new(Kind::Engine, message)
                .hint("make the container again without --publish-all")
                .into());
        };
        if let Some(connection) = &connection {
            let what = || format!("withdraw port {} of {}", mapping.container_port, record.name);
            connection.ask(&Request::Withdraw(mapping.clone()), &[]).with_context(what)?;
        }
        record.spec.network.publish.remove(at);
        removed.push(mapping.clone());
    }
    record.save(&engine.layout)?;
    Ok(removed)
}

/// Whether this is what was wanted, with a free port chosen where none was named.
fn became(wanted: &PortMapping, mapping: &PortMapping) -> bool {
    let chosen = PortMapping { host_port: 0, ..mapping.clone() };
    wanted == mapping || *wanted == chosen
}

/// Whether what is meant lies inside this mapping.
fn is_part(pattern: &Pattern, mapping: &PortMapping) -> bool {
    let inside = mapping.container_port..=mapping.container_port + (mapping.length - 1);
    mapping.length > 1 && mapping.protocol == pattern.protocol && inside.contains(&pattern.container_port)
}

fn check_mode(record: &ContainerRecord) -> Result<()> {
    let word = match &record.spec.network.mode {
        None | Some(NetworkMode::Networks(_) | NetworkMode::Pasta(_)) => return Ok(()),
        Some(NetworkMode::Host) => "host",
        Some(NetworkMode::None) => "none",
        Some(NetworkMode::Container(_)) => "container",
        Some(NetworkMode::Path(_)) => "ns",
    };
    Err(Failure::new(Kind::Engine, format!("publish ports of {}: its network mode is `{word}`", record.name))
        .hint(match word {
            "host" => "what listens in it listens on the host itself",
            "container" => "publish them at the container whose network it shares",
            _ => "only containers with a network of their own can publish ports",
        })
        .into())
}
