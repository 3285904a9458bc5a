//! Connecting a container and releasing what that took: one function up, one down.
//!
//! [`up`] first says what it is about to take (`record` writes it down), then takes it; whatever happens in between,
//! [`down`] with the last document written releases everything, and may be called again. What dies by itself needs no
//! release: the link pair goes with the container's namespace, reserved ports with the supervisor.

mod join;
mod live;
mod publish;
mod release;
mod resolver;

use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::model::network::{Endpoint, Network, NetworkMode};
use crate::model::port::{PortMapping, Publication};
use crate::model::subnet::Subnet;
use crate::network::forward;
use crate::network::host::Host;
use crate::network::names::Server;
use crate::network::relay::Relay;
use crate::network::resolv::{self, Resolver};
use crate::state::layout::Layout;
use crate::state::network::Driver;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use release::down;

/// The number in each document.
pub const VERSION: u32 = 1;

/// Called with each new state of the document, before what it says is taken.
pub type Record<'a> = dyn FnMut(&Attached) -> Result<()> + 'a;

/// What is asked for.
pub struct Request<'a> {
    /// The container.
    pub id: &'a Id,
    /// Its name.
    pub name: &'a str,
    /// Its host name (`--hostname`, or the short id).
    pub hostname: &'a str,
    /// Further names it answers to on every network (the pod's).
    pub aliases: &'a [String],
    /// Its network namespace; `None` for those that bring none (`host`, `container:`, `ns:`).
    pub namespace: Option<BorrowedFd<'a>>,
    /// Its network options. `mode` absent: the default.
    pub network: &'a Network,
    /// Where everything is.
    pub layout: &'a Layout,
    /// Not root of the machine.
    pub rootless: bool,
}

/// What a container has: the document that is kept while it runs, and what only its supervisor holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Format of this document.
    pub version: u32,
    /// The container.
    pub id: Option<Id>,
    /// One for each joined network, in the order asked for.
    pub interfaces: Vec<Interface>,
    /// Ports as published, free ones chosen.
    pub ports: Vec<PortMapping>,
    /// The rules' elements.
    pub publications: Vec<Publication>,
    /// What /etc/resolv.conf says; absent: it is left alone.
    pub resolver: Option<Resolver>,
    /// The container's addresses and names for /etc/hosts.
    pub hosts: Vec<(IpAddr, Vec<String>)>,
    /// Where the container finds the host.
    pub host_address: Option<IpAddr>,
    /// Held by the supervisor, never written.
    #[serde(skip)]
    pub held: Held,
}

/// One joined network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// The network's name.
    pub network: String,
    /// Its id.
    pub network_id: String,
    /// What made the link.
    pub driver: Driver,
    /// Name of the link inside.
    pub name: String,
    /// Name of the link on the host, if there is one.
    pub host_link: Option<String>,
    /// Hardware address.
    pub mac: String,
    /// Addresses with the length of their network part.
    pub addresses: Vec<Subnet>,
    /// The gateways of its subnets.
    pub gateways: Vec<IpAddr>,
    /// Whether it may give the default route.
    pub leads_out: bool,
    /// Whether published ports may lead here: others can reach it.
    pub inward: bool,
    /// Names on this network beside the container's own.
    pub aliases: Vec<String>,
}

/// What dies with the supervisor.
#[derive(Debug, Default)]
pub struct Held {
    ports: Vec<publish::Held>,
    targets: publish::Targets,
    relay: Option<Relay>,
    names: Option<Server>,
    host: Option<Host>,
    forward: Option<forward::Client>,
    scene: Option<Scene>,
}

/// What joining another network later needs to know.
#[derive(Debug)]
struct Scene {
    name: String,
    hostname: String,
    aliases: Vec<String>,
    namespace: OwnedFd,
    network: Network,
    layout: Layout,
    rootless: bool,
    /// The address on which ports are published that name none.
    binding: Option<IpAddr>,
}

