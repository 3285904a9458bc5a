//! Links, addresses and routes: rtnetlink messages by name of what they do. No policy and no records.
//!
//! Functions named `add_*` and `set_*` only append to a [`Batch`]; those that take a [`Socket`] talk to the kernel.

use crate::failure::{Failure, Kind};
use crate::model::subnet::Subnet;
use crate::network::message::{ACK, Attributes, Batch, CREATE, DUMP, EXCLUSIVE, REPLACE};
use crate::sys::netlink::Socket;
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
const IFF_UP: u32 = 1;

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// Largest packet.
    pub mtu: u32,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is a bridge that keeps VLANs apart.
    pub filters_vlans: bool,
}

/// A route of any table, of those that name a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; length 0 is the default route.
    pub subnet: Subnet,
    /// The link it leaves by.
    pub link: Option<u32>,
    /// Through whom.
    pub gateway: Option<IpAddr>,
}

/// A pair of links, one of which is born inside another namespace.
pub struct Veth<'a> {
    /// Name on the host.
    pub name: &'a str,
    /// The bridge it becomes a port of; 0: none, and it stays down.
    pub bridge: u32,
    /// Whether it reaches no other isolated port of the bridge.
    pub isolated: bool,
    /// Name inside.
    pub inside: &'a str,
    /// Hardware address inside.
    pub mac: [u8; 6],
    /// Largest packet; 0: the kernel's default.
    pub mtu: u32,
    /// The namespace.
    pub namespace: BorrowedFd<'a>,
}

/// A link of its own on a parent (`macvlan`, `ipvlan`, `vlan`).
pub struct Stacked<'a> {
    /// The kernel's kind.
    pub kind: &'a str,
    /// Name.
    pub name: &'a str,
    /// Index of the parent.
    pub parent: u32,
    /// Number of the kind's mode, or the VLAN id.
    pub mode: u32,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Largest packet; 0: the parent's.
    pub mtu: u32,
    /// The namespace to be born in; absent: the caller's.
    pub namespace: Option<BorrowedFd<'a>>,
}

fn ifinfo(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    header
}

/// Make a bridge, not up yet. `vlan`: untagged frames of its ports and of the host belong to this VLAN; 0: none.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: [u8; 6], mtu: u32, vlan: u16) {
    let label = format!("make bridge {name}");
    batch.message(&label, RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, false), |batch| {
        batch.put_text(IFLA_IFNAME, name);
        // A bridge without a fixed address takes that of its lowest port, and loses its neighbours with it.
        batch.put(IFLA_ADDRESS, &mac);
        if mtu != 0 {
            batch.put_u32(IFLA_MTU, mtu);
        }
        batch.nest(IFLA_LINKINFO, |batch| {
            batch.put_text(IFLA_INFO_KIND, "bridge");
            if vlan != 0 {
                batch.nest(IFLA_INFO_DATA, |batch| {
                    batch.put(IFLA_BR_VLAN_FILTERING, &[1]);
                    batch.put(IFLA_BR_VLAN_DEFAULT_PVID, &vlan.to_ne_bytes());
                });
            }
        });
    });
}

/// Untagged frames of a bridge's port belong to this VLAN and to no other.
pub fn set_port_vlan(batch: &mut Batch, index: u32, vlan: u16) {
    // BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED; 1 is the VLAN that ports have at first.
    for (kind, flags, id) in [(RTM_DELLINK, 0u16, 1u16), (RTM_SETLINK, 6, vlan)] {
        if kind == RTM_DELLINK && vlan == 1 {
            continue;
        }
        let mut header = ifinfo(index, false);
        header[0] = nix::libc::AF_BRIDGE as u8;
        batch.message(&format!("set VLAN {vlan} of link {index}"), kind, ACK, &header, |batch| {
            batch.nest(IFLA_AF_SPEC, |batch| {
                let info = [flags.to_ne_bytes(), id.to_ne_bytes()].concat();
                batch.put(IFLA_BRIDGE_VLAN_INFO, &info);
            });
        });
    }
}

