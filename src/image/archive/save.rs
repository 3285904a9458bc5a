//! `save`: images as docker-archive, OCI archive, or directories of either kind.
//!
//! The OCI forms and docker's `dir` give manifests and layers as they came, so digests stay; where a compressed layer is
//! not kept, and always in a docker-archive, the plain archive is made again from the unpacked layer.

use crate::failure::{Failure, Kind};
use crate::image::archive::load::{DockerImage, OCI_NAME};
use crate::image::archive::source::blob_name;
use crate::image::manifest::{Descriptor, Document, Index, Manifest, media};
use crate::image::reference::Reference;
use crate::image::store::{self, Image};
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use crate::storage::compress::{Compression, Encoder};
use crate::storage::layer;
use crate::storage::pipe::HashingReader;
use crate::storage::tar::Entry;
use crate::storage::tar::write::Writer;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One tar with manifest.json.
    DockerArchive,
    /// One tar with index.json.
    OciArchive,
    /// An OCI layout.
    OciDirectory,
    /// Manifest and blobs side by side.
    DockerDirectory,
}

/// An image with the names to save it under.
#[derive(Debug)]
pub struct Saved {
    /// The image.
    pub image: Image,
    /// Its names in the archive.
    pub names: Vec<Reference>,
}

/// Options of the layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Compress layers of docker's `dir` again, as gzip.
    pub compress: bool,
    /// Do not compress what is not kept compressed.
    pub uncompressed: bool,
}

/// Where it goes: the tar stream of an archive, or a directory.
pub enum Target<'a> {
    /// A stream.
    Stream(&'a mut dyn Write),
    /// A directory that is there and empty, or is made.
    Directory(&'a Path),
}

/// Save images.
pub fn save(layout: &Layout, format: Format, images: &[Saved], target: Target<'_>, options: Options) -> Result<()> {
    match (format, target) {
        (Format::DockerArchive, Target::Stream(stream)) => docker_archive(layout, images, stream),
        (Format::OciArchive, Target::Stream(stream)) => {
            let mut place = Place::Tar(Writer::new(BufWriter::with_capacity(256 << 10, stream)));
            oci(layout, images, &mut place, options)?;
            place.finish()
        }
        (Format::OciDirectory, Target::Directory(path)) => oci(layout, images, &mut Place::directory(path)?, options),
        (Format::DockerDirectory, Target::Directory(path)) => {
            docker_directory(layout, images, &mut Place::directory(path)?, options)
        }
        (_, Target::Stream(_)) => Err(Failure::new(Kind::Engine, "a directory cannot be written to standard output")
            .hint("name a directory with --output")
            .into()),
        (_, Target::Directory(path)) => anyhow::bail!("{} is a directory", path.display()),
    }
}

/// A tar being written, or a directory.
enum Place<'a> {
    Tar(Writer<BufWriter<&'a mut dyn Write>>),
    Directory(PathBuf),
}

impl Place<'_> {
    fn directory(path: &Path) -> Result<Place<'static>> {
        std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        Ok(Place::Directory(path.to_owned()))
    }

    fn put(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.stream(name, content.len() as u64, &mut std::io::Cursor::new(content))
    }

    fn stream(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        match self {
            Place::Tar(writer) => {
                writer.entry(&Entry { path: name.as_bytes().to_vec(), stored: size, ..Entry::default() })?;
                let copied = std::io::copy(content, writer)?;
                ensure!(copied == size, "{name} has {copied} bytes instead of {size}");
            }
            Place::Directory(directory) => {
                let path = directory.join(name);
                let context = || format!("write {}", path.display());
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).with_context(context)?;
                }
                let mut file = File::create(&path).with_context(context)?;
                std::io::copy(content, &mut file).with_context(context)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if let Place::Tar(writer) = self {
            writer.finish()?.flush()?;
        }
        Ok(())
    }
}

