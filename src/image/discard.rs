//! Which images containers use, and the removal of one that none uses.

use crate::failure::{Failure, Kind};
use crate::image::reference::Reference;
use crate::image::store::{self, ImageRecord};
use crate::state::container::{self, ContainerRecord};
use crate::state::layout::Layout;
use anyhow::Result;
use std::collections::BTreeMap;

/// Ids of containers by the id of the image they were made of.
pub fn used_by(layout: &Layout) -> Result<BTreeMap<String, Vec<String>>> {
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in container::list(layout)? {
        // One that cannot be read is no reason not to list images; removing checks again.
        if let Ok(record) = ContainerRecord::load(layout, &id)
            && let Some(image) = record.image
        {
            used.entry(image.id).or_default().push(id.to_string());
        }
    }
    Ok(used)
}

/// Remove an image with all its names; gives those.
///
/// # Errors
/// Used by a container: exit code 2.
pub fn remove_unused(layout: &Layout, record: &ImageRecord) -> Result<Vec<Reference>> {
    let store = store::exclusive(layout)?;
    // Under the lock that `create` shares: nobody can begin to use it now.
    if let Some(users) = used_by(layout)?.get(record.id.hex()) {
        return Err(Failure::new(
            Kind::InUse,
            format!("image used by {}: image is in use by a container: consider listing external containers and force-removing image", users[0]),
        )
        .into());
    }
    let names = store::names_of(layout, &record.id)?;
    store::remove(layout, record, store)?;
    Ok(names)
}

/// `--rmi`: take away the name a container was made by, and the image with its last name.
///
/// # Errors
/// As [`remove_unused`]. An image that is gone already is none.
pub fn discard(layout: &Layout, name: &str) -> Result<()> {
    let Some((record, found)) = store::find(layout, name)? else { return Ok(()) };
    match found {
        Some(name) if store::names_of(layout, &record.id)?.len() > 1 => store::untag(layout, &name).map(drop),
        _ => remove_unused(layout, &record).map(drop),
    }
}
