//! Flows of datagrams: a socket on each side, both connected, for as long as something flows.

use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockaddrStorage};
use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A flow in which nothing was said for so long is over (RFC 4787 wants two minutes at least, for what answers).
pub const IDLE: Duration = Duration::from_secs(120);
/// Datagrams moved before others get their turn.
const BURST: usize = 32;

/// Two sockets that hand their datagrams to each other.
#[derive(Debug)]
pub struct Flow {
    /// Inside the networks' namespace, then outside.
    sides: [Side; 2],
    last: Instant,
}

/// One side of a flow.
#[derive(Debug)]
pub enum Side {
    /// A connected socket.
    Connected(UdpSocket),
    /// A published port that many clients share, and this flow's client: read elsewhere, written here.
    Shared(UdpSocket, SocketAddr),
}

impl Flow {
    /// Of these two.
    pub fn new(inside: Side, outside: Side) -> Flow {
        Flow { sides: [inside, outside], last: Instant::now() }
    }

    /// The socket of a side that is to be watched.
    pub fn watched(&self, side: usize) -> Option<&UdpSocket> {
        match &self.sides[side] {
            Side::Connected(socket) => Some(socket),
            Side::Shared(..) => None,
        }
    }

    /// Send to a side.
    pub fn send(&mut self, side: usize, datagram: &[u8]) {
        self.last = Instant::now();
        // A datagram that cannot be sent is lost, as on any way.
        match &self.sides[side] {
            Side::Connected(socket) => drop(socket.send(datagram)),
            Side::Shared(socket, client) => drop(socket.send_to(datagram, client)),
        }
    }

    /// A side can be read: pass on what is there. False: it said that nobody listens any more.
    pub fn ready(&mut self, side: usize, buffer: &mut [u8]) -> bool {
        for _ in 0..BURST {
            let Side::Connected(socket) = &self.sides[side] else { return true };
            match socket.recv(buffer) {
                Ok(length) => self.send(1 - side, &buffer[..length]),
                Err(error) => return error.kind() != ErrorKind::ConnectionRefused,
            }
        }
        true
    }

    /// How long nothing was said.
    pub fn idle(&self) -> Duration {
        self.last.elapsed()
    }
}

/// A first datagram: its length, who sent it, and where it was going.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr, SocketAddr)> {
    let mut control = nix::cmsg_space!(nix::libc::sockaddr_in6);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        socket::recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let unknown = || std::io::Error::from(ErrorKind::InvalidData);
    let source = message.address.and_then(|address| std_address(&address)).ok_or_else(unknown)?;
    let target = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => {
            let ip = IpAddr::from(u32::from_be(address.sin_addr.s_addr).to_be_bytes());
            Some(SocketAddr::new(ip, u16::from_be(address.sin_port)))
        }
        ControlMessageOwned::Ipv6OrigDstAddr(address) => {
            Some(SocketAddr::new(IpAddr::from(address.sin6_addr.s6_addr), u16::from_be(address.sin6_port)))
        }
        _ => None,
    });
    Ok((message.bytes, source, target.ok_or_else(unknown)?))
}

/// nix's address as the standard library's.
fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*address)));
    }
    address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address)))
}
