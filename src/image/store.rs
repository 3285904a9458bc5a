//! Images on disk: which there are, what they are called, what they consist of.
//!
//! `images/ID.json` makes an image exist; `tags/NAME` is a link to it; `blobs/sha256/HEX` holds its documents and its
//! layers as they came; `layers-v1/HEX` its layers unpacked. A record is written last, when all it names is on disk, and
//! removed first. There is no index: a name that is spelled out costs two reads, anything else one look at `tags/`.

use crate::failure::{Failure, Kind};
use crate::image::config::ConfigDocument;
use crate::image::manifest::{Descriptor, Document, Manifest};
use crate::image::reference::{Reference, is_hex64};
use crate::model::digest::Digest;
use crate::state::event::{self, Event};
use crate::state::file::{self, Durability, fault};
use crate::state::layout::Layout;
use crate::state::lock::{self, Guard, Mode, Rank};
use crate::storage::{compress, layer, pipe};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The number in `images/ID.json`.
pub const VERSION: u32 = 1;

/// `images/ID.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Format of this document.
    pub version: u32,
    /// Digest of the config: the image's id.
    pub id: Digest,
    /// The manifests it came by, the last one first. Different compressions of one image have different manifests.
    pub manifests: Vec<Source>,
    /// Diff ids of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of all layers' files.
    pub size: u64,
    /// When it was made, nanoseconds since 1970.
    pub created_ns: i64,
    /// When it came here, nanoseconds since 1970.
    pub stored_ns: i64,
}

/// A manifest an image came by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its digest.
    pub manifest: Digest,
    /// The index it was chosen from, kept as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The compressed layers, lowest first; those that are kept are in `blobs/`.
    #[serde(default)]
    pub blobs: Vec<Digest>,
    /// What else of the index is kept: attestations and other artifacts with their blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<Digest>,
}

/// An image with its config.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its record.
    pub record: ImageRecord,
    /// Its config document.
    pub config: ConfigDocument,
    /// The name it was found by, in full; absent: it was found by its id or digest.
    pub name: Option<Reference>,
}

impl Image {
    /// The id, 64 digits.
    pub fn id(&self) -> &str {
        self.record.id.hex()
    }

    /// Diff ids of the layers, 64 digits each, lowest first.
    pub fn layers(&self) -> Vec<String> {
        self.record.layers.iter().map(|layer| layer.hex().to_owned()).collect()
    }

    /// The digest a registry knows it by.
    pub fn digest(&self) -> Option<&Digest> {
        self.record.digest()
    }
}

impl ImageRecord {
    /// Where the record of an image is.
    pub fn path(layout: &Layout, id: &Digest) -> PathBuf {
        layout.images().join(format!("{}.json", id.hex()))
    }

    /// The digest a registry knows it by: that of the manifest it came by last.
    pub fn digest(&self) -> Option<&Digest> {
        self.manifests.first().map(|source| &source.manifest)
    }

    /// Read a record; `None`: there is no such image.
    pub fn load(layout: &Layout, id: &Digest) -> Result<Option<ImageRecord>> {
        ImageRecord::read(&ImageRecord::path(layout, id))
    }

    fn read(path: &Path) -> Result<Option<ImageRecord>> {
        let record: Option<ImageRecord> = file::read_json(path)?;
        if let Some(record) = &record
            && record.version > VERSION
        {
            bail!("{} has version {}, this coracle knows {VERSION}", path.display(), record.version);
        }
        Ok(record)
    }

    /// Its config document.
    pub fn config(&self, layout: &Layout) -> Result<ConfigDocument> {
        ConfigDocument::parse(&read_blob(layout, &self.id)?)
    }

    fn has_digest(&self, digest: &Digest) -> bool {
        self.manifests.iter().any(|source| source.manifest == *digest || source.index.as_ref() == Some(digest))
    }
}

/// Find an image by any name people have for it; `None`: there is no such image.
///
/// Tried in this order: `localhost/NAME` and `docker.io/library/NAME` (or the name as it is when it has a registry), the
/// whole id or its beginning, `sha256:` of a manifest or config, and last any repository that ends in `/NAME`.
///
/// # Errors
/// A name that is none, and an id or name that more than one image has.
pub fn resolve(layout: &Layout, name: &str) -> Result<Option<Image>> {
    let found = match find(layout, name)? {
        Some(found) => found,
        None => return Ok(None),
    };
    let (record, name) = found;
    let config = record.config(layout)?;
    Ok(Some(Image { record, config, name }))
}

