//! Published ports: reserved by binding them, before anything is told to anybody.
//!
//! A bound socket is the only exact answer to "is this port free", and it gives itself back when its holder dies.

mod holder;

use crate::failure::{Failure, Kind};
use crate::model::network::Network;
use crate::model::port::{PortMapping, Protocol};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// How often a range of free ports is looked for.
const ATTEMPTS: usize = 64;

/// A reserved port.
#[derive(Debug)]
pub struct Reserved {
    /// What holds it; absent: it was handed on to who holds it now.
    pub socket: Option<Arc<OwnedFd>>,
    /// Where; unspecified for any address. `[::]` may be of both families, see [`Reserved::covers`].
    pub address: SocketAddr,
    /// What comes by IPv4 comes here too.
    pub dual: bool,
    /// Protocol.
    pub protocol: Protocol,
    /// The port inside.
    pub target_port: u16,
}

impl Reserved {
    /// Whether clients of this family come here.
    pub fn covers(&self, ipv4: bool) -> bool {
        self.dual || self.address.is_ipv4() == ipv4
    }
}

/// What is to be published: `-p`, and with `-P` the exposed ports too, each once.
pub fn wanted(network: &Network) -> Vec<PortMapping> {
    let mut mappings = network.publish.clone();
    if network.publish_all {
        for (first, last, protocol) in &network.expose {
            for port in *first..=*last {
                let published = mappings.iter().any(|mapping| {
                    mapping.protocol == *protocol
                        && (u32::from(mapping.container_port)
                            ..u32::from(mapping.container_port) + u32::from(mapping.length))
                            .contains(&u32::from(port))
                });
                if !published {
                    mappings.push(PortMapping {
                        host_ip: None,
                        host_port: 0,
                        container_port: port,
                        length: 1,
                        protocol: *protocol,
                    });
                }
            }
        }
    }
    mappings
}

/// Reserve every port of the mappings: what is held for each. A mapping with host port 0 gets free ones, and is changed
/// to say which. One that names no address is reserved on all, of both families where the host has both.
///
/// # Errors
/// Names the process that holds a port, or the sysctl that forbids it.
pub fn reserve(mappings: &mut [PortMapping], default: Option<IpAddr>) -> Result<Vec<Vec<Reserved>>> {
    raise_limit(mappings.iter().map(|mapping| u64::from(mapping.length)).sum());
    let mut reserved = Vec::new();
    for mapping in mappings {
        check(mapping)?;
        let host = mapping.host_ip.or(default);
        reserved.push(match mapping.host_port {
            0 => reserve_free(mapping, host)?,
            _ => reserve_at(mapping, host).map_err(explain)?,
        });
    }
    Ok(reserved)
}

/// Each port takes a descriptor. (What a container may open is set for it apart.)
fn raise_limit(ports: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < 128 + ports
    {
        let wanted = (128 + ports).max(soft);
        // Root may go past its hard limit; for others the kernel's answer to the next socket says enough.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    }
}

fn check(mapping: &PortMapping) -> Result<()> {
    let ends = |first: u16| u32::from(first) + u32::from(mapping.length);
    let good = mapping.length > 0 && ends(mapping.host_port) <= 65536 && ends(mapping.container_port) <= 65536;
    if good {
        return Ok(());
    }
    let message = format!("publish {} ports from {}: beyond 65535", mapping.length, mapping.host_port);
    Err(Failure::new(Kind::Engine, message).into())
}

/// Why a port could not be had.
struct Refused {
    address: SocketAddr,
    protocol: Protocol,
    errno: Errno,
}

fn reserve_at(mapping: &PortMapping, host: Option<IpAddr>) -> Result<Vec<Reserved>, Refused> {
    let mut reserved = Vec::new();
    for offset in 0..mapping.length {
        let protocol = mapping.protocol;
        let Some((socket, address)) = reserve_one(host, mapping.host_port + offset, protocol)? else { continue };
        reserved.push(Reserved {
            socket: Some(Arc::new(socket)),
            address,
            dual: host.is_none() && address.is_ipv6(),
            protocol,
            target_port: mapping.container_port + offset,
        });
    }
    Ok(reserved)
}

/// One port, on one address or on all of both families.
fn reserve_one(host: Option<IpAddr>, port: u16, protocol: Protocol) -> Result<Option<(OwnedFd, SocketAddr)>, Refused> {
    let first = SocketAddr::new(host.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port);
    let bound = |address: SocketAddr, bound: Result<Option<OwnedFd>, Errno>| match bound {
        Ok(socket) => Ok(socket.map(|socket| (socket, address))),
        Err(errno) => Err(Refused { address, protocol, errno }),
    };
    match bind(first, protocol, host.is_none()) {
        // Nobody asked for IPv6, and this host has none.
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if host.is_none() => {
            let second = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            bound(second, bind(second, protocol, false))
        }
        result => bound(first, result),
    }
}

/// Let the kernel choose the first port, and see whether the others after it are free too.
fn reserve_free(mapping: &mut PortMapping, host: Option<IpAddr>) -> Result<Vec<Reserved>> {
    let mut refusal = None;
    for _ in 0..ATTEMPTS {
        let Some((free, _)) = reserve_one(host, 0, mapping.protocol).map_err(explain)? else { return Ok(Vec::new()) };
        let bound: SockaddrStorage = socket::getsockname(free.as_raw_fd()).context("read the chosen port")?;
        drop(free);
        let port = bound.as_sockaddr_in().map(|address| address.port());
        let port = port.or_else(|| bound.as_sockaddr_in6().map(|address| address.port())).unwrap_or(0);
        if u32::from(port) + u32::from(mapping.length) > 65536 {
            continue;
        }
        mapping.host_port = port;
        match reserve_at(mapping, host) {
            Ok(reserved) => return Ok(reserved),
            Err(refused) => refusal = Some(refused),
        }
    }
    Err(refusal.map_or_else(|| anyhow::anyhow!("find {} free ports", mapping.length), explain))
}

/// Bind, and for TCP listen: only then no other program can bind the port too. `None`: the kernel lacks SCTP, so nobody
/// can have the port.
fn bind(address: SocketAddr, protocol: Protocol, dual: bool) -> Result<Option<OwnedFd>, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, socket::SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, socket::SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, socket::SockProtocol::Sctp),
    };
    let fd = match socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, number) {
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        made => made?,
    };
    if protocol == Protocol::Tcp {
        // Old connections in TIME_WAIT are no reason to refuse.
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &!dual)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if protocol == Protocol::Tcp {
        socket::listen(&fd, Backlog::new(128)?)?;
    }
    Ok(Some(fd))
}

