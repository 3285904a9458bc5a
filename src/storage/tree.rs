//! Directory trees by file descriptor: open inside a root, give away, measure. No path of an image, volume or container is
//! ever resolved from the host's root.

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstatat};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Open a directory of the store itself.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Open a path with `root` as its `/`: symbolic links and `..` end inside, magic links are refused.
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
    create_in_root(root, path, flags, Mode::empty())
}

/// [`open_in_root`] with the mode of a file that O_CREAT makes.
pub fn create_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // EAGAIN: a rename somewhere made the kernel unsure that `..` stayed inside; it asks to try again.
    for _ in 0..1 << 16 {
        match openat2(root, OsStr::from_bytes(path), how) {
            Err(Errno::EAGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

/// Give a file or directory and all below it to an owner, links themselves and not what they lead to. One that is theirs
/// is left with all below it; it becomes theirs last, so that whoever is cut off begins anew.
pub fn give(path: &Path, owner: (u32, u32)) -> Result<()> {
    let context = || format!("change the owner of {}", path.display());
    let (uid, gid) = (Some(owner.0.into()), Some(owner.1.into()));
    let metadata = std::fs::symlink_metadata(path).with_context(context)?;
    if (metadata.uid(), metadata.gid()) == owner {
        return Ok(());
    }
    if metadata.is_dir() {
        give_content(open_directory(path)?, owner).with_context(context)?;
    }
    nix::unistd::fchownat(nix::fcntl::AT_FDCWD, path, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).with_context(context)
}

fn give_content(directory: OwnedFd, owner: (u32, u32)) -> nix::Result<()> {
    let mut stream = Dir::from_fd(directory.try_clone().map_err(|_| Errno::EMFILE)?)?;
    for entry in stream.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let (uid, gid) = (Some(owner.0.into()), Some(owner.1.into()));
        nix::unistd::fchownat(&directory, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::openat(&directory, name, flags, Mode::empty()) {
            Ok(below) => give_content(below, owner)?,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes and inodes under a directory, each inode once: what `du` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum of file sizes.
    pub apparent: u64,
    /// Sum of allocated blocks.
    pub allocated: u64,
    /// Files of all kinds.
    pub inodes: u64,
}

/// Measure a tree.
pub fn usage(path: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let directory = match nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(usage),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let stat = nix::sys::stat::fstat(&directory)?;
    usage.allocated += stat.st_blocks as u64 * 512;
    usage.inodes += 1;
    measure(directory, &mut usage, &mut seen).with_context(|| format!("measure {}", path.display()))?;
    Ok(usage)
}

fn measure(directory: OwnedFd, usage: &mut Usage, seen: &mut HashSet<(u64, u64)>) -> nix::Result<()> {
    let mut stream = Dir::from_fd(directory.try_clone().map_err(|_| Errno::EMFILE)?)?;
    for entry in stream.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone while we looked.
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        let is_directory = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
        if !is_directory && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        usage.allocated += stat.st_blocks as u64 * 512;
        usage.inodes += 1;
        if is_directory {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match nix::fcntl::openat(&directory, name, flags, Mode::empty()) {
                Ok(below) => measure(below, usage, seen)?,
                Err(Errno::ENOENT | Errno::EACCES) => {}
                Err(error) => return Err(error),
            }
        } else {
            usage.apparent += stat.st_size as u64;
        }
    }
    Ok(())
}
