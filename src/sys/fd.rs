//! File descriptors: duplicate, close, resolve below a root, pass over a socket. No policy.

use nix::fcntl::AT_FDCWD;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Resolve every component inside the directory fd, as if it were the root.
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// Refuse to leave the directory fd.
pub const RESOLVE_BENEATH: u64 = 0x08;
/// Refuse every symbolic link.
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// Refuse links of /proc that are more than text.
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;

/// The result of a system call, -1 turned into the error.
pub(super) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of a system call that made a file descriptor.
pub(super) fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made this descriptor for us, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// openat2(2), always O_CLOEXEC.
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: open_how is plain data; zero is a valid value of each field.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    loop {
        // SAFETY: path is a C string and how lives through the call; its size is passed.
        let result =
            unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &how, size_of_val(&how)) };
        match owned(result) {
            // The kernel saw a rename or mount while it resolved; it asks to try again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// openat(2) of a path that is trusted, always O_CLOEXEC.
pub fn open(path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    openat2(AT_FDCWD, path, flags, 0, 0)
}

/// Mark all descriptors from `first` on close-on-exec.
pub fn close_range_cloexec(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: takes numbers only and closes nothing before an exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Close all descriptors from `first` on, but for these.
///
/// Only for a process that will never return to whoever owns them: a child that waits and then executes.
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if from < fd {
            // SAFETY: takes numbers only; nothing that owns one of them is used or dropped in this process any more,
            // which is what the caller promises.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Clear close-on-exec of a descriptor number, if there is one; true if there was.
pub fn keep_on_exec(fd: RawFd) -> bool {
    // SAFETY: fcntl on a number: EBADF where it is not open, no memory is touched.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) == 0 }
}

/// Put a copy of `fd` at this number (without close-on-exec), replacing what was there.
///
/// Only for numbers that nothing in this process owns: 0, 1, 2 and the preserved ones of a child about to exec.
pub fn place_at(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        keep_on_exec(number);
        return Ok(());
    }
    // SAFETY: dup2 touches no memory; the caller promises that nobody owns `number`.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())?;
    Ok(())
}

/// Is this number an open descriptor?
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Take over an inherited descriptor by number (LISTEN_FDS, `--preserve-fds`, a descriptor named in the environment).
///
/// None where it is not open. Must be called at most once for a number, before anything else could own it.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD touches no memory; the number was inherited at exec and is taken over once.
    unsafe { (libc::fcntl(number, libc::F_GETFD) >= 0).then(|| OwnedFd::from_raw_fd(number)) }
}

/// A connected pair of sockets that keep message borders, both close-on-exec.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Room for one descriptor in a control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// Send one message, with at most one descriptor.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut control = Control([0; 24]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: msghdr is plain data; zero is valid.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    if let Some(fd) = fd {
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_* compute within the 24 bytes set above: a header of 16 and one descriptor of 4, padded to 8.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(4) as _;
            let message = libc::CMSG_FIRSTHDR(&header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
    }
    loop {
        // SAFETY: header, iovec and control live through the call; the kernel only reads them.
        match check(unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL) } as _) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Receive one message and the descriptor that came with it; length 0 is the end.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut control = Control([0; 24]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data; zero is valid.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    let length = loop {
        // SAFETY: all buffers live through the call and their lengths are given.
        match check(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) } as _) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    // SAFETY: the kernel filled the control buffer; CMSG_FIRSTHDR is null where there is none, and an SCM_RIGHTS
    // message of this size holds one descriptor that is now ours.
    let fd = unsafe {
        let message = libc::CMSG_FIRSTHDR(&header);
        (!message.is_null() && (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS)
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<RawFd>().read_unaligned()))
    };
    Ok((length as usize, fd))
}

/// The magic number of the file system the descriptor is on.
pub fn file_system_magic(fd: impl AsFd) -> io::Result<i64> {
    // SAFETY: statfs is plain data, filled by the kernel.
    unsafe {
        let mut status: libc::statfs = MaybeUninit::zeroed().assume_init();
        check(libc::fstatfs(fd.as_fd().as_raw_fd(), &mut status).into())?;
        Ok(status.f_type as i64)
    }
}

/// Of procfs.
pub const PROC_MAGIC: i64 = 0x9fa0;
/// Of devpts.
pub const DEVPTS_MAGIC: i64 = 0x1cd1;

/// accept(2), close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    loop {
        // SAFETY: the address is not asked for.
        let result = unsafe {
            libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
        };
        match owned(result.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
