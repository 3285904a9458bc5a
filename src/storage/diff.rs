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

/// What is otherwise in `new` than in `old`: two whole trees, sorted by path. A directory with a change in it has changed.
pub fn between(new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Change)>> {
    let mut found = Vec::new();
    compare(new, old, b"", &mut found)?;
    found.sort();
    Ok(found)
}

fn compare(new: BorrowedFd<'_>, old: BorrowedFd<'_>, path: &[u8], found: &mut Vec<(Vec<u8>, Change)>) -> Result<()> {
    let (here, before) = (names(new)?, names(old)?);
    let looked = |directory: BorrowedFd<'_>, name: &CString| {
        fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .with_context(|| [String::from_utf8_lossy(path), name.to_string_lossy()].join("/"))
    };
    let known: std::collections::BTreeSet<&CString> = before.iter().collect();
    for name in &here {
        let below = [path, b"/", name.to_bytes()].concat();
        let now = looked(new, name)?;
        if !known.contains(name) {
            found.push((below.clone(), Change::Added));
            if is_directory(&now) {
                all(new, name, &below, found)?;
            }
            continue;
        }
        let then = looked(old, name)?;
        let count = found.len();
        match (is_directory(&now), is_directory(&then)) {
            (true, true) => {
                let (inner_new, inner_old) = (open(new, name)?, open(old, name)?);
                compare(inner_new.as_fd(), inner_old.as_fd(), &below, found)?;
            }
            (true, false) => all(new, name, &below, found)?,
            _ => {}
        }
        if found.len() > count || differs(&now, &then) {
            found.push((below, Change::Changed));
        }
    }
    let here: std::collections::BTreeSet<&CString> = here.iter().collect();
    let gone = before.iter().filter(|name| !here.contains(name));
    found.extend(gone.map(|name| ([path, b"/", name.to_bytes()].concat(), Change::Deleted)));
    Ok(())
}

/// Everything below a directory is new.
fn all(parent: BorrowedFd<'_>, name: &CString, path: &[u8], found: &mut Vec<(Vec<u8>, Change)>) -> Result<()> {
    let directory = open(parent, name)?;
    for name in names(directory.as_fd())? {
        let below = [path, b"/", name.to_bytes()].concat();
        let stat = fstatat(directory.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .with_context(|| String::from_utf8_lossy(&below).into_owned())?;
        found.push((below.clone(), Change::Added));
        if is_directory(&stat) {
            all(directory.as_fd(), &name, &below, found)?;
        }
    }
    Ok(())
}

/// Whether it is another file; a directory's size and time say nothing.
fn differs(now: &FileStat, then: &FileStat) -> bool {
    let content = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    (now.st_mode, now.st_uid, now.st_gid, now.st_rdev) != (then.st_mode, then.st_uid, then.st_gid, then.st_rdev)
        || !is_directory(now) && content(now) != content(then)
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
