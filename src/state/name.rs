//! Names of containers: links, so that two creates of one name at the same instant have one winner.

use crate::model::id::Id;
use crate::state::file::fault;
use crate::state::layout::Layout;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// The right to give and change names. Held between taking a name and the container's directory becoming visible, so
/// that a name whose container is not there is stale for certain.
pub struct Names<'a> {
    layout: &'a Layout,
    _lock: Flock<File>,
}

impl<'a> Names<'a> {
    /// Wait for the right; it is held for a few system calls only.
    pub fn lock(layout: &'a Layout) -> Result<Names<'a>> {
        let path = layout.names();
        let file = File::open(&path).with_context(|| format!("lock {}", path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        Ok(Names { layout, _lock: lock })
    }

    /// Take a name for a container.
    ///
    /// # Returns
    /// `Ok(None)`: it is this container's. `Ok(Some(id))`: taken by that one.
    pub fn take(&self, name: &str, id: &Id) -> Result<Option<Id>> {
        let link = self.layout.names().join(name);
        let target = Path::new("../containers").join(id.as_str());
        if let Some(owner) = owner(self.layout, name)? {
            if self.layout.container(&owner).exists() {
                return Ok(Some(owner));
            }
            // Its container is gone (killed between two removals): the name is free again.
            std::fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
        }
        fault::point("name", &link).with_context(|| format!("make {}", link.display()))?;
        std::os::unix::fs::symlink(&target, &link).with_context(|| format!("make {}", link.display()))?;
        Ok(None)
    }
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
        fault::point("release", &layout.names().join(name)).with_context(|| format!("release name {name}"))?;
        match std::fs::remove_file(layout.names().join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("release name {name}"));
            }
            _ => {}
        }
    }
    Ok(())
}
