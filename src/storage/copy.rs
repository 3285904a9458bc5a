//! Copy a tree by descriptors: owners, modes, times, attributes, hard links and holes stay. On file systems that can,
//! contents are shared (copy_file_range makes reflinks there).

use crate::storage::tree;
use crate::sys::xattr::{self, Of};
use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fstatat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How to copy.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Owners that cannot be given, and devices that cannot be made, are passed over.
    pub lenient: bool,
    /// Turns each owner (uid, gid) into another; absent: they stay.
    pub owner: Option<&'a dyn Fn(u32, u32) -> Result<(u32, u32)>>,
    /// Contents that are worth it are not copied: the file refers to its original, as overlayfs does in a user namespace.
    /// The source is then a merge of directories that are mounted as data-only layers together with the copy.
    pub refers: bool,
    /// The directories that the source merges, topmost first: contents are read from there, for the kernel shares them
    /// between files of one file system only.
    pub originals: &'a [OwnedFd],
}

/// Smaller contents take no more room than the attributes of a reference.
const REFERENCE_MIN: i64 = 4096;

/// What was copied before, by device and inode: where its first name is.
type Links = HashMap<(u64, u64), PathBuf>;

/// Copy all that is in `source` into `target`, a directory of which nothing is known to others yet.
pub fn content(source: BorrowedFd<'_>, target: BorrowedFd<'_>, options: Options<'_>) -> Result<()> {
    let root = target.try_clone_to_owned()?;
    let mut links = Links::new();
    let copy = Copy { root: root.as_fd(), options };
    copy.directory(source, target, Path::new(""), &mut links)
}

/// Give `target` the owner, mode, times and attributes of `source`.
pub fn directory_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>, options: Options<'_>) -> Result<()> {
    let stat = nix::sys::stat::fstat(source)?;
    let copy = Copy { root: target, options };
    copy.owner(&stat, |uid, gid| nix::unistd::fchown(target, Some(uid), Some(gid)))?;
    nix::sys::stat::fchmod(target, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    copy.attributes(Of::Fd(source), Of::Fd(target))?;
    let (accessed, modified) = times(&stat);
    nix::sys::stat::futimens(target, &accessed, &modified)?;
    Ok(())
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    options: Options<'a>,
}

