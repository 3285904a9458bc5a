//! Sources of the user's mounts, opened as detached mounts: binds, volumes, images, the shared /dev/shm, our init.
//!
//! Opened here, by the caller's own right, not inside: a container's root that is a subordinate id may not pass through
//! the caller's home. What is named inside a volume or image is resolved below it and never out of it.

use super::acquire::{Request, clone_path, running_pid};
use crate::bundle::mount::{INIT_PATH, Prepared};
use crate::bundle::user::Resolved;
use crate::failure::{Failure, Kind};
use crate::model::container::NamespaceMode;
use crate::model::mount::{Mount, MountOptions, MountSource, OverlayDirs};
use crate::model::user::IdRange;
use crate::storage::volume::{self, Volume};
use crate::storage::{overlay, tree};
use crate::sys::mount;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Names the binary in a supervisor's environment.
pub const BINARY_VARIABLE: &str = "CORACLE_BINARY";

/// All of them, with where they go.
pub(super) fn all(request: &Request<'_>, rootfs: BorrowedFd<'_>, user: &Resolved) -> Result<Vec<(Prepared, OwnedFd)>> {
    let spec = &request.record.spec;
    let mut list = Vec::new();
    if let NamespaceMode::Container(id) = &spec.namespaces.ipc
        && !spec.namespaces.ipc_no_shm
    {
        let descriptor = shared_memory_of(running_pid(request.layout, id)?)
            .with_context(|| format!("share /dev/shm of container {id}"))?;
        list.push((ours("/dev/shm", Path::new("/dev/shm"), false), descriptor));
    }
    if spec.process.init {
        let binary = own_binary()?;
        list.push((
            ours(INIT_PATH, &binary, true),
            clone_path(&binary, false).context("hold our own binary for --init")?,
        ));
    }
    for wanted in &spec.mounts {
        if let Some((source, recursive, descriptor)) = open(request, wanted, rootfs, user)? {
            let prepared = Prepared {
                target: wanted.target.clone(),
                source,
                options: wanted.options.clone(),
                recursive,
                asked: true,
            };
            list.push((prepared, descriptor));
        }
    }
    Ok(list)
}

/// The path of our own binary. This process may have been started from a detached mount of it, which has no path: then
/// whoever started it has said so in `CORACLE_BINARY`.
fn own_binary() -> Result<PathBuf> {
    match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => Ok(PathBuf::from(path)),
        None => std::env::current_exe().context("find our own binary"),
    }
}

/// A mount of ours.
pub(super) fn ours(target: &str, source: &Path, read_only: bool) -> Prepared {
    Prepared {
        target: target.to_owned(),
        source: source.to_owned(),
        options: MountOptions { read_only, nosuid: Some(true), nodev: Some(true), ..MountOptions::default() },
        recursive: false,
        asked: false,
    }
}

/// One of the user's mounts; `None` for those that need no source.
fn open(
    request: &Request<'_>,
    wanted: &Mount,
    rootfs: BorrowedFd<'_>,
    user: &Resolved,
) -> Result<Option<(PathBuf, bool, OwnedFd)>> {
    let (source, recursive) = match &wanted.source {
        MountSource::Tmpfs { .. } | MountSource::Ramfs | MountSource::Devpts { .. } => return Ok(None),
        MountSource::Bind { path, create, recursive } => (bind_source(path, *create)?, *recursive),
        MountSource::Volume { name, subpath, .. } => {
            return volume(request, wanted, name.as_deref().unwrap_or_default(), subpath.as_deref(), rootfs, user)
                .map(Some);
        }
        MountSource::Image { reference, subpath } => {
            let descriptor = image(request, reference)?;
            let descriptor = match subpath {
                None => descriptor,
                Some(subpath) => {
                    let inside = open_below(descriptor.as_fd(), subpath)?;
                    mount::clone_tree(inside.as_fd(), c"", true)
                        .with_context(|| format!("bind {subpath} of {reference}"))?
                }
            };
            return Ok(Some((PathBuf::from(reference), true, descriptor)));
        }
    };
    let descriptor = clone_path(&source, recursive)?;
    let descriptor = finish(request, wanted, user, descriptor, &source)?;
    Ok(Some((source, recursive, descriptor)))
}

