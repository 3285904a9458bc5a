//! Netlink sockets, and running a few system calls inside another network namespace.
//!
//! The kernel handles a netlink request inside `sendmsg`, so every answer is queued before the call returns: nothing
//! here waits. What the bytes mean is `network`'s business.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A netlink family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
}

/// A netlink socket. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_seq` of the request it belongs to.
    pub sequence: u32,
    /// What follows the header.
    pub body: Vec<u8>,
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;

impl Socket {
    /// Open one in the caller's network namespace.
    pub fn open(family: Family) -> io::Result<Socket> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = nix::sys::socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )?;
        // Answers carry the kernel's own words, and do not repeat the request.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
            set_option(fd.as_fd(), SOL_NETLINK, option, 1)?;
        }
        Ok(Socket { fd })
    }

    /// Make room for a batch of this many bytes.
    pub fn reserve(&self, bytes: usize) -> io::Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        // The forced forms go past the administrator's limit and need CAP_NET_ADMIN of the initial user namespace.
        if set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
            set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
        }
        Ok(())
    }

    /// Send a buffer of one or more requests and collect every answer that is queued when the kernel is done.
    pub fn exchange(&self, requests: &[u8]) -> io::Result<Vec<Reply>> {
        nix::sys::socket::send(self.fd.as_raw_fd(), requests, MsgFlags::empty())?;
        let mut replies = Vec::new();
        let mut buffer = vec![0; 32 << 10];
        loop {
            match nix::sys::socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => split(&buffer[..length], &mut replies),
                Err(nix::errno::Errno::EAGAIN) => return Ok(replies),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Send one dump request and collect all of its answer.
    pub fn dump(&self, request: &[u8]) -> io::Result<Vec<Reply>> {
        // The kernel continues a dump inside `recv`, so an empty queue before DONE cannot happen.
        let mut replies = self.exchange(request)?;
        if let Some(error) = replies.iter().find(|reply| reply.kind == NLMSG_ERROR) {
            let errno = error.body.first_chunk().map_or(libc::EPROTO, |bytes| -i32::from_ne_bytes(*bytes));
            return Err(io::Error::from_raw_os_error(errno));
        }
        replies.retain(|reply| reply.kind != NLMSG_DONE);
        Ok(replies)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Cut a datagram into its messages; what does not fit is dropped.
fn split(mut datagram: &[u8], replies: &mut Vec<Reply>) {
    while datagram.len() >= 16 {
        let length = u32::from_ne_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]) as usize;
        if length < 16 || length > datagram.len() {
            return;
        }
        replies.push(Reply {
            kind: u16::from_ne_bytes([datagram[4], datagram[5]]),
            sequence: u32::from_ne_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]),
            body: datagram[16..length].to_vec(),
        });
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
}

/// `setsockopt` with an integer.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast::<c_void>(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Run `work` in this network namespace and come back.
pub fn within<T, F: FnOnce() -> T>(namespace: BorrowedFd<'_>, work: F) -> io::Result<T> {
    beside(|| nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).map(|()| work()))?
        .map_err(io::Error::from)
}

/// Run `work` in a new network namespace, which lives on if `work` opens a descriptor of it.
pub fn within_new<T, F: FnOnce() -> T>(work: F) -> io::Result<T> {
    beside(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map(|()| work()))?.map_err(io::Error::from)
}

/// Run `work` in a child that shares memory and file descriptors with the caller, which sleeps meanwhile (as in `vfork`):
/// what the child opens and writes is the caller's, the namespaces it enters are not.
///
/// An unprivileged process that joins a network namespace of its user namespace may not return to the host's, so it does
/// not go itself. No thread is left behind. `work` must not panic and must not rely on its process id.
fn beside<T, F: FnOnce() -> T>(work: F) -> io::Result<T> {
    struct Call<T, F> {
        work: Option<F>,
        result: Option<T>,
    }
    extern "C" fn run<T, F: FnOnce() -> T>(argument: *mut c_void) -> i32 {
        // SAFETY: `argument` is the `Call` below, which outlives the child; the caller sleeps, so nobody else uses it.
        let call = unsafe { &mut *argument.cast::<Call<T, F>>() };
        call.result = call.work.take().map(|work| work());
        0
    }

    let mut stack = vec![0u128; (256 << 10) / 16];
    let mut call = Call { work: Some(work), result: None };
    let old = nix::sys::signal::SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the stack is ours, aligned, and outlives the child, because CLONE_VFORK suspends the caller until the
    // child has exited. `run` takes exactly this pointer. The child shares thread-local storage with a sleeping caller.
    let pid = unsafe {
        libc::clone(
            run::<T, F>,
            stack.as_mut_ptr_range().end.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES,
            (&raw mut call).cast::<c_void>(),
        )
    };
    let failed = (pid < 0).then(io::Error::last_os_error);
    if failed.is_none() {
        // Without an exit signal the child is only found with __WALL; nobody else waits so.
        let mut status = 0;
        // SAFETY: `status` is a valid place for the result.
        while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    old.thread_set_mask()?;
    match failed {
        Some(error) => Err(error),
        None => call.result.ok_or_else(|| io::Error::other("the child beside us died")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_datagrams_are_cut_short() {
        let mut replies = Vec::new();
        let mut message = vec![0u8; 20];
        message[0] = 20;
        message[4] = 7;
        split(&message, &mut replies);
        assert_eq!(replies, [Reply { kind: 7, sequence: 0, body: vec![0; 4] }]);
        message[0] = 21;
        split(&message, &mut replies);
        message[0] = 3;
        split(&message, &mut replies);
        split(&message[..9], &mut replies);
        assert_eq!(replies.len(), 1);
    }

    #[test]
    fn work_is_done_in_the_same_memory() {
        let here = std::fs::File::open("/proc/self/ns/net").unwrap();
        // Joining needs CAP_SYS_ADMIN; where the test lacks it, the error is the test.
        let mut seen = 0;
        match within(here.as_fd(), || seen = 7) {
            Ok(()) => assert_eq!(seen, 7),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
    }
}
