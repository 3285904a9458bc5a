//! An image of the store as the source of a copy, and the store as where a copy goes.

use crate::host::userns::Privilege;
use crate::image::config::ConfigDocument;
use crate::image::copy::convert::{Section, compression_of};
use crate::image::copy::{Checked, Layer, Source};
use crate::image::manifest::{self, CONFIG_LIMIT_BYTES, Descriptor, Document, Platform};
use crate::image::progress::Progress;
use crate::image::pull::no_platform;
use crate::image::reference::Reference;
use crate::image::registry::Fetched;
use crate::image::store::{self, Image, ImageRecord, NewImage};
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use crate::storage::compress::Compression;
use crate::storage::layer::{self, Claim, StagedFile};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

/// An image of the store.
pub struct StoreSource<'a> {
    layout: &'a Layout,
    top: Fetched,
    image: Image,
}

impl<'a> StoreSource<'a> {
    /// By the manifest it came by last; or, with `index`, by the index that one was chosen from.
    pub fn open(layout: &'a Layout, image: Image, index: bool) -> Result<StoreSource<'a>> {
        let source = image.record.manifests.first().context("the image has no manifest")?;
        let digest = match (index, &source.index) {
            (false, _) => &source.manifest,
            (true, Some(index)) => index,
            (true, None) => bail!("the image was not chosen from an index"),
        };
        Ok(StoreSource { layout, top: document(layout, digest)?, image })
    }
}

/// A document of the store.
pub fn document(layout: &Layout, digest: &Digest) -> Result<Fetched> {
    let bytes = store::read_blob(layout, digest)?;
    let found = Digest::of(&bytes);
    ensure!(found == *digest, "{}: its digest is {found}", store::blob_path(layout, digest).display());
    let document = manifest::parse(&bytes, None)?;
    Ok(Fetched { bytes, digest: found, document })
}

impl Source for StoreSource<'_> {
    fn top(&self) -> &Fetched {
        &self.top
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        if !store::blob_path(self.layout, &descriptor.digest).exists() {
            let shown = descriptor.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(crate::failure::Failure::new(
                crate::failure::Kind::Engine,
                format!("manifest {} ({shown}) of the index is not in the store", descriptor.digest),
            )
            .hint("`coracle pull --all-platforms` fetches all of an index")
            .into());
        }
        document(self.layout, &descriptor.digest)
    }

    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>> {
        let path = store::blob_path(self.layout, &descriptor.digest);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Box::new(Section::new(Arc::new(file), start)))
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        store::blob_path(self.layout, &descriptor.digest).exists()
    }

    fn plain(&self, layer: &Layer<'_>) -> Result<Box<dyn Read + Send + '_>> {
        if self.has(layer.descriptor) {
            let checked = Checked::new(self.open(layer.descriptor, 0)?, layer.descriptor);
            return Ok(crate::storage::compress::decompress(checked)?.1);
        }
        let diff_id = layer.diff_id.context("a layer without a diff id")?;
        if let Some(kept) = self.kept_otherwise(diff_id) {
            return Ok(crate::storage::compress::decompress(File::open(kept)?)?.1);
        }
        // Made again into a file: whoever compresses it must not see a half one.
        let mut file = super::convert::nameless(self.layout)?;
        layer::assemble(self.layout, diff_id.hex(), &mut file)?;
        Ok(Box::new(Section::new(Arc::new(file), 0)))
    }
}

impl StoreSource<'_> {
    /// The same layer as it came with another manifest.
    fn kept_otherwise(&self, diff_id: &Digest) -> Option<std::path::PathBuf> {
        let index = self.image.record.layers.iter().position(|layer| layer == diff_id)?;
        let blobs = self.image.record.manifests.iter().filter_map(|source| source.blobs.get(index));
        blobs.map(|blob| store::blob_path(self.layout, blob)).find(|path| path.exists())
    }
}