/// Make a pair of links: one here as a port of the bridge, up; the other inside, down.
pub fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let label = format!("make link {} for {}", veth.name, veth.inside);
    batch.message(&label, RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, false), |batch| {
        batch.put_text(IFLA_IFNAME, veth.name);
        if veth.mtu != 0 {
            batch.put_u32(IFLA_MTU, veth.mtu);
        }
        if veth.bridge != 0 {
            batch.put_u32(IFLA_MASTER, veth.bridge);
        }
        batch.nest(IFLA_LINKINFO, |batch| {
            batch.put_text(IFLA_INFO_KIND, "veth");
            batch.nest(IFLA_INFO_DATA, |batch| {
                batch.nest(VETH_INFO_PEER, |batch| {
                    batch.raw(&ifinfo(0, false));
                    batch.put_text(IFLA_IFNAME, veth.inside);
                    batch.put(IFLA_ADDRESS, &veth.mac);
                    if veth.mtu != 0 {
                        batch.put_u32(IFLA_MTU, veth.mtu);
                    }
                    batch.put_u32(IFLA_NET_NS_FD, veth.namespace.as_raw_fd() as u32);
                });
            });
        });
    });
    if veth.bridge != 0 {
        set_port_up(batch, veth.name, veth.isolated);
    }
}

/// Make a link on a parent.
pub fn add_stacked(batch: &mut Batch, stacked: &Stacked<'_>) {
    let label = format!("make {} link {}", stacked.kind, stacked.name);
    batch.message(&label, RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, false), |batch| {
        batch.put_text(IFLA_IFNAME, stacked.name);
        batch.put_u32(IFLA_LINK, stacked.parent);
        if let Some(mac) = stacked.mac {
            batch.put(IFLA_ADDRESS, &mac);
        }
        if stacked.mtu != 0 {
            batch.put_u32(IFLA_MTU, stacked.mtu);
        }
        if let Some(namespace) = stacked.namespace {
            batch.put_u32(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
        }
        batch.nest(IFLA_LINKINFO, |batch| {
            batch.put_text(IFLA_INFO_KIND, stacked.kind);
            batch.nest(IFLA_INFO_DATA, |batch| match stacked.kind {
                "macvlan" => batch.put_u32(1, stacked.mode),
                "vlan" => batch.put(IFLA_VLAN_ID, &(stacked.mode as u16).to_ne_bytes()),
                _ => batch.put(1, &(stacked.mode as u16).to_ne_bytes()),
            });
        });
    });
}

/// Whether a link makes itself an IPv6 link-local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// As the kernel does.
    On,
    /// Never: the link has no IPv6.
    Off,
}

/// Bring a link up.
pub fn set_up(batch: &mut Batch, index: u32, ipv6: Ipv6) {
    batch.message(&format!("bring up link {index}"), RTM_NEWLINK, ACK, &ifinfo(index, true), |batch| {
        if ipv6 == Ipv6::Off {
            put_no_ipv6(batch);
        }
    });
}

/// Whether the kernel has IPv6 at all (`ipv6.disable=1` takes it away).
fn ipv6_is_there() -> bool {
    use std::sync::OnceLock;
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| std::path::Path::new("/proc/net/if_inet6").exists())
}

/// Bring up a bridge's port. Its kernel IPv6 is off: it is only a port, an address of its own would be a way round the
/// bridge. Hairpin lets a frame go back to where it came from: where br_netfilter translates bridged packets, a
/// container that calls its own published port needs it.
fn set_port_up(batch: &mut Batch, name: &str, isolated: bool) {
    batch.message(&format!("bring up link {name}"), RTM_NEWLINK, ACK, &ifinfo(0, true), |batch| {
        batch.put_text(IFLA_IFNAME, name);
        batch.nest(IFLA_LINKINFO, |batch| {
            batch.put_text(IFLA_INFO_SLAVE_KIND, "bridge");
            batch.nest(IFLA_INFO_SLAVE_DATA, |batch| {
                batch.put(IFLA_BRPORT_MODE, &[1]);
                if isolated {
                    batch.put(IFLA_BRPORT_ISOLATED, &[1]);
                }
            });
        });
        put_no_ipv6(batch);
    });
}

fn put_no_ipv6(batch: &mut Batch) {
    if ipv6_is_there() {
        batch.nest(IFLA_AF_SPEC, |batch| {
            batch.nest(nix::libc::AF_INET6 as u16, |batch| batch.put(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]));
        });
    }
}

