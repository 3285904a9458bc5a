//! An image from anywhere to anywhere: registry, OCI layout, archive, directory, store.
//!
//! The story of [`copy`]: the top document -> of an index one image or all -> its layers, each once, those that are there
//! not at all -> config -> manifest -> index. What need not change is sent byte for byte, so its digest stays.
//!
//! Invariant: every byte that leaves a [`Source`] for a [`Sink`] went through [`Checked`] or was hashed whole.

pub mod archive;
mod convert;
pub mod directory;
pub mod layout;
pub mod place;
pub mod registry;
pub mod store;

pub use convert::{Conversion, Format};

use crate::image::manifest::{self, Descriptor, Document, Index, Manifest, Platform};
use crate::image::parallel;
use crate::image::progress::{Meter, Progress};
use crate::image::pull::no_platform;
use crate::image::registry::{Fetched, Repository};
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use anyhow::{Context, Result, bail, ensure};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::io::Read;

/// Where an image comes from.
pub trait Source: Sync {
    /// Manifest or index.
    fn top(&self) -> &Fetched;

    /// A manifest that an index names.
    fn document(&self, descriptor: &Descriptor) -> Result<Fetched>;

    /// A blob from this byte on. Not checked yet.
    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// Whether the blob is there as it is described; a store may have a layer only unpacked.
    fn has(&self, _descriptor: &Descriptor) -> bool {
        true
    }

    /// A layer's plain archive.
    fn plain(&self, layer: &Layer<'_>) -> Result<Box<dyn Read + Send + '_>> {
        let checked = Checked::new(self.open(layer.descriptor, 0)?, layer.descriptor);
        Ok(crate::storage::compress::decompress(checked)?.1)
    }

    /// The repository it is in.
    fn repository(&self) -> Option<&Repository> {
        None
    }
}

/// A layer of an image, as the manifest and as the config name it.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The blob.
    pub descriptor: &'a Descriptor,
    /// Its plain archive's digest; absent for what is no image.
    pub diff_id: Option<&'a Digest>,
}

/// Where an image goes to.
pub trait Sink: Sync {
    /// Whether a blob is there.
    fn has(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Take a blob. `from`: a repository of a registry that has it.
    fn put(&self, blob: &Blob<'_>, from: Option<&Repository>, meter: &dyn Meter) -> Result<()>;

    /// Take a manifest or index; `top`: it is what the image's name stands for.
    fn put_document(&self, fetched: &Fetched, top: bool) -> Result<()>;

    /// How layers that are not compressed should be, unless told otherwise.
    fn wants_compression(&self) -> bool {
        false
    }

    /// All is there.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// A blob to take.
pub struct Blob<'a> {
    /// What it must be.
    pub descriptor: &'a Descriptor,
    /// What it is in the image.
    pub role: Role<'a>,
    /// Opens it from a byte on.
    pub open: &'a (dyn Fn(u64) -> Result<Box<dyn Read + Send + 'a>> + Sync + 'a),
}

/// What a blob is in its image.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    /// The config.
    Config,
    /// A layer; with its diff id where that is known.
    Layer(Option<&'a Digest>),
}

impl<'a> Blob<'a> {
    /// The whole of it; reading to the end proves its digest.
    pub fn read(&self) -> Result<Checked<Box<dyn Read + Send + 'a>>> {
        Ok(Checked::new((self.open)(0)?, self.descriptor))
    }
}

/// What to copy, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Of an index, the image for this machine; absent: for ours.
    pub platform: Option<Platform>,
    /// The whole index.
    pub all: bool,
    /// What to change.
    pub conversion: Conversion,
    /// Blobs at once.
    pub parallel: usize,
}

/// A copy under way.
pub struct Copy<'a> {
    /// From.
    pub source: &'a dyn Source,
    /// To.
    pub sink: &'a dyn Sink,
    /// How.
    pub options: &'a Options,
    /// For what is compressed anew.
    pub layout: &'a Layout,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Copy. Returns the top document as it was written.
