//! `diff`: what a container has changed, or what an image's topmost layer has.

use crate::engine::rootfs::Root;
use crate::engine::{Engine, rootfs};
use crate::failure::{Failure, Kind};
use crate::image::store;
use crate::state::container::{self, ContainerRecord};
use crate::storage::diff::{self, Change};
use crate::storage::{flat, layer, overlay, tree};
use anyhow::{Context, Result};
use std::os::fd::AsFd;

/// Places the engine itself makes or fills.
const OURS: &[&str] = &[
    "/dev",
    "/dev/console",
    "/dev/null",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/run/.containerenv",
    "/run/secrets",
    "/run/podman-init",
    "/sys",
];

/// A path and what happened to it.
pub type Line = (Vec<u8>, Change);

/// Of a container by name or id, else of an image.
pub fn of_any(engine: &Engine, name: &str) -> Result<Vec<Line>> {
    match container::find(&engine.layout, name)? {
        Some(_) => of_container(engine, name),
        None => match store::resolve(&engine.layout, name)? {
            Some(_) => of_image(engine, name),
            None => Err(Failure::new(Kind::Engine, format!("{name}: no such container or image")).into()),
        },
    }
}

/// What is otherwise in the one, container or image, than in the other.
pub fn between(engine: &Engine, name: &str, base: &str) -> Result<Vec<Line>> {
    let (new, new_is_container) = root_of(engine, name)?;
    let (old, old_is_container) = root_of(engine, base)?;
    let mut changes = diff::between(new.as_fd(), old.as_fd())?;
    if new_is_container || old_is_container {
        changes.retain(|(path, _)| !OURS.iter().any(|ours| ours.as_bytes() == path));
        changes = without_empty_parents(changes);
    }
    Ok(changes)
}

/// The whole tree of a container or image, and whether it is a container's.
fn root_of(engine: &Engine, name: &str) -> Result<(Root, bool)> {
    if let Some(id) = container::find(&engine.layout, name)? {
        return Ok((rootfs::open_alone(engine, &ContainerRecord::load(&engine.layout, &id)?)?, true));
    }
    let Some(image) = store::resolve(&engine.layout, name)? else {
        return Err(Failure::new(Kind::Engine, format!("{name}: no such container or image")).into());
    };
    let layers = image.layers().iter().rev().map(|hex| layer::diff_path(&engine.layout, hex)).collect();
    let root = rootfs::image_root(engine, layers)?.with_context(|| format!("{name} has no layers"))?;
    Ok((root, false))
}

/// What a container has changed.
pub fn of_container(engine: &Engine, name: &str) -> Result<Vec<Line>> {
    let id = crate::engine::create::find(engine, name)?;
    let record = ContainerRecord::load(&engine.layout, &id)?;
    if flat::path(&engine.layout.container(&id)).exists() {
        return Err(Failure::new(
            Kind::Engine,
            format!("container {name} is a copy of its image: what it changed is not known apart"),
        )
        .hint("the store lies on a file system without overlays; choose another with --root")
        .into());
    }
    let upper = overlay::Upper::under(&engine.layout.container(&id)).upper;
    let upper = tree::open_directory(&upper).with_context(|| format!("container {name} keeps no changes"))?;
    let lower = rootfs::image_root(engine, rootfs::layers(engine, &record))?;
    let mut changes = diff::changes(upper.as_fd(), lower.as_ref().map(AsFd::as_fd))?;
    changes.retain(|(path, _)| !OURS.iter().any(|ours| ours.as_bytes() == path));
    Ok(without_empty_parents(changes))
}

/// What the topmost layer of an image has changed.
pub fn of_image(engine: &Engine, name: &str) -> Result<Vec<Line>> {
    let image = store::require(&engine.layout, name)?;
    let mut layers: Vec<_> = image.layers().iter().rev().map(|hex| layer::diff_path(&engine.layout, hex)).collect();
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let upper = tree::open_directory(&layers.remove(0))?;
    let lower = rootfs::image_root(engine, layers)?;
    diff::changes(upper.as_fd(), lower.as_ref().map(AsFd::as_fd))
}

/// `/etc` is there only because of our `/etc/hosts`: then it is no change of the container's.
fn without_empty_parents(changes: Vec<Line>) -> Vec<Line> {
    let has_below = |path: &[u8]| {
        changes
            .iter()
            .any(|(other, _)| other.len() > path.len() + 1 && other.starts_with(path) && other[path.len()] == b'/')
    };
    let mut kept = changes.clone();
    kept.retain(|(path, change)| path != b"/etc" || *change == Change::Deleted || has_below(path));
    kept
}
