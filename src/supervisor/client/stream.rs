//! One stream of a session, in either direction. Nothing here waits, but for a terminal that is stopped.

use super::Keys;
use crate::sys::pipe::splice;
use nix::errno::Errno;
use nix::unistd::{read, write};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is moved at once.
const CHUNK: usize = 256 * 1024;
/// What is read at once, where it cannot be moved.
const READ: usize = 64 * 1024;
/// A pipe or terminal that says it can be written to takes this much without waiting.
const WRITE: usize = 4096;

/// What came of moving once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Go on.
    More,
    /// The source is at its end, or the target takes no more.
    End,
    /// The detach keys came.
    Detach,
}

impl Pumped {
    pub(super) fn is_end(self) -> bool {
        self == Pumped::End
    }
}

/// From the container to one of our own streams.
#[derive(Debug)]
pub(super) struct Output {
    source: OwnedFd,
    number: i32,
    stdout: io::Stdout,
    stderr: io::Stderr,
    /// The kernel moves it.
    splice: bool,
    pending: Vec<u8>,
    /// How much of `pending` is written.
    written: usize,
    /// How much is written at once.
    portion: usize,
    blocked: bool,
}

impl Output {
    pub(super) fn new(source: OwnedFd, number: i32) -> Output {
        Output {
            source,
            number,
            stdout: io::stdout(),
            stderr: io::stderr(),
            splice: true,
            pending: Vec::new(),
            written: 0,
            portion: WRITE,
            blocked: false,
        }
    }

    pub(super) fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    pub(super) fn target(&self) -> BorrowedFd<'_> {
        if self.number == 1 { self.stdout.as_fd() } else { self.stderr.as_fd() }
    }

    /// It is the target that has to be waited for.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked || !self.pending.is_empty()
    }

    pub(super) fn pump(&mut self) -> Pumped {
        if self.splice {
            match splice(&self.source, self.target(), CHUNK) {
                Ok(0) => return Pumped::End,
                Ok(_) => {
                    self.blocked = false;
                    return Pumped::More;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // One of the two is not ready: if it was the source that we waited for, it is the target.
                    self.blocked = !self.blocked;
                    return Pumped::More;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => return Pumped::More,
                // A terminal, a file opened for appending, or the source is one.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.splice = false;
                    self.blocked = false;
                    let regular = nix::sys::stat::fstat(self.target())
                        .is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFREG);
                    if regular {
                        self.portion = READ;
                    }
                }
                Err(_) => return Pumped::End,
            }
        }
        self.copy()
    }

    fn copy(&mut self) -> Pumped {
        if self.pending.is_empty() {
            self.pending.resize(READ, 0);
            let length = match read(&self.source, &mut self.pending) {
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    self.pending.clear();
                    return Pumped::More;
                }
                // EIO: a terminal whose other end nobody has open.
                Err(_) => 0,
            };
            self.pending.truncate(length);
            if length == 0 {
                return Pumped::End;
            }
            return Pumped::More;
        }
        let end = self.pending.len().min(self.written + self.portion);
        match write(self.target(), &self.pending[self.written..end]) {
            Ok(written) => self.written += written,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Pumped::End,
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        Pumped::More
    }
}

/// From our standard input to the container.
#[derive(Debug)]
pub(super) struct Input {
    target: OwnedFd,
    stdin: io::Stdin,
    splice: bool,
    /// What may end the session, on a terminal.
    keys: Option<Keys>,
    pending: Vec<u8>,
    blocked: bool,
    detach: bool,
}

impl Input {
    pub(super) fn new(target: OwnedFd, keys: Option<Keys>) -> Input {
        let splice = keys.is_none();
        Input { target, stdin: io::stdin(), splice, keys, pending: Vec::new(), blocked: false, detach: false }
    }

    pub(super) fn target(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    /// It is the target that has to be waited for.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked || !self.pending.is_empty()
    }

    pub(super) fn pump(&mut self) -> Pumped {
        if self.splice {
            match splice(&self.stdin, &self.target, CHUNK) {
                Ok(0) => return Pumped::End,
                Ok(_) => {
                    self.blocked = false;
                    return Pumped::More;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = !self.blocked;
                    return Pumped::More;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => return Pumped::More,
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => return Pumped::End,
                Err(_) => {
                    self.splice = false;
                    self.blocked = false;
                }
            }
        }
        self.copy()
    }

    fn copy(&mut self) -> Pumped {
        if !self.pending.is_empty() {
            match write(&self.target, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return Pumped::End,
            }
        } else {
            let mut bytes = vec![0; READ];
            let length = match read(&self.stdin, &mut bytes) {
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR) => return Pumped::More,
                Err(_) => 0,
            };
            if length == 0 {
                return Pumped::End;
            }
            match &mut self.keys {
                Some(keys) => self.detach = keys.filter(&bytes[..length], &mut self.pending),
                None => self.pending.extend_from_slice(&bytes[..length]),
            }
        }
        if self.detach && self.pending.is_empty() { Pumped::Detach } else { Pumped::More }
    }
}
