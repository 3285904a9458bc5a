//! Connecting a container and releasing what that took: one function up, one down.
//!
//! [`up`] first says what it is about to take (`record` writes it down), then takes it; whatever happens in between,
//! [`down`] with the last document written releases everything, and may be called again. What dies by itself needs no
//! release: the link pair goes with the container's namespace, reserved ports with the supervisor.

use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::model::network::{Endpoint, Network, NetworkMode};
use crate::model::port::{PortMapping, Publication};
use crate::model::subnet::{Subnet, format_mac, mac_of, parse_mac};
use crate::network::create;
use crate::network::forward::{self, uplink};
use crate::network::host::{self, Host};
use crate::network::ipam::{self, Lease};
use crate::network::link::{self, Ipv6, Stacked, Veth, Which};
use crate::network::message::Batch;
use crate::network::names::zone::Zone;
use crate::network::names::{self, Server, Upstream};
use crate::network::option::{self, Options};
use crate::network::port::{self, Families, Reserved};
use crate::network::resolv::{self, Resolver};
use crate::state::layout::Layout;
use crate::state::network::{self, Driver, Member, NetworkRecord};
use crate::sys::netlink::{self, Family, Socket};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

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
    /// Names on this network beside the container's own.
    pub aliases: Vec<String>,
}

/// What dies with the supervisor.
#[derive(Debug, Default)]
pub struct Held {
    ports: Vec<Reserved>,
    names: Option<Server>,
    host: Option<Host>,
    forward: Option<forward::Client>,
}

impl Attached {
    /// What the supervisor polls for reading; after an event it calls [`Attached::ready`].
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let forward = self.held.forward.iter().map(forward::Client::fd);
        self.held.names.iter().map(Server::fd).chain(forward).collect()
    }

    /// Do what the descriptors of [`Attached::fds`] have become ready for. Never blocks.
    pub fn ready(&mut self) {
        if let Some(names) = &mut self.held.names {
            names.ready();
        }
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
        Ok(resolv::hosts(&resolv::Hosts { base, extra: &extra, own: &self.hosts, host: self.host_address }))
    }

    /// The text of /etc/resolv.conf; `None`: it is left alone.
    pub fn resolv_text(&self) -> Option<String> {
        self.resolver.as_ref().map(resolv::format)
    }
}

/// The mode when none was asked for.
pub fn default_mode(rootless: bool) -> NetworkMode {
    if rootless {
        NetworkMode::Pasta(Vec::new())
    } else {
        NetworkMode::Networks(vec![Endpoint { network: DEFAULT_NETWORK.to_owned(), ..Endpoint::default() }])
    }
}

/// The network of containers that name none; `bridge` and `podman` mean it too.
pub const DEFAULT_NETWORK: &str = "coracle";

/// Connect a container. On an error what was taken is released again.
pub fn up(request: &Request<'_>, record: &mut Record<'_>) -> Result<Attached> {
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
            networks(request, endpoints, namespace, record, attached)
        }
        (NetworkMode::None, _) => {
            attached.resolver = resolver(request.network, &[], false);
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
            private(request, namespace, record, attached)
        }
        (NetworkMode::Host, _) => {
            attached.resolver = resolver(request.network, &[], true);
            attached.hosts = vec![(IpAddr::from([127, 0, 1, 1]), own_names(request))];
            attached.host_address = Some(IpAddr::from([127, 0, 0, 1]));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Bring up the loopback device of the caller's namespace.
fn loopback() -> Result<Socket> {
    let socket = Socket::open(Family::Route).context("open a route socket")?;
    let mut batch = Batch::new();
    link::set_up(&mut batch, Which::Index(1), Ipv6::On);
    batch.send(&socket)?;
    Ok(socket)
}

/// One network while it is being joined.
struct Joining<'a> {
    record: NetworkRecord,
    options: Options,
    endpoint: &'a Endpoint,
    leases: Vec<Lease>,
    mac: [u8; 6],
}

fn networks(
    request: &Request<'_>,
    endpoints: &[Endpoint],
    namespace: BorrowedFd<'_>,
    record: &mut Record<'_>,
    attached: &mut Attached,
) -> Result<()> {
    join(request, prepare(request, endpoints)?, namespace, record, attached)
}

