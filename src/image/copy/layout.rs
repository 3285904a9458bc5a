//! An OCI image layout, in a directory or in one tar.
//!
//! Blobs that are there are not written again, and documents are put in place whole, so that a layout which others read
//! or write at the same time stays good.

use crate::image::archive::source::{Source as Archive, blob_name};
use crate::image::copy::{Blob, Sink, Source};
use crate::image::manifest::{self, Descriptor, Document, Index, MANIFEST_LIMIT_BYTES, media};
use crate::image::progress::Meter;
use crate::image::registry::{Fetched, Repository};
use crate::state::file::{self, Durability};
use crate::storage::tar::Entry;
use crate::storage::tar::write::Writer;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The annotation that names an image.
const NAME: &str = "org.opencontainers.image.ref.name";

/// A layout to read.
pub struct LayoutSource {
    archive: Archive,
    top: Fetched,
}

impl LayoutSource {
    /// The image of that name, or the only one.
    pub fn open(archive: Archive, name: Option<&str>) -> Result<LayoutSource> {
        let bytes = archive.read("index.json", MANIFEST_LIMIT_BYTES)?.context("index.json is missing")?;
        let Document::Index(index) = manifest::parse(&bytes, Some(media::OCI_INDEX))? else {
            bail!("index.json is not an index");
        };
        let named = |entry: &&Descriptor| name.is_none_or(|name| entry.annotation(NAME) == Some(name));
        let mut matching = index.manifests.iter().filter(named);
        let entry = match (matching.next(), matching.next()) {
            (Some(entry), None) => entry,
            (None, _) => bail!("no image {} in index.json", name.unwrap_or_default()),
            (Some(_), Some(_)) => bail!("more than one image in index.json: name one, as in oci:PATH:NAME"),
        };
        let top = read_document(&archive, entry)?;
        Ok(LayoutSource { archive, top })
    }
}

fn read_document(archive: &Archive, entry: &Descriptor) -> Result<Fetched> {
    let bytes = archive.blob(&entry.digest, MANIFEST_LIMIT_BYTES)?;
    ensure!(
        bytes.len() as u64 == entry.size,
        "manifest {} has {} bytes, not {}",
        entry.digest,
        bytes.len(),
        entry.size
    );
    let document = manifest::parse(&bytes, Some(&entry.media_type))?;
    Ok(Fetched { bytes, digest: entry.digest.clone(), document })
}

impl Source for LayoutSource {
    fn top(&self) -> &Fetched {
        &self.top
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        read_document(&self.archive, descriptor)
    }

    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut section = self.archive.require(&blob_name(&descriptor.digest))?;
        std::io::copy(&mut (&mut section).take(start), &mut std::io::sink())?;
        Ok(Box::new(section))
    }
}

/// A layout to write to.
pub struct LayoutSink {
    directory: PathBuf,
    name: Option<String>,
    /// The directory is only a step to this archive.
    archive: Option<PathBuf>,
}

impl LayoutSink {
    /// A directory, made if it is not there.
    pub fn directory(path: &Path, name: Option<&str>) -> Result<LayoutSink> {
        let blobs = path.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).with_context(|| format!("make {}", blobs.display()))?;
        if path.join("oci-layout").exists() {
            // Ours or another tool's: added to.
        } else {
            ensure!(!path.join("index.json").exists(), "{} is not an OCI layout", path.display());
            let marker = path.join("oci-layout");
            file::replace(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#, Durability::Volatile)
                .with_context(|| format!("write {}", marker.display()))?;
        }
        Ok(LayoutSink { directory: path.to_owned(), name: name.map(str::to_owned), archive: None })
    }

    /// An archive, by way of a directory that is staged at `staging`.
    pub fn archive(path: &Path, name: Option<&str>, staging: &Path) -> Result<LayoutSink> {
        ensure!(!path.exists(), "oci-archive doesn't support modifying existing images: {}", path.display());
        let sink = LayoutSink::directory(staging, name)?;
        Ok(LayoutSink { archive: Some(path.to_owned()), ..sink })
    }

    fn blob_path(&self, descriptor: &Descriptor) -> PathBuf {
        self.directory.join(blob_name(&descriptor.digest))
    }