impl Attached {
    /// What the supervisor polls for reading; after an event it calls [`Attached::ready`].
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let forward = self.held.forward.iter().map(forward::Client::fd);
        let relay = self.held.relay.iter().map(Relay::fd);
        self.held.names.iter().map(Server::fd).chain(forward).chain(relay).collect()
    }

    /// Do what the descriptors of [`Attached::fds`] have become ready for. Never blocks.
    pub fn ready(&mut self) {
        if let Some(names) = &mut self.held.names {
            names.ready();
        }
        self.relay();
        if let Some(forward) = &mut self.held.forward
            && forward.has_ended()
            && forward.restart().is_err()
        {
            // Without one the container has no way out; the next start makes one, and there is nobody to tell now.
            self.held.forward = None;
        }
    }

    /// The text of /etc/hosts. `base`: what it builds on (the host's file, the image's, or nothing).
    pub fn hosts_text(&self, network: &Network, base: &str) -> Result<String> {
        let mut extra = Vec::new();
        for (name, address) in &network.add_hosts {
            let address = match address.as_str() {
                "host-gateway" => self.host_address.with_context(|| {
                    format!("--add-host {name}:host-gateway: this container has no network that reaches the host")
                })?,
                text => text.parse().with_context(|| format!("--add-host {name}: `{text}` is no address"))?,
            };
            extra.push((name.clone(), address));
        }
        let host = match network.host_address.as_deref() {
            None => self.host_address,
            Some("none") => None,
            Some(text) => {
                Some(text.parse().with_context(|| format!("host_containers_internal_ip: `{text}` is no address"))?)
            }
        };
        Ok(resolv::hosts(&resolv::Hosts { base, extra: &extra, own: &self.hosts, host }))
    }

    /// The text of /etc/resolv.conf; `None`: it is left alone.
    pub fn resolv_text(&self) -> Option<String> {
        self.resolver.as_ref().map(resolv::format)
    }
}

/// The mode when none was asked for.
pub fn default_mode(rootless: bool) -> NetworkMode {
    if rootless { NetworkMode::Pasta(Vec::new()) } else { NetworkMode::Networks(vec![Endpoint::of_default()]) }
}

pub use crate::model::network::DEFAULT_NETWORK;

/// Connect a container. On an error what was taken is released again.
pub fn up(request: &Request<'_>, record: &mut Record<'_>) -> Result<Attached> {
    let configured;
    let request = match resolver::configured(request.network)? {
        None => request,
        Some(network) => {
            configured = network;
            &Request { network: &configured, ..*request }
        }
    };
    let mut attached = Attached { version: VERSION, id: Some(request.id.clone()), ..Attached::default() };
    match take(request, record, &mut attached) {
        Ok(()) => Ok(attached),
        Err(error) => {
            // The first error is the one to be told; what cannot be released now, the next command releases.
            let _ = down(&attached, request.layout);
            Err(error)
        }
    }
}

fn take(request: &Request<'_>, record: &mut Record<'_>, attached: &mut Attached) -> Result<()> {
    let default;
    let mode = match &request.network.mode {
        Some(mode) => mode,
        None => {
            default = default_mode(request.rootless);
            &default
        }
    };
    match (mode, request.namespace) {
        (NetworkMode::Networks(endpoints), Some(namespace)) => {
            let joining = join::prepare(request, endpoints)?;
            join::join(request, joining, namespace, record, attached)
        }
        (NetworkMode::None, _) => {
            attached.resolver = resolver::resolver(request.network, &[], false);
            Ok(())
        }
        (NetworkMode::Pasta(options), Some(namespace)) => {
            if let Some(option) = options.first() {
                return Err(Failure::new(
                    Kind::Engine,
                    format!("--network pasta:{option}: options of pasta are not had"),
                )
                .hint("connectivity is by coracle itself; `coracle network create` has options of its own")
                .into());
            }
            join::private(request, namespace, record, attached)
        }
        (NetworkMode::Host, _) => {
            attached.resolver = resolver::resolver(request.network, &[], true);
            attached.hosts = vec![(IpAddr::from([127, 0, 1, 1]), join::own_names(request))];
            attached.host_address = resolver::host_address(Some(IpAddr::from([127, 0, 0, 1])))?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `bridge` and `podman` are other names of the default network.
pub fn canonical_name(name: &str) -> &str {
    if matches!(name, "bridge" | "podman" | "default") { DEFAULT_NETWORK } else { name }
}
