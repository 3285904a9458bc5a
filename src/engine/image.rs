//! Images at rest: list, tag, remove, prune, inspect, history.

use crate::engine::{Engine, moment, remove as container_remove};
use crate::failure::{Failure, Kind};
use crate::image::config::{ConfigDocument, rfc3339};
pub use crate::image::discard::{self, used_by};
use crate::image::reference::Reference;
use crate::image::store::{self, Image, ImageRecord};
use crate::model::digest::Digest;
use crate::model::id::Id;
use crate::state::event::now_ns;
use crate::state::layout::Layout;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An image with its names.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its record.
    pub record: ImageRecord,
    /// Its names, sorted.
    pub names: Vec<Reference>,
}

impl Listed {
    /// The names that are tags, as text.
    pub fn tags(&self) -> Vec<String> {
        self.names.iter().filter(|name| name.tag.is_some()).map(Reference::to_string).collect()
    }

    /// Each repository at each digest the image came by.
    pub fn repository_digests(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        for name in &self.names {
            for source in &self.record.manifests {
                for digest in source.index.iter().chain([&source.manifest]) {
                    found.insert(name.at(digest).to_string());
                }
            }
        }
        found.into_iter().collect()
    }

    /// No name at all.
    pub fn is_dangling(&self) -> bool {
        self.names.is_empty()
    }
}

/// `--filter`s of `images` and `image prune`; all must hold.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    wanted: Vec<(String, String)>,
    now_ns: i64,
}

impl Filters {
    /// Parse `KEY=VALUE`s.
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut wanted = Vec::new();
        for text in texts {
            let (key, value) = match text.split_once("!=") {
                Some((key, value)) if key == "label" => ("label!".to_owned(), value),
                _ => match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value),
                    None => {
                        bail!("invalid image filter {text:?}: must be in the format \"filter=value or filter!=value\"")
                    }
                },
            };
            let known = [
                "after",
                "before",
                "since",
                "containers",
                "dangling",
                "digest",
                "id",
                "intermediate",
                "label",
                "label!",
                "manifest",
                "readonly",
                "reference",
                "until",
            ];
            if !known.contains(&key.as_str()) {
                bail!("unsupported image filter {key:?}");
            }
            if matches!(key.as_str(), "dangling" | "intermediate" | "readonly" | "manifest")
                && !["true", "false", "1", "0"].contains(&value)
            {
                bail!("non-boolean value {value:?} for {key} filter: must be true or false");
            }
            wanted.push((key, value.to_owned()));
        }
        Ok(Filters { wanted, now_ns: now_ns() })
    }

    /// Whether one of them has this key.
    pub fn has(&self, key: &str) -> bool {
        self.wanted.iter().any(|(name, _)| name == key)
    }
}

/// What filters may look at, read once.
struct Sight<'a> {
    engine: &'a Engine,
    used: BTreeMap<String, Vec<String>>,
    parents: BTreeSet<Digest>,
}

/// All images that pass the filters, newest first. Intermediate ones, which only builds know, are left out unless `all`.
pub fn list(engine: &Engine, filters: &Filters, all: bool) -> Result<Vec<Listed>> {
    let layout = &engine.layout;
    let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
    for (name, id) in store::tags(layout)? {
        names.entry(id).or_default().push(name);
    }
    let mut images: Vec<Listed> = store::list(layout)?
        .into_iter()
        .map(|record| Listed { names: names.remove(&record.id).unwrap_or_default(), record })
        .collect();
    images.sort_by(|one, other| {
        (other.record.created_ns, &one.record.id).cmp(&(one.record.created_ns, &other.record.id))
    });
    let dangling = images.iter().any(Listed::is_dangling);
    let parents = if dangling { parents(layout, &images)? } else { BTreeSet::new() };
    if !all && !filters.has("intermediate") {
        images.retain(|image| !image.is_dangling() || !parents.contains(&image.record.id));
    }
    if filters.wanted.is_empty() {
        return Ok(images);
    }
    let used = if filters.has("containers") { used_by(layout)? } else { BTreeMap::new() };
    let sight = Sight { engine, used, parents };
    let mut kept = Vec::new();
    for image in images {
        if filters.wanted.iter().try_fold(true, |good, (key, value)| {
            Ok::<bool, anyhow::Error>(good && passes(&image, key, value, &sight, filters.now_ns)?)
        })? {
            kept.push(image);
        }
    }
    Ok(kept)
}

