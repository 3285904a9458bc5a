//! `import`: an image of one layer from the archive of a root file system.

use crate::host::userns::Privilege;
use crate::image::config::{ConfigDocument, History, RootFs, rfc3339};
use crate::image::manifest::{Descriptor, Manifest, Platform, media};
use crate::image::reference::Reference;
use crate::image::store::{self, ImageRecord, NewImage};
use crate::model::image::ImageConfig;
use crate::state::event::now_ns;
use crate::state::layout::Layout;
use crate::storage::compress::Compression;
use crate::storage::layer::{self, Claim, StagedFile};
use anyhow::{Context, Result};
use std::io::Read;

/// What the new image is to be.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name.
    pub name: Option<Reference>,
    /// Its config, changes applied.
    pub config: ImageConfig,
    /// Remark in its history.
    pub message: String,
    /// Where it came from, for its history.
    pub origin: String,
    /// For which platform.
    pub platform: Platform,
}

/// Read the archive and make the image.
pub fn import(
    layout: &Layout,
    privilege: &Privilege,
    wish: Wish,
    archive: Box<dyn Read + Send + '_>,
) -> Result<ImageRecord> {
    // The archive is kept as it comes only if it cannot be made again from what is unpacked, which is seen at the end.
    let spooled = StagedFile::create(layout)?;
    let tee = super::load::Tee { source: archive, target: spooled.file().try_clone()? };
    let input = layer::Input { reader: Box::new(tee), blob: None, blob_size: None, diff_id: None };
    let staged = layer::stage(layout, privilege, input).context("unpack the archive")?;
    let mut blobs = Vec::new();
    let layer = if staged.compression == Compression::None && staged.record.whole {
        Descriptor::new(media::OCI_LAYER, staged.blob.clone(), staged.blob_size)
    } else {
        let media_type = match staged.compression {
            Compression::Gzip => media::OCI_LAYER_GZIP,
            Compression::Zstd => media::OCI_LAYER_ZSTD,
            _ => media::OCI_LAYER,
        };
        match staged.compression {
            // No registry takes these: the image has the plain archive.
            Compression::Xz | Compression::Bzip2 => {
                let (file, digest, size) = store::plain_copy(layout, spooled)?;
                blobs.extend((!staged.record.whole).then(|| (file, digest.clone())));
                Descriptor::new(media_type, digest, size)
            }
            _ => {
                let (digest, size) = (staged.blob.clone(), staged.blob_size);
                blobs.push((spooled, digest.clone()));
                Descriptor::new(media_type, digest, size)
            }
        }
    };
    let diff_id = staged.record.diff_id.clone();
    let claim = Claim::take(layout, diff_id.hex())?;
    let created = rfc3339(now_ns());
    let document = ConfigDocument {
        created: Some(created.clone()),
        author: None,
        architecture: wish.platform.architecture,
        variant: wish.platform.variant,
        os: wish.platform.os,
        config: wish.config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
        history: vec![History {
            created: Some(created),
            created_by: format!("/bin/sh -c #(nop) ADD file:{} in /", wish.origin),
            comment: wish.message,
            ..History::default()
        }],
        other: serde_json::Map::new(),
    };
    let config = serde_json::to_vec(&document)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(media::OCI_CONFIG, store::digest_of(&config), config.len() as u64),
        layers: vec![layer],
        subject: None,
        annotations: None,
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let staged = if claim.present { Vec::new() } else { vec![staged] };
    let names = wish.name.into_iter().collect();
    let paths = blobs.iter().map(|(file, digest): &(StagedFile, _)| (file.path().to_owned(), digest.clone())).collect();
    store::commit(
        layout,
        NewImage { config, manifest, index: None, staged, blobs: paths, synced: false, names, event: "import" },
    )
}
