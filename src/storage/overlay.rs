//! An overlay of layers, as a mount that hangs nowhere yet.
//!
//! All goes by descriptors (fsopen, fsconfig, fsmount): nothing is visible on the host, nothing is left to unmount, and
//! the number of layers is not bounded by a page of text. Kernels before 6.5 take the layers as one string of short
//! `/proc/self/fd/N` names; what does not fit there goes through mount(2) and is detached again at once.

use crate::failure::{Failure, Kind};
use crate::storage::tree;
use crate::sys::mount;
use anyhow::{Context, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What fsconfig takes as one string.
const STRING_MAX: usize = 255;

/// What is to be mounted.
#[derive(Clone, Debug, Default)]
pub struct Overlay<'a> {
    /// Directories that are only read, topmost first. At least one.
    pub lower: Vec<PathBuf>,
    /// Directories of which only contents are read, by references in those above, topmost first.
    pub data: Vec<PathBuf>,
    /// Where changes go; absent: there can be none.
    pub upper: Option<Upper>,
    /// Give up that the upper directory outlives a crash: no sync at unmount (`--rm`). It cannot be mounted again.
    pub volatile: bool,
    /// We are in a user namespace: overlayfs keeps its books in `user.*` attributes.
    pub userxattr: bool,
    /// Mount it read-only.
    pub read_only: bool,
    /// A user namespace by which owners in the lower directories are mapped (idmapped mounts; the machine's root only).
    pub idmap: Option<BorrowedFd<'a>>,
}

/// The writable part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Changed files.
    pub upper: PathBuf,
    /// overlayfs's own, on the same file system.
    pub work: PathBuf,
}

impl Upper {
    /// `upper` and `work` under this directory.
    pub fn under(directory: &Path) -> Upper {
        Upper { upper: directory.join("upper"), work: directory.join("work") }
    }

    /// Make both. The merged root has the upper's owner and mode, so they are those of the topmost layer, `top`;
    /// `owner` in their place if ids are mapped.
    pub fn create(&self, top: &Path, owner: Option<(u32, u32)>) -> Result<()> {
        let metadata = std::fs::metadata(top).with_context(|| format!("read {}", top.display()))?;
        let mode = metadata.mode() & 0o7777;
        for (path, mode) in [(&self.upper, mode), (&self.work, 0o700)] {
            std::fs::DirBuilder::new().mode(mode).create(path).with_context(|| format!("make {}", path.display()))?;
        }
        let upper = tree::open_directory(&self.upper)?;
        nix::sys::stat::fchmod(&upper, nix::sys::stat::Mode::from_bits_truncate(mode))?;
        let (uid, gid) = owner.unwrap_or((metadata.uid(), metadata.gid()));
        if (uid, gid) != (0, 0) {
            nix::unistd::fchown(&upper, Some(uid.into()), Some(gid.into())).context("give the root to its owner")?;
        }
        Ok(())
    }
}

/// A directory and, for idmapped ones, the mount that is only reached by its descriptor.
struct Lower {
    path: CString,
    mount: Option<OwnedFd>,
}

