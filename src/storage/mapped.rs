//! An image's files with their owners moved, for an ordinary user's container that has id maps of its own.
//!
//! The machine's root maps owners by idmapped mounts. A user may not: the kernel allows them only to whoever owns the
//! file system's super block. So there is one copy of an image's layers, merged, for each map:
//! `layers-v1/HEX/mapped/KEY/diff`, where HEX is the topmost layer. It is made when a container first needs it and shared
//! by all after; `system df` counts it as the layer's, and it goes with the layer. The layer's own files are never touched.
//!
//! From Linux 6.16 a copy holds no contents but those of small files: overlayfs reads the others from the layers
//! themselves, to which they refer (data-only layers; only the last of the merged layers may refer, hence one copy for all).
//! Before, they are copied, as reflinks where the file system has them.

use crate::host::userns::Privilege;
use crate::model::user::{IdMaps, outside};
use crate::state::file;
use crate::state::layout::Layout;
use crate::storage::layer::{self, Claim, Staging};
use crate::storage::overlay::Overlay;
use crate::storage::{copy, tree};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg, OFlag};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From here on overlayfs follows references to data-only layers in a user namespace.
const REFERENCES_SINCE: (u32, u32) = (6, 16);

/// When the copy is worth a word.
const LONG: Duration = Duration::from_secs(1);

/// Directories of an overlay, topmost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lower {
    /// Those that are merged.
    pub layers: Vec<PathBuf>,
    /// Those that only hold contents the others refer to.
    pub data: Vec<PathBuf>,
}

impl Lower {
    /// One directory.
    pub fn single(path: PathBuf) -> Lower {
        Lower { layers: vec![path], data: Vec::new() }
    }
}

/// What to mount for these layers (lowest first) in a container with these maps; a copy that is missing is made.
///
/// # Errors
/// A layer that is gone; an owner for whom the maps leave no place.
pub fn lower(layout: &Layout, privilege: &Privilege, layers: &[String], maps: &IdMaps) -> Result<Lower> {
    let originals: Vec<PathBuf> = layers.iter().rev().map(|hex| layer::diff_path(layout, hex)).collect();
    let Some(top) = layers.last() else { return Ok(Lower::default()) };
    // With one id only there are no owners to move; root has idmapped mounts.
    if maps.uid.is_empty() || !privilege.rootless || privilege.single {
        return Ok(Lower { layers: originals, data: Vec::new() });
    }
    let refers = kernel() >= REFERENCES_SINCE;
    let target = parent(layout, top).join(key(layers, maps, refers));
    if !target.exists() {
        let owners = Owners::new(privilege, maps);
        let copy = Copy { layers, originals: &originals, refers, target: &target };
        copy.make(layout, &owners).context("give the image's files the container's ids")?;
    }
    Ok(Lower { layers: vec![target.join("diff")], data: if refers { originals } else { Vec::new() } })
}

/// Remove the copies in this layer that none of these containers (their layers and maps) has. Returns bytes freed.
pub fn retain(layout: &Layout, hex: &str, wanted: &[(&[String], &IdMaps)]) -> Result<u64> {
    let keys = |(layers, maps): &(&[String], &IdMaps)| [key(layers, maps, false), key(layers, maps, true)];
    let keys: BTreeSet<String> = wanted.iter().flat_map(keys).collect();
    let mut freed = 0;
    for entry in std::fs::read_dir(parent(layout, hex)).into_iter().flatten().flatten() {
        if !keys.contains(&*entry.file_name().to_string_lossy()) {
            freed += tree::usage(&entry.path())?.allocated;
            layer::discard(layout, &entry.path())?;
        }
    }
    Ok(freed)
}

fn parent(layout: &Layout, hex: &str) -> PathBuf {
    layout.layers().join(hex).join("mapped")
}

/// A name for a chain of layers and maps. Copies that refer have another one: an older kernel would show empty files.
fn key(layers: &[String], maps: &IdMaps, refers: bool) -> String {
    let mut hash = Sha256::new();
    layers.iter().for_each(|hex| hash.update(format!("{hex} ")));
    for (kind, ranges) in [("u", &maps.uid), ("g", &maps.gid)] {
        for range in ranges {
            hash.update(format!("{kind}{}:{}:{} ", range.inside, range.outside, range.size));
        }
    }
    let digits: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if refers { format!("{digits}.r") } else { digits }
}

/// Version of the running kernel.
fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Where owners go.
struct Owners<'a> {
    maps: &'a IdMaps,
    /// Ids for owners the container has none for: nobody's inside, whoever asks.
    spare: (Option<u32>, Option<u32>),
    begun: Instant,
    told: Cell<bool>,
}

