//! From a tar stream to files under a directory descriptor.
//!
//! The archive is hostile. Invariants: every name is cleaned to a path without `..`; its parent is opened with the
//! directory as `/` (openat2 RESOLVE_IN_ROOT), the last part is never followed; nothing is written before the room for it
//! is known to be within the limits.

mod attribute;
mod directory;
mod whiteout;

pub use attribute::is_wanted;
pub use whiteout::is_whiteout;

use crate::failure::{Failure, Kind as FailureKind};
use crate::host::userns::Privilege;
use crate::storage::split::Split;
use crate::storage::tar::read::{NoRaw, Raw, Reader};
use crate::storage::tar::{Entry, Kind};
use crate::storage::{remove, tree};
use crate::sys::xattr;
use anyhow::{Context, Result, bail, ensure};
use attribute::{time_of, withheld};
use directory::Directory;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::time::TimeSpec;
use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use whiteout::WHITEOUT;

/// Most entries of an archive.
const ENTRIES_MAX: u64 = 10_000_000;

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Layers: `.wh.` names become overlayfs's whiteouts. Else they are names like any other.
    pub whiteouts: bool,
    /// overlayfs's own attributes are called `user.overlay.*` (mounted in a user namespace).
    pub user_attributes: bool,
    /// Owners that cannot be given are passed over (only one id is mapped).
    pub lenient_owners: bool,
    /// Device nodes are passed over (only the machine's root may make them).
    pub skip_devices: bool,
    /// Everything belongs to this user and group; absent: to whom the archive says.
    pub owner: Option<(u32, u32)>,
    /// Something that is not a directory may take a directory's place and the other way round.
    pub replace: bool,
    /// Most bytes of file contents.
    pub limit_bytes: u64,
}

impl Options {
    /// Those of a layer, with what the file system of `directory` has left as limit.
    pub fn layer(privilege: &Privilege, directory: BorrowedFd<'_>) -> Result<Options> {
        Ok(Options {
            whiteouts: true,
            user_attributes: privilege.rootless,
            lenient_owners: privilege.single,
            skip_devices: privilege.rootless,
            owner: None,
            replace: true,
            limit_bytes: free_bytes(directory)?,
        })
    }
}

/// What an ordinary writer may still put on this file system.
pub fn free_bytes(directory: BorrowedFd<'_>) -> Result<u64> {
    let stat = nix::sys::statvfs::fstatvfs(directory).context("ask for free space")?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file contents.
    pub size: u64,
    /// Entries.
    pub entries: u64,
    /// Some file came twice: the archive cannot be made again from what is on disk.
    pub replaced: bool,
}

/// The entry it happened at; the context of what went wrong there.
#[derive(Debug)]
pub struct At(pub Vec<u8>);

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unpack {}", String::from_utf8_lossy(&self.0))
    }
}

/// Something of another kind is in an entry's place, and may not go.
#[derive(Debug)]
pub struct InTheWay {
    /// A directory; else something that is none.
    pub directory: bool,
}

impl fmt::Display for InTheWay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.directory { "a directory" } else { "something that is no directory" };
        write!(formatter, "{what} is in its place: file exists")
    }
}

impl std::error::Error for InTheWay {}

/// Takes note of each file's content.
pub trait Record: Raw {
    /// The content of this file was written.
    fn file(&mut self, path: &[u8], size: u64, crc: u32) -> std::io::Result<()>;
    /// Whether checksums are wanted.
    const CHECKSUMS: bool;
}

impl Record for Split {
    fn file(&mut self, path: &[u8], size: u64, crc: u32) -> std::io::Result<()> {
        Split::file(self, path, size, crc)
    }
    const CHECKSUMS: bool = true;
}

impl Record for NoRaw {
    fn file(&mut self, _path: &[u8], _size: u64, _crc: u32) -> std::io::Result<()> {
        Ok(())
    }
    const CHECKSUMS: bool = false;
}

/// Unpack a whole archive under `root`.
pub fn unpack<R: BufRead, S: Record>(
    archive: &mut Reader<R, S>,
    root: BorrowedFd<'_>,
    options: Options,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker::new(root, options);
    while let Some(entry) = archive.next()? {
        let path = clean(&entry.path)?;
        unpacker.put(&entry, &path, archive).with_context(|| At(path.clone()))?;
    }
    unpacker.finish()
}

