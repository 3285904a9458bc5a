//! The side of a network that is not the container's: bridges, sysctls and firewall of the namespace they live in.
//!
//! As root that is the host's network namespace; for an ordinary user's bridges it is one that the user's supervisors
//! share. A bridge that is up is complete: it is brought up last, so whoever finds one that is not repairs it.

use crate::failure::{Failure, Kind};
use crate::model::port::Publication;
use crate::model::subnet::{Subnet, mac_of};
use crate::network::create;
use crate::network::firewall::{Firewall, Zone};
use crate::network::forward::{self, uplink};
use crate::network::link::{self, Ipv6};
use crate::network::message::Batch;
use crate::network::option::{self, Options};
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use crate::state::network::{self, Driver, NetworkRecord};
use crate::sys::netlink::{self, Family, Socket};
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Where bridges live.
#[derive(Debug)]
pub struct Host {
    /// Absent: the namespace of this process.
    namespace: Option<OwnedFd>,
    /// An ordinary user's: what leaves goes to the forwarder, which translates no addresses.
    is_users: bool,
    route: Socket,
    firewall: Firewall,
}

impl Host {
    /// Open sockets in the namespace.
    pub fn open(namespace: Option<OwnedFd>, layout: &Layout) -> Result<Host> {
        let table = table_name(layout);
        let open = || -> Result<(Socket, Firewall)> {
            let route = Socket::open(Family::Route).context("open a route socket")?;
            Ok((route, Firewall::open(&table, namespace.as_ref().map(|_| uplink::UPLINK))?))
        };
        let (route, firewall) = match &namespace {
            None => open()?,
            Some(namespace) => netlink::within(namespace.as_fd(), open).context("join the networks' namespace")??,
        };
        Ok(Host { is_users: namespace.is_some(), namespace, route, firewall })
    }

    /// The namespace of this user's bridges; `None`: there is none, so there are no bridges.
    pub fn of_user(layout: &Layout, rootless: bool) -> Result<Option<Host>> {
        if rootless {
            let Some(client) = forward::Client::find(layout)? else { return Ok(None) };
            return Host::open(Some(client.namespace().try_clone_to_owned()?), layout).map(Some);
        }
        Host::open(None, layout).map(Some)
    }

    /// The route socket.
    pub fn route(&self) -> &Socket {
        &self.route
    }

