//! Joining networks: lease, link, configure, publish. Each step is undone by [`super::release`], from the document alone.

use super::publish;
use super::resolver::{host_address, resolver, serves_names, start_names};
use super::{Attached, DEFAULT_NETWORK, Interface, Record, Request, Scene, canonical_name};
use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::model::network::Endpoint;
use crate::model::port::Publication;
use crate::model::subnet::{Subnet, format_mac, mac_of, parse_mac};
use crate::network::forward::{self, uplink};
use crate::network::host::{self, Host};
use crate::network::ipam::{self, Lease};
use crate::network::link::{self, Ipv6, Stacked, Veth};
use crate::network::message::Batch;
use crate::network::option::{self, Options};
use crate::network::{create, names};
use crate::state::layout::Layout;
use crate::state::network::{self, Driver, Member, NetworkRecord};
use crate::sys::netlink::{self, Family, Socket};
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Bring up the loopback device of the caller's namespace.
pub(super) fn loopback() -> Result<Socket> {
    let socket = Socket::open(Family::Route).context("open a route socket")?;
    let mut batch = Batch::new();
    link::set_up(&mut batch, 1, Ipv6::On);
    batch.send(&socket)?;
    Ok(socket)
}

/// One network while it is being joined.
pub(super) struct Joining<'a> {
    pub record: NetworkRecord,
    pub options: Options,
    endpoint: &'a Endpoint,
    pub leases: Vec<Lease>,
    mac: [u8; 6],
}

/// Record, take, configure: the same for all networks.
pub(super) fn join(
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
    publish::reserve(request, &joining, attached)?;
    attached.hosts = host_entries(request, attached);
    let has_gateway = joining.iter().find(|one| !one.record.internal && one.record.driver == Driver::Bridge);
    attached.host_address = match by_forwarder {
        true => has_gateway.map(|_| uplink::HOST),
        false => has_gateway.and_then(|one| one.leases.first()?.pool.gateway),
    };
    attached.host_address = host_address(attached.host_address)?;
    let serve = serves_names(request.network, &joining);
    attached.resolver = if serve {
        resolver(request.network, &[names::ADDRESS.to_string()], false)
    } else {
        resolver(request.network, &[], false)
    };
    record(attached)?;

    let client = if by_forwarder { Some(forward::Client::connect(request.layout)?) } else { None };
    let kept = client.as_ref().map(|client| client.namespace().try_clone_to_owned()).transpose()?;
    let host = Host::open(kept, request.layout)?;
    for (one, interface) in joining.iter().zip(&attached.interfaces) {
        let ports: Vec<Publication> = publish::ports_of(&attached.publications, interface).collect();
        let member = member(request, interface, ports);
        network::enter(request.layout, &one.record.name, &member)?;
        make_link(&host, request.layout, one, interface, namespace)?;
    }
    let sockets = configure(&joining, &attached.interfaces, namespace, Configure { serve, default_route: true })?;
    let bridges = joining.iter().filter(|one| one.record.driver == Driver::Bridge && !one.record.internal);
    host.admit(&bridges.map(|one| one.record.interface.as_str()).collect::<Vec<_>>())?;
    attached.held.forward = client;
    attached.held.host = Some(host);
    attached.open_ports(request)?;
    if let Some(sockets) = sockets {
        attached.held.names = Some(start_names(request, &joining, attached, sockets)?);
    }
    attached.held.scene = Some(Scene {
        name: request.name.to_owned(),
        hostname: request.hostname.to_owned(),
        aliases: request.aliases.to_vec(),
        namespace: namespace.try_clone_to_owned().context("copy the network namespace's descriptor")?,
        network: request.network.clone(),
        layout: request.layout.clone(),
        rootless: request.rootless,
        binding: joining.iter().find(|one| publish::is_inward(one)).and_then(|one| one.options.host_binding),
    });
    Ok(())
}