/// A volume, made if need be, filled and handed over at its first use.
fn volume(
    request: &Request<'_>,
    wanted: &Mount,
    name: &str,
    subpath: Option<&str>,
    rootfs: BorrowedFd<'_>,
    user: &Resolved,
) -> Result<(PathBuf, bool, OwnedFd)> {
    let layout = request.layout;
    let anonymous = matches!(wanted.source, MountSource::Volume { anonymous: true, .. });
    let found = match Volume::load(layout, name)? {
        Some(volume) => volume,
        None => {
            let wish = volume::Wish { anonymous, ..volume::Wish::default() };
            match Volume::create(layout, name, wish)? {
                Some(volume) => volume,
                // Another container needed it at the same moment.
                None => Volume::load(layout, name)?.with_context(|| format!("volume {name} is gone"))?,
            }
        }
    };
    let place = volume::Place {
        rootfs,
        target: &wanted.target,
        copy: wanted.options.copy != Some(false),
        user: (outside(&request.record.id_maps.uid, user.uid), outside(&request.record.id_maps.gid, user.gid)),
        lenient: request.privilege.single,
    };
    found.first_use(layout, &place)?;
    let mounted = found.mount(layout)?;
    let descriptor = match subpath {
        None => mounted,
        Some(subpath) => {
            let inside = open_below(mounted.as_fd(), subpath)?;
            mount::clone_tree(inside.as_fd(), c"", true).with_context(|| format!("bind {subpath} of volume {name}"))?
        }
    };
    let source = Volume::data(layout, name);
    let descriptor = finish(request, wanted, user, descriptor, &source)?;
    Ok((source, false, descriptor))
}

/// An id of the container as the store numbers it.
pub(super) fn outside(map: &[IdRange], id: u32) -> u32 {
    let range = map.iter().find(|range| id >= range.inside && id - range.inside < range.size);
    range.map_or(id, |range| range.outside + (id - range.inside))
}

/// The path of a bind, which must be there or be made.
fn bind_source(path: &str, create: bool) -> Result<PathBuf> {
    let source = PathBuf::from(path);
    match std::fs::metadata(&source) {
        Ok(_) => Ok(source),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(&source).with_context(|| format!("make {path}"))?;
            Ok(source)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(Kind::Engine, format!("statfs {path}: no such file or directory"))
                .hint("make it first, or leave the leading `/` or `./` away for a named volume")
                .into())
        }
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}

/// `O` and `U`.
fn finish(
    request: &Request<'_>,
    wanted: &Mount,
    user: &Resolved,
    descriptor: OwnedFd,
    source: &Path,
) -> Result<OwnedFd> {
    if wanted.options.chown {
        let maps = &request.record.id_maps;
        let owner = (outside(&maps.uid, user.uid), outside(&maps.gid, user.gid));
        tree::give(source, owner).context("give the files to the container's user (U)")?;
    }
    match &wanted.options.overlay {
        None => Ok(descriptor),
        Some(directories) => over(request, wanted, directories, source),
    }
}

/// A throw-away overlay over a directory, kept below the container's own.
fn over(request: &Request<'_>, wanted: &Mount, directories: &OverlayDirs, source: &Path) -> Result<OwnedFd> {
    let name: String = wanted.target.chars().map(|c| if c == '/' { '-' } else { c }).collect();
    let base = request.layout.container(&request.record.id).join("overlays").join(name);
    let upper = directories.upper.clone().map_or_else(|| base.join("upper"), PathBuf::from);
    let work = directories.work.clone().map_or_else(|| base.join("work"), PathBuf::from);
    if directories.upper.is_none() {
        // Thrown away at each start (podman-run(1), the O flag).
        let _ = std::fs::remove_dir_all(&base);
    }
    for directory in [&upper, &work] {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    overlay::Overlay {
        lower: vec![source.to_owned()],
        upper: Some(overlay::Upper { upper, work }),
        volatile: directories.upper.is_none(),
        userxattr: request.privilege.rootless,
        ..overlay::Overlay::default()
    }
    .mount()
    .with_context(|| format!("overlay {}", source.display()))
}

/// An image's root, read-only.
fn image(request: &Request<'_>, reference: &str) -> Result<OwnedFd> {
    let found = crate::image::store::resolve(request.layout, reference)?
        .ok_or_else(|| Failure::new(Kind::Engine, format!("{reference}: image not known")))?;
    let lower = found.layers().iter().rev().map(|hex| crate::storage::layer::diff_path(request.layout, hex)).collect();
    overlay::Overlay { lower, userxattr: request.privilege.rootless, read_only: true, ..overlay::Overlay::default() }
        .mount()
        .with_context(|| format!("mount image {reference}"))
}

fn open_below(root: BorrowedFd<'_>, subpath: &str) -> Result<OwnedFd> {
    tree::open_in_root(root, subpath.trim_start_matches('/').as_bytes(), OFlag::O_PATH)
        .with_context(|| format!("open subpath {subpath}"))
}

/// Make a directory inside with its parents, each step on a descriptor, links followed inside only (CVE-2026-55686).
pub(super) fn make_directory(rootfs: BorrowedFd<'_>, path: &str, owner: Option<(u32, u32)>) -> Result<()> {
    let what = || format!("make {path} in the container");
    let mut reached = PathBuf::from("/");
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else { continue };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let parent = tree::open_in_root(rootfs, reached.as_os_str().as_bytes(), flags).with_context(what)?;
        reached.push(name);
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                if let Some((uid, gid)) = owner {
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    // A single id or a map of its own: the directory then stays with the container's root.
                    let _ = nix::unistd::fchownat(&parent, name, uid, gid, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW);
                }
            }
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(what),
        }
    }
    Ok(())
}

