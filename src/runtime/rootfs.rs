//! The container's root file system, made by descriptors only: attach it, mount into it, change root.
//!
//! Runs in the child, in its own mount namespace. Invariant: no path inside the root is ever resolved but by `openat2`
//! from the root's descriptor, and every mount lands on a descriptor resolved that way; paths of the host are resolved
//! from `/`, which stays the host's root until [`Root::pivot`]. The new root lies at its own path, or on the host's root
//! without being entered.

mod cgroup;
mod copyup;
mod device;
mod mask;
mod resolve;

use super::idmap::IdMaps;
use super::step::{Fault, propagation_name};
use crate::sys::fd;
use crate::sys::mount::{self, Attributes};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub use cgroup::CgroupMount;

/// What the child knows of its future root.
#[derive(Default)]
pub struct Root {
    dir: Option<OwnedFd>,
    old: Option<OwnedFd>,
    /// A procfs that this process mounted itself.
    proc: Option<OwnedFd>,
    /// Attached on top of the host's root rather than at its own path.
    is_hidden: bool,
    device: device::Memory,
    mask: mask::Memory,
}

/// One mount of the spec, ready to be made.
pub struct MountStep {
    /// Its place in the spec's `mounts`, by which prepared mounts are handed in.
    pub index: usize,
    pub source: Source,
    /// Inside the root.
    pub target: CString,
    /// Of the topmost mount.
    pub attributes: Attributes,
    /// Of all mounts in the tree (`rro`, `rnosuid`, …).
    pub recursive: Attributes,
    /// Propagation of the whole tree (`rprivate`) rather than of the topmost mount (`private`).
    pub propagates_recursively: bool,
    /// The target must be a directory by its very name: no symbolic link on the way (procfs, sysfs).
    pub is_strict: bool,
    /// This mount may lie inside procfs.
    pub may_cover_proc: bool,
    /// Ids are mapped, in the whole tree or in the topmost mount; the parent prepares such a mount.
    pub idmap: Option<(Mapping, bool)>,
}

/// How ids are mapped.
pub enum Mapping {
    /// By these maps.
    Own(IdMaps),
    /// As in the user namespace at this path, which the container joins.
    Joined(CString),
}

impl Mapping {
    /// A user namespace that maps so.
    pub fn namespace(&self) -> anyhow::Result<OwnedFd> {
        match self {
            Mapping::Own(maps) => maps.namespace(),
            Mapping::Joined(path) => Ok(fd::open(path, libc::O_RDONLY)?),
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mapping::Own(maps) => maps.fmt(f),
            Mapping::Joined(path) => write!(f, "of {}", path.to_string_lossy()),
        }
    }
}

/// What is mounted.
pub enum Source {
    /// A file or directory of the host.
    Bind { path: CString, recursive: bool, follow: bool },
    /// A detached mount that was handed in under this index.
    Prepared,
    /// A new file system.
    New { kind: CString, options: Vec<(CString, Option<CString>)>, copy_up: bool },
    /// The cgroup hierarchies of the host, as the container may see them.
    Cgroup(CgroupMount),
    /// Nothing new: change the flags of what is mounted there.
    Remount,
}

/// The host's procfs, while the host's root is still ours: known by its magic number.
pub fn host_proc() -> Result<OwnedFd, Fault> {
    let proc = fd::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY).map_err(|error| Fault::at(c"/proc", error))?;
    match fd::file_system_magic(&proc)? {
        fd::PROC_MAGIC => Ok(proc),
        _ => Err(Fault::refused("/proc of the host is not a procfs")),
    }
}

/// Keep mounts made here from the host (`/` is still the host's).
pub fn set_host_propagation(flags: u64, recursive: bool) -> Result<(), Fault> {
    let root = fd::open(c"/", libc::O_PATH | libc::O_DIRECTORY)?;
    let attributes = Attributes { propagation: flags, ..Attributes::default() };
    Ok(mount::mount_setattr(root.as_fd(), recursive, &attributes)?)
}

