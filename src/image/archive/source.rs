//! Where `load` reads from: a tar archive whose members are found by an index, or a directory.

use crate::model::digest::Digest;
use crate::state::layout::Layout;
use crate::storage::compress::{self, Compression};
use crate::storage::layer::StagedFile;
use crate::storage::tar::Kind;
use crate::storage::tar::read::{NoRaw, Reader};
use crate::storage::{tree, unpack};
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Most members of an archive of images.
const MEMBERS_MAX: usize = 100_000;
/// Most links from one member to the next.
const LINKS_MAX: usize = 8;

/// An archive or directory.
pub enum Source {
    /// A plain tar file.
    Tar {
        /// The file.
        file: Arc<File>,
        /// What is in it.
        members: HashMap<Vec<u8>, Member>,
    },
    /// A directory.
    Directory(OwnedFd),
}

/// A member of a tar file.
pub enum Member {
    /// Content at this offset, so long.
    File(u64, u64),
    /// Another name of that member.
    Link(Vec<u8>),
}

/// A part of a file, read without moving the file's position.
#[derive(Clone)]
pub struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Section {
    /// How many bytes are left.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// How it is compressed.
    pub fn compression(&self) -> Result<Compression> {
        let mut start = [0u8; 6];
        let mut again = Section { file: Arc::clone(&self.file), offset: self.offset, left: self.left };
        let mut filled = 0;
        while filled < start.len() {
            match again.read(&mut start[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(Compression::detect(&start[..filled]))
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if count == 0 && wanted > 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the archive is cut off"));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Source {
    /// Open a path. What is compressed or cannot be sought in goes to a file in `tmp/` first.
    pub fn open(layout: &Layout, path: &Path) -> Result<Source> {
        let context = || format!("open {}", path.display());
        let file = File::open(path).with_context(context)?;
        if file.metadata().with_context(context)?.is_dir() {
            return Ok(Source::Directory(file.into()));
        }
        Source::from_file(layout, file).with_context(|| format!("read {}", path.display()))
    }

    /// Read an open file, a pipe for example.
    pub fn from_file(layout: &Layout, mut file: File) -> Result<Source> {
        let plain = if file.metadata()?.is_file() {
            let position = file.stream_position()?;
            let mut start = [0u8; 6];
            let count = file.read_at(&mut start, position)?;
            Compression::detect(&start[..count]) == Compression::None && position == 0
        } else {
            false
        };
        Source::from_plain(if plain { file } else { spool(layout, file)? })
    }

    /// Read a stream, a download for example, to its end.
    pub fn from_stream(layout: &Layout, stream: impl Read + Send) -> Result<Source> {
        Source::from_plain(spool(layout, stream)?)
    }

    fn from_plain(file: File) -> Result<Source> {
        let members = index(&file)?;
        Ok(Source::Tar { file: Arc::new(file), members })
    }

    /// A member's content; `None`: there is none of this name.
    pub fn member(&self, name: &str) -> Result<Option<Section>> {
        let mut path = unpack::clean(name.as_bytes())?;
        match self {
            Source::Tar { file, members } => {
                for _ in 0..LINKS_MAX {
                    match members.get(&path) {
                        None => return Ok(None),
                        Some(Member::File(offset, length)) => {
                            return Ok(Some(Section { file: Arc::clone(file), offset: *offset, left: *length }));
                        }
                        Some(Member::Link(target)) => path = target.clone(),
                    }
                }
                bail!("{name}: too many links")
            }
            Source::Directory(directory) => {
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let file = match tree::open_in_root(directory.as_fd(), &path, flags) {
                    Ok(file) => File::from(file),
                    Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(None),
                    Err(error) => return Err(error).with_context(|| format!("open {name}")),
                };
                let metadata = file.metadata()?;
                ensure!(metadata.is_file(), "{name} is no regular file");
                Ok(Some(Section { file: Arc::new(file), offset: 0, left: metadata.len() }))
            }
        }
    }

    /// A member that must be there.
    pub fn require(&self, name: &str) -> Result<Section> {
        self.member(name)?.with_context(|| format!("{name} is missing"))
    }

    /// A small member's bytes.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut section) = self.member(name)? else { return Ok(None) };
        ensure!(section.len() <= limit, "{name} has {} bytes, at most {limit} are taken", section.len());
        let mut content = Vec::with_capacity(section.len() as usize);
        section.read_to_end(&mut content).with_context(|| format!("read {name}"))?;
        Ok(Some(content))
    }

    /// A small blob of an OCI layout, with its digest checked.
    pub fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let name = blob_name(digest);
        let content = self.read(&name, limit)?.with_context(|| format!("{name} is missing"))?;
        let found = crate::image::store::digest_of(&content);
        ensure!(found == *digest, "{name}: its digest is {found}");
        Ok(content)
    }
}

/// Where an OCI layout has a blob.
pub fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Into a file without a name, decompressed.
fn spool(layout: &Layout, source: impl Read + Send) -> Result<File> {
    let staged = StagedFile::create(layout)?;
    let file = staged.file().try_clone()?;
    drop(staged);
    let limit = unpack::free_bytes(file.as_fd())?;
    let (_, plain) = compress::decompress(source)?;
    let copied = std::io::copy(&mut plain.take(limit), &mut &file).context("copy the archive")?;
    ensure!(copied < limit, "copy the archive: no space left");
    (&file).rewind()?;
    Ok(file)
}

fn index(file: &File) -> Result<HashMap<Vec<u8>, Member>> {
    let length = file.metadata()?.len();
    let mut reader = Reader::new(BufReader::with_capacity(4096, file), NoRaw);
    let mut members = HashMap::new();
    while let Some(entry) = reader.next()? {
        let path = unpack::clean(&entry.path)?;
        let member = match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                let offset = reader.source().stream_position()?;
                ensure!(offset.saturating_add(entry.stored) <= length, "the archive is cut off");
                Some(Member::File(offset, entry.stored))
            }
            Kind::Link => Some(Member::Link(unpack::clean(&entry.link)?)),
            Kind::Symlink => {
                let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |slash| &path[..slash]);
                unpack::clean(&[parent, b"/", &entry.link].concat()).ok().map(Member::Link)
            }
            _ => None,
        };
        if let Some(member) = member {
            members.insert(path, member);
            ensure!(members.len() <= MEMBERS_MAX, "the archive has more than {MEMBERS_MAX} members");
        }
        reader
            .skip_content(|source, count| source.seek_relative(i64::try_from(count).map_err(std::io::Error::other)?))?;
    }
    Ok(members)
}
