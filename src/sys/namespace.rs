//! Namespaces: enter, leave, learn their kind. No policy.

use super::fd::check;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The time namespace's clone flag (nix has it not).
pub const CLONE_NEWTIME: i32 = 0x80;

/// setns(2) on a namespace's or a process's descriptor.
pub fn setns(fd: BorrowedFd<'_>, kinds: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; the caller is a single thread (checked where processes are born).
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into())?;
    Ok(())
}

/// unshare(2).
pub fn unshare(kinds: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; CLONE_VM and the like are refused by the kernel for us as a single thread.
    check(unsafe { libc::unshare(kinds) }.into())?;
    Ok(())
}

/// Set the loopback interface of this network namespace up.
pub fn raise_loopback() -> io::Result<()> {
    // SAFETY: takes numbers only.
    let socket =
        super::fd::owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: ifreq is plain data; the name is shorter than the field and ends with zero; the kernel reads name and flags.
    unsafe {
        let mut request: libc::ifreq = MaybeUninit::zeroed().assume_init();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &request).into())?;
    }
    Ok(())
}

/// setdomainname(2), of this uts namespace.
pub fn set_domain_name(name: &std::ffi::CStr) -> io::Result<()> {
    let bytes = name.to_bytes();
    // SAFETY: the bytes live through the call and their number is given.
    check(unsafe { libc::setdomainname(bytes.as_ptr().cast(), bytes.len()) }.into())?;
    Ok(())
}