/// Give a link an address.
pub fn add_address(batch: &mut Batch, link: u32, address: IpAddr, prefix: u8) {
    let (family, bytes) = octets(address);
    let mut header = [family, prefix, 0, 0, 0, 0, 0, 0];
    // IFA_F_NODAD: the lease says that it is ours; a second of waiting would not say more.
    if address.is_ipv6() {
        header[2] = 0x02;
    }
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    let label = format!("add address {address}/{prefix}");
    batch.message(&label, RTM_NEWADDR, ACK | CREATE | REPLACE, &header, |batch| {
        batch.put(2, &bytes);
        batch.put(1, &bytes);
        if let (IpAddr::V4(address), true) = (address, prefix < 31) {
            let broadcast = u32::from(address) | (u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0));
            batch.put(4, &broadcast.to_be_bytes());
        }
    });
}

/// Add a route.
pub fn add_route(batch: &mut Batch, target: &Subnet, gateway: Option<IpAddr>, link: Option<u32>, metric: u32) {
    let (family, bytes) = octets(target.address);
    // Main table, RTPROT_STATIC, link scope without a gateway, unicast.
    let scope = if gateway.is_none() && target.address.is_ipv4() { 253 } else { 0 };
    let header = [family, target.prefix, 0, 0, 254, 4, scope, 1, 0, 0, 0, 0];
    batch.message(&format!("add route {target}"), RTM_NEWROUTE, ACK | CREATE | REPLACE, &header, |batch| {
        if target.prefix != 0 {
            batch.put(1, &bytes);
        }
        if let Some(gateway) = gateway {
            batch.put(5, &octets(gateway).1);
        }
        if let Some(link) = link {
            batch.put_u32(4, link);
        }
        if metric != 0 {
            batch.put_u32(6, metric);
        }
    });
}

/// Give a link this hardware address.
pub fn set_address(batch: &mut Batch, name: &str, mac: [u8; 6]) {
    batch.message(&format!("set the address of link {name}"), RTM_NEWLINK, ACK, &ifinfo(0, false), |batch| {
        batch.put_text(IFLA_IFNAME, name);
        batch.put(IFLA_ADDRESS, &mac);
    });
}

/// Bring a link up on which nobody is asked for a hardware address: whoever is at the other end takes all.
pub fn set_up_without_arp(batch: &mut Batch, name: &str) {
    const IFF_NOARP: u32 = 0x80;
    let mut header = ifinfo(0, true);
    for field in [8, 12] {
        header[field..field + 4].copy_from_slice(&(IFF_UP | IFF_NOARP).to_ne_bytes());
    }
    batch.message(&format!("bring up link {name}"), RTM_NEWLINK, ACK, &header, |batch| {
        batch.put_text(IFLA_IFNAME, name);
        put_no_ipv6(batch);
    });
}

/// Packets with this mark are looked up in this table, where everything is local: they go to the socket that took them.
pub fn add_local_table(batch: &mut Batch, ipv6: bool, mark: u32, table: u8) {
    const RTM_NEWRULE: u16 = 32;
    let family = if ipv6 { nix::libc::AF_INET6 } else { nix::libc::AF_INET } as u8;
    // FR_ACT_TO_TBL
    let header = [family, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
    batch.message("add a routing rule", RTM_NEWRULE, ACK | CREATE, &header, |batch| batch.put_u32(10, mark));
    // Scope host, RTN_LOCAL, by the loopback device.
    let header = [family, 0, 0, 0, table, 4, if ipv6 { 0 } else { 254 }, 2, 0, 0, 0, 0];
    batch.message("add a local route", RTM_NEWROUTE, ACK | CREATE | REPLACE, &header, |batch| batch.put_u32(4, 1));
}

/// A link that cannot be made because the kernel lacks what it is.
pub fn explain_kind(error: anyhow::Error, what: &str) -> anyhow::Error {
    if errno_of(&error) != Some(nix::libc::EOPNOTSUPP) {
        return error;
    }
    let failure = Failure::new(Kind::Engine, format!("this kernel does not do {what}"));
    error.context(failure.hint("it may be a module of another kernel than the one that runs: was there an update?"))
}

/// Whether the kernel refused because the link's name is taken.
pub fn is_there_already(error: &anyhow::Error) -> bool {
    errno_of(error) == Some(nix::libc::EEXIST)
}

fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
}

