//! A new image, or another manifest of one that is here.

use crate::image::config::ConfigDocument;
use crate::image::manifest::{Descriptor, Document};
use crate::image::reference::Reference;
use crate::image::store::tag::set_tag;
use crate::image::store::{ImageRecord, Source, VERSION, adopt_blob, digest_of, put_blob, record_event};
use crate::model::digest::Digest;
use crate::state::event;
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use crate::storage::layer;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// A new image: documents in hand, layers staged or present.
#[derive(Debug)]
pub struct NewImage {
    /// The config document, as it came.
    pub config: Vec<u8>,
    /// The manifest, as it came.
    pub manifest: Vec<u8>,
    /// The index it was chosen from, as it came.
    pub index: Option<Vec<u8>>,
    /// Layers that must become visible.
    pub staged: Vec<layer::Staged>,
    /// Compressed layers that must become visible: files in `tmp/` whose digests the caller has checked, and keeps locked.
    pub blobs: Vec<(PathBuf, Digest)>,
    /// Those files are on disk already.
    pub synced: bool,
    /// Names to give it.
    pub names: Vec<Reference>,
    /// What the event says: `pull`, `load`, `import`, `commit`, `build`.
    pub event: &'static str,
}

/// Make an image exist. The caller holds a [`layer::Claim`] on each of its layers.
///
/// # Errors
/// When a layer is missing, or the config's layers are not those of the manifest. Nothing is visible then.
pub fn commit(layout: &Layout, new: NewImage) -> Result<ImageRecord> {
    commit_with(layout, new, &[])
}

/// [`commit`] with further blobs of the index that are no images.
pub fn commit_with(layout: &Layout, new: NewImage, extra: &[Vec<u8>]) -> Result<ImageRecord> {
    let config = ConfigDocument::parse(&new.config)?;
    let Document::Manifest(manifest) = crate::image::manifest::parse(&new.manifest, None)? else {
        bail!("an index in the place of a manifest");
    };
    let id = digest_of(&new.config);
    if manifest.config.digest != id {
        bail!("the config is {id}, its manifest says {}", manifest.config.digest);
    }
    if manifest.layers.len() != config.rootfs.diff_ids.len() {
        bail!("the manifest has {} layers, the config {}", manifest.layers.len(), config.rootfs.diff_ids.len());
    }
    if !new.staged.is_empty() || (!new.blobs.is_empty() && !new.synced) {
        layer::sync(layout)?;
    }
    let _store = lock::lock(&layout.lock(), Rank::Store, Mode::Shared)?;
    layer::publish(layout, new.staged)?;
    for (path, digest) in &new.blobs {
        adopt_blob(layout, path, digest)?;
    }
    if !new.blobs.is_empty() {
        file::sync_directory(&layout.blobs())?;
    }
    let mut size = 0;
    for diff_id in &config.rootfs.diff_ids {
        let layer = layer::load(layout, diff_id.hex())?;
        size += layer.with_context(|| format!("layer {diff_id} is not there"))?.size;
    }
    put_blob(layout, &new.config)?;
    let source = Source {
        manifest: put_blob(layout, &new.manifest)?,
        index: new.index.map(|index| put_blob(layout, &index)).transpose()?,
        blobs: manifest.layers.iter().map(|layer: &Descriptor| layer.digest.clone()).collect(),
        extra: extra.iter().map(|blob| put_blob(layout, blob)).collect::<Result<_>>()?,
    };
    let now = event::now_ns();
    let mut record = ImageRecord {
        version: VERSION,
        id: id.clone(),
        manifests: vec![source],
        size,
        created_ns: config.created_ns(),
        stored_ns: now,
        layers: config.rootfs.diff_ids,
    };
    if let Some(old) = ImageRecord::load(layout, &id)? {
        let newest = record.manifests[0].manifest.clone();
        record.manifests.extend(old.manifests.into_iter().filter(|source| source.manifest != newest));
        record.stored_ns = old.stored_ns;
    }
    file::replace_json(&ImageRecord::path(layout, &id), &record, Durability::Durable)?;
    for name in &new.names {
        set_tag(layout, name, &id)?;
    }
    let shown = new.names.first().map_or_else(|| id.hex().to_owned(), Reference::to_string);
    record_event(layout, new.event, &id, &shown);
    Ok(record)
}
