//! Images from place to place: `push` and `copy`.

use crate::engine::{Engine, registry};
use crate::image::access::{Access, Network};
use crate::image::archive::source::Source as Archive;
use crate::image::copy::archive::{ArchiveSink, ArchiveSource};
use crate::image::copy::directory::{DirectorySink, DirectorySource};
use crate::image::copy::layout::{LayoutSink, LayoutSource};
use crate::image::copy::place::Place;
use crate::image::copy::registry::{RegistrySink, RegistrySource};
use crate::image::copy::store::{self as into_store, StoreSource};
use crate::image::copy::{self, Conversion, Format, Options, Sink, Source};
use crate::image::manifest::Platform;
use crate::image::policy::Policy;
use crate::image::progress::Progress;
use crate::image::pull::{self, Wish};
use crate::image::reference::Reference;
use crate::image::signature::Signer;
use crate::image::store::{self, Image};
use crate::model::digest::Digest;
use crate::storage::compress::Compression;
use crate::storage::layer::Staging;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::Arc;

/// What to change on the way, and how much to take.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Documents and layers.
    pub conversion: Conversion,
    /// The whole index.
    pub all: bool,
    /// Of an index, this image.
    pub platform: Option<Platform>,
    /// Who signs what goes to a registry.
    pub signer: Option<Arc<Signer>>,
}

/// Send an image of the store. Without a destination it goes where its name says.
///
/// # Returns
/// The digest it has there.
pub fn push(
    engine: &Engine,
    name: &str,
    destination: Option<&str>,
    access: Access,
    mut how: How,
    progress: &dyn Progress,
) -> Result<Digest> {
    let image = store::require(&engine.layout, name)?;
    let network = registry::network(engine, access)?;
    let place = match destination {
        Some(text) => match Place::parse(text)? {
            Some(place) => place,
            None => Place::Registry(text.to_owned()),
        },
        None => Place::Registry(own_name(&image, name)?.to_string()),
    };
    if how.conversion.compression.is_none()
        && let Some(format) = network.compression_format()
    {
        how.conversion.compression = Some(compression(format)?);
    }
    let shown = image.name.clone().map_or_else(|| image.id().to_owned(), |name| name.to_string());
    let id = image.record.id.clone();
    let source = StoreSource::open(&engine.layout, image, how.all)?;
    let digest = run(engine, &network, &source, &place, &how, progress)?;
    store::record_event(&engine.layout, "push", &id, &shown);
    Ok(digest)
}

/// The registry's name of an image; an id has none.
fn own_name(image: &Image, typed: &str) -> Result<Reference> {
    image.name.clone().with_context(|| format!("`{typed}` is not a valid reference: name where to push it"))
}

/// Copy from any place to any.
pub fn copy(
    engine: &Engine,
    source: &str,
    target: &str,
    access: (Access, Access),
    how: &How,
    progress: &dyn Progress,
) -> Result<Digest> {
    let (from, to) = (Place::require(source)?, Place::require(target)?);
    let (source_access, target_access) = access;
    let source_network = registry::network(engine, source_access)?;
    let policy = Policy::load(None::<&Path>)?;
    // From a registry into the store is a pull: with its resumption and its sharing.
    if let (Place::Registry(name), Place::Store(local)) = (&from, &to) {
        ensure!(how.signer.is_none(), "signatures are kept in registries only");
        let name = Reference::parse(name)?.or_latest();
        let wish = Wish { platform: how.platform.clone(), all_platforms: how.all, policy };
        let target = pull::Target { layout: &engine.layout, privilege: &engine.privilege, progress };
        let pulled = pull::pull_reference(target, &source_network, &name, &wish)?;
        let local = Reference::parse_local(local)?;
        if local != name {
            store::tag(&engine.layout, &pulled.record, &local)?;
            store::untag(&engine.layout, &name)?;
        }
        return pulled.record.digest().cloned().context("the image has no manifest");
    }
    let source = open_source(engine, &source_network, &policy, &from, how.all)?;
    let network = registry::network(engine, target_access)?;
    run(engine, &network, &*source, &to, how, progress)
}

