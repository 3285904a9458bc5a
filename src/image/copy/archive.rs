//! docker-archive: what `docker save` writes, as the source or the sink of a copy.
//!
//! The archive has no manifest of a registry's kind: one is made, of plain layers.

use crate::image::archive::source::Source as Archive;
use crate::image::config::ConfigDocument;
use crate::image::copy::{Blob, Checked, Role, Sink, Source, fetched_of};
use crate::image::manifest::{CONFIG_LIMIT_BYTES, Descriptor, Document, MANIFEST_LIMIT_BYTES, Manifest, media};
use crate::image::progress::Meter;
use crate::image::reference::Reference;
use crate::image::registry::{Fetched, Repository};
use crate::model::digest::Digest;
use crate::state::file;
use crate::state::layout::Layout;
use crate::storage::compress;
use crate::storage::tar::Entry;
use crate::storage::tar::write::Writer;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// An entry of manifest.json.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// An image of an archive.
pub struct ArchiveSource {
    archive: Archive,
    top: Fetched,
    /// Where each blob is.
    members: BTreeMap<Digest, String>,
}

impl ArchiveSource {
    /// The image of that name, or `@N`, or the only one.
    pub fn open(archive: Archive, name: Option<&str>) -> Result<ArchiveSource> {
        let bytes = archive.read("manifest.json", MANIFEST_LIMIT_BYTES)?.context("manifest.json is missing")?;
        let images: Vec<Saved> = serde_json::from_slice(&bytes).context("parse manifest.json")?;
        let image = match name {
            Some(name) => match name.strip_prefix('@') {
                Some(number) => images.get(number.parse::<usize>().context("`@N` is the image's number")?),
                None => {
                    let wanted = Reference::parse(name)?.or_latest();
                    images.iter().find(|image| {
                        let mut tags = image.repo_tags.iter().flatten();
                        tags.any(|tag| Reference::parse(tag).is_ok_and(|tag| tag.or_latest() == wanted))
                    })
                }
            },
            None if images.len() > 1 => bail!("the archive has {} images: name one", images.len()),
            None => images.first(),
        };
        let image = image.with_context(|| format!("no image {} in the archive", name.unwrap_or_default()))?;
        let config = archive.read(&image.config, CONFIG_LIMIT_BYTES)?;
        let config = config.with_context(|| format!("{} is missing", image.config))?;
        let document = ConfigDocument::parse(&config)?;
        ensure!(
            document.rootfs.diff_ids.len() == image.layers.len(),
            "manifest.json and config differ in their layers"
        );
        let mut members = BTreeMap::from([(Digest::of(&config), image.config.clone())]);
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(&document.rootfs.diff_ids) {
            let size = plain_size(&archive, name)?;
            members.insert(diff_id.clone(), name.clone());
            layers.push(Descriptor::new(media::DOCKER_LAYER, diff_id.clone(), size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::DOCKER_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media::DOCKER_CONFIG, Digest::of(&config), config.len() as u64),
            layers,
            subject: None,
            annotations: None,
        };
        Ok(ArchiveSource { archive, top: fetched_of(Document::Manifest(manifest))?, members })
    }
}

/// Length of a layer's plain archive; some tools compress what they save.
fn plain_size(archive: &Archive, name: &str) -> Result<u64> {
    let section = archive.require(name)?;
    let length = section.len();
    let (compression, mut plain) = compress::decompress(section)?;
    Ok(match compression {
        compress::Compression::None => length,
        _ => std::io::copy(&mut plain, &mut std::io::sink()).with_context(|| format!("read {name}"))?,
    })
}

impl Source for ArchiveSource {
    fn top(&self) -> &Fetched {
        &self.top
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        bail!("a docker-archive has no manifest {}", descriptor.digest)
    }

    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>> {
        let name = self.members.get(&descriptor.digest).context("the archive has no such blob")?;
        let (_, mut plain) = compress::decompress(self.archive.require(name)?)?;
        std::io::copy(&mut (&mut plain).take(start), &mut std::io::sink())?;
        Ok(plain)
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        // Layers are not there as a registry wants them: compressed.
        descriptor.media_type == media::DOCKER_CONFIG
    }
}

/// An archive to write.
pub struct ArchiveSink<'a> {
    layout: &'a Layout,
    target: PathBuf,
    staging: PathBuf,
    names: Vec<String>,
    state: Mutex<State>,
}

