//! Making networks: names, subnets and bridges that clash with nothing the host has.

use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::model::subnet::{Subnet, from_number, number};
use crate::network::attach::{DEFAULT_NETWORK, canonical_name};
use crate::network::host::store_tag;
use crate::network::link;
use crate::network::option::{self, Options};
use crate::state::layout::Layout;
use crate::state::network::{self, Driver, Ipam, NetworkRecord, Pool, StaticRoute, VERSION};
use crate::sys::netlink::{Family, Socket};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;

/// What the host and our own networks have taken already.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Subnets of routes, addresses and networks, with who has each.
    pub subnets: Vec<(Subnet, String)>,
    /// Names of links.
    pub links: Vec<String>,
}

/// Look at the host's links and routes, and at the networks there are.
pub fn taken(layout: &Layout) -> Result<Taken> {
    let socket = Socket::open(Family::Route).context("open a route socket")?;
    let links = link::list(&socket)?;
    let name_of = |index: Option<u32>| {
        let found = links.iter().find(|link| Some(link.index) == index);
        found.map_or_else(
            || "a route of the host".to_owned(),
            |link| format!("a route of the host through {}", link.name),
        )
    };
    let mut taken = Taken { subnets: Vec::new(), links: links.iter().map(|link| link.name.clone()).collect() };
    for route in link::routes(&socket)? {
        // Default routes, and the halves by which some VPNs replace them, take nothing.
        if route.subnet.prefix > 1 {
            taken.subnets.push((route.subnet, name_of(route.link)));
        }
    }
    for (index, subnet) in link::addresses(&socket)? {
        taken.subnets.push((subnet, name_of(Some(index))));
    }
    for record in network::list(layout)? {
        let who = format!("network {}", record.name);
        taken.subnets.extend(record.subnets.iter().map(|pool| (pool.subnet, who.clone())));
        if record.driver == Driver::Bridge {
            taken.links.push(record.interface);
        }
    }
    Ok(taken)
}

impl Taken {
    /// Who has an address of this subnet.
    pub fn owner(&self, subnet: Subnet) -> Option<&str> {
        self.subnets.iter().find(|(other, _)| other.overlaps(subnet)).map(|(_, who)| who.as_str())
    }

    /// A free subnet of IPv4: podman's pools, of /24 each, in order; `start` skips that many.
    pub fn free_ipv4(&self, start: u32) -> Result<Subnet> {
        // 10.89/16, 10.90/15, 10.92/14, 10.96/11, 10.128/9; then what docker uses.
        let first = u128::from(u32::from_be_bytes([10, 89, 0, 0]));
        let count = u128::from(u32::from_be_bytes([10, 255, 255, 0]) - u32::from_be_bytes([10, 89, 0, 0])) / 256 + 1;
        let more = (16..=31u8).rev().map(|second| Subnet { address: IpAddr::from([172, second, 0, 0]), prefix: 24 });
        let pools = (0..count).map(|index| {
            let index = (index + u128::from(start)) % count;
            Subnet { address: from_number(first + index * 256, IpAddr::from([0; 4])), prefix: 24 }
        });
        pools.chain(more).find(|subnet| self.owner(*subnet).is_none()).ok_or_else(|| {
            Failure::new(Kind::Engine, "could not find free subnet from subnet pools")
                .hint("name one with `--subnet`")
                .into()
        })
    }

    /// A free unique local subnet of IPv6, of random numbers as RFC 4193 wants it.
    pub fn free_ipv6(&self, random: [u8; 7]) -> Subnet {
        let mut octets = [0u8; 16];
        octets[0] = 0xfd;
        octets[1..8].copy_from_slice(&random);
        let mut subnet = Subnet { address: IpAddr::from(octets), prefix: 64 };
        while self.owner(subnet).is_some() {
            subnet.address = from_number(number(subnet.address).wrapping_add(1 << 64), subnet.address);
        }
        subnet
    }

    /// A free name for a bridge: `coracle1`, `coracle2`, …
    pub fn free_bridge(&self, layout: &Layout) -> String {
        let prefix = bridge_prefix(layout);
        (1u32..).map(|number| format!("{prefix}{number}")).find(|name| !self.links.contains(name)).unwrap_or(prefix)
    }
}

/// Bridges of stores other than the usual one bear its number, so that two stores never share one.
fn bridge_prefix(layout: &Layout) -> String {
    store_tag(layout).map_or_else(|| "coracle".to_owned(), |tag| format!("cor{tag:06x}-"))
}

