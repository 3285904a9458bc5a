//! A blob on its way from a registry, as a reader that goes on where an earlier attempt stopped.
//!
//! What has come is kept in `tmp/partial.HEX`, locked by whoever fetches it: of two pulls of one blob the second waits
//! for the first, and after a SIGKILL the next goes on from the bytes that are there. Not a check: whoever reads compares
//! the digest, and calls [`spoiled`] if it is wrong.
//!
//! Invariant: no byte beyond the descriptor's size is read from the network, and the end of the reader means that all
//! came.

use crate::image::http;
use crate::image::manifest::Descriptor;
use crate::image::progress::Meter;
use crate::image::registry::{self, Repository};
use crate::state::file::fault;
use crate::state::layout::Layout;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a download says that was stopped because another one failed.
pub const STOPPED: &str = "stopped, for another layer failed";

/// The file of what has come so far, held alone.
pub struct Partial {
    file: Flock<File>,
    path: PathBuf,
    /// So many bytes are in it.
    length: u64,
    /// So many were in it when it was opened.
    found: u64,
    /// Reading stopped for want of data, not for what is in them.
    broken_off: bool,
}

impl Partial {
    /// Open or make it, waiting for whoever fetches the same blob now.
    pub fn open(layout: &Layout, descriptor: &Descriptor) -> Result<Partial> {
        let path = layout.tmp().join(format!("partial.{}", descriptor.digest.hex()));
        let what = || format!("open {}", path.display());
        loop {
            fault::point("partial", &path).with_context(what)?;
            let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let lock = Flock::lock(file.with_context(what)?, FlockArg::LockExclusive);
            let file = lock.map_err(|(_, error)| error).with_context(|| format!("lock {}", path.display()))?;
            let metadata = file.metadata()?;
            // Whoever held it may have finished and removed it: then a new file has the name, or none.
            if metadata.nlink() == 0 || std::fs::metadata(&path).map_or(true, |other| other.ino() != metadata.ino()) {
                continue;
            }
            let mut length = metadata.len();
            if length > descriptor.size {
                file.set_len(0)?;
                length = 0;
            }
            return Ok(Partial { file, path, length, found: length, broken_off: false });
        }
    }

    /// All of it came and was used: it goes.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the last reading stopped for want of data: what is in the file is good to go on from.
    pub fn is_broken_off(&self) -> bool {
        self.broken_off
    }
}

/// A blob on its way.
pub struct Download<'a> {
    repository: &'a Repository,
    descriptor: &'a Descriptor,
    partial: &'a mut Partial,
    meter: &'a dyn Meter,
    stop: &'a AtomicBool,
    position: u64,
    body: Option<Box<dyn Read + Send>>,
    tries: u32,
}

impl<'a> Download<'a> {
    /// From the beginning; what is in the file is not fetched again. `stop` ends it at the next read.
    pub fn new(
        repository: &'a Repository,
        descriptor: &'a Descriptor,
        partial: &'a mut Partial,
        meter: &'a dyn Meter,
        stop: &'a AtomicBool,
    ) -> Download<'a> {
        meter.set(partial.length);
        partial.broken_off = false;
        Download { repository, descriptor, partial, meter, stop, position: 0, body: None, tries: 0 }
    }

    fn connect(&mut self) -> Result<()> {
        let start = self.partial.length;
        let (response, begin) = self.repository.open_blob(self.descriptor, start)?;
        let mut body: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
        // A server without ranges sends all again: what we have is passed over.
        let surplus = start - begin;
        let skipped =
            std::io::copy(&mut (&mut body).take(surplus), &mut std::io::sink()).map_err(http::read_trouble)?;
        if skipped < surplus {
            return Err(http::read_trouble(ErrorKind::UnexpectedEof.into()).into());
        }
        self.body = Some(body);
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.body.is_none() {
            self.connect()?;
        }
        let left = self.descriptor.size - self.partial.length;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let body = self.body.as_mut().context("there is a connection")?;
        let count = match body.read(&mut buffer[..most]) {
            Ok(0) => return Err(http::read_trouble(ErrorKind::UnexpectedEof.into()).into()),
            Ok(count) => count,
            Err(error) => return Err(http::read_trouble(error).into()),
        };
        let path = &self.partial.path;
        self.partial
            .file
            .write_all_at(&buffer[..count], self.partial.length)
            .with_context(|| format!("write {}", path.display()))?;
        self.partial.length += count as u64;
        self.meter.add(count as u64);
        Ok(count)
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        anyhow::ensure!(!self.stop.load(Ordering::Relaxed), STOPPED);
        if self.position < self.partial.length {
            let most = usize::try_from(self.partial.length - self.position).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.partial.file.read_at(&mut buffer[..most], self.position)?;
            anyhow::ensure!(count > 0 || most == 0, "{} was cut short meanwhile", self.partial.path.display());
            self.position += count as u64;
            return Ok(count);
        }
        if self.position == self.descriptor.size {
            return Ok(0);
        }
        loop {
            match self.receive(buffer) {
                Ok(count) => {
                    // Tries are counted against standstill: a long blob may be cut often and still arrive.
                    self.tries = 0;
                    self.position += count as u64;
                    return Ok(count);
                }
                // No connection: the registry's client has tried again already.
                Err(error) if self.body.take().is_none() => return Err(error),
                Err(error) if registry::is_transient(&error) && self.tries < self.repository.registry.retries() => {
                    let pause = self.repository.registry.pause(self.tries, None);
                    self.tries += 1;
                    std::thread::sleep(pause.unwrap_or_default());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The digest was wrong. Whether another try from nothing makes sense: what was found in the file may have been spoiled
/// (a power cut leaves lengths without contents), what came now was not.
pub fn spoiled(partial: &mut Partial) -> Result<bool> {
    let found = partial.found > 0;
    partial.file.set_len(0).with_context(|| format!("empty {}", partial.path.display()))?;
    partial.length = 0;
    partial.found = 0;
    Ok(found)
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // The chain is kept inside: the unpacker passes an io::Error on as it is.
        self.next(buffer).map_err(|error| {
            self.partial.broken_off = true;
            std::io::Error::other(Broken(error))
        })
    }
}

/// An error of a download inside an `io::Error`.
#[derive(Debug)]
struct Broken(anyhow::Error);

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&crate::failure::message_of(&self.0))
    }
}

impl std::error::Error for Broken {}
