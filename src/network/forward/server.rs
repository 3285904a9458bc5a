//! The forwarder's loop: one epoll over the uplink, connections, flows, published ports and supervisors.
//!
//! All is bounded: what is over a bound is refused, or the oldest makes room. One turn moves a bounded number of bytes
//! for each descriptor, so that a busy connection cannot starve the others.

use super::client::{lock, socket_path};
use super::message::{Port, Reply, Request};
use super::packet::{self, Seen};
use super::tcp::{self, Interest, Life, Pair};
use super::udp::{self, Flow, Side};
use super::uplink::{self, HOST, UPLINK, Ways};
use crate::failure;
use crate::model::port::Protocol;
use crate::network::host::table_name;
use crate::state::layout::Layout;
use crate::sys::{netlink, socket as unix};
use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, SockType, SockaddrStorage, sockopt};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections that wait for their other end.
const CONNECTING: usize = 1024;
/// Flows of datagrams.
const FLOWS: usize = 4096;
/// How long somebody who connects has to come through the door that was opened.
const PATIENCE: Duration = Duration::from_secs(130);
/// Sockets made in the namespace at once: going there costs more than making them.
const STOCK: usize = 16;
const BUFFER: usize = 128 << 10;

/// What a descriptor is. The number behind is a key of the map of that kind, times two, plus the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Supervisors,
    Supervisor,
    Frames,
    TcpDoor,
    UdpDoor,
    Connecting,
    Pair,
    Flow,
    Port,
    Echo,
}

const KINDS: [Kind; 10] = [
    Kind::Supervisors,
    Kind::Supervisor,
    Kind::Frames,
    Kind::TcpDoor,
    Kind::UdpDoor,
    Kind::Connecting,
    Kind::Pair,
    Kind::Flow,
    Kind::Port,
    Kind::Echo,
];

fn token(kind: Kind, key: u64, side: usize) -> u64 {
    (kind as u64) << 56 | (key << 1 & 0x00ff_ffff_ffff_ffff) | side as u64
}

fn untoken(token: u64) -> (Kind, u64, usize) {
    (KINDS[(token >> 56) as usize % KINDS.len()], (token & 0x00ff_ffff_ffff_ffff) >> 1, (token & 1) as usize)
}

/// A supervisor.
struct Supervisor {
    connection: OwnedFd,
    ports: Vec<u64>,
}

/// A published port.
struct Published {
    port: Port,
    socket: PublishedSocket,
    /// Flows of its clients.
    clients: HashMap<SocketAddr, u64>,
}

enum PublishedSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// A container connects: we do first.
struct Connecting {
    source: SocketAddr,
    target: SocketAddr,
    sequence: u32,
    /// The packet, to be let in again.
    frame: Vec<u8>,
    /// Absent once the connection outside is there and was let through the door.
    outside: Option<TcpStream>,
    through: bool,
    since: Instant,
}

struct Server {
    layout: Layout,
    epoll: Epoll,
    listener: OwnedFd,
    ways: Option<Ways>,
    next: u64,
    supervisors: HashMap<u64, Supervisor>,
    ports: HashMap<u64, Published>,
    connecting: HashMap<u64, Connecting>,
    by_ends: HashMap<(SocketAddr, SocketAddr), u64>,
    pairs: HashMap<u64, (Pair, [Interest; 2])>,
    flows: HashMap<u64, (Flow, Option<(SocketAddr, SocketAddr)>)>,
    flow_by_ends: HashMap<(SocketAddr, SocketAddr), u64>,
    echoes: HashMap<u64, Echo>,
    stock: Vec<OwnedFd>,
    buffer: Vec<u8>,
}

/// Somebody waits for an echo.
struct Echo {
    socket: OwnedFd,
    source: IpAddr,
    target: IpAddr,
    /// Identifier of the request, which the kernel replaces by one of its own.
    identifier: [u8; 2],
    since: Instant,
}

/// Serve until the last supervisor is gone. `listener`: where they connect.
pub fn serve(layout: &Layout, listener: OwnedFd) -> Result<()> {
    let _ = nix::unistd::setsid();
    raise_limit();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, token(Kind::Supervisors, 0, 0)))?;
    let mut server = Server {
        layout: layout.clone(),
        epoll,
        listener,
        ways: None,
        next: 1,
        supervisors: HashMap::new(),
        ports: HashMap::new(),
        connecting: HashMap::new(),
        by_ends: HashMap::new(),
        pairs: HashMap::new(),
        flows: HashMap::new(),
        flow_by_ends: HashMap::new(),
        echoes: HashMap::new(),
        stock: Vec::new(),
        buffer: vec![0; BUFFER],
    };
    server.run()
}

