//! Manifest lists: made, filled, changed, shown and sent.

use crate::engine::copy::{How, open_source};
use crate::engine::{Engine, registry};
use crate::failure::{Failure, Kind};
use crate::image::access::{Access, Network};
use crate::image::config::ConfigDocument;
use crate::image::copy::place::Place;
use crate::image::copy::registry::RegistrySource;
use crate::image::copy::store::StoreSource;
use crate::image::copy::{Checked, Source};
use crate::image::list::{self, List, ListSource, Lists};
use crate::image::manifest::{
    CONFIG_LIMIT_BYTES, Descriptor, Document, Index, Manifest, Platform, media, normal_architecture,
};
use crate::image::policy::Policy;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::Fetched;
use crate::image::store;
use crate::model::digest::Digest;
use crate::model::id::Id;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What is said of an entry, or of the whole index.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// `--annotation KEY=VALUE`.
    pub annotations: BTreeMap<String, String>,
    /// `--arch`.
    pub architecture: Option<String>,
    /// `--os`.
    pub os: Option<String>,
    /// `--os-version`.
    pub os_version: Option<String>,
    /// `--os-features`.
    pub os_features: Vec<String>,
    /// `--features`.
    pub features: Vec<String>,
    /// `--variant`.
    pub variant: Option<String>,
}

impl Notes {
    fn apply(&self, entry: &mut Descriptor) {
        let Notes { annotations, architecture, os, os_version, os_features, features, variant } = self;
        if !annotations.is_empty() {
            entry.annotations.get_or_insert_default().extend(annotations.clone());
        }
        let platform = entry.platform.get_or_insert_default();
        if let Some(architecture) = architecture {
            platform.architecture = normal_architecture(architecture).0;
        }
        if let Some(os) = os {
            platform.os.clone_from(os);
        }
        for (place, value) in [(&mut platform.os_version, os_version), (&mut platform.variant, variant)] {
            if value.is_some() {
                place.clone_from(value);
            }
        }
        for (place, values) in [(&mut platform.os_features, os_features), (&mut platform.features, features)] {
            if !values.is_empty() {
                *place = Some(values.clone());
            }
        }
        if *platform == Platform::default() {
            entry.platform = None;
        }
    }
}

/// Make a list with these images in it.
///
/// # Returns
/// Its id.
pub fn create(engine: &Engine, name: &str, images: &[String], access: Access, how: Create) -> Result<String> {
    let Create { amend, all, annotations } = how;
    let reference = Reference::parse_local(name)?;
    let existing = list::find(&engine.layout, name)?;
    if !amend && (existing.is_some() || store::tagged(&engine.layout, &reference)?.is_some()) {
        return Err(Failure::new(Kind::Engine, format!("image name \"{reference}\" is already in use"))
            .hint("--amend adds to a list that is there")
            .into());
    }
    let network = registry::network(engine, access)?;
    let mut list = match existing {
        Some(list) => list,
        None => List::new(&reference, new_id()?),
    };
    if !annotations.is_empty() {
        list.index.annotations.get_or_insert_default().extend(annotations);
    }
    for image in images {
        gather(engine, &network, &mut list, image, all, &Notes::default())?;
    }
    Lists::lock(&engine.layout)?.save(&list)?;
    Ok(list.id)
}

/// How a list is made.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Add to one that is there.
    pub amend: bool,
    /// Of an index all images.
    pub all: bool,
    /// Of the list itself.
    pub annotations: BTreeMap<String, String>,
}

fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(Id::from_random(bytes).as_str().to_owned())
}

/// Add images to a list.
pub fn add(engine: &Engine, name: &str, images: &[String], access: Access, all: bool, notes: &Notes) -> Result<String> {
    let network = registry::network(engine, access)?;
    let mut list = list::require(&engine.layout, name)?;
    for image in images {
        gather(engine, &network, &mut list, image, all, notes)?;
    }
    // What another command did to the list meanwhile stays: only our entries are put in.
    let lists = Lists::lock(&engine.layout)?;
    let mut now = list::require(&engine.layout, name)?;
    for entry in &list.index.manifests {
        if let Some(source) = list.sources.get(&entry.digest) {
            now.put(entry.clone(), source.clone());
        }
    }
    lists.save(&now)?;
    Ok(now.id)
}

