//! Find or make a place inside the root, whatever symbolic links its image or another container put there.
//!
//! Each component is opened from the descriptor of the one before, links are read and followed by us, so nothing
//! outside the root can be named or made (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use crate::sys::fd;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// How a path inside the root is resolved.
pub const IN_ROOT: u64 = fd::RESOLVE_IN_ROOT | fd::RESOLVE_NO_MAGICLINKS;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// The place as it is, a directory or not.
pub fn existing(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    fd::openat2(root, path, libc::O_PATH, 0, IN_ROOT)
}

/// The directory, made with all above it where missing.
pub fn directory(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    match fd::openat2(root, path, libc::O_PATH | libc::O_DIRECTORY, 0, IN_ROOT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(root, path, true),
        other => other,
    }
}

/// The file, made empty with all above it where missing.
pub fn file(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    match existing(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(root, path, false),
        other => other,
    }
}

/// The directory by exactly this name: a link anywhere on the way is refused. Made where missing.
pub fn strict_directory(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let resolve = IN_ROOT | fd::RESOLVE_NO_SYMLINKS;
    let open = || fd::openat2(root, path, libc::O_PATH | libc::O_DIRECTORY, 0, resolve);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(root, path, true)?;
            open()
        }
        other => other,
    }
}

/// `/a/b` as `/a` and `b`.
pub fn split(path: &CStr) -> io::Result<(CString, CString)> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name = &bytes[start..end];
    if name.is_empty() || name == b"." || name == b".." {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let parent = if start <= 1 { b"/".to_vec() } else { bytes[..start - 1].to_vec() };
    Ok((CString::new(parent)?, CString::new(name)?))
}

/// Walk component by component and make what is missing.
fn make(root: BorrowedFd<'_>, path: &CStr, is_directory: bool) -> io::Result<OwnedFd> {
    let mut rest = components(path.to_bytes());
    // The directories walked so far, the last one being where we stand; empty is the root.
    let mut trail: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            trail.pop();
            continue;
        }
        let here = trail.last().map_or(root, |dir| dir.as_fd());
        let name = CString::new(name)?;
        let is_last = rest.is_empty();
        let next = open_or_make(here, &name, !is_last || is_directory)?;
        if nix::sys::stat::fstat(&next)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = nix::fcntl::readlinkat(&next, c"")?.into_vec();
            if target.first() == Some(&b'/') {
                trail.clear();
            }
            for part in components(&target).into_iter().rev() {
                rest.push_front(part);
            }
            continue;
        }
        trail.push(next);
    }
    match trail.pop() {
        Some(last) => Ok(last),
        None => root.try_clone_to_owned(),
    }
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

/// Open one component without following it; make it where missing.
fn open_or_make(here: BorrowedFd<'_>, name: &CStr, is_directory: bool) -> io::Result<OwnedFd> {
    let open = || fd::openat2(here, name, libc::O_PATH | libc::O_NOFOLLOW, 0, fd::RESOLVE_BENEATH);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let made = if is_directory {
        nix::sys::stat::mkdirat(here, name, Mode::from_bits_truncate(0o755))
    } else {
        nix::sys::stat::mknodat(here, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
    };
    match made {
        // Somebody who shares the directory was faster.
        Ok(()) | Err(nix::Error::EEXIST) => open(),
        Err(error) => Err(error.into()),
    }
}

/// Read a whole small directory's names.
pub fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = nix::dir::Dir::openat(dir, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// lstat of a name in a directory.
pub fn status(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::stat> {
    Ok(nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("coracle-resolve-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let dir = std::fs::File::open(&path).unwrap().into();
        (path, dir)
    }

    #[test]
    fn links_lead_nowhere_but_into_the_root() {
        let (path, dir) = root("links");
        symlink("/run/deep", path.join("var")).unwrap();
        symlink("../../../../outside", path.join("up")).unwrap();
        directory(dir.as_fd(), c"/var/lib").unwrap();
        file(dir.as_fd(), c"/up/file").unwrap();
        assert!(path.join("run/deep/lib").is_dir());
        assert!(path.join("outside/file").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn strict_refuses_a_link_and_a_loop_ends() {
        let (path, dir) = root("strict");
        std::fs::create_dir(path.join("real")).unwrap();
        symlink("real", path.join("proc")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        assert_eq!(strict_directory(dir.as_fd(), c"/proc").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(directory(dir.as_fd(), c"/loop/x").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        strict_directory(dir.as_fd(), c"/made/here").unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn split_finds_parent_and_name() {
        let check = |path: &CStr, parent: &CStr, name: &CStr| {
            assert_eq!(split(path).unwrap(), (parent.to_owned(), name.to_owned()));
        };
        check(c"/dev/null", c"/dev", c"null");
        check(c"/null", c"/", c"null");
        check(c"dev/net/tun/", c"dev/net", c"tun");
        assert!(split(c"/").is_err());
        assert!(split(c"/dev/..").is_err());
    }
}