impl Root {
    /// What a process keeps in hand of the host while it joins a container: its procfs.
    pub fn before_joining() -> Result<Root, Fault> {
        Ok(Root { proc: Some(host_proc()?), ..Root::default() })
    }

    /// The root of a process that has joined a container: `/` itself.
    pub fn joined(&mut self) -> Result<(), Fault> {
        self.dir = Some(fd::open(c"/", libc::O_PATH | libc::O_DIRECTORY)?);
        Ok(())
    }

    fn dir(&self) -> Result<BorrowedFd<'_>, Fault> {
        match &self.dir {
            Some(dir) => Ok(dir.as_fd()),
            None => Err(Fault::refused("no root file system is attached")),
        }
    }

    /// A procfs that no image and no volume can have forged.
    pub fn proc(&self) -> Result<OwnedFd, Fault> {
        match &self.proc {
            Some(proc) => Ok(proc.try_clone()?),
            None => host_proc(),
        }
    }

    /// Attach the root: at its own path, where hooks look for it; or, where that cannot be reached or is propagated to
    /// the host, on top of the host's root, where no path leads.
    pub fn attach(&mut self, path: &CStr, prepared: Option<OwnedFd>, is_hidden: bool) -> Result<(), Fault> {
        let host = fd::open(c"/", libc::O_PATH | libc::O_DIRECTORY)?;
        let place = if is_hidden { None } else { fd::open(path, libc::O_PATH | libc::O_DIRECTORY).ok() };
        let tree = match prepared {
            Some(tree) => {
                let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
                mount::mount_setattr(tree.as_fd(), true, &slave)?;
                tree
            }
            None => mount::clone_tree(AT_FDCWD, path, true).map_err(|error| Fault::at(path, error))?,
        };
        mount::move_mount(tree.as_fd(), place.as_ref().unwrap_or(&host).as_fd())?;
        self.dir = Some(tree);
        self.old = Some(host);
        self.is_hidden = place.is_none();
        Ok(())
    }

    /// Make it the working directory.
    pub fn enter(&self) -> Result<(), Fault> {
        Ok(nix::unistd::fchdir(self.dir()?)?)
    }

    /// `rootfsPropagation`.
    pub fn set_propagation(&self, flags: u64, recursive: bool) -> Result<(), Fault> {
        let attributes = Attributes { propagation: flags, ..Attributes::default() };
        Ok(mount::mount_setattr(self.dir()?, recursive, &attributes)?)
    }

    /// `root.readonly`.
    pub fn make_root_read_only(&self) -> Result<(), Fault> {
        let attributes = Attributes { set: mount::ATTR_RDONLY, ..Attributes::default() };
        Ok(mount::mount_setattr(self.dir()?, false, &attributes)?)
    }

    /// Write a file below /proc/sys, by a path relative to /proc.
    pub fn write_sysctl(&self, path: &CStr, value: &[u8]) -> Result<(), Fault> {
        let resolve = fd::RESOLVE_BENEATH | fd::RESOLVE_NO_SYMLINKS;
        let file = fd::openat2(self.proc()?.as_fd(), path, libc::O_WRONLY, 0, resolve)
            .map_err(|error| Fault::at(path, error))?;
        nix::unistd::write(&file, value).map(drop).map_err(|error| Fault::at(path, error))
    }

    /// The working directory of the process is made where an image forgot it.
    pub fn make_work_dir(&self, path: &CStr) -> Result<(), Fault> {
        resolve::directory(self.dir()?, path).map(drop).map_err(|error| Fault::at(path, error))
    }

    /// Enter the new root for good; the old one is unmounted.
    pub fn pivot(&mut self) -> Result<(), Fault> {
        let Some(old) = self.old.take() else {
            return Err(Fault::refused("no root file system is attached"));
        };
        nix::unistd::fchdir(self.dir()?)?;
        mount::pivot_root_here()?;
        // The old root lies on the new one now. It must not take its unmounting to the host.
        nix::unistd::fchdir(old)?;
        nix::mount::umount2(c".", nix::mount::MntFlags::MNT_DETACH)?;
        Ok(nix::unistd::chdir(c"/")?)
    }

    /// `--no-pivot`, for hosts whose root is the initial ramfs: the old root stays, hidden below the new one. Its procfs
    /// and sysfs do not: with a whole one in sight the kernel lets anybody mount another, without what is masked here.
    pub fn move_to_root(&mut self) -> Result<(), Fault> {
        let Some(old) = self.old.take() else {
            return Err(Fault::refused("no root file system is attached"));
        };
        self.detach_host_views()?;
        nix::unistd::fchdir(self.dir()?)?;
        if !self.is_hidden {
            mount::move_mount(self.dir()?, old.as_fd())?;
        }
        nix::unistd::chroot(c".")?;
        Ok(nix::unistd::chdir(c"/")?)
    }
}

