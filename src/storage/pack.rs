//! From files under a directory descriptor to a tar stream: layers of `commit`, `export`, `cp`, volumes.
//!
//! Names come out sorted, so the same tree gives the same archive. Nothing is followed; files are opened one by one and
//! never as devices or pipes.

use crate::model::user::{IdMaps, IdRange};
use crate::storage::tar::write::Writer;
use crate::storage::tar::{Entry, Kind};
use crate::storage::{tree, unpack};
use crate::sys::xattr::{self, Of};
use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// How to pack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The tree is the upper directory of an overlay: whiteouts and opaque directories become `.wh.` names.
    pub whiteouts: bool,
    /// Owners are turned back by these maps, from outside to inside.
    pub maps: Option<&'a IdMaps>,
    /// Paths (without a leading slash) that are left out, with all below them.
    pub exclude: &'a [Vec<u8>],
}

/// Write all that is under `root`, with an entry for the root itself, and the end of the archive.
pub fn tree(root: BorrowedFd<'_>, target: &mut dyn Write, options: Options<'_>) -> Result<()> {
    let writer = Writer::new(BufWriter::with_capacity(256 << 10, target));
    let mut packer = Packer::new(writer, options);
    let stat = nix::sys::stat::fstat(root)?;
    packer.directory_entry(root, &stat, b"./")?;
    packer.content(root, b"")?;
    packer.finish()?.flush()?;
    Ok(())
}

