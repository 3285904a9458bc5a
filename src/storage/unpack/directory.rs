//! Directories of an archive: made, kept open while entries come for them, their times set last.
//!
//! Invariant: a descriptor that is kept is that of what has the name: whatever takes a directory's place drops all.

use super::attribute::{DEFAULT_ACL, time_of};
use super::whiteout::is_whiteout;
use super::{InTheWay, Unpacker, kind_of};
use crate::storage::tar::Entry;
use crate::storage::tree;
use crate::sys::xattr;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::UnlinkatFlags;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Directory descriptors kept open.
const OPEN_MAX: usize = 256;
/// Bytes of directory names whose times are set at the end.
const TIMES_MAX_BYTES: usize = 16 << 20;

/// An open directory.
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// What is made inside gets its group.
    pub(super) setgid: bool,
}

impl Unpacker<'_> {
    pub(super) fn set_times(&mut self) -> Result<()> {
        self.times_bytes = 0;
        for (path, time) in std::mem::take(&mut self.times) {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            match tree::open_in_root(self.root, &path, flags) {
                Ok(fd) => nix::sys::stat::futimens(&fd, &time, &time).context("set the time of a directory")?,
                // Something else took its place since.
                Err(_) => continue,
            }
        }
        Ok(())
    }

    /// The directory at a cleaned path, made if need be.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
        if let Some(directory) = self.open.get(path) {
            return Ok(Rc::clone(directory));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let fd = match tree::open_in_root(self.root, path, flags) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => self.make_parents(path)?,
            Err(Errno::ENOTDIR) => {
                bail!("{}: a file where a directory is needed", String::from_utf8_lossy(path))
            }
            Err(error) => return Err(error).with_context(|| format!("open {}", String::from_utf8_lossy(path))),
        };
        let stat = nix::sys::stat::fstat(&fd)?;
        self.remember(path, fd, stat.st_mode)
    }

    pub(super) fn remember(&mut self, path: &[u8], fd: OwnedFd, mode: u32) -> Result<Rc<Directory>> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let directory = Rc::new(Directory { fd, setgid: mode & 0o2000 != 0 });
        self.open.insert(path.to_vec(), Rc::clone(&directory));
        Ok(directory)
    }

    /// Directories the archive does not name itself: root's, 0755.
    pub(super) fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let mut end = 0;
        while end < path.len() {
            let next = path[end + 1..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| end + 1 + at);
            let (parent, name) = match path[..next].iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&path[..slash], &path[slash + 1..next]),
                None => (&path[..0], &path[..next]),
            };
            let parent = tree::open_in_root(self.root, parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            let name = CString::new(name)?;
            match nix::sys::stat::mkdirat(&parent, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let fd = nix::fcntl::openat(&parent, name.as_c_str(), flags, Mode::empty())?;
                    nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(0o755))?;
                }
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error).context("make a directory"),
            }
            end = next;
        }
        tree::open_in_root(self.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .with_context(|| format!("open {}", String::from_utf8_lossy(path)))
    }

    pub(super) fn make_directory(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &Directory,
        name: &CString,
    ) -> Result<()> {
        let mut hides = false;
        match nix::sys::stat::mkdirat(&parent.fd, name.as_c_str(), Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let stat = nix::sys::stat::fstatat(&parent.fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if kind_of(&stat) != SFlag::S_IFDIR {
                    ensure!(self.options.replace, InTheWay { directory: false });
                    hides = is_whiteout(&stat);
                    self.done.replaced |= !is_whiteout(&stat);
                    nix::unistd::unlinkat(&parent.fd, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
                    nix::sys::stat::mkdirat(&parent.fd, name.as_c_str(), Mode::S_IRWXU)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&parent.fd, name.as_c_str(), flags, Mode::empty())?;
        if hides && self.options.whiteouts {
            // The whiteout came first: the directory is new, not merged with that below.
            self.make_opaque(fd.as_fd())?;
        }
        self.directory_attributes(entry, path, &fd)?;
        self.remember(path, fd, entry.mode)?;
        Ok(())
    }

    pub(super) fn directory_attributes(&mut self, entry: &Entry, path: &[u8], fd: &OwnedFd) -> Result<()> {
        self.owner(entry, |uid, gid| nix::unistd::fchown(fd, Some(uid), Some(gid)))?;
        nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(entry.mode))?;
        self.attributes(entry, |name, value| xattr::set(fd.as_fd(), name, value))?;
        if entry.xattrs.iter().any(|(name, _)| name == DEFAULT_ACL.to_bytes()) {
            self.withheld = 0o777;
        }
        self.open.remove(path);
        self.times.push((path.to_vec(), time_of(entry)));
        self.times_bytes += path.len() + 48;
        if self.times_bytes > TIMES_MAX_BYTES {
            // Memory before beauty: what comes later inside these directories changes their times again.
            self.set_times()?;
        }
        Ok(())
    }
}
