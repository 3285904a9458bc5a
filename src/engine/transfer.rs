//! `cp` and `export`: files between containers, the host and tar streams.
//!
//! Both sides are a root descriptor and a path below it, so that nothing inside a container can name a file outside, and
//! nothing that changes while we look leads out (CVE-2018-15664, CVE-2019-10152). No program and no library of the container
//! is run or loaded (CVE-2019-14271, CVE-2026-41567).

use crate::engine::rootfs::Root;
use crate::engine::{Engine, create, rootfs};
use crate::failure::{Failure, Kind};
use crate::image::archive;
use crate::model::user::outside;
use crate::state::container::ContainerRecord;
use crate::storage::tar::BLOCK;
use crate::storage::tar::read::{self, NoRaw, Reader};
use crate::storage::tar::write::Writer;
use crate::storage::unpack::{At, InTheWay};
use crate::storage::{compress, pack, tree, unpack};
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Most bytes of a passwd or group file.
const ACCOUNTS_MAX: u64 = 1 << 20;

/// Write a container's file system as a tar.
pub fn export(engine: &Engine, name: &str, target: &mut dyn Write) -> Result<()> {
    let record = ContainerRecord::load(&engine.layout, &create::find(engine, name)?)?;
    let root = rootfs::open_alone(engine, &record)?;
    let maps = Some(&record.id_maps).filter(|maps| !maps.uid.is_empty());
    let options = pack::Options { maps, ..pack::Options::default() };
    pack::tree(root.as_fd(), target, options).with_context(|| format!("export {name}"))
}

/// One end of `cp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A tar stream on standard input or output.
    Stream,
    /// A path here.
    Host(String),
    /// A path in a container.
    Container {
        /// Its name or id.
        name: String,
        /// The path.
        path: String,
    },
}

impl End {
    /// `-`, `PATH` or `CONTAINER:PATH`; what begins with `.` or `/` is a path here.
    pub fn parse(text: &str) -> End {
        if text == "-" {
            return End::Stream;
        }
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !text.starts_with(['.', '/']) => {
                End::Container { name: name.to_owned(), path: path.to_owned() }
            }
            _ => End::Host(text.to_owned()),
        }
    }
}

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// What is copied into a container belongs to its user; else to whom it belonged.
    pub archive: bool,
    /// A file may take a directory's place and the other way round.
    pub overwrite: bool,
}

/// A path below a root.
struct Place {
    root: Root,
    path: PathBuf,
    /// As it was typed, for messages and trailing slashes.
    typed: String,
    /// The container, and what it was called.
    container: Option<(ContainerRecord, String)>,
}

impl Place {
    fn open(engine: &Engine, end: &End) -> Result<Option<Place>> {
        match end {
            End::Stream => Ok(None),
            End::Host(path) => {
                let absolute = std::path::absolute(path).with_context(|| format!("find {path}"))?;
                let root = tree::open_directory(Path::new("/"))?.into();
                Ok(Some(Place { root, path: absolute, typed: path.clone(), container: None }))
            }
            End::Container { name, path } => {
                let record = ContainerRecord::load(&engine.layout, &create::find(engine, name)?)?;
                let base = record.spec.process.workdir.as_deref().unwrap_or("/");
                let absolute = normal(&Path::new("/").join(base).join(path));
                let (root, below) = rootfs::open_at(engine, &record, &absolute)?;
                Ok(Some(Place { root, path: below, typed: path.clone(), container: Some((record, name.clone())) }))
            }
        }
    }

    fn find(&self) -> nix::Result<OwnedFd> {
        self.open_at(&self.path, OFlag::O_PATH)
    }

    /// A path on this side. One of the host is the caller's own, with all its links (/dev/stdin is a magic one).
    fn open_at(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        match self.container {
            Some(_) => tree::open_in_root(self.root.as_fd(), path.as_os_str().as_bytes(), flags),
            None => nix::fcntl::openat(&self.root, path, flags | OFlag::O_CLOEXEC, Mode::empty()),
        }
    }

