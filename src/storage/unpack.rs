//! From a tar stream to files under a directory descriptor.
//!
//! The archive is hostile. Invariants: every name is cleaned to a path without `..`; its parent is opened with the
//! directory as `/` (openat2 RESOLVE_IN_ROOT), the last part is never followed; nothing is written before the room for it
//! is known to be within the limits.

use crate::failure::{Explain, Failure, Kind as FailureKind};
use crate::host::userns::Privilege;
use crate::storage::split::Split;
use crate::storage::tar::read::{NoRaw, Raw, Reader};
use crate::storage::tar::{Entry, Kind};
use crate::storage::{remove, tree};
use crate::sys::xattr;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Prefix of names that say what is gone from the layers below.
const WHITEOUT: &[u8] = b".wh.";
/// All that the layers below have in this directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What files made in a directory get as permissions, in the place of the umask.
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// Directory descriptors kept open.
const OPEN_MAX: usize = 256;
/// Most entries of an archive.
const ENTRIES_MAX: u64 = 10_000_000;
/// Bytes of directory names whose times are set at the end.
const TIMES_MAX_BYTES: usize = 16 << 20;

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

struct Directory {
    fd: OwnedFd,
    /// What is made inside gets its group.
    setgid: bool,
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

    fn set_times(&mut self) -> Result<()> {
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
    fn directory(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
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

    fn remember(&mut self, path: &[u8], fd: OwnedFd, mode: u32) -> Result<Rc<Directory>> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let directory = Rc::new(Directory { fd, setgid: mode & 0o2000 != 0 });
        self.open.insert(path.to_vec(), Rc::clone(&directory));
        Ok(directory)
    }

    /// Directories the archive does not name itself: root's, 0755.
    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd> {
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

    fn make_directory(&mut self, entry: &Entry, path: &[u8], parent: &Directory, name: &CString) -> Result<()> {
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

    fn directory_attributes(&mut self, entry: &Entry, path: &[u8], fd: &OwnedFd) -> Result<()> {
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

    fn whiteout(&mut self, directory: &Directory, name: &[u8]) -> Result<()> {
        if name == OPAQUE {
            return self.make_opaque(directory.fd.as_fd());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.starts_with(WHITEOUT) {
            // aufs kept its own books under such names; they mean nothing to others.
            return Ok(());
        }
        ensure!(!matches!(hidden, b"" | b"." | b".."), "a whiteout of nothing");
        let hidden = CString::new(hidden)?;
        match nix::sys::stat::mknodat(&directory.fd, hidden.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => {
                // Same layer: the whiteout means what is below. A file hides that anyway, a directory must be opaque.
                let stat = nix::sys::stat::fstatat(&directory.fd, hidden.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if kind_of(&stat) != SFlag::S_IFDIR {
                    return Ok(());
                }
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let below = nix::fcntl::openat(&directory.fd, hidden.as_c_str(), flags, Mode::empty())?;
                self.make_opaque(below.as_fd())
            }
            // An overlay gives its whiteouts to nobody; what lies on one is marked by attributes (Linux 6.7).
            Err(Errno::EPERM) => self.mark_whiteout(directory, &hidden).context("make a whiteout"),
            Err(error) => Err(error).context("make a whiteout"),
        }
    }

    /// The other form of a whiteout: an empty file with an attribute, in a directory with another.
    fn mark_whiteout(&self, directory: &Directory, hidden: &CString) -> Result<()> {
        let prefix = if self.options.user_attributes { "user.overlay." } else { "trusted.overlay." };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&directory.fd, hidden.as_c_str(), flags, Mode::empty())?;
        xattr::set(file.as_fd(), &CString::new(format!("{prefix}whiteout"))?, b"y")?;
        let opaque = CString::new(format!("{prefix}opaque"))?;
        // A directory that hides all below it stays so.
        if xattr::get_of(xattr::Of::Fd(directory.fd.as_fd()), &opaque)?.as_deref() != Some(b"y") {
            xattr::set(directory.fd.as_fd(), &opaque, b"x")?;
        }
        Ok(())
    }

    fn make_opaque(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let name = if self.options.user_attributes { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" };
        xattr::set(directory, name, b"y").context("mark a directory as opaque")
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

    fn plain_attributes(&mut self, entry: &Entry, directory: &Directory, name: &CString, mode: bool) -> Result<()> {
        let fd = directory.fd.as_fd();
        self.owner(entry, |uid, gid| {
            nix::unistd::fchownat(fd, name.as_c_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        })?;
        if mode {
            // We made it a moment ago and it is no link.
            let bits = Mode::from_bits_truncate(entry.mode);
            nix::sys::stat::fchmodat(fd, name.as_c_str(), bits, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        }
        if !entry.xattrs.is_empty() {
            let mut path = format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes();
            path.extend_from_slice(name.as_bytes());
            let path = CString::new(path)?;
            self.attributes(entry, |name, value| xattr::set_path(&path, name, value))?;
        }
        let time = time_of(entry);
        nix::sys::stat::utimensat(fd, name.as_c_str(), &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    fn owner(&self, entry: &Entry, change: impl Fn(Uid, Gid) -> nix::Result<()>) -> Result<()> {
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        match change(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Err(_) if self.options.lenient_owners => Ok(()),
            Err(Errno::EINVAL) => Err(anyhow::Error::from(Failure::new(
                FailureKind::Engine,
                format!("owner {uid}:{gid} is not mapped in this user namespace"),
            )))
            .hint("give this user more subordinate ids in /etc/subuid and /etc/subgid"),
            result => result.context("set the owner"),
        }
    }

    fn attributes(&self, entry: &Entry, set: impl Fn(&CStr, &[u8]) -> std::io::Result<()>) -> Result<()> {
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
            let shown = || format!("set the attribute {}", String::from_utf8_lossy(name));
            match set(&CString::new(name.as_slice())?, value) {
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSUP)) => {}
                // A user namespace may not give what the machine's root may.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.options.user_attributes => {}
                Err(error) => return Err(error).with_context(shown),
            }
        }
        Ok(())
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

/// Attributes an image may set. overlayfs's own would let it point outside; labels are the host's business.
pub fn is_wanted(name: &[u8]) -> bool {
    let user =
        name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.starts_with(b"user.containers.");
    user || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
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

/// What a file made under `root` may not get of the mode it is made with: the umask, or anything where directories have
/// lists of their own.
fn withheld(root: BorrowedFd<'_>) -> u32 {
    if !matches!(xattr::get_of(xattr::Of::Fd(root), DEFAULT_ACL), Ok(None)) {
        return 0o777;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o777)
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether this is overlayfs's mark of something that is gone.
pub fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn time_of(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime_s, i64::from(entry.mtime_ns))
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
