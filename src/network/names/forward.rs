//! Questions on their way to the host's resolvers: who asked, whom we asked, and until when we wait.
//!
//! Each question over UDP goes out by a socket of its own, connected to the resolver, with an id of our own: a forged
//! answer must guess both. An answer is passed on as it is, but for the id.

use crate::network::names::upstream::Upstream;
use crate::network::names::wire::{self, Code, Query};
use crate::network::names::{FIRST_UPSTREAM, random_id};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Questions under way at a time; more are refused, and the client asks again.
const PENDING: usize = 128;
/// How long one resolver has.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How often the whole list is tried.
const ROUNDS: usize = 2;
/// How exact waiting is.
pub const TICK: Duration = Duration::from_millis(500);

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// This address.
    Udp(SocketAddr),
    /// The client of this token.
    Tcp(u64),
}

/// An answer to be passed on.
#[derive(Debug)]
pub struct Reply {
    /// To whom.
    pub to: ReplyTo,
    /// The message.
    pub message: Vec<u8>,
}

/// Questions under way.
#[derive(Debug)]
pub struct Forwarder {
    upstream: Upstream,
    pending: HashMap<u64, Pending>,
    next: u64,
}

#[derive(Debug)]
struct Pending {
    to: ReplyTo,
    query: Query,
    /// The question as it came, with our id.
    message: Vec<u8>,
    id: u16,
    transport: Transport,
    servers: Vec<SocketAddr>,
    attempt: usize,
    deadline: Instant,
}

#[derive(Debug)]
enum Transport {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, output: Vec<u8>, input: Vec<u8> },
}

/// What became of one event.
enum Outcome {
    Wait,
    Answer(Vec<u8>),
    Next,
}

impl Forwarder {
    /// Nothing under way.
    pub fn new(upstream: Upstream) -> Forwarder {
        Forwarder { upstream, pending: HashMap::new(), next: FIRST_UPSTREAM }
    }

    /// Others are asked from now on.
    pub fn set_upstream(&mut self, upstream: Upstream) {
        self.upstream = upstream;
    }

    /// Whether [`Forwarder::tick`] has something to watch.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Pass a question on. An error is the code to answer with.
    pub fn ask(&mut self, epoll: &Epoll, message: &[u8], query: &Query, to: ReplyTo) -> Result<(), Code> {
        let servers = self.upstream.servers().to_vec();
        if servers.is_empty() {
            return Err(self.upstream.code());
        }
        if self.pending.len() >= PENDING {
            return Err(Code::ServerFailure);
        }
        // A client that asks again while we wait must not cost a second question.
        if self.pending.values().any(|pending| pending.to == to && pending.query.id == query.id) {
            if let ReplyTo::Udp(_) = to {
                return Ok(());
            }
        }
        let id = random_id();
        let mut message = message.to_vec();
        message[..2].copy_from_slice(&id.to_be_bytes());
        let token = self.next;
        self.next = self.next.wrapping_add(1).max(FIRST_UPSTREAM);
        for attempt in 0..servers.len() * ROUNDS {
            if let Some(transport) = connect(epoll, token, &message, to, servers[attempt % servers.len()]) {
                let deadline = Instant::now() + PATIENCE;
                let query = query.clone();
                let pending = Pending { to, query, message, id, transport, servers, attempt, deadline };
                self.pending.insert(token, pending);
                return Ok(());
            }
        }
        Err(Code::ServerFailure)
    }

    /// A socket can be read or written.
    pub fn ready(&mut self, epoll: &Epoll, token: u64, buffer: &mut [u8]) -> Vec<Reply> {
        let Some(pending) = self.pending.get_mut(&token) else { return Vec::new() };
        match pending.progress(epoll, token, buffer) {
            Outcome::Wait => Vec::new(),
            Outcome::Answer(message) => {
                let to = pending.to;
                self.pending.remove(&token);
                vec![Reply { to, message }]
            }
            Outcome::Next => self.next_server(epoll, token).into_iter().collect(),
        }
    }