pub fn copy(copy: &Copy<'_>) -> Result<Fetched> {
    let top = copy.source.top();
    let written = match &top.document {
        Document::Manifest(_) => copy.image(top, true)?,
        Document::Index(index) if copy.options.all => copy.index(top, index, true)?,
        Document::Index(index) => {
            let wanted = copy.options.platform.clone().unwrap_or_else(Platform::host);
            let chosen = wanted.select(index).with_context(|| no_platform(index, &wanted))?;
            copy.image(&copy.source.document(chosen)?, true)?
        }
    };
    copy.sink.finish()?;
    Ok(written)
}

impl Copy<'_> {
    fn index(&self, fetched: &Fetched, index: &Index, top: bool) -> Result<Fetched> {
        let mut changed = false;
        let mut entries = Vec::with_capacity(index.manifests.len());
        for entry in &index.manifests {
            let document = self.source.document(entry)?;
            let written = match &document.document {
                Document::Manifest(_) => self.image(&document, false)?,
                Document::Index(inner) if top => self.index(&document, inner, false)?,
                Document::Index(_) => bail!("{}: indexes are nested too deep", entry.digest),
            };
            changed |= written.digest != entry.digest;
            let new = written.descriptor();
            entries.push(Descriptor {
                media_type: new.media_type,
                digest: new.digest,
                size: new.size,
                ..entry.clone()
            });
        }
        let media_type = self.options.conversion.index_type(fetched.document.media_type());
        let written = if changed || media_type != fetched.document.media_type() {
            let index = Index { media_type: Some(media_type.to_owned()), manifests: entries, ..index.clone() };
            fetched_of(Document::Index(index))?
        } else {
            fetched.clone()
        };
        self.progress.say("Writing manifest list to image destination");
        self.sink.put_document(&written, top)?;
        Ok(written)
    }

    fn image(&self, fetched: &Fetched, top: bool) -> Result<Fetched> {
        let Document::Manifest(manifest) = &fetched.document else {
            bail!("{} is an index in the place of a manifest", fetched.digest);
        };
        let config = self.small(&manifest.config)?;
        let diff_ids = if manifest.has_layers() { diff_ids(&config, manifest)? } else { Vec::new() };
        let layer = |number: usize| Layer { descriptor: &manifest.layers[number], diff_id: diff_ids.get(number) };
        // A layer that stands twice in an image is copied once.
        let mut first = BTreeMap::new();
        for (number, descriptor) in manifest.layers.iter().enumerate() {
            first.entry(&descriptor.digest).or_insert(number);
        }
        let numbers: Vec<usize> = first.values().copied().collect();
        let threads = self.options.parallel;
        let written = parallel::each(numbers.len(), threads, |at| self.layer(&layer(numbers[at])))?;
        let by_digest: BTreeMap<&Digest, &Descriptor> =
            numbers.iter().map(|number| &manifest.layers[*number].digest).zip(&written).collect();
        let layers: Vec<Descriptor> = manifest.layers.iter().map(|layer| (*by_digest[&layer.digest]).clone()).collect();
        self.config(&manifest.config, &config)?;
        let new = self.options.conversion.manifest(manifest, layers)?;
        let written = if new == *manifest { fetched.clone() } else { fetched_of(Document::Manifest(new))? };
        if top {
            self.progress.say("Writing manifest to image destination");
        }
        self.sink.put_document(&written, top)?;
        Ok(written)
    }

    fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        ensure!(
            descriptor.size <= manifest::CONFIG_LIMIT_BYTES,
            "the config {} has {} bytes",
            descriptor.digest,
            descriptor.size
        );
        let mut bytes = Vec::new();
        let mut reader = Checked::new(self.source.open(descriptor, 0)?, descriptor);
        reader.read_to_end(&mut bytes).with_context(|| format!("reading config {}", descriptor.digest))?;
        Ok(bytes)
    }

    fn config(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let meter = self.progress.blob(&format!("Copying config {}", descriptor.digest.short()), Some(descriptor.size));
        if self.sink.has(descriptor)? {
            meter.finish("skipped: already exists");
            return Ok(());
        }
        let open = |start: u64| -> Result<Box<dyn Read + Send + '_>> {
            Ok(Box::new(&bytes[usize::try_from(start)?.min(bytes.len())..]))
        };
        let blob = Blob { descriptor, role: Role::Config, open: &open };
        self.sink.put(&blob, self.source.repository(), &*meter)?;
        meter.finish("done");
        Ok(())
    }

    /// Copy one layer. Returns its descriptor over there.
    fn layer(&self, layer: &Layer<'_>) -> Result<Descriptor> {
        let Layer { descriptor, diff_id } = *layer;
        if diff_id.is_some() {
            manifest::check_layer(descriptor)?;
        }
        let shown = descriptor.digest.short();
        let conversion = &self.options.conversion;
        let target = match diff_id {
            Some(_) => conversion.target(self.source, descriptor, self.sink.wants_compression())?,
            None => None,
        };
        let there = target.is_none_or(|target| !target.forced) && self.sink.has(descriptor)?;
        let meter = self.progress.blob(&format!("Copying blob {shown}"), Some(descriptor.size));
        if there {
            meter.finish("skipped: already exists");
            return Ok(descriptor.clone());
        }
        if let Some(target) = target {
            let made = convert::compress(self.layout, self.source.plain(layer)?, descriptor, target)?;
            if self.sink.has(&made.descriptor)? {
                meter.finish("skipped: already exists");
            } else {
                let open = |start: u64| made.open(start);
                let blob = Blob { descriptor: &made.descriptor, role: Role::Layer(diff_id), open: &open };
                self.sink.put(&blob, None, &*meter)?;
                meter.finish("done");
            }
            return Ok(made.descriptor);
        }
        let open = |start: u64| self.source.open(descriptor, start);
        let blob = Blob { descriptor, role: Role::Layer(diff_id), open: &open };
        self.sink.put(&blob, self.source.repository(), &*meter)?;
        meter.finish("done");
        Ok(descriptor.clone())
    }
}

