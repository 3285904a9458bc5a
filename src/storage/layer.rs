//! Layers: unpacked once, named by their diff id, immutable, shared by all images and containers.
//!
//! A layer is made in `tmp/` and renamed to `layers-v1/HEX` when its files are on disk and both its digests are right.
//! Who makes or needs one holds a [`Claim`]: two pulls never unpack the same layer, and nobody collects as garbage what a
//! pull is about to name. What lies in `tmp/` is locked by whoever works on it; the rest is left from the killed.

use crate::failure::{Failure, Kind};
use crate::host::userns::Privilege;
use crate::model::digest::Digest;
use crate::state::event::now_ns;
use crate::state::file::{self, Durability, fault};
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use crate::storage::compress::Compression;
use crate::storage::split::Split;
use crate::storage::tar::read::Reader;
use crate::storage::{pipe, remove, split, tree, unpack};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The number in `layer.json`.
pub const VERSION: u32 = 1;

/// `layer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Format of this document.
    pub version: u32,
    /// Digest of the plain archive.
    pub diff_id: Digest,
    /// Bytes of file contents.
    pub size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the plain archive.
    #[serde(default)]
    pub archive_size: Option<u64>,
    /// Whether the archive can be made again from `diff` and `split`.
    pub whole: bool,
    /// When, in nanoseconds since 1970.
    pub created_ns: i64,
}

/// Where a layer's files are.
pub fn diff_path(layout: &Layout, hex: &str) -> PathBuf {
    layout.layers().join(hex).join("diff")
}

/// Whether this layer is there.
pub fn exists(layout: &Layout, hex: &str) -> bool {
    layout.layers().join(hex).join("layer.json").exists()
}

/// The record of a layer; `None`: there is no such layer.
pub fn load(layout: &Layout, hex: &str) -> Result<Option<LayerRecord>> {
    file::read_json(&layout.layers().join(hex).join("layer.json"))
}

/// Digits of all layers, in no order.
pub fn list(layout: &Layout) -> Result<Vec<String>> {
    let path = layout.layers();
    let entries = std::fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| Digest::parse(&format!("sha256:{name}")).is_ok()).collect())
}

/// Held while a layer is made or about to be named by a record.
#[derive(Debug)]
pub struct Claim {
    lock: Flock<File>,
    path: PathBuf,
    /// The layer was there already.
    pub present: bool,
}

impl Claim {
    /// Claim a layer, waiting for whoever makes it now.
    pub fn take(layout: &Layout, hex: &str) -> Result<Claim> {
        Claim::acquire(layout, hex, FlockArg::LockExclusive)?.with_context(|| format!("claim layer {hex}"))
    }

