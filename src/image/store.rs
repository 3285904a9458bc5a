//! Images on disk: which there are, what they are called, what they consist of.
//!
//! `images/ID.json` makes an image exist; `tags/NAME` is a link to it; `blobs/sha256/HEX` holds its documents and its
//! layers as they came; `layers-v1/HEX` its layers unpacked. A record is written last, when all it names is on disk, and
//! removed first. There is no index: a name that is spelled out costs two reads, anything else one look at `tags/`.

mod blob;
mod commit;
mod find;
mod garbage;
mod history;
mod tag;

pub use blob::{adopt_blob, blob_path, digest_of, manifest, plain_copy, put_blob, read_blob};
pub use commit::{NewImage, commit, commit_with};
pub use find::{find, not_known, require, resolve, tagged};
pub use garbage::{collect, exclusive, reach, remove};
pub use history::{HistoryLine, history};
pub use tag::{names_of, tag, tag_because, tags, untag};

use crate::image::config::ConfigDocument;
use crate::image::reference::Reference;
use crate::model::digest::Digest;
use crate::state::event::{self, Event};
use crate::state::file;
use crate::state::layout::Layout;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The number in `images/ID.json`.
pub const VERSION: u32 = 1;

/// `images/ID.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Format of this document.
    pub version: u32,
    /// Digest of the config: the image's id.
    pub id: Digest,
    /// The manifests it came by, the last one first. Different compressions of one image have different manifests.
    pub manifests: Vec<Source>,
    /// Diff ids of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of all layers' files.
    pub size: u64,
    /// When it was made, nanoseconds since 1970.
    pub created_ns: i64,
    /// When it came here, nanoseconds since 1970.
    pub stored_ns: i64,
}

/// A manifest an image came by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its digest.
    pub manifest: Digest,
    /// The index it was chosen from, kept as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The compressed layers, lowest first; those that are kept are in `blobs/`.
    #[serde(default)]
    pub blobs: Vec<Digest>,
    /// What else of the index is kept: attestations and other artifacts with their blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<Digest>,
}

/// An image with its config.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its record.
    pub record: ImageRecord,
    /// Its config document.
    pub config: ConfigDocument,
    /// The name it was found by, in full; absent: it was found by its id or digest.
    pub name: Option<Reference>,
}

impl Image {
    /// The id, 64 digits.
    pub fn id(&self) -> &str {
        self.record.id.hex()
    }

    /// Diff ids of the layers, 64 digits each, lowest first.
    pub fn layers(&self) -> Vec<String> {
        self.record.layers.iter().map(|layer| layer.hex().to_owned()).collect()
    }

    /// The digest a registry knows it by.
    pub fn digest(&self) -> Option<&Digest> {
        self.record.digest()
    }
}

impl ImageRecord {
    /// Where the record of an image is.
    pub fn path(layout: &Layout, id: &Digest) -> PathBuf {
        layout.images().join(format!("{}.json", id.hex()))
    }

    /// The digest a registry knows it by: that of the manifest it came by last.
    pub fn digest(&self) -> Option<&Digest> {
        self.manifests.first().map(|source| &source.manifest)
    }

    /// Read a record; `None`: there is no such image.
    pub fn load(layout: &Layout, id: &Digest) -> Result<Option<ImageRecord>> {
        ImageRecord::read(&ImageRecord::path(layout, id))
    }

    fn read(path: &Path) -> Result<Option<ImageRecord>> {
        let record: Option<ImageRecord> = file::read_json(path)?;
        if let Some(record) = &record
            && record.version > VERSION
        {
            bail!("{} has version {}, this coracle knows {VERSION}", path.display(), record.version);
        }
        Ok(record)
    }

    /// Its config document.
    pub fn config(&self, layout: &Layout) -> Result<ConfigDocument> {
        ConfigDocument::parse(&read_blob(layout, &self.id)?)
    }

    fn has_digest(&self, digest: &Digest) -> bool {
        self.manifests.iter().any(|source| source.manifest == *digest || source.index.as_ref() == Some(digest))
    }
}

/// Ids of all images, in no order.
pub fn ids(layout: &Layout) -> Result<Vec<Digest>> {
    let names = entry_names(&layout.images())?;
    Ok(names.iter().filter_map(|name| Digest::parse(&format!("sha256:{}", name.strip_suffix(".json")?)).ok()).collect())
}

/// All images, in no order. One that cannot be read is reported on standard error and passed over.
pub fn list(layout: &Layout) -> Result<Vec<ImageRecord>> {
    let mut images = Vec::new();
    for id in ids(layout)? {
        match ImageRecord::load(layout, &id) {
            Ok(image) => images.extend(image),
            Err(error) => eprintln!("coracle: passed over: {error:#}"),
        }
    }
    Ok(images)
}

fn entry_names(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect())
}

/// Write an event about an image.
pub fn record_event(layout: &Layout, status: &str, id: &Digest, name: &str) {
    event::record(
        layout,
        Event {
            kind: "image".to_owned(),
            status: status.to_owned(),
            id: id.hex().to_owned(),
            name: name.to_owned(),
            ..Event::default()
        },
    );
}
