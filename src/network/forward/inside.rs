//! Sockets of the forwarder inside the networks' namespace, in the names of others.

use super::uplink::{self, Ways};
use crate::network::relay::{Inside, any_like, tcp};
use crate::sys::netlink;
use nix::sys::socket::{self, SockType, SockaddrStorage, sockopt};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Sockets made in the namespace at once: going there costs more than making them.
const STOCK: usize = 16;

/// The namespace, once the first supervisor has come.
#[derive(Debug, Default)]
pub struct Namespace {
    /// The namespace and the doors in it.
    pub ways: Option<Ways>,
    /// Sockets for connections, of each family.
    stock: [Vec<OwnedFd>; 2],
}

impl Namespace {
    /// A frame that leaves by the uplink; 0 bytes: there is none.
    pub fn read_frame(&self, buffer: &mut [u8]) -> usize {
        self.ways.as_ref().map_or(0, |ways| nix::unistd::read(&ways.frames, buffer).unwrap_or(0))
    }

    /// Let a frame in by the uplink.
    pub fn inject(&self, frame: &[u8]) {
        if let Some(ways) = &self.ways {
            let mut frame = frame.to_vec();
            frame[..12].copy_from_slice(&uplink::ethernet());
            let _ = nix::unistd::write(&ways.frames, &frame);
        }
    }

    /// A socket that speaks in the name of `local` to `peer`.
    pub fn speaking_as(&self, local: SocketAddr, peer: SocketAddr) -> Option<UdpSocket> {
        self.within(|| {
            let fd = uplink::transparent_socket(local.is_ipv6(), SockType::Datagram).ok()?;
            socket::setsockopt(&fd, sockopt::ReuseAddr, &true).ok()?;
            socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).ok()?;
            let socket = UdpSocket::from(fd);
            socket.connect(peer).ok()?;
            Some(socket)
        })
    }

    fn within<T>(&self, work: impl FnOnce() -> Option<T>) -> Option<T> {
        netlink::within(self.ways.as_ref()?.namespace.as_fd(), work).ok()?
    }
}

/// Loopback addresses do not leave the host, and no packet has two families: such a client is seen as the host itself.
fn has_a_name(client: SocketAddr, target: SocketAddr) -> bool {
    !client.ip().is_loopback() && client.is_ipv4() == target.is_ipv4()
}

impl Inside for Namespace {
    fn tcp(&mut self, client: SocketAddr, target: SocketAddr) -> Option<TcpStream> {
        let family = usize::from(target.is_ipv6());
        if self.stock[family].is_empty() {
            let one = || uplink::transparent_socket(target.is_ipv6(), SockType::Stream).ok();
            self.stock[family] = self.within(|| (0..STOCK).map(|_| one()).collect())?;
        }
        let fd = self.stock[family].pop()?;
        if has_a_name(client, target) {
            socket::setsockopt(&fd, sockopt::ReuseAddr, &true).ok()?;
            socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(client)).ok()?;
        }
        tcp::connect(fd, target).ok()
    }

    fn udp(&mut self, client: SocketAddr, target: SocketAddr) -> Option<UdpSocket> {
        if has_a_name(client, target) {
            return self.speaking_as(client, target);
        }
        let socket = self.within(|| UdpSocket::bind(any_like(target)).ok())?;
        socket.connect(target).ok()?;
        Some(socket)
    }
}