    /// Give up on resolvers whose time is over.
    pub fn tick(&mut self, epoll: &Epoll) -> Vec<Reply> {
        let now = Instant::now();
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(token, _)| *token).collect();
        late.into_iter().filter_map(|token| self.next_server(epoll, token)).collect()
    }

    /// Ask the next one, or tell the client that nobody answers.
    fn next_server(&mut self, epoll: &Epoll, token: u64) -> Option<Reply> {
        let mut pending = self.pending.remove(&token)?;
        loop {
            pending.attempt += 1;
            if pending.attempt >= pending.servers.len() * ROUNDS {
                let message = wire::answer(&pending.query, Code::ServerFailure, false, &[], 512);
                return Some(Reply { to: pending.to, message });
            }
            let server = pending.servers[pending.attempt % pending.servers.len()];
            if let Some(transport) = connect(epoll, token, &pending.message, pending.to, server) {
                pending.transport = transport;
                pending.deadline = Instant::now() + PATIENCE;
                self.pending.insert(token, pending);
                return None;
            }
        }
    }
}

impl Pending {
    fn progress(&mut self, epoll: &Epoll, token: u64, buffer: &mut [u8]) -> Outcome {
        match &mut self.transport {
            Transport::Udp(socket) => loop {
                match socket.recv(buffer) {
                    Ok(length) => {
                        if let Some(answer) = self_answer(&buffer[..length], self.id, &self.query) {
                            return Outcome::Answer(answer);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Wait,
                    Err(_) => return Outcome::Next,
                }
            },
            Transport::Tcp { stream, output, input } => {
                while !output.is_empty() {
                    match stream.write(output) {
                        Ok(length) => drop(output.drain(..length)),
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                            return Outcome::Wait;
                        }
                        Err(_) => return Outcome::Next,
                    }
                    if output.is_empty() {
                        let _ = epoll.modify(&*stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, token));
                    }
                }
                match stream.read(buffer) {
                    Ok(0) => return Outcome::Next,
                    Ok(length) => input.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Wait,
                    Err(_) => return Outcome::Next,
                }
                let Some(length) = input.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes))) else {
                    return Outcome::Wait;
                };
                match input.get(2..2 + length) {
                    None => Outcome::Wait,
                    Some(message) => self_answer(message, self.id, &self.query).map_or(Outcome::Next, Outcome::Answer),
                }
            }
        }
    }
}

/// The answer with the client's id, if it belongs to the question.
fn self_answer(message: &[u8], id: u16, query: &Query) -> Option<Vec<u8>> {
    let is_answer = message.len() >= wire::HEADER && message[2] & 0x80 != 0 && message[..2] == id.to_be_bytes();
    // An error may come without the question; anything else repeats it, letter by letter but for case.
    let question = message.get(wire::HEADER..wire::HEADER + query.question.len());
    let same = question.is_some_and(|question| question.eq_ignore_ascii_case(&query.question));
    let bare = is_answer && message[4..6] == [0, 0] && message[3] & 0x0f != 0;
    if !is_answer || !(same || bare) {
        return None;
    }
    let mut answer = message.to_vec();
    answer[..2].copy_from_slice(&query.id.to_be_bytes());
    Some(answer)
}

/// Send the question to a server, by the transport the client used: who comes by TCP was told that UDP is too short.
fn connect(epoll: &Epoll, token: u64, message: &[u8], to: ReplyTo, server: SocketAddr) -> Option<Transport> {
    match to {
        ReplyTo::Udp(_) => {
            let any: SocketAddr = match server {
                SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
                SocketAddr::V6(_) => SocketAddr::new(IpAddr::from([0u8; 16]), 0),
            };
            let socket = UdpSocket::bind(any).ok()?;
            socket.set_nonblocking(true).ok()?;
            socket.connect(server).ok()?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token)).ok()?;
            socket.send(message).ok()?;
            Some(Transport::Udp(socket))
        }
        ReplyTo::Tcp(_) => {
            let stream = start_connecting(server)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT, token)).ok()?;
            let mut output = (message.len() as u16).to_be_bytes().to_vec();
            output.extend_from_slice(message);
            Some(Transport::Tcp { stream, output, input: Vec::new() })
        }
    }
}

/// A connection that does not wait for the other side.
fn start_connecting(server: SocketAddr) -> Option<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket::socket(family, SockType::Stream, flags, None).ok()?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Some(TcpStream::from(fd)),
        Err(_) => None,
    }
}
