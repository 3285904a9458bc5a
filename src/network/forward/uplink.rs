//! The networks' namespace of an ordinary user, and how it leads out.
//!
//! Bridges and containers are in one network namespace that the user owns. Its default route is `uplink0`, at whose other
//! end, in a namespace of its own, a packet socket of the forwarder listens. It sees only the first packet of each TCP
//! connection and echo requests: everything else is done by the kernel's own TCP and UDP, with sockets inside the
//! namespace that may have any address.

use crate::model::subnet::Subnet;
use crate::network::firewall::{Firewall, Uplink};
use crate::network::host::{set_ipv6, set_sysctl};
use crate::network::link::{self, Ipv6, Veth};
use crate::network::message::Batch;
use crate::sys::netlink::{self, Family, Socket, set_option};
use crate::sys::packet;
use anyhow::{Context, Result};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where out is.
pub const UPLINK: Uplink = Uplink { link: "uplink0", port: 61, mark: 0x61 };
const TABLE: u8 = 61;
/// Hardware addresses of the two ends.
const INSIDE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const OUTSIDE: [u8; 6] = [0x02, 0, 0, 0, 0, 2];
/// Under this address containers find the host; the same as with podman and pasta.
pub const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 1, 2));

/// The namespace and the forwarder's sockets in it.
#[derive(Debug)]
pub struct Ways {
    /// The namespace of the user's bridges.
    pub namespace: OwnedFd,
    /// Frames that leave by the uplink; what is sent comes in by it.
    pub frames: OwnedFd,
    /// The other end of the uplink lives here.
    _outside: OwnedFd,
    /// Where TCP connections come out that are let through, one for each family.
    pub tcp: Vec<TcpListener>,
    /// Where first datagrams come out, one for each family.
    pub udp: Vec<UdpSocket>,
}

/// The Ethernet addresses of a frame that is to come in by the uplink.
pub fn ethernet() -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..6].copy_from_slice(&INSIDE);
    bytes[6..].copy_from_slice(&OUTSIDE);
    bytes
}

/// Make the namespace, or take the one that a supervisor still holds after its forwarder died.
pub fn open(kept: Option<OwnedFd>, table: &str) -> Result<Ways> {
    let namespace = match kept {
        Some(namespace) => namespace,
        None => new_namespace(false)?,
    };
    let outside = new_namespace(true)?;
    let inside = netlink::within(namespace.as_fd(), || set_up(outside.as_fd(), table))
        .context("join the networks' namespace")?;
    let (tcp, udp) = inside.context("set up the networks' namespace")?;
    let frames = netlink::within(outside.as_fd(), listen_outside).context("join the uplink's namespace")??;
    Ok(Ways { namespace, frames, _outside: outside, tcp, udp })
}

fn new_namespace(quiet: bool) -> Result<OwnedFd> {
    let make = || -> Result<OwnedFd> {
        let made = File::open("/proc/thread-self/ns/net").context("open the new network namespace")?;
        let socket = Socket::open(Family::Route)?;
        let mut batch = Batch::new();
        link::set_up(&mut batch, 1, Ipv6::On);
        batch.send(&socket)?;
        if quiet {
            // The other end of the uplink only has a packet socket: its namespace shall answer nothing.
            set_sysctl("/proc/sys/net/ipv4/ip_forward", "0")?;
            set_ipv6("conf/default/disable_ipv6", "1")?;
        }
        Ok(made.into())
    };
    netlink::within_new(make).context("make a network namespace")?
}

