//! Published ports by hand: what comes to a bound socket of the host is passed on to a container, byte by byte.
//!
//! The forwarder of an ordinary user does so for all ports. A supervisor does so for what the rules cannot translate: a
//! client that speaks IPv6 to a container without it, and `::1`, from which the kernel routes nowhere. There it is also
//! what answers while another tool has flushed the rules.
//!
//! Whoever owns a [`Relay`] polls [`Relay::fd`] or waits on its epoll, where it may have descriptors of its own. All is
//! bounded: one turn moves a bounded number of bytes for each descriptor, so that a busy connection starves no other.

pub mod tcp;
pub mod udp;

use crate::model::port::Protocol;
use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, SockType, sockopt};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tcp::{Interest, Life, Pair};
use udp::{Flow, Side};

/// Flows of datagrams; the one that has been silent longest makes room.
const FLOWS: usize = 4096;
const BUFFER: usize = 128 << 10;
/// The first kind of descriptor that is not the relay's own.
pub const FOREIGN: u8 = 3;

const PAIR: u8 = 0;
const FLOW: u8 = 1;
const PORT: u8 = 2;

/// Makes the socket towards a container, in the name of the client where that can be.
pub trait Inside {
    /// A connection, which may still be under way.
    fn tcp(&mut self, client: SocketAddr, target: SocketAddr) -> Option<TcpStream>;
    /// A connected socket.
    fn udp(&mut self, client: SocketAddr, target: SocketAddr) -> Option<UdpSocket>;
}

/// From the caller's own namespace and in its own name.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Inside for Plain {
    fn tcp(&mut self, _client: SocketAddr, target: SocketAddr) -> Option<TcpStream> {
        tcp::start(target).ok()
    }

    fn udp(&mut self, _client: SocketAddr, target: SocketAddr) -> Option<UdpSocket> {
        connected_udp(target)
    }
}

/// A socket that speaks to this address only, in the caller's namespace.
pub fn connected_udp(target: SocketAddr) -> Option<UdpSocket> {
    let socket = UdpSocket::bind(any_like(target)).ok()?;
    socket.connect(target).ok()?;
    Some(socket)
}

/// Any address of the same family.
pub fn any_like(address: SocketAddr) -> SocketAddr {
    let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    SocketAddr::new(any, 0)
}

/// A published port.
#[derive(Debug)]
struct Published {
    /// Where it leads; nowhere while the container has no network that could be reached.
    target: Option<SocketAddr>,
    socket: PublishedSocket,
    /// Flows of its clients.
    clients: HashMap<SocketAddr, u64>,
}

#[derive(Debug)]
enum PublishedSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

type Ends = (SocketAddr, SocketAddr);

/// Ports, connections and flows.
#[derive(Debug)]
pub struct Relay {
    epoll: Epoll,
    next: u64,
    ports: HashMap<u64, Published>,
    pairs: HashMap<u64, (Pair, [Interest; 2])>,
    flows: HashMap<u64, (Flow, Option<Ends>)>,
    flow_by_ends: HashMap<Ends, u64>,
    buffer: Vec<u8>,
}

fn token(kind: u8, key: u64, side: usize) -> u64 {
    u64::from(kind) << 56 | (key << 1 & 0x00ff_ffff_ffff_ffff) | side as u64
}

/// What an event is about: the kind, the key of that kind, and the side.
pub fn untoken(token: u64) -> (u8, u64, usize) {
    ((token >> 56) as u8, (token & 0x00ff_ffff_ffff_ffff) >> 1, (token & 1) as usize)
}

impl Relay {
    /// One with nothing to do.
    pub fn new() -> Result<Relay> {
        Ok(Relay {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?,
            next: 1,
            ports: HashMap::new(),
            pairs: HashMap::new(),
            flows: HashMap::new(),
            flow_by_ends: HashMap::new(),
            buffer: Vec::new(),
        })
    }

    /// Poll this for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// A number that nothing else has.
    pub fn key(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Watch a descriptor of a foreign kind.
    pub fn watch(&self, fd: impl AsFd, kind: u8, key: u64, side: usize, flags: EpollFlags) -> bool {
        self.epoll.add(fd, EpollEvent::new(flags, token(kind, key, side))).is_ok()
    }

    /// No longer.
    pub fn unwatch(&self, fd: impl AsFd) {
        let _ = self.epoll.delete(fd);
    }

    /// Wait for events, those of foreign kinds too.
    pub fn wait(&self, events: &mut [EpollEvent], timeout: EpollTimeout) -> Result<usize> {
        match self.epoll.wait(events, timeout) {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(error) => Err(error).context("wait for events"),
        }
    }

    /// Do what can be done without waiting, where there are no foreign kinds.
    pub fn ready(&mut self, inside: &mut dyn Inside) {
        let mut events = [EpollEvent::empty(); 32];
        let count = self.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..count] {
            self.event(event.data(), inside);
        }
        self.sweep();
        if self.pairs.is_empty() && self.flows.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// An event of one of our own kinds.
    pub fn event(&mut self, token: u64, inside: &mut dyn Inside) {
        let (kind, key, side) = untoken(token);
        match kind {
            PAIR => self.pair(key, side),
            FLOW => self.flow(key, side),
            PORT => self.port(key, inside),
            _ => {}
        }
    }

    /// Whether datagrams flow, which need [`Relay::sweep`].
    pub fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Room for bytes on their way; given back by [`Relay::put_back`].
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        buffer
    }