    fn add_to_index(&self, fetched: &Fetched) -> Result<()> {
        let path = self.directory.join("index.json");
        let mut index = match std::fs::read(&path) {
            Ok(bytes) => match manifest::parse(&bytes, Some(media::OCI_INDEX))
                .with_context(|| format!("read {}", path.display()))?
            {
                Document::Index(index) => index,
                Document::Manifest(_) => bail!("{} is not an index", path.display()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Index {
                schema_version: 2,
                media_type: None,
                artifact_type: None,
                manifests: Vec::new(),
                subject: None,
                annotations: None,
            },
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let mut entry = fetched.descriptor();
        if let Some(name) = &self.name {
            entry.annotations = Some(BTreeMap::from([(NAME.to_owned(), name.clone())]));
        }
        // A name is taken from whoever has it; one without a name stands for itself.
        index.manifests.retain(|other| match &self.name {
            Some(name) => other.annotation(NAME) != Some(name),
            None => other.digest != entry.digest,
        });
        index.manifests.push(entry);
        file::replace_json(&path, &index, Durability::Volatile)
    }
}

impl Sink for LayoutSink {
    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(std::fs::metadata(self.blob_path(descriptor)).is_ok_and(|found| found.len() == descriptor.size))
    }

    fn put(&self, blob: &Blob<'_>, _from: Option<&Repository>, meter: &dyn Meter) -> Result<()> {
        write_blob(&self.blob_path(blob.descriptor), blob, meter)
    }

    fn put_document(&self, fetched: &Fetched, top: bool) -> Result<()> {
        let path = self.blob_path(&fetched.descriptor());
        file::replace(&path, &fetched.bytes, Durability::Volatile)
            .with_context(|| format!("write {}", path.display()))?;
        if top { self.add_to_index(fetched) } else { Ok(()) }
    }

    fn finish(&self) -> Result<()> {
        let Some(target) = &self.archive else { return Ok(()) };
        let what = || format!("write {}", target.display());
        let staging = file::staging_name(target.parent().unwrap_or(Path::new(".")), ".archive");
        let result = pack(&self.directory, &staging)
            .with_context(what)
            .and_then(|()| std::fs::rename(&staging, target).with_context(what));
        if result.is_err() {
            let _ = std::fs::remove_file(&staging);
        }
        result
    }
}

/// Into a file beside its place, checked, then in place.
pub fn write_blob(path: &Path, blob: &Blob<'_>, meter: &dyn Meter) -> Result<()> {
    let what = || format!("write {}", path.display());
    let staging = file::staging_name(path.parent().unwrap_or(Path::new(".")), ".blob");
    let write = || -> Result<()> {
        let mut file = File::create_new(&staging).with_context(what)?;
        let mut reader = Counted { reader: blob.read()?, meter };
        std::io::copy(&mut reader, &mut file).with_context(what)?;
        std::fs::rename(&staging, path).with_context(what)
    };
    let result = write();
    if result.is_err() {
        let _ = std::fs::remove_file(&staging);
    }
    result
}

/// Tells a meter what goes through.
pub struct Counted<'a, R> {
    /// From here.
    pub reader: R,
    /// Told.
    pub meter: &'a dyn Meter,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.meter.add(count as u64);
        Ok(count)
    }
}

/// All files of a layout as one tar, in an order that does not change.
fn pack(directory: &Path, target: &Path) -> Result<()> {
    let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, File::create_new(target)?));
    let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    let mut blobs = Vec::new();
    for entry in std::fs::read_dir(directory.join("blobs/sha256"))? {
        blobs.push(format!("blobs/sha256/{}", entry?.file_name().to_string_lossy()));
    }
    blobs.sort();
    names.extend(blobs);
    for name in names {
        let path = directory.join(&name);
        let mut file = File::open(&path).with_context(|| format!("read {}", path.display()))?;
        let size = file.metadata()?.len();
        writer.entry(&Entry { path: name.into_bytes(), stored: size, ..Entry::default() })?;
        std::io::copy(&mut file, &mut writer)?;
    }
    writer.finish()?.flush()?;
    Ok(())
}
