//! A packet socket: frames of one link, and a receive filter for them.

use super::netlink::set_option;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Everything that arrives at a link of the caller's network namespace, with its Ethernet header; what is sent leaves by
/// that link. Packets that somebody else sends out by it are not seen.
pub fn open(link: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes no pointers; the descriptor is ours alone.
    let socket = unsafe {
        let raw = libc::socket(libc::AF_PACKET, kind, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    // SOL_PACKET, PACKET_IGNORE_OUTGOING
    set_option(socket.as_fd(), 263, 23, 1)?;
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = link as i32;
    // SAFETY: the pointer and length describe `address`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}
