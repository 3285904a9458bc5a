//! The store as a whole: what it takes on disk, and what of it nobody needs. Whether it is in order: `check`.

use crate::engine::{Engine, image, list, network, remove, volume};
use crate::image::store::{self, ImageRecord};
use crate::state::container::{self, ContainerRecord};
use crate::storage::layer::{self, Claim};
use crate::storage::volume::{self as stored, Volume};
use crate::storage::{mapped, tree};
use crate::supervisor::exit;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One kind of thing on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many there are.
    pub total: usize,
    /// How many of them are in use.
    pub active: usize,
    /// Bytes on disk.
    pub size: u64,
    /// Bytes of those that are not in use.
    pub reclaimable: u64,
}

/// An image on disk.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: image::Listed,
    /// Bytes of layers that others have too.
    pub shared: u64,
    /// Bytes of its own layers.
    pub unique: u64,
    /// Containers made of it.
    pub containers: usize,
}

/// What `system df` shows.
#[derive(Debug)]
pub struct Usage {
    /// Images, their layers and blobs.
    pub images: Share,
    /// Containers.
    pub containers: Share,
    /// Volumes.
    pub volumes: Share,
    /// Each image.
    pub each_image: Vec<ImageUsage>,
    /// Each container with its bytes.
    pub each_container: Vec<(list::Listed, u64)>,
    /// Each volume with its users and bytes.
    pub each_volume: Vec<(Volume, usize, u64)>,
}

/// Measure everything.
pub fn usage(engine: &Engine) -> Result<Usage> {
    let layout = &engine.layout;
    let used = image::used_by(layout)?;
    let images = image::list(engine, &image::Filters::default(), true)?;
    let mut sizes = BTreeMap::new();
    for hex in layer::list(layout)? {
        let size = tree::usage(&layout.layers().join(&hex))?.allocated;
        sizes.insert(hex, size);
    }
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for image in &images {
        for layer in &image.record.layers {
            *users.entry(layer.hex()).or_default() += 1;
        }
    }
    let mut needed = BTreeSet::new();
    let mut each_image = Vec::new();
    for image in &images {
        let containers = used.get(image.record.id.hex()).map_or(0, Vec::len);
        let size_of = |shared: bool| -> u64 {
            let layers = image.record.layers.iter();
            let chosen = layers.filter(|layer| (users.get(layer.hex()).is_some_and(|count| *count > 1)) == shared);
            chosen.filter_map(|layer| sizes.get(layer.hex())).sum()
        };
        if containers > 0 {
            needed.extend(image.record.layers.iter().map(|layer| layer.hex().to_owned()));
            needed.extend(blobs_of(&image.record));
        }
        each_image.push(ImageUsage { shared: size_of(true), unique: size_of(false), containers, image: image.clone() });
    }
    let mut shares = Share { total: images.len(), ..Share::default() };
    shares.active = each_image.iter().filter(|image| image.containers > 0).count();
    for (hex, size) in &sizes {
        shares.size += size;
        shares.reclaimable += if needed.contains(hex) { 0 } else { *size };
    }
    for entry in std::fs::read_dir(layout.blobs())?.flatten() {
        let size = std::os::unix::fs::MetadataExt::blocks(&entry.metadata()?) * 512;
        shares.size += size;
        shares.reclaimable += if needed.contains(&*entry.file_name().to_string_lossy()) { 0 } else { size };
    }
    let layers = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(layout.layers())?) * 512;
    let blobs = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(layout.blobs())?) * 512;
    shares.size += layers + blobs;
    for directory in ["images", "tags", "lists", "artifacts"] {
        shares.size += allocated(&layout.data().join(directory))?;
    }
    // What was cut off lies there until it goes on or `prune` sweeps it.
    let staged = allocated(&layout.tmp())?;
    shares.size += staged;
    shares.reclaimable += staged;
    let (containers, each_container) = containers(engine)?;
    let (volumes, each_volume) = volumes(engine)?;
    Ok(Usage { images: shares, containers, volumes, each_image, each_container, each_volume })
}

/// Bytes of a directory; none if it is not there.
fn allocated(path: &Path) -> Result<u64> {
    if path.exists() { Ok(tree::usage(path)?.allocated) } else { Ok(0) }
}

