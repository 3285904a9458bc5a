//! Echo requests of containers, asked again outside.

use super::server::ECHO;
use super::{packet, uplink};
use crate::network::relay::Relay;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{self, SockType, SockaddrStorage};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// So many at a time; what is over gets no answer.
const WAITING_MAX: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);

/// Those who wait.
#[derive(Debug, Default)]
pub struct Echoes(HashMap<u64, Echo>);

/// Somebody waits for an echo.
#[derive(Debug)]
struct Echo {
    socket: OwnedFd,
    source: IpAddr,
    target: IpAddr,
    /// Identifier of the request, which the kernel replaces by one of its own.
    identifier: [u8; 2],
    since: Instant,
}

impl Echoes {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ask `outside` what `ends.0` asked of `ends.1`. `message`: the ICMP message from its type on, 8 bytes at least.
    pub fn ask(&mut self, relay: &mut Relay, ends: (IpAddr, IpAddr), outside: SocketAddr, message: &[u8]) {
        if self.0.len() >= WAITING_MAX {
            return;
        }
        let (family, protocol) = match outside {
            SocketAddr::V4(_) => (socket::AddressFamily::Inet, socket::SockProtocol::Icmp),
            SocketAddr::V6(_) => (socket::AddressFamily::Inet6, socket::SockProtocol::IcmpV6),
        };
        let flags = socket::SockFlag::SOCK_CLOEXEC | socket::SockFlag::SOCK_NONBLOCK;
        // Where net.ipv4.ping_group_range leaves the user out there is no echo, as on the host itself.
        let Ok(fd) = socket::socket(family, SockType::Datagram, flags, protocol) else { return };
        let address = SockaddrStorage::from(outside);
        if socket::sendto(fd.as_raw_fd(), message, &address, socket::MsgFlags::empty()).is_err() {
            return;
        }
        let key = relay.key();
        if relay.watch(&fd, ECHO, key, 0, EpollFlags::EPOLLIN) {
            let (source, target) = ends;
            let identifier = [message[4], message[5]];
            self.0.insert(key, Echo { socket: fd, source, target, identifier, since: Instant::now() });
        }
    }

    /// The answer as a frame for the one who asked.
    pub fn answer(&mut self, key: u64) -> Option<Vec<u8>> {
        let echo = self.0.remove(&key)?;
        let mut message = vec![0; 65_536];
        let length = nix::unistd::read(&echo.socket, &mut message).unwrap_or(0);
        message.truncate(length);
        message.get_mut(4..6).filter(|_| length >= 8)?.copy_from_slice(&echo.identifier);
        Some(packet::echo(echo.source, echo.target, message, uplink::ethernet()))
    }

    /// Let go of those who waited long enough.
    pub fn sweep(&mut self) {
        self.0.retain(|_, echo| echo.since.elapsed() < PATIENCE);
    }
}
