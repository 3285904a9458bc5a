//! An image by any name people have for it.

use crate::failure::{Failure, Kind};
use crate::image::reference::{Reference, is_hex64};
use crate::image::store::{Image, ImageRecord, ids, list, tags};
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use anyhow::Result;
use std::collections::BTreeMap;

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