fn docker_archive(layout: &Layout, images: &[Saved], stream: &mut dyn Write) -> Result<()> {
    let mut place = Place::Tar(Writer::new(BufWriter::with_capacity(256 << 10, stream)));
    let mut written = BTreeSet::new();
    let mut documents = Vec::new();
    for saved in images {
        let record = &saved.image.record;
        let mut layers = Vec::new();
        for (index, diff_id) in record.layers.iter().enumerate() {
            let name = format!("{}.tar", diff_id.hex());
            if written.insert(diff_id.clone()) {
                let size = plain_size(layout, &saved.image, index)?;
                let mut plain = PlainLayer::open(layout, &saved.image, index)?;
                plain.copy(size, |size, content| place.stream(&name, size, content))?;
            }
            layers.push(name);
        }
        let config = format!("{}.json", record.id.hex());
        if written.insert(record.id.clone()) {
            place.put(&config, &store::read_blob(layout, &record.id)?)?;
        }
        let tags: Vec<String> =
            saved.names.iter().filter(|name| name.digest.is_none()).map(|name| name.to_string()).collect();
        documents.push(DockerImage { config, repo_tags: Some(tags).filter(|tags| !tags.is_empty()), layers });
    }
    place.put("manifest.json", &serde_json::to_vec(&documents)?)?;
    place.finish()
}

fn oci(layout: &Layout, images: &[Saved], place: &mut Place<'_>, options: Options) -> Result<()> {
    place.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut written = BTreeSet::new();
    let mut entries = Vec::new();
    for saved in images {
        let mut blobs = Blobs { layout, place, written: &mut written, flat: false, options };
        let manifest = blobs.image(&saved.image)?;
        let mut descriptor = Descriptor::new(
            manifest.media_type.clone(),
            store::digest_of(&manifest.bytes),
            manifest.bytes.len() as u64,
        );
        blobs.put(&manifest.bytes)?;
        let names: Vec<Option<&Reference>> =
            if saved.names.is_empty() { vec![None] } else { saved.names.iter().map(Some).collect() };
        for name in names {
            descriptor.annotations = name.map(|name| BTreeMap::from([(OCI_NAME.to_owned(), name.to_string())]));
            entries.push(descriptor.clone());
        }
    }
    let index = Index::of(entries);
    place.put("index.json", &serde_json::to_vec(&index)?)
}

fn docker_directory(layout: &Layout, images: &[Saved], place: &mut Place<'_>, options: Options) -> Result<()> {
    let [saved] = images else {
        return Err(Failure::new(Kind::Engine, "docker-dir holds one image")
            .hint("use docker-archive for several")
            .into());
    };
    let mut written = BTreeSet::new();
    let mut blobs = Blobs { layout, place, written: &mut written, flat: true, options };
    let manifest = blobs.image(&saved.image)?;
    place.put("manifest.json", &manifest.bytes)?;
    place.put("version", b"Directory Transport Version: 1.1\n")
}

/// A manifest that was made or kept.
struct WrittenManifest {
    bytes: Vec<u8>,
    media_type: String,
}

/// Writes blobs, each once.
struct Blobs<'a, 'b> {
    layout: &'a Layout,
    place: &'a mut Place<'b>,
    written: &'a mut BTreeSet<Digest>,
    flat: bool,
    options: Options,
}

impl Blobs<'_, '_> {
    /// Config and layers of an image; the manifest is returned: as it came if all its layers are kept or can be made again.
    fn image(&mut self, image: &Image) -> Result<WrittenManifest> {
        let (parsed, bytes) = store::manifest(self.layout, &image.record)?;
        let config = store::read_blob(self.layout, &image.record.id)?;
        self.put(&config)?;
        let mut layers = Vec::new();
        for (index, descriptor) in parsed.layers.iter().enumerate() {
            layers.push(self.layer(image, index, descriptor)?);
        }
        let media_type = Document::Manifest(parsed.clone()).media_type().to_owned();
        // An OCI layout may hold docker's documents; turning them into OCI's, as others do, would change the digest.
        if layers == parsed.layers {
            return Ok(WrittenManifest { bytes, media_type });
        }
        let changed = Manifest { layers, ..parsed };
        Ok(WrittenManifest { bytes: serde_json::to_vec(&changed)?, media_type })
    }

    fn layer(&mut self, image: &Image, index: usize, descriptor: &Descriptor) -> Result<Descriptor> {
        let kept = store::blob_path(self.layout, &descriptor.digest);
        let diff_id = &image.record.layers[index];
        let again = self.options.compress && descriptor.digest == *diff_id;
        if let Ok(mut file) = File::open(&kept)
            && !again
        {
            let size = file.metadata()?.len();
            self.stream(&descriptor.digest, size, &mut file)?;
            return Ok(descriptor.clone());
        }
        if descriptor.digest == *diff_id && !again {
            let mut plain = PlainLayer::open(self.layout, image, index)?;
            let digest = descriptor.digest.clone();
            plain.copy(descriptor.size, |size, content| self.stream(&digest, size, content))?;
            return Ok(descriptor.clone());
        }
        self.compressed(image, index, descriptor)
    }

