//! Namespaces: enter, leave, learn their kind. No policy.

use super::fd::check;
use std::io;
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

/// The CLONE_NEW* flag of the namespace behind this descriptor; an error where it is no namespace.
pub fn kind_of(fd: BorrowedFd<'_>) -> io::Result<i32> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no argument.
    Ok(check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }.into())? as i32)
}
