//! Names of images: links in `tags/`.

use crate::image::reference::Reference;
use crate::image::store::{ImageRecord, entry_names, not_known, record_event};
use crate::model::digest::Digest;
use crate::state::file::{self, fault};
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::path::Path;

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

pub(super) fn set_tag(layout: &Layout, name: &Reference, id: &Digest) -> Result<()> {
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
