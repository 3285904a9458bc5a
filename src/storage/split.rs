//! What a layer's archive holds besides the contents of its files, so that it can be given back byte for byte.
//!
//! `layers-v1/HEX/split` is a zstd stream of records: `0 LENGTH bytes` are bytes of the archive as they came, and
//! `1 LENGTH path SIZE CRC32` stands for the content of that file under `diff/`. LENGTH and SIZE are eight bytes, CRC32
//! four, little endian. The checksum names the file that was altered; that the whole is right the diff id says.

use crate::storage::tar::read::Raw;
use crate::storage::tree;
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

const RAW: u8 = 0;
const FILE: u8 = 1;
/// Raw bytes gathered before they are written as one record.
const GATHER: usize = 64 << 10;

/// Writes a split as an archive is read.
pub struct Split {
    encoder: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    pending: Vec<u8>,
    /// Raw bytes that may still come: a stream of headers without end is a bomb too.
    left: u64,
}

impl Split {
    /// Write to this new file at most `limit` raw bytes.
    pub fn create(path: &Path, limit: u64) -> Result<Split> {
        let file = File::create_new(path).with_context(|| format!("make {}", path.display()))?;
        let encoder = zstd::stream::write::Encoder::new(BufWriter::with_capacity(64 << 10, file), 1)?;
        Ok(Split { encoder, pending: Vec::with_capacity(GATHER + 1024), left: limit })
    }

    /// The content of a file stood here.
    pub fn file(&mut self, path: &[u8], size: u64, crc: u32) -> std::io::Result<()> {
        self.flush_pending()?;
        self.encoder.write_all(&[FILE])?;
        self.encoder.write_all(&(path.len() as u64).to_le_bytes())?;
        self.encoder.write_all(path)?;
        self.encoder.write_all(&size.to_le_bytes())?;
        self.encoder.write_all(&crc.to_le_bytes())
    }

    /// Write what is left.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.flush_pending()?;
        self.encoder.finish()?.flush()
    }

    fn flush_pending(&mut self) -> std::io::Result<()> {
        if !self.pending.is_empty() {
            self.encoder.write_all(&[RAW])?;
            self.encoder.write_all(&(self.pending.len() as u64).to_le_bytes())?;
            self.encoder.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

impl Raw for Split {
    fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            std::io::Error::new(ErrorKind::InvalidData, "the archive has more headers than the disk has room")
        })?;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= GATHER { self.flush_pending() } else { Ok(()) }
    }
}

/// A file of a layer that is not as it was unpacked.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its path in the layer.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// Write the archive of the layer at `directory` again.
///
/// # Errors
/// When a file is missing or altered; the error names it.
pub fn assemble(directory: &Path, target: &mut dyn Write) -> Result<()> {
    walk(directory, &mut |damage| bail!("{}: {}: {}", directory.display(), damage.path, damage.what), target)
}

/// Each damaged file of the layer at `directory`.
pub fn verify(directory: &Path, target: &mut dyn Write) -> Result<Vec<Damage>> {
    let mut found = Vec::new();
    walk(
        directory,
        &mut |damage| {
            found.push(damage);
            Ok(())
        },
        target,
    )?;
    Ok(found)
}

fn walk(directory: &Path, damaged: &mut dyn FnMut(Damage) -> Result<()>, target: &mut dyn Write) -> Result<()> {
    let path = directory.join("split");
    let file = File::open(&path).with_context(|| format!("read {}", path.display()))?;
    let mut split = BufReader::with_capacity(64 << 10, zstd::stream::read::Decoder::new(file)?);
    let diff = tree::open_directory(&directory.join("diff"))?;
    let wrong = || format!("{} is damaged", path.display());
    loop {
        let mut tag = [0u8; 1];
        match split.read(&mut tag).with_context(wrong)? {
            0 => return Ok(()),
            _ if tag[0] == RAW => {
                let length = read_u64(&mut split).with_context(wrong)?;
                let copied = std::io::copy(&mut (&mut split).take(length), target)?;
                ensure!(copied == length, wrong());
            }
            _ if tag[0] == FILE => {
                let length = read_u64(&mut split).with_context(wrong)?;
                ensure!(length <= 8192, wrong());
                let mut name = vec![0; length as usize];
                split.read_exact(&mut name).with_context(wrong)?;
                let size = read_u64(&mut split).with_context(wrong)?;
                let mut crc = [0u8; 4];
                split.read_exact(&mut crc).with_context(wrong)?;
                let content = Content { name: &name, size, crc: u32::from_le_bytes(crc) };
                if let Err(error) = content.copy(diff.as_fd(), target)? {
                    damaged(Damage { path: String::from_utf8_lossy(&name).into_owned(), what: error })?;
                }
            }
            _ => bail!(wrong()),
        }
    }
}

struct Content<'a> {
    name: &'a [u8],
    size: u64,
    crc: u32,
}

impl Content<'_> {
    /// The outer result is the target's, the inner tells what is wrong with the file.
    fn copy(&self, diff: BorrowedFd<'_>, target: &mut dyn Write) -> Result<std::result::Result<(), String>> {
        let file = match tree::open_in_root(diff, self.name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK) {
            Ok(file) => File::from(file),
            Err(error) => return Ok(Err(std::io::Error::from(error).to_string())),
        };
        match file.metadata() {
            Ok(metadata) if !metadata.is_file() => return Ok(Err("it is no regular file".to_owned())),
            Ok(metadata) if metadata.len() != self.size => {
                return Ok(Err(format!("it has {} bytes instead of {}", metadata.len(), self.size)));
            }
            Ok(_) => {}
            Err(error) => return Ok(Err(error.to_string())),
        }
        let mut file = file.take(self.size);
        let mut crc = flate2::Crc::new();
        let mut buffer = vec![0; (self.size as usize).clamp(1, 256 << 10)];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    crc.update(&buffer[..count]);
                    target.write_all(&buffer[..count])?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        Ok(if crc.sum() == self.crc { Ok(()) } else { Err("its content was altered".to_owned()) })
    }
}

fn read_u64(source: &mut impl Read) -> std::io::Result<u64> {
    let mut bytes = [0u8; 8];
    source.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
