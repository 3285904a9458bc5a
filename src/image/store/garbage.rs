//! Images that go, and what no record reaches any more.

use crate::image::store::{ImageRecord, entry_names, ids, names_of, record_event, untag};
use crate::state::file::{self, fault};
use crate::state::layout::Layout;
use crate::state::lock::{self, Guard, Mode, Rank};
use crate::storage::layer;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::ErrorKind;

/// Remove an image that nobody uses and nobody names, with what only it needs. Its names go with it.
///
/// The caller has decided that it may go; `store` is the exclusive lock on the store, which this drops before the slow
/// part.
pub fn remove(layout: &Layout, record: &ImageRecord, store: Guard) -> Result<()> {
    for name in names_of(layout, &record.id)? {
        untag(layout, &name)?;
    }
    let path = ImageRecord::path(layout, &record.id);
    fault::point("remove", &path)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    record_event(layout, "remove", &record.id, record.id.hex());
    collect(layout, store)
}

/// Remove layers and blobs that no record reaches. `store` is the exclusive lock on the store.
pub fn collect(layout: &Layout, store: Guard) -> Result<()> {
    let reached = reach(layout)?;
    let mut gone = Vec::new();
    for hex in layer::list(layout)? {
        if reached.layers.contains(&hex) {
            continue;
        }
        // A pull that counts on this layer has claimed it.
        let Some(claim) = layer::Claim::try_take(layout, &hex)? else { continue };
        let aside = file::staging_name(&layout.tmp(), "gone");
        let path = layout.layers().join(&hex);
        fault::point("discard", &path)?;
        match std::fs::rename(&path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => {
                result.with_context(|| format!("remove {}", path.display()))?;
                gone.push(aside);
            }
        }
        drop(claim);
    }
    for name in entry_names(&layout.blobs())? {
        if !reached.blobs.contains(&name) {
            let path = layout.blobs().join(&name);
            fault::point("remove", &path)?;
            let _ = std::fs::remove_file(path);
        }
    }
    drop(store);
    gone.iter().try_for_each(|path| crate::storage::remove::tree(path))
}

/// What records reach, by digits.
#[derive(Debug, Default)]
pub struct Reached {
    /// Layers.
    pub layers: BTreeSet<String>,
    /// Blobs.
    pub blobs: BTreeSet<String>,
}

/// Follow all records of images and containers.
pub fn reach(layout: &Layout) -> Result<Reached> {
    let mut reached = Reached::default();
    for id in ids(layout)? {
        // An image whose record cannot be read may need anything: then nothing is garbage.
        let Some(image) = ImageRecord::load(layout, &id)? else { continue };
        reached.layers.extend(image.layers.iter().map(|layer| layer.hex().to_owned()));
        reached.blobs.insert(id.hex().to_owned());
        for source in &image.manifests {
            reached.blobs.insert(source.manifest.hex().to_owned());
            reached.blobs.extend(
                source.index.iter().chain(&source.blobs).chain(&source.extra).map(|digest| digest.hex().to_owned()),
            );
        }
    }
    for id in crate::state::container::list(layout)? {
        if let Ok(record) = crate::state::container::ContainerRecord::load(layout, &id) {
            reached.layers.extend(record.layers);
        }
    }
    Ok(reached)
}

/// Take the store for collecting garbage.
pub fn exclusive(layout: &Layout) -> Result<Guard> {
    lock::lock(&layout.lock(), Rank::Store, Mode::Exclusive)
}
