//! What an entry says of itself besides its content: owner, mode, extended attributes, times.
//!
//! Invariant: an attribute that would let an image reach outside its layer is never set.

use super::Unpacker;
use super::directory::Directory;
use crate::failure::{Explain, Failure, Kind as FailureKind};
use crate::storage::tar::Entry;
use crate::sys::xattr;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What files made in a directory get as permissions, in the place of the umask.
pub(super) const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

impl Unpacker<'_> {
    pub(super) fn plain_attributes(
        &mut self,
        entry: &Entry,
        directory: &Directory,
        name: &CString,
        mode: bool,
    ) -> Result<()> {
        let fd = directory.fd.as_fd();
        self.owner(entry, |uid, gid| {
            nix::unistd::fchownat(fd, name.as_c_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        })?;
        if mode {
            // We made it a moment ago and it is no link.
            let bits = Mode::from_bits_truncate(entry.mode);
            nix::sys::stat::fchmodat(fd, name.as_c_str(), bits, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        }
        if !entry.xattrs.is_empty() {
            let mut path = format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes();
            path.extend_from_slice(name.as_bytes());
            let path = CString::new(path)?;
            self.attributes(entry, |name, value| xattr::set_path(&path, name, value))?;
        }
        let time = time_of(entry);
        nix::sys::stat::utimensat(fd, name.as_c_str(), &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    pub(super) fn owner(&self, entry: &Entry, change: impl Fn(Uid, Gid) -> nix::Result<()>) -> Result<()> {
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        match change(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Err(_) if self.options.lenient_owners => Ok(()),
            Err(Errno::EINVAL) => Err(anyhow::Error::from(Failure::new(
                FailureKind::Engine,
                format!("owner {uid}:{gid} is not mapped in this user namespace"),
            )))
            .hint("give this user more subordinate ids in /etc/subuid and /etc/subgid"),
            result => result.context("set the owner"),
        }
    }

    pub(super) fn attributes(&self, entry: &Entry, set: impl Fn(&CStr, &[u8]) -> std::io::Result<()>) -> Result<()> {
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
            let shown = || format!("set the attribute {}", String::from_utf8_lossy(name));
            match set(&CString::new(name.as_slice())?, value) {
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSUP)) => {}
                // A user namespace may not give what the machine's root may.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.options.user_attributes => {}
                Err(error) => return Err(error).with_context(shown),
            }
        }
        Ok(())
    }
}

/// Attributes an image may set. overlayfs's own would let it point outside; labels are the host's business.
pub fn is_wanted(name: &[u8]) -> bool {
    let user =
        name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.starts_with(b"user.containers.");
    user || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

/// What a file made under `root` may not get of the mode it is made with: the umask, or anything where directories have
/// lists of their own.
pub(super) fn withheld(root: BorrowedFd<'_>) -> u32 {
    if !matches!(xattr::get_of(xattr::Of::Fd(root), DEFAULT_ACL), Ok(None)) {
        return 0o777;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o777)
}

pub(super) fn time_of(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime_s, i64::from(entry.mtime_ns))
}