/// A network of one's own: out to the world, in by published ports, and no way to other containers.
pub(super) fn private(
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
pub(super) fn prepare<'a>(request: &Request<'_>, endpoints: &'a [Endpoint]) -> Result<Vec<Joining<'a>>> {
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

impl Joining<'_> {
    pub(super) fn intent(&self, index: usize, id: &Id) -> Interface {
        let on_bridge = self.record.driver == Driver::Bridge;
        Interface {
            network: self.record.name.clone(),
            network_id: self.record.id.to_string(),
            driver: self.record.driver,
            name: self.endpoint.interface.clone().unwrap_or_else(|| format!("eth{index}")),
            // Names of links have 15 characters; the id's beginning makes it unique and findable.
            host_link: on_bridge.then(|| format!("veth{}{index:x}", &id.as_str()[..9])),
            aliases: self.endpoint.aliases.clone(),
            inward: publish::is_inward(self),
            leads_out: !self.record.internal && !self.options.no_default_route,
            ..Interface::default()
        }
    }

    pub(super) fn lease(&mut self, request: &Request<'_>, interface: &mut Interface) -> Result<()> {
        self.leases = ipam::lease(request.layout, &self.record, request.id, &self.endpoint.addresses)?;
        if self.mac == [0; 6] {
            self.mac = match self.leases.first() {
                // No two on one parent may have the same, and that of an earlier life may not be cleared away yet.
                _ if self.record.driver == Driver::Macvlan => {
                    let [a, b, c, d] = create::random()?;
                    [0x02, 0x63, a, b, c, d]
                }
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
pub(super) fn mac_of_id(id: &Id) -> [u8; 6] {
    let byte = |at: usize| u8::from_str_radix(&id.as_str()[at..at + 2], 16).unwrap_or(0);
    [0x02, byte(0), byte(2), byte(4), byte(6), byte(8)]
}

/// The names a container has everywhere.
pub(super) fn own_names(request: &Request<'_>) -> Vec<String> {
    let mut names = vec![request.hostname.to_owned()];
    if request.name != request.hostname {
        names.push(request.name.to_owned());
    }
    names
}

pub(super) fn host_entries(request: &Request<'_>, attached: &Attached) -> Vec<(IpAddr, Vec<String>)> {
    entries(request.name, request.hostname, &attached.interfaces)
}

/// Each of its addresses with its names.
pub(super) fn entries(name: &str, hostname: &str, interfaces: &[Interface]) -> Vec<(IpAddr, Vec<String>)> {
    let mut names = vec![hostname.to_owned()];
    if name != hostname {
        names.push(name.to_owned());
    }
    let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
    addresses.map(|subnet| (subnet.address, names.clone())).collect()
}

pub(super) fn member(request: &Request<'_>, interface: &Interface, ports: Vec<Publication>) -> Member {
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
pub(super) fn make_link(
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
            let isolated = one.options.alone || one.record.name == create::PRIVATE;
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
    let mut made = batch.send(host.route());
    if let (Err(error), Some(name)) = (&made, &interface.host_link)
        && link::is_there_already(error)
    {
        // Of an earlier life: the kernel clears a namespace away, with its links, in its own time.
        link::remove_now(host.route(), name)?;
        made = batch.send(host.route());
    }
    let made = made.map_err(|error| link::explain_kind(error, one.record.driver.as_str()));
    made.with_context(|| format!("join network {}", one.record.name))?;
    if let (Some(name), true) = (&interface.host_link, one.options.unmanaged && one.options.vlan != 0) {
        let port = link::find(host.route(), name)?.context("the new link is gone again")?;
        let mut batch = Batch::new();
        link::set_port_vlan(&mut batch, port.index, one.options.vlan);
        batch.send(host.route())?;
    }
    Ok(())
}

/// What configuring is about, besides the links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Configure {
    /// Open the name server's sockets.
    pub serve: bool,
    /// Add the default routes.
    pub default_route: bool,
}

/// Give the links inside their addresses and routes, and open the name server's sockets.
pub(super) fn configure(
    joining: &[Joining<'_>],
    interfaces: &[Interface],
    namespace: BorrowedFd<'_>,
    how: Configure,
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
        Ok((socket, if how.serve { Some(names::Sockets::open()?) } else { None }))
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
        link::set_up(&mut batch, *index, ipv6);
    }
    for want_ipv4 in [true, false].into_iter().filter(|_| how.default_route) {
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
pub(super) fn default_route(batch: &mut Batch, joining: &[Joining<'_>], ipv4: bool) {
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
