//! `tmpcopyup`: a tmpfs begins with what the image has at its place, owners, modes, times and attributes kept.

use super::resolve;
use crate::runtime::step::Fault;
use crate::sys::fd;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// No image needs more; one that has more is a trap.
const DEPTH_MAX: usize = 128;

/// Copy the content and the attributes of the directory `source` to the directory `target`; those of `given` stay.
pub fn copy(source: BorrowedFd<'_>, target: BorrowedFd<'_>, given: Given) -> Result<(), Fault> {
    // `target` is an O_PATH descriptor of a detached mount's root.
    let target = super::open_dir_at(target, c".")?;
    copy_directory(source, target.as_fd(), DEPTH_MAX)?;
    let (mut status, own) = (nix::sys::stat::fstat(source)?, nix::sys::stat::fstat(&target)?);
    if given.mode {
        status.st_mode = own.st_mode;
    }
    if given.owner {
        (status.st_uid, status.st_gid) = (own.st_uid, own.st_gid);
    }
    give(target.as_fd(), c".", &status)
}

/// What the mount's options have said of the root of the tmpfs.
#[derive(Clone, Copy)]
pub struct Given {
    pub mode: bool,
    pub owner: bool,
}

fn copy_directory(source: BorrowedFd<'_>, target: BorrowedFd<'_>, depth: usize) -> Result<(), Fault> {
    if depth == 0 {
        return Err(Fault { errno: libc::ELOOP, detail: "tmpcopyup".to_owned() });
    }
    for name in resolve::names(source)? {
        let status = resolve::status(source, &name)?;
        copy_entry(source, target, &name, &status, depth).map_err(|fault| match fault.detail.is_empty() {
            true => Fault { detail: name.to_string_lossy().into_owned(), ..fault },
            false => fault,
        })?;
        give(target, &name, &status)?;
    }
    Ok(())
}

fn copy_entry(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    status: &libc::stat,
    depth: usize,
) -> Result<(), Fault> {
    let mode = Mode::from_bits_truncate(status.st_mode & 0o7777);
    match status.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            nix::sys::stat::mkdirat(target, name, Mode::S_IRWXU)?;
            let from = super::open_dir_at(source, name)?;
            let to = super::open_dir_at(target, name)?;
            copy_directory(from.as_fd(), to.as_fd(), depth - 1)
        }
        libc::S_IFLNK => {
            let link = nix::fcntl::readlinkat(source, name)?;
            Ok(nix::unistd::symlinkat(link.as_os_str(), target, name)?)
        }
        libc::S_IFREG => {
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let from = fd::openat2(source, name, flags, 0, fd::RESOLVE_BENEATH)?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let to = nix::fcntl::openat(target, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
            copy_content(from, to)
        }
        other => Ok(nix::sys::stat::mknodat(target, name, SFlag::from_bits_truncate(other), mode, status.st_rdev)?),
    }
}

fn copy_content(from: OwnedFd, to: OwnedFd) -> Result<(), Fault> {
    std::io::copy(&mut std::fs::File::from(from), &mut std::fs::File::from(to))?;
    Ok(())
}

/// Owner first: a change of owner takes the set-user-id bits away. The times last.
fn give(dir: BorrowedFd<'_>, name: &CStr, status: &libc::stat) -> Result<(), Fault> {
    let owner = (Some(status.st_uid.into()), Some(status.st_gid.into()));
    nix::unistd::fchownat(dir, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if status.st_mode & libc::S_IFMT != libc::S_IFLNK {
        let mode = Mode::from_bits_truncate(status.st_mode & 0o7777);
        nix::sys::stat::fchmodat(dir, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    }
    let access = TimeSpec::new(status.st_atime, status.st_atime_nsec);
    let change = TimeSpec::new(status.st_mtime, status.st_mtime_nsec);
    Ok(nix::sys::stat::utimensat(dir, name, &access, &change, UtimensatFlags::NoFollowSymlink)?)
}