/// Each connection takes two descriptors.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

impl Server {
    fn run(&mut self) -> Result<()> {
        let mut events = vec![EpollEvent::empty(); 64];
        let born = Instant::now();
        let mut swept = Instant::now();
        let mut met = false;
        loop {
            let timeout = if self.is_idle() { EpollTimeout::from(10_000u16) } else { EpollTimeout::from(2_000u16) };
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error).context("wait for events"),
            };
            for event in &events[..count] {
                self.event(event);
            }
            met |= !self.supervisors.is_empty();
            if self.supervisors.is_empty() && (met || born.elapsed() > Duration::from_secs(10)) && self.may_end()? {
                return Ok(());
            }
            if swept.elapsed() > Duration::from_secs(2) {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.connecting.is_empty() && self.flows.is_empty() && self.echoes.is_empty()
    }

    /// Nobody is connected; under the lock nobody can be about to.
    fn may_end(&mut self) -> Result<bool> {
        let Some(_guard) = lock(&self.layout, false)? else { return Ok(false) };
        self.accept_supervisors();
        if !self.supervisors.is_empty() {
            return Ok(false);
        }
        let _ = std::fs::remove_file(socket_path(&self.layout));
        Ok(true)
    }

    fn event(&mut self, event: &EpollEvent) {
        let (kind, key, side) = untoken(event.data());
        match kind {
            Kind::Supervisors => self.accept_supervisors(),
            Kind::Supervisor => self.hear(key),
            Kind::Frames => self.frames(),
            Kind::TcpDoor => self.tcp_door(key as usize),
            Kind::UdpDoor => self.udp_door(key as usize),
            Kind::Connecting => self.connected(key),
            Kind::Pair => self.pair(key, side),
            Kind::Flow => self.flow(key, side),
            Kind::Port => self.port(key),
            Kind::Echo => self.echo(key),
        }
    }