/// The manifest lists that pass the filters, as lines of `images`: they have a name, an id and a size, and no layers.
/// A filter that looks into an image keeps no list.
pub fn lists(engine: &Engine, filters: &Filters) -> Result<Vec<Listed>> {
    let layout = &engine.layout;
    let mut kept = Vec::new();
    for list in crate::image::list::all(layout)? {
        let name = Reference::parse(&list.name)?;
        let holds = filters.wanted.iter().all(|(key, value)| match key.as_str() {
            "reference" => matches_pattern(&name, value),
            "manifest" => matches!(value.as_str(), "true" | "1"),
            "dangling" | "readonly" | "intermediate" => matches!(value.as_str(), "false" | "0"),
            "id" => list.id.starts_with(value),
            _ => false,
        });
        // Removed a moment ago: no line.
        let Ok((created_ns, size)) = crate::image::list::facts(layout, &list) else { continue };
        if holds {
            let record = ImageRecord {
                version: list.version,
                id: Digest::parse(&format!("sha256:{}", list.id))?,
                manifests: Vec::new(),
                layers: Vec::new(),
                size,
                created_ns,
                stored_ns: created_ns,
            };
            kept.push(Listed { record, names: vec![name] });
        }
    }
    Ok(kept)
}

fn passes(image: &Listed, key: &str, value: &str, sight: &Sight<'_>, now_ns: i64) -> Result<bool> {
    let truth = matches!(value, "true" | "1");
    let layout = &sight.engine.layout;
    Ok(match key {
        "dangling" => image.is_dangling() == truth,
        "intermediate" => (image.is_dangling() && sight.parents.contains(&image.record.id)) == truth,
        "readonly" | "manifest" => !truth,
        "containers" => match value {
            "true" => sight.used.contains_key(image.record.id.hex()),
            "false" => !sight.used.contains_key(image.record.id.hex()),
            "external" => false,
            _ => bail!("unsupported value {value:?} for containers filter"),
        },
        "id" => image.record.id.hex().starts_with(value.strip_prefix("sha256:").unwrap_or(value)),
        "digest" => image.record.manifests.iter().any(|source| {
            source.index.iter().chain([&source.manifest]).any(|digest| digest.as_str().starts_with(value))
        }),
        "reference" => image.names.iter().any(|name| matches_pattern(name, value)),
        "before" => image.record.created_ns < store::require(layout, value)?.record.created_ns,
        "after" | "since" => image.record.created_ns > store::require(layout, value)?.record.created_ns,
        "until" => image.record.created_ns < moment::parse(value, now_ns)?,
        _ => {
            let config = image.record.config(layout)?;
            has_label(&config, value) == (key == "label")
        }
    })
}

/// `KEY` or `KEY=VALUE` among an image's labels.
fn has_label(config: &ConfigDocument, wanted: &str) -> bool {
    let labels = config.config.labels.as_ref();
    match wanted.split_once('=') {
        Some((key, value)) => labels.and_then(|labels| labels.get(key)).is_some_and(|found| found == value),
        None => labels.is_some_and(|labels| labels.contains_key(wanted)),
    }
}

/// Whether a name is meant by a pattern of `images NAME` or `--filter reference=`: whole, without its registry, without
/// its tag, with `*` and `?`.
pub fn matches_pattern(name: &Reference, pattern: &str) -> bool {
    let whole = name.to_string();
    let mut shown = vec![name.name(), whole.clone()];
    for text in [name.name(), whole] {
        // Each way to leave out what stands before a slash.
        let mut rest = text.as_str();
        while let Some((_, below)) = rest.split_once('/') {
            shown.push(below.to_owned());
            rest = below;
        }
    }
    shown.iter().any(|text| glob(pattern.as_bytes(), text.as_bytes()))
}