fn gather(engine: &Engine, network: &Network, list: &mut List, text: &str, all: bool, notes: &Notes) -> Result<()> {
    let (place, source) = locate(engine, network, text)?;
    let top = source.top().clone();
    match &top.document {
        Document::Manifest(manifest) => {
            let mut entry = describe(&*source, &top, manifest)?;
            notes.apply(&mut entry);
            list.put(entry, place);
        }
        Document::Index(index) if all => {
            for entry in &index.manifests {
                let mut entry = entry.clone();
                if !entry.is_attestation() {
                    notes.apply(&mut entry);
                }
                list.put(entry, place.clone());
            }
        }
        Document::Index(index) => {
            let mut wanted = Platform::host();
            if let Some(architecture) = &notes.architecture {
                (wanted.architecture, wanted.variant) = normal_architecture(architecture);
            }
            if let Some(os) = &notes.os {
                wanted.os.clone_from(os);
            }
            if notes.variant.is_some() {
                wanted.variant.clone_from(&notes.variant);
            }
            let chosen = wanted.select(index).with_context(|| crate::image::pull::no_platform(index, &wanted))?;
            let mut entry = chosen.clone();
            notes.apply(&mut entry);
            list.put(entry, place);
        }
    }
    Ok(())
}

/// Where an image is, by digest, and its source: an image of the store first, else of a registry.
fn locate<'a>(engine: &'a Engine, network: &Network, text: &str) -> Result<(String, Box<dyn Source + 'a>)> {
    if let Some(place) = Place::parse(text)? {
        let policy = Policy::load(None::<&Path>)?;
        let source = open_source(engine, network, &policy, &place, false)?;
        let shown = match &place {
            Place::Registry(name) => by_digest(&Reference::parse(name)?, &source.top().digest),
            Place::Store(name) => of_store(&store::require(&engine.layout, name)?.record.id),
            Place::Layout(..) | Place::LayoutArchive(..) | Place::DockerArchive(..) | Place::Directory(_) => {
                text.to_owned()
            }
        };
        return Ok((shown, source));
    }
    if let Some(image) = store::resolve(&engine.layout, text)? {
        let place = of_store(&image.record.id);
        return Ok((place, Box::new(StoreSource::open(&engine.layout, image, false)?)));
    }
    let policy = Policy::load(None::<&Path>)?;
    let mut trouble = None;
    for name in network.registries.candidates(text)? {
        match RegistrySource::open(network, &name, &policy) {
            Ok(source) => return Ok((by_digest(&name, &source.top().digest), Box::new(source))),
            Err(error) => trouble = Some(error),
        }
    }
    Err(trouble.context("there is a candidate")?)
}

fn by_digest(name: &Reference, digest: &Digest) -> String {
    format!("docker://{}", name.at(digest))
}

fn of_store(id: &Digest) -> String {
    format!("containers-storage:{}", id.hex())
}

/// The entry of an image: its platform stands in its config.
fn describe(source: &dyn Source, top: &Fetched, manifest: &Manifest) -> Result<Descriptor> {
    let mut entry = top.descriptor();
    entry.artifact_type.clone_from(&manifest.artifact_type);
    if manifest.is_image() {
        ensure!(manifest.config.size <= CONFIG_LIMIT_BYTES, "the config has {} bytes", manifest.config.size);
        let mut bytes = Vec::new();
        Checked::new(source.open(&manifest.config, 0)?, &manifest.config).read_to_end(&mut bytes)?;
        let config = ConfigDocument::parse(&bytes)?;
        entry.platform = Some(Platform {
            architecture: config.architecture,
            os: config.os,
            variant: config.variant,
            ..Platform::default()
        });
    }
    Ok(entry)
}