impl Root {
    fn detach_host_views(&self) -> Result<(), Fault> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let own = std::fs::read_link(format!("/proc/self/fd/{}", self.dir()?.as_raw_fd()))?;
        // The deepest first.
        for line in table.lines().rev() {
            let Some((head, tail)) = line.split_once(" - ") else { continue };
            let kind = tail.split(' ').next().unwrap_or_default();
            let Some(place) = head.split(' ').nth(4).filter(|_| matches!(kind, "proc" | "sysfs")) else { continue };
            if self.is_hidden || std::path::Path::new(place).starts_with(&own) {
                continue;
            }
            // Locked by a more privileged namespace: then it shows no more than that one allows.
            let _ = nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH);
        }
        Ok(())
    }
}

impl MountStep {
    /// A read-only tmpfs on /dev is made writable, and comes back as the step that closes it.
    pub fn put_off_read_only(&mut self) -> Option<MountStep> {
        let is_new = matches!(&self.source, Source::New { kind, .. } if kind.as_c_str() == c"tmpfs");
        if !is_new || self.target.as_c_str() != c"/dev" || self.attributes.set & mount::ATTR_RDONLY == 0 {
            return None;
        }
        self.attributes.set &= !mount::ATTR_RDONLY;
        let read_only = Attributes { set: mount::ATTR_RDONLY, ..Attributes::default() };
        Some(MountStep {
            index: self.index,
            source: Source::Remount,
            target: self.target.clone(),
            attributes: read_only,
            recursive: Attributes::default(),
            propagates_recursively: false,
            is_strict: true,
            may_cover_proc: false,
            idmap: None,
        })
    }

    /// Make the mount.
    pub fn run(&self, root: &mut Root, prepared: &mut BTreeMap<usize, OwnedFd>) -> Result<(), Fault> {
        let tree = match &self.source {
            Source::Remount => return self.remount(root),
            Source::Cgroup(cgroup) => return cgroup.run(self, root),
            Source::Prepared => match prepared.remove(&self.index) {
                Some(tree) => tree,
                None => return Err(Fault::refused("the prepared mount was not handed in")),
            },
            Source::Bind { path, recursive, follow } => bind(path, *recursive, *follow)?,
            Source::New { kind, options, .. } => match self.inherited_mode(root)? {
                Some(mode) => self.new_file_system(kind, &[options.as_slice(), &[mode]].concat())?,
                None => self.new_file_system(kind, options)?,
            },
        };
        if self.target.as_c_str() == c"/proc"
            && !matches!(self.source, Source::New { .. })
            && fd::file_system_magic(&tree)? != fd::PROC_MAGIC
        {
            return Err(Fault::refused("only a procfs may be mounted on /proc"));
        }
        let target = self.target(root, is_directory(tree.as_fd())?)?;
        if let Source::New { copy_up: true, options, .. } = &self.source {
            let given = |key: &CStr| options.iter().any(|(known, _)| known.as_c_str() == key);
            let given = copyup::Given { mode: given(c"mode"), owner: given(c"uid") || given(c"gid") };
            copyup::copy(target.as_fd(), tree.as_fd(), given)?;
        }
        self.change(tree.as_fd())?;
        mount::move_mount(tree.as_fd(), target.as_fd())?;
        if matches!(&self.source, Source::New { kind, .. } if kind.as_c_str() == c"proc") {
            root.proc = Some(tree);
        }
        Ok(())
    }