impl Overlay<'_> {
    /// Mount it: the descriptor is the root of a detached mount, for move_mount.
    ///
    /// # Errors
    /// [`is_unsupported`] tells whether the file system cannot carry an overlay at all.
    pub fn mount(&self) -> Result<OwnedFd> {
        if let ([single], [], None) = (self.lower.as_slice(), self.data.as_slice(), &self.upper) {
            return self.bind(single);
        }
        let lower = self.lower.iter().map(|path| self.open_lower(path)).collect::<Result<Vec<_>>>()?;
        let context = mount::fsopen(c"overlay").map_err(explain_missing)?;
        let plus = lower.iter().try_for_each(|lower| add_lower(context.as_fd(), lower));
        let plus = plus.and_then(|()| self.data.iter().try_for_each(|path| add_data(context.as_fd(), path)));
        match plus {
            Ok(()) => {}
            // An option nobody knew before 6.5, or a path that is too long for a string.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENAMETOOLONG)) => {
                return self.mount_short(&lower);
            }
            Err(error) => return Err(self.explain(context.as_fd(), error)),
        }
        self.finish(context)
    }

    /// A single directory without changes needs no overlay, and would get none.
    fn bind(&self, path: &Path) -> Result<OwnedFd> {
        let context = || format!("clone {}", path.display());
        let tree = mount::clone_tree(here(), &c_path(path)?, false).with_context(context)?;
        let mut attributes = mount::Attributes { set: mount::ATTR_RDONLY, ..mount::Attributes::default() };
        if let Some(namespace) = self.idmap {
            attributes.set |= mount::ATTR_IDMAP;
            attributes.user_namespace = namespace.as_raw_fd() as u64;
        }
        mount::mount_setattr(tree.as_fd(), false, &attributes).with_context(context)?;
        Ok(tree)
    }

    fn open_lower(&self, path: &Path) -> Result<Lower> {
        let Some(namespace) = self.idmap else { return Ok(Lower { path: c_path(path)?, mount: None }) };
        let context = || format!("map the owners of {}", path.display());
        let tree = mount::clone_tree(here(), &c_path(path)?, false).with_context(context)?;
        let attributes = mount::Attributes {
            set: mount::ATTR_IDMAP,
            user_namespace: namespace.as_raw_fd() as u64,
            ..mount::Attributes::default()
        };
        mount::mount_setattr(tree.as_fd(), false, &attributes).with_context(context)?;
        Ok(Lower { path: fd_path(&tree)?, mount: Some(tree) })
    }

    fn finish(&self, context: OwnedFd) -> Result<OwnedFd> {
        self.options(context.as_fd()).map_err(|error| self.explain(context.as_fd(), error))?;
        mount::fsconfig_create(context.as_fd()).map_err(|error| self.explain(context.as_fd(), error))?;
        let attributes = if self.read_only { mount::ATTR_RDONLY } else { 0 };
        mount::fsmount(context.as_fd(), attributes).context("mount the overlay")
    }

    fn options(&self, context: BorrowedFd<'_>) -> std::io::Result<()> {
        if self.userxattr {
            mount::fsconfig_flag(context, c"userxattr")?;
        } else {
            // A distribution's defaults must not decide what `commit` and `diff` find in the upper directory.
            for option in [c"redirect_dir", c"metacopy", c"index"] {
                mount::fsconfig_string(context, option, c"off")?;
            }
        }
        let Some(upper) = &self.upper else { return Ok(()) };
        if self.volatile {
            mount::fsconfig_flag(context, c"volatile")?;
        }
        for (key, path) in [(c"upperdir", &upper.upper), (c"workdir", &upper.work)] {
            if path.as_os_str().len() <= STRING_MAX {
                let path = CString::new(path.as_os_str().as_bytes())?;
                mount::fsconfig_string(context, key, &path)?;
            } else {
                let directory = tree::open_directory(path).map_err(std::io::Error::other)?;
                let path = fd_path(&directory).map_err(std::io::Error::other)?;
                mount::fsconfig_string(context, key, &path)?;
            }
        }
        Ok(())
    }

    /// All lower directories in one string.
    fn mount_short(&self, lower: &[Lower]) -> Result<OwnedFd> {
        let mut open = Vec::new();
        let mut names = Vec::new();
        for (lower, path) in lower.iter().zip(&self.lower) {
            match &lower.mount {
                Some(mount) => names.push(fd_path(mount)?),
                None => {
                    let directory = tree::open_directory(path)?;
                    names.push(fd_path(&directory)?);
                    open.push(directory);
                }
            }
        }
        let mut joined = names.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b':');
        for path in &self.data {
            let directory = tree::open_directory(path)?;
            joined.extend_from_slice(b"::");
            joined.extend_from_slice(fd_path(&directory)?.as_bytes());
            open.push(directory);
        }
        let joined = CString::new(joined)?;
        if joined.as_bytes().len() > STRING_MAX {
            return self.mount_by_name(&joined);
        }
        let context = mount::fsopen(c"overlay").map_err(explain_missing)?;
        mount::fsconfig_string(context.as_fd(), c"lowerdir", &joined)
            .map_err(|error| self.explain(context.as_fd(), error))?;
        self.finish(context)
    }

    /// mount(2) takes a page of options. The place is the work directory or one of the layers: it is covered for a moment
    /// in our own mount namespace only.
    fn mount_by_name(&self, lower: &CString) -> Result<OwnedFd> {
        let mut data = [b"lowerdir=", lower.as_bytes()].concat();
        let mut open = Vec::new();
        if let Some(upper) = &self.upper {
            for (key, path) in [("upperdir", &upper.upper), ("workdir", &upper.work)] {
                let directory = tree::open_directory(path)?;
                data.extend_from_slice(format!(",{key}=").as_bytes());
                data.extend_from_slice(fd_path(&directory)?.as_bytes());
                open.push(directory);
            }
        }
        if self.userxattr {
            data.extend_from_slice(b",userxattr");
        } else {
            data.extend_from_slice(b",redirect_dir=off,metacopy=off,index=off");
        }
        if self.volatile && self.upper.is_some() {
            data.extend_from_slice(b",volatile");
        }
        let read_only = if self.read_only { nix::mount::MsFlags::MS_RDONLY } else { nix::mount::MsFlags::empty() };
        let place = self.lower.first().context("an overlay of nothing")?;
        nix::mount::mount(Some("overlay"), place, Some("overlay"), read_only, Some(data.as_slice()))
            .with_context(|| format!("mount an overlay of {} layers", self.lower.len()))?;
        let tree = mount::clone_tree(here(), &c_path(place)?, false).context("clone the overlay");
        nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH).context("detach the overlay")?;
        tree
    }

    fn explain(&self, context: BorrowedFd<'_>, error: std::io::Error) -> anyhow::Error {
        let said = mount::fs_message(context).map(|text| format!(" ({text})")).unwrap_or_default();
        let unsupported = self.upper.is_some() && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP));
        let error = anyhow::Error::from(error).context(format!("mount the overlay{said}"));
        if unsupported { error.context(Unsupported) } else { error }
    }
}