/// Change what is said of an entry, or of the whole index.
pub fn annotate(engine: &Engine, name: &str, digest: Option<&str>, notes: &Notes) -> Result<String> {
    let lists = Lists::lock(&engine.layout)?;
    let mut list = list::require(&engine.layout, name)?;
    match digest {
        Some(digest) => {
            let digest = digest_of(engine, digest)?;
            notes.apply(list.entry(&digest)?);
        }
        None => list.index.annotations.get_or_insert_default().extend(notes.annotations.clone()),
    }
    lists.save(&list)?;
    Ok(list.id)
}

/// A digest, or that of the image of the store which is named.
fn digest_of(engine: &Engine, text: &str) -> Result<String> {
    if text.starts_with("sha256:") {
        return Ok(text.to_owned());
    }
    let name = text.strip_prefix("containers-storage:").unwrap_or(text);
    match store::resolve(&engine.layout, name)? {
        Some(image) => Ok(image.digest().context("the image has no manifest")?.as_str().to_owned()),
        None => Ok(text.to_owned()),
    }
}

/// Take an entry out.
pub fn remove_entry(engine: &Engine, name: &str, digest: &str) -> Result<String> {
    let lists = Lists::lock(&engine.layout)?;
    let mut list = list::require(&engine.layout, name)?;
    let digest = digest_of(engine, digest)?;
    let gone = list.entry(&digest)?.digest.clone();
    list.index.manifests.retain(|entry| entry.digest != gone);
    list.sources.remove(&gone);
    lists.save(&list)?;
    Ok(list.id)
}

/// Take a list away. Returns its name and id.
pub fn remove(engine: &Engine, name: &str) -> Result<(String, String)> {
    let lists = Lists::lock(&engine.layout)?;
    let missing = || Failure::new(Kind::Missing, format!("{name}: image not known"));
    let list = list::find(&engine.layout, name)?.ok_or_else(missing)?;
    lists.remove(&Reference::parse(&list.name)?)?;
    Ok((list.name, list.id))
}

/// The document of a list that was made here, of an image of the store, or of a registry.
pub fn inspect(engine: &Engine, name: &str, access: Access) -> Result<Vec<u8>> {
    let remote = name.starts_with("docker://");
    if !remote && let Some(list) = list::find(&engine.layout, name)? {
        // podman calls every list it shows one of Docker's; what it is pushed as, `push --format` says.
        let shown = Index { media_type: Some(media::DOCKER_LIST.to_owned()), ..list.index };
        return Ok(serde_json::to_vec(&shown)?);
    }
    if !remote
        && let Some(image) = store::resolve(&engine.layout, name)?
        && let Some(index) = image.record.manifests.first().and_then(|source| source.index.as_ref())
    {
        return store::read_blob(&engine.layout, index);
    }
    let network = registry::network(engine, access)?;
    let text = name.strip_prefix("docker://").unwrap_or(name);
    let policy = Policy::load(None::<&Path>)?;
    let mut trouble = None;
    for candidate in network.registries.candidates(text)? {
        // It is shown, not used: what the policy rejects outright is not even that.
        match crate::image::pull::open(&network, &candidate, &policy) {
            Ok(source) => return Ok(source.top.bytes),
            Err(error) => trouble = Some(error),
        }
    }
    Err(trouble.context("there is a candidate")?)
}

/// Send a list, with its images unless `how.all` says otherwise.
pub fn push(
    engine: &Engine,
    name: &str,
    destination: Option<&str>,
    access: Access,
    how: &How,
    progress: &dyn Progress,
) -> Result<Digest> {
    let list = list::require(&engine.layout, name)?;
    let network = registry::network(engine, access)?;
    let policy = Policy::load(None::<&Path>)?;
    let source =
        ListSource::open(&list, |place, _| open_source(engine, &network, &policy, &Place::require(place)?, false))?;
    let place = match destination {
        Some(text) => Place::parse(text)?.unwrap_or_else(|| Place::Registry(text.to_owned())),
        None => Place::Registry(list.name.clone()),
    };
    if let Place::Store(_) | Place::DockerArchive(..) = place {
        bail!("a manifest list goes to a registry, an OCI layout or a directory");
    }
    crate::engine::copy::run(engine, &network, &source, &place, how, progress)
}