/// [`resolve`] without reading the config.
pub fn find(layout: &Layout, name: &str) -> Result<Option<(ImageRecord, Option<Reference>)>> {
    let candidates = Reference::local_candidates(name);
    for candidate in candidates.iter().flatten() {
        if let Some(record) = tagged(layout, candidate)? {
            return Ok(Some((record, Some(candidate.clone()))));
        }
    }
    if let Some(record) = by_id(layout, name)? {
        return Ok(Some((record, None)));
    }
    match candidates {
        Ok(candidates) => by_ending(layout, name, &candidates),
        // What is no reference may still have been an id; now it is neither.
        Err(_) if is_id_like(name) => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`resolve`], or podman's words for an image that is not there.
pub fn require(layout: &Layout, name: &str) -> Result<Image> {
    resolve(layout, name)?.ok_or_else(|| not_known(name))
}

/// podman's words for an image that is not there.
pub fn not_known(name: &str) -> anyhow::Error {
    Failure::new(Kind::Engine, format!("{name}: image not known")).into()
}

/// The image a full name belongs to.
pub fn tagged(layout: &Layout, name: &Reference) -> Result<Option<ImageRecord>> {
    if let Some(digest) = &name.digest
        && let Some(record) = ImageRecord::read(&layout.tags().join(name.escaped()?))?
    {
        return Ok(record.has_digest(digest).then_some(record));
    }
    if name.digest.is_some() {
        return by_repository_digest(layout, name);
    }
    ImageRecord::read(&layout.tags().join(name.escaped()?))
}

/// NAME@DIGEST of an image that has another name in the same repository.
fn by_repository_digest(layout: &Layout, name: &Reference) -> Result<Option<ImageRecord>> {
    let Some(digest) = &name.digest else { return Ok(None) };
    for (tag, id) in tags(layout)? {
        if tag.name() == name.name()
            && let Some(record) = ImageRecord::load(layout, &id)?
            && record.has_digest(digest)
        {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn is_id_like(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

fn by_id(layout: &Layout, text: &str) -> Result<Option<ImageRecord>> {
    if !is_id_like(text) {
        return Ok(None);
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if is_hex64(hex) {
        let digest = Digest::parse(&format!("sha256:{hex}"))?;
        if let Some(record) = ImageRecord::load(layout, &digest)? {
            return Ok(Some(record));
        }
        return Ok(list(layout)?.into_iter().find(|record| record.has_digest(&digest)));
    }
    let matching: Vec<Digest> = ids(layout)?.into_iter().filter(|id| id.hex().starts_with(hex)).collect();
    match matching.as_slice() {
        [] => Ok(None),
        [id] => ImageRecord::load(layout, id),
        _ => {
            Err(Failure::new(Kind::Engine, format!("image ID {text} is ambiguous: {} images begin so", matching.len()))
                .hint("give more digits")
                .into())
        }
    }
}

/// Any repository that ends in `/NAME`.
fn by_ending(
    layout: &Layout,
    text: &str,
    candidates: &[Reference],
) -> Result<Option<(ImageRecord, Option<Reference>)>> {
    if Reference::is_qualified(text) {
        return Ok(None);
    }
    let Some(wanted) = candidates.first() else { return Ok(None) };
    let ending = format!("/{}", wanted.repository);
    let mut matching = BTreeMap::new();
    for (tag, id) in tags(layout)? {
        let same_tag = wanted.digest.is_some() || tag.tag == wanted.tag;
        if same_tag && format!("/{}", tag.repository).ends_with(&ending) {
            matching.entry(id).or_insert(tag);
        }
    }
    if let Some(digest) = &wanted.digest {
        let mut kept = BTreeMap::new();
        for (id, tag) in matching {
            if ImageRecord::load(layout, &id)?.is_some_and(|record| record.has_digest(digest)) {
                kept.insert(id, tag);
            }
        }
        matching = kept;
    }
    match matching.len() {
        0 => Ok(None),
        1 => {
            let Some((id, tag)) = matching.pop_first() else { return Ok(None) };
            Ok(ImageRecord::load(layout, &id)?.map(|record| (record, Some(tag))))
        }
        _ => {
            let names: Vec<String> = matching.values().map(Reference::to_string).collect();
            Err(Failure::new(Kind::Engine, format!("{text} is ambiguous: {}", names.join(", ")))
                .hint("write the name with its registry")
                .into())
        }
    }
}

/// Ids of all images, in no order.
pub fn ids(layout: &Layout) -> Result<Vec<Digest>> {
    let names = entry_names(&layout.images())?;
    Ok(names.iter().filter_map(|name| Digest::parse(&format!("sha256:{}", name.strip_suffix(".json")?)).ok()).collect())
}

/// All images, in no order. One that cannot be read is reported on standard error and passed over.
pub fn list(layout: &Layout) -> Result<Vec<ImageRecord>> {
    let mut images = Vec::new();
    for id in ids(layout)? {
        match ImageRecord::load(layout, &id) {
            Ok(image) => images.extend(image),
            Err(error) => eprintln!("coracle: passed over: {error:#}"),
        }
    }
    Ok(images)
}

/// All names with the images they belong to. Costs a readlink a name.
pub fn tags(layout: &Layout) -> Result<Vec<(Reference, Digest)>> {
    let directory = layout.tags();
    let mut found = Vec::new();
    for name in entry_names(&directory)? {
        let Ok(reference) = Reference::unescape(&name) else { continue };
        if let Some(id) = tag_target(&directory.join(&name)) {
            found.push((reference, id));
        }
    }
    found.sort();
    Ok(found)
}

fn tag_target(path: &Path) -> Option<Digest> {
    let target = std::fs::read_link(path).ok()?;
    let hex = target.file_name()?.to_str()?.strip_suffix(".json")?;
    Digest::parse(&format!("sha256:{hex}")).ok()
}

/// The names of one image, sorted.
pub fn names_of(layout: &Layout, id: &Digest) -> Result<Vec<Reference>> {
    Ok(tags(layout)?.into_iter().filter(|(_, owner)| owner == id).map(|(name, _)| name).collect())
}

fn entry_names(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect())
}

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

/// A new image: documents in hand, layers staged or present.
#[derive(Debug)]
pub struct NewImage {
    /// The config document, as it came.
    pub config: Vec<u8>,
    /// The manifest, as it came.
    pub manifest: Vec<u8>,
    /// The index it was chosen from, as it came.
    pub index: Option<Vec<u8>>,
    /// Layers that must become visible.
    pub staged: Vec<layer::Staged>,
    /// Compressed layers that must become visible: files in `tmp/` whose digests the caller has checked, and keeps locked.
    pub blobs: Vec<(PathBuf, Digest)>,
    /// Names to give it.
    pub names: Vec<Reference>,
    /// What the event says: `pull`, `load`, `import`, `commit`, `build`.
    pub event: &'static str,
}

/// Make an image exist. The caller holds a [`layer::Claim`] on each of its layers.
///
/// # Errors
/// When a layer is missing, or the config's layers are not those of the manifest. Nothing is visible then.
pub fn commit(layout: &Layout, new: NewImage) -> Result<ImageRecord> {
    commit_with(layout, new, &[])
}

/// [`commit`] with further blobs of the index that are no images.
pub fn commit_with(layout: &Layout, new: NewImage, extra: &[Vec<u8>]) -> Result<ImageRecord> {
    let config = ConfigDocument::parse(&new.config)?;
    let Document::Manifest(manifest) = crate::image::manifest::parse(&new.manifest, None)? else {
        bail!("an index in the place of a manifest");
    };
    let id = digest_of(&new.config);
    if manifest.config.digest != id {
        bail!("the config is {id}, its manifest says {}", manifest.config.digest);
    }
    if manifest.layers.len() != config.rootfs.diff_ids.len() {
        bail!("the manifest has {} layers, the config {}", manifest.layers.len(), config.rootfs.diff_ids.len());
    }
    if !new.staged.is_empty() || !new.blobs.is_empty() {
        layer::sync(layout)?;
    }
    let _store = lock::lock(&layout.lock(), Rank::Store, Mode::Shared)?;
    layer::publish(layout, new.staged)?;
    for (path, digest) in &new.blobs {
        adopt_blob(layout, path, digest)?;
    }
    if !new.blobs.is_empty() {
        file::sync_directory(&layout.blobs())?;
    }
    let mut size = 0;
    for diff_id in &config.rootfs.diff_ids {
        let layer = layer::load(layout, diff_id.hex())?;
        size += layer.with_context(|| format!("layer {diff_id} is not there"))?.size;
    }
    put_blob(layout, &new.config)?;
    let source = Source {
        manifest: put_blob(layout, &new.manifest)?,
        index: new.index.map(|index| put_blob(layout, &index)).transpose()?,
        blobs: manifest.layers.iter().map(|layer: &Descriptor| layer.digest.clone()).collect(),
        extra: extra.iter().map(|blob| put_blob(layout, blob)).collect::<Result<_>>()?,
    };
    let now = event::now_ns();
    let mut record = ImageRecord {
        version: VERSION,
        id: id.clone(),
        manifests: vec![source],
        size,
        created_ns: config.created_ns(),
        stored_ns: now,
        layers: config.rootfs.diff_ids,
    };
    if let Some(old) = ImageRecord::load(layout, &id)? {
        let newest = record.manifests[0].manifest.clone();
        record.manifests.extend(old.manifests.into_iter().filter(|source| source.manifest != newest));
        record.stored_ns = old.stored_ns;
    }
    file::replace_json(&ImageRecord::path(layout, &id), &record, Durability::Durable)?;
    for name in &new.names {
        set_tag(layout, name, &id)?;
    }
    let shown = new.names.first().map_or_else(|| id.hex().to_owned(), Reference::to_string);
    record_event(layout, new.event, &id, &shown);
    Ok(record)
}

/// Write an event about an image.
pub fn record_event(layout: &Layout, status: &str, id: &Digest, name: &str) {
    event::record(
        layout,
        Event {
            kind: "image".to_owned(),
            status: status.to_owned(),
            id: id.hex().to_owned(),
            name: name.to_owned(),
            ..Event::default()
        },
    );
}

/// Give an image a name, taking it from whoever has it.
pub fn tag(layout: &Layout, record: &ImageRecord, name: &Reference) -> Result<()> {
    tag_because(layout, record, name, "tag")
}

/// [`tag`] with the event to tell: a pull of an image that is there only names it.
pub fn tag_because(layout: &Layout, record: &ImageRecord, name: &Reference, event: &str) -> Result<()> {
    let _store = lock::lock(&layout.lock(), Rank::Store, Mode::Shared)?;
    if ImageRecord::load(layout, &record.id)?.is_none() {
        return Err(not_known(record.id.hex()));
    }
    set_tag(layout, name, &record.id)?;
    record_event(layout, event, &record.id, &name.to_string());
    Ok(())
}

fn set_tag(layout: &Layout, name: &Reference, id: &Digest) -> Result<()> {
    let path = layout.tags().join(name.escaped()?);
    if tag_target(&path).as_ref() == Some(id) {
        return Ok(());
    }
    let context = || format!("tag {name}");
    fault::point("tag", &path).with_context(context)?;
    let target = Path::new("../images").join(format!("{}.json", id.hex()));
    let temporary = file::staging_name(&layout.tags(), ".tag");
    std::os::unix::fs::symlink(target, &temporary).with_context(context)?;
    if let Err(error) = std::fs::rename(&temporary, &path) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error).with_context(context);
    }
    file::sync_directory(&layout.tags()).with_context(context)
}

/// Take a name away.
///
/// # Returns
/// Whether it was there.
pub fn untag(layout: &Layout, name: &Reference) -> Result<bool> {
    let path = layout.tags().join(name.escaped()?);
    let Some(id) = tag_target(&path) else { return Ok(false) };
    fault::point("untag", &path)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        result => result.with_context(|| format!("untag {name}"))?,
    }
    // Not synced: a name that comes back after a power cut does no harm, and this must work on a full disk.
    record_event(layout, "untag", &id, &name.to_string());
    Ok(true)
}

/// Remove an image that nobody uses and nobody names, with what only it needs. Its names go with it.
///
/// The caller has decided that it may go; `store` is the exclusive lock on the store, which this drops before the slow
/// part.
pub fn remove(layout: &Layout, record: &ImageRecord, store: Guard) -> Result<()> {
    for name in names_of(layout, &record.id)? {
        untag(layout, &name)?;
    }
    let path = ImageRecord::path(layout, &record.id);
    fault::point("remove", &path)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    record_event(layout, "remove", &record.id, record.id.hex());
    collect(layout, store)
}

/// Remove layers and blobs that no record reaches. `store` is the exclusive lock on the store.
pub fn collect(layout: &Layout, store: Guard) -> Result<()> {
    let reached = reach(layout)?;
    let mut gone = Vec::new();
    for hex in layer::list(layout)? {
        if reached.layers.contains(&hex) {
            continue;
        }
        // A pull that counts on this layer has claimed it.
        let Some(claim) = layer::Claim::try_take(layout, &hex)? else { continue };
        let aside = file::staging_name(&layout.tmp(), "gone");
        let path = layout.layers().join(&hex);
        fault::point("discard", &path)?;
        match std::fs::rename(&path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => {
                result.with_context(|| format!("remove {}", path.display()))?;
                gone.push(aside);
            }
        }
        drop(claim);
    }
    for name in entry_names(&layout.blobs())? {
        if !reached.blobs.contains(&name) {
            let path = layout.blobs().join(&name);
            fault::point("remove", &path)?;
            let _ = std::fs::remove_file(path);
        }
    }
    drop(store);
    gone.iter().try_for_each(|path| crate::storage::tree::remove(path))
}

/// What records reach, by digits.
#[derive(Debug, Default)]
pub struct Reached {
    /// Layers.
    pub layers: BTreeSet<String>,
    /// Blobs.
    pub blobs: BTreeSet<String>,
}

/// Follow all records of images and containers.
pub fn reach(layout: &Layout) -> Result<Reached> {
    let mut reached = Reached::default();
    for id in ids(layout)? {
        // An image whose record cannot be read may need anything: then nothing is garbage.
        let Some(image) = ImageRecord::load(layout, &id)? else { continue };
        reached.layers.extend(image.layers.iter().map(|layer| layer.hex().to_owned()));
        reached.blobs.insert(id.hex().to_owned());
        for source in &image.manifests {
            reached.blobs.insert(source.manifest.hex().to_owned());
            reached.blobs.extend(
                source.index.iter().chain(&source.blobs).chain(&source.extra).map(|digest| digest.hex().to_owned()),
            );
        }
    }
    for id in crate::state::container::list(layout)? {
        if let Ok(record) = crate::state::container::ContainerRecord::load(layout, &id) {
            reached.layers.extend(record.layers);
        }
    }
    Ok(reached)
}

/// Take the store for collecting garbage.
pub fn exclusive(layout: &Layout) -> Result<Guard> {
    lock::lock(&layout.lock(), Rank::Store, Mode::Exclusive)
}

/// One line of `history`, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryLine {
    /// The image id on the newest line, absent on the others.
    pub id: Option<Digest>,
    /// What the config says.
    pub step: crate::image::config::History,
    /// Bytes of the layer's files.
    pub size: u64,
}

/// How an image came about, newest first.
pub fn history(layout: &Layout, image: &Image) -> Result<Vec<HistoryLine>> {
    let mut layers = image.record.layers.iter();
    let mut lines = Vec::new();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        let size = match layer {
            Some(layer) => layer::load(layout, layer.hex())?.map_or(0, |layer| layer.size),
            None => 0,
        };
        lines.push(HistoryLine { id: None, step: step.clone(), size });
    }
    // Images of poor builders say nothing of some layers.
    for layer in layers {
        let size = layer::load(layout, layer.hex())?.map_or(0, |layer| layer.size);
        lines.push(HistoryLine { id: None, step: Default::default(), size });
    }
    lines.reverse();
    if let Some(first) = lines.first_mut() {
        first.id = Some(image.record.id.clone());
    }
    Ok(lines)
}