    /// The rules.
    pub fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// Run something in the namespace.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.namespace {
            None => work(),
            Some(namespace) => netlink::within(namespace.as_fd(), work).context("join the networks' namespace")?,
        }
    }

    /// The bridge of a network, made if it is not there. Returns its index.
    pub fn bridge(&self, layout: &Layout, record: &NetworkRecord, options: &Options) -> Result<u32> {
        if let Some(index) = self.find_bridge(record, options)? {
            return Ok(index);
        }
        if options.unmanaged {
            let message = format!("network {}: there is no bridge {}", record.name, record.interface);
            return Err(Failure::new(Kind::Engine, message)
                .hint("with `-o mode=unmanaged` the bridge is made by somebody else")
                .into());
        }
        // Two starts at once: the second waits and finds it whole.
        let _guard = lock::lock(&layout.network(&record.name), Rank::Network, Mode::Exclusive)?;
        if let Some(index) = self.find_bridge(record, options)? {
            return Ok(index);
        }
        std::fs::create_dir_all(layout.members(&record.name)).context("make the members' directory")?;
        self.publish(layout, &[self.zone(record, options)], &[])?;
        self.make_bridge(record, options).with_context(|| format!("set up network {}", record.name))
    }

    /// The parent of a macvlan or ipvlan: the one of the record, else that of the default route.
    pub fn parent(&self, record: &NetworkRecord) -> Result<u32> {
        if !record.interface.is_empty() {
            let found = link::find(&self.route, &record.interface)?;
            return found.map(|found| found.index).ok_or_else(|| {
                Failure::new(Kind::Engine, format!("network {}: there is no link {}", record.name, record.interface))
                    .hint("`-o parent=LINK` of `coracle network create` names another")
                    .into()
            });
        }
        let routes = link::routes(&self.route)?;
        let default = routes.iter().find(|route| route.subnet.prefix == 0 && route.link.is_some());
        default.and_then(|route| route.link).with_context(|| {
            format!("network {}: no parent link was named and the host has no default route", record.name)
        })
    }

    fn find_bridge(&self, record: &NetworkRecord, options: &Options) -> Result<Option<u32>> {
        match link::find(&self.route, &record.interface)? {
            Some(found) if found.kind != "bridge" => {
                let message = format!("network {}: link {} is no bridge", record.name, record.interface);
                Err(Failure::new(Kind::Engine, message)
                    .hint("make the network again with another `--interface-name`")
                    .into())
            }
            Some(found) if options.vlan != 0 && found.up && !found.filters_vlans => {
                let message = format!("network {}: bridge {} keeps no VLANs apart", record.name, record.interface);
                Err(Failure::new(Kind::Engine, message)
                    .hint(format!("ip link set {} type bridge vlan_filtering 1", record.interface))
                    .into())
            }
            Some(found) => Ok(found.up.then_some(found.index)),
            None => Ok(None),
        }
    }

    fn make_bridge(&self, record: &NetworkRecord, options: &Options) -> Result<u32> {
        let name = record.interface.as_str();
        if link::find(&self.route, name)?.is_none() {
            let mac = mac_of(record.subnets.first().map_or(IpAddr::from([0; 4]), |pool| pool.subnet.network().address));
            let mut batch = Batch::new();
            link::add_bridge(&mut batch, name, mac, options.mtu, options.vlan);
            batch.send(&self.route).map_err(|error| link::explain_kind(error, "VLANs on bridges"))?;
        }
        let index = link::find(&self.route, name)?.context("the new bridge is gone again")?.index;
        let has_ipv6 = record.subnets.iter().any(|pool| pool.subnet.address.is_ipv6());
        self.run(|| bridge_sysctls(name, record.internal, has_ipv6))?;
        let mut batch = Batch::new();
        for pool in &record.subnets {
            if let Some(gateway) = pool.gateway {
                link::add_address(&mut batch, index, gateway, pool.subnet.prefix);
            }
        }
        link::set_up(&mut batch, index, if has_ipv6 { Ipv6::On } else { Ipv6::Off });
        batch.send(&self.route)?;
        Ok(index)
    }

    /// Add zones and ports to the rules; if another tool flushed them or changed them, put back those of all networks.
    pub fn publish(&self, layout: &Layout, zones: &[Zone], ports: &[Publication]) -> Result<()> {
        self.add(layout, zones, ports)?;
        self.firewall.forget_flows(ports)
    }

    fn add(&self, layout: &Layout, zones: &[Zone], ports: &[Publication]) -> Result<()> {
        if self.firewall.is_there()? {
            let _guard = firewall_lock(layout, Mode::Shared)?;
            if self.firewall.add(zones, ports).is_ok() {
                return Ok(());
            }
        }
        let _guard = firewall_lock(layout, Mode::Exclusive)?;
        // Somebody else may have put them back while we waited.
        if self.firewall.is_there()? && self.firewall.add(zones, ports).is_ok() {
            return Ok(());
        }
        let (mut all_zones, mut all_ports) = self.wanted(layout)?;
        all_zones.extend(zones.iter().filter(|zone| !all_zones.contains(zone)).cloned().collect::<Vec<_>>());
        all_ports.extend_from_slice(ports);
        dedup(&mut all_ports);
        self.firewall.establish(&all_zones, &all_ports)
    }

    /// See that other tools' firewalls let these bridges' packets through (see `firewall::foreign`).
    pub fn admit(&self, bridges: &[&str]) -> Result<()> {
        if self.is_users { Ok(()) } else { self.firewall.admit(bridges) }
    }

    /// Take ports out of the rules.
    pub fn withdraw(&self, ports: &[Publication]) -> Result<()> {
        let withdrawn = self.firewall.withdraw(ports);
        withdrawn.and(self.firewall.forget_flows(ports))
    }

    /// Put back the rules of all networks, whatever is there (`network reload`).
    pub fn reload(&self, layout: &Layout) -> Result<()> {
        let _guard = firewall_lock(layout, Mode::Exclusive)?;
        let (zones, ports) = self.wanted(layout)?;
        self.firewall.establish(&zones, &ports)?;
        let bridges: Vec<&str> = zones.iter().filter(|zone| !zone.internal).map(|zone| zone.bridge.as_str()).collect();
        self.admit(&bridges)
    }

    /// Remove a network's bridge and rules.
    pub fn forget(&self, layout: &Layout, record: &NetworkRecord, options: &Options) -> Result<()> {
        if record.driver != Driver::Bridge || options.unmanaged {
            return Ok(());
        }
        let _guard = firewall_lock(layout, Mode::Shared)?;
        self.firewall.forget(&self.zone(record, options))?;
        if !self.is_users {
            self.firewall.expel(&record.interface)?;
        }
        link::remove_now(&self.route, &record.interface)
    }

    /// What the rules should hold: every bridge network, and every port of every member.
    fn wanted(&self, layout: &Layout) -> Result<(Vec<Zone>, Vec<Publication>)> {
        let mut zones = Vec::new();
        let mut ports = Vec::new();
        for record in network::list(layout)? {
            let options = option::parse(record.driver, &record.options)?;
            if record.driver == Driver::Bridge && !options.unmanaged {
                zones.push(self.zone(&record, &options));
            }
            for member in network::members(layout, &record.name)? {
                ports.extend(member.ports);
            }
        }
        if self.is_users && layout.leases(create::PRIVATE).exists() {
            let record = create::private(layout)?;
            let options = option::parse(record.driver, &record.options)?;
            zones.push(self.zone(&record, &options));
        }
        dedup(&mut ports);
        Ok((zones, ports))
    }

    /// A network as the rules see it.
    fn zone(&self, record: &NetworkRecord, options: &Options) -> Zone {
        Zone {
            bridge: record.interface.clone(),
            subnets: record.subnets.iter().map(|pool| pool.subnet).collect::<Vec<Subnet>>(),
            masquerade: options.masquerade && !self.is_users,
            internal: record.internal,
            isolation: options.isolation,
            routed: options.routed,
        }
    }
}

