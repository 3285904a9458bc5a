//! What an archive says is gone from the layers below, as overlayfs marks it.
//!
//! Not for archives that are no layers: there such names are names like any other.

use super::directory::Directory;
use super::{Unpacker, kind_of};
use crate::sys::xattr;
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

/// Prefix of names that say what is gone from the layers below.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// All that the layers below have in this directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Unpacker<'_> {
    pub(super) fn whiteout(&mut self, directory: &Directory, name: &[u8]) -> Result<()> {
        if name == OPAQUE {
            return self.make_opaque(directory.fd.as_fd());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.starts_with(WHITEOUT) {
            // aufs kept its own books under such names; they mean nothing to others.
            return Ok(());
        }
        ensure!(!matches!(hidden, b"" | b"." | b".."), "a whiteout of nothing");
        let hidden = CString::new(hidden)?;
        match nix::sys::stat::mknodat(&directory.fd, hidden.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => {
                // Same layer: the whiteout means what is below. A file hides that anyway, a directory must be opaque.
                let stat = nix::sys::stat::fstatat(&directory.fd, hidden.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if kind_of(&stat) != SFlag::S_IFDIR {
                    return Ok(());
                }
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let below = nix::fcntl::openat(&directory.fd, hidden.as_c_str(), flags, Mode::empty())?;
                self.make_opaque(below.as_fd())
            }
            // An overlay gives its whiteouts to nobody; what lies on one is marked by attributes (Linux 6.7).
            Err(Errno::EPERM) => self.mark_whiteout(directory, &hidden).context("make a whiteout"),
            Err(error) => Err(error).context("make a whiteout"),
        }
    }

    /// The other form of a whiteout: an empty file with an attribute, in a directory with another.
    pub(super) fn mark_whiteout(&self, directory: &Directory, hidden: &CString) -> Result<()> {
        let prefix = if self.options.user_attributes { "user.overlay." } else { "trusted.overlay." };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&directory.fd, hidden.as_c_str(), flags, Mode::empty())?;
        xattr::set(file.as_fd(), &CString::new(format!("{prefix}whiteout"))?, b"y")?;
        let opaque = CString::new(format!("{prefix}opaque"))?;
        // A directory that hides all below it stays so.
        if xattr::get_of(xattr::Of::Fd(directory.fd.as_fd()), &opaque)?.as_deref() != Some(b"y") {
            xattr::set(directory.fd.as_fd(), &opaque, b"x")?;
        }
        Ok(())
    }

    pub(super) fn make_opaque(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let name = if self.options.user_attributes { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" };
        xattr::set(directory, name, b"y").context("mark a directory as opaque")
    }
}

/// Whether this is overlayfs's mark of something that is gone.
pub fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}
