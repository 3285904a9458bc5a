//! The name server of one container: asked at 127.0.0.11:53 over UDP and TCP inside its network namespace.
//!
//! It has no thread and never blocks: the supervisor polls [`Server::fd`] and calls [`Server::ready`]. Names of members
//! of the container's networks are answered from their files; all else goes to the host's resolvers as they are at that
//! moment, from the supervisor's own network namespace, unless all networks are internal. Memory is bounded: so many
//! questions, clients and bytes at a time, and what is over is refused or dropped.

mod forward;
mod upstream;
pub mod wire;
pub mod zone;

use crate::network::firewall::redirect::{self, Ports};
use anyhow::{Context, Result};
use forward::{Forwarder, Reply, ReplyTo};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use wire::{Code, Query};
use zone::{Known, Zone};

pub use upstream::Upstream;

/// Where the server listens; the same address as docker's, which some programs look for.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// TCP clients at a time.
const CLIENTS: usize = 32;
/// A TCP client that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// Questions answered before the supervisor's other work gets its turn.
const BURST: usize = 64;

const UDP: u64 = 0;
const TCP: u64 = 1;
const TIMER: u64 = 2;
const FIRST_CLIENT: u64 = 1 << 16;
/// Tokens from here on are the forwarder's.
const FIRST_UPSTREAM: u64 = 1 << 32;

/// Sockets opened inside the container's network namespace.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Open them in the caller's namespace, where the loopback device must be up. They are asked at port 53; where the
    /// kernel can, they listen on others, so that the container can have its own port 53.
    pub fn open() -> Result<Sockets> {
        let free = Sockets::at(SocketAddr::new(IpAddr::V4(ADDRESS), 0))?;
        let ports = Ports { udp: free.udp.local_addr()?.port(), tcp: free.tcp.local_addr()?.port() };
        match redirect::redirect(ADDRESS, ports) {
            Ok(()) => Ok(free),
            Err(_) => Sockets::at(SocketAddr::new(IpAddr::V4(ADDRESS), 53)),
        }
    }

    /// Open them at another address.
    pub fn at(address: SocketAddr) -> Result<Sockets> {
        let udp = UdpSocket::bind(address).with_context(|| format!("bind {address}/udp"))?;
        let tcp = TcpListener::bind(address).with_context(|| format!("bind {address}/tcp"))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Sockets { udp, tcp })
    }
}

/// The server.
#[derive(Debug)]
pub struct Server {
    epoll: Epoll,
    timer: nix::sys::timerfd::TimerFd,
    sockets: Sockets,
    clients: HashMap<u64, Client>,
    next_client: u64,
    zone: Zone,
    forwarder: Forwarder,
    buffer: Vec<u8>,
}

/// A TCP client: one question at a time, each with a length before it.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    since: Instant,
}