fn explain(refused: Refused) -> anyhow::Error {
    let Refused { address, protocol, errno } = refused;
    let what = format!("publish port {address}/{}", protocol.as_str());
    let failure = match errno {
        Errno::EADDRINUSE => {
            let holder = holder::holder(address, protocol).map_or_else(String::new, |holder| format!(" by {holder}"));
            return anyhow::Error::from(Failure::new(Kind::Engine, format!("{what}: address already in use{holder}")));
        }
        Errno::EACCES => Failure::new(Kind::Engine, what).hint(format!(
            "ports below {} need root; set the sysctl net.ipv4.ip_unprivileged_port_start={}, or publish a higher port",
            std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default().trim(),
            address.port()
        )),
        Errno::EADDRNOTAVAIL => {
            Failure::new(Kind::Engine, what).hint(format!("{} is not an address of this host", address.ip()))
        }
        Errno::EMFILE => Failure::new(Kind::Engine, what).hint("raise the limit of open files: `ulimit -n`"),
        _ => Failure::new(Kind::Engine, what),
    };
    anyhow::Error::from(std::io::Error::from(errno)).context(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: u16, length: u16) -> PortMapping {
        PortMapping {
            host_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host_port,
            container_port: 80,
            length,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn taken_names_the_holder() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = reserve(&mut [mapping(port, 1)], None).unwrap_err().to_string();
        assert!(error.contains("address already in use by "), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[test]
    fn free_ones_are_chosen() {
        let mut mappings = [mapping(0, 3)];
        let reserved = reserve(&mut mappings, None).unwrap().remove(0);
        assert_eq!(reserved.len(), 3);
        assert_ne!(mappings[0].host_port, 0);
        assert_eq!(reserved[2].address.port(), mappings[0].host_port + 2);
        assert_eq!(reserved[2].target_port, 82);
        assert!(std::net::TcpListener::bind(reserved[1].address).is_err());
    }

    #[test]
    fn both_families_are_reserved_when_none_is_named() {
        let mut mappings = [PortMapping { host_ip: None, ..mapping(0, 1) }];
        let reserved = reserve(&mut mappings, None).unwrap().remove(0);
        let port = mappings[0].host_port;
        assert!(std::net::TcpListener::bind(("0.0.0.0", port)).is_err());
        assert!(reserved.len() == 1 && reserved[0].covers(true));
        assert!(std::net::TcpListener::bind(("::", port)).is_err());
    }

    #[test]
    fn ranges_end_at_65535() {
        assert!(reserve(&mut [mapping(65535, 2)], None).is_err());
        assert!(reserve(&mut [mapping(1000, 0)], None).is_err());
    }

    #[test]
    fn exposed_ports_are_published_once() {
        let network = Network {
            publish: vec![mapping(8080, 2)],
            publish_all: true,
            expose: vec![(81, 82, Protocol::Tcp), (81, 81, Protocol::Udp)],
            ..Network::default()
        };
        let ports: Vec<_> = wanted(&network).iter().map(|one| (one.container_port, one.protocol)).collect();
        assert_eq!(ports, [(80, Protocol::Tcp), (82, Protocol::Tcp), (81, Protocol::Udp)]);
    }
}