impl Copy<'_> {
    fn directory(&self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &Path, links: &mut Links) -> Result<()> {
        let mut stream = Dir::from_fd(reopen(source)?)?;
        for entry in stream.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            self.entry(Pair { source, target, name }, &below, links)
                .with_context(|| format!("copy {}", below.display()))?;
        }
        Ok(())
    }

    fn entry(&self, pair: Pair<'_>, path: &Path, links: &mut Links) -> Result<()> {
        let Pair { source, target, name } = pair;
        let stat = match fstatat(source, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone while we looked.
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = links.get(&inode) {
                nix::unistd::linkat(self.root, first, target, name, AtFlags::empty())?;
                return Ok(());
            }
            links.insert(inode, path.to_owned());
        }
        match kind {
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let from = nix::fcntl::openat(source, name, flags, Mode::empty())?;
                nix::sys::stat::mkdirat(target, name, Mode::S_IRWXU)?;
                let to = nix::fcntl::openat(target, name, flags, Mode::empty())?;
                self.directory(from.as_fd(), to.as_fd(), path, links)?;
                return directory_attributes(from.as_fd(), to.as_fd(), self.options);
            }
            SFlag::S_IFREG => return self.file(pair, &stat, path),
            SFlag::S_IFLNK => {
                let link = nix::fcntl::readlinkat(source, name)?;
                nix::unistd::symlinkat(link.as_os_str(), target, name)?;
            }
            // A socket is nothing without who listens.
            SFlag::S_IFSOCK => return Ok(()),
            kind => match nix::sys::stat::mknodat(target, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, stat.st_rdev) {
                Err(Errno::EPERM) if self.options.lenient => return Ok(()),
                made => made?,
            },
        }
        self.owner(&stat, |uid, gid| {
            nix::unistd::fchownat(target, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        })?;
        if kind != SFlag::S_IFLNK {
            let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
            nix::sys::stat::fchmodat(target, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        self.attributes(Of::Path(&name_path(source, name)?), Of::Path(&name_path(target, name)?))?;
        let (accessed, modified) = times(&stat);
        nix::sys::stat::utimensat(target, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    fn file(&self, pair: Pair<'_>, stat: &FileStat, path: &Path) -> Result<()> {
        let Pair { source, target, name } = pair;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let from = File::from(nix::fcntl::openat(source, name, flags, Mode::empty())?);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let to = File::from(nix::fcntl::openat(target, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let refers = self.options.refers && stat.st_size > REFERENCE_MIN;
        if refers {
            to.set_len(stat.st_size as u64)?;
        } else {
            copy_data(self.original(path, stat).as_ref().unwrap_or(&from), &to, stat)?;
        }
        self.owner(stat, |uid, gid| nix::unistd::fchown(&to, Some(uid), Some(gid)))?;
        nix::sys::stat::fchmod(&to, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
        self.attributes(Of::Fd(from.as_fd()), Of::Fd(to.as_fd()))?;
        if refers {
            let place = [b"/", path.as_os_str().as_bytes()].concat();
            xattr::set(to.as_fd(), c"user.overlay.metacopy", b"")?;
            xattr::set(to.as_fd(), c"user.overlay.redirect", &place)?;
        }
        let (accessed, modified) = times(stat);
        nix::sys::stat::futimens(&to, &accessed, &modified)?;
        Ok(())
    }

    /// The file that is seen at this path of a merge: the first there is, for what hides it would be found before it.
    fn original(&self, path: &Path, stat: &FileStat) -> Option<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let found = self.options.originals.iter().find_map(|root| openat2(root, path, how).ok());
        let found = File::from(found?);
        let metadata = found.metadata().ok()?;
        (metadata.is_file() && metadata.len() == stat.st_size as u64).then_some(found)
    }

    fn owner(&self, stat: &FileStat, change: impl Fn(Uid, Gid) -> nix::Result<()>) -> Result<()> {
        let (uid, gid) = match self.options.owner {
            Some(owner) => owner(stat.st_uid, stat.st_gid)?,
            None => (stat.st_uid, stat.st_gid),
        };
        match change(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Err(_) if self.options.lenient => Ok(()),
            result => result.context("set the owner"),
        }
    }

    fn attributes(&self, source: Of<'_>, target: Of<'_>) -> Result<()> {
        for name in xattr::list_of(source)? {
            let name = CString::new(name)?;
            if let Some(mut value) = xattr::get_of(source, &name)? {
                if name.to_bytes().starts_with(b"system.posix_acl_")
                    && let Some(owner) = self.options.owner
                {
                    move_access_list(&mut value, owner)?;
                }
                match xattr::set_of(target, &name, &value) {
                    // Labels and what only the machine's root may set are not worth failing for.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOTSUP)) => {}
                    result => result.with_context(|| format!("set the attribute {}", name.to_string_lossy()))?,
                }
            }
        }
        Ok(())
    }
}

/// The users and groups of a POSIX access list (`struct posix_acl_xattr_entry`: tag, permissions, id; version 2).
fn move_access_list(list: &mut [u8], owner: &dyn Fn(u32, u32) -> Result<(u32, u32)>) -> Result<()> {
    const USER: [u8; 2] = 2u16.to_le_bytes();
    const GROUP: [u8; 2] = 8u16.to_le_bytes();
    for entry in list.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let moved = match [entry[0], entry[1]] {
            USER => owner(id, 0)?.0,
            GROUP => owner(0, id)?.1,
            _ => continue,
        };
        entry[4..].copy_from_slice(&moved.to_le_bytes());
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Pair<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    name: &'a CStr,
}

/// A path for what an open directory has under a name, for calls that take none but paths. The name itself is not
/// followed by those who use it.
fn name_path(directory: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Ok(CString::new(path)?)
}

fn reopen(directory: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    // A descriptor of its own: reading one that is shared would move the other's position.
    tree::open_in_root(directory, b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

/// Copy data only where there is some.
fn copy_data(mut from: &File, mut to: &File, stat: &FileStat) -> Result<()> {
    let size = stat.st_size;
    if stat.st_blocks * 512 >= size {
        std::io::copy(&mut from, &mut to)?;
        return Ok(());
    }
    let mut position = 0;
    while position < size {
        let start = match nix::unistd::lseek(from, position, nix::unistd::Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = nix::unistd::lseek(from, start, nix::unistd::Whence::SeekHole)?;
        from.seek(SeekFrom::Start(start as u64))?;
        to.seek(SeekFrom::Start(start as u64))?;
        std::io::copy(&mut std::io::Read::take(from, (end - start) as u64), &mut to)?;
        position = end;
    }
    to.set_len(size as u64)?;
    Ok(())
}