    fn key(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn watch(&self, fd: impl AsFd, kind: Kind, key: u64, side: usize, flags: EpollFlags) -> bool {
        self.epoll.add(fd, EpollEvent::new(flags, token(kind, key, side))).is_ok()
    }

    // --- supervisors ---

    fn accept_supervisors(&mut self) {
        while let Ok(connection) = unix::accept(&self.listener) {
            let key = self.key();
            if self.watch(&connection, Kind::Supervisor, key, 0, EpollFlags::EPOLLIN) {
                self.supervisors.insert(key, Supervisor { connection, ports: Vec::new() });
            }
        }
    }

    fn hear(&mut self, key: u64) {
        let Some(supervisor) = self.supervisors.get(&key) else { return };
        let mut bytes = vec![0; 16 << 10];
        match unix::receive(&supervisor.connection, &mut bytes) {
            Ok((0, _)) => self.forget(key),
            Ok((length, descriptors)) => {
                let answer = self.answer(key, &bytes[..length], descriptors);
                let (reply, namespace) = answer.unwrap_or_else(|error| {
                    let hint = failure::hint_of(&error).map(str::to_owned);
                    (Reply::Failed { message: failure::message_of(&error), hint }, None)
                });
                let text = serde_json::to_vec(&reply).unwrap_or_default();
                let descriptors: Vec<BorrowedFd<'_>> = namespace.iter().map(AsFd::as_fd).collect();
                if let Some(supervisor) = self.supervisors.get(&key)
                    && unix::send(&supervisor.connection, &text, &descriptors).is_err()
                {
                    self.forget(key);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.forget(key),
        }
    }

    fn answer(&mut self, key: u64, text: &[u8], descriptors: Vec<OwnedFd>) -> Result<(Reply, Option<OwnedFd>)> {
        match serde_json::from_slice(text).context("understand the supervisor")? {
            Request::Enter => {
                if self.ways.is_none() {
                    self.open(descriptors.into_iter().next())?;
                }
                let namespace = self.ways.as_ref().context("there is no namespace")?.namespace.try_clone()?;
                Ok((Reply::Entered, Some(namespace)))
            }
            Request::Publish(ports) => {
                anyhow::ensure!(ports.len() == descriptors.len(), "publish: a socket is missing");
                for (port, descriptor) in ports.into_iter().zip(descriptors) {
                    self.publish(key, port, descriptor)?;
                }
                Ok((Reply::Done, None))
            }
        }
    }

    fn open(&mut self, kept: Option<OwnedFd>) -> Result<()> {
        let ways = uplink::open(kept, &table_name(&self.layout))?;
        self.watch(&ways.frames, Kind::Frames, 0, 0, EpollFlags::EPOLLIN);
        for (index, door) in ways.tcp.iter().enumerate() {
            self.watch(door, Kind::TcpDoor, index as u64, 0, EpollFlags::EPOLLIN);
        }
        for (index, door) in ways.udp.iter().enumerate() {
            self.watch(door, Kind::UdpDoor, index as u64, 0, EpollFlags::EPOLLIN);
        }
        self.ways = Some(ways);
        Ok(())
    }

    fn publish(&mut self, supervisor: u64, port: Port, descriptor: OwnedFd) -> Result<()> {
        let key = self.key();
        let socket = match port.protocol {
            Protocol::Udp => PublishedSocket::Udp(descriptor.into()),
            _ => PublishedSocket::Tcp(descriptor.into()),
        };
        let fd = match &socket {
            PublishedSocket::Tcp(socket) => socket.as_fd(),
            PublishedSocket::Udp(socket) => socket.as_fd(),
        };
        anyhow::ensure!(self.watch(fd, Kind::Port, key, 0, EpollFlags::EPOLLIN), "watch port {}", port.target);
        self.ports.insert(key, Published { port, socket, clients: HashMap::new() });
        if let Some(supervisor) = self.supervisors.get_mut(&supervisor) {
            supervisor.ports.push(key);
        }
        Ok(())
    }

    /// A container has ended: its ports and what came by them are closed. Its own connections see it by themselves.
    fn forget(&mut self, key: u64) {
        let Some(supervisor) = self.supervisors.remove(&key) else { return };
        for port in supervisor.ports {
            let Some(published) = self.ports.remove(&port) else { continue };
            // The supervisor has the socket too, so closing ours would leave it watched.
            let _ = match &published.socket {
                PublishedSocket::Tcp(socket) => self.epoll.delete(socket),
                PublishedSocket::Udp(socket) => self.epoll.delete(socket),
            };
            for flow in published.clients.into_values() {
                self.flows.remove(&flow);
            }
        }
    }

    // --- out ---

    fn frames(&mut self) {
        for _ in 0..64 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let length = self.ways.as_ref().map_or(0, |ways| nix::unistd::read(&ways.frames, &mut buffer).unwrap_or(0));
            let seen = packet::parse(&buffer[..length]);
            let frame = match &seen {
                Some(Seen::Connect { .. }) => buffer[..length].to_vec(),
                _ => Vec::new(),
            };
            self.buffer = buffer;
            match seen {
                Some(Seen::Connect { source, target, sequence }) => self.connect(source, target, sequence, frame),
                Some(Seen::Echo { source, target, message }) => self.ask_echo(source, target, &message),
                None if length == 0 => return,
                None => {}
            }
        }
    }

    fn connect(&mut self, source: SocketAddr, target: SocketAddr, sequence: u32, mut frame: Vec<u8>) {
        packet::settle(&mut frame);
        if let Some(key) = self.by_ends.get(&(source, target)).copied() {
            // Sent again because nobody answered: the connection outside is under way, or the door is open.
            let open =
                self.connecting.get(&key).filter(|connecting| connecting.through && connecting.sequence == sequence);
            if open.is_some() {
                self.inject(&frame);
            }
            return;
        }
        if self.connecting.len() >= CONNECTING {
            return;
        }
        match tcp::start(outside_address(target)) {
            Ok(outside) => {
                let key = self.key();
                if self.watch(&outside, Kind::Connecting, key, 0, EpollFlags::EPOLLOUT) {
                    let since = Instant::now();
                    let outside = Some(outside);
                    self.by_ends.insert((source, target), key);
                    let connecting = Connecting { source, target, sequence, frame, outside, through: false, since };
                    self.connecting.insert(key, connecting);
                }
            }
            Err(_) => self.refuse(source, target, sequence),
        }
    }

    fn refuse(&self, source: SocketAddr, target: SocketAddr, sequence: u32) {
        self.inject(&packet::refusal(source, target, sequence, uplink::ethernet()));
    }

    fn inject(&self, frame: &[u8]) {
        if let Some(ways) = &self.ways {
            let mut frame = frame.to_vec();
            frame[..12].copy_from_slice(&uplink::ethernet());
            let _ = nix::unistd::write(&ways.frames, &frame);
        }
    }

    /// The connection outside is there, or will never be.
    fn connected(&mut self, key: u64) {
        let Some(connecting) = self.connecting.get_mut(&key) else { return };
        let Some(outside) = &connecting.outside else { return };
        let _ = self.epoll.delete(outside);
        match outside.take_error() {
            Ok(None) => {
                connecting.through = true;
                let frame = std::mem::take(&mut connecting.frame);
                self.inject(&frame);
            }
            Ok(Some(error)) | Err(error) => {
                let (source, target, sequence) = (connecting.source, connecting.target, connecting.sequence);
                self.connecting.remove(&key);
                self.by_ends.remove(&(source, target));
                // Silence is passed on as silence.
                if error.kind() != std::io::ErrorKind::TimedOut {
                    self.refuse(source, target, sequence);
                }
            }
        }
    }

    /// Somebody came through the door: the other half waits.
    fn tcp_door(&mut self, index: usize) {
        for _ in 0..64 {
            let Some(door) = self.ways.as_ref().and_then(|ways| ways.tcp.get(index)) else { return };
            let Ok((inside, source)) = door.accept() else { return };
            let Ok(target) = inside.local_addr() else { continue };
            // Whoever was not let through has no other half, and is reset when `inside` goes.
            let Some(key) = self.by_ends.remove(&(source, target)) else { continue };
            let Some(outside) = self.connecting.remove(&key).and_then(|connecting| connecting.outside) else {
                continue;
            };
            if inside.set_nonblocking(true).is_ok() {
                self.join(inside, outside, true);
            }
        }
    }

    fn join(&mut self, first: TcpStream, second: TcpStream, second_connected: bool) {
        for stream in [&first, &second] {
            let _ = socket::setsockopt(stream, sockopt::KeepAlive, &true);
        }
        let key = self.key();
        let pair = Pair::new(first, second, second_connected);
        let interest = pair.interest();
        let mut good = true;
        for side in 0..2 {
            good &= self.watch(pair.stream(side), Kind::Pair, key, side, flags(interest[side]));
        }
        if good {
            self.pairs.insert(key, (pair, interest));
        }
    }

    fn pair(&mut self, key: u64, side: usize) {
        let Some((pair, known)) = self.pairs.get_mut(&key) else { return };
        match pair.ready(side, &mut self.buffer) {
            Life::Over => drop(self.pairs.remove(&key)),
            Life::On(interest) => {
                for side in 0..2 {
                    if interest[side] != known[side] {
                        let mut event = EpollEvent::new(flags(interest[side]), token(Kind::Pair, key, side));
                        let _ = self.epoll.modify(pair.stream(side), &mut event);
                    }
                }
                *known = interest;
            }
        }
    }

    fn udp_door(&mut self, index: usize) {
        for _ in 0..64 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let door = self.ways.as_ref().and_then(|ways| ways.udp.get(index));
            let received = door.and_then(|door| udp::receive(door, &mut buffer).ok());
            if let Some((length, source, target)) = received
                && let Some(key) = self.outward_flow(source, target)
                && let Some((flow, _)) = self.flows.get_mut(&key)
            {
                flow.send(1, &buffer[..length]);
            }
            self.buffer = buffer;
            if received.is_none() {
                return;
            }
        }
    }

    /// The flow between these two, made if there is none.
    fn outward_flow(&mut self, source: SocketAddr, target: SocketAddr) -> Option<u64> {
        if let Some(key) = self.flow_by_ends.get(&(source, target)) {
            return Some(*key);
        }
        // Nobody may talk to the door itself.
        if target.port() == UPLINK.port && target.ip().is_ipv4() && is_ours(target.ip()) {
            return None;
        }
        let outside = UdpSocket::bind(any_like(target)).ok()?;
        outside.connect(outside_address(target)).ok()?;
        let inside = self.inside_udp(target, Some(source))?;
        self.add_flow(Flow::new(Side::Connected(inside), Side::Connected(outside)), Some((source, target)))
    }

    fn add_flow(&mut self, flow: Flow, ends: Option<(SocketAddr, SocketAddr)>) -> Option<u64> {
        if self.flows.len() >= FLOWS {
            let oldest = self.flows.iter().max_by_key(|(_, (flow, _))| flow.idle()).map(|(key, _)| *key);
            oldest.map(|key| self.remove_flow(key));
        }
        let key = self.key();
        for side in 0..2 {
            if let Some(socket) = flow.watched(side) {
                socket.set_nonblocking(true).ok()?;
                self.watch(socket, Kind::Flow, key, side, EpollFlags::EPOLLIN).then_some(())?;
            }
        }
        if let Some(ends) = ends {
            self.flow_by_ends.insert(ends, key);
        }
        self.flows.insert(key, (flow, ends));
        Some(key)
    }

    fn flow(&mut self, key: u64, side: usize) {
        let Some((flow, _)) = self.flows.get_mut(&key) else { return };
        if !flow.ready(side, &mut self.buffer) {
            self.remove_flow(key);
        }
    }

    fn remove_flow(&mut self, key: u64) {
        if let Some((_, Some(ends))) = self.flows.remove(&key) {
            self.flow_by_ends.remove(&ends);
        }
    }

    // --- in ---

    fn port(&mut self, key: u64) {
        let Some(published) = self.ports.get(&key) else { return };
        match &published.socket {
            PublishedSocket::Tcp(_) => self.port_tcp(key),
            PublishedSocket::Udp(_) => self.port_udp(key),
        }
    }

    fn port_tcp(&mut self, key: u64) {
        for _ in 0..64 {
            let Some(Published { socket: PublishedSocket::Tcp(listener), port, .. }) = self.ports.get(&key) else {
                return;
            };
            let target = port.target;
            let Ok((outside, client)) = listener.accept() else { return };
            let _ = outside.set_nonblocking(true);
            let client = plain(client);
            let Some(inside) = self.inside_tcp(client, target) else { continue };
            self.join(outside, inside, false);
        }
    }

    fn port_udp(&mut self, key: u64) {
        for _ in 0..64 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = match self.ports.get(&key) {
                Some(Published { socket: PublishedSocket::Udp(socket), .. }) => socket.recv_from(&mut buffer).ok(),
                _ => None,
            };
            if let Some((length, client)) = received
                && let Some(flow) = self.inward_flow(key, client)
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

    fn inward_flow(&mut self, key: u64, client: SocketAddr) -> Option<u64> {
        let published = self.ports.get(&key)?;
        if let Some(flow) = published.clients.get(&client).copied().filter(|flow| self.flows.contains_key(flow)) {
            return Some(flow);
        }
        let PublishedSocket::Udp(socket) = &published.socket else { return None };
        let (socket, target) = (socket.try_clone().ok()?, published.port.target);
        let seen = plain(client);
        let inside = if seen.ip().is_loopback() || seen.is_ipv4() != target.is_ipv4() {
            let inside = self.inside(|| UdpSocket::bind(any_like(target)).ok())?;
            inside.connect(target).ok()?;
            inside
        } else {
            self.inside_udp(seen, Some(target))?
        };
        let flow = self.add_flow(Flow::new(Side::Connected(inside), Side::Shared(socket, client)), None)?;
        let published = self.ports.get_mut(&key)?;
        published.clients.retain(|_, flow| self.flows.contains_key(flow));
        published.clients.insert(client, flow);
        Some(flow)
    }

    // --- sockets in the namespace ---

    fn inside<T>(&self, work: impl FnOnce() -> Option<T>) -> Option<T> {
        netlink::within(self.ways.as_ref()?.namespace.as_fd(), work).ok()?
    }

    /// A connection to a container in the name of this client.
    fn inside_tcp(&mut self, client: SocketAddr, target: SocketAddr) -> Option<TcpStream> {
        if self.stock.is_empty() || target.is_ipv6() {
            let ipv6 = target.is_ipv6();
            let count = if ipv6 { 1 } else { STOCK };
            let made = self.inside(|| {
                (0..count).map(|_| uplink::transparent_socket(ipv6, SockType::Stream).ok()).collect::<Option<Vec<_>>>()
            })?;
            self.stock.extend(made);
        }
        let fd = self.stock.pop()?;
        // Loopback addresses do not leave the host: such a client is seen as the host itself.
        if !client.ip().is_loopback() && client.is_ipv4() == target.is_ipv4() {
            socket::setsockopt(&fd, sockopt::ReuseAddr, &true).ok()?;
            socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(client)).ok()?;
        }
        tcp::connect(fd, target).ok()
    }

    /// A socket that speaks in the name of `local`, connected.
    fn inside_udp(&self, local: SocketAddr, peer: Option<SocketAddr>) -> Option<UdpSocket> {
        self.inside(|| {
            let fd = uplink::transparent_socket(local.is_ipv6(), SockType::Datagram).ok()?;
            socket::setsockopt(&fd, sockopt::ReuseAddr, &true).ok()?;
            socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).ok()?;
            let socket = UdpSocket::from(fd);
            if let Some(peer) = peer {
                socket.connect(peer).ok()?;
            }
            Some(socket)
        })
    }

