//! The `cgroup` mount of the spec: one hierarchy (v2), or a tmpfs with one directory a hierarchy (v1 and hybrid).
//!
//! What the host has is read from /proc/self/cgroup of the child, which stands in its own cgroup by then. In a cgroup
//! namespace the hierarchies are mounted anew, so that the container's own cgroup is their root; without one the
//! container's own directory of each is bound.

use super::{MountStep, Root, bind, new_file_system, open_dir_at, set_attributes};
use crate::runtime::step::Fault;
use crate::sys::fd;
use crate::sys::mount::{self, Attributes};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// How to show the hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupMount {
    /// The container has a cgroup namespace of its own.
    pub has_namespace: bool,
}

/// One line of /proc/self/cgroup.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// `cpu,cpuacct`, `name=systemd`; empty for v2.
    controllers: String,
    path: String,
}

impl CgroupMount {
    /// Make the mount.
    pub fn run(&self, step: &MountStep, root: &Root) -> Result<(), Fault> {
        let proc = super::host_proc()?;
        let file = fd::openat2(proc.as_fd(), c"self/cgroup", libc::O_RDONLY, 0, fd::RESOLVE_BENEATH)?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text)?;
        let hierarchies = parse(&text);
        let target = step.target(root, true)?;
        let only_v2 = hierarchies.iter().all(|hierarchy| hierarchy.controllers.is_empty());
        if only_v2 {
            let tree = match hierarchies.first() {
                Some(unified) => self.tree(unified, c"/sys/fs/cgroup", step.attributes.set)?,
                None => return Err(Fault::refused("this kernel has no cgroups")),
            };
            return attach(tree, step, target);
        }
        let options = [(c"mode".to_owned(), Some(c"0755".to_owned()))];
        let flags = step.attributes.set & !mount::ATTR_RDONLY;
        let top = new_file_system(c"tmpfs", &options, flags)?;
        mount::move_mount(top.as_fd(), target.as_fd())?;
        for hierarchy in &hierarchies {
            self.add(hierarchy, top.as_fd(), step)?;
        }
        let attributes = Attributes { set: step.attributes.set, ..Attributes::default() };
        set_attributes(top.as_fd(), false, attributes)
    }

    /// One hierarchy below the tmpfs, with a link for each of its controllers.
    fn add(&self, hierarchy: &Hierarchy, top: std::os::fd::BorrowedFd<'_>, step: &MountStep) -> Result<(), Fault> {
        let name = match hierarchy.controllers.as_str() {
            "" => "unified".to_owned(),
            other => other.trim_start_matches("name=").to_owned(),
        };
        let host = c_string(&format!("/sys/fs/cgroup/{name}"))?;
        let tree = match self.tree(hierarchy, &host, step.attributes.set) {
            Ok(tree) => tree,
            // A hierarchy that is compiled in but mounted nowhere on the host has nothing to show.
            Err(fault) if matches!(fault.errno, libc::ENOENT | libc::EBUSY | libc::EPERM) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let name = c_string(&name)?;
        nix::sys::stat::mkdirat(top, name.as_c_str(), nix::sys::stat::Mode::from_bits_truncate(0o755))?;
        let place = open_dir_at(top, &name)?;
        attach(tree, step, place)?;
        for controller in hierarchy.controllers.split(',').filter(|_| hierarchy.controllers.contains(',')) {
            nix::unistd::symlinkat(name.as_c_str(), top, c_string(controller)?.as_c_str())?;
        }
        Ok(())
    }

    fn tree(&self, hierarchy: &Hierarchy, host: &CStr, attributes: u64) -> Result<OwnedFd, Fault> {
        let host_bind = || {
            let path = format!("{}{}", host.to_string_lossy(), hierarchy.path);
            bind(&c_string(&path)?, false, true)
        };
        if !self.has_namespace {
            return host_bind();
        }
        let made = if hierarchy.controllers.is_empty() {
            new_file_system(c"cgroup2", &[], attributes)
        } else {
            let mut options = Vec::new();
            if let Some(name) = hierarchy.controllers.strip_prefix("name=") {
                options.push((c"none".to_owned(), None));
                options.push((c"name".to_owned(), Some(c_string(name)?)));
            } else {
                for controller in hierarchy.controllers.split(',') {
                    options.push((c_string(controller)?, None));
                }
            }
            new_file_system(c"cgroup", &options, attributes)
        };
        // A user namespace that does not own the cgroup namespace may not mount it.
        match made {
            Err(fault) if matches!(fault.errno, libc::EPERM | libc::EBUSY) => host_bind(),
            other => other,
        }
    }
}

fn attach(tree: OwnedFd, step: &MountStep, target: OwnedFd) -> Result<(), Fault> {
    set_attributes(tree.as_fd(), false, step.attributes)?;
    Ok(mount::move_mount(tree.as_fd(), target.as_fd())?)
}

fn c_string(text: &str) -> Result<CString, Fault> {
    CString::new(text).map_err(|_| Fault { errno: libc::EINVAL, detail: text.to_owned() })
}

fn parse(text: &str) -> Vec<Hierarchy> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Hierarchy { controllers: controllers.to_owned(), path: path.to_owned() })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_have_both_kinds() {
        let parsed = parse("5:cpu,cpuacct:/a\n1:name=systemd:/a:b\n0::/c\n");
        let flat: Vec<_> = parsed.iter().map(|h| (h.controllers.as_str(), h.path.as_str())).collect();
        assert_eq!(flat, [("cpu,cpuacct", "/a"), ("name=systemd", "/a:b"), ("", "/c")]);
    }
}
