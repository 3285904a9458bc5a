//! The forwarder's loop: one epoll over the uplink, connections, flows, published ports and supervisors.
//!
//! All is bounded: what is over a bound is refused, or the oldest makes room. One turn moves a bounded number of bytes
//! for each descriptor, so that a busy connection cannot starve the others.

use super::client::{lock, socket_path};
use super::echo::Echoes;
use super::inside::Namespace;
use super::message::{Port, Reply, Request};
use super::packet::{self, Seen};
use super::uplink::{self, HOST, UPLINK};
use crate::failure;
use crate::network::host::table_name;
use crate::network::relay::udp::{self, Flow, Side};
use crate::network::relay::{FOREIGN, Relay, any_like, tcp, untoken};
use crate::state::layout::Layout;
use crate::sys::socket as unix;
use anyhow::{Context, Result};
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections that wait for their other end.
const CONNECTING_MAX: usize = 1024;
/// How long somebody who connects has to come through the door that was opened.
const PATIENCE: Duration = Duration::from_secs(130);

// What a descriptor is, beside those of the relay.
const SUPERVISORS: u8 = FOREIGN;
const SUPERVISOR: u8 = FOREIGN + 1;
const FRAMES: u8 = FOREIGN + 2;
const TCP_DOOR: u8 = FOREIGN + 3;
const UDP_DOOR: u8 = FOREIGN + 4;
const CONNECTING: u8 = FOREIGN + 5;
/// An answer to an echo request.
pub(super) const ECHO: u8 = FOREIGN + 6;

/// A supervisor, and the keys of its ports.
struct Supervisor {
    connection: OwnedFd,
    ports: Vec<(Port, u64)>,
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
    listener: OwnedFd,
    relay: Relay,
    inside: Namespace,
    supervisors: HashMap<u64, Supervisor>,
    connecting: HashMap<u64, Connecting>,
    by_ends: HashMap<(SocketAddr, SocketAddr), u64>,
    echoes: Echoes,
}