    /// A compressed layer that is not kept: made again, with another digest than it came with.
    fn compressed(&mut self, image: &Image, index: usize, descriptor: &Descriptor) -> Result<Descriptor> {
        let staged = layer::StagedFile::create(self.layout)?;
        let compression = if self.options.uncompressed { Compression::None } else { Compression::Gzip };
        let mut encoder = Encoder::new(BufWriter::new(staged.file()), compression, None)?;
        write_plain(self.layout, image, index, &mut encoder)?;
        encoder.finish()?.flush()?;
        let mut file = File::open(staged.path())?;
        let mut hashing = HashingReader::new(&mut file);
        std::io::copy(&mut hashing, &mut std::io::sink())?;
        let (hash, size) = hashing.finish();
        let digest = Digest::from_sha256(&hash);
        self.stream(&digest, size, &mut File::open(staged.path())?)?;
        let docker = descriptor.media_type.contains("docker");
        let media_type = match (docker, compression) {
            (true, Compression::None) => media::DOCKER_LAYER,
            (true, _) => media::DOCKER_LAYER_GZIP,
            (false, Compression::None) => media::OCI_LAYER,
            (false, _) => media::OCI_LAYER_GZIP,
        };
        Ok(Descriptor { digest, size, media_type: media_type.to_owned(), ..descriptor.clone() })
    }

    fn put(&mut self, content: &[u8]) -> Result<()> {
        let digest = store::digest_of(content);
        self.stream(&digest, content.len() as u64, &mut std::io::Cursor::new(content))
    }

    fn stream(&mut self, digest: &Digest, size: u64, content: &mut dyn Read) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let name = if self.flat { digest.hex().to_owned() } else { blob_name(digest) };
        self.place.stream(&name, size, content)
    }
}

/// Write the plain archive of an image's layer: from what is unpacked, or from the kept blob if that cannot be.
pub fn write_plain(layout: &Layout, image: &Image, index: usize, target: &mut dyn Write) -> Result<()> {
    let diff_id = &image.record.layers[index];
    let record = layer::load(layout, diff_id.hex())?.with_context(|| format!("layer {diff_id} is not there"))?;
    if record.whole {
        return layer::assemble(layout, diff_id.hex(), target);
    }
    let blobs = image.record.manifests.iter().filter_map(|source| source.blobs.get(index));
    for blob in blobs.chain([diff_id]) {
        if let Ok(file) = File::open(store::blob_path(layout, blob)) {
            let (_, mut plain) = crate::storage::compress::decompress(file)?;
            std::io::copy(&mut plain, target)?;
            return Ok(());
        }
    }
    Err(Failure::new(Kind::Engine, format!("layer {diff_id}: its archive is not kept and cannot be made again"))
        .hint("pull the image again")
        .into())
}

/// Length of a layer's plain archive.
fn plain_size(layout: &Layout, image: &Image, index: usize) -> Result<u64> {
    let diff_id = &image.record.layers[index];
    let record = layer::load(layout, diff_id.hex())?.with_context(|| format!("layer {diff_id} is not there"))?;
    record.archive_size.with_context(|| format!("layer {diff_id}: its record has no archive size"))
}

/// A layer's plain archive as something to read: made by a thread, through a pipe.
struct PlainLayer<'a> {
    layout: &'a Layout,
    image: &'a Image,
    index: usize,
}

impl<'a> PlainLayer<'a> {
    fn open(layout: &'a Layout, image: &'a Image, index: usize) -> Result<PlainLayer<'a>> {
        Ok(PlainLayer { layout, image, index })
    }

    fn copy(&mut self, size: u64, mut take: impl FnMut(u64, &mut dyn Read) -> Result<()>) -> Result<()> {
        let (mut reader, writer) = std::io::pipe()?;
        let (layout, image, index) = (self.layout, self.image, self.index);
        std::thread::scope(|scope| {
            let making = scope.spawn(move || {
                let mut writer = BufWriter::with_capacity(256 << 10, writer);
                write_plain(layout, image, index, &mut writer)?;
                Ok::<_, anyhow::Error>(writer.flush()?)
            });
            let taken = take(size, &mut reader);
            drop(reader);
            let made = making.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))?;
            match (made, taken) {
                // The taker stopped: it knows why.
                (Err(made), Err(taken)) if super::is_broken_pipe(&made) => Err(taken),
                // Why the archive could not be made says more than that it was too short.
                (made, taken) => made.and(taken),
            }
        })
    }
}