/// Writes files to an archive, one tree after the other.
pub struct Packer<'a, W: Write> {
    writer: Writer<W>,
    options: Options<'a>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a, W: Write> Packer<'a, W> {
    /// Write to this archive.
    pub fn new(writer: Writer<W>, options: Options<'a>) -> Packer<'a, W> {
        Packer { writer, options, links: HashMap::new() }
    }

    /// The end of the archive.
    pub fn finish(self) -> Result<W> {
        Ok(self.writer.finish()?)
    }

    /// Write what `directory` has as `name`, with all below it, as `path`.
    pub fn add(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<()> {
        if self.options.exclude.iter().any(|excluded| excluded == path) {
            return Ok(());
        }
        let stat = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone while we looked: a container may be running.
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error).with_context(|| shown(path)),
        };
        self.entry(directory, name, path, &stat).with_context(|| shown(path))
    }

    /// Write an entry for an open directory as `path`, without what is in it.
    pub fn add_directory(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let stat = nix::sys::stat::fstat(directory)?;
        self.directory_entry(directory, &stat, &[path, b"/"].concat())
    }

    /// Write all that an open directory holds, below `path` (empty, or ending in no slash).
    pub fn content(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let fd = tree::open_in_root(directory, b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut stream = Dir::from_fd(fd)?;
        let mut names: Vec<CString> = Vec::new();
        for entry in stream.iter() {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        for name in names {
            let below = if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() };
            self.add(directory, &name, &below)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &FileStat) -> Result<()> {
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if self.options.whiteouts && unpack::is_whiteout(stat) {
            let (parent, last) = split(path);
            let path = [parent, b".wh.", last].concat();
            return Ok(self.writer.file(&Entry { path, mode: 0o600, ..Entry::default() }, b"")?);
        }
        if kind != SFlag::S_IFDIR && stat.st_nlink > 1 && kind != SFlag::S_IFSOCK {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let entry = Entry { kind: Kind::Link, link: first.clone(), ..self.header(path, stat) };
                return Ok(self.writer.entry(&Entry { stored: 0, ..entry })?);
            }
            self.links.insert(inode, path.to_vec());
        }
        let other = |kind| Entry { kind, ..self.header(path, stat) };
        match kind {
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let below = match nix::fcntl::openat(directory, name, flags, Mode::empty()) {
                    Ok(below) => below,
                    Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                self.directory_entry(below.as_fd(), stat, &[path, b"/"].concat())?;
                self.content(below.as_fd(), path)
            }
            SFlag::S_IFREG => self.file(directory, name, path),
            SFlag::S_IFLNK => {
                let link = nix::fcntl::readlinkat(directory, name)?;
                let link = std::os::unix::ffi::OsStringExt::into_vec(link);
                let xattrs = attributes(Of::Path(&name_path(directory, name)?))?;
                Ok(self.writer.entry(&Entry { link, xattrs, ..other(Kind::Symlink) })?)
            }
            SFlag::S_IFIFO => Ok(self.writer.entry(&other(Kind::Fifo))?),
            SFlag::S_IFCHR | SFlag::S_IFBLK => {
                let device = (nix::sys::stat::major(stat.st_rdev) as u32, nix::sys::stat::minor(stat.st_rdev) as u32);
                let kind = if kind == SFlag::S_IFCHR { Kind::Char } else { Kind::Block };
                Ok(self.writer.entry(&Entry { device, ..other(kind) })?)
            }
            // A socket is nothing without who listens.
            _ => Ok(()),
        }
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match nix::fcntl::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => self.add_file(File::from(file), path),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Write an open file as `path`; what is no regular file is passed over.
    pub fn add_file(&mut self, mut file: File, path: &[u8]) -> Result<()> {
        // Of what was opened, not of what was there a moment ago.
        let stat = nix::sys::stat::fstat(&file)?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Ok(());
        }
        let size = stat.st_size as u64;
        let xattrs = attributes(Of::Fd(file.as_fd()))?;
        self.writer.entry(&Entry { xattrs, size, stored: size, ..self.header(path, &stat) })?;
        let mut left = size;
        let mut buffer = vec![0; (size as usize).clamp(1, 256 << 10)];
        while left > 0 {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.writer.write_all(&buffer[..count])?;
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }

    /// A directory and, of an overlay, its mark that nothing below shows through.
    fn directory_entry(&mut self, directory: BorrowedFd<'_>, stat: &FileStat, path: &[u8]) -> Result<()> {
        let xattrs = attributes(Of::Fd(directory))?;
        self.writer.entry(&Entry { kind: Kind::Directory, xattrs, ..self.header(path, stat) })?;
        if self.options.whiteouts && is_opaque(directory)? {
            let path = [path.strip_prefix(b"./").unwrap_or(path), b".wh..wh..opq"].concat();
            self.writer.file(&Entry { path, mode: 0o600, ..Entry::default() }, b"")?;
        }
        Ok(())
    }

    fn header(&self, path: &[u8], stat: &FileStat) -> Entry {
        let (uid, gid) = match self.options.maps {
            Some(maps) => (inside(&maps.uid, stat.st_uid), inside(&maps.gid, stat.st_gid)),
            None => (stat.st_uid, stat.st_gid),
        };
        Entry {
            path: path.to_vec(),
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime_s: stat.st_mtime,
            mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ..Entry::default()
        }
    }
}

fn shown(path: &[u8]) -> String {
    format!("read {}", String::from_utf8_lossy(path))
}

/// What is before the last part, with its slash, and the last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (b"", path),
    }
}

/// An id as the container numbers it; one that is not mapped stays.
fn inside(map: &[IdRange], id: u32) -> u32 {
    let range = map.iter().find(|range| id >= range.outside && id - range.outside < range.size);
    range.map_or(id, |range| range.inside + (id - range.outside))
}

/// Whether a directory of an upper layer hides what is below it.
pub fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool> {
    for name in [c"trusted.overlay.opaque", c"user.overlay.opaque"] {
        // EPERM: trusted attributes are not shown to us; then overlayfs has not used them either.
        if xattr::get_of(Of::Fd(directory), name).ok().flatten().as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn attributes(of: Of<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list_of(of)? {
        if unpack::is_wanted(&name)
            && let Some(value) = xattr::get_of(of, &CString::new(name.as_slice())?)?
        {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

fn name_path(directory: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Ok(CString::new(path)?)
}