    // --- echoes ---

    fn ask_echo(&mut self, source: IpAddr, target: IpAddr, message: &[u8]) {
        if self.echoes.len() >= 256 {
            return;
        }
        let (family, protocol) = match target {
            IpAddr::V4(_) => (socket::AddressFamily::Inet, socket::SockProtocol::Icmp),
            IpAddr::V6(_) => (socket::AddressFamily::Inet6, socket::SockProtocol::IcmpV6),
        };
        let flags = socket::SockFlag::SOCK_CLOEXEC | socket::SockFlag::SOCK_NONBLOCK;
        // Where net.ipv4.ping_group_range leaves the user out there is no echo, as on the host itself.
        let Ok(fd) = socket::socket(family, SockType::Datagram, flags, protocol) else { return };
        let address = SockaddrStorage::from(outside_address(SocketAddr::new(target, 0)));
        if socket::sendto(fd.as_raw_fd(), message, &address, socket::MsgFlags::empty()).is_err() {
            return;
        }
        let key = self.key();
        if self.watch(&fd, Kind::Echo, key, 0, EpollFlags::EPOLLIN) {
            let identifier = [message[4], message[5]];
            self.echoes.insert(key, Echo { socket: fd, source, target, identifier, since: Instant::now() });
        }
    }

    fn echo(&mut self, key: u64) {
        let Some(echo) = self.echoes.remove(&key) else { return };
        let length = nix::unistd::read(&echo.socket, &mut self.buffer).unwrap_or(0);
        if length >= 8 {
            let mut message = self.buffer[..length].to_vec();
            message[4..6].copy_from_slice(&echo.identifier);
            self.inject(&packet::echo(echo.source, echo.target, message, uplink::ethernet()));
        }
    }

