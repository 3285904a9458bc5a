//! From a registry into the store.
//!
//! The story: the name's candidates -> policy -> the places to ask, mirrors first -> manifest (of an index the one for
//! the platform) -> config -> the layers that are not there, several at once, straight into the unpacker -> one record.
//!
//! Invariants: nothing is visible before its digest was compared; a layer that is there is not fetched, whatever it is
//! compressed with; what two pulls need at once is fetched by one of them.

use crate::failure::message_of;
use crate::host::userns::Privilege;
use crate::image::access::Network;
use crate::image::conf::Endpoint;
use crate::image::config::ConfigDocument;
use crate::image::download::{self, Download, Partial};
use crate::image::manifest::{self, Descriptor, Document, Index, Manifest, Platform};
use crate::image::policy::Policy;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::{Fetched, Repository};
use crate::image::signature::Demand;
use crate::image::store::{self, ImageRecord, NewImage};
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use crate::storage::layer::{self, Claim};
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// An image has at most so many layers; overlayfs takes 500.
const LAYERS_LIMIT: usize = 500;

/// Where images go to.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The store.
    pub layout: &'a Layout,
    /// As whom we unpack.
    pub privilege: &'a Privilege,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// What to pull.
#[derive(Clone, Debug)]
pub struct Wish {
    /// For which machine; absent: this one.
    pub platform: Option<Platform>,
    /// All images of an index.
    pub all_platforms: bool,
    /// The policy of what may come in.
    pub policy: Policy,
}

/// What came.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Its record.
    pub record: ImageRecord,
    /// Under which name.
    pub name: Reference,
}

/// Pull what a user's word for an image stands for.
pub fn pull(target: Target<'_>, network: &Network, text: &str, wish: &Wish) -> Result<Pulled> {
    let candidates = network.registries.candidates(text)?;
    let mut errors = Vec::new();
    for candidate in &candidates {
        target.progress.say(&format!("Trying to pull {candidate}..."));
        match pull_reference(target, network, candidate, wish) {
            Ok(pulled) => return Ok(pulled),
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        1 => Err(errors.remove(0)),
        count => {
            let texts: Vec<String> = errors.iter().map(message_of).collect();
            bail!("{count} errors occurred while pulling: {}", texts.join("; "))
        }
    }
}

/// Pull a full name.
pub fn pull_reference(target: Target<'_>, network: &Network, name: &Reference, wish: &Wish) -> Result<Pulled> {
    let source = open(network, name, &wish.policy)?;
    let record = receive(target, network, &source, name, wish)?;
    Ok(Pulled { record, name: name.clone() })
}

/// A repository that has the image, and the image's top document.
pub struct Source {
    /// The repository.
    pub repository: Repository,
    /// Manifest or index; that it was signed is proved by [`Source::admit`] only.
    pub top: Fetched,
    demand: Demand,
    top_admitted: OnceLock<bool>,
}

impl Source {
    /// Whether the policy takes the manifest of this digest: it, or the index that names it, has the signatures that are
    /// wanted.
    pub fn admit(&self, manifest: &Digest) -> Result<()> {
        if self.demand.is_empty() {
            return Ok(());
        }
        let is_top = *manifest == self.top.digest;
        if !is_top && *self.top_admitted.get_or_init(|| self.demand.prove(&self.repository, &self.top.digest).is_ok()) {
            return Ok(());
        }
        self.demand.prove(&self.repository, manifest)
    }
}

/// Ask each place in order, if the policy does not forbid it. Of several failures that of the image's own place is told.
pub fn open(network: &Network, name: &Reference, policy: &Policy) -> Result<Source> {
    let demand = policy.check_registry(name)?;
    let mut last = None;
    for endpoint in network.registries.endpoints(name)? {
        let Endpoint { reference, .. } = &endpoint;
        let wanted = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.as_deref().unwrap_or(crate::image::reference::DEFAULT_TAG),
        };
        let result = network.connect(&endpoint).and_then(|repository| {
            let top = repository.manifest(wanted)?;
            Ok(Source { repository, top, demand: demand.clone(), top_admitted: OnceLock::new() })
        });
        match result {
            Ok(source) => return Ok(source),
            Err(error) => last = Some(error),
        }
    }
    let error = last.with_context(|| format!("{name}: nowhere to ask for it"))?;
    Err(error.context(format!("initializing source docker://{name}")))
}