    fn record(&self) -> Option<&ContainerRecord> {
        self.container.as_ref().map(|(record, _)| record)
    }

    /// podman's words for a path that is not there.
    fn missing(&self) -> anyhow::Error {
        let text = match &self.container {
            Some((_, name)) => {
                format!("{} could not be found on container {name}: no such file or directory", self.shown())
            }
            None => format!("{} could not be found on the host: no such file or directory", self.shown()),
        };
        Failure::new(Kind::Engine, text).into()
    }

    /// Where something that is not there yet is to be made: a link that leads nowhere says where.
    fn parent(&self) -> Result<(OwnedFd, Vec<u8>)> {
        /// As many links as the kernel follows.
        const LINKS_MAX: usize = 40;
        let mut path = self.path.clone();
        for _ in 0..LINKS_MAX {
            let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let open = self.open_at(&directory, flags).map_err(|_| self.missing())?;
            let name = path.file_name().with_context(|| format!("{}: it has no name", self.shown()))?.to_owned();
            match nix::fcntl::readlinkat(&open, name.as_os_str()) {
                Ok(target) => path = directory.join(target),
                Err(_) => return Ok((open, name.as_bytes().to_vec())),
            }
        }
        Err(Errno::ELOOP).with_context(|| format!("{}: copy to", self.shown()))
    }

    /// Only what is in the directory, not the directory itself.
    fn content_only(&self) -> bool {
        matches!(self.typed.as_str(), "." | "/") || self.typed.ends_with("/.") || self.path == Path::new("/")
    }

    fn wants_directory(&self) -> bool {
        self.typed.ends_with('/') || self.content_only()
    }

    fn name(&self) -> Vec<u8> {
        self.path.file_name().map_or_else(|| b".".to_vec(), |name| name.as_bytes().to_vec())
    }

    fn shown(&self) -> String {
        format!("{:?}", self.typed)
    }
}

/// `..` and `.` taken away, in a path that begins with a slash.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

/// What is copied.
enum What {
    /// A regular file.
    File(File),
    /// A directory.
    Directory(OwnedFd),
}

/// Copy from one end to the other.
pub fn copy(engine: &Engine, source: &End, target: &End, wish: Wish) -> Result<()> {
    if !matches!((source, target), (End::Container { .. }, _) | (_, End::Container { .. })) {
        return Err(Failure::new(
            Kind::Engine,
            "invalid arguments: one of the two paths must be in a container: CONTAINER:PATH",
        )
        .into());
    }
    let from = Place::open(engine, source)?;
    let to = Place::open(engine, target)?;
    match (from, to) {
        (None, Some(to)) => receive(engine, &to, wish),
        (Some(from), None) => send(&from),
        (Some(from), Some(to)) => between(engine, &from, &to, wish),
        (None, None) => bail!("invalid arguments: both ends are streams"),
    }
}

/// Open what is to be copied. Its last part may be a link: then it is what the link means.
fn open_source(from: &Place) -> Result<What> {
    let context = || format!("{}: copy from", from.shown());
    let found = match from.find() {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(from.missing()),
        found => found.with_context(context)?,
    };
    let stat = nix::sys::stat::fstat(&found)?;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            Ok(What::Directory(tree::open_in_root(found.as_fd(), b".", flags).with_context(context)?))
        }
        SFlag::S_IFREG => {
            ensure!(!from.wants_directory(), "{} is not a directory", from.shown());
            let file = from.open_at(&from.path, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
            let file = File::from(file.with_context(context)?);
            ensure!(file.metadata()?.is_file(), "{} is no regular file", from.shown());
            Ok(What::File(file))
        }
        _ => bail!("{} is neither a file nor a directory", from.shown()),
    }
}

