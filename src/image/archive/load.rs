//! `load`: images of an archive or directory into the store.

use crate::failure::{Failure, Kind};
use crate::host::userns::Privilege;
use crate::image::archive::source::{Section, Source, blob_name};
use crate::image::config::ConfigDocument;
use crate::image::manifest::{
    self, CONFIG_LIMIT_BYTES, Descriptor, Document, Index, MANIFEST_LIMIT_BYTES, Manifest, Platform, media,
};
use crate::image::parallel;
use crate::image::reference::Reference;
use crate::image::store::{self, ImageRecord, NewImage};
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use crate::storage::compress::Compression;
use crate::storage::layer::{self, Claim, Staged, StagedFile};
use crate::storage::pipe::HashingReader;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

/// What docker and containerd call an image in an OCI layout.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// What the OCI calls it: a name for podman, only a tag for skopeo.
pub(super) const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of `manifest.json` in a docker-archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Vec<String>,
}

/// An image that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Its record.
    pub record: ImageRecord,
    /// The names the archive gave it.
    pub names: Vec<Reference>,
}

/// Where images go.
#[derive(Clone, Copy)]
struct Target<'a> {
    layout: &'a Layout,
    privilege: &'a Privilege,
    source: &'a Source,
}

/// Load all images of a source.
pub fn load(layout: &Layout, privilege: &Privilege, source: &Source) -> Result<Vec<Loaded>> {
    let target = Target { layout, privilege, source };
    if let Some(index) = source.read("index.json", MANIFEST_LIMIT_BYTES)? {
        return target.oci(&index);
    }
    let Some(manifest) = source.read("manifest.json", MANIFEST_LIMIT_BYTES)? else {
        return Err(Failure::new(
            Kind::Engine,
            "payload does not match any of the supported image formats: it has neither manifest.json nor index.json",
        )
        .hint("`coracle import` takes the archive of a root file system")
        .into());
    };
    match manifest.trim_ascii_start().first() {
        Some(b'[') => target.docker(&manifest),
        _ => Ok(vec![target.directory(manifest)?]),
    }
}