fn receive(
    target: Target<'_>,
    network: &Network,
    source: &Source,
    name: &Reference,
    wish: &Wish,
) -> Result<ImageRecord> {
    let one = |manifest: Fetched, index, names, extra: &[Vec<u8>]| {
        source.admit(&manifest.digest)?;
        let image = One { repository: &source.repository, manifest, index, names, extra, parallel: network.parallel() };
        receive_one(target, image, wish)
    };
    let names = vec![name.clone()];
    let index = match &source.top.document {
        Document::Manifest(_) => return one(source.top.clone(), None, names, &[]),
        Document::Index(index) => index,
    };
    let wanted = wish.platform.clone().unwrap_or_else(Platform::host);
    let chosen = wanted.select(index);
    let mut extra = Vec::new();
    if wish.all_platforms {
        for entry in &index.manifests {
            let fetched = local_or_remote(target.layout, &source.repository, entry)?;
            match &fetched.document {
                Document::Manifest(manifest) if entry.is_attestation() || !manifest.is_image() => {
                    gather(target.layout, &source.repository, manifest, &mut extra)?;
                    extra.push(fetched.bytes);
                }
                // A name by digest, so that it is not taken for one that nobody wants.
                _ if chosen.is_none_or(|chosen| chosen.digest != entry.digest) => {
                    one(fetched, Some(&source.top), vec![name.at(&entry.digest)], &[])?;
                }
                _ => {}
            }
        }
    }
    let chosen = chosen.with_context(|| no_platform(index, &wanted))?;
    let manifest = local_or_remote(target.layout, &source.repository, chosen)?;
    one(manifest, Some(&source.top), names, &extra)
}

/// The blobs of an attestation or another artifact in an index: kept with it, never unpacked.
fn gather(layout: &Layout, repository: &Repository, manifest: &Manifest, extra: &mut Vec<Vec<u8>>) -> Result<()> {
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        extra.push(small_blob(layout, repository, descriptor)?);
    }
    Ok(())
}

/// podman's words, and what there is.
pub fn no_platform(index: &Index, wanted: &Platform) -> String {
    let mut offered: Vec<String> = index
        .manifests
        .iter()
        .filter(|entry| !entry.is_attestation())
        .filter_map(|entry| entry.platform.as_ref().map(ToString::to_string))
        .collect();
    offered.dedup();
    format!(
        "choosing an image from manifest list: no image found in manifest list for architecture {}, variant \"{}\", OS {} \
         (there is {})",
        wanted.architecture,
        wanted.variant.as_deref().unwrap_or_default(),
        wanted.os,
        if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
    )
}

/// A document by digest: from the store if it is there.
fn local_or_remote(layout: &Layout, repository: &Repository, descriptor: &Descriptor) -> Result<Fetched> {
    if store::blob_path(layout, &descriptor.digest).exists() {
        let bytes = store::read_blob(layout, &descriptor.digest)?;
        if Digest::of(&bytes) == descriptor.digest {
            let document = manifest::parse(&bytes, Some(&descriptor.media_type))?;
            return Ok(Fetched { bytes, digest: descriptor.digest.clone(), document });
        }
    }
    repository.described(descriptor)
}

/// One image on its way.
struct One<'a> {
    repository: &'a Repository,
    manifest: Fetched,
    index: Option<&'a Fetched>,
    names: Vec<Reference>,
    /// Blobs of the index that are no images.
    extra: &'a [Vec<u8>],
    parallel: usize,
}