fn diff_ids(config: &[u8], manifest: &Manifest) -> Result<Vec<Digest>> {
    let config = crate::image::config::ConfigDocument::parse(config)?;
    let diff_ids = config.rootfs.diff_ids;
    ensure!(
        diff_ids.len() == manifest.layers.len(),
        "the manifest has {} layers, the config {}",
        manifest.layers.len(),
        diff_ids.len()
    );
    Ok(diff_ids)
}

/// A document of ours as one that was fetched.
pub fn fetched_of(document: Document) -> Result<Fetched> {
    let bytes = match &document {
        Document::Manifest(manifest) => serde_json::to_vec(manifest)?,
        Document::Index(index) => serde_json::to_vec(index)?,
    };
    Ok(Fetched { digest: Digest::of(&bytes), bytes, document })
}

/// A reader that ends in an error unless what it gave has the promised size and digest.
pub struct Checked<R> {
    reader: R,
    hash: sha2::Sha256,
    left: u64,
    digest: Digest,
    ended: bool,
}

impl<R: Read> Checked<R> {
    /// Of what the descriptor promises.
    pub fn new(reader: R, descriptor: &Descriptor) -> Checked<R> {
        Checked {
            reader,
            hash: sha2::Sha256::new(),
            left: descriptor.size,
            digest: descriptor.digest.clone(),
            ended: false,
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        let wrong = |text: String| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        let count = self.reader.read(buffer)?;
        if count as u64 > self.left {
            return wrong(format!("blob {} is longer than it was said to be", self.digest));
        }
        self.hash.update(&buffer[..count]);
        self.left -= count as u64;
        if count == 0 {
            self.ended = true;
            if self.left > 0 {
                return wrong(format!("blob {} ends {} bytes too early", self.digest, self.left));
            }
            let found = Digest::from_sha256(&std::mem::take(&mut self.hash).finalize());
            if found != self.digest {
                return wrong(format!("blob {} has digest {found}", self.digest));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_readers() {
        let read = |content: &[u8], size: u64, digest: &Digest| {
            let descriptor = Descriptor::new("x", digest.clone(), size);
            let mut out = Vec::new();
            Checked::new(content, &descriptor).read_to_end(&mut out).map(|_| out)
        };
        let digest = Digest::of(b"hello");
        assert_eq!(read(b"hello", 5, &digest).unwrap(), b"hello");
        assert!(read(b"hello", 6, &digest).is_err());
        assert!(read(b"hello", 4, &digest).is_err());
        assert!(read(b"hellx", 5, &digest).is_err());
    }
}