    /// Claim all layers of an image. In one order for all: two who want the same layers never wait for each other.
    pub fn take_all<'a>(layout: &Layout, digits: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, Claim>> {
        let sorted: BTreeSet<&str> = digits.collect();
        sorted.into_iter().map(|hex| Ok((hex.to_owned(), Claim::take(layout, hex)?))).collect()
    }

    /// Claim a layer for removal; `None`: somebody works with it.
    pub fn try_take(layout: &Layout, hex: &str) -> Result<Option<Claim>> {
        Claim::acquire(layout, hex, FlockArg::LockExclusiveNonblock)
    }

    /// The layer was made: others may claim it too, but nobody may remove it.
    pub fn share(&mut self) -> Result<()> {
        self.lock.relock(FlockArg::LockShared).with_context(|| format!("lock {}", self.path.display()))?;
        self.present = true;
        Ok(())
    }

    fn acquire(layout: &Layout, hex: &str, how: FlockArg) -> Result<Option<Claim>> {
        let path = layout.tmp().join(format!("claim.{hex}"));
        loop {
            let present = exists(layout, hex);
            let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.with_context(|| format!("open {}", path.display()))?;
            let wait = how == FlockArg::LockExclusive;
            // A layer that is there needs only be kept from removal: many may do that at once.
            let first = if wait && present { FlockArg::LockShared } else { FlockArg::LockExclusiveNonblock };
            let lock = match Flock::lock(file, first) {
                // Somebody makes it. They share their claim when it is made, and hold that until their image is
                // complete, so it is waited for in shared mode: to wait alone would be to wait for their other layers.
                Err((file, nix::errno::Errno::EWOULDBLOCK)) if wait => {
                    let lock = Flock::lock(file, FlockArg::LockShared);
                    let lock = lock.map_err(|(_, error)| error).with_context(|| format!("lock {}", path.display()))?;
                    if !exists(layout, hex) {
                        // They gave up. Of all who waited one gets it alone; the pause keeps them apart.
                        drop(lock);
                        let micros = 200 + u64::from(std::process::id()) * 37 % 5000;
                        std::thread::sleep(std::time::Duration::from_micros(micros));
                        continue;
                    }
                    if lock.metadata()?.nlink() == 0 {
                        continue;
                    }
                    return Ok(Some(Claim { lock, path, present: true }));
                }
                Ok(lock) => lock,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
            };
            // Whoever held it before may have removed the file, or made the layer.
            if lock.metadata()?.nlink() == 0 || exists(layout, hex) != present {
                continue;
            }
            return Ok(Some(Claim { lock, path, present }));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.lock.relock(FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A directory in `tmp/` that goes when it is dropped.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Staging {
    /// Make one.
    pub fn create(layout: &Layout, prefix: &str) -> Result<Staging> {
        let path = file::staging_name(&layout.tmp(), prefix);
        // The sweeper holds this lock alone: it never sees a directory between its making and its locking.
        let _store = lock::lock(&layout.lock(), Rank::Store, Mode::Shared)?;
        let context = || format!("make {}", path.display());
        fault::point("mkdir", &path).with_context(context)?;
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(context)?;
        let lock = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        Ok(Staging { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a rename there is nothing there. What cannot be removed now the next sweep removes.
        let _ = remove::tree(&self.path);
    }
}

/// A file in `tmp/` that is to become a blob; it goes when it is dropped.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    file: Flock<File>,
}

impl StagedFile {
    /// Make one.
    pub fn create(layout: &Layout) -> Result<StagedFile> {
        let path = file::staging_name(&layout.tmp(), "blob");
        let _store = lock::lock(&layout.lock(), Rank::Store, Mode::Shared)?;
        let context = || format!("make {}", path.display());
        fault::point("create", &path).with_context(context)?;
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(context)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        Ok(StagedFile { path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Remove what the killed left in `tmp/`. Returns bytes freed.
pub fn sweep(layout: &Layout) -> Result<u64> {
    let path = layout.tmp();
    if std::fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?.next().is_none() {
        return Ok(0);
    }
    let mut doomed = Vec::new();
    {
        let Some(_store) = lock::try_lock(&layout.lock(), Rank::Store, Mode::Exclusive)? else { return Ok(0) };
        for entry in std::fs::read_dir(&path)?.flatten() {
            if is_young(&entry) {
                continue;
            }
            let Ok(file) =
                File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(entry.path())
            else {
                let _ = std::fs::remove_file(entry.path());
                continue;
            };
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                doomed.push((entry.path(), lock));
            }
        }
    }
    let mut freed = 0;
    for (path, _lock) in doomed {
        freed += if path.is_dir() { tree::usage(&path)?.allocated } else { std::fs::metadata(&path)?.blocks() * 512 };
        remove::tree(&path)?;
    }
    Ok(freed)
}

/// Directories of containers in the making bear no lock: they live a moment only.
fn is_young(entry: &std::fs::DirEntry) -> bool {
    let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    // What is on its way out may go at any time: nobody minds who removes it.
    let locked = [&b"layer."[..], b"claim.", b"gone.", b"removed.", b"blob.", b"volume."];
    let name = entry.file_name();
    // What was fetched of a blob is worth keeping for a while: the next pull goes on there.
    let limit = if name.as_encoded_bytes().starts_with(b"partial.") { 86_400 } else { 60 };
    !locked.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix))
        && age.is_none_or(|age| age.as_secs() < limit)
}

/// A layer to be unpacked.
pub struct Input<'a> {
    /// The archive, perhaps compressed.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Digest of what the reader gives.
    pub blob: Option<Digest>,
    /// Length of what the reader gives.
    pub blob_size: Option<u64>,
    /// Digest of the plain archive.
    pub diff_id: Option<Digest>,
}

/// A layer that is unpacked and right, but not visible yet.
#[derive(Debug)]
pub struct Staged {
    /// Its record.
    pub record: LayerRecord,
    /// Digest of what was read.
    pub blob: Digest,
    /// Length of what was read.
    pub blob_size: u64,
    /// How it was compressed.
    pub compression: Compression,
    staging: Staging,
}

/// Unpack a layer into staging and check its digests.
pub fn stage(layout: &Layout, privilege: &Privilege, input: Input<'_>) -> Result<Staged> {
    let staging = Staging::create(layout, "layer")?;
    let diff = staging.path().join("diff");
    std::fs::DirBuilder::new().mode(0o755).create(&diff).with_context(|| format!("make {}", diff.display()))?;
    let root = tree::open_directory(&diff)?;
    nix::sys::stat::fchmod(&root, nix::sys::stat::Mode::from_bits_truncate(0o755))?;
    let options = unpack::Options::layer(privilege, root.as_fd())?;
    let split = Split::create(&staging.path().join("split"), options.limit_bytes)?;
    let Input { reader, blob, blob_size, diff_id } = input;
    let (unpacked, source, hash) = std::thread::scope(|scope| {
        let (plain, pipe) = pipe::start(scope, reader);
        let mut archive = Reader::new(plain, split);
        let unpacked = unpack::unpack(&mut archive, root.as_fd(), options);
        // The pipe's end goes before its threads are waited for, also where the archive was not read to its end: one that
        // still sends would wait for ever (CVE-2021-20291).
        let split = archive.into_sink();
        let unpacked = unpacked.and_then(|unpacked| {
            split.finish().context("write the layer's headers")?;
            Ok(unpacked)
        });
        match (unpacked, pipe.finish()) {
            (Ok(unpacked), Ok((source, hash))) => Ok((unpacked, source, hash)),
            (Err(error), Err(source)) if source.is::<pipe::Stopped>() => Err(error),
            (_, Err(source)) => Err(source),
            (Err(error), Ok(_)) => Err(error),
        }
    })?;
    let found = Digest::from_sha256(&source.hash);
    check("digest", &found, blob.as_ref())?;
    if let Some(size) = blob_size
        && size != source.size
    {
        bail!("the layer has {} bytes, its manifest says {size}", source.size);
    }
    let found_diff = Digest::from_sha256(&hash);
    check("diff id", &found_diff, diff_id.as_ref())?;
    let record = LayerRecord {
        version: VERSION,
        diff_id: found_diff,
        size: unpacked.size,
        entries: unpacked.entries,
        archive_size: Some(source.plain_size),
        whole: !unpacked.replaced,
        created_ns: now_ns(),
    };
    let path = staging.path().join("layer.json");
    file::create_new(&path, &serde_json::to_vec(&record)?, Durability::Volatile)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(Staged { record, blob: found, blob_size: source.size, compression: source.compression, staging })
}

fn check(what: &str, found: &Digest, wanted: Option<&Digest>) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != found => {
            Err(Failure::new(Kind::Engine, format!("the layer's {what} is {found}, but {wanted} was promised"))
                .hint("the data was damaged or altered on its way; nothing of it was kept")
                .into())
        }
        _ => Ok(()),
    }
}

/// Make staged layers visible. Their files must be on disk: call [`sync`] before, once for all.
pub fn publish(layout: &Layout, staged: Vec<Staged>) -> Result<()> {
    for layer in staged {
        let target = layout.layers().join(layer.record.diff_id.hex());
        match file::rename_new(layer.staging.path(), &target) {
            Ok(()) => {}
            // Somebody was faster, or a killed removal left a directory without its record.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                if !exists(layout, layer.record.diff_id.hex()) {
                    discard(layout, &target)?;
                    file::rename_new(layer.staging.path(), &target)
                        .with_context(|| format!("make {}", target.display()))?;
                }
            }
            Err(error) => return Err(error).with_context(|| format!("make {}", target.display())),
        }
    }
    file::sync_directory(&layout.layers()).context("sync the layers")
}

/// Write all that is under way on DATA's file system to disk.
pub fn sync(layout: &Layout) -> Result<()> {
    let path = layout.layers();
    fault::point("syncfs", &path)?;
    let directory = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    nix::unistd::syncfs(&directory).with_context(|| format!("sync {}", path.display()))
}

/// Take a directory out of the store: first out of sight, then away.
pub fn discard(layout: &Layout, path: &Path) -> Result<()> {
    let aside = file::staging_name(&layout.tmp(), "gone");
    fault::point("discard", path).with_context(|| format!("remove {}", path.display()))?;
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.with_context(|| format!("remove {}", path.display()))?,
    }
    remove::tree(&aside)
}

/// Write the plain archive of a layer.
pub fn assemble(layout: &Layout, hex: &str, target: &mut dyn Write) -> Result<()> {
    split::assemble(&layout.layers().join(hex), target)
}
