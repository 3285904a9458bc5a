//! Artifacts: files in an OCI layout of their own, to and from registries.
//!
//! `artifacts/` in DATA is an OCI layout that any tool reads; an artifact is a manifest in its index under a full name.
//! Changes are made under a lock on the directory, which is not held over the network.

use crate::engine::{Engine, registry};
use crate::failure::{Failure, Kind};
use crate::image::access::Access;
use crate::image::archive::source::{Source as Archive, blob_name};
use crate::image::copy::layout::{LayoutSink, LayoutSource};
use crate::image::copy::registry::{RegistrySink, RegistrySource};
use crate::image::copy::{self, Checked, Options, Sink, Source, fetched_of};
use crate::image::manifest::{self, Descriptor, Document, Index, MANIFEST_LIMIT_BYTES, Manifest, media};
use crate::image::policy::Policy;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::Fetched;
use crate::image::signature::Signer;
use crate::model::digest::Digest;
use crate::state::file::{self, Durability};
use crate::state::lock::{self, Guard, Mode, Rank};
use anyhow::{Context, Result, bail, ensure};
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The annotation that names an artifact in the index.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that names a file.
const TITLE: &str = "org.opencontainers.image.title";
/// When it was made.
const CREATED: &str = "org.opencontainers.image.created";
/// What an artifact is whose kind nobody said.
const UNKNOWN: &str = "application/vnd.unknown.artifact.v1";

/// An artifact.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its full name.
    pub name: Reference,
    /// Its manifest's digest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Artifact {
    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.manifest.layers.iter().map(|layer| layer.size).sum()
    }

    /// When it was made, as its manifest says.
    pub fn created(&self) -> Option<&str> {
        self.manifest.annotations.as_ref()?.get(CREATED).map(String::as_str)
    }
}

