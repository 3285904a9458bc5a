//! The published ports of a container: reserved before it starts, then led to where the container can be reached.
//!
//! By the firewall's rules where they can do it, so that the client's address stays. What they cannot do (a client of
//! the other address family, `::1`, and all with `publish = "input"`) the supervisor passes on by a [`Relay`]. An
//! ordinary user's ports are all passed on by the forwarder.

use super::join::{self, Joining};
use super::{Attached, Interface, Record, Request, Scene};
use crate::failure::{Failure, Kind};
use crate::model::port::{PortMapping, Protocol, Publication};
use crate::network::forward::message::Port;
use crate::network::port::{self, Reserved};
use crate::network::relay::{Plain, Relay};
use crate::network::{conf, create};
use crate::state::network::{self, Driver};
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The ports of one mapping while they are held.
#[derive(Debug)]
pub(super) struct Held {
    mapping: PortMapping,
    reserved: Vec<Reserved>,
    /// Their keys in the relay, where there is one.
    keys: Vec<u64>,
}

/// Where ports lead: the container's addresses on the first network that others can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
}

impl Targets {
    pub fn of(interfaces: &[Interface]) -> Targets {
        let Some(interface) = interfaces.iter().find(|interface| interface.inward) else { return Targets::default() };
        let address = |ipv4: bool| {
            let mut addresses = interface.addresses.iter().map(|subnet| subnet.address);
            addresses.find(|address| address.is_ipv4() == ipv4)
        };
        Targets { ipv4: address(true), ipv6: address(false) }
    }

    fn is_nowhere(self) -> bool {
        self == Targets::default()
    }

    fn of_family(self, ipv4: bool) -> Option<IpAddr> {
        if ipv4 { self.ipv4 } else { self.ipv6 }
    }

    /// The container's end for what comes to this port by hand.
    fn end(self, port: &Reserved) -> Option<SocketAddr> {
        let address = self.of_family(port.address.is_ipv4()).or(self.ipv4).or(self.ipv6)?;
        Some(SocketAddr::new(address, port.target_port))
    }
}

/// Whether others can reach a container through this network.
pub(super) fn is_inward(one: &Joining<'_>) -> bool {
    one.record.driver == Driver::Bridge && !one.record.internal
}

/// Reserve what the container wants to publish, and note what it becomes.
pub(super) fn reserve(request: &Request<'_>, joining: &[Joining<'_>], attached: &mut Attached) -> Result<()> {
    attached.ports = port::wanted(request.network);
    if attached.ports.is_empty() {
        return Ok(());
    }
    let targets = Targets::of(&attached.interfaces);
    if targets.is_nowhere() {
        return Err(nowhere());
    }
    let by_rules = by_rules(request.rootless, joining.iter().any(|one| one.record.name == create::PRIVATE))?;
    let binding = joining.iter().find(|one| is_inward(one)).and_then(|one| one.options.host_binding);
    attached.held.ports = take(&mut attached.ports, binding, by_rules)?;
    if by_rules {
        attached.publications = publications(&attached.held.ports, targets);
    }
    Ok(())
}

/// Whether the firewall's rules lead to the ports.
fn by_rules(rootless: bool, private: bool) -> Result<bool> {
    Ok(!rootless && !private && conf::get()?.publish == conf::Publish::Forward)
}

fn nowhere() -> anyhow::Error {
    Failure::new(Kind::Engine, "publish ports: none of the container's networks can be reached from outside")
        .hint("join a bridge network that is not internal")
        .into()
}

fn take(mappings: &mut [PortMapping], binding: Option<IpAddr>, by_rules: bool) -> Result<Vec<Held>> {
    if let Some(mapping) = mappings.iter().find(|mapping| mapping.protocol == Protocol::Sctp && !by_rules) {
        let message = format!("publish port {}/sctp: only the firewall's rules can lead to it", mapping.container_port);
        return Err(Failure::new(Kind::Engine, message)
            .hint("as root on a bridge network, with `publish = \"forward\"`, SCTP can be published")
            .into());
    }
    let reserved = port::reserve(mappings, binding)?;
    let mappings = mappings.iter().cloned();
    Ok(mappings.zip(reserved).map(|(mapping, reserved)| Held { mapping, reserved, keys: Vec::new() }).collect())
}

/// What the rules are told; neighbours that lead to neighbours are one.
fn publications(ports: &[Held], targets: Targets) -> Vec<Publication> {
    let mut list: Vec<Publication> = Vec::new();
    for held in ports {
        for ipv4 in [true, false] {
            let Some(target) = targets.of_family(ipv4) else { continue };
            for one in held.reserved.iter().filter(|one| one.covers(ipv4)) {
                let next = Publication {
                    host: (!one.address.ip().is_unspecified()).then(|| one.address.ip()),
                    port: one.address.port(),
                    length: 1,
                    protocol: one.protocol,
                    target,
                    target_port: one.target_port,
                };
                match list.last_mut() {
                    Some(last) if last.is_followed_by(&next) => last.length += 1,
                    _ => list.push(next),
                }
            }
        }
    }
    list
}