/// Remove a link by name.
pub fn remove(batch: &mut Batch, name: &str) {
    batch.message(&format!("remove link {name}"), RTM_DELLINK, ACK, &ifinfo(0, false), |batch| {
        batch.put_text(IFLA_IFNAME, name);
    });
}

/// Remove a link; that it is gone already is no error.
pub fn remove_now(socket: &Socket, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    remove(&mut batch, name);
    let (_, refusals) = batch.try_send(socket)?;
    match refusals.into_iter().find(|refusal| refusal.errno != nix::libc::ENODEV) {
        Some(refusal) => Err(refusal.into_error()),
        None => Ok(()),
    }
}

/// Look a link up by name; `None` when there is none.
pub fn find(socket: &Socket, name: &str) -> Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.message(&format!("find link {name}"), RTM_GETLINK, 0, &ifinfo(0, false), |batch| {
        batch.put_text(IFLA_IFNAME, name);
    });
    let (replies, refusals) = batch.try_send(socket)?;
    if let Some(refusal) = refusals.into_iter().next() {
        return if refusal.errno == nix::libc::ENODEV { Ok(None) } else { Err(refusal.into_error()) };
    }
    Ok(replies.iter().find_map(|reply| parse_link(&reply.body)))
}

/// All links.
pub fn list(socket: &Socket) -> Result<Vec<Link>> {
    let mut batch = Batch::new();
    batch.message("list links", RTM_GETLINK, DUMP, &ifinfo(0, false), |_| {});
    let replies = socket.dump(batch.bytes()).context("list links")?;
    Ok(replies.iter().filter_map(|reply| parse_link(&reply.body)).collect())
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let flags = u32::from_ne_bytes(body.get(8..12)?.try_into().ok()?);
    let attributes = Attributes(body.get(16..)?);
    Some(Link {
        index,
        name: attributes.text(IFLA_IFNAME)?,
        mac: attributes.find(IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
        kind: attributes.find(IFLA_LINKINFO).and_then(|info| Attributes(info).text(IFLA_INFO_KIND)).unwrap_or_default(),
        mtu: attributes.u32(IFLA_MTU).unwrap_or(0),
        master: attributes.u32(IFLA_MASTER),
        up: flags & IFF_UP != 0,
        filters_vlans: attributes
            .find(IFLA_LINKINFO)
            .and_then(|info| Attributes(info).find(IFLA_INFO_DATA))
            .and_then(|data| Attributes(data).find(IFLA_BR_VLAN_FILTERING))
            == Some(&[1]),
    })
}

/// All addresses with the index of their link.
pub fn addresses(socket: &Socket) -> Result<Vec<(u32, Subnet)>> {
    let mut batch = Batch::new();
    batch.message("list addresses", RTM_GETADDR, DUMP, &[0; 8], |_| {});
    let replies = socket.dump(batch.bytes()).context("list addresses")?;
    Ok(replies
        .iter()
        .filter_map(|reply| {
            let body = reply.body.as_slice();
            let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
            let attributes = Attributes(body.get(8..)?);
            // IFA_LOCAL, or IFA_ADDRESS where there is no peer.
            let address = ip(attributes.find(2).or_else(|| attributes.find(1))?)?;
            Some((index, Subnet { address, prefix: *body.get(1)? }))
        })
        .collect())
}

/// All unicast routes of all tables.
pub fn routes(socket: &Socket) -> Result<Vec<Route>> {
    let mut batch = Batch::new();
    batch.message("list routes", RTM_GETROUTE, DUMP, &[0; 12], |_| {});
    let replies = socket.dump(batch.bytes()).context("list routes")?;
    Ok(replies.iter().filter_map(|reply| parse_route(&reply.body)).collect())
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let header = body.get(..12)?;
    // RTN_UNICAST only; local and broadcast entries follow from addresses.
    if header[7] != 1 {
        return None;
    }
    let attributes = Attributes(&body[12..]);
    let address = match (attributes.find(1), i32::from(header[0])) {
        (Some(bytes), _) => ip(bytes)?,
        (None, nix::libc::AF_INET) => IpAddr::from([0; 4]),
        (None, _) => IpAddr::from([0; 16]),
    };
    let gateway = attributes.find(5).and_then(ip);
    Some(Route { subnet: Subnet { address, prefix: header[1] }, link: attributes.u32(4), gateway })
}

/// The address family and the bytes.
fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (nix::libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (nix::libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}
