//! A container's root as a plain copy, where the file system carries no overlay (another overlay, NFS, some FUSE).
//!
//! Made once a container, beside its upper directory, as `flat`; contents are shared with the layers where the file system
//! can (copy_file_range makes reflinks). The layers themselves are still merged by overlayfs, which reads from any file
//! system; one layer alone needs not even that.

use crate::state::file;
use crate::storage::overlay::Overlay;
use crate::storage::{copy, remove, tree};
use crate::sys::mount;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where the copy of the container kept in this directory is.
pub fn path(container: &Path) -> PathBuf {
    container.join("flat")
}

/// The copy as a detached mount, made if it is not there. `merged` are the layers, without an upper directory.
pub fn mount(container: &Path, merged: &Overlay<'_>, lenient: bool) -> Result<OwnedFd> {
    let place = path(container);
    if !place.exists() {
        // Told by whoever makes it, once a container.
        eprintln!("coracle: {} carries no overlay: the container gets a copy of its image", container.display());
        make(container, merged, lenient).context("copy the image's files")?;
    }
    let name = CString::new(place.into_os_string().into_encoded_bytes())?;
    mount::clone_tree(nix::fcntl::AT_FDCWD, &name, false).context("clone the container's root")
}

fn make(container: &Path, merged: &Overlay<'_>, lenient: bool) -> Result<()> {
    let source = merged.mount()?;
    let source = tree::open_in_root(source.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let staging = container.join("flat.new");
    remove::tree(&staging)?;
    std::fs::DirBuilder::new().mode(0o700).create(&staging).with_context(|| format!("make {}", staging.display()))?;
    let target = tree::open_directory(&staging)?;
    let options = copy::Options { lenient, ..copy::Options::default() };
    copy::content(source.as_fd(), target.as_fd(), options)?;
    copy::directory_attributes(source.as_fd(), target.as_fd(), options)?;
    file::rename_new(&staging, &path(container)).context("name the copy")
}