/// What is put in.
#[derive(Clone, Debug, Default)]
pub struct Addition {
    /// The files.
    pub files: Vec<PathBuf>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--type`.
    pub artifact_type: Option<String>,
    /// `--file-type`.
    pub file_type: Option<String>,
    /// To one that is there.
    pub append: bool,
    /// In the place of one that is there.
    pub replace: bool,
}

fn directory(engine: &Engine) -> PathBuf {
    engine.layout.data().join("artifacts")
}

fn lock(engine: &Engine) -> Result<Guard> {
    let path = directory(engine);
    LayoutSink::directory(&path, None)?;
    lock::lock(&path, Rank::Image, Mode::Exclusive)
}

/// Held while blobs are brought in that no manifest names yet.
fn hold_blobs(engine: &Engine) -> Result<Guard> {
    drop(lock(engine)?);
    lock::lock(&directory(engine).join("blobs"), Rank::Image, Mode::Shared)
}

/// The full name of an artifact.
pub fn name(text: &str) -> Result<Reference> {
    Ok(Reference::parse(text)?.or_latest())
}

fn index(engine: &Engine) -> Result<Index> {
    let path = directory(engine).join("index.json");
    let empty = Index {
        schema_version: 2,
        media_type: None,
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: None,
    };
    match std::fs::read(&path) {
        Ok(bytes) => {
            match manifest::parse(&bytes, Some(media::OCI_INDEX)).with_context(|| format!("read {}", path.display()))? {
                Document::Index(index) => Ok(index),
                Document::Manifest(_) => bail!("{} is not an index", path.display()),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(empty),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn read_manifest(engine: &Engine, entry: &Descriptor) -> Result<Manifest> {
    let path = directory(engine).join(blob_name(&entry.digest));
    let mut bytes = Vec::new();
    let file = File::open(&path).with_context(|| format!("read {}", path.display()))?;
    file.take(MANIFEST_LIMIT_BYTES).read_to_end(&mut bytes)?;
    ensure!(Digest::of(&bytes) == entry.digest, "{}: its digest is {}", path.display(), Digest::of(&bytes));
    match manifest::parse(&bytes, None)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => bail!("{} is an index, not an artifact", entry.digest),
    }
}

/// All artifacts, by name.
pub fn list(engine: &Engine) -> Result<Vec<Artifact>> {
    let mut found = Vec::new();
    for entry in &index(engine)?.manifests {
        let Some(Ok(name)) = entry.annotation(NAME).map(Reference::parse) else { continue };
        found.push(Artifact { name, digest: entry.digest.clone(), manifest: read_manifest(engine, entry)? });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// An artifact by name, or by its digest or the beginning of one.
pub fn find(engine: &Engine, text: &str) -> Result<Artifact> {
    let all = list(engine)?;
    let wanted = name(text).ok();
    if let Some(found) = all.iter().find(|artifact| wanted.as_ref() == Some(&artifact.name)) {
        return Ok(found.clone());
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let mut matching: Vec<&Artifact> =
        all.iter().filter(|artifact| digits.len() >= 3 && artifact.digest.hex().starts_with(digits)).collect();
    matching.dedup_by_key(|artifact| &artifact.digest);
    match matching.as_slice() {
        [artifact] => Ok((*artifact).clone()),
        [] => Err(Failure::new(Kind::Engine, format!("{text}: artifact does not exist")).into()),
        _ => bail!("{text}: more than one artifact begins so"),
    }
}

/// Make an artifact of files, or add files to one.
pub fn add(engine: &Engine, text: &str, addition: Addition) -> Result<Digest> {
    let name = name(text)?;
    ensure!(!(addition.append && addition.replace), "--append and --replace options cannot be used together");
    ensure!(!addition.append || addition.artifact_type.is_none(), "append option is not compatible with type option");
    let blobs = hold_blobs(engine)?;
    let mut files = Vec::new();
    for path in &addition.files {
        files.push(keep(engine, path, addition.file_type.as_deref())?);
    }
    let _lock = lock(engine)?;
    let existing = list(engine)?.into_iter().find(|artifact| artifact.name == name);
    let mut manifest = match existing {
        Some(artifact) if addition.append => artifact.manifest,
        Some(_) if !addition.replace => {
            return Err(Failure::new(Kind::Engine, format!("{name}: artifact already exists"))
                .hint("--append adds files to it, --replace takes its place")
                .into());
        }
        None if addition.append => bail!("{name}: artifact does not exist"),
        _ => empty(engine, addition.artifact_type.as_deref())?,
    };
    for file in files {
        let title = file.annotation(TITLE).unwrap_or_default();
        let taken = manifest.layers.iter().any(|layer| layer.annotation(TITLE) == Some(title));
        ensure!(!taken, "{title}: file already exists in the artifact");
        let mut file = file;
        file.annotations.get_or_insert_default().extend(addition.annotations.clone());
        manifest.layers.push(file);
    }
    let created = crate::image::config::rfc3339(crate::state::event::now_ns());
    manifest.annotations.get_or_insert_default().entry(CREATED.to_owned()).or_insert(created);
    let fetched = fetched_of(Document::Manifest(manifest))?;
    let sink = LayoutSink::directory(&directory(engine), Some(&name.to_string()))?;
    sink.put_document(&fetched, true)?;
    drop(blobs);
    collect(engine)?;
    Ok(fetched.digest)
}

fn empty(engine: &Engine, artifact_type: Option<&str>) -> Result<Manifest> {
    let content = b"{}";
    let config = Descriptor::new(media::EMPTY, Digest::of(content), content.len() as u64);
    let path = directory(engine).join(blob_name(&config.digest));
    file::replace(&path, content, Durability::Volatile).with_context(|| format!("write {}", path.display()))?;
    Ok(Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        artifact_type: Some(artifact_type.unwrap_or(UNKNOWN).to_owned()),
        config,
        layers: Vec::new(),
        subject: None,
        annotations: None,
    })
}

/// Copy a file in as a blob.
fn keep(engine: &Engine, path: &Path, file_type: Option<&str>) -> Result<Descriptor> {
    let what = || format!("read {}", path.display());
    let title = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    let mut source = File::open(path).with_context(what)?;
    ensure!(source.metadata().with_context(what)?.is_file(), "{} is no regular file", path.display());
    let blobs = directory(engine).join("blobs/sha256");
    std::fs::create_dir_all(&blobs).with_context(|| format!("make {}", blobs.display()))?;
    let staging = file::staging_name(&blobs, ".blob");
    let mut copy = || -> Result<(Digest, u64, Vec<u8>)> {
        let mut target = File::create_new(&staging).with_context(|| format!("make {}", staging.display()))?;
        let (mut hash, mut size, mut start) = (sha2::Sha256::new(), 0, Vec::new());
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = source.read(&mut buffer).with_context(what)?;
            if count == 0 {
                break;
            }
            if size == 0 {
                start = buffer[..count.min(512)].to_vec();
            }
            hash.update(&buffer[..count]);
            target.write_all(&buffer[..count])?;
            size += count as u64;
        }
        Ok((Digest::from_sha256(&hash.finalize()), size, start))
    };
    let result = copy().and_then(|(digest, size, start)| {
        std::fs::rename(&staging, directory(engine).join(blob_name(&digest)))?;
        Ok((digest, size, start))
    });
    let (digest, size, start) = result.inspect_err(|_| drop(std::fs::remove_file(&staging)))?;
    let media_type = file_type.unwrap_or_else(|| detect(&start));
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.annotations = Some(BTreeMap::from([(TITLE.to_owned(), title.to_string_lossy().into_owned())]));
    Ok(descriptor)
}

/// What a file is, by its first bytes (the common part of the WHATWG's MIME sniffing, as Go does it).
fn detect(start: &[u8]) -> &'static str {
    let signatures: [(&[u8], &str); 10] = [
        (b"%PDF-", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b\x08", "application/x-gzip"),
        (b"<?xml", "text/xml; charset=utf-8"),
        (b"<!DOCTYPE HTML", "text/html; charset=utf-8"),
        (b"<html", "text/html; charset=utf-8"),
        (b"\0asm", "application/wasm"),
    ];
    let found = signatures.iter().find(|(signature, _)| start.starts_with(signature));
    let binary = |byte: &u8| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31);
    match found {
        Some((_, media_type)) => media_type,
        None if start.iter().any(binary) => "application/octet-stream",
        None => "text/plain; charset=utf-8",
    }
}

/// Take artifacts away; without names all of them. Returns their digests.
pub fn remove(engine: &Engine, names: &[String], all: bool, ignore: bool) -> Result<Vec<Digest>> {
    let _lock = lock(engine)?;
    let mut doomed = Vec::new();
    if all {
        doomed = list(engine)?;
    }
    for name in names {
        match find(engine, name) {
            Ok(artifact) => doomed.push(artifact),
            Err(_) if ignore => {}
            Err(error) => return Err(error),
        }
    }
    let mut index = index(engine)?;
    let names: BTreeSet<String> = doomed.iter().map(|artifact| artifact.name.to_string()).collect();
    index.manifests.retain(|entry| !entry.annotation(NAME).is_some_and(|name| names.contains(name)));
    file::replace_json(&directory(engine).join("index.json"), &index, Durability::Volatile)?;
    collect(engine)?;
    Ok(doomed.into_iter().map(|artifact| artifact.digest).collect())
}

/// Remove blobs that no artifact has, unless somebody brings blobs in just now.
fn collect(engine: &Engine) -> Result<()> {
    let Some(_alone) = lock::try_lock(&directory(engine).join("blobs"), Rank::Image, Mode::Exclusive)? else {
        return Ok(());
    };
    let mut reached = BTreeSet::new();
    for entry in &index(engine)?.manifests {
        let manifest = read_manifest(engine, entry)?;
        reached.insert(entry.digest.hex().to_owned());
        reached.insert(manifest.config.digest.hex().to_owned());
        reached.extend(manifest.layers.iter().map(|layer| layer.digest.hex().to_owned()));
    }
    let blobs = directory(engine).join("blobs/sha256");
    for entry in std::fs::read_dir(&blobs).with_context(|| format!("read {}", blobs.display()))?.flatten() {
        if !reached.contains(entry.file_name().to_string_lossy().as_ref()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Fetch an artifact.
pub fn pull(engine: &Engine, text: &str, access: Access, progress: &dyn Progress) -> Result<Digest> {
    let name = name(text)?;
    let network = registry::network(engine, access)?;
    let source = RegistrySource::open(&network, &name, &Policy::load(None::<&Path>)?)?;
    let Document::Manifest(manifest) = &source.top().document else {
        bail!("{name}: it is an index, not an artifact");
    };
    ensure!(!manifest.is_image(), "{name}: it is an image, not an artifact; `coracle pull` fetches it");
    let _blobs = hold_blobs(engine)?;
    let sink = LockedSink { engine, sink: LayoutSink::directory(&directory(engine), Some(&name.to_string()))? };
    let options = Options { parallel: network.parallel(), ..Options::default() };
    let copy = copy::Copy { source: &source, sink: &sink, options: &options, layout: &engine.layout, progress };
    Ok(copy::copy(&copy)?.digest)
}

/// The store of artifacts as a sink: its index is changed under the lock.
struct LockedSink<'a> {
    engine: &'a Engine,
    sink: LayoutSink,
}

impl Sink for LockedSink<'_> {
    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.sink.has(descriptor)
    }

    fn put(
        &self,
        blob: &copy::Blob<'_>,
        from: Option<&crate::image::registry::Repository>,
        meter: &dyn crate::image::progress::Meter,
    ) -> Result<()> {
        self.sink.put(blob, from, meter)
    }

    fn put_document(&self, fetched: &Fetched, top: bool) -> Result<()> {
        let _lock = lock(self.engine)?;
        self.sink.put_document(fetched, top)
    }
}

/// Send an artifact; without a destination under its own name. With a signer, it is signed there.
pub fn push(
    engine: &Engine,
    text: &str,
    destination: Option<&str>,
    (access, signer): (Access, Option<Arc<Signer>>),
    progress: &dyn Progress,
) -> Result<Digest> {
    let artifact = find(engine, text)?;
    let target = match destination {
        Some(text) => name(text.strip_prefix("docker://").unwrap_or(text))?,
        None => artifact.name.clone(),
    };
    let network = registry::network(engine, access)?;
    let archive = Archive::open(&engine.layout, &directory(engine))?;
    let source = LayoutSource::open(archive, Some(&artifact.name.to_string()))?;
    let sink = RegistrySink::open(&network, &target)?.signed_by(signer);
    let options = Options { parallel: network.parallel(), ..Options::default() };
    let copy = copy::Copy { source: &source, sink: &sink, options: &options, layout: &engine.layout, progress };
    Ok(copy::copy(&copy)?.digest)
}

/// Which file of an artifact.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// By its digest.
    pub digest: Option<String>,
    /// By its name.
    pub title: Option<String>,
}

/// Write an artifact's files into a directory, or its one file to a path.
pub fn extract(engine: &Engine, text: &str, target: &Path, choice: &Choice) -> Result<()> {
    let artifact = find(engine, text)?;
    let chosen: Vec<&Descriptor> = artifact
        .manifest
        .layers
        .iter()
        .filter(|layer| choice.digest.as_ref().is_none_or(|digest| layer.digest.as_str() == digest))
        .filter(|layer| choice.title.as_ref().is_none_or(|title| layer.annotation(TITLE) == Some(title)))
        .collect();
    ensure!(!chosen.is_empty(), "no such file in artifact {}", artifact.name);
    for layer in &chosen {
        let path = if target.is_dir() {
            target.join(file_name(layer)?)
        } else {
            ensure!(
                chosen.len() == 1,
                "the artifact consists of several files and {} is not a directory",
                target.display()
            );
            target.to_owned()
        };
        let source = directory(engine).join(blob_name(&layer.digest));
        let reader = File::open(&source).with_context(|| format!("read {}", source.display()))?;
        let mut file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        std::io::copy(&mut Checked::new(reader, layer), &mut file)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The name a file gets: its title, which comes from others and must not lead out of the directory.
fn file_name(layer: &Descriptor) -> Result<String> {
    let Some(title) = layer.annotation(TITLE) else { return Ok(layer.digest.hex().to_owned()) };
    let plain = !title.is_empty() && title != "." && title != ".." && !title.contains(['/', '\0', '\\']);
    ensure!(plain, "invalid name: \"{}\" cannot be a file in the directory", title.escape_debug());
    Ok(title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files() {
        assert_eq!(detect(b"hello\n"), "text/plain; charset=utf-8");
        assert_eq!(detect(b"a\0b"), "application/octet-stream");
        assert_eq!(detect(b"%PDF-1.7"), "application/pdf");
        assert_eq!(detect(b""), "text/plain; charset=utf-8");
    }

    #[test]
    fn titles_do_not_lead_out() {
        let layer = |title: &str| {
            let mut layer = Descriptor::new("x", Digest::of(b""), 0);
            layer.annotations = Some(BTreeMap::from([(TITLE.to_owned(), title.to_owned())]));
            layer
        };
        assert_eq!(file_name(&layer("a b")).unwrap(), "a b");
        for bad in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b"] {
            assert!(file_name(&layer(bad)).is_err(), "{bad:?}");
        }
    }
}