impl Target<'_> {
    fn docker(&self, manifest: &[u8]) -> Result<Vec<Loaded>> {
        let images: Vec<DockerImage> = serde_json::from_slice(manifest).context("parse manifest.json")?;
        ensure!(!images.is_empty(), "manifest.json names no image");
        images.iter().map(|image| self.docker_image(image)).collect()
    }

    fn docker_image(&self, image: &DockerImage) -> Result<Loaded> {
        let config = self.source.read(&image.config, CONFIG_LIMIT_BYTES)?;
        let config = config.with_context(|| format!("{} is missing", image.config))?;
        let document = ConfigDocument::parse(&config)?;
        let diff_ids = &document.rootfs.diff_ids;
        ensure!(
            diff_ids.len() == image.layers.len(),
            "manifest.json names {} layers, the config {}",
            image.layers.len(),
            diff_ids.len()
        );
        let names = image.repo_tags.iter().flatten().map(|name| Reference::parse_local(name));
        let names = names.collect::<Result<Vec<_>>>()?;
        let claims = Claim::take_all(self.layout, diff_ids.iter().map(Digest::hex))?;
        let mut taken = Taken::default();
        let mut wanted = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(diff_ids) {
            let section = self.source.require(name)?;
            let present = claims.get(diff_id.hex()).is_some_and(|claim| claim.present);
            wanted.push(Wanted { name, section, diff_id, blob: None, present });
        }
        let layers = taken.layers(self, wanted)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::DOCKER_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media::DOCKER_CONFIG, store::digest_of(&config), config.len() as u64),
            layers,
            subject: None,
            annotations: None,
        };
        let manifest = serde_json::to_vec(&manifest)?;
        self.commit(taken, NewDocuments { config, manifest, index: None }, names)
    }

    fn oci(&self, index: &[u8]) -> Result<Vec<Loaded>> {
        let Document::Index(index) = manifest::parse(index, Some(media::OCI_INDEX))? else {
            bail!("index.json is not an index");
        };
        let images: Vec<&Descriptor> = self.images_of(&index);
        ensure!(!images.is_empty(), "index.json names no image for {}", Platform::host());
        let mut loaded: Vec<Loaded> = Vec::new();
        for entry in images {
            let names = names_of(entry)?;
            let bytes = self.source.blob(&entry.digest, MANIFEST_LIMIT_BYTES)?;
            let (manifest, index) = match manifest::parse(&bytes, Some(&entry.media_type))? {
                Document::Manifest(_) => (bytes, None),
                Document::Index(below) => {
                    let chosen = Platform::host().select(&below);
                    let chosen =
                        chosen.with_context(|| format!("{}: no image for {}", entry.digest, Platform::host()))?;
                    (self.source.blob(&chosen.digest, MANIFEST_LIMIT_BYTES)?, Some(bytes))
                }
            };
            let image = self.image(manifest, index, names)?;
            // docker writes one entry a name.
            match loaded.iter_mut().find(|other| other.record.id == image.record.id) {
                Some(other) => other.names.extend(image.names),
                None => loaded.push(image),
            }
        }
        Ok(loaded)
    }

    /// The entries that are meant: all, but of the platforms of one image only ours.
    fn images_of<'a>(&self, index: &'a Index) -> Vec<&'a Descriptor> {
        let host = Platform::host();
        let images = || index.manifests.iter().filter(|entry| !entry.is_attestation());
        let fits = |entry: &&Descriptor| {
            entry
                .platform
                .as_ref()
                .is_none_or(|platform| platform.os == host.os && platform.architecture == host.architecture)
        };
        let fitting: Vec<&Descriptor> = images().filter(fits).collect();
        if fitting.is_empty() { images().collect() } else { fitting }
    }

    /// docker's `dir`: manifest and blobs side by side.
    fn directory(&self, manifest: Vec<u8>) -> Result<Loaded> {
        self.image(manifest, None, Vec::new())
    }

    /// An image whose manifest is in hand.
    fn image(&self, manifest: Vec<u8>, index: Option<Vec<u8>>, names: Vec<Reference>) -> Result<Loaded> {
        let Document::Manifest(parsed) = manifest::parse(&manifest, None)? else { bail!("an index in an index") };
        ensure!(parsed.is_image(), "{} is no image but `{}`", store::digest_of(&manifest), parsed.config.media_type);
        let config = self.read_blob(&parsed.config)?;
        let document = ConfigDocument::parse(&config)?;
        let diff_ids = &document.rootfs.diff_ids;
        ensure!(
            diff_ids.len() == parsed.layers.len(),
            "the manifest has {} layers, the config {}",
            parsed.layers.len(),
            diff_ids.len()
        );
        let claims = Claim::take_all(self.layout, diff_ids.iter().map(Digest::hex))?;
        let mut taken = Taken::default();
        let mut wanted = Vec::new();
        for (descriptor, diff_id) in parsed.layers.iter().zip(diff_ids) {
            manifest::check_layer(descriptor)?;
            let section = self.member(&descriptor.digest)?;
            let present = claims.get(diff_id.hex()).is_some_and(|claim| claim.present);
            wanted.push(Wanted { name: descriptor.digest.as_str(), section, diff_id, blob: Some(descriptor), present });
        }
        taken.layers(self, wanted)?;
        self.commit(taken, NewDocuments { config, manifest, index }, names)
    }

    /// A blob of an OCI layout or of docker's `dir`.
    fn member(&self, digest: &Digest) -> Result<Section> {
        match self.source.member(&blob_name(digest))? {
            Some(section) => Ok(section),
            None => self.source.require(digest.hex()),
        }
    }

    fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut section = self.member(&descriptor.digest)?;
        let shown = &descriptor.digest;
        ensure!(section.len() == descriptor.size, "{shown} has {} bytes, not {}", section.len(), descriptor.size);
        ensure!(descriptor.size <= CONFIG_LIMIT_BYTES, "{shown} has {} bytes: too many for a config", descriptor.size);
        let mut content = Vec::new();
        section.read_to_end(&mut content)?;
        let found = store::digest_of(&content);
        ensure!(found == descriptor.digest, "the digest of the config is {found}, not {shown}");
        Ok(content)
    }

    fn commit(&self, taken: Taken, documents: NewDocuments, names: Vec<Reference>) -> Result<Loaded> {
        let new = NewImage {
            config: documents.config,
            manifest: documents.manifest,
            index: documents.index,
            staged: taken.staged,
            synced: false,
            blobs: taken.blobs.iter().map(|(file, digest)| (file.path().to_owned(), digest.clone())).collect(),
            names: names.clone(),
            event: "loadfromarchive",
        };
        Ok(Loaded { record: store::commit(self.layout, new)?, names })
    }
}

struct NewDocuments {
    config: Vec<u8>,
    manifest: Vec<u8>,
    index: Option<Vec<u8>>,
}

/// Names an index gives to an entry.
fn names_of(entry: &Descriptor) -> Result<Vec<Reference>> {
    match entry.annotation(CONTAINERD_NAME).or_else(|| entry.annotation(OCI_NAME)) {
        Some(name) if !name.is_empty() => Ok(vec![Reference::parse_local(name)?]),
        _ => Ok(Vec::new()),
    }
}