fn blobs_of(record: &ImageRecord) -> Vec<String> {
    let mut digests = vec![record.id.hex().to_owned()];
    for source in &record.manifests {
        let all = source.index.iter().chain([&source.manifest]).chain(&source.blobs);
        digests.extend(all.map(|digest| digest.hex().to_owned()));
    }
    digests
}

fn containers(engine: &Engine) -> Result<(Share, Vec<(list::Listed, u64)>)> {
    let (found, _) = list::list(engine, list::Scope::All)?;
    let mut share = Share { total: found.len(), ..Share::default() };
    let mut each = Vec::new();
    for container in found {
        let size = tree::usage(&engine.layout.container(&container.record.id))?.allocated;
        share.size += size;
        if container.state.is_live() {
            share.active += 1;
        } else {
            share.reclaimable += size;
        }
        each.push((container, size));
    }
    Ok((share, each))
}

fn volumes(engine: &Engine) -> Result<(Share, Vec<(Volume, usize, u64)>)> {
    let found = stored::list(&engine.layout)?;
    let mut share = Share { total: found.len(), ..Share::default() };
    let mut each = Vec::new();
    for volume in found {
        let size = tree::usage(&engine.layout.volumes().join(&volume.name))?.allocated;
        let users = stored::users(&engine.layout, &volume.name)?.len();
        share.size += size;
        if users > 0 {
            share.active += 1;
        } else {
            share.reclaimable += size;
        }
        each.push((volume, users, size));
    }
    Ok((share, each))
}

/// What `system prune` removes.
#[derive(Clone, Debug, Default)]
pub struct PruneWish {
    /// Images that have a name too.
    pub all: bool,
    /// Volumes too.
    pub volumes: bool,
    /// `label=`, `label!=` and `until=`.
    pub filters: Vec<String>,
}

/// What went.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Ids of containers.
    pub containers: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// Ids of images.
    pub images: Vec<String>,
    /// Names of volumes.
    pub volumes: Vec<String>,
    /// Bytes.
    pub freed: u64,
}

/// Remove what nobody needs, and what the killed left.
pub fn prune(engine: &Engine, wish: &PruneWish) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let filters = list::Filters::parse(engine, &wish.filters)?;
    let (containers, _) = list::list(engine, list::Scope::All)?;
    for container in containers.iter().filter(|one| !one.state.is_live() && filters.hold(one)) {
        let size = tree::usage(&engine.layout.container(&container.record.id))?.apparent;
        // One that was started or removed meanwhile is left.
        if let Ok(removed) = remove::remove(engine, &container.record.id, remove::Wish::default()) {
            pruned.containers.extend(removed.iter().map(ToString::to_string));
            pruned.freed += size;
        }
    }
    // A filter names labels or times of other things: then networks stay.
    if wish.filters.is_empty() {
        for record in network::list(engine)? {
            if network::is_unused(engine, &record)? && network::remove(engine, &record).is_ok() {
                pruned.networks.push(record.name.clone());
            }
        }
    }
    let (images, freed) = image::prune(engine, wish.all, &image::Filters::parse(&wish.filters)?)?;
    pruned.images = images;
    pruned.freed += freed;
    if wish.volumes {
        // podman's `--volumes` means all that are not in use.
        let (volumes, freed) = volume::prune(engine, true, &volume::Filters::parse(&wish.filters)?)?;
        pruned.volumes = volumes;
        pruned.freed += freed;
    }
    exit::sweep(&engine.layout)?;
    store::collect(&engine.layout, store::exclusive(&engine.layout)?)?;
    pruned.freed += prune_mapped(engine)?;
    pruned.freed += layer::sweep(&engine.layout)?;
    Ok(pruned)
}

/// Copies of layers for id maps that no container has any more.
fn prune_mapped(engine: &Engine) -> Result<u64> {
    let layout = &engine.layout;
    let records: Vec<ContainerRecord> =
        container::list(layout)?.iter().filter_map(|id| ContainerRecord::load(layout, id).ok()).collect();
    let mut freed = 0;
    for hex in layer::list(layout)? {
        // Who makes one holds a claim.
        let Some(_claim) = Claim::try_take(layout, &hex)? else { continue };
        let users = records.iter().filter(|record| record.layers.contains(&hex));
        let users: Vec<_> = users.map(|record| (record.layers.as_slice(), &record.id_maps)).collect();
        freed += mapped::retain(layout, &hex, &users)?;
    }
    Ok(freed)
}