fn receive_one(target: Target<'_>, image: One<'_>, wish: &Wish) -> Result<ImageRecord> {
    let layout = target.layout;
    let Document::Manifest(manifest) = &image.manifest.document else {
        bail!("{} is an index inside an index: not supported", image.manifest.digest);
    };
    ensure!(
        manifest.is_image(),
        "unsupported image-specific operation on artifact with type \"{}\"",
        manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type)
    );
    if let Some(record) = already(layout, manifest, &image)? {
        for name in &image.names {
            store::tag_because(layout, &record, name, "pull")?;
        }
        return Ok(record);
    }
    ensure!(manifest.layers.len() <= LAYERS_LIMIT, "the image has {} layers", manifest.layers.len());
    manifest.layers.iter().try_for_each(manifest::check_layer)?;
    let config = small_blob(layout, image.repository, &manifest.config).context("reading the image's config")?;
    let document = ConfigDocument::parse(&config)?;
    check_platform(&document, wish, target.progress)?;
    let diff_ids = &document.rootfs.diff_ids;
    ensure!(
        diff_ids.len() == manifest.layers.len(),
        "the manifest has {} layers, the config {}",
        manifest.layers.len(),
        diff_ids.len()
    );
    let pairs = pairs(manifest, diff_ids);
    check_room(layout, &pairs)?;
    let held = fetch_layers(target, &image, &pairs)?;
    target.progress.say(&format!("Writing manifest to image destination ({})", image.manifest.digest));
    let record = store::commit_with(
        layout,
        NewImage {
            config,
            manifest: image.manifest.bytes,
            index: image.index.map(|index| index.bytes.clone()),
            staged: Vec::new(),
            blobs: held.iter().filter_map(|held| held.blob.clone()).collect(),
            // With the layers that came in them.
            synced: true,
            names: image.names,
            event: "pull",
        },
        image.extra,
    )?;
    Ok(record)
}

/// The image, if it is here by this very manifest.
fn already(layout: &Layout, manifest: &Manifest, image: &One<'_>) -> Result<Option<ImageRecord>> {
    let index = image.index.map(|index| &index.digest);
    let record = ImageRecord::load(layout, &manifest.config.digest)?;
    Ok(record.filter(|record| {
        record.manifests.first().is_some_and(|source| {
            source.manifest == image.manifest.digest
                && source.index.as_ref() == index
                && image.extra.iter().all(|blob| source.extra.contains(&Digest::of(blob)))
        }) && record.layers.iter().all(|layer| layer::exists(layout, layer.hex()))
    }))
}

/// A blob that is small: from the store if it is there.
fn small_blob(layout: &Layout, repository: &Repository, descriptor: &Descriptor) -> Result<Vec<u8>> {
    if store::blob_path(layout, &descriptor.digest).exists() {
        let bytes = store::read_blob(layout, &descriptor.digest)?;
        if Digest::of(&bytes) == descriptor.digest {
            return Ok(bytes);
        }
    }
    repository.small_blob(descriptor, manifest::CONFIG_LIMIT_BYTES)
}

fn check_platform(config: &ConfigDocument, wish: &Wish, progress: &dyn Progress) -> Result<()> {
    if !config.os.is_empty()
        && config.os != "linux"
        && wish.platform.as_ref().is_none_or(|wanted| wanted.os != config.os)
    {
        bail!("image operating system \"{}\" cannot be used on this host", config.os);
    }
    let wanted = wish.platform.clone().unwrap_or_else(Platform::host);
    if !wish.all_platforms && !config.architecture.is_empty() && config.architecture != wanted.architecture {
        progress.say(&format!(
            "WARNING: image platform ({}/{}) does not match the expected platform ({}/{})",
            config.os, config.architecture, wanted.os, wanted.architecture
        ));
    }
    Ok(())
}

/// A layer as the manifest and as the config name it; each diff id once.
struct Pair<'a> {
    blob: &'a Descriptor,
    diff_id: &'a Digest,
}

fn pairs<'a>(manifest: &'a Manifest, diff_ids: &'a [Digest]) -> Vec<Pair<'a>> {
    let mut found: Vec<Pair<'_>> = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if !found.iter().any(|pair| pair.diff_id == diff_id) {
            found.push(Pair { blob, diff_id });
        }
    }
    found
}