    /// Let go of what nobody waits for any more.
    fn sweep(&mut self) {
        let late: Vec<u64> = self
            .connecting
            .iter()
            .filter(|(_, connecting)| connecting.since.elapsed() > PATIENCE)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if let Some(connecting) = self.connecting.remove(&key) {
                self.by_ends.remove(&(connecting.source, connecting.target));
            }
        }
        let idle: Vec<u64> =
            self.flows.iter().filter(|(_, (flow, _))| flow.idle() > udp::IDLE).map(|(key, _)| *key).collect();
        for key in idle {
            self.remove_flow(key);
        }
        self.echoes.retain(|_, echo| echo.since.elapsed() < Duration::from_secs(10));
    }
}

fn flags(interest: Interest) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, interest.read);
    flags.set(EpollFlags::EPOLLOUT, interest.write);
    flags
}

/// Whom to ask outside for an address inside: all are the same, but for the host's own name.
fn outside_address(target: SocketAddr) -> SocketAddr {
    if target.ip() != HOST {
        return target;
    }
    // The host's address on the way out, as containers of the host's own networks would see it; no packet is sent.
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    SocketAddr::new(probe().unwrap_or(IpAddr::from([127, 0, 0, 1])), target.port())
}

fn is_ours(address: IpAddr) -> bool {
    address == IpAddr::from([169, 254, 1, 1])
}

fn any_like(address: SocketAddr) -> SocketAddr {
    let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    SocketAddr::new(any, 0)
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_there_and_back() {
        for kind in KINDS {
            for (key, side) in [(0, 0), (1, 1), (1 << 50, 1)] {
                assert_eq!(untoken(token(kind, key, side)), (kind, key, side));
            }
        }
    }

    #[test]
    fn the_host_has_a_name_of_its_own() {
        let other = "93.184.216.34:80".parse().unwrap();
        assert_eq!(outside_address(other), other);
        assert_ne!(outside_address(SocketAddr::new(HOST, 80)).ip(), HOST);
        assert_eq!(plain("[::ffff:10.0.0.1]:5".parse().unwrap()), "10.0.0.1:5".parse().unwrap());
    }
}