/// A name as a path inside the root: no leading `/`, no `.`, no `..`, no doubled `/`. Empty: the root itself.
///
/// # Errors
/// A name that leads out.
pub fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    bail!("{}: the name leads out of the archive", String::from_utf8_lossy(name));
                }
            }
            part => {
                ensure!(part.len() <= 255, "a name of {} bytes", part.len());
                ensure!(!part.contains(&0), "a name with a zero byte");
                parts.push(part);
            }
        }
    }
    Ok(parts.join(&b'/'))
}

/// Writes entries one after the other.
pub struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    options: Options,
    open: HashMap<Vec<u8>, Rc<Directory>>,
    /// Modification times of directories: each entry made inside would change them.
    times: Vec<(Vec<u8>, TimeSpec)>,
    times_bytes: usize,
    /// Permissions a new file may lack though it was made with them.
    withheld: u32,
    done: Unpacked,
}

impl<'a> Unpacker<'a> {
    /// Unpack under this directory.
    pub fn new(root: BorrowedFd<'a>, options: Options) -> Unpacker<'a> {
        let done = Unpacked::default();
        // Elsewhere there may be directories with lists already.
        let withheld = if options.whiteouts { withheld(root) } else { 0o777 };
        Unpacker { root, options, open: HashMap::new(), times: Vec::new(), times_bytes: 0, withheld, done }
    }

    /// Write one entry at this cleaned path, its content from the archive.
    pub fn put<R: BufRead, S: Record>(&mut self, entry: &Entry, path: &[u8], archive: &mut Reader<R, S>) -> Result<()> {
        self.done.entries += 1;
        ensure!(self.done.entries <= ENTRIES_MAX, "the archive has more than {ENTRIES_MAX} entries");
        if path.is_empty() {
            ensure!(entry.kind == Kind::Directory, "the root of the archive is no directory");
            let root = self.root.try_clone_to_owned()?;
            return self.directory_attributes(entry, path, &root);
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let directory = self.directory(parent)?;
        if self.options.whiteouts && name.starts_with(WHITEOUT) {
            return self.whiteout(&directory, name);
        }
        let name = CString::new(name)?;
        match entry.kind {
            Kind::Directory => self.make_directory(entry, path, &directory, &name),
            Kind::File => self.file(entry, path, Place { directory: &directory, name: &name }, archive),
            Kind::Link => self.link(entry, path, &directory, &name),
            Kind::Symlink => {
                let target = CString::new(entry.link.as_slice())?;
                ensure!(!entry.link.is_empty(), "a symbolic link to nothing");
                self.make(&directory, &name, |fd| nix::unistd::symlinkat(target.as_c_str(), fd, name.as_c_str()))?;
                self.plain_attributes(entry, &directory, &name, false)
            }
            Kind::Char | Kind::Block | Kind::Fifo => self.special(entry, &directory, &name),
        }
    }

    /// Set what can only be set when all is there.
    pub fn finish(mut self) -> Result<Unpacked> {
        self.set_times()?;
        Ok(self.done)
    }

    fn file<R: BufRead, S: Record>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        place: Place<'_>,
        archive: &mut Reader<R, S>,
    ) -> Result<()> {
        self.reserve(entry.stored)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = self.make(place.directory, place.name, |directory| {
            nix::fcntl::openat(directory, place.name.as_c_str(), flags, Mode::from_bits_truncate(entry.mode & 0o777))
        })?;
        let mut file = File::from(fd);
        match &entry.sparse {
            None => {
                let crc = copy_content(archive, &mut file, entry.stored)?;
                archive.sink.file(path, entry.stored, crc)?;
            }
            Some(map) => {
                for (offset, length) in map {
                    file.seek(SeekFrom::Start(*offset))?;
                    copy_content(archive, &mut file, *length)?;
                }
                file.set_len(entry.size)?;
            }
        }
        if place.directory.setgid || self.options.owner.unwrap_or((entry.uid, entry.gid)) != (0, 0) {
            self.owner(entry, |uid, gid| nix::unistd::fchown(&file, Some(uid), Some(gid)))?;
        }
        if entry.mode & (0o7000 | self.withheld) != 0 {
            // After the owner: changing that takes setuid away.
            nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(entry.mode))?;
        }
        self.attributes(entry, |name, value| xattr::set(file.as_fd(), name, value))?;
        let time = time_of(entry);
        nix::sys::stat::futimens(&file, &time, &time)?;
        Ok(())
    }

