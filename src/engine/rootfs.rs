//! A container's file system, to look into and to change from outside: `cp`, `export`, `diff`, `commit`.
//!
//! What is running is entered through its first process's root, with all that is mounted there; what is not gets its
//! overlay mounted for as long as the descriptor is open, in no place. Paths are resolved below that descriptor only.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::host::userns;
use crate::model::container::RootSource;
use crate::model::mount::MountSource;
use crate::state::container::{self, ContainerRecord, Phase, State};
use crate::storage::overlay::Overlay;
use crate::storage::volume::Volume;
use crate::storage::{layer, tree};
use crate::supervisor::root;
use crate::sys::{fd, fork, mount};
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The layers of a container's image as directories, topmost first.
pub fn layers(engine: &Engine, record: &ContainerRecord) -> Vec<PathBuf> {
    record.layers.iter().rev().map(|hex| layer::diff_path(&engine.layout, hex)).collect()
}

/// The root directory of a container.
///
/// A mount that has no place is dissolved with the descriptor it was made with: what was opened below it is still there,
/// but the kernel follows no `..` in it any more (EAGAIN). So both are kept.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    _mount: Option<OwnedFd>,
}

impl Root {
    fn of_mount(mount: OwnedFd) -> Result<Root> {
        let directory = tree::open_in_root(mount.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(Root { directory, _mount: Some(mount) })
    }
}

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Root {
        Root { directory, _mount: None }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The root of a container, running or not.
pub fn open(engine: &Engine, record: &ContainerRecord) -> Result<Root> {
    if let State::Live(status) = container::state(&engine.layout, &record.id)?
        && matches!(status.phase, Phase::Running | Phase::Paused | Phase::Initialized)
        && status.pid > 0
    {
        return Ok(running(status.pid, status.pid_start)?.into());
    }
    match &record.spec.root {
        RootSource::Directory { path, overlay: false, .. } => return Ok(tree::open_directory(Path::new(path))?.into()),
        RootSource::Host => {
            return Err(Failure::new(Kind::Engine, "a container of the machine's own root keeps nothing when it ends")
                .hint("look into it while it runs")
                .into());
        }
        RootSource::Directory { overlay: true, .. } | RootSource::Image(_) | RootSource::Unset => {}
    }
    Root::of_mount(root::layered(&engine.layout, &engine.privilege, record)?)
}

/// The root of a running process. Its start time, read after the descriptor is had, tells that the pid is still its own.
fn running(pid: i32, start: u64) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let root = tree::open_directory(Path::new(&path)).context("enter the container's file system")?;
    if userns::start_time(pid) != Some(start) {
        bail!("the container has just ended");
    }
    Ok(root)
}

/// The root for a path inside, and the path below that root. Of a container that does not run, what is mounted at the path
/// is not there: the volume or directory is opened in its place.
pub fn open_at(engine: &Engine, record: &ContainerRecord, path: &Path) -> Result<(Root, PathBuf)> {
    if !container::state(&engine.layout, &record.id)?.is_live() {
        let mounts = record.spec.mounts.iter().filter(|mount| path.starts_with(&mount.target));
        if let Some(mount) = mounts.max_by_key(|mount| mount.target.len()) {
            let below = Path::new("/").join(path.strip_prefix(&mount.target)?);
            match &mount.source {
                MountSource::Bind { path, .. } if Path::new(path).is_dir() => {
                    return Ok((tree::open_directory(Path::new(path))?.into(), below));
                }
                MountSource::Volume { name: Some(name), subpath: None, .. } => {
                    if let Some(volume) = Volume::load(&engine.layout, name)? {
                        return Ok((Root::of_mount(volume.mount(&engine.layout)?)?, below));
                    }
                }
                // A tmpfs is empty, an image or device is not for this: then the place itself.
                _ => {}
            }
        }
    }
    Ok((open(engine, record)?, path.to_owned()))
}

/// The image's layers merged, read-only; `None`: there are none.
pub fn image_root(engine: &Engine, lower: Vec<PathBuf>) -> Result<Option<Root>> {
    if lower.is_empty() {
        return Ok(None);
    }
    let overlay = Overlay { lower, userxattr: engine.privilege.rootless, read_only: true, ..Overlay::default() };
    Root::of_mount(overlay.mount()?).map(Some)
}

/// The root of a container without what is mounted in it (volumes, /proc, /sys, /dev): what `export` and a squashed
/// `commit` give away.
pub fn open_alone(engine: &Engine, record: &ContainerRecord) -> Result<Root> {
    let State::Live(status) = container::state(&engine.layout, &record.id)? else { return open(engine, record) };
    if status.pid <= 0 {
        bail!("the container is just starting");
    }
    Root::of_mount(clone_in(status.pid, status.pid_start).context("clone the container's root")?)
}

/// A mount can be cloned in its own mount namespace only: by a child that joins it.
fn clone_in(pid: i32, start: u64) -> Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    if userns::start_time(pid) != Some(start) {
        bail!("the container has just ended");
    }
    let (here, there) = fd::channel()?;
    let child = fork::in_child(|| {
        let clone = || -> std::io::Result<()> {
            crate::sys::namespace::setns(namespace.as_fd(), libc::CLONE_NEWNS)?;
            let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, c"/", false)?;
            fd::send(there.as_fd(), b"x", Some(tree.as_fd()))
        };
        i32::from(clone().is_err())
    })?;
    if !matches!(nix::sys::wait::waitpid(child, None)?, nix::sys::wait::WaitStatus::Exited(_, 0)) {
        bail!("it cannot be joined");
    }
    let (_, descriptor) = fd::receive(here.as_fd(), &mut [0])?;
    descriptor.context("nothing was sent")
}