/// Layers unpacked at once: each has a thread that inflates and one that writes.
const AT_ONCE: usize = 3;

/// What is known of a layer that is to be taken.
struct Wanted<'a> {
    /// What it is called in errors.
    name: &'a str,
    section: Section,
    diff_id: &'a Digest,
    blob: Option<&'a Descriptor>,
    present: bool,
}

/// A layer that was unpacked, and what came if it is kept.
struct Made {
    staged: Staged,
    kept: Option<StagedFile>,
}

/// Layers of one image on their way.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) staged: Vec<Staged>,
    pub(super) blobs: Vec<(StagedFile, Digest)>,
}

impl Taken {
    /// Take layers: unpack those that are not there, several at once.
    fn layers(&mut self, target: &Target<'_>, wanted: Vec<Wanted<'_>>) -> Result<Vec<Descriptor>> {
        let mut seen = BTreeSet::new();
        let missing: Vec<&Wanted<'_>> =
            wanted.iter().filter(|layer| !layer.present && seen.insert(layer.diff_id)).collect();
        let made = parallel::each(missing.len(), AT_ONCE, |at| {
            missing[at].unpack(target).with_context(|| format!("layer {}", missing[at].name))
        })?;
        let mut digests: BTreeMap<&Digest, Digest> = BTreeMap::new();
        for (layer, Made { staged, kept }) in missing.iter().zip(made) {
            digests.insert(layer.diff_id, staged.blob.clone());
            self.blobs.extend(kept.map(|kept| (kept, staged.blob.clone())));
            self.staged.push(staged);
        }
        let describe = |layer: &Wanted<'_>, blobs: &mut Vec<(StagedFile, Digest)>| -> Result<Descriptor> {
            let compression = layer.section.compression()?;
            let digest = match (layer.blob, digests.get(layer.diff_id)) {
                (Some(blob), _) => blob.digest.clone(),
                // Unpacked from a member that may be compressed otherwise than this one.
                (None, Some(digest)) if missing.iter().any(|other| std::ptr::eq(*other, layer)) => digest.clone(),
                (None, _) if compression == Compression::None => layer.diff_id.clone(),
                (None, _) => {
                    let (kept, digest) = keep(target.layout, layer.section.clone())?;
                    blobs.push((kept, digest.clone()));
                    digest
                }
            };
            Ok(Descriptor::new(media_type(compression), digest, layer.section.len()))
        };
        wanted.iter().map(|layer| describe(layer, &mut self.blobs)).collect()
    }
}

impl Wanted<'_> {
    /// Unpack it, and keep what came if it cannot be made again from what was unpacked.
    fn unpack(&self, target: &Target<'_>) -> Result<Made> {
        let section = self.section.clone();
        if let Some(blob) = self.blob {
            ensure!(section.len() == blob.size, "it has {} bytes, its manifest says {}", section.len(), blob.size);
        }
        let layout = target.layout;
        let compressed = section.compression()? != Compression::None;
        let mut kept = if compressed { Some(StagedFile::create(layout)?) } else { None };
        let reader: Box<dyn Read + Send> = match &kept {
            Some(kept) => Box::new(Tee { source: section, target: kept.file().try_clone()? }),
            None => Box::new(section),
        };
        let input = layer::Input {
            reader,
            blob: self.blob.map(|blob| blob.digest.clone()),
            blob_size: self.blob.map(|blob| blob.size),
            diff_id: Some(self.diff_id.clone()),
        };
        let staged = layer::stage(layout, target.privilege, input)?;
        if kept.is_none() && !staged.record.whole {
            kept = Some(keep(layout, self.section.clone())?.0);
        }
        Ok(Made { staged, kept })
    }
}

/// Keep the bytes as they come.
fn keep(layout: &Layout, section: Section) -> Result<(StagedFile, Digest)> {
    let kept = StagedFile::create(layout)?;
    let mut hashing = HashingReader::new(section);
    std::io::copy(&mut hashing, &mut kept.file())?;
    let (hash, _) = hashing.finish();
    Ok((kept, Digest::from_sha256(&hash)))
}

/// docker's word for a layer.
fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media::DOCKER_LAYER,
        Compression::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        _ => media::DOCKER_LAYER_GZIP,
    }
}

/// Writes what is read.
pub(super) struct Tee<R> {
    pub(super) source: R,
    pub(super) target: std::fs::File,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.target.write_all(&buffer[..count])?;
        Ok(count)
    }
}