/// The name of this store's table: two stores on one host do not undo each other's rules.
pub fn table_name(layout: &Layout) -> String {
    match store_tag(layout) {
        None => "coracle".to_owned(),
        Some(tag) => format!("coracle-{tag:06x}"),
    }
}

/// A number that tells stores apart; `None` for the usual one.
pub fn store_tag(layout: &Layout) -> Option<u32> {
    use std::os::unix::ffi::OsStrExt;
    let usual = layout.run() == std::path::Path::new("/run/coracle");
    let hash = layout
        .data()
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (!usual).then_some(hash & 0xff_ffff)
}

/// Two living members never claim one port (it is bound), but a dead one's file may claim what a living one has: the
/// last that is listed stays.
fn dedup(ports: &mut Vec<Publication>) {
    let mut known = std::collections::HashSet::new();
    let mut is_new = |port: &Publication| {
        let singles: Vec<_> = port.singles().collect();
        // A range is kept if none of it is claimed by a later one.
        singles.into_iter().fold(true, |new, (number, _)| {
            known.insert((port.host, number, port.protocol, port.target.is_ipv4())) && new
        })
    };
    let kept: Vec<Publication> = ports.iter().rev().filter(|port| is_new(port)).copied().collect();
    *ports = kept;
}

fn firewall_lock(layout: &Layout, mode: Mode) -> Result<lock::Guard> {
    let path = layout.firewall_lock();
    if !path.exists() {
        std::fs::create_dir_all(layout.run()).context("make the run directory")?;
        match crate::state::file::create_new(&path, b"", crate::state::file::Durability::Volatile) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", path.display()));
            }
            _ => {}
        }
    }
    lock::lock(&path, Rank::Network, mode)
}

/// What a bridge needs of the kernel besides its address.
fn bridge_sysctls(bridge: &str, internal: bool, has_ipv6: bool) -> Result<()> {
    // CVE-2020-13401: a container must not be the host's router.
    set_ipv6(&format!("conf/{bridge}/accept_ra"), "0")?;
    if !has_ipv6 {
        set_ipv6(&format!("conf/{bridge}/disable_ipv6"), "1")?;
    }
    if internal {
        return Ok(());
    }
    set_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
    // Connections of the host to 127.0.0.1 reach published ports. What this would let containers do to the host's
    // loopback services (CVE-2020-8558) is dropped by the first rules of our table, which are there before the bridge.
    set_sysctl(&format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    if has_ipv6 {
        forward_ipv6()?;
    }
    Ok(())
}

/// Forwarding makes a host deaf to router advertisements, and it would lose its own default route, unless told otherwise.
fn forward_ipv6() -> Result<()> {
    let all = "/proc/sys/net/ipv6/conf/all/forwarding";
    if std::fs::read_to_string(all).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    let links = std::fs::read_dir("/proc/sys/net/ipv6/conf").context("list links")?;
    for link in links.flatten() {
        let name = link.file_name();
        let accept = link.path().join("accept_ra");
        let listens = std::fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1");
        if listens && name != "all" && name != "default" && name != "lo" {
            set_sysctl(&accept.to_string_lossy(), "2")?;
        }
    }
    set_sysctl(all, "1")
}

/// The same for IPv6, where the kernel has it.
pub fn set_ipv6(key: &str, value: &str) -> Result<()> {
    match set_sysctl(&format!("/proc/sys/net/ipv6/{key}"), value) {
        // Booted with ipv6.disable=1.
        Err(_) if !std::path::Path::new("/proc/sys/net/ipv6").exists() => Ok(()),
        result => result,
    }
}

/// Set a sysctl of the namespace this runs in, if it has another value.
pub fn set_sysctl(path: &str, value: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value).with_context(|| format!("write {value} to {path}"))
}
