//! Published ports: reserved by binding them, before anything is told to anybody.
//!
//! A bound socket is the only exact answer to "is this port free", and it gives itself back when its holder dies.

use crate::failure::{Failure, Kind};
use crate::model::network::Network;
use crate::model::port::{PortMapping, Protocol};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// How often a range of free ports is looked for.
const ATTEMPTS: usize = 64;

/// A reserved port.
#[derive(Debug)]
pub struct Reserved {
    /// What holds it.
    pub socket: OwnedFd,
    /// Where; unspecified for any address.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// The port inside.
    pub target_port: u16,
}

/// Which address families the container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
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

/// Reserve every port of the mappings. A mapping with host port 0 gets free ones, and is changed to say which.
///
/// # Errors
/// Names the process that holds a port, or the sysctl that forbids it.
pub fn reserve(mappings: &mut [PortMapping], families: Families, default: Option<IpAddr>) -> Result<Vec<Reserved>> {
    let mut reserved = Vec::new();
    for mapping in mappings {
        check(mapping)?;
        let addresses = addresses(mapping.host_ip.or(default), families);
        if mapping.host_port == 0 {
            reserved.extend(reserve_free(mapping, &addresses)?);
            continue;
        }
        reserved.extend(reserve_at(mapping, &addresses).map_err(explain)?);
    }
    Ok(reserved)
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

/// On which addresses a mapping is reserved: `None` means any, of each family the container has.
fn addresses(host: Option<IpAddr>, families: Families) -> Vec<IpAddr> {
    match host {
        Some(address) => vec![address],
        None => {
            let mut addresses = Vec::new();
            if families.ipv4 {
                addresses.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            }
            if families.ipv6 {
                addresses.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            }
            addresses
        }
    }
}

/// Why a port could not be had.
struct Refused {
    address: SocketAddr,
    protocol: Protocol,
    errno: Errno,
}

fn reserve_at(mapping: &PortMapping, addresses: &[IpAddr]) -> Result<Vec<Reserved>, Refused> {
    let mut reserved = Vec::new();
    for offset in 0..mapping.length {
        for address in addresses {
            let address = SocketAddr::new(*address, mapping.host_port + offset);
            let refused = |errno| Refused { address, protocol: mapping.protocol, errno };
            let Some(socket) = bind(address, mapping.protocol).map_err(refused)? else { continue };
            reserved.push(Reserved {
                socket,
                address,
                protocol: mapping.protocol,
                target_port: mapping.container_port + offset,
            });
        }
    }
    Ok(reserved)
}

/// Let the kernel choose the first port, and see whether the others after it are free too.
fn reserve_free(mapping: &mut PortMapping, addresses: &[IpAddr]) -> Result<Vec<Reserved>> {
    let mut refusal = None;
    for _ in 0..ATTEMPTS {
        let Some(first) = addresses.first() else { return Ok(Vec::new()) };
        let address = SocketAddr::new(*first, 0);
        let free = bind(address, mapping.protocol)
            .map_err(|errno| explain(Refused { address, protocol: mapping.protocol, errno }))?;
        let Some(free) = free else { return Ok(Vec::new()) };
        let bound: SockaddrStorage = socket::getsockname(free.as_raw_fd()).context("read the chosen port")?;
        drop(free);
        let port = bound.as_sockaddr_in().map(|address| address.port());
        let port = port.or_else(|| bound.as_sockaddr_in6().map(|address| address.port())).unwrap_or(0);
        if u32::from(port) + u32::from(mapping.length) > 65536 {
            continue;
        }
        mapping.host_port = port;
        match reserve_at(mapping, addresses) {
            Ok(reserved) => return Ok(reserved),
            Err(refused) => refusal = Some(refused),
        }
    }
    Err(refusal.map_or_else(|| anyhow::anyhow!("find {} free ports", mapping.length), explain))
}

/// Bind, and for TCP listen: only then no other program can bind the port too. `None`: the kernel lacks SCTP, so nobody
/// can have the port.
fn bind(address: SocketAddr, protocol: Protocol) -> Result<Option<OwnedFd>, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if protocol == Protocol::Udp { SockType::Datagram } else { SockType::Stream };
    let number = match protocol {
        Protocol::Tcp => Some(socket::SockProtocol::Tcp),
        Protocol::Udp => Some(socket::SockProtocol::Udp),
        Protocol::Sctp => None,
    };
    if protocol == Protocol::Sctp {
        return Ok(None);
    }
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, number)?;
    if protocol == Protocol::Tcp {
        // Old connections in TIME_WAIT are no reason to refuse.
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
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
            let holder = holder(address, protocol).map_or_else(String::new, |holder| format!(" by {holder}"));
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

/// The process that has the port, as `nginx (pid 12)`; only looked for when an error is to be told.
fn holder(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let inodes = inodes_of_port(address.port(), protocol);
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if inode.is_some_and(|inode| inodes.iter().any(|other| other == inode)) {
                return Some(format!("{} (pid {pid})", command_of(&process.path())));
            }
        }
    }
    None
}

/// What a process calls itself: a supervisor bears its container's name there.
fn command_of(process: &std::path::Path) -> String {
    let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let first = String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let name = if first.starts_with('/') { first.rsplit('/').next().unwrap_or_default() } else { &first };
    match name {
        "" => std::fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned(),
        name => name.to_owned(),
    }
}

fn inodes_of_port(port: u16, protocol: Protocol) -> Vec<String> {
    let mut inodes = Vec::new();
    for suffix in ["", "6"] {
        let path = format!("/proc/net/{}{suffix}", protocol.as_str());
        inodes.extend(inodes_in(&std::fs::read_to_string(path).unwrap_or_default(), port, protocol));
    }
    inodes
}

/// Inodes of the sockets bound to a local port, in the text of /proc/net/tcp and its kin.
fn inodes_in(text: &str, port: u16, protocol: Protocol) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            // 0A is LISTEN; a socket of UDP has no such state.
            let counts = protocol != Protocol::Tcp || fields.get(3) == Some(&"0A");
            (u16::from_str_radix(local, 16) == Ok(port) && counts)
                .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
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

    const BOTH: Families = Families { ipv4: true, ipv6: true };

    #[test]
    fn taken_names_the_holder() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = reserve(&mut [mapping(port, 1)], BOTH, None).unwrap_err().to_string();
        assert!(error.contains("address already in use by "), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[test]
    fn free_ones_are_chosen() {
        let mut mappings = [mapping(0, 3)];
        let reserved = reserve(&mut mappings, BOTH, None).unwrap();
        assert_eq!(reserved.len(), 3);
        assert_ne!(mappings[0].host_port, 0);
        assert_eq!(reserved[2].address.port(), mappings[0].host_port + 2);
        assert_eq!(reserved[2].target_port, 82);
        assert!(std::net::TcpListener::bind(reserved[1].address).is_err());
    }

    #[test]
    fn ranges_end_at_65535() {
        assert!(reserve(&mut [mapping(65535, 2)], BOTH, None).is_err());
        assert!(reserve(&mut [mapping(1000, 0)], BOTH, None).is_err());
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

    #[test]
    fn sockets_of_a_port() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   1: 0100007F:1F90 0100007F:0050 06 00000000:00000000 03:00000000 00000000     0        0 0 3\n";
        assert_eq!(inodes_in(text, 8080, Protocol::Tcp), ["4711"]);
        assert!(inodes_in(text, 80, Protocol::Tcp).is_empty());
    }
}
