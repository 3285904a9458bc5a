//! skopeo's `dir:`: a manifest and its blobs as plain files, named by their digits.

use crate::image::copy::layout::write_blob;
use crate::image::copy::{Blob, Sink, Source};
use crate::image::manifest::{self, Descriptor, MANIFEST_LIMIT_BYTES};
use crate::image::progress::Meter;
use crate::image::registry::{Fetched, Repository};
use crate::model::digest::Digest;
use crate::state::file::{self, Durability};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What skopeo writes into `version`.
const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

/// A directory to read.
pub struct DirectorySource {
    directory: PathBuf,
    top: Fetched,
}

impl DirectorySource {
    /// With its manifest.json.
    pub fn open(directory: &Path) -> Result<DirectorySource> {
        let top = read_document(&directory.join("manifest.json"))?;
        Ok(DirectorySource { directory: directory.to_owned(), top })
    }
}

fn read_document(path: &Path) -> Result<Fetched> {
    let what = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).with_context(what)?.take(MANIFEST_LIMIT_BYTES + 1).read_to_end(&mut bytes).with_context(what)?;
    ensure!(bytes.len() as u64 <= MANIFEST_LIMIT_BYTES, "{}: longer than {MANIFEST_LIMIT_BYTES} bytes", what());
    let document = manifest::parse(&bytes, None).with_context(what)?;
    Ok(Fetched { digest: Digest::of(&bytes), bytes, document })
}

impl Source for DirectorySource {
    fn top(&self) -> &Fetched {
        &self.top
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        let found = read_document(&self.directory.join(format!("{}.manifest.json", descriptor.digest.hex())))?;
        ensure!(found.digest == descriptor.digest, "manifest {}: its digest is {}", descriptor.digest, found.digest);
        Ok(found)
    }

    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>> {
        let path = self.directory.join(descriptor.digest.hex());
        let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Box::new(file))
    }
}

/// A directory to write to.
pub struct DirectorySink {
    directory: PathBuf,
}

impl DirectorySink {
    /// Made if it is not there; one that is must be empty or of this kind, and is emptied.
    pub fn open(directory: &Path) -> Result<DirectorySink> {
        let what = || format!("make {}", directory.display());
        std::fs::create_dir_all(directory).with_context(what)?;
        let version = directory.join("version");
        if std::fs::read_dir(directory).with_context(what)?.next().is_some() {
            let ours = std::fs::read(&version).is_ok_and(|text| text == VERSION);
            ensure!(ours, "{} is not empty, and not a `dir:` of images", directory.display());
            for entry in std::fs::read_dir(directory).with_context(what)? {
                let path = entry?.path();
                if path.is_file() {
                    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
                }
            }
        }
        file::replace(&version, VERSION, Durability::Volatile).with_context(what)?;
        Ok(DirectorySink { directory: directory.to_owned() })
    }
}

impl Sink for DirectorySink {
    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let path = self.directory.join(descriptor.digest.hex());
        Ok(std::fs::metadata(path).is_ok_and(|found| found.len() == descriptor.size))
    }

    fn put(&self, blob: &Blob<'_>, _from: Option<&Repository>, meter: &dyn Meter) -> Result<()> {
        write_blob(&self.directory.join(blob.descriptor.digest.hex()), blob, meter)
    }

    fn put_document(&self, fetched: &Fetched, top: bool) -> Result<()> {
        let name = if top { "manifest.json".to_owned() } else { format!("{}.manifest.json", fetched.digest.hex()) };
        let path = self.directory.join(name);
        file::replace(&path, &fetched.bytes, Durability::Volatile).with_context(|| format!("write {}", path.display()))
    }
}
