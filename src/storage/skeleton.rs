//! The places at which every container gets something mounted, as one more layer under those of its image.
//!
//! An image that has no /etc/hosts (none should) would otherwise have an empty one made in each container's own upper
//! directory at each start: half a dozen files and two copied directories on disk, which are gone again when it ends.
//! Here they are made once a store. Whatever an image has at these paths covers them, and no byte is ever written here.
//! Nothing depends on this layer: what is missing is made in the container as before.

use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

const DIRECTORIES: [&str; 5] = ["dev", "etc", "proc", "run", "sys"];
const FILES: [&str; 4] = ["etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv"];

/// The layer's directory, made if it is not there.
pub fn provide(layout: &Layout) -> Result<PathBuf> {
    let path = layout.skeleton();
    if path.exists() {
        return Ok(path);
    }
    let staging = file::staging_name(&layout.tmp(), "skeleton");
    let made = make(&staging).and_then(|()| file::rename_new(&staging, &path));
    match made {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = std::fs::remove_dir_all(&staging);
            // Another container was faster.
            let taken = matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty);
            if taken { Ok(path) } else { Err(error).with_context(|| format!("make {}", path.display())) }
        }
    }
}

fn make(staging: &Path) -> std::io::Result<()> {
    // Whatever the umask.
    let open_to_all = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    let directory = |path: &Path| {
        std::fs::DirBuilder::new().mode(0o755).create(path)?;
        open_to_all(path, 0o755)
    };
    directory(staging)?;
    DIRECTORIES.iter().try_for_each(|name| directory(&staging.join(name)))?;
    FILES.iter().try_for_each(|name| {
        let path = staging.join(name);
        file::write_staged(&path, b"", Durability::Volatile)?;
        open_to_all(&path, 0o644)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once() {
        let base = std::env::temp_dir().join(format!("coracle-skeleton-{}", std::process::id()));
        let layout = Layout::new(base.join("d"), base.join("r"));
        std::fs::create_dir_all(layout.tmp()).unwrap();
        let path = provide(&layout).unwrap();
        assert!(path.join("etc/hosts").is_file() && path.join("proc").is_dir());
        assert_eq!(provide(&layout).unwrap(), path);
        assert_eq!(std::fs::read_dir(layout.tmp()).unwrap().count(), 0);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