/// This file system or kernel has no overlays (for us).
#[derive(Debug)]
pub struct Unsupported;

impl std::fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("overlays are not supported here")
    }
}

impl std::error::Error for Unsupported {}

/// Whether an error of [`Overlay::mount`] means that a copy is needed in its place.
pub fn is_unsupported(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Unsupported>().is_some()
}

fn explain_missing(error: std::io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::ENODEV) => anyhow::Error::from(error).context("open overlayfs").context(Unsupported),
        Some(libc::EPERM) => anyhow::Error::from(error)
            .context(Failure::new(Kind::Engine, "open overlayfs").hint("an ordinary user needs Linux 5.11 or newer")),
        _ => anyhow::Error::from(error).context("open overlayfs"),
    }
}

fn add_lower(context: BorrowedFd<'_>, lower: &Lower) -> std::io::Result<()> {
    if let Some(mount) = &lower.mount {
        // 6.13 and newer; before, by the descriptor's name.
        match mount::fsconfig_fd(context, c"lowerdir+", mount.as_fd()) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    if lower.path.as_bytes().len() > STRING_MAX {
        return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    mount::fsconfig_string(context, c"lowerdir+", &lower.path)
}

fn add_data(context: BorrowedFd<'_>, path: &Path) -> std::io::Result<()> {
    if path.as_os_str().len() > STRING_MAX {
        return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    mount::fsconfig_string(context, c"datadir+", &CString::new(path.as_os_str().as_bytes())?)
}

fn here() -> BorrowedFd<'static> {
    nix::fcntl::AT_FDCWD
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a zero byte", path.display()))
}

fn fd_path(fd: &impl AsFd) -> Result<CString> {
    Ok(CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))?)
}