/// Open a place to read from.
pub fn open_source<'a>(
    engine: &'a Engine,
    network: &Network,
    policy: &Policy,
    place: &Place,
    all: bool,
) -> Result<Box<dyn Source + 'a>> {
    let layout = &engine.layout;
    Ok(match place {
        Place::Registry(name) => {
            let name = Reference::parse(name)?.or_latest();
            Box::new(RegistrySource::open(network, &name, policy)?)
        }
        Place::Layout(path, name) => {
            policy.check_path("oci", path)?;
            Box::new(LayoutSource::open(Archive::open(layout, path)?, name.as_deref()).with_context(|| reading(path))?)
        }
        Place::LayoutArchive(path, name) => {
            policy.check_path("oci-archive", path)?;
            Box::new(LayoutSource::open(Archive::open(layout, path)?, name.as_deref()).with_context(|| reading(path))?)
        }
        Place::DockerArchive(path, name) => {
            policy.check_path("docker-archive", path)?;
            Box::new(ArchiveSource::open(Archive::open(layout, path)?, name.as_deref()).with_context(|| reading(path))?)
        }
        Place::Directory(path) => {
            policy.check_path("dir", path)?;
            Box::new(DirectorySource::open(path)?)
        }
        Place::Store(name) => {
            let image = store::require(layout, name)?;
            Box::new(StoreSource::open(layout, image, all)?)
        }
    })
}

fn reading(path: &Path) -> String {
    format!("read {}", path.display())
}

/// Copy to a place.
pub fn run(
    engine: &Engine,
    network: &Network,
    source: &dyn Source,
    place: &Place,
    how: &How,
    progress: &dyn Progress,
) -> Result<Digest> {
    let layout = &engine.layout;
    let signable = how.signer.is_none() || matches!(place, Place::Registry(_));
    ensure!(signable, "signatures are kept in registries only");
    let mut _staging = None;
    let sink: Box<dyn Sink + '_> = match place {
        Place::Registry(name) => {
            let name = Reference::parse(name)?.or_latest();
            Box::new(RegistrySink::open(network, &name)?.signed_by(how.signer.clone()))
        }
        Place::Layout(path, name) => Box::new(LayoutSink::directory(path, name.as_deref())?),
        Place::LayoutArchive(path, name) => {
            let staging = Staging::create(layout, "archive")?;
            let sink = LayoutSink::archive(path, name.as_deref(), staging.path())?;
            _staging = Some(staging);
            Box::new(sink)
        }
        Place::DockerArchive(path, name) => Box::new(ArchiveSink::create(layout, path, name.as_deref())?),
        Place::Directory(path) => Box::new(DirectorySink::open(path)?),
        Place::Store(name) => {
            ensure!(!how.all, "--all: into the store an image comes with the index it was chosen from");
            let target = into_store::Target { layout, privilege: &engine.privilege, progress };
            let names = vec![Reference::parse_local(name)?];
            let record = into_store::receive(target, source, names, how.platform.clone())?;
            return record.digest().cloned().context("the image has no manifest");
        }
    };
    let mut conversion = how.conversion;
    // Readers of OCI layouts (umoci, runtimes) know OCI's documents only.
    if matches!(place, Place::Layout(..) | Place::LayoutArchive(..)) {
        conversion.format.get_or_insert(Format::Oci);
    }
    let options = Options { platform: how.platform.clone(), all: how.all, conversion, parallel: network.parallel() };
    let written = copy::copy(&copy::Copy { source, sink: &*sink, options: &options, layout, progress })?;
    Ok(written.digest)
}

/// `gzip`, `zstd`.
pub fn compression(text: &str) -> Result<Compression> {
    Ok(match text {
        "gzip" => Compression::Gzip,
        // What makes it chunked is an annotation beside plain zstd; its readers take it without.
        "zstd" | "zstd:chunked" => Compression::Zstd,
        _ => anyhow::bail!("unknown compression \"{text}\": gzip or zstd"),
    })
}