/// The rules' elements that lead to this interface.
pub(super) fn ports_of<'a>(
    ports: &'a [Publication],
    interface: &'a Interface,
) -> impl Iterator<Item = Publication> + 'a {
    ports.iter().filter(|port| interface.addresses.iter().any(|subnet| subnet.address == port.target)).copied()
}

/// For the forwarder: what comes to these sockets, and where it goes.
fn handed(ports: &[Held], targets: Targets) -> Vec<(Port, Arc<OwnedFd>)> {
    let reserved = ports.iter().flat_map(|held| &held.reserved);
    let one = |one: &Reserved| {
        let port = Port { protocol: one.protocol, host: one.address, target: targets.end(one)? };
        Some((port, Arc::clone(one.socket.as_ref()?)))
    };
    reserved.filter_map(one).collect()
}

impl Attached {
    /// Everything is reserved and the links are there: let clients in.
    pub(super) fn open_ports(&mut self, request: &Request<'_>) -> Result<()> {
        self.held.targets = Targets::of(&self.interfaces);
        let host = self.held.host.as_ref().context("the host's side is closed")?;
        if !self.publications.is_empty() || !host.firewall().is_there()? {
            host.publish(request.layout, &[], &self.publications)?;
        }
        let count = self.held.ports.len();
        self.pass_on(0..count)
    }

    /// Hand these ports to whoever passes on what comes to their sockets.
    fn pass_on(&mut self, which: std::ops::Range<usize>) -> Result<()> {
        let targets = self.held.targets;
        let ports = &mut self.held.ports[which];
        if ports.is_empty() {
            return Ok(());
        }
        if let Some(forward) = &mut self.held.forward {
            return forward.publish(handed(ports, targets));
        }
        let relay = match &mut self.held.relay {
            Some(relay) => relay,
            empty => empty.insert(Relay::new()?),
        };
        for held in ports {
            for one in held.reserved.iter_mut().filter(|one| one.protocol != Protocol::Sctp) {
                let socket = one.socket.take().and_then(Arc::into_inner).context("a port's socket is in use")?;
                held.keys.push(relay.publish(one.protocol, socket, targets.end(one))?);
            }
        }
        Ok(())
    }

    /// The container has joined or left a network: its ports lead to the first that is there now.
    pub(super) fn lead_ports(&mut self, scene: &Scene) -> Result<()> {
        let (old, new) = (self.held.targets, Targets::of(&self.interfaces));
        if old == new || self.held.ports.is_empty() {
            self.held.targets = new;
            return Ok(());
        }
        self.held.targets = new;
        if let Some(forward) = &mut self.held.forward {
            let gone: Vec<Port> = handed(&self.held.ports, old).into_iter().map(|(port, _)| port).collect();
            forward.withdraw(&gone)?;
            return forward.publish(handed(&self.held.ports, new));
        }
        if let Some(relay) = &mut self.held.relay {
            for held in &self.held.ports {
                let relayed = held.reserved.iter().filter(|one| one.protocol != Protocol::Sctp);
                for (key, one) in held.keys.iter().zip(relayed) {
                    relay.retarget(*key, new.end(one));
                }
            }
        }
        if by_rules(scene.rootless, false)? {
            let host = self.held.host.as_ref().context("the host's side is closed")?;
            host.withdraw(&self.publications)?;
            self.publications = publications(&self.held.ports, new);
            self.write_members(scene)?;
            let host = self.held.host.as_ref().context("the host's side is closed")?;
            host.publish(&scene.layout, &[], &self.publications)?;
        }
        Ok(())
    }

    /// `port add`: publish more while the container runs.
    pub fn publish(&mut self, mappings: &[PortMapping], record: &mut Record<'_>) -> Result<()> {
        let scene = self.held.scene.take().ok_or_else(cannot_publish)?;
        let result = self.publish_in(&scene, mappings.to_vec(), record);
        self.held.scene = Some(scene);
        result
    }