/// Serve until the last supervisor is gone. `listener`: where they connect.
pub fn serve(layout: &Layout, listener: OwnedFd) -> Result<()> {
    let _ = nix::unistd::setsid();
    raise_limit();
    let relay = Relay::new()?;
    anyhow::ensure!(relay.watch(&listener, SUPERVISORS, 0, 0, EpollFlags::EPOLLIN), "watch the listening socket");
    let mut server = Server {
        layout: layout.clone(),
        listener,
        relay,
        inside: Namespace::default(),
        supervisors: HashMap::new(),
        connecting: HashMap::new(),
        by_ends: HashMap::new(),
        echoes: Echoes::default(),
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
            let count = self.relay.wait(&mut events, timeout)?;
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
        self.connecting.is_empty() && !self.relay.has_flows() && self.echoes.is_empty()
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
        let (kind, key, _) = untoken(event.data());
        match kind {
            SUPERVISORS => self.accept_supervisors(),
            SUPERVISOR => self.hear(key),
            FRAMES => self.frames(),
            TCP_DOOR => self.tcp_door(key as usize),
            UDP_DOOR => self.udp_door(key as usize),
            CONNECTING => self.connected(key),
            ECHO => {
                if let Some(frame) = self.echoes.answer(key) {
                    self.inside.inject(&frame);
                }
            }
            _ => self.relay.event(event.data(), &mut self.inside),
        }
    }

    // --- supervisors ---

    fn accept_supervisors(&mut self) {
        while let Ok(connection) = unix::accept(&self.listener) {
            let key = self.relay.key();
            if self.relay.watch(&connection, SUPERVISOR, key, 0, EpollFlags::EPOLLIN) {
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
                if self.inside.ways.is_none() {
                    self.open(descriptors.into_iter().next())?;
                }
                let ways = self.inside.ways.as_ref().context("there is no namespace")?;
                Ok((Reply::Entered, Some(ways.namespace.try_clone()?)))
            }
            Request::Publish(ports) => {
                anyhow::ensure!(ports.len() == descriptors.len(), "publish: a socket is missing");
                for (port, descriptor) in ports.into_iter().zip(descriptors) {
                    self.publish(key, port, descriptor)?;
                }
                Ok((Reply::Done, None))
            }
            Request::Withdraw(ports) => {
                if let Some(supervisor) = self.supervisors.get_mut(&key) {
                    for (_, key) in supervisor.ports.extract_if(.., |(port, _)| ports.contains(port)) {
                        self.relay.withdraw(key);
                    }
                }
                Ok((Reply::Done, None))
            }
        }
    }

    fn open(&mut self, kept: Option<OwnedFd>) -> Result<()> {
        let ways = uplink::open(kept, &table_name(&self.layout))?;
        self.relay.watch(&ways.frames, FRAMES, 0, 0, EpollFlags::EPOLLIN);
        for (index, door) in ways.tcp.iter().enumerate() {
            self.relay.watch(door, TCP_DOOR, index as u64, 0, EpollFlags::EPOLLIN);
        }
        for (index, door) in ways.udp.iter().enumerate() {
            self.relay.watch(door, UDP_DOOR, index as u64, 0, EpollFlags::EPOLLIN);
        }
        self.inside.ways = Some(ways);
        Ok(())
    }

    fn publish(&mut self, supervisor: u64, port: Port, descriptor: OwnedFd) -> Result<()> {
        let key = self.relay.publish(port.protocol, descriptor, Some(port.target))?;
        if let Some(supervisor) = self.supervisors.get_mut(&supervisor) {
            supervisor.ports.push((port, key));
        }
        Ok(())
    }

    /// A container has ended: its ports and what came by them are closed. Its own connections see it by themselves.
    fn forget(&mut self, key: u64) {
        let Some(supervisor) = self.supervisors.remove(&key) else { return };
        for (_, port) in supervisor.ports {
            self.relay.withdraw(port);
        }
    }

    // --- out ---

    fn frames(&mut self) {
        for _ in 0..64 {
            let mut buffer = self.relay.take_buffer();
            let length = self.inside.read_frame(&mut buffer);
            let seen = packet::parse(&buffer[..length]);
            let frame = match &seen {
                Some(Seen::Connect { .. }) => buffer[..length].to_vec(),
                _ => Vec::new(),
            };
            self.relay.put_back(buffer);
            match seen {
                Some(Seen::Connect { source, target, sequence }) => self.connect(source, target, sequence, frame),
                Some(Seen::Echo { source, target, message }) => {
                    let outside = outside_address(SocketAddr::new(target, 0));
                    self.echoes.ask(&mut self.relay, (source, target), outside, &message);
                }
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
                self.inside.inject(&frame);
            }
            return;
        }
        if self.connecting.len() >= CONNECTING_MAX {
            return;
        }
        match tcp::start(outside_address(target)) {
            Ok(outside) => {
                let key = self.relay.key();
                if self.relay.watch(&outside, CONNECTING, key, 0, EpollFlags::EPOLLOUT) {
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
        self.inside.inject(&packet::refusal(source, target, sequence, uplink::ethernet()));
    }

    /// The connection outside is there, or will never be.
    fn connected(&mut self, key: u64) {
        let Some(connecting) = self.connecting.get_mut(&key) else { return };
        let Some(outside) = &connecting.outside else { return };
        self.relay.unwatch(outside);
        match outside.take_error() {
            Ok(None) => {
                connecting.through = true;
                let frame = std::mem::take(&mut connecting.frame);
                self.inside.inject(&frame);
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
            let Some(door) = self.inside.ways.as_ref().and_then(|ways| ways.tcp.get(index)) else { return };
            let Ok((inside, source)) = door.accept() else { return };
            let Ok(target) = inside.local_addr() else { continue };
            // Whoever was not let through has no other half, and is reset when `inside` goes.
            let Some(key) = self.by_ends.remove(&(source, target)) else { continue };
            let Some(outside) = self.connecting.remove(&key).and_then(|connecting| connecting.outside) else {
                continue;
            };
            if inside.set_nonblocking(true).is_ok() {
                self.relay.join(inside, outside, true);
            }
        }
    }

    fn udp_door(&mut self, index: usize) {
        for _ in 0..64 {
            let mut buffer = self.relay.take_buffer();
            let door = self.inside.ways.as_ref().and_then(|ways| ways.udp.get(index));
            let received = door.and_then(|door| udp::receive(door, &mut buffer).ok());
            if let Some((length, source, target)) = received
                && let Some(key) = self.outward_flow(source, target)
            {
                self.relay.send(key, 1, &buffer[..length]);
            }
            self.relay.put_back(buffer);
            if received.is_none() {
                return;
            }
        }
    }

    /// The flow between these two, made if there is none.
    fn outward_flow(&mut self, source: SocketAddr, target: SocketAddr) -> Option<u64> {
        if let Some(key) = self.relay.find_flow(source, target) {
            return Some(key);
        }
        // Nobody may talk to the door itself.
        if target.port() == UPLINK.port && is_ours(target.ip()) {
            return None;
        }
        let outside = UdpSocket::bind(any_like(target)).ok()?;
        outside.connect(outside_address(target)).ok()?;
        let inside = self.inside.speaking_as(target, source)?;
        self.relay.add_flow(Flow::new(Side::Connected(inside), Side::Connected(outside)), Some((source, target)))
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
        self.relay.sweep();
        self.echoes.sweep();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_name_of_its_own() {
        let other = "93.184.216.34:80".parse().unwrap();
        assert_eq!(outside_address(other), other);
        assert_ne!(outside_address(SocketAddr::new(HOST, 80)).ip(), HOST);
    }
}