    fn link(&mut self, entry: &Entry, path: &[u8], directory: &Directory, name: &CString) -> Result<()> {
        let target = clean(&entry.link).context("hard link")?;
        if target == path {
            return Ok(());
        }
        let (parent, target_name) = match target.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&target[..0], target.as_slice()),
        };
        let shown = || format!("hard link to {}", String::from_utf8_lossy(&target));
        ensure!(!self.options.whiteouts || !target_name.starts_with(WHITEOUT), "{}: a whiteout", shown());
        let target_name = CString::new(target_name)?;
        let parent = tree::open_in_root(self.root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY).with_context(shown)?;
        let stat = nix::sys::stat::fstatat(&parent, target_name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .with_context(shown)?;
        ensure!(!is_whiteout(&stat), "{}: a whiteout", shown());
        self.make(directory, name, |fd| {
            nix::unistd::linkat(&parent, target_name.as_c_str(), fd, name.as_c_str(), AtFlags::empty())
        })
        .with_context(shown)
    }

    fn special(&mut self, entry: &Entry, directory: &Directory, name: &CString) -> Result<()> {
        let kind = match entry.kind {
            Kind::Char => SFlag::S_IFCHR,
            Kind::Block => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        if entry.kind != Kind::Fifo {
            // overlayfs would take it for a whiteout that no archive may write this way.
            ensure!(entry.device != (0, 0) || entry.kind == Kind::Block, "a character device 0:0");
            if self.options.skip_devices {
                return Ok(());
            }
        }
        let device = nix::sys::stat::makedev(u64::from(entry.device.0), u64::from(entry.device.1));
        let made = self.make(directory, name, |fd| {
            nix::sys::stat::mknodat(fd, name.as_c_str(), kind, Mode::from_bits_truncate(0o600), device)
        });
        match made {
            // Root without CAP_MKNOD, as in another container: devices of images are not used anyway.
            Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::EPERM) => return Ok(()),
            made => made?,
        }
        self.plain_attributes(entry, directory, name, true)
    }

    /// Make something that must be new, in the place of whatever is there.
    fn make<T>(
        &mut self,
        directory: &Directory,
        name: &CString,
        make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> Result<T> {
        match make(directory.fd.as_fd()) {
            Err(Errno::EEXIST) => {}
            result => return Ok(result?),
        }
        let stat = nix::sys::stat::fstatat(&directory.fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let is_directory = kind_of(&stat) == SFlag::S_IFDIR;
        ensure!(!is_directory || self.options.replace, InTheWay { directory: true });
        self.done.replaced |= !is_whiteout(&stat);
        remove::entry(directory.fd.as_fd(), name)?;
        if is_directory {
            self.open.clear();
        }
        Ok(make(directory.fd.as_fd())?)
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.done.size = self.done.size.saturating_add(bytes);
        if self.done.size > self.options.limit_bytes {
            return Err(Failure::new(
                FailureKind::Engine,
                format!(
                    "no space left: at least {} bytes more than the {} there are",
                    self.done.size - self.options.limit_bytes,
                    self.options.limit_bytes
                ),
            )
            .hint("free space, for example with `coracle system prune`")
            .into());
        }
        Ok(())
    }
}

struct Place<'a> {
    directory: &'a Directory,
    name: &'a CString,
}

fn copy_content<R: BufRead, S: Record>(archive: &mut Reader<R, S>, file: &mut File, length: u64) -> Result<u32> {
    let mut crc = flate2::Crc::new();
    let mut left = length;
    while left > 0 {
        let content = archive.content()?;
        let count = content.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        ensure!(count > 0, "a sparse file with a wrong map");
        file.write_all(&content[..count])?;
        if S::CHECKSUMS {
            crc.update(&content[..count]);
        }
        archive.consume(count)?;
        left -= count as u64;
    }
    Ok(crc.sum())
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, path) in [
            ("./", ""),
            ("", ""),
            ("/", ""),
            ("a", "a"),
            ("./a/", "a"),
            ("/etc//passwd", "etc/passwd"),
            ("a/../b", "b"),
            ("a/./b", "a/b"),
            ("a/b/../../c", "c"),
            ("..a", "..a"),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap(), path.as_bytes(), "{name}");
        }
        for name in ["..", "../a", "a/../../b", "/..", "a/../.."] {
            assert!(clean(name.as_bytes()).is_err(), "{name}");
        }
        assert!(clean(&[b'a'; 256]).is_err());
    }
}