/// Shell patterns `*` and `?`; `*` does not cross a slash, as in Go's path.Match.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text) || text.split_first().is_some_and(|(byte, below)| *byte != b'/' && glob(pattern, below))
        }
        (Some((b'?', rest)), Some((byte, below))) => *byte != b'/' && glob(rest, below),
        (Some((wanted, rest)), Some((byte, below))) => wanted == byte && glob(rest, below),
        _ => false,
    }
}

/// Images that others were built on: same beginning of layers and history.
fn parents(layout: &Layout, images: &[Listed]) -> Result<BTreeSet<Digest>> {
    let mut parents = BTreeSet::new();
    for image in images.iter().filter(|image| image.is_dangling()) {
        let own = image.record.config(layout)?;
        for other in images {
            if other.record.id != image.record.id && other.record.layers.starts_with(&image.record.layers) {
                let history = other.record.config(layout)?.history;
                if history.len() > own.history.len() && history.starts_with(&own.history) {
                    parents.insert(image.record.id.clone());
                    break;
                }
            }
        }
    }
    Ok(parents)
}

/// What `rmi` did, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names taken away.
    pub untagged: Vec<String>,
    /// Ids of images that are gone.
    pub deleted: Vec<String>,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removal {
    /// Containers of the image go with it, and several names are no obstacle.
    pub force: bool,
    /// Nameless images it was built on stay.
    pub keep_parents: bool,
}

/// Remove an image by one of its names, or by its id.
///
/// # Errors
/// Unknown: exit code 1. Used by a container: exit code 2.
pub fn remove(engine: &Engine, wanted: &str, removal: Removal) -> Result<Removed> {
    let layout = &engine.layout;
    let Some((record, name)) = store::find(layout, wanted)? else {
        return remove_list(engine, wanted);
    };
    let names = store::names_of(layout, &record.id)?;
    let mut removed = Removed::default();
    if let Some(name) = name
        && names.len() > 1
    {
        let name = names.iter().find(|known| **known == name).cloned().unwrap_or(name);
        if store::untag(layout, &name)? {
            removed.untagged.push(name.to_string());
        }
        return Ok(removed);
    }
    if names.len() > 1 && !removal.force {
        let names: Vec<String> = names.iter().map(Reference::to_string).collect();
        return Err(Failure::new(
            Kind::Engine,
            format!(
                "unable to delete image {:?} by ID with more than one tag ([{}]): please force removal",
                record.id.hex(),
                names.join(" ")
            ),
        )
        .into());
    }
    remove_record(engine, &record, removal, &mut removed)?;
    Ok(removed)
}

/// Remove a manifest list; the images it names stay.
fn remove_list(engine: &Engine, wanted: &str) -> Result<Removed> {
    let unknown = || Failure::new(Kind::Missing, format!("{wanted}: image not known"));
    let list = crate::image::list::find(&engine.layout, wanted)?.ok_or_else(unknown)?;
    if !crate::image::list::Lists::lock(&engine.layout)?.remove(&Reference::parse(&list.name)?)? {
        return Err(unknown().into());
    }
    Ok(Removed { untagged: vec![list.name], deleted: vec![list.id] })
}

/// Remove an image with all its names.
fn remove_record(engine: &Engine, record: &ImageRecord, removal: Removal, removed: &mut Removed) -> Result<()> {
    let layout = &engine.layout;
    let parents = if removal.keep_parents { Vec::new() } else { nameless_parents(layout, record)? };
    if removal.force {
        let wish = container_remove::Wish { force: true, dependents: true, ..container_remove::Wish::default() };
        for id in used_by(layout)?.remove(record.id.hex()).unwrap_or_default() {
            container_remove::remove(engine, &Id::parse(&id)?, wish)?;
        }
    }
    removed.untagged.extend(discard::remove_unused(layout, record)?.iter().map(Reference::to_string));
    removed.deleted.push(record.id.hex().to_owned());
    for parent in parents {
        // It may be used or built on by something else; then it stays.
        let quiet = Removal { force: false, keep_parents: true };
        let _ = remove_record(engine, &parent, quiet, removed);
    }
    Ok(())
}

