//! Device nodes, links and the console of the container's own /dev.

use super::{Root, bind, resolve};
use crate::runtime::step::{DeviceStep, Fault};
use crate::sys::{fd, mount, process};
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// What one device step leaves for the next.
#[derive(Default)]
pub struct Memory {
    /// The directory of the last device: nearly always the next one's too.
    parent: Option<(CString, OwnedFd)>,
    /// This user namespace may not make nodes: the host's are bound instead.
    binds: bool,
}

/// The host's node of this kind and number, by its own path or by udev's: nothing else may stand in for it.
fn host_node(device: &DeviceStep) -> Result<OwnedFd, Fault> {
    let number = makedev(device.major.into(), device.minor.into());
    let directory = if device.kind == libc::S_IFBLK { "block" } else { "char" };
    let by_number = CString::new(format!("/dev/{directory}/{}:{}", device.major, device.minor)).unwrap_or_default();
    for path in [&device.path, &by_number] {
        let Ok(tree) = bind(path, false, true) else { continue };
        let status = nix::sys::stat::fstat(&tree)?;
        if status.st_mode & libc::S_IFMT == device.kind && status.st_rdev == number {
            return Ok(tree);
        }
    }
    let (path, major, minor) = (device.path.to_string_lossy(), device.major, device.minor);
    Err(Fault::refused(format!(
        "a user namespace makes no device nodes, and the host has no {path} of number {major}:{minor} to bind in its place"
    )))
}

impl Root {
    fn with_parent(&mut self, path: &CStr) -> Result<CString, Fault> {
        let (parent, name) = resolve::split(path).map_err(|error| Fault::at(path, error))?;
        if self.device.parent.as_ref().is_none_or(|(known, _)| *known != parent) {
            let dir = resolve::strict_directory(self.dir()?, &parent).map_err(|error| Fault::at(&parent, error))?;
            self.device.parent = Some((parent, dir));
        }
        Ok(name)
    }

    /// Make a node, or bind the host's where nodes cannot be made.
    pub fn make_device(&mut self, device: &DeviceStep) -> Result<(), Fault> {
        let name = self.with_parent(&device.path)?;
        let Some((_, parent)) = &self.device.parent else { return Ok(()) };
        let fault = |error: nix::Error| Fault::at(&device.path, error);
        if !self.device.binds || device.kind == libc::S_IFIFO {
            let number = makedev(device.major.into(), device.minor.into());
            let kind = SFlag::from_bits_truncate(device.kind);
            match mknodat(parent, name.as_c_str(), kind, Mode::from_bits_truncate(device.mode), number) {
                Ok(()) if (device.uid, device.gid) == (0, 0) => return Ok(()),
                Ok(()) => {
                    let owner = (Some(device.uid.into()), Some(device.gid.into()));
                    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                    return nix::unistd::fchownat(parent, name.as_c_str(), owner.0, owner.1, flags).map_err(fault);
                }
                Err(nix::Error::EEXIST) => {
                    let status = resolve::status(parent.as_fd(), &name)?;
                    let is_same = status.st_mode & libc::S_IFMT == device.kind && status.st_rdev == number;
                    if is_same || device.is_default {
                        return Ok(());
                    }
                    return Err(fault(nix::Error::EEXIST));
                }
                Err(nix::Error::EPERM) => self.device.binds = true,
                Err(error) => return Err(fault(error)),
            }
        }
        let tree = host_node(device)?;
        let attributes =
            mount::Attributes { set: mount::ATTR_NOSUID | mount::ATTR_NOEXEC, ..mount::Attributes::default() };
        mount::mount_setattr(tree.as_fd(), false, &attributes).map_err(|error| Fault::at(&device.path, error))?;
        let target = resolve::file(parent.as_fd(), &name).map_err(|error| Fault::at(&device.path, error))?;
        mount::move_mount(tree.as_fd(), target.as_fd()).map_err(|error| Fault::at(&device.path, error))
    }

    /// Make a symbolic link unless something is there.
    pub fn link(&mut self, target: &CStr, path: &CStr) -> Result<(), Fault> {
        let name = self.with_parent(path)?;
        let Some((_, parent)) = &self.device.parent else { return Ok(()) };
        match nix::unistd::symlinkat(target, parent, name.as_c_str()) {
            Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
            Err(error) => Err(Fault::at(path, error)),
        }
    }

    /// A pseudo terminal of the container's own devpts as (master, terminal); `binds` puts it on /dev/console, by
    /// descriptor (CVE-2025-52565).
    pub fn open_console(&mut self, binds: bool) -> Result<(OwnedFd, OwnedFd), Fault> {
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let master = fd::openat2(self.dir()?, c"/dev/pts/ptmx", flags, 0, resolve::IN_ROOT)
            .map_err(|error| Fault::at(c"/dev/pts/ptmx", error))?;
        if fd::file_system_magic(&master)? != fd::DEVPTS_MAGIC {
            return Err(Fault::refused("/dev/pts/ptmx is not on a devpts"));
        }
        let terminal = process::terminal_peer(master.as_fd())?;
        if !binds {
            return Ok((master, terminal));
        }
        let tree = mount::clone_tree(terminal.as_fd(), c"", false)?;
        let target = resolve::file(self.dir()?, c"/dev/console").map_err(|error| Fault::at(c"/dev/console", error))?;
        mount::move_mount(tree.as_fd(), target.as_fd()).map_err(|error| Fault::at(c"/dev/console", error))?;
        Ok((master, terminal))
    }
}
