//! What a copy changes: the documents' format (OCI or Docker) and the layers' compression.

use crate::image::copy::Source;
use crate::image::manifest::{Descriptor, Manifest, media};
use crate::model::digest::Digest;
use crate::state::file;
use crate::state::layout::Layout;
use crate::storage::compress::{Compression, Encoder};
use anyhow::{Context, Result, bail, ensure};
use sha2::Digest as _;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

/// Whose media types the documents bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OCI's.
    Oci,
    /// Docker's schema 2.
    Docker,
}

impl Format {
    /// `--format`.
    pub fn parse(text: &str) -> Result<Format, String> {
        match text {
            "oci" => Ok(Format::Oci),
            "docker" | "v2s2" => Ok(Format::Docker),
            "v2s1" => Err("Docker's schema 1 is no longer written; use v2s2 or oci".to_owned()),
            _ => Err(format!("unknown format \"{text}\": oci or v2s2")),
        }
    }
}

/// What to change; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conversion {
    /// Other documents.
    pub format: Option<Format>,
    /// How layers are compressed that have to be.
    pub compression: Option<Compression>,
    /// Also those that are compressed in another way.
    pub force: bool,
    /// How hard.
    pub level: Option<i32>,
}

/// How a layer shall be compressed anew.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// So.
    pub compression: Compression,
    /// How hard.
    pub level: Option<i32>,
    /// Even if the layer is there as it is.
    pub forced: bool,
}

/// How a media type says a layer is compressed.
pub fn compression_of(media_type: &str) -> Compression {
    match media_type {
        media::OCI_LAYER_GZIP | media::DOCKER_LAYER_GZIP => Compression::Gzip,
        media::OCI_LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        _ => Compression::None,
    }
}

impl Conversion {
    /// Whether and how a layer has to be compressed anew.
    pub fn target(&self, source: &dyn Source, layer: &Descriptor, wanted: bool) -> Result<Option<Target>> {
        let now = compression_of(&layer.media_type);
        let default = self.compression.unwrap_or(Compression::Gzip);
        let target = |compression, forced| Ok(Some(Target { compression, level: self.level, forced }));
        if self.force && self.compression.is_some() && now != default {
            return target(default, true);
        }
        // Docker's schema 2 knows no zstd.
        if self.format == Some(Format::Docker) && now == Compression::Zstd {
            ensure!(self.compression != Some(Compression::Zstd), "--format v2s2 has no zstd layers");
            return target(Compression::Gzip, true);
        }
        if !source.has(layer) {
            return target(if now == Compression::None { default } else { self.compression.unwrap_or(now) }, false);
        }
        // A plain layer that came so stays so, and with it the image's digest.
        let compress = now == Compression::None && wanted && self.compression.is_some();
        if compress { target(default, true) } else { Ok(None) }
    }

    /// The manifest with these layers, in the wanted format.
    pub fn manifest(&self, old: &Manifest, layers: Vec<Descriptor>) -> Result<Manifest> {
        let mut new = Manifest { layers, ..old.clone() };
        // A zstd layer makes an OCI image of a Docker one.
        let zstd = new.layers.iter().any(|layer| compression_of(&layer.media_type) == Compression::Zstd);
        let format = self.format.or((zstd && new.layers != old.layers).then_some(Format::Oci));
        let Some(format) = format.filter(|_| old.has_layers()) else { return Ok(new) };
        if (format == Format::Docker) == old.is_docker() {
            return Ok(new);
        }
        let (manifest, config) = match format {
            Format::Oci => (media::OCI_MANIFEST, media::OCI_CONFIG),
            Format::Docker => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
        };
        new.media_type = Some(manifest.to_owned());
        new.config.media_type = config.to_owned();
        for layer in &mut new.layers {
            layer.media_type = layer_type(format, compression_of(&layer.media_type))?.to_owned();
        }
        if format == Format::Docker {
            // Fields its readers do not know.
            new.annotations = None;
            new.subject = None;
            new.artifact_type = None;
        }
        Ok(new)
    }

    /// The media type an index gets.
    pub fn index_type<'a>(&self, old: &'a str) -> &'a str {
        match self.format {
            Some(Format::Oci) => media::OCI_INDEX,
            Some(Format::Docker) => media::DOCKER_LIST,
            None => old,
        }
    }
}

/// The media type of a layer.
pub fn layer_type(format: Format, compression: Compression) -> Result<&'static str> {
    Ok(match (format, compression) {
        (Format::Oci, Compression::None) => media::OCI_LAYER,
        (Format::Oci, Compression::Gzip) => media::OCI_LAYER_GZIP,
        (Format::Oci, Compression::Zstd) => media::OCI_LAYER_ZSTD,
        (Format::Docker, Compression::None) => media::DOCKER_LAYER,
        (Format::Docker, Compression::Gzip) => media::DOCKER_LAYER_GZIP,
        (format, compression) => bail!("{format:?} has no media type for layers with {compression:?}"),
    })
}

/// A layer that was compressed anew, in a file without a name.
pub struct Made {
    /// What it is now.
    pub descriptor: Descriptor,
    file: Arc<File>,
}

impl Made {
    /// Its content from a byte on.
    pub fn open(&self, start: u64) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Section { file: self.file.clone(), offset: start }))
    }
}

/// A file read without moving its position.
pub struct Section {
    file: Arc<File>,
    offset: u64,
}

impl Section {
    /// From this byte on.
    pub fn new(file: Arc<File>, offset: u64) -> Section {
        Section { file, offset }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Compress a layer's plain archive.
pub fn compress(
    layout: &Layout,
    mut plain: Box<dyn Read + Send + '_>,
    old: &Descriptor,
    target: Target,
) -> Result<Made> {
    let file = nameless(layout)?;
    let hashing = Hashing { file: &file, hash: sha2::Sha256::new(), size: 0 };
    let mut encoder = Encoder::new(BufWriter::with_capacity(128 << 10, hashing), target.compression, target.level)?;
    std::io::copy(&mut plain, &mut encoder).with_context(|| format!("compress layer {}", old.digest))?;
    let mut writer = encoder.finish()?;
    writer.flush()?;
    let Hashing { hash, size, .. } = writer.into_inner().map_err(|error| error.into_error())?;
    let format = if old.media_type.contains("docker") { Format::Docker } else { Format::Oci };
    let format = if target.compression == Compression::Zstd { Format::Oci } else { format };
    let descriptor = Descriptor {
        media_type: layer_type(format, target.compression)?.to_owned(),
        digest: Digest::from_sha256(&hash.finalize()),
        size,
        ..old.clone()
    };
    Ok(Made { descriptor, file: Arc::new(file) })
}

/// A file in `tmp/` that goes with its last descriptor.
pub fn nameless(layout: &Layout) -> Result<File> {
    let path = file::staging_name(&layout.tmp(), "spool");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))?;
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    Ok(file)
}

struct Hashing<'a> {
    file: &'a File,
    hash: sha2::Sha256,
    size: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let mut file = self.file;
        let count = file.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
