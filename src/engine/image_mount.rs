//! `image mount`: an image's file system at a place of the host, read-only.
//!
//! `RUN/images/ID/merged` is the place; whether it is mounted says /proc/self/mountinfo, and nothing else is kept.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::host::userns;
use crate::image::store::{self, ImageRecord};
use crate::model::digest::Digest;
use crate::storage::{layer, overlay::Overlay, tree};
use crate::sys::mount;
use anyhow::{Context, Result};
use std::os::fd::AsFd;
use std::path::PathBuf;

fn place(engine: &Engine, id: &str) -> PathBuf {
    engine.layout.run().join("images").join(id).join("merged")
}

/// Mount an image, if it is not mounted yet, and say where.
pub fn mount(engine: &Engine, name: &str) -> Result<PathBuf> {
    if engine.privilege.rootless && std::env::var_os(userns::UNSHARED).is_none() {
        // The mount would be seen by this one command only.
        return Err(Failure::new(Kind::Engine, "cannot run command \"coracle image mount\" in rootless mode")
            .hint("must execute `coracle unshare` first")
            .into());
    }
    let image = crate::engine::image::get(engine, name)?;
    let place = place(engine, image.id());
    if is_mounted(&place)? {
        return Ok(place);
    }
    std::fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
    let lower = image.layers().iter().rev().map(|hex| layer::diff_path(&engine.layout, hex)).collect::<Vec<_>>();
    let overlay = Overlay { lower, userxattr: engine.privilege.rootless, read_only: true, ..Overlay::default() };
    let mounted = overlay.mount().with_context(|| format!("mount image {name}"))?;
    let target = tree::open_directory(&place)?;
    mount::move_mount(mounted.as_fd(), target.as_fd()).with_context(|| format!("mount on {}", place.display()))?;
    Ok(place)
}

/// Undo it. Not mounted is no error with `force` only.
pub fn unmount(engine: &Engine, name: &str, force: bool) -> Result<String> {
    let (record, _) = store::find(&engine.layout, name)?.ok_or_else(|| store::not_known(name))?;
    let place = place(engine, record.id.hex());
    if is_mounted(&place)? {
        let flags = if force { nix::mount::MntFlags::MNT_DETACH } else { nix::mount::MntFlags::empty() };
        nix::mount::umount2(&place, flags).with_context(|| format!("unmount {}", place.display()))?;
    } else if !force {
        return Err(Failure::new(Kind::Engine, format!("image {name} is not mounted")).into());
    }
    if let Some(parent) = place.parent() {
        let _ = std::fs::remove_dir(&place);
        let _ = std::fs::remove_dir(parent);
    }
    Ok(record.id.hex().to_owned())
}

/// All images that are mounted, with where.
pub fn mounted(engine: &Engine) -> Result<Vec<(ImageRecord, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(engine.layout.run().join("images")).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let Ok(digest) = Digest::parse(&format!("sha256:{id}")) else { continue };
        let place = place(engine, &id);
        if is_mounted(&place)?
            && let Some(record) = ImageRecord::load(&engine.layout, &digest)?
        {
            found.push((record, place));
        }
    }
    Ok(found)
}

fn is_mounted(place: &std::path::Path) -> Result<bool> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let wanted = place.to_string_lossy().replace(' ', "\\040");
    Ok(text.lines().any(|line| line.split(' ').nth(4) == Some(&wanted)))
}