/// Record, take, configure: the same for all networks.
fn join(
    request: &Request<'_>,
    mut joining: Vec<Joining<'_>>,
    namespace: BorrowedFd<'_>,
    record: &mut Record<'_>,
    attached: &mut Attached,
) -> Result<()> {
    let by_forwarder = request.rootless || joining.iter().any(|one| one.record.name == create::PRIVATE);
    attached.interfaces = joining.iter().enumerate().map(|(index, one)| one.intent(index, request.id)).collect();
    record(attached)?;
    for (one, interface) in joining.iter_mut().zip(&mut attached.interfaces) {
        one.lease(request, interface)?;
    }
    let ports = publish_plan(request, &joining, attached, by_forwarder)?;
    attached.hosts = host_entries(request, attached);
    let has_gateway = joining.iter().find(|one| !one.record.internal && one.record.driver == Driver::Bridge);
    attached.host_address = match by_forwarder {
        true => has_gateway.map(|_| uplink::HOST),
        false => has_gateway.and_then(|one| one.leases.first()?.pool.gateway),
    };
    let serve = serves_names(request.network, &joining);
    attached.resolver = if serve {
        resolver(request.network, &[names::ADDRESS.to_string()], false)
    } else {
        resolver(request.network, &[], false)
    };
    record(attached)?;

    let mut client = if by_forwarder { Some(forward::Client::connect(request.layout)?) } else { None };
    let kept = client.as_ref().map(|client| client.namespace().try_clone_to_owned()).transpose()?;
    let host = Host::open(kept, request.layout)?;
    for (one, interface) in joining.iter().zip(&attached.interfaces) {
        let ports: Vec<Publication> = ports_of(&attached.publications, interface).collect();
        let member = member(request, interface, ports);
        network::enter(request.layout, &one.record.name, &member)?;
        make_link(&host, request.layout, one, interface, namespace)?;
    }
    let sockets = configure(&joining, &attached.interfaces, namespace, serve)?;
    if !attached.publications.is_empty() {
        host.publish(request.layout, &[], &attached.publications)?;
    } else if !host.firewall().is_there()? {
        host.publish(request.layout, &[], &[])?;
    }
    if let Some(client) = &mut client
        && !ports.is_empty()
    {
        client.publish(ports)?;
    }
    attached.held.forward = client;
    if let Some(sockets) = sockets {
        attached.held.names = Some(start_names(request, &joining, attached, sockets)?);
    }
    attached.held.host = Some(host);
    Ok(())
}

/// A network of one's own: out to the world, in by published ports, and no way to other containers.
fn private(
    request: &Request<'_>,
    namespace: BorrowedFd<'_>,
    record: &mut Record<'_>,
    attached: &mut Attached,
) -> Result<()> {
    let endpoint = Endpoint::default();
    let network = create::private(request.layout)?;
    let options = option::parse(network.driver, &network.options)?;
    let joining = vec![Joining { record: network, options, endpoint: &endpoint, leases: Vec::new(), mac: [0; 6] }];
    join(request, joining, namespace, record, attached)
}

/// Read and check everything before anything is touched.
fn prepare<'a>(request: &Request<'_>, endpoints: &'a [Endpoint]) -> Result<Vec<Joining<'a>>> {
    let mut joining: Vec<Joining<'a>> = Vec::new();
    for endpoint in endpoints {
        let name = canonical_name(&endpoint.network);
        let record = match network::load(request.layout, name)? {
            Some(record) => record,
            None if name == DEFAULT_NETWORK => create::default(request.layout)?,
            None => {
                let message = format!("unable to find network with name or ID {name}: network not found");
                return Err(Failure::new(Kind::Engine, message)
                    .hint(format!("`coracle network create {name}` makes it"))
                    .into());
            }
        };
        let options = option::parse(record.driver, &record.options)?;
        ipam::check_wanted(&record, &endpoint.addresses)?;
        if let Some(name) = &endpoint.interface {
            option::check_link_name(name)?;
        }
        let mac = endpoint.mac.as_deref().map(parse_mac).transpose()?.unwrap_or([0; 6]);
        joining.push(Joining { record, options, endpoint, leases: Vec::new(), mac });
    }
    Ok(joining)
}

/// `bridge` and `podman` are other names of the default network.
pub fn canonical_name(name: &str) -> &str {
    if matches!(name, "bridge" | "podman" | "default") { DEFAULT_NETWORK } else { name }
}