/// Nameless images that only this one was built on.
fn nameless_parents(layout: &Layout, record: &ImageRecord) -> Result<Vec<ImageRecord>> {
    let mut named: BTreeSet<Digest> = store::tags(layout)?.into_iter().map(|(_, id)| id).collect();
    named.insert(record.id.clone());
    let images = store::list(layout)?;
    if images.iter().all(|image| named.contains(&image.id)) {
        return Ok(Vec::new());
    }
    let history = record.config(layout)?.history;
    let mut found = Vec::new();
    for image in images.iter().filter(|image| !named.contains(&image.id) && record.layers.starts_with(&image.layers)) {
        let own = image.config(layout)?.history;
        if history.len() > own.len() && history.starts_with(&own) && !own.is_empty() {
            found.push((own.len(), image.clone()));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let mut only_ours = Vec::new();
    for (_, image) in found {
        let mut others = false;
        for other in images.iter().filter(|other| other.id != record.id && other.id != image.id) {
            let known = only_ours.iter().any(|ours: &ImageRecord| ours.id == other.id);
            others |= !known && other.layers.starts_with(&image.layers) && {
                let own = image.config(layout)?.history;
                let longer = other.config(layout)?.history;
                longer.len() > own.len() && longer.starts_with(&own)
            };
        }
        if others {
            break;
        }
        only_ours.push(image);
    }
    Ok(only_ours)
}

/// Remove all images that no container uses and, unless `all`, that have no name. Returns ids and bytes freed.
pub fn prune(engine: &Engine, all: bool, filters: &Filters) -> Result<(Vec<String>, u64)> {
    let layout = &engine.layout;
    let used = used_by(layout)?;
    let mut gone = Vec::new();
    let mut freed = 0;
    // A parent is free when its child is gone: until nothing more goes.
    loop {
        let before = gone.len();
        for image in list(engine, filters, all)? {
            if used.contains_key(image.record.id.hex()) || !(all || image.is_dangling()) {
                continue;
            }
            let mut removed = Removed::default();
            let removal = Removal { force: false, keep_parents: true };
            match remove_record(engine, &image.record, removal, &mut removed) {
                Ok(()) => {
                    freed += image.record.size;
                    gone.extend(removed.deleted);
                }
                // A container was made of it a moment ago.
                Err(error) if crate::failure::kind_of(&error) == Kind::InUse => {}
                Err(error) => return Err(error),
            }
        }
        if gone.len() == before {
            return Ok((gone, freed));
        }
    }
}

/// Give an image more names.
pub fn tag(engine: &Engine, wanted: &str, names: &[String]) -> Result<()> {
    let Some((record, _)) = store::find(&engine.layout, wanted)? else { return Err(store::not_known(wanted)) };
    let names = names.iter().map(|name| local_name(name)).collect::<Result<Vec<_>>>()?;
    names.iter().try_for_each(|name| store::tag(&engine.layout, &record, name))
}

/// A name given to an image here must not be a digest.
pub fn local_name(text: &str) -> Result<Reference> {
    let name = Reference::parse_local(text)?;
    if name.digest.is_some() {
        bail!("{text}: tag by digest not supported");
    }
    Ok(name)
}

/// Take names away; none given: all of them.
pub fn untag(engine: &Engine, wanted: &str, names: &[String]) -> Result<()> {
    let layout = &engine.layout;
    let Some((record, _)) = store::find(layout, wanted)? else { return Err(store::not_known(wanted)) };
    let known = store::names_of(layout, &record.id)?;
    if names.is_empty() {
        return known.iter().try_for_each(|name| store::untag(layout, name).map(drop));
    }
    for text in names {
        let candidates = Reference::local_candidates(text)?;
        let Some(name) = known.iter().find(|name| candidates.contains(name)) else {
            let shown = candidates.first().map_or_else(|| text.clone(), Reference::to_string);
            return Err(Failure::new(Kind::Engine, format!("{shown}: tag not known")).into());
        };
        store::untag(layout, name)?;
    }
    Ok(())
}

/// An image by name, or podman's error.
pub fn get(engine: &Engine, wanted: &str) -> Result<Image> {
    match store::resolve(&engine.layout, wanted)? {
        Some(image) => Ok(image),
        None => match crate::image::builtin::provide(&engine.layout, &engine.privilege, wanted)? {
            Some(image) => Ok(image),
            None => Err(store::not_known(wanted)),
        },
    }
}

/// The document of `image inspect`, with podman's field names.
pub fn inspect(engine: &Engine, image: &Image) -> Result<Value> {
    let layout = &engine.layout;
    let listed = Listed { record: image.record.clone(), names: store::names_of(layout, &image.record.id)? };
    let document = &image.config;
    let (manifest, _) = store::manifest(layout, &image.record)?;
    let config = serde_json::to_value(&document.config)?;
    let top = image.record.layers.iter().rev();
    let paths: Vec<String> =
        top.map(|layer| crate::storage::layer::diff_path(layout, layer.hex()).display().to_string()).collect();
    let mut data = serde_json::Map::new();
    if paths.len() > 1 {
        data.insert("LowerDir".to_owned(), json!(paths[1..].join(":")));
    }
    data.insert("UpperDir".to_owned(), json!(paths.first()));
    let comment = document.history.last().map(|step| step.comment.clone()).unwrap_or_default();
    let media_type = manifest.media_type.as_deref().unwrap_or(crate::image::manifest::media::OCI_MANIFEST);
    let mut value = json!({
        "Id": image.id(),
        "Digest": image.digest(),
        "RepoTags": listed.tags(),
        "RepoDigests": listed.repository_digests(),
        "Parent": "",
        "Comment": comment,
        "Created": document.created,
        "Config": config,
        "Version": document.other.get("docker_version").and_then(Value::as_str).unwrap_or_default(),
        "Author": document.author.as_deref().unwrap_or_default(),
        "Architecture": document.architecture,
        "Os": document.os,
        "Size": image.record.size,
        "VirtualSize": image.record.size,
        "GraphDriver": {"Name": "overlay", "Data": data},
        "RootFS": {"Type": "layers", "Layers": image.record.layers},
        "Labels": document.config.labels,
        "Annotations": manifest.annotations.unwrap_or_default(),
        "ManifestType": media_type,
        "User": document.config.user.as_deref().unwrap_or_default(),
        "History": document.history,
        "NamesHistory": listed.tags(),
    });
    if let Some(health) = &document.config.healthcheck {
        value["HealthCheck"] = serde_json::to_value(health)?;
    }
    if let Some(variant) = &document.variant {
        value["Variant"] = json!(variant);
    }
    Ok(value)
}

/// When an image was made, as documents have it.
pub fn created_text(record: &ImageRecord) -> String {
    rfc3339(record.created_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let name = Reference::parse("quay.io/fedora/httpd:24").unwrap();
        for (pattern, expected) in [
            ("httpd", true),
            ("httpd:24", true),
            ("httpd:2?", true),
            ("fedora/httpd", true),
            ("quay.io/fedora/httpd", true),
            ("quay.io/*/httpd", true),
            ("*httpd", true),
            ("*tt*", true),
            ("quay.io/*", false),
            ("httpd:25", false),
            ("ttpd", false),
            ("", false),
        ] {
            assert_eq!(matches_pattern(&name, pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn filters() {
        assert!(Filters::parse(&["dangling=true".to_owned(), "label!=x".to_owned(), "label=a=b".to_owned()]).is_ok());
        for text in ["x", "colour=red", "dangling=perhaps"] {
            assert!(Filters::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