    /// The buffer again.
    pub fn put_back(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    // --- ports ---

    /// Pass on what comes to this bound socket. Returns the port's key.
    pub fn publish(&mut self, protocol: Protocol, socket: OwnedFd, target: Option<SocketAddr>) -> Result<u64> {
        let socket = match protocol {
            Protocol::Tcp => PublishedSocket::Tcp(socket.into()),
            Protocol::Udp => PublishedSocket::Udp(socket.into()),
            Protocol::Sctp => anyhow::bail!("sctp is passed on by the kernel's rules only"),
        };
        let key = self.key();
        let fd = match &socket {
            PublishedSocket::Tcp(socket) => socket.as_fd(),
            PublishedSocket::Udp(socket) => socket.as_fd(),
        };
        ensure!(self.watch(fd, PORT, key, 0, EpollFlags::EPOLLIN), "watch a published port");
        self.ports.insert(key, Published { target, socket, clients: HashMap::new() });
        Ok(key)
    }

    /// It leads elsewhere from now on.
    pub fn retarget(&mut self, key: u64, target: Option<SocketAddr>) {
        let Some(published) = self.ports.get_mut(&key) else { return };
        if published.target != target {
            published.target = target;
            for flow in std::mem::take(&mut published.clients).into_values() {
                self.remove_flow(flow);
            }
        }
    }

    /// No longer. Connections that are there already go on.
    pub fn withdraw(&mut self, key: u64) {
        let Some(published) = self.ports.remove(&key) else { return };
        // Somebody else may hold the socket too, so closing ours would leave it watched.
        match &published.socket {
            PublishedSocket::Tcp(socket) => self.unwatch(socket),
            PublishedSocket::Udp(socket) => self.unwatch(socket),
        }
        for flow in published.clients.into_values() {
            self.remove_flow(flow);
        }
    }

    fn port(&mut self, key: u64, inside: &mut dyn Inside) {
        match self.ports.get(&key).map(|published| &published.socket) {
            Some(PublishedSocket::Tcp(_)) => self.port_tcp(key, inside),
            Some(PublishedSocket::Udp(_)) => self.port_udp(key, inside),
            None => {}
        }
    }

    fn port_tcp(&mut self, key: u64, inside: &mut dyn Inside) {
        for _ in 0..64 {
            let Some(Published { socket: PublishedSocket::Tcp(listener), target, .. }) = self.ports.get(&key) else {
                return;
            };
            let target = *target;
            let Ok((outside, client)) = listener.accept() else { return };
            let _ = outside.set_nonblocking(true);
            let Some(inside) = target.and_then(|target| inside.tcp(plain(client), target)) else { continue };
            self.join(outside, inside, false);
        }
    }

    fn port_udp(&mut self, key: u64, inside: &mut dyn Inside) {
        for _ in 0..64 {
            let mut buffer = self.take_buffer();
            let received = match self.ports.get(&key) {
                Some(Published { socket: PublishedSocket::Udp(socket), .. }) => socket.recv_from(&mut buffer).ok(),
                _ => None,
            };
            if let Some((length, client)) = received
                && let Some(flow) = self.inward_flow(key, client, inside)
                && let Some((flow, _)) = self.flows.get_mut(&flow)
            {
                flow.send(0, &buffer[..length]);
            }
            self.buffer = buffer;
            if received.is_none() {
                return;
            }
        }
    }

    fn inward_flow(&mut self, key: u64, client: SocketAddr, inside: &mut dyn Inside) -> Option<u64> {
        let published = self.ports.get(&key)?;
        if let Some(flow) = published.clients.get(&client).copied().filter(|flow| self.flows.contains_key(flow)) {
            return Some(flow);
        }
        let PublishedSocket::Udp(socket) = &published.socket else { return None };
        let (socket, target) = (socket.try_clone().ok()?, published.target?);
        let inside = inside.udp(plain(client), target)?;
        let flow = self.add_flow(Flow::new(Side::Connected(inside), Side::Shared(socket, client)), None)?;
        let published = self.ports.get_mut(&key)?;
        published.clients.retain(|_, flow| self.flows.contains_key(flow));
        published.clients.insert(client, flow);
        Some(flow)
    }

    // --- connections ---

    /// Copy between these two from now on; the second may still be connecting.
    pub fn join(&mut self, first: TcpStream, second: TcpStream, second_connected: bool) {
        for stream in [&first, &second] {
            let _ = socket::setsockopt(stream, sockopt::KeepAlive, &true);
        }
        let key = self.key();
        let pair = Pair::new(first, second, second_connected);
        let interest = pair.interest();
        let mut good = true;
        for side in 0..2 {
            good &= self.watch(pair.stream(side), PAIR, key, side, flags(interest[side]));
        }
        if good {
            self.pairs.insert(key, (pair, interest));
        }
    }

    fn pair(&mut self, key: u64, side: usize) {
        let mut buffer = self.take_buffer();
        if let Some((pair, known)) = self.pairs.get_mut(&key) {
            match pair.ready(side, &mut buffer) {
                Life::Over => drop(self.pairs.remove(&key)),
                Life::On(interest) => {
                    for side in 0..2 {
                        if interest[side] != known[side] {
                            let mut event = EpollEvent::new(flags(interest[side]), token(PAIR, key, side));
                            let _ = self.epoll.modify(pair.stream(side), &mut event);
                        }
                    }
                    *known = interest;
                }
            }
        }
        self.buffer = buffer;
    }

    // --- datagrams ---

    /// The flow between these two, if there is one.
    pub fn find_flow(&self, source: SocketAddr, target: SocketAddr) -> Option<u64> {
        self.flow_by_ends.get(&(source, target)).copied()
    }

    /// Send to a side of a flow.
    pub fn send(&mut self, key: u64, side: usize, datagram: &[u8]) {
        if let Some((flow, _)) = self.flows.get_mut(&key) {
            flow.send(side, datagram);
        }
    }

    /// Pass on what comes on either side.
    pub fn add_flow(&mut self, flow: Flow, ends: Option<Ends>) -> Option<u64> {
        if self.flows.len() >= FLOWS {
            let oldest = self.flows.iter().max_by_key(|(_, (flow, _))| flow.idle()).map(|(key, _)| *key);
            oldest.map(|key| self.remove_flow(key));
        }
        let key = self.key();
        for side in 0..2 {
            if let Some(socket) = flow.watched(side) {
                socket.set_nonblocking(true).ok()?;
                self.watch(socket, FLOW, key, side, EpollFlags::EPOLLIN).then_some(())?;
            }
        }
        if let Some(ends) = ends {
            self.flow_by_ends.insert(ends, key);
        }
        self.flows.insert(key, (flow, ends));
        Some(key)
    }

    fn flow(&mut self, key: u64, side: usize) {
        let mut buffer = self.take_buffer();
        let ended = self.flows.get_mut(&key).is_some_and(|(flow, _)| !flow.ready(side, &mut buffer));
        self.buffer = buffer;
        if ended {
            self.remove_flow(key);
        }
    }

    fn remove_flow(&mut self, key: u64) {
        if let Some((_, Some(ends))) = self.flows.remove(&key) {
            self.flow_by_ends.remove(&ends);
        }
    }

    /// Let go of flows in which nothing is said any more.
    pub fn sweep(&mut self) {
        let idle: Vec<u64> =
            self.flows.iter().filter(|(_, (flow, _))| flow.idle() > udp::IDLE).map(|(key, _)| *key).collect();
        for key in idle {
            self.remove_flow(key);
        }
    }
}

fn flags(interest: Interest) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, interest.read);
    flags.set(EpollFlags::EPOLLOUT, interest.write);
    flags
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A socket of a kind and family, that does not block, in the caller's namespace.
pub fn new_socket(ipv6: bool, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if ipv6 { socket::AddressFamily::Inet6 } else { socket::AddressFamily::Inet };
    socket::socket(family, kind, socket::SockFlag::SOCK_CLOEXEC | socket::SockFlag::SOCK_NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn tokens_there_and_back() {
        for kind in [PAIR, FLOW, PORT, FOREIGN, 9] {
            for (key, side) in [(0, 0), (1, 1), (1 << 50, 1)] {
                assert_eq!(untoken(token(kind, key, side)), (kind, key, side));
            }
        }
    }

    #[test]
    fn an_ipv4_client_is_one() {
        assert_eq!(plain("[::ffff:10.0.0.1]:5".parse().unwrap()), "10.0.0.1:5".parse().unwrap());
    }

    #[test]
    fn a_port_leads_to_its_target_and_elsewhere() {
        let serve = |word: &'static [u8]| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let thread = std::thread::spawn(move || listener.accept().unwrap().0.write_all(word).unwrap());
            (address, thread)
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        port.set_nonblocking(true).unwrap();
        let address = port.local_addr().unwrap();
        let mut relay = Relay::new().unwrap();
        let mut key = None;
        let mut port = Some(port);
        for word in [&b"one"[..], b"two"] {
            let (target, server) = serve(word);
            match port.take() {
                Some(port) => key = Some(relay.publish(Protocol::Tcp, port.into(), Some(target)).unwrap()),
                None => relay.retarget(key.unwrap(), Some(target)),
            }
            let client = std::thread::spawn(move || {
                let mut text = Vec::new();
                TcpStream::connect(address).unwrap().read_to_end(&mut text).unwrap();
                text
            });
            while !client.is_finished() {
                relay.ready(&mut Plain);
                std::thread::yield_now();
            }
            assert_eq!(client.join().unwrap(), word);
            server.join().unwrap();
        }
        // An idle relay holds no buffer.
        while !relay.buffer.is_empty() {
            relay.ready(&mut Plain);
        }
    }
}