impl Joining<'_> {
    fn intent(&self, index: usize, id: &Id) -> Interface {
        let on_bridge = self.record.driver == Driver::Bridge;
        Interface {
            network: self.record.name.clone(),
            network_id: self.record.id.to_string(),
            driver: self.record.driver,
            name: self.endpoint.interface.clone().unwrap_or_else(|| format!("eth{index}")),
            // Names of links have 15 characters; the id's beginning makes it unique and findable.
            host_link: on_bridge.then(|| format!("veth{}{index:x}", &id.as_str()[..9])),
            aliases: self.endpoint.aliases.clone(),
            ..Interface::default()
        }
    }

    fn lease(&mut self, request: &Request<'_>, interface: &mut Interface) -> Result<()> {
        self.leases = ipam::lease(request.layout, &self.record, request.id, &self.endpoint.addresses)?;
        if self.mac == [0; 6] {
            self.mac = match self.leases.first() {
                Some(lease) => mac_of(lease.address),
                None => mac_of_id(request.id),
            };
        }
        interface.mac = format_mac(self.mac);
        let addresses = self.leases.iter();
        interface.addresses =
            addresses.map(|lease| Subnet { address: lease.address, prefix: lease.pool.subnet.prefix }).collect();
        interface.gateways = self.leases.iter().filter_map(|lease| lease.pool.gateway).collect();
        Ok(())
    }
}

/// A hardware address for a link without addresses.
fn mac_of_id(id: &Id) -> [u8; 6] {
    let byte = |at: usize| u8::from_str_radix(&id.as_str()[at..at + 2], 16).unwrap_or(0);
    [0x02, byte(0), byte(2), byte(4), byte(6), byte(8)]
}

