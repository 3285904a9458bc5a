//! Names of containers: links, so that two creates of one name at the same instant have one winner.

use crate::model::id::Id;
use crate::state::layout::Layout;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::path::Path;

/// Take a name for a container.
///
/// # Returns
/// `Ok(None)`: it is ours. `Ok(Some(id))`: taken by that container.
pub fn take(layout: &Layout, name: &str, id: &Id) -> Result<Option<Id>> {
    let link = layout.names().join(name);
    let target = Path::new("../containers").join(id.as_str());
    for _ in 0..8 {
        match std::os::unix::fs::symlink(&target, &link) {
            Ok(()) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", link.display())),
        }
        match owner(layout, name)? {
            Some(owner) if layout.container(&owner).exists() => return Ok(Some(owner)),
            // The container is gone (killed between the two removals): the name is free again.
            Some(_) => remove_stale(layout, name)?,
            None => {}
        }
    }
    anyhow::bail!("name {name}: it keeps being taken and freed")
}

/// Whose name it is; `None` when free.
pub fn owner(layout: &Layout, name: &str) -> Result<Option<Id>> {
    let link = layout.names().join(name);
    match std::fs::read_link(&link) {
        Ok(target) => {
            let id = target.file_name().unwrap_or_default().to_string_lossy();
            Ok(Some(Id::parse(&id).with_context(|| format!("read {}", link.display()))?))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", link.display())),
    }
}

/// Give a name back, if it is this container's.
pub fn release(layout: &Layout, name: &str, id: &Id) -> Result<()> {
    if owner(layout, name)?.as_ref() == Some(id) {
        match std::fs::remove_file(layout.names().join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("release name {name}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Remove a link whose container is gone. It is moved away under its own name first and looked at again, so that a new
/// owner who came in between is put back rather than lost.
fn remove_stale(layout: &Layout, name: &str) -> Result<()> {
    let link = layout.names().join(name);
    let aside = crate::state::file::staging_name(&layout.tmp(), "name");
    if std::fs::rename(&link, &aside).is_err() {
        return Ok(());
    }
    let target = std::fs::read_link(&aside)?;
    let id = Id::parse(&target.file_name().unwrap_or_default().to_string_lossy())?;
    if layout.container(&id).exists() {
        // Somebody took it in between: give it back, unless a third has it already.
        let _ = std::os::unix::fs::symlink(&target, &link);
    }
    let _ = std::fs::remove_file(&aside);
    Ok(())
}