    /// Where it goes; made if it is not there.
    fn target(&self, root: &Root, is_directory: bool) -> Result<OwnedFd, Fault> {
        let wanted = if self.is_strict {
            let strict = resolve::strict_directory(root.dir()?, &self.target);
            if strict.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ELOOP)) {
                let path = self.target.to_string_lossy();
                return Err(Fault::refused(format!(
                    "{path} must be mounted on ordinary directory, and a link is there"
                )));
            }
            strict
        } else if is_directory {
            resolve::directory(root.dir()?, &self.target)
        } else {
            resolve::file(root.dir()?, &self.target)
        };
        let target = wanted.map_err(|error| Fault::at(&self.target, error))?;
        // A symbolic link may have led into procfs, where a mount would forge what the kernel says (CVE-2019-16884).
        if !self.may_cover_proc && fd::file_system_magic(&target)? == fd::PROC_MAGIC {
            return Err(Fault::refused(format!("{} is inside procfs", self.target.to_string_lossy())));
        }
        Ok(target)
    }

    /// A tmpfs that names no mode has that of the directory which it covers, as every runtime has it.
    fn inherited_mode(&self, root: &Root) -> Result<Option<(CString, Option<CString>)>, Fault> {
        let Source::New { kind, options, .. } = &self.source else { return Ok(None) };
        if kind.as_c_str() != c"tmpfs" || options.iter().any(|(key, _)| key.as_c_str() == c"mode") {
            return Ok(None);
        }
        let Ok(covered) = resolve::existing(root.dir()?, &self.target) else { return Ok(None) };
        let mode = nix::sys::stat::fstat(&covered)?.st_mode & 0o7777;
        Ok(CString::new(format!("{mode:o}")).ok().map(|mode| (c"mode".to_owned(), Some(mode))))
    }

    fn new_file_system(&self, kind: &CStr, options: &[(CString, Option<CString>)]) -> Result<OwnedFd, Fault> {
        match new_file_system(kind, options, self.attributes.set & !mount::ATTR_IDMAP) {
            // A network namespace that is not of our user namespace has no sysfs for us: show the host's.
            Err(fault) if fault.errno == libc::EPERM && kind == c"sysfs" => {
                let tree = bind(c"/sys", true, true)?;
                let read_only = Attributes { set: self.attributes.set, ..Attributes::default() };
                mount::mount_setattr(tree.as_fd(), true, &read_only)?;
                Ok(tree)
            }
            other => other,
        }
    }

    /// Flags and propagation of the detached tree.
    fn change(&self, tree: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut top = self.attributes;
        if self.propagates_recursively {
            top.propagation = 0;
        }
        // A new file system was made with its flags.
        if matches!(self.source, Source::New { .. }) {
            top = Attributes { propagation: top.propagation, ..Attributes::default() };
        }
        let mut all = self.recursive;
        if self.propagates_recursively {
            all.propagation = self.attributes.propagation;
        }
        set_attributes(tree, false, top)?;
        set_attributes(tree, true, all)
    }

    fn remount(&self, root: &Root) -> Result<(), Fault> {
        let target = fd::openat2(root.dir()?, &self.target, libc::O_PATH, 0, resolve::IN_ROOT)
            .map_err(|error| Fault::at(&self.target, error))?;
        self.change(target.as_fd())
    }
}