impl Owners<'_> {
    fn new<'a>(privilege: &Privilege, maps: &'a IdMaps) -> Owners<'a> {
        let spare = |own: &[crate::model::user::IdRange], map: &[crate::model::user::IdRange]| {
            let all: u32 = own.iter().map(|range| range.size).sum();
            (0..all).find(|id| map.iter().all(|range| *id < range.outside || *id - range.outside >= range.size))
        };
        Owners {
            maps,
            spare: (spare(&privilege.maps.uid, &maps.uid), spare(&privilege.maps.gid, &maps.gid)),
            begun: Instant::now(),
            told: Cell::new(false),
        }
    }

    fn map(&self, uid: u32, gid: u32) -> Result<(u32, u32)> {
        // A word for who waits; a script's standard error is not for that.
        if !self.told.get() && self.begun.elapsed() > LONG && std::io::stderr().is_terminal() {
            self.told.set(true);
            eprintln!("coracle: giving the image's files the container's ids; once for this image and map");
        }
        match (outside(&self.maps.uid, uid).or(self.spare.0), outside(&self.maps.gid, gid).or(self.spare.1)) {
            (Some(uid), Some(gid)) => Ok((uid, gid)),
            _ => bail!("the image has files of {uid}:{gid}, who has no place in the container's id maps"),
        }
    }
}

/// A copy to be made.
struct Copy<'a> {
    layers: &'a [String],
    /// Their directories, topmost first.
    originals: &'a [PathBuf],
    refers: bool,
    target: &'a Path,
}

impl Copy<'_> {
    /// Staged, then on disk, then named.
    fn make(&self, layout: &Layout, owners: &Owners<'_>) -> Result<()> {
        let claims = Claim::take_all(layout, self.layers.iter().map(String::as_str))?;
        if let Some((hex, _)) = claims.iter().find(|(_, claim)| !claim.present) {
            bail!("layer {hex} was removed a moment ago");
        }
        let parent = self.target.parent().context("a path without a parent")?;
        match std::fs::DirBuilder::new().mode(0o700).create(parent) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", parent.display()));
            }
            _ => {}
        }
        // Whoever makes a copy now is waited for.
        let context = || format!("lock {}", parent.display());
        let lock = Flock::lock(File::open(parent).with_context(context)?, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, error)| error).with_context(context)?;
        if self.target.exists() {
            return Ok(());
        }
        let staging = self.stage(layout, owners)?;
        layer::sync(layout)?;
        file::rename_new(staging.path(), self.target).with_context(|| format!("make {}", self.target.display()))
    }

    fn stage(&self, layout: &Layout, owners: &Owners<'_>) -> Result<Staging> {
        let staging = Staging::create(layout, "layer")?;
        let path = staging.path().join("diff");
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))?;
        let lower = self.originals.to_vec();
        let merged = Overlay { lower, userxattr: true, read_only: true, ..Overlay::default() }.mount()?;
        let source = tree::open_in_root(merged.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let target = tree::open_directory(&path)?;
        let originals = self.originals.iter().map(|path| tree::open_directory(path)).collect::<Result<Vec<_>>>()?;
        let owner = |uid, gid| owners.map(uid, gid);
        let options = copy::Options {
            owner: Some(&owner),
            refers: self.refers,
            originals: &originals,
            ..copy::Options::default()
        };
        copy::content(source.as_fd(), target.as_fd(), options)?;
        copy::directory_attributes(source.as_fd(), target.as_fd(), options)?;
        Ok(staging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::user::IdRange;

    fn maps(outside: u32) -> IdMaps {
        let ranges = vec![IdRange { inside: 0, outside, size: 10 }];
        IdMaps { uid: ranges.clone(), gid: ranges }
    }

    #[test]
    fn keys_tell_maps_apart() {
        let layers = ["a".to_owned(), "b".to_owned()];
        let key = |maps: &IdMaps| super::key(&layers, maps, false);
        assert_ne!(key(&maps(1)), key(&maps(2)));
        assert_eq!(key(&maps(1)), key(&maps(1)));
        assert_ne!(key(&maps(1)), super::key(&layers, &maps(1), true));
        assert_ne!(key(&maps(1)), super::key(&layers[1..], &maps(1), false));
        let swapped = IdMaps { uid: maps(1).uid, gid: maps(2).gid };
        assert_ne!(key(&swapped), key(&IdMaps { uid: maps(2).uid, gid: maps(1).gid }));
    }

    #[test]
    fn an_owner_without_a_place_is_nobody_inside() {
        let own = vec![IdRange { inside: 0, outside: 1000, size: 1 }, IdRange { inside: 1, outside: 5000, size: 20 }];
        let privilege = Privilege {
            caller: crate::host::userns::Caller { uid: 1000, gid: 1000 },
            rootless: true,
            inside: true,
            single: false,
            maps: IdMaps { uid: own.clone(), gid: own },
        };
        let maps = maps(0);
        let owners = Owners::new(&privilege, &maps);
        assert_eq!(owners.map(3, 4).unwrap(), (3, 4));
        assert_eq!(owners.map(12, 4).unwrap(), (10, 4));
        let all = vec![IdRange { inside: 100, outside: 0, size: 21 }];
        let maps = IdMaps { uid: all.clone(), gid: all };
        let owners = Owners::new(&privilege, &maps);
        assert!(owners.map(0, 0).is_err());
    }
}
