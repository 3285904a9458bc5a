//! Whether the store is in order, and what can be mended.
//!
//! A damaged layer is unpacked again from the blob it came as, or fetched again by its digest; what cannot be mended is left
//! as it is, unless the user asks for its removal.

use crate::engine::{Engine, image, registry};
use crate::image::manifest::{self, Document};
use crate::image::progress::Silent;
use crate::image::store::{self, ImageRecord};
use crate::model::digest::Digest;
use crate::model::pull::{Pull, PullPolicy};
use crate::state::file;
use crate::state::layout::Layout;
use crate::storage::layer::{self, Claim};
use crate::storage::pipe::HashingReader;
use crate::storage::{remove, split};
use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckWish {
    /// Do not read contents.
    pub quick: bool,
    /// Mend what can be mended.
    pub repair: bool,
    /// Remove images that cannot be mended.
    pub force: bool,
    /// Layers that nobody needs are wrong when they are older than this; absent: they are left to `prune`.
    pub unused_max: Option<Duration>,
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
    for hex in wish.unused_max.map(|age| unused(layout, age)).transpose()?.unwrap_or_default() {
        let mended = wish.repair && drop_layer(layout, &hex)?;
        found.push(Trouble { what: format!("layer {}: no image and no container needs it", &hex[..12]), mended });
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

/// Layers that no record reaches and that have been there for so long.
fn unused(layout: &Layout, age: Duration) -> Result<Vec<String>> {
    let reached = store::reach(layout)?.layers;
    let old = |hex: &String| {
        let time = std::fs::metadata(layout.layers().join(hex)).and_then(|metadata| metadata.modified());
        time.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed >= age))
    };
    Ok(layer::list(layout)?.into_iter().filter(|hex| !reached.contains(hex) && old(hex)).collect())
}

/// Remove a layer, unless somebody counts on it by now.
fn drop_layer(layout: &Layout, hex: &str) -> Result<bool> {
    let _store = store::exclusive(layout)?;
    let Some(_claim) = Claim::try_take(layout, hex)? else { return Ok(false) };
    if store::reach(layout)?.layers.contains(hex) {
        return Ok(false);
    }
    layer::discard(layout, &layout.layers().join(hex))?;
    Ok(true)
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
            remove::tree(&aside)?;
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