impl Server {
    /// Serve these names. `upstream`: who is asked about the rest.
    pub fn new(sockets: Sockets, zone: Zone, upstream: Upstream) -> Result<Server> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?;
        let timer = nix::sys::timerfd::TimerFd::new(
            nix::sys::timerfd::ClockId::CLOCK_MONOTONIC,
            nix::sys::timerfd::TimerFlags::TFD_CLOEXEC | nix::sys::timerfd::TimerFlags::TFD_NONBLOCK,
        )
        .context("make a timer")?;
        let watch = |fd: BorrowedFd<'_>, token: u64| epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token));
        watch(sockets.udp.as_fd(), UDP)?;
        watch(sockets.tcp.as_fd(), TCP)?;
        watch(timer.as_fd(), TIMER)?;
        Ok(Server {
            epoll,
            timer,
            sockets,
            clients: HashMap::new(),
            next_client: FIRST_CLIENT,
            zone,
            forwarder: Forwarder::new(upstream),
            buffer: vec![0; 65_535],
        })
    }

    /// Poll this for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Other networks from now on.
    pub fn set_networks(&mut self, networks: &[String], upstream: Upstream) {
        self.zone.set_networks(networks);
        self.forwarder.set_upstream(upstream);
    }

    /// Do what can be done without waiting. Errors of single clients end those clients only.
    pub fn ready(&mut self) {
        let mut events = [EpollEvent::empty(); 16];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                UDP => self.udp(),
                TCP => self.accept(),
                TIMER => self.tick(),
                token if token >= FIRST_UPSTREAM => {
                    let replies = self.forwarder.ready(&self.epoll, token, &mut self.buffer);
                    self.deliver(replies);
                }
                token => self.client(token),
            }
        }
        self.arm();
    }

    fn udp(&mut self) {
        for _ in 0..BURST {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = self.sockets.udp.recv_from(&mut buffer);
            let answer = match received {
                Ok((length, from)) => self.question(&buffer[..length], ReplyTo::Udp(from)).map(|bytes| (bytes, from)),
                Err(_) => None,
            };
            self.buffer = buffer;
            match (received, answer) {
                (Ok(_), Some((bytes, from))) => drop(self.sockets.udp.send_to(&bytes, from)),
                (Ok(_), None) => {}
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return,
                // An earlier answer was refused by its client (ICMP); the next question is another matter.
                (Err(_), _) => {}
            }
        }
    }

    /// The answer, if it is known now; else the question is on its way upstream, or deserves none.
    fn question(&mut self, message: &[u8], from: ReplyTo) -> Option<Vec<u8>> {
        let query = match wire::parse(message) {
            Ok(query) => query,
            Err(code) => return code.map(|code| wire::refusal(message, code)),
        };
        let limit = limit(&query, from);
        match self.zone.look_up(&query.name, query.kind) {
            Known::Records(records) if query.internet => {
                Some(wire::answer(&query, Code::NoError, true, &records, limit))
            }
            Known::Nothing => Some(wire::answer(&query, Code::NoSuchName, true, &[], limit)),
            _ => match self.forwarder.ask(&self.epoll, message, &query, from) {
                Ok(()) => None,
                Err(code) => Some(wire::answer(&query, code, false, &[], limit)),
            },
        }
    }

    fn deliver(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            match reply.to {
                ReplyTo::Udp(address) => drop(self.sockets.udp.send_to(&reply.message, address)),
                ReplyTo::Tcp(token) => {
                    if let Some(client) = self.clients.get_mut(&token) {
                        client.queue(&reply.message);
                        self.pump(token);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.sockets.tcp.accept() {
            if self.clients.len() >= CLIENTS {
                // The one that has been silent longest makes room.
                let oldest = self.clients.iter().min_by_key(|(_, client)| client.since).map(|(token, _)| *token);
                oldest.and_then(|token| self.clients.remove(&token));
            }
            let token = self.next_client;
            self.next_client = FIRST_CLIENT + (self.next_client + 1 - FIRST_CLIENT) % (FIRST_UPSTREAM - FIRST_CLIENT);
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
            if stream.set_nonblocking(true).is_ok() && self.epoll.add(&stream, EpollEvent::new(flags, token)).is_ok() {
                let client = Client { stream, input: Vec::new(), output: Vec::new(), since: Instant::now() };
                self.clients.insert(token, client);
            }
        }
    }

    fn client(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        if !client.read() {
            self.clients.remove(&token);
            return;
        }
        self.pump(token);
    }

    /// Answer what is whole and write what fits; a client that does not read is let go.
    fn pump(&mut self, token: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&token) else { return };
            if !client.write() {
                self.clients.remove(&token);
                return;
            }
            let Some(message) = client.take() else { break };
            if let Some(answer) = self.question(&message, ReplyTo::Tcp(token))
                && let Some(client) = self.clients.get_mut(&token)
            {
                client.queue(&answer);
            }
        }
        if let Some(client) = self.clients.get_mut(&token) {
            let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
            flags.set(EpollFlags::EPOLLOUT, !client.output.is_empty());
            let _ = self.epoll.modify(&client.stream, &mut EpollEvent::new(flags, token));
        }
    }

    fn tick(&mut self) {
        let _ = self.timer.wait();
        self.clients.retain(|_, client| client.since.elapsed() < IDLE);
        let replies = self.forwarder.tick(&self.epoll);
        self.deliver(replies);
    }

    /// The timer runs only while something waits: an idle server never wakes its supervisor.
    fn arm(&mut self) {
        let waiting = !self.clients.is_empty() || self.forwarder.is_waiting();
        let armed = self.timer.get().ok().flatten().is_some();
        if waiting && !armed {
            let period = nix::sys::timerfd::Expiration::OneShot(nix::sys::time::TimeSpec::from_duration(forward::TICK));
            let _ = self.timer.set(period, nix::sys::timerfd::TimerSetTimeFlags::empty());
        }
    }
}

fn limit(query: &Query, from: ReplyTo) -> usize {
    match from {
        ReplyTo::Tcp(_) => 65_535,
        ReplyTo::Udp(_) => usize::from(query.edns.unwrap_or(512)).clamp(512, wire::MAXIMUM_UDP),
    }
}

impl Client {
    /// Read what is there. False: the client is gone or talks too much.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    self.since = Instant::now();
                    self.input.extend_from_slice(&buffer[..length]);
                    if self.input.len() > 4096 {
                        return false;
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// The next whole message.
    fn take(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(self.input.get(..2)?.try_into().ok()?));
        let message = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(message)
    }

    fn queue(&mut self, message: &[u8]) {
        self.output.extend((message.len() as u16).to_be_bytes());
        self.output.extend_from_slice(message);
    }

    /// Write what fits. False: the client is gone or does not read.
    fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.output.len() < 256 << 10,
                Err(_) => return false,
            }
        }
        true
    }
}

/// An id that nobody guesses.
fn random_id() -> u16 {
    let mut bytes = [0; 2];
    // Where there is no generator the id is 0, and an answer is still matched by its socket's random port.
    if let Ok(mut file) = std::fs::File::open("/dev/urandom") {
        let _ = file.read_exact(&mut bytes);
    }
    u16::from_ne_bytes(bytes)
}