/// Set what there is to set. Flags of a mount that came from a more privileged namespace are locked: an explicit `rw` or
/// `exec` there does not undo them, and the rest is still set.
fn set_attributes(tree: BorrowedFd<'_>, recursive: bool, wanted: Attributes) -> Result<(), Fault> {
    if wanted == Attributes::default() {
        return Ok(());
    }
    match mount::mount_setattr(tree, recursive, &wanted) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && wanted.clear & !mount::ATTR_ATIME != 0 => {
            let kept = Attributes { clear: wanted.clear & mount::ATTR_ATIME, ..wanted };
            if kept == Attributes::default() {
                return Ok(());
            }
            Ok(mount::mount_setattr(tree, recursive, &kept)?)
        }
        other => Ok(other?),
    }
}

/// A detached copy of a place of the host.
fn bind(path: &CStr, recursive: bool, follow: bool) -> Result<OwnedFd, Fault> {
    let tree = if follow {
        mount::clone_tree(AT_FDCWD, path, recursive)
    } else {
        fd::open(path, libc::O_PATH | libc::O_NOFOLLOW)
            .and_then(|place| mount::clone_tree(place.as_fd(), c"", recursive))
    };
    tree.map_err(|error| Fault::at(path, error))
}

/// A detached mount of a new file system.
fn new_file_system(kind: &CStr, options: &[(CString, Option<CString>)], attributes: u64) -> Result<OwnedFd, Fault> {
    let context = mount::fsopen(kind).map_err(|error| Fault::at(kind, error))?;
    // The kernel's own words, where it has some, beside the number.
    let explain = |error: std::io::Error, what: &CStr| Fault {
        errno: error.raw_os_error().unwrap_or(libc::EIO),
        detail: mount::fs_message(context.as_fd()).unwrap_or_else(|| what.to_string_lossy().into_owned()),
    };
    for (key, value) in options {
        match value {
            Some(value) => mount::fsconfig_string(context.as_fd(), key, value),
            None => mount::fsconfig_flag(context.as_fd(), key),
        }
        .map_err(|error| explain(error, key))?;
    }
    mount::fsconfig_create(context.as_fd()).map_err(|error| explain(error, kind))?;
    mount::fsmount(context.as_fd(), attributes).map_err(|error| explain(error, kind))
}

fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Fault> {
    Ok(nix::sys::stat::fstat(file)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Read a small file below a directory descriptor.
fn open_dir_at(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Fault> {
    Ok(nix::fcntl::openat(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

impl fmt::Display for MountStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Bind { path, recursive, .. } => {
                write!(f, "{} {}", if *recursive { "rbind" } else { "bind" }, path.to_string_lossy())?;
            }
            Source::Prepared => write!(f, "mount prepared {}", self.index)?,
            Source::New { kind, .. } => write!(f, "mount {}", kind.to_string_lossy())?,
            Source::Cgroup(_) => write!(f, "mount cgroup")?,
            Source::Remount => write!(f, "remount")?,
        }
        write!(f, " on {}", self.target.to_string_lossy())
    }
}

impl MountStep {
    /// Everything beside source and target, for goldens.
    pub fn details(&self) -> String {
        let mut parts = Vec::new();
        if let Source::New { options, copy_up, .. } = &self.source {
            for (key, value) in options {
                let key = key.to_string_lossy();
                parts.push(match value {
                    Some(value) => format!("{key}={}", value.to_string_lossy()),
                    None => key.into_owned(),
                });
            }
            if *copy_up {
                parts.push("copy-up".to_owned());
            }
        }
        for (name, attributes) in [("", &self.attributes), ("recursive ", &self.recursive)] {
            if attributes.set != 0 {
                parts.push(format!("{name}set {:#x}", attributes.set));
            }
            if attributes.clear != 0 {
                parts.push(format!("{name}clear {:#x}", attributes.clear));
            }
        }
        if self.attributes.propagation != 0 {
            let recursive = if self.propagates_recursively { "r" } else { "" };
            parts.push(format!("{recursive}{}", propagation_name(self.attributes.propagation)));
        }
        if let Some((maps, is_recursive)) = &self.idmap {
            parts.push(format!("{}idmap {maps}", if *is_recursive { "r" } else { "" }));
        }
        if self.is_strict {
            parts.push("no links".to_owned());
        }
        parts.join(", ")
    }
}