/// Keeps in a file what is read.
struct Tee<R> {
    reader: R,
    file: File,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.file.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Where a copy into the store goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The store.
    pub layout: &'a Layout,
    /// As whom layers are unpacked.
    pub privilege: &'a Privilege,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Copy an image into the store. From a registry [`crate::image::pull`] is the better way.
pub fn receive(
    target: Target<'_>,
    source: &dyn Source,
    names: Vec<Reference>,
    platform: Option<Platform>,
) -> Result<ImageRecord> {
    let top = source.top();
    let (fetched, index) = match &top.document {
        Document::Manifest(_) => (top.clone(), None),
        Document::Index(index) => {
            let wanted = platform.unwrap_or_else(Platform::host);
            let chosen = wanted.select(index).with_context(|| no_platform(index, &wanted))?;
            (source.document(chosen)?, Some(top.bytes.clone()))
        }
    };
    let Document::Manifest(manifest) = &fetched.document else {
        bail!("{} is an index inside an index", fetched.digest)
    };
    ensure!(manifest.is_image(), "{} is an artifact, not an image", fetched.digest);
    manifest.layers.iter().try_for_each(manifest::check_layer)?;
    ensure!(manifest.config.size <= CONFIG_LIMIT_BYTES, "the config has {} bytes", manifest.config.size);
    let mut config = Vec::new();
    Checked::new(source.open(&manifest.config, 0)?, &manifest.config).read_to_end(&mut config)?;
    let document = ConfigDocument::parse(&config)?;
    let diff_ids = &document.rootfs.diff_ids;
    ensure!(
        diff_ids.len() == manifest.layers.len(),
        "the manifest has {} layers, the config {}",
        manifest.layers.len(),
        diff_ids.len()
    );
    let mut claims = Vec::new();
    let mut kept = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let meter = target.progress.blob(&format!("Copying blob {}", descriptor.digest.short()), Some(descriptor.size));
        let mut claim = Claim::take(target.layout, diff_id.hex())?;
        let plain = compression_of(&descriptor.media_type) == Compression::None;
        // As it came, so that the image's digest stays; a plain archive can be made again.
        let blob = match plain || store::blob_path(target.layout, &descriptor.digest).exists() {
            true => None,
            false => Some(StagedFile::create(target.layout)?),
        };
        if claim.present {
            if let Some(blob) = &blob {
                let mut reader = Checked::new(source.open(descriptor, 0)?, descriptor);
                std::io::copy(&mut reader, &mut blob.file())
                    .with_context(|| format!("copying blob {}", descriptor.digest))?;
            }
            meter.finish(if blob.is_some() { "done" } else { "skipped: already exists" });
        } else {
            let reader = source.open(descriptor, 0)?;
            let input = layer::Input {
                reader: match &blob {
                    Some(blob) => Box::new(Tee { reader, file: blob.file().try_clone()? }),
                    None => reader,
                },
                blob: Some(descriptor.digest.clone()),
                blob_size: Some(descriptor.size),
                diff_id: Some(diff_id.clone()),
            };
            let what = || format!("copying blob {}", descriptor.digest);
            let staged = layer::stage(target.layout, target.privilege, input).with_context(what)?;
            layer::sync(target.layout)?;
            let _store = lock::lock(&target.layout.lock(), Rank::Store, Mode::Shared)?;
            layer::publish(target.layout, vec![staged])?;
            claim.share()?;
            meter.finish("done");
        }
        kept.extend(blob.map(|blob| (blob, descriptor.digest.clone())));
        claims.push(claim);
    }
    target.progress.say("Writing manifest to image destination");
    store::commit(
        target.layout,
        NewImage {
            config,
            manifest: fetched.bytes,
            index,
            staged: Vec::new(),
            synced: false,
            blobs: kept.iter().map(|(blob, digest)| (blob.path().to_owned(), digest.clone())).collect(),
            names,
            event: "pull",
        },
    )
}
