//! The store as a whole: what it takes on disk, what of it nobody needs, whether it is in order.

use crate::engine::{Engine, image, list, network, registry, remove, volume};
use crate::image::manifest::{self, Document};
use crate::image::progress::Silent;
use crate::image::store::{self, ImageRecord};
use crate::model::digest::Digest;
use crate::model::pull::{Pull, PullPolicy};
use crate::state::file;
use crate::state::layout::Layout;
use crate::storage::layer::{self, Claim};
use crate::storage::pipe::HashingReader;
use crate::storage::volume::{self as stored, Volume};
use crate::storage::{split, tree};
use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

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
    shares.size += tree::usage(&layout.images())?.allocated + tree::usage(&layout.tags())?.allocated;
    let (containers, each_container) = containers(engine)?;
    let (volumes, each_volume) = volumes(engine)?;
    Ok(Usage { images: shares, containers, volumes, each_image, each_container, each_volume })
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
    store::collect(&engine.layout, store::exclusive(&engine.layout)?)?;
    pruned.freed += layer::sweep(&engine.layout)?;
    Ok(pruned)
}

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckWish {
    /// Do not read contents.
    pub quick: bool,
    /// Mend what can be mended.
    pub repair: bool,
    /// Remove images that cannot be mended.
    pub force: bool,
}

/// Something that is not in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What, in words.
    pub what: String,
    /// It was mended.
    pub mended: bool,
}

/// Look at every layer, blob, image and tag.
pub fn check(engine: &Engine, wish: CheckWish) -> Result<Vec<Trouble>> {
    let mut found = Vec::new();
    let layout = &engine.layout;
    if wish.repair {
        layer::sweep(layout)?;
    }
    let images = store::list(layout)?;
    for hex in layer::list(layout)? {
        for what in layer_troubles(layout, &hex, wish.quick)? {
            let mended = wish.repair && mend_layer(engine, &hex, &images)?;
            found.push(Trouble { what, mended });
        }
    }
    for what in blob_troubles(layout, wish.quick)? {
        let mended = wish.repair && remove_blob(layout, &what.0);
        found.push(Trouble { what: what.1, mended });
    }
    for image in &images {
        for what in image_troubles(layout, image) {
            let mut mended = wish.repair && refetch(engine, image);
            if !mended && wish.repair && wish.force {
                let removal = image::Removal { force: true, keep_parents: true };
                mended = image::remove(engine, image.id.hex(), removal).is_ok();
            }
            found.push(Trouble { what, mended });
        }
    }
    Ok(found)
}

fn layer_troubles(layout: &Layout, hex: &str, quick: bool) -> Result<Vec<String>> {
    let directory = layout.layers().join(hex);
    let shown = || format!("layer {}", &hex[..12]);
    let record = match layer::load(layout, hex) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(vec![format!("{}: layer.json is missing", shown())]),
        Err(error) => return Ok(vec![format!("{}: {error:#}", shown())]),
    };
    if quick {
        return Ok(Vec::new());
    }
    let mut hash = HashWriter(Sha256::new());
    match split::verify(&directory, &mut hash) {
        Ok(damages) if damages.is_empty() => {
            let digest = Digest::from_sha256(&hash.0.finalize());
            if record.whole && digest.hex() != hex {
                return Ok(vec![format!("{}: its content has the digest {digest}", shown())]);
            }
            Ok(Vec::new())
        }
        Ok(damages) => {
            Ok(damages.iter().map(|damage| format!("{}: /{}: {}", shown(), damage.path, damage.what)).collect())
        }
        Err(error) => Ok(vec![format!("{}: {error:#}", shown())]),
    }
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Unpack a layer again, from the blob it came as or from the registry.
fn mend_layer(engine: &Engine, hex: &str, images: &[ImageRecord]) -> Result<bool> {
    let layout = &engine.layout;
    if layer_troubles(layout, hex, false)?.is_empty() {
        // Mended already, for another of its files.
        return Ok(true);
    }
    let users = images.iter().filter(|image| image.layers.iter().any(|layer| layer.hex() == hex));
    for image in users.clone() {
        for (index, _) in image.layers.iter().enumerate().filter(|(_, layer)| layer.hex() == hex) {
            for blob in image.manifests.iter().filter_map(|source| source.blobs.get(index)) {
                if from_blob(engine, hex, blob).unwrap_or(false) {
                    return Ok(true);
                }
            }
        }
    }
    let place = layout.layers().join(hex);
    let aside = file::staging_name(&layout.tmp(), "layer");
    {
        let Some(_claim) = Claim::try_take(layout, hex)? else { return Ok(false) };
        file::rename_new(&place, &aside)?;
    }
    for image in users {
        if refetch(engine, image) && layer::exists(layout, hex) {
            tree::remove(&aside)?;
            return Ok(true);
        }
    }
    // A damaged layer is better than none.
    file::rename_new(&aside, &place)?;
    Ok(false)
}