/// A network as it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its name; absent: that of its bridge.
    pub name: Option<String>,
    /// What makes the links.
    pub driver: Driver,
    /// Subnets; none: a free one of IPv4, and with `ipv6` one of IPv6 too.
    pub subnets: Vec<Pool>,
    /// Static routes inside.
    pub routes: Vec<StaticRoute>,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--internal`.
    pub internal: bool,
    /// `--disable-dns`.
    pub disable_dns: bool,
    /// `--dns`.
    pub dns_servers: Vec<IpAddr>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    pub options: BTreeMap<String, String>,
    /// `--ipam-driver`; absent: what suits the driver.
    pub ipam: Option<Ipam>,
    /// `--interface-name`.
    pub interface: Option<String>,
}

/// Words of `--network` that can be no network's name.
const RESERVED: [&str; 9] = ["none", "host", "private", "slirp4netns", "pasta", "container", "ns", "default", "pod"];

/// Make a network: everything is checked before anything is written.
pub fn create(layout: &Layout, wish: Wish) -> Result<NetworkRecord> {
    let mut options = wish.options;
    let meant = option::parse(wish.driver, &options)?;
    let taken = taken(layout)?;
    let interface = interface(layout, &taken, wish.driver, wish.interface, &mut options, &meant)?;
    let name = match wish.name {
        Some(name) => name,
        None => free_name(layout)?,
    };
    check_name(layout, &name)?;
    let ipam = wish.ipam.unwrap_or_default();
    let has_gateway = wish.driver == Driver::Bridge && !(wish.internal && wish.disable_dns) && !meant.unmanaged;
    let mut subnets = wish.subnets;
    if ipam == Ipam::None {
        ensure!(subnets.is_empty(), "the none ipam driver gives no addresses, so there can be no --subnet");
    } else if wish.driver == Driver::Bridge {
        add_free_subnets(&taken, wish.ipv6, &mut subnets)?;
    } else if subnets.is_empty() {
        return Err(Failure::new(Kind::Engine, format!("{} network {name} without --subnet", wish.driver.as_str()))
            .hint("addresses by DHCP are not had: name the parent's subnet with --subnet, or take --ipam-driver none")
            .into());
    }
    for pool in &mut subnets {
        complete(pool, has_gateway)?;
    }
    check_subnets(&taken, wish.driver, &subnets)?;
    check_routes(&wish.routes, &subnets)?;
    let record = NetworkRecord {
        version: VERSION,
        name,
        id: random_id()?,
        driver: wish.driver,
        interface,
        created_ns: crate::state::event::now_ns(),
        ipv6: wish.ipv6 || subnets.iter().any(|pool| pool.subnet.address.is_ipv6()),
        subnets,
        routes: wish.routes,
        internal: wish.internal,
        dns: !wish.disable_dns && wish.driver == Driver::Bridge && ipam != Ipam::None,
        dns_servers: wish.dns_servers,
        labels: wish.labels,
        options,
        ipam,
    };
    network::create(layout, &record).map_err(|error| {
        let exists =
            error.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == ErrorKind::AlreadyExists);
        if exists { already(&record.name) } else { error }
    })?;
    Ok(record)
}

/// A name when none was given: `coracle1`, `coracle2`, …
fn free_name(layout: &Layout) -> Result<String> {
    let known = network::list(layout)?;
    let mut names = (1u32..).map(|number| format!("{DEFAULT_NETWORK}{number}"));
    names.find(|name| known.iter().all(|record| record.name != *name)).context("find a free name")
}

/// The error for a name that is taken.
pub fn already(name: &str) -> anyhow::Error {
    Failure::new(Kind::Engine, format!("network name {name} already used: network already exists")).into()
}

fn check_name(layout: &Layout, name: &str) -> Result<()> {
    crate::model::id::check_name(name).with_context(|| format!("network name {name} invalid"))?;
    if RESERVED.contains(&name) {
        bail!(
            "cannot create network with name \"{name}\" because it conflicts with a valid network mode: invalid argument"
        );
    }
    if canonical_name(name) == DEFAULT_NETWORK || network::load(layout, name)?.is_some() {
        return Err(already(name));
    }
    Ok(())
}

/// The bridge's name, or the parent's.
fn interface(
    layout: &Layout,
    taken: &Taken,
    driver: Driver,
    wanted: Option<String>,
    options: &mut BTreeMap<String, String>,
    meant: &Options,
) -> Result<String> {
    if driver != Driver::Bridge {
        options.remove("parent");
        let parent = meant.parent.clone().or(wanted).unwrap_or_default();
        if !parent.is_empty() && !taken.links.contains(&parent) {
            bail!("parent interface {parent} does not exist: invalid argument");
        }
        return Ok(parent);
    }
    match wanted.or_else(|| meant.bridge.clone()) {
        None => Ok(taken.free_bridge(layout)),
        Some(name) => {
            option::check_link_name(&name)?;
            if taken.links.contains(&name) && !meant.unmanaged {
                bail!("bridge name {name} already in use: invalid argument");
            }
            Ok(name)
        }
    }
}

fn add_free_subnets(taken: &Taken, ipv6: bool, subnets: &mut Vec<Pool>) -> Result<()> {
    let pool = |subnet| Pool { subnet, gateway: None, range: None };
    if subnets.is_empty() {
        subnets.push(pool(taken.free_ipv4(0)?));
    }
    if ipv6 && !subnets.iter().any(|pool| pool.subnet.address.is_ipv6()) {
        subnets.push(pool(taken.free_ipv6(random()?)));
    }
    if ipv6 && !subnets.iter().any(|pool| pool.subnet.address.is_ipv4()) {
        subnets.push(pool(taken.free_ipv4(0)?));
    }
    Ok(())
}

/// Fill in the gateway, and see that everything lies in the subnet.
fn complete(pool: &mut Pool, has_gateway: bool) -> Result<()> {
    pool.subnet = pool.subnet.network();
    let bits = if pool.subnet.address.is_ipv4() { 32 } else { 128 };
    ensure!(pool.subnet.prefix < bits, "subnet {} has no room for a container: invalid argument", pool.subnet);
    if let Some(gateway) = pool.gateway
        && !pool.subnet.contains(gateway)
    {
        bail!("gateway {gateway} not in subnet {}: invalid argument", pool.subnet);
    }
    if has_gateway && pool.gateway.is_none() {
        pool.gateway = Some(pool.subnet.first_host());
    }
    if let Some((first, last)) = pool.range {
        for end in [first, last] {
            ensure!(
                pool.subnet.contains(end),
                "lease range address {end} not in subnet {}: invalid argument",
                pool.subnet
            );
        }
        ensure!(first <= last, "lease range {first} to {last} is empty: invalid argument");
    }
    Ok(())
}

fn check_subnets(taken: &Taken, driver: Driver, subnets: &[Pool]) -> Result<()> {
    for (index, pool) in subnets.iter().enumerate() {
        if let Some(other) = subnets[..index].iter().find(|other| other.subnet.overlaps(pool.subnet)) {
            bail!("subnet {} overlaps subnet {} of the same network: invalid argument", pool.subnet, other.subnet);
        }
        // A macvlan's subnet is its parent's.
        if driver == Driver::Bridge
            && let Some(owner) = taken.owner(pool.subnet)
        {
            return Err(Failure::new(
                Kind::Engine,
                format!("subnet {} is already used on the host or by another config: {owner} has it", pool.subnet),
            )
            .hint("leave --subnet out to get a free one")
            .into());
        }
    }
    Ok(())
}

fn check_routes(routes: &[StaticRoute], subnets: &[Pool]) -> Result<()> {
    for route in routes {
        ensure!(
            route.gateway.is_ipv4() == route.destination.address.is_ipv4(),
            "route {} via {}: of two address families: invalid argument",
            route.destination,
            route.gateway
        );
        ensure!(
            route.destination.network() == route.destination,
            "route {}: not the address of a network: invalid argument",
            route.destination
        );
        ensure!(
            subnets.iter().any(|pool| pool.subnet.contains(route.gateway)),
            "route {} via {}: the gateway is in none of the network's subnets: invalid argument",
            route.destination,
            route.gateway
        );
    }
    Ok(())
}

/// The default network, made on first use. Two starts at once: the second takes what the first made.
pub fn default(layout: &Layout) -> Result<NetworkRecord> {
    let taken = taken(layout)?;
    let record = NetworkRecord {
        version: VERSION,
        name: DEFAULT_NETWORK.to_owned(),
        id: random_id()?,
        driver: Driver::Bridge,
        interface: format!("{}0", bridge_prefix(layout)),
        created_ns: crate::state::event::now_ns(),
        subnets: vec![default_pool(&taken, layout)?],
        routes: Vec::new(),
        ipv6: false,
        internal: false,
        dns: true,
        dns_servers: Vec::new(),
        labels: Default::default(),
        options: Default::default(),
        ipam: Ipam::HostLocal,
    };
    match network::create(layout, &record) {
        Ok(()) => Ok(record),
        Err(error) => match network::load(layout, DEFAULT_NETWORK)? {
            Some(record) => Ok(record),
            None => Err(error),
        },
    }
}

/// The network of an ordinary user's containers that asked for none: no user can give this name to one.
pub const PRIVATE: &str = ".private";

/// The record of [`PRIVATE`]; it is nowhere on disk but for its leases. Its containers do not see each other.
pub fn private(layout: &Layout) -> Result<NetworkRecord> {
    let leases = layout.leases(PRIVATE);
    std::fs::create_dir_all(&leases).with_context(|| format!("make {}", leases.display()))?;
    let pool = |address: IpAddr, prefix| {
        let subnet = Subnet { address, prefix };
        Pool { subnet, gateway: Some(subnet.first_host()), range: None }
    };
    // 198.18.0.0/15 is for measuring networks (RFC 2544): nobody's network, so no host is hidden behind ours.
    let mut subnets = vec![pool(IpAddr::from([198, 18, 0, 0]), 16)];
    if host_has_ipv6() {
        subnets.push(pool(IpAddr::from([0xfd, 0x63, 0x6f, 0x72, 0x61, 0x63, 0x6c, 0x65, 0, 0, 0, 0, 0, 0, 0, 0]), 64));
    }
    Ok(NetworkRecord {
        version: VERSION,
        name: PRIVATE.to_owned(),
        id: Id::from_random([0; 32]),
        driver: Driver::Bridge,
        interface: "private0".to_owned(),
        created_ns: 0,
        ipv6: subnets.len() > 1,
        subnets,
        routes: Vec::new(),
        internal: false,
        dns: false,
        dns_servers: Vec::new(),
        labels: Default::default(),
        options: BTreeMap::from([("isolate".to_owned(), "strict".to_owned())]),
        ipam: Ipam::HostLocal,
    })
}

/// Whether the host has a way out by IPv6.
fn host_has_ipv6() -> bool {
    let text = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    text.lines()
        .any(|line| line.starts_with("00000000000000000000000000000000 00 ") && !line.trim_end().ends_with("lo"))
}

/// Room for thousands of containers where a /16 is free, else for a few.
fn default_pool(taken: &Taken, layout: &Layout) -> Result<Pool> {
    let start = store_tag(layout).unwrap_or(0);
    let large = (0..80u32)
        .map(|index| (start + index) % 80)
        .map(|index| Subnet { address: IpAddr::from([10, 87 - index as u8, 0, 0]), prefix: 16 })
        .find(|subnet| taken.owner(*subnet).is_none());
    let subnet = match large {
        Some(subnet) => subnet,
        None => taken.free_ipv4(start)?,
    };
    Ok(Pool { subnet, gateway: Some(subnet.first_host()), range: None })
}

/// An id of 32 random bytes.
pub fn random_id() -> Result<Id> {
    Ok(Id::from_random(random()?))
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut file = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    file.read_exact(&mut bytes).context("read /dev/urandom")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_subnets() {
        let mut taken = Taken::default();
        assert_eq!(taken.free_ipv4(0).unwrap().to_string(), "10.89.0.0/24");
        taken.subnets.push(("10.89.0.0/23".parse().unwrap(), "x".to_owned()));
        assert_eq!(taken.free_ipv4(0).unwrap().to_string(), "10.89.2.0/24");
        taken.subnets.push(("10.0.0.0/8".parse().unwrap(), "vpn".to_owned()));
        assert_eq!(taken.free_ipv4(0).unwrap().to_string(), "172.31.0.0/24");
        assert_eq!(taken.owner("10.7.0.0/16".parse().unwrap()), Some("vpn"));
        taken.subnets.push(("172.16.0.0/12".parse().unwrap(), "lan".to_owned()));
        assert!(taken.free_ipv4(7).is_err());
        assert_eq!(taken.free_ipv6([1, 2, 3, 4, 5, 6, 7]).to_string(), "fd01:203:405:607::/64");
    }
}