    fn publish_in(&mut self, scene: &Scene, mut mappings: Vec<PortMapping>, record: &mut Record<'_>) -> Result<()> {
        if self.held.targets.is_nowhere() {
            return Err(nowhere());
        }
        let by_rules = by_rules(scene.rootless, self.held.forward.is_some())?;
        let held = take(&mut mappings, scene.binding, by_rules)?;
        let before = self.held.ports.len();
        self.held.ports.extend(held);
        self.ports.extend_from_slice(&mappings);
        let more = match by_rules {
            true => publications(&self.held.ports[before..], self.held.targets),
            false => Vec::new(),
        };
        self.publications.extend_from_slice(&more);
        let tried = self.tell_ports(scene, record).and_then(|()| {
            let host = self.held.host.as_ref().context("the host's side is closed")?;
            host.publish(&scene.layout, &[], &more)?;
            self.pass_on(before..self.held.ports.len())
        });
        if tried.is_err() {
            // Undo what was done, and say the first error.
            for mapping in &mappings {
                let _ = self.withdraw_in(scene, mapping, record);
            }
        }
        tried
    }

    /// `port rm`: publish this no longer.
    pub fn withdraw(&mut self, mapping: &PortMapping, record: &mut Record<'_>) -> Result<()> {
        let scene = self.held.scene.take().ok_or_else(cannot_publish)?;
        let result = self.withdraw_in(&scene, mapping, record);
        self.held.scene = Some(scene);
        result
    }

    fn withdraw_in(&mut self, scene: &Scene, mapping: &PortMapping, record: &mut Record<'_>) -> Result<()> {
        let index = self.held.ports.iter().position(|held| held.mapping == *mapping);
        let index = index.context("the port is not published")?;
        let held = self.held.ports.remove(index);
        self.ports.retain(|other| other != mapping);
        let mut first = Ok(());
        let mut note = |result: Result<()>| {
            if first.is_ok() {
                first = result;
            }
        };
        let held = [held];
        let gone = publications(&held, self.held.targets);
        self.publications.retain(|one| !gone.contains(one));
        if let Some(host) = &self.held.host {
            note(host.withdraw(&gone));
        }
        if let Some(relay) = &mut self.held.relay {
            held[0].keys.iter().for_each(|key| relay.withdraw(*key));
        }
        if let Some(forward) = &mut self.held.forward {
            let ports = handed(&held, self.held.targets);
            note(forward.withdraw(&ports.iter().map(|(port, _)| *port).collect::<Vec<_>>()));
        }
        note(self.tell_ports(scene, record));
        first
    }

    /// Say in our document, and in those of the networks, what is published now.
    fn tell_ports(&self, scene: &Scene, record: &mut Record<'_>) -> Result<()> {
        record(self)?;
        self.write_members(scene)
    }

    fn write_members(&self, scene: &Scene) -> Result<()> {
        let id = self.id.clone().context("the container has no id")?;
        let request = scene.request(&id);
        for interface in &self.interfaces {
            let ports: Vec<Publication> = ports_of(&self.publications, interface).collect();
            network::enter(&scene.layout, &interface.network, &join::member(&request, interface, ports))?;
        }
        Ok(())
    }

    /// Pass on what has come to the ports' sockets.
    pub(super) fn relay(&mut self) {
        if let Some(relay) = &mut self.held.relay {
            relay.ready(&mut Plain);
        }
    }
}

fn cannot_publish() -> anyhow::Error {
    Failure::new(Kind::Engine, "the container's network mode publishes no ports: invalid network mode")
        .hint("only containers with a network of their own can publish ports")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(addresses: &[&str]) -> Held {
        let socket = || std::fs::File::open("/dev/null").unwrap().into();
        let mapping =
            PortMapping { host_ip: None, host_port: 1, container_port: 1, length: 1, protocol: Protocol::Tcp };
        let reserved = addresses.iter().map(|address| {
            let address: SocketAddr = address.parse().unwrap();
            let dual = address.ip().is_unspecified() && address.is_ipv6();
            Reserved {
                socket: Some(Arc::new(socket())),
                address,
                dual,
                protocol: Protocol::Tcp,
                target_port: address.port() - 8000,
            }
        });
        Held { mapping, reserved: reserved.collect(), keys: Vec::new() }
    }

    #[test]
    fn neighbours_are_one_and_families_do_not_mix() {
        let ports = [held(&["[::]:8080", "[::]:8081", "0.0.0.0:8083"])];
        let ipv4 = IpAddr::from([10, 0, 0, 2]);
        let list = publications(&ports, Targets { ipv4: Some(ipv4), ipv6: None });
        let short: Vec<_> = list.iter().map(|one| (one.port, one.length, one.target_port)).collect();
        assert_eq!(short, [(8080, 2, 80), (8083, 1, 83)]);
        let both = publications(&ports, Targets { ipv4: Some(ipv4), ipv6: Some("fd00::2".parse().unwrap()) });
        assert_eq!(both.len(), 3);
        let end = Targets { ipv4: Some(ipv4), ipv6: None }.end(&ports[0].reserved[0]);
        assert_eq!(end, Some(SocketAddr::new(ipv4, 80)));
    }
}
