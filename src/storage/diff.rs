//! What an upper directory changes: added, changed and deleted paths.

use crate::storage::{pack, tree, unpack};
use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It is gone.
    Deleted,
}

/// All changes of an overlay's upper directory against what is below it, sorted by path. Paths begin with a slash.
pub fn changes(upper: BorrowedFd<'_>, lower: Option<BorrowedFd<'_>>) -> Result<Vec<(Vec<u8>, Change)>> {
    let mut found = Vec::new();
    let lower = lower.map(|lower| lower.try_clone_to_owned()).transpose()?;
    walk(upper, lower.as_ref(), b"", &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(upper: BorrowedFd<'_>, lower: Option<&OwnedFd>, path: &[u8], found: &mut Vec<(Vec<u8>, Change)>) -> Result<()> {
    for name in names(upper)? {
        let below = [path, b"/", name.to_bytes()].concat();
        let stat = match fstatat(upper, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(error).with_context(|| String::from_utf8_lossy(&below).into_owned()),
        };
        let before = lower.and_then(|lower| fstatat(lower, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok());
        if unpack::is_whiteout(&stat) {
            if before.is_some() {
                found.push((below, Change::Deleted));
            }
            continue;
        }
        found.push((below.clone(), if before.is_some() { Change::Changed } else { Change::Added }));
        if !is_directory(&stat) {
            continue;
        }
        let directory = open(upper, &name)?;
        let under = match (lower, before.as_ref().is_some_and(is_directory)) {
            (Some(lower), true) => Some(open(lower.as_fd(), &name)?),
            _ => None,
        };
        if let Some(under) = &under
            && pack::is_opaque(directory.as_fd())?
        {
            gone(directory.as_fd(), under, &below, found)?;
        }
        walk(directory.as_fd(), under.as_ref(), &below, found)?;
    }
    Ok(())
}

/// What an opaque directory does not have again is deleted.
fn gone(upper: BorrowedFd<'_>, lower: &OwnedFd, path: &[u8], found: &mut Vec<(Vec<u8>, Change)>) -> Result<()> {
    for name in names(lower.as_fd())? {
        if fstatat(upper, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_err() {
            found.push(([path, b"/", name.to_bytes()].concat(), Change::Deleted));
        }
    }
    Ok(())
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut stream = Dir::from_fd(tree::open_in_root(directory, b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
    let mut names = Vec::new();
    for entry in stream.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn open(directory: BorrowedFd<'_>, name: &CString) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(directory, name.as_c_str(), flags, Mode::empty()).with_context(|| format!("open {name:?}"))
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR
}
