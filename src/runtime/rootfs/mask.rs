//! Masked and read-only paths. What covers them is ours, never a file of the image (CVE-2025-31133).

use super::{Root, is_directory, new_file_system, resolve};
use crate::runtime::step::Fault;
use crate::sys::fd;
use crate::sys::mount::{self, Attributes};
use nix::sys::stat::{major, minor};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What covers files and directories, made at the first need.
#[derive(Default)]
pub struct Memory {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Root {
    /// The place, or None where there is nothing to hide.
    fn wanted(&self, path: &CStr) -> Result<Option<OwnedFd>, Fault> {
        match resolve::existing(self.dir()?, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => Ok(None),
            other => other.map(Some).map_err(|error| Fault::at(path, error)),
        }
    }

    /// Cover a file with the null device, a directory with an empty read-only one.
    pub fn mask(&mut self, path: &CStr) -> Result<(), Fault> {
        let Some(place) = self.wanted(path)? else { return Ok(()) };
        let cover = if is_directory(place.as_fd())? { self.empty()? } else { self.null()? };
        mount::move_mount(cover.as_fd(), place.as_fd()).map_err(|error| Fault::at(path, error))
    }

    /// A mount of the host's null device.
    fn null(&mut self) -> Result<OwnedFd, Fault> {
        if self.mask.null.is_none() {
            let null = fd::open(c"/dev/null", libc::O_PATH).map_err(|error| Fault::at(c"/dev/null", error))?;
            let number = nix::sys::stat::fstat(&null)?.st_rdev;
            if (major(number), minor(number)) != (1, 3) {
                return Err(Fault::refused("/dev/null of the host is not the null device"));
            }
            self.mask.null = Some(null);
        }
        let Some(null) = &self.mask.null else { return Err(Fault::refused("no null device")) };
        Ok(mount::clone_tree(null.as_fd(), c"", false)?)
    }

    /// A mount of one empty read-only tmpfs: the same one for all directories.
    fn empty(&mut self) -> Result<OwnedFd, Fault> {
        if let Some(empty) = &self.mask.empty {
            return Ok(mount::clone_tree(empty.as_fd(), c"", false)?);
        }
        let attributes = mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
        let options = [(c"size".to_owned(), Some(c"0".to_owned())), (c"mode".to_owned(), Some(c"0555".to_owned()))];
        let empty = new_file_system(c"tmpfs", &options, attributes)?;
        self.mask.empty = Some(empty.try_clone()?);
        Ok(empty)
    }

    /// Bind a place onto itself, read-only with all below it.
    pub fn make_read_only(&mut self, path: &CStr) -> Result<(), Fault> {
        let Some(place) = self.wanted(path)? else { return Ok(()) };
        let fault = |error: io::Error| Fault::at(path, error);
        let tree = mount::clone_tree(place.as_fd(), c"", true).map_err(fault)?;
        let attributes = Attributes { set: mount::ATTR_RDONLY, ..Attributes::default() };
        mount::mount_setattr(tree.as_fd(), true, &attributes).map_err(fault)?;
        mount::move_mount(tree.as_fd(), place.as_fd()).map_err(fault)
    }
}