/// The machine's own root file system as a sandbox: what the container is to have as root, and what is mounted in it.
///
/// The store lies on the very file system that is the lower directory, and overlayfs takes no upper directory inside a
/// lower one: what the sandbox writes is kept in memory, and gone with it. In a user namespace the mounts below `/` are
/// locked, so that `/` as a whole cannot be a lower directory: there each directory of it gets an overlay of its own.
pub(super) fn machine(request: &Request<'_>) -> Result<(OwnedFd, Vec<(Prepared, OwnedFd)>)> {
    let memory = tmpfs().context("make a tmpfs for what is written")?;
    let inside = |name: &Path| PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd())).join(name);
    if !request.privilege.rootless {
        let upper = overlay::Upper::under(&inside(Path::new("")));
        upper.create(Path::new("/"), None)?;
        return Ok((sandbox(request, Path::new("/"), upper)?, Vec::new()));
    }
    let root = tmpfs().context("make a tmpfs for the root")?;
    let mut parts = Vec::new();
    for entry in std::fs::read_dir("/").context("read /")?.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            let target = std::fs::read_link(&path)?;
            nix::unistd::symlinkat(&target, &root, name.as_os_str())
                .with_context(|| format!("copy {}", path.display()))?;
        } else if kind.is_dir() {
            mkdirat(&root, name.as_os_str(), Mode::from_bits_truncate(0o755))?;
            if matches!(name.to_str(), Some("proc" | "sys" | "dev" | "run" | "lost+found")) {
                continue;
            }
            let directory = inside(Path::new(&name));
            std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
            let upper = overlay::Upper::under(&directory);
            upper.create(&path, None)?;
            // What has locked mounts of its own below is shown as it is, read-only.
            let (read_only, descriptor) = match sandbox(request, &path, upper) {
                Ok(descriptor) => (false, descriptor),
                Err(_) => (true, clone_path(&path, true)?),
            };
            let mut prepared = ours(&path.to_string_lossy(), &path, read_only);
            prepared.options.nosuid = None;
            prepared.recursive = true;
            parts.push((prepared, descriptor));
        }
    }
    Ok((root, parts))
}

fn sandbox(request: &Request<'_>, lower: &Path, upper: overlay::Upper) -> Result<OwnedFd> {
    overlay::Overlay {
        lower: vec![lower.to_owned()],
        upper: Some(upper),
        volatile: true,
        userxattr: request.privilege.rootless,
        ..overlay::Overlay::default()
    }
    .mount()
}

fn tmpfs() -> std::io::Result<OwnedFd> {
    let context = mount::fsopen(c"tmpfs")?;
    mount::fsconfig_string(context.as_fd(), c"mode", c"0755")?;
    mount::fsconfig_create(context.as_fd())?;
    mount::fsmount(context.as_fd(), 0)
}

/// A copy of another container's /dev/shm: cloned in its mount namespace, by a child that joins it.
fn shared_memory_of(pid: i32) -> Result<OwnedFd> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    let (here, there) = crate::sys::fd::channel()?;
    let child = crate::sys::fork::in_child(|| {
        let clone = || -> std::io::Result<()> {
            crate::sys::namespace::setns(namespace.as_fd(), libc::CLONE_NEWNS)?;
            let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, c"/dev/shm", false)?;
            crate::sys::fd::send(there.as_fd(), b"x", Some(tree.as_fd()))
        };
        i32::from(clone().is_err())
    })?;
    let mut byte = [0];
    let status = nix::sys::wait::waitpid(child, None)?;
    if !matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)) {
        anyhow::bail!("it cannot be joined");
    }
    let (_, descriptor) = crate::sys::fd::receive(here.as_fd(), &mut byte)?;
    descriptor.context("nothing was sent")
}