/// Say what is missing before anything is fetched. A layer needs its blob's bytes and at least as many unpacked.
fn check_room(layout: &Layout, pairs: &[Pair<'_>]) -> Result<()> {
    let missing = pairs.iter().filter(|pair| !layer::exists(layout, pair.diff_id.hex()));
    let bytes = missing.map(|pair| pair.blob.size).fold(0_u64, u64::saturating_add).saturating_mul(2);
    if bytes == 0 {
        return Ok(());
    }
    let directory = std::fs::File::open(layout.tmp()).with_context(|| format!("open {}", layout.tmp().display()))?;
    let free = crate::storage::unpack::free_bytes(std::os::fd::AsFd::as_fd(&directory))?;
    if free < bytes {
        let missing = bytes - free;
        return Err(crate::failure::Failure::new(
            crate::failure::Kind::Engine,
            format!("no space left on device: the image needs at least {bytes} bytes, {missing} more than are free"),
        )
        .hint(format!("`coracle system prune` frees space on the file system of {}", layout.data().display()))
        .into());
    }
    Ok(())
}

/// What is held until the image is named: the claim on its layer, and the blob as it came.
struct Held {
    _claim: Claim,
    _partial: Option<Partial>,
    blob: Option<(PathBuf, Digest)>,
}

fn fetch_layers(target: Target<'_>, image: &One<'_>, pairs: &[Pair<'_>]) -> Result<Vec<Held>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let held = Mutex::new(Vec::with_capacity(pairs.len()));
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let Some(pair) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            match fetch_layer(target, image.repository, pair, &stop) {
                Ok(layer) => held.lock().unwrap_or_else(PoisonError::into_inner).push(layer),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..image.parallel.min(pairs.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a thread died")));
        std::iter::once(own).chain(others).collect()
    });
    // The first failure stops the others; what they say of that is of no interest.
    let mut errors: Vec<anyhow::Error> = results.into_iter().filter_map(Result::err).collect();
    let telling = errors.iter().position(|error| !message_of(error).contains(download::STOPPED)).unwrap_or(0);
    if errors.is_empty() {
        return Ok(held.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Err(errors.swap_remove(telling))
}

fn fetch_layer(target: Target<'_>, repository: &Repository, pair: &Pair<'_>, stop: &AtomicBool) -> Result<Held> {
    let Pair { blob, diff_id } = pair;
    let shown = blob.digest.short();
    // Never is another claim waited for while this one is held alone: no two pulls can wait for each other.
    let mut claim = Claim::take(target.layout, diff_id.hex())?;
    if claim.present {
        let meter = target.progress.blob(&format!("Copying blob {shown}"), Some(blob.size));
        meter.finish("skipped: already exists");
        return Ok(Held { _claim: claim, _partial: None, blob: None });
    }
    let meter = target.progress.blob(&format!("Copying blob {shown}"), Some(blob.size));
    let mut partial = Partial::open(target.layout, blob)?;
    let staged = loop {
        let input = layer::Input {
            reader: Box::new(Download::new(repository, blob, &mut partial, &*meter, stop)),
            blob: Some(blob.digest.clone()),
            blob_size: Some(blob.size),
            diff_id: Some((*diff_id).clone()),
        };
        match layer::stage(target.layout, target.privilege, input) {
            Ok(staged) => break staged,
            // What came before a power cut may be wrong: then all of it is fetched again, once.
            Err(_) if !partial.is_broken_off() && download::spoiled(&mut partial)? => {}
            Err(error) => {
                if !partial.is_broken_off() {
                    partial.remove()?;
                }
                return Err(error.context(format!("copying blob {}", blob.digest)));
            }
        }
    };
    layer::sync(target.layout)?;
    {
        let _store = lock::lock(&target.layout.lock(), Rank::Store, Mode::Shared)?;
        layer::publish(target.layout, vec![staged])?;
        // Under the store's lock: for a moment the claim is nobody's, and a collector must not take the layer then.
        claim.share()?;
    }
    meter.finish("done");
    let blob = (partial.path().to_owned(), blob.digest.clone());
    Ok(Held { _claim: claim, _partial: Some(partial), blob: Some(blob) })
}
