//! `blobs/sha256/HEX`: documents and layers as they came.

use crate::failure::{Failure, Kind};
use crate::image::manifest::{Document, Manifest};
use crate::image::store::ImageRecord;
use crate::model::digest::Digest;
use crate::state::file::{self, Durability, fault};
use crate::state::layout::Layout;
use crate::storage::{compress, layer, pipe};
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a blob is.
pub fn blob_path(layout: &Layout, digest: &Digest) -> PathBuf {
    layout.blobs().join(digest.hex())
}

/// A whole blob, which must be there and be what its name says.
pub fn read_blob(layout: &Layout, digest: &Digest) -> Result<Vec<u8>> {
    let path = blob_path(layout, digest);
    std::fs::read(&path).with_context(|| format!("read {}", path.display())).map_err(|error| {
        error.context(
            Failure::new(Kind::Engine, "").hint("`coracle system check` says what is missing, `--repair` mends it"),
        )
    })
}

/// Keep a small blob (config, manifest, index); what is there already is left.
pub fn put_blob(layout: &Layout, content: &[u8]) -> Result<Digest> {
    let digest = digest_of(content);
    let path = blob_path(layout, &digest);
    if path.exists() {
        return Ok(digest);
    }
    match file::create_new(&path, content, Durability::Durable) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("write {}", path.display()))
        }
        _ => Ok(digest),
    }
}

/// Put a file that was written in `tmp/` and synced in the place of a blob. The caller has checked the digest.
pub fn adopt_blob(layout: &Layout, staged: &Path, digest: &Digest) -> Result<()> {
    let path = blob_path(layout, digest);
    fault::point("blob", &path)?;
    std::fs::rename(staged, &path).with_context(|| format!("write {}", path.display()))
}

/// A staged file decompressed into another: that file, its digest and its length.
pub fn plain_copy(layout: &Layout, source: layer::StagedFile) -> Result<(layer::StagedFile, Digest, u64)> {
    use std::io::Seek;
    let mut file = source.file().try_clone()?;
    file.rewind()?;
    let (_, plain) = compress::decompress(file)?;
    let target = layer::StagedFile::create(layout)?;
    let mut hashing = pipe::HashingReader::new(plain);
    std::io::copy(&mut hashing, &mut target.file()).context("copy the layer")?;
    let (hash, size) = hashing.finish();
    Ok((target, Digest::from_sha256(&hash), size))
}

/// sha256 of bytes.
pub fn digest_of(content: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_sha256(&sha2::Sha256::digest(content))
}

/// The manifest document an image came by last, and its bytes.
pub fn manifest(layout: &Layout, record: &ImageRecord) -> Result<(Manifest, Vec<u8>)> {
    let digest = record.digest().context("the image has no manifest")?;
    let bytes = read_blob(layout, digest)?;
    match crate::image::manifest::parse(&bytes, None)? {
        Document::Manifest(manifest) => Ok((manifest, bytes)),
        Document::Index(_) => bail!("{digest} is an index, not a manifest"),
    }
}
