//! Pipes: moved without copying, made not to block.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::null_mut;

/// splice(2): up to `length` bytes from one to the other, one of them a pipe. Does not wait for a pipe, nor for
/// another file that is marked as not blocking.
pub fn splice(source: impl AsFd, target: impl AsFd, length: usize) -> io::Result<usize> {
    let (source, target) = (source.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: no offsets are passed; no memory of ours is touched.
    let moved = unsafe { libc::splice(source, null_mut(), target, null_mut(), length, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Mark the open file as not blocking, for all who share it.
pub fn set_nonblocking(file: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