fn set_up(outside: BorrowedFd<'_>, table: &str) -> Result<(Vec<TcpListener>, Vec<UdpSocket>)> {
    let route = Socket::open(Family::Route)?;
    // Left behind by a forwarder that was killed.
    link::remove_now(&route, UPLINK.link)?;
    for (key, value) in [
        ("ip_forward", "1"),
        // What we send back in by the uplink comes from addresses that are elsewhere.
        ("conf/all/rp_filter", "0"),
        ("conf/default/rp_filter", "0"),
        ("conf/all/send_redirects", "0"),
        ("conf/default/send_redirects", "0"),
    ] {
        set_sysctl(&format!("/proc/sys/net/ipv4/{key}"), value)?;
    }
    // br_netfilter would show bridged packets to our rules before they are the namespace's own, and lose the socket that
    // `tproxy` gave them.
    for family in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if std::path::Path::new(&path).exists() {
            set_sysctl(&path, "0")?;
        }
    }
    set_ipv6("conf/all/forwarding", "1")?;
    set_ipv6("conf/default/accept_ra", "0")?;
    let mut batch = Batch::new();
    link::add_veth(
        &mut batch,
        &Veth {
            name: UPLINK.link,
            bridge: 0,
            isolated: false,
            inside: "uplink1",
            mac: OUTSIDE,
            mtu: 1500,
            namespace: outside,
        },
    );
    batch.send(&route)?;
    let index = link::find(&route, UPLINK.link)?.context("the uplink is gone")?.index;
    set_sysctl(&format!("/proc/sys/net/ipv4/conf/{}/rp_filter", UPLINK.link), "0")?;
    let mut batch = Batch::new();
    link::set_address(&mut batch, UPLINK.link, INSIDE);
    link::set_up_without_arp(&mut batch, UPLINK.link);
    link::add_address(&mut batch, index, IpAddr::from([169, 254, 1, 1]), 32);
    let has_ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
    for ipv6 in [false, true] {
        if ipv6 && !has_ipv6 {
            continue;
        }
        let any = if ipv6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
        link::add_route(&mut batch, &Subnet { address: any, prefix: 0 }, None, Some(index), 0);
        link::add_local_table(&mut batch, ipv6, UPLINK.mark, TABLE);
    }
    batch.send(&route)?;
    let firewall = Firewall::open(table, Some(UPLINK))?;
    if !firewall.is_there()? {
        firewall.establish(&[], &[]).map_err(explain)?;
    }
    let mut tcp = vec![listen_tcp(false)?];
    let mut udp = vec![listen_udp(false)?];
    if has_ipv6 {
        tcp.push(listen_tcp(true)?);
        udp.push(listen_udp(true)?);
    }
    Ok((tcp, udp))
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    let failure = crate::failure::Failure::new(crate::failure::Kind::Engine, "set up connectivity without root");
    error.context(
        failure.hint(
            "the kernel needs the modules nft_tproxy and nft_socket; `modprobe nft_tproxy nft_socket` loads them",
        ),
    )
}

fn listen_outside() -> Result<OwnedFd> {
    let route = Socket::open(Family::Route)?;
    let index = link::find(&route, "uplink1")?.context("the uplink's other end is gone")?.index;
    let mut batch = Batch::new();
    link::set_up_without_arp(&mut batch, "uplink1");
    batch.send(&route)?;
    packet::open(index).context("listen on the uplink")
}

fn listen_tcp(ipv6: bool) -> Result<TcpListener> {
    let fd = transparent_socket(ipv6, SockType::Stream)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::bind(fd.as_raw_fd(), &any(ipv6, UPLINK.port))?;
    socket::listen(&fd, Backlog::MAXCONN)?;
    Ok(fd.into())
}

fn listen_udp(ipv6: bool) -> Result<UdpSocket> {
    let fd = transparent_socket(ipv6, SockType::Datagram)?;
    if ipv6 {
        socket::setsockopt(&fd, sockopt::Ipv6OrigDstAddr, &true)?;
    } else {
        socket::setsockopt(&fd, sockopt::Ipv4OrigDstAddr, &true)?;
    }
    socket::bind(fd.as_raw_fd(), &any(ipv6, UPLINK.port))?;
    Ok(fd.into())
}

fn any(ipv6: bool, port: u16) -> SockaddrStorage {
    let address = if ipv6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
    SocketAddr::new(address, port).into()
}

/// A socket in the caller's namespace that may have any address.
pub fn transparent_socket(ipv6: bool, kind: SockType) -> Result<OwnedFd> {
    let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    // IP_TRANSPARENT, IPV6_TRANSPARENT
    let (level, option) = if ipv6 { (libc::IPPROTO_IPV6, 75) } else { (libc::IPPROTO_IP, 19) };
    set_option(fd.as_fd(), level, option, 1).context("make a transparent socket")?;
    if ipv6 {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}