/// To standard output, as a tar.
fn send(from: &Place) -> Result<()> {
    let what = open_source(from)?;
    let mut stdout = std::io::stdout().lock();
    let name = if from.content_only() { Vec::new() } else { from.name() };
    pack_as(what, &name, from.record(), &mut stdout)?;
    Ok(stdout.flush()?)
}

/// From standard input, as a tar, into a directory.
fn receive(engine: &Engine, to: &Place, wish: Wish) -> Result<()> {
    let directory = match to.find() {
        Ok(found) => tree::open_in_root(found.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY),
        Err(error) => Err(error),
    };
    let directory =
        directory.map_err(|_| Failure::new(Kind::Engine, "destination must be a directory when copying from stdin"))?;
    let (_, mut plain) = compress::decompress(std::io::stdin())?;
    let mut start = Vec::new();
    let read = plain.by_ref().take(BLOCK as u64).read_to_end(&mut start);
    if read.is_err() || !read::is_archive(&start) {
        let text = "source must be a (compressed) tar archive when copying from stdin";
        return Err(Failure::new(Kind::Engine, text).into());
    }
    unpack_into(Cursor::new(start).chain(plain), directory.as_fd(), options(engine, to, directory.as_fd(), wish)?)
        .map_err(|error| in_the_way(error, to, to.path.clone()))
}

/// In podman's words, with the path as the container has it; on the host it is told from the directory on.
fn in_the_way(error: anyhow::Error, to: &Place, directory: PathBuf) -> anyhow::Error {
    let (Some(obstacle), Some(At(path))) = (error.downcast_ref::<InTheWay>(), error.downcast_ref::<At>()) else {
        return error;
    };
    let directory = if to.container.is_some() { directory } else { PathBuf::from("/") };
    let path = directory.join(std::ffi::OsStr::from_bytes(path));
    Failure::new(Kind::Engine, format!("copy to {}: error creating {path:?}: {obstacle}", to.shown()))
        .hint("--overwrite takes away what is there")
        .into()
}

fn between(engine: &Engine, from: &Place, to: &Place, wish: Wish) -> Result<()> {
    let what = open_source(from)?;
    let is_file = matches!(what, What::File(_));
    let above = || to.path.parent().unwrap_or(Path::new("/")).to_owned();
    let ((directory, name), base) = match to.find() {
        Ok(found) => {
            let stat = nix::sys::stat::fstat(&found)?;
            let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
            if kind == SFlag::S_IFDIR {
                let name = if !is_file && from.content_only() { Vec::new() } else { from.name() };
                let open = tree::open_in_root(found.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                ((open, name), to.path.clone())
            } else if kind != SFlag::S_IFREG {
                bail!("invalid destination: {} must be a directory or a regular file", to.shown());
            } else if let What::File(file) = what {
                ensure!(!to.wants_directory(), "{} is not a directory", to.shown());
                return overwrite(engine, file, to, wish);
            } else {
                ensure!(wish.overwrite, "destination must be a directory when copying a directory");
                (to.parent()?, above())
            }
        }
        Err(Errno::ENOENT) => {
            if is_file && to.typed.ends_with('/') {
                return Err(to.missing());
            }
            (to.parent()?, above())
        }
        Err(error) => return Err(error).with_context(|| format!("{}: copy to", to.shown())),
    };
    let options = options(engine, to, directory.as_fd(), wish)?;
    let (reader, mut writer) = std::io::pipe()?;
    let record = from.record();
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || pack_as(what, &name, record, &mut writer));
        let unpacked = unpack_into(reader, directory.as_fd(), options);
        let packed = packing.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
        match (packed, unpacked) {
            (Err(packed), Err(unpacked)) if archive::is_broken_pipe(&packed) => Err(unpacked),
            (packed, unpacked) => packed.and(unpacked),
        }
    })
    .map_err(|error| in_the_way(error, to, base))
}