struct State {
    writer: Option<Writer<BufWriter<File>>>,
    written: BTreeMap<Digest, String>,
    saved: Option<Saved>,
}

impl<'a> ArchiveSink<'a> {
    /// A new file.
    pub fn create(layout: &'a Layout, target: &Path, name: Option<&str>) -> Result<ArchiveSink<'a>> {
        ensure!(!target.exists(), "docker-archive doesn't support modifying existing images: {}", target.display());
        let names = match name {
            Some(name) => vec![Reference::parse(name)?.or_latest().to_string()],
            None => Vec::new(),
        };
        let staging = file::staging_name(target.parent().unwrap_or(Path::new(".")), ".archive");
        let file = File::create_new(&staging).with_context(|| format!("make {}", staging.display()))?;
        let writer = Writer::new(BufWriter::with_capacity(256 << 10, file));
        let state = State { writer: Some(writer), written: BTreeMap::new(), saved: None };
        Ok(ArchiveSink { layout, target: target.to_owned(), staging, names, state: Mutex::new(state) })
    }

    fn write(&self, digest: &Digest, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let what = || format!("write {}", self.target.display());
        let writer = state.writer.as_mut().context("the archive is still open")?;
        writer.entry(&Entry { path: name.as_bytes().to_vec(), stored: size, ..Entry::default() }).with_context(what)?;
        let copied = std::io::copy(content, writer).with_context(what)?;
        ensure!(copied == size, "{name} has {copied} bytes instead of {size}");
        state.written.insert(digest.clone(), name.to_owned());
        Ok(())
    }
}

impl Sink for ArchiveSink<'_> {
    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).written.contains_key(&descriptor.digest))
    }

    fn put(&self, blob: &Blob<'_>, _from: Option<&Repository>, meter: &dyn Meter) -> Result<()> {
        let digest = &blob.descriptor.digest;
        let reader: Checked<_> = blob.read()?;
        match blob.role {
            Role::Config => {
                let name = format!("{}.json", digest.hex());
                self.write(digest, &name, blob.descriptor.size, &mut { reader })?;
            }
            Role::Layer(diff_id) => {
                // A tar says the length first: what is compressed is spooled.
                let (_, mut plain) = compress::decompress(reader)?;
                let mut spool = super::convert::nameless(self.layout)?;
                let size = std::io::copy(&mut plain, &mut spool)?;
                spool.rewind()?;
                let name = format!("{}.tar", diff_id.unwrap_or(digest).hex());
                self.write(digest, &name, size, &mut spool)?;
            }
        }
        meter.add(blob.descriptor.size);
        Ok(())
    }

    fn put_document(&self, fetched: &Fetched, top: bool) -> Result<()> {
        let Document::Manifest(manifest) = &fetched.document else {
            bail!("a docker-archive holds no index");
        };
        ensure!(top && manifest.is_image(), "a docker-archive holds images only");
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |digest: &Digest| state.written.get(digest).cloned().context("a blob that was not written");
        let saved = Saved {
            config: name(&manifest.config.digest)?,
            repo_tags: Some(self.names.clone()).filter(|names| !names.is_empty()),
            layers: manifest.layers.iter().map(|layer| name(&layer.digest)).collect::<Result<_>>()?,
        };
        state.saved = Some(saved);
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let manifest = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            serde_json::to_vec(&[state.saved.as_ref().context("no image was written")?])?
        };
        self.write(&Digest::of(&manifest), "manifest.json", manifest.len() as u64, &mut &manifest[..])?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = state.writer.take().context("the archive is still open")?;
        let what = || format!("write {}", self.target.display());
        writer.finish()?.flush().with_context(what)?;
        std::fs::rename(&self.staging, &self.target).with_context(what)
    }
}

impl Drop for ArchiveSink<'_> {
    fn drop(&mut self) {
        // After the rename there is nothing there.
        let _ = std::fs::remove_file(&self.staging);
    }
}