/// Reserve the ports and say which elements they become; for the forwarder, which sockets it is given.
fn publish_plan(
    request: &Request<'_>,
    joining: &[Joining<'_>],
    attached: &mut Attached,
    by_forwarder: bool,
) -> Result<Vec<(forward::message::Port, OwnedFd)>> {
    let mut handed = Vec::new();
    attached.ports = port::wanted(request.network);
    if attached.ports.is_empty() {
        return Ok(handed);
    }
    // Ports lead to the first network that others can reach.
    let target = joining
        .iter()
        .position(|one| one.record.driver == Driver::Bridge && !one.record.internal && !one.leases.is_empty());
    let Some(target) = target else {
        return Err(Failure::new(
            Kind::Engine,
            "publish ports: none of the container's networks can be reached from outside",
        )
        .hint("join a bridge network that is not internal")
        .into());
    };
    let addresses: Vec<IpAddr> = attached.interfaces[target].addresses.iter().map(|subnet| subnet.address).collect();
    let ipv4 = addresses.iter().copied().find(IpAddr::is_ipv4);
    let ipv6 = addresses.iter().copied().find(IpAddr::is_ipv6);
    let families = Families { ipv4: ipv4.is_some(), ipv6: ipv6.is_some() };
    let reserved = port::reserve(&mut attached.ports, families, joining[target].options.host_binding)?;
    for one in &reserved {
        let family = if one.address.is_ipv4() { ipv4 } else { ipv6 };
        let target = family
            .with_context(|| format!("publish port {}: the container has no address of that family", one.address))?;
        if by_forwarder {
            let port =
                forward::message::Port { protocol: one.protocol, target: SocketAddr::new(target, one.target_port) };
            handed.push((port, one.socket.try_clone().context("copy a port's socket")?));
            continue;
        }
        attached.publications.push(Publication {
            host: (!one.address.ip().is_unspecified()).then(|| one.address.ip()),
            port: one.address.port(),
            protocol: one.protocol,
            target,
            target_port: one.target_port,
        });
    }
    attached.held.ports = reserved;
    Ok(handed)
}

fn ports_of<'a>(ports: &'a [Publication], interface: &'a Interface) -> impl Iterator<Item = Publication> + 'a {
    ports.iter().filter(|port| interface.addresses.iter().any(|subnet| subnet.address == port.target)).copied()
}

/// The names a container has everywhere.
fn own_names(request: &Request<'_>) -> Vec<String> {
    let mut names = vec![request.hostname.to_owned()];
    if request.name != request.hostname {
        names.push(request.name.to_owned());
    }
    names
}

fn host_entries(request: &Request<'_>, attached: &Attached) -> Vec<(IpAddr, Vec<String>)> {
    let addresses = attached.interfaces.iter().flat_map(|interface| &interface.addresses);
    addresses.map(|subnet| (subnet.address, own_names(request))).collect()
}

fn member(request: &Request<'_>, interface: &Interface, ports: Vec<Publication>) -> Member {
    let mut names = vec![request.name.to_lowercase(), request.id.short().to_owned()];
    let more =
        std::iter::once(request.hostname).chain(request.aliases.iter().chain(&interface.aliases).map(String::as_str));
    for name in more.map(str::to_lowercase) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    Member {
        version: network::VERSION,
        id: request.id.to_string(),
        name: request.name.to_owned(),
        names,
        interface: interface.name.clone(),
        mac: interface.mac.clone(),
        addresses: interface.addresses.clone(),
        ports,
        supervisor_pid: std::process::id(),
    }
}

/// Make the link; it is born inside the container's namespace, down.
fn make_link(
    host: &Host,
    layout: &Layout,
    one: &Joining<'_>,
    interface: &Interface,
    namespace: BorrowedFd<'_>,
) -> Result<()> {
    let mut batch = Batch::new();
    match (one.record.driver, &interface.host_link) {
        (Driver::Bridge, Some(name)) => {
            let bridge = host.bridge(layout, &one.record, &one.options)?;
            let mtu = one.options.mtu;
            let isolated = one.record.name == create::PRIVATE;
            let veth = Veth { name, bridge, isolated, inside: &interface.name, mac: one.mac, mtu, namespace };
            link::add_veth(&mut batch, &veth);
        }
        (driver, _) => {
            let parent = host.parent(&one.record)?;
            let stacked = Stacked {
                kind: driver.as_str(),
                name: &interface.name,
                parent,
                mode: one.options.link_mode,
                mac: (driver == Driver::Macvlan).then_some(one.mac),
                mtu: one.options.mtu,
                namespace: Some(namespace),
            };
            link::add_stacked(&mut batch, &stacked);
        }
    }
    batch.send(host.route()).with_context(|| format!("join network {}", one.record.name))?;
    Ok(())
}

/// Give the links inside their addresses and routes, and open the name server's sockets.
fn configure(
    joining: &[Joining<'_>],
    interfaces: &[Interface],
    namespace: BorrowedFd<'_>,
    serve: bool,
) -> Result<Option<names::Sockets>> {
    let mut ends = Vec::new();
    let work = || -> Result<(Socket, Option<names::Sockets>)> {
        let socket = loopback()?;
        // Echo requests need no capability inside, as with podman. Who asks for another value sets it after us.
        let _ = host::set_sysctl("/proc/sys/net/ipv4/ping_group_range", "0 0");
        for (one, interface) in joining.iter().zip(interfaces) {
            // No router but ours: a neighbour's advertisement must not become the container's default route.
            if one.leases.iter().any(|lease| lease.address.is_ipv6()) {
                host::set_sysctl(&format!("/proc/sys/net/ipv6/conf/{}/accept_ra", interface.name), "0")?;
            }
        }
        Ok((socket, if serve { Some(names::Sockets::open()?) } else { None }))
    };
    let (socket, sockets) = netlink::within(namespace, work).context("join the container's network namespace")??;
    for (one, interface) in joining.iter().zip(interfaces) {
        let found = link::find(&socket, &interface.name)?;
        ends.push((one, found.with_context(|| format!("link {} is gone", interface.name))?.index));
    }
    let mut batch = Batch::new();
    for (one, index) in &ends {
        for lease in &one.leases {
            link::add_address(&mut batch, *index, lease.address, lease.pool.subnet.prefix);
        }
        let has_ipv6 = one.leases.iter().any(|lease| lease.address.is_ipv6());
        let ipv6 = if has_ipv6 || one.record.driver != Driver::Bridge { Ipv6::On } else { Ipv6::Off };
        link::set_up(&mut batch, Which::Index(*index), ipv6);
    }
    for want_ipv4 in [true, false] {
        default_route(&mut batch, joining, want_ipv4);
    }
    for one in joining {
        for route in &one.record.routes {
            link::add_route(&mut batch, &route.destination, Some(route.gateway), None, route.metric.unwrap_or(0));
        }
    }
    batch.send(&socket)?;
    Ok(sockets)
}

/// The first network that leads out gives the default route.
fn default_route(batch: &mut Batch, joining: &[Joining<'_>], ipv4: bool) {
    let leads_out = |one: &&Joining<'_>| !one.record.internal && !one.options.no_default_route;
    for one in joining.iter().filter(leads_out) {
        let gateway =
            one.leases.iter().filter_map(|lease| lease.pool.gateway).find(|gateway| gateway.is_ipv4() == ipv4);
        if let Some(gateway) = gateway {
            let any = if ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            link::add_route(batch, &Subnet { address: any, prefix: 0 }, Some(gateway), None, one.options.metric);
            return;
        }
    }
}

// --- names ---

/// Whether the container asks our server. On the default network alone `--dns` names the servers to ask, as in podman.
fn serves_names(network: &Network, joining: &[Joining<'_>]) -> bool {
    if network.dns_none {
        return false;
    }
    let named = joining.iter().any(|one| one.record.dns);
    let only_default = joining.iter().all(|one| one.record.name == DEFAULT_NETWORK);
    if named && !(only_default && !network.dns.is_empty()) {
        return true;
    }
    // Nobody to name, but the host's resolver listens on its loopback only (systemd-resolved): we pass questions on.
    network.dns.is_empty() && !host_resolver().servers.iter().any(|server| resolv::is_reachable(server))
}

fn host_resolver() -> Resolver {
    resolv::parse(&std::fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default())
}

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// What /etc/resolv.conf says. `servers`: ours; none: the user's, else those of the host that can be reached.
fn resolver(network: &Network, servers: &[String], on_host: bool) -> Option<Resolver> {
    if network.dns_none {
        return None;
    }
    let host = host_resolver();
    let mut resolver = Resolver { servers: servers.to_vec(), search: host.search, options: host.options };
    if servers.is_empty() {
        resolver.servers = match network.dns.is_empty() {
            false => network.dns.iter().map(IpAddr::to_string).collect(),
            true => host.servers.into_iter().filter(|server| on_host || resolv::is_reachable(server)).collect(),
        };
    }
    if !network.dns_search.is_empty() {
        resolver.search.clone_from(&network.dns_search);
    }
    if !network.dns_options.is_empty() {
        resolver.options.clone_from(&network.dns_options);
    } else if !servers.is_empty() {
        // Names without a dot are containers' names first; they do not go out with the host's suffixes before.
        resolver.options.retain(|option| !option.starts_with("ndots:"));
        resolver.options.push("ndots:0".to_owned());
    }
    Some(resolver)
}

fn start_names(
    request: &Request<'_>,
    joining: &[Joining<'_>],
    attached: &Attached,
    sockets: names::Sockets,
) -> Result<Server> {
    let networks: Vec<String> =
        joining.iter().filter(|one| one.record.dns).map(|one| one.record.name.clone()).collect();
    let host = attached.host_address.map(|address| vec![address]);
    let fixed: HashMap<String, Vec<IpAddr>> =
        resolv::HOST_NAMES.iter().filter_map(|name| Some(((*name).to_owned(), host.clone()?))).collect();
    let zone = Zone::new(request.layout, &networks, fixed);
    Server::new(sockets, zone, upstream(request.network, joining))
}

fn upstream(network: &Network, joining: &[Joining<'_>]) -> Upstream {
    // CVE-2024-29018: no question of an internal network leaves the host.
    if joining.iter().all(|one| one.record.internal) {
        return Upstream::Nobody;
    }
    let of_networks: Vec<IpAddr> = joining.iter().flat_map(|one| one.record.dns_servers.iter().copied()).collect();
    match (network.dns.is_empty(), of_networks.is_empty()) {
        (false, _) => Upstream::fixed(&network.dns),
        (true, false) => Upstream::fixed(&of_networks),
        (true, true) => Upstream::host(Path::new(HOST_RESOLV_CONF)),
    }
}

// --- release ---

/// Release what a document says. Does all it can and gives the first error; may be called again.
pub fn down(attached: &Attached, layout: &Layout) -> Result<()> {
    let Some(id) = &attached.id else { return Ok(()) };
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    for interface in &attached.interfaces {
        note(network::leave(layout, &interface.network, id.as_str()));
    }
    if !attached.publications.is_empty() {
        note(withdraw(attached, layout));
    }
    for interface in &attached.interfaces {
        if interface.addresses.is_empty() {
            // Killed between the intent and the lease: only the links know.
            note(ipam::release_all(layout, &interface.network, id));
        }
        for subnet in &interface.addresses {
            note(ipam::release(layout, &interface.network, id, subnet.address));
        }
    }
    first
}

fn withdraw(attached: &Attached, layout: &Layout) -> Result<()> {
    let opened;
    let host = match &attached.held.host {
        Some(host) => host,
        None => {
            opened = Host::open(None, layout)?;
            &opened
        }
    };
    host.firewall().withdraw(&attached.publications)
}