/// Content and mode of a file that is there.
fn overwrite(engine: &Engine, mut source: File, to: &Place, wish: Wish) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
    let target = to.open_at(&to.path, flags);
    let mut target = File::from(target.with_context(|| format!("write {}", to.shown()))?);
    std::io::copy(&mut source, &mut target).with_context(|| format!("write {}", to.shown()))?;
    let mode = std::os::unix::fs::MetadataExt::mode(&source.metadata()?) & 0o7777;
    if let Some((uid, gid)) = owner(to, wish)? {
        match nix::unistd::fchown(&target, Some(uid.into()), Some(gid.into())) {
            Err(_) if engine.privilege.single => {}
            result => result.with_context(|| format!("set the owner of {}", to.shown()))?,
        }
    }
    nix::sys::stat::fchmod(&target, Mode::from_bits_truncate(mode))?;
    Ok(())
}

fn pack_as(what: What, name: &[u8], record: Option<&ContainerRecord>, target: &mut dyn Write) -> Result<()> {
    let maps = record.map(|record| &record.id_maps).filter(|maps| !maps.uid.is_empty());
    let writer = Writer::new(BufWriter::with_capacity(256 << 10, target));
    let mut packer = pack::Packer::new(writer, pack::Options { maps, ..pack::Options::default() });
    match what {
        What::File(file) => packer.add_file(file, name)?,
        What::Directory(directory) => {
            if !name.is_empty() {
                packer.add_directory(directory.as_fd(), name)?;
            }
            packer.content(directory.as_fd(), name)?;
        }
    }
    packer.finish()?.flush()?;
    Ok(())
}

fn unpack_into(source: impl Read, directory: BorrowedFd<'_>, options: unpack::Options) -> Result<()> {
    let mut reader = Reader::new(BufReader::with_capacity(256 << 10, source), NoRaw);
    unpack::unpack(&mut reader, directory, options)?;
    Ok(())
}

fn options(engine: &Engine, to: &Place, directory: BorrowedFd<'_>, wish: Wish) -> Result<unpack::Options> {
    Ok(unpack::Options {
        whiteouts: false,
        skip_devices: true,
        replace: wish.overwrite,
        owner: owner(to, wish)?,
        ..unpack::Options::layer(&engine.privilege, directory)?
    })
}

/// To whom copied files belong: on the host to the caller, in a container to its user.
fn owner(to: &Place, wish: Wish) -> Result<Option<(u32, u32)>> {
    let Some(record) = to.record() else { return Ok(Some((0, 0))) };
    if !wish.archive {
        return Ok(None);
    }
    let read = |path: &[u8]| -> String {
        let file = tree::open_in_root(to.root.as_fd(), path, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        let Ok(file) = file.map(File::from) else { return String::new() };
        let mut text = String::new();
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            let _ = file.take(ACCOUNTS_MAX).read_to_string(&mut text);
        }
        text
    };
    let (passwd, group) = (read(b"etc/passwd"), read(b"etc/group"));
    let user = crate::bundle::user::resolve(record.spec.process.user.as_ref(), &[], &passwd, &group)?;
    let maps = &record.id_maps;
    let owner = outside(&maps.uid, user.uid).zip(outside(&maps.gid, user.gid));
    owner.map(Some).with_context(|| format!("user {}:{} is not in the container's id maps", user.uid, user.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let container = |name: &str, path: &str| End::Container { name: name.to_owned(), path: path.to_owned() };
        for (text, expected) in [
            ("-", End::Stream),
            ("c:/x", container("c", "/x")),
            ("c:x:y", container("c", "x:y")),
            ("c:", container("c", "")),
            ("./c:x", End::Host("./c:x".to_owned())),
            ("/c:x", End::Host("/c:x".to_owned())),
            ("x", End::Host("x".to_owned())),
            (":x", End::Host(":x".to_owned())),
        ] {
            assert_eq!(End::parse(text), expected, "{text}");
        }
        assert_eq!(normal(Path::new("/a/../../b/./c/")), Path::new("/b/c"));
    }
}
