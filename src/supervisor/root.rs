//! A container's root file system as a detached mount: its overlay over the image's layers, its own directory, or the
//! machine's root. Owners are mapped here: for root by idmapped mounts, for a user by copies (`storage::mapped`).

use super::acquire::{Request, clone_path};
use super::source;
use crate::bundle::{self, mount::Prepared};
use crate::host::userns::Privilege;
use crate::model::container::RootSource;
use crate::model::user::{IdMaps, IdRange};
use crate::runtime::idmap;
use crate::state::container::ContainerRecord;
use crate::state::layout::Layout;
use crate::storage::mapped::{self, Lower};
use crate::storage::{flat, overlay, skeleton};
use crate::sys::mount;
use anyhow::{Context, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The root file system as a detached mount, and what of it is mounted apart.
pub(super) fn root(request: &Request<'_>) -> Result<(OwnedFd, Vec<(Prepared, OwnedFd)>)> {
    let (layout, record) = (request.layout, request.record);
    match &record.spec.root {
        RootSource::Host => source::machine(request),
        // The host's own root comes without what is mounted below it: its procfs is not the container's.
        RootSource::Directory { path, overlay: false, idmap } => {
            let tree = clone_path(Path::new(path), path != "/")?;
            if let Some(namespace) = idmap.then(|| map_namespace(request.privilege, record)).transpose()?.flatten() {
                map_owners(tree.as_fd(), namespace.as_fd()).with_context(|| format!("map the owners of {path}"))?;
            }
            Ok((tree, Vec::new()))
        }
        _ => Ok((layered(layout, request.privilege, record)?, Vec::new())),
    }
}

/// The namespace by which root maps owners; `None`: there is nothing to map, or a user has copies for it.
pub(super) fn map_namespace(privilege: &Privilege, record: &ContainerRecord) -> Result<Option<OwnedFd>> {
    let mapped = bundle::has_user_namespace(record) && !privilege.rootless;
    let namespace = mapped.then(|| kernel_maps(&record.id_maps).namespace()).transpose();
    namespace.context("make a user namespace for the id maps")
}

fn map_owners(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> std::io::Result<()> {
    let attributes = mount::Attributes {
        set: mount::ATTR_IDMAP,
        user_namespace: namespace.as_raw_fd() as u64,
        ..mount::Attributes::default()
    };
    mount::mount_setattr(tree, true, &attributes)
}

/// The container's overlay over its image's layers or its directory: while it runs, and to look into it when it does not.
pub fn layered(layout: &Layout, privilege: &Privilege, record: &ContainerRecord) -> Result<OwnedFd> {
    let (lower, mapped) = match &record.spec.root {
        RootSource::Directory { path, idmap, .. } => (Lower::single(PathBuf::from(path)), *idmap),
        _ => (mapped::lower(layout, privilege, &record.layers, &record.id_maps)?, true),
    };
    let namespace = if mapped { map_namespace(privilege, record)? } else { None };
    let directory = layout.container(&record.id);
    let mut overlay = overlay::Overlay {
        lower: lower.layers,
        data: lower.data,
        upper: Some(overlay::Upper::under(&directory)),
        // Nobody reads the upper directory of a container that goes with its process after a crash.
        volatile: record.spec.lifecycle.remove,
        userxattr: privilege.rootless,
        read_only: false,
        idmap: namespace.as_ref().map(AsFd::as_fd),
    };
    // Its files have the engine's owners: where the container's are others, the places are made in the container.
    if matches!(record.spec.root, RootSource::Image(_)) && !bundle::has_user_namespace(record) {
        overlay.lower.push(skeleton::provide(layout)?);
    }
    match overlay.mount() {
        Err(error) if overlay::is_unsupported(&error) => {
            overlay.upper = None;
            overlay.read_only = true;
            // Why there was no overlay is of interest only if there is no copy either.
            flat::mount(&directory, &overlay, privilege.single).map_err(|second| second.context(error))
        }
        mounted => mounted,
    }
}

/// The record's maps as the runtime writes them.
fn kernel_maps(maps: &IdMaps) -> idmap::IdMaps {
    let ranges = |list: &[IdRange]| {
        list.iter()
            .map(|range| idmap::Range { inside: range.inside, outside: range.outside, size: range.size })
            .collect()
    };
    idmap::IdMaps { uid: ranges(&maps.uid), gid: ranges(&maps.gid) }
}