fn from_blob(engine: &Engine, hex: &str, blob: &Digest) -> Result<bool> {
    let layout = &engine.layout;
    let Ok(file) = File::open(store::blob_path(layout, blob)) else { return Ok(false) };
    let input = layer::Input {
        reader: Box::new(file),
        blob: Some(blob.clone()),
        blob_size: None,
        diff_id: Some(Digest::parse(&format!("sha256:{hex}"))?),
    };
    let staged = layer::stage(layout, &engine.privilege, input)?;
    layer::sync(layout)?;
    layer::discard(layout, &layout.layers().join(hex))?;
    layer::publish(layout, vec![staged])?;
    Ok(true)
}

fn refetch(engine: &Engine, image: &ImageRecord) -> bool {
    let names = store::names_of(&engine.layout, &image.id).unwrap_or_default();
    let digest = image.digest().cloned();
    names.iter().filter(|name| name.registry != crate::image::reference::LOCAL_REGISTRY).any(|name| {
        let options = Pull { policy: PullPolicy::Always, quiet: true, ..Pull::default() };
        digest.as_ref().is_some_and(|digest| {
            registry::pull(engine, &name.at(digest).to_string(), &options, false, &Silent).is_ok()
        })
    })
}

/// Blobs that are not what their names say, by name.
fn blob_troubles(layout: &Layout, quick: bool) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    if quick {
        return Ok(found);
    }
    for entry in std::fs::read_dir(layout.blobs())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = File::open(entry.path()).with_context(|| format!("open {}", entry.path().display()))?;
        let mut hashing = HashingReader::new(file);
        let read = std::io::copy(&mut hashing, &mut std::io::sink());
        let digest = Digest::from_sha256(&hashing.finish().0);
        if let Err(error) = read {
            found.push((name.clone(), format!("blob {name}: {error}")));
        } else if digest.hex() != name {
            found.push((name.clone(), format!("blob {name}: its digest is {digest}")));
        }
    }
    Ok(found)
}

/// A wrong blob is worse than none: what needs it is fetched again.
fn remove_blob(layout: &Layout, name: &str) -> bool {
    std::fs::remove_file(layout.blobs().join(name)).is_ok()
}

fn image_troubles(layout: &Layout, image: &ImageRecord) -> Vec<String> {
    let mut found = Vec::new();
    let shown = image.id.short();
    for layer in image.layers.iter().filter(|layer| !layer::exists(layout, layer.hex())) {
        found.push(format!("image {shown}: layer {} is missing", layer.short()));
    }
    if !store::blob_path(layout, &image.id).exists() {
        found.push(format!("image {shown}: its config is missing"));
    }
    if let Some(source) = image.manifests.first() {
        match std::fs::read(store::blob_path(layout, &source.manifest)) {
            Err(_) => found.push(format!("image {shown}: its manifest {} is missing", source.manifest)),
            Ok(bytes) if !matches!(manifest::parse(&bytes, None), Ok(Document::Manifest(_))) => {
                found.push(format!("image {shown}: its manifest {} is none", source.manifest));
            }
            Ok(_) => {}
        }
    }
    found
}
