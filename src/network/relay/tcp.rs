//! Two connected sockets and the bytes between them. Nothing is kept for a pair that is idle.

use nix::libc;
use nix::sys::socket::{self, SockType, SockaddrStorage, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

/// A pair of connections.
#[derive(Debug)]
pub struct Pair {
    sides: [Side; 2],
}

#[derive(Debug)]
struct Side {
    stream: TcpStream,
    /// What could not be written to this side yet.
    unsent: Vec<u8>,
    /// Nothing more will be read from this side.
    ended: bool,
    /// The connection is there (a socket that still connects is not written to).
    connected: bool,
}

/// What to wait for on a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
}

/// Whether a pair lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does, and waits for this on its two sides.
    On([Interest; 2]),
    /// Both have said all, or one is broken.
    Over,
}

impl Pair {
    /// Of these two; the second may still be connecting.
    pub fn new(first: TcpStream, second: TcpStream, second_connected: bool) -> Pair {
        let side = |stream: TcpStream, connected| {
            let _ = stream.set_nodelay(true);
            Side { stream, unsent: Vec::new(), ended: false, connected }
        };
        Pair { sides: [side(first, true), side(second, second_connected)] }
    }

    /// The socket of a side.
    pub fn stream(&self, side: usize) -> &TcpStream {
        &self.sides[side].stream
    }

    /// A side is ready for something: move what can be moved.
    pub fn ready(&mut self, side: usize, buffer: &mut [u8]) -> Life {
        if !self.sides[side].connected {
            match self.sides[side].stream.take_error() {
                Ok(None) => self.sides[side].connected = true,
                _ => return self.broken(side),
            }
        }
        for from in [side, 1 - side] {
            if !self.pump(from, buffer) {
                return self.broken(from);
            }
        }
        let done = |side: &Side, other: &Side| side.ended && other.unsent.is_empty();
        let [first, second] = &self.sides;
        if done(first, second) && done(second, first) { Life::Over } else { Life::On(self.interest()) }
    }

    /// What to wait for.
    pub fn interest(&self) -> [Interest; 2] {
        let interest = |side: &Side, other: &Side| Interest {
            read: side.connected && other.connected && !side.ended && other.unsent.is_empty(),
            write: !side.connected || !side.unsent.is_empty(),
        };
        let [first, second] = &self.sides;
        [interest(first, second), interest(second, first)]
    }

    /// Move from one side to the other until one of them has enough. False: an end is broken.
    fn pump(&mut self, from: usize, buffer: &mut [u8]) -> bool {
        let [first, second] = &mut self.sides;
        let (source, sink) = if from == 0 { (first, second) } else { (second, first) };
        if !source.connected || !sink.connected {
            return true;
        }
        // So much for one turn: others want theirs.
        for _ in 0..8 {
            if !sink.flush() {
                return false;
            }
            if source.ended || !sink.unsent.is_empty() {
                return true;
            }
            match source.stream.read(buffer) {
                Ok(0) => {
                    source.ended = true;
                    let _ = sink.stream.shutdown(Shutdown::Write);
                    return true;
                }
                Ok(length) => {
                    if !sink.send(&buffer[..length]) {
                        return false;
                    }
                    if length < buffer.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// One end broke: the other shall see it too, as a reset and not as an orderly end.
    fn broken(&self, side: usize) -> Life {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = socket::setsockopt(&self.sides[1 - side].stream, sockopt::Linger, &linger);
        Life::Over
    }
}

impl Side {
    fn flush(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    fn send(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return false,
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent = bytes.to_vec();
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Start to connect a new socket of the caller's namespace.
pub fn start(target: SocketAddr) -> Result<TcpStream, nix::errno::Errno> {
    connect(super::new_socket(target.is_ipv6(), SockType::Stream)?, target)
}

/// Start to connect this socket.
pub fn connect(fd: OwnedFd, target: SocketAddr) -> Result<TcpStream, nix::errno::Errno> {
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (client, server)
    }

    #[test]
    fn moves_all_and_ends_with_both() {
        let ((mut left, a), (mut right, b)) = (connected(), connected());
        let mut pair = Pair::new(a, b, true);
        let mut buffer = vec![0; 4096];
        let content: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
        let expected = content.clone();
        let writer = std::thread::spawn(move || {
            left.write_all(&content).unwrap();
            left.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            left.read_to_string(&mut answer).unwrap();
            answer
        });
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            right.read_to_end(&mut received).unwrap();
            right.write_all(b"thanks").unwrap();
            received
        });
        // Both sides over and over, as a loop that does not wait would.
        while pair.ready(0, &mut buffer) != Life::Over {
            std::thread::yield_now();
        }
        drop(pair);
        assert_eq!(reader.join().unwrap(), expected);
        assert_eq!(writer.join().unwrap(), "thanks");
    }

    #[test]
    fn a_reset_is_passed_on() {
        let ((left, a), (mut right, b)) = (connected(), connected());
        let mut pair = Pair::new(a, b, true);
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        socket::setsockopt(&left, sockopt::Linger, &linger).unwrap();
        drop(left);
        let mut buffer = vec![0; 4096];
        while pair.ready(0, &mut buffer) != Life::Over {
            std::thread::yield_now();
        }
        drop(pair);
        assert_eq!(right.read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
