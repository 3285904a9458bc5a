//! The namespaces of a spec, as flags of the clone, namespaces to be born in, and steps.

use super::{Plan, path_string};
use crate::runtime::idmap::IdMaps;
use crate::runtime::step::{Place, Step};
use crate::sys::namespace::CLONE_NEWTIME;
use anyhow::Result;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use std::os::fd::OwnedFd;

/// The namespaces of a spec: made, joined, or (absent) the caller's.
pub(super) struct Namespaces(Vec<(LinuxNamespaceType, Option<Place>)>);

/// (CLONE_NEW*, name) of a kind.
pub fn namespace_kind(kind: LinuxNamespaceType) -> (i32, &'static str) {
    match kind {
        LinuxNamespaceType::Mount => (libc::CLONE_NEWNS, "mount"),
        LinuxNamespaceType::Cgroup => (libc::CLONE_NEWCGROUP, "cgroup"),
        LinuxNamespaceType::Uts => (libc::CLONE_NEWUTS, "uts"),
        LinuxNamespaceType::Ipc => (libc::CLONE_NEWIPC, "ipc"),
        LinuxNamespaceType::User => (libc::CLONE_NEWUSER, "user"),
        LinuxNamespaceType::Pid => (libc::CLONE_NEWPID, "pid"),
        LinuxNamespaceType::Network => (libc::CLONE_NEWNET, "network"),
        LinuxNamespaceType::Time => (CLONE_NEWTIME, "time"),
    }
}

impl Namespaces {
    pub(super) fn new(linux: &Linux, held: Vec<(LinuxNamespaceType, OwnedFd)>) -> Result<Namespaces> {
        let mut all: Vec<(LinuxNamespaceType, Option<Place>)> =
            held.into_iter().map(|(kind, fd)| (kind, Some(Place::Fd(fd)))).collect();
        for namespace in linux.namespaces().iter().flatten() {
            if all.iter().any(|(kind, _)| *kind == namespace.typ()) {
                continue;
            }
            let place = match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                Some(path) => Some(Place::Path(path_string(path)?)),
                None => None,
            };
            all.push((namespace.typ(), place));
        }
        Ok(Namespaces(all))
    }

    pub(super) fn has(&self, wanted: LinuxNamespaceType) -> bool {
        self.0.iter().any(|(kind, _)| *kind == wanted)
    }

    pub(super) fn makes(&self, wanted: LinuxNamespaceType) -> bool {
        self.0.iter().any(|(kind, place)| *kind == wanted && place.is_none())
    }

    /// Flags for clone3, joins for whoever can do them, and the rest as steps.
    pub(super) fn enter(mut self, plan: &mut Plan, new_user: Option<&IdMaps>, offsets: Vec<u8>) -> Result<()> {
        // The user namespace first: it gives the rights over the others that belong to it.
        self.0.sort_by_key(|(kind, _)| (*kind != LinuxNamespaceType::User, namespace_kind(*kind).0));
        let mut joins_user = false;
        // A pid namespace belongs to the user namespace it is made in, and only who has rights there may mount its procfs:
        // to be made in a joined one the process must be born there.
        let is_user =
            |(kind, place): &(LinuxNamespaceType, Option<Place>)| *kind == LinuxNamespaceType::User && place.is_some();
        let is_born_inside = self.makes(LinuxNamespaceType::Pid) && self.0.iter().any(is_user);
        let makes_network = self.makes(LinuxNamespaceType::Network);
        let (mut makes_cgroup, mut makes_time) = (false, false);
        if self.makes(LinuxNamespaceType::Time) && !offsets.is_empty() {
            // Later it is hidden from tracers, and its files in procfs are then not its own.
            plan.child.push(Step::OpenTimeOffsets);
        }
        for (kind, place) in self.0 {
            let (flag, name) = namespace_kind(kind);
            match (kind, place) {
                // Made later, once the process stands in its cgroup, which becomes the root.
                (LinuxNamespaceType::Cgroup, None) => makes_cgroup = true,
                (LinuxNamespaceType::Time, None) => makes_time = true,
                (_, None) => plan.flags |= flag as u64,
                // A pid namespace is joined by birth. With a user namespace of its own the child has no rights over
                // a namespace made outside: the parent lends its own.
                (LinuxNamespaceType::Pid, Some(place)) => plan.borrowed.push((flag, name, place)),
                (LinuxNamespaceType::User, Some(place)) if is_born_inside => {
                    joins_user = true;
                    plan.borrowed.push((flag, name, place));
                }
                (LinuxNamespaceType::User, Some(place)) => {
                    joins_user = true;
                    plan.child.push(Step::Join { kind: flag, name, place });
                }
                (_, Some(place)) if new_user.is_some() || is_born_inside => plan.borrowed.push((flag, name, place)),
                (_, Some(place)) => plan.child.push(Step::Join { kind: flag, name, place }),
            }
        }
        match new_user.map(IdMaps::first_user) {
            Some((uid, gid)) => plan.child.push(Step::BecomeRoot { uid, gid }),
            None if joins_user => plan.child.push(Step::BecomeRoot { uid: 0, gid: 0 }),
            None => {}
        }
        if joins_user && plan.flags != 0 && !is_born_inside {
            // Namespaces made at birth would belong to the caller's user namespace.
            plan.child.push(Step::Unshare(plan.flags as i32 & !libc::CLONE_NEWPID));
            plan.flags &= libc::CLONE_NEWPID as u64;
        }
        plan.child.extend([Step::Conceal, Step::NewSession, Step::Umask(0)]);
        if makes_cgroup {
            plan.child.push(Step::NewCgroupNamespace);
        }
        if makes_network {
            plan.child.push(Step::LoopbackUp);
        }
        if makes_time {
            plan.child.push(Step::NewTimeNamespace(offsets));
        }
        Ok(())
    }
}
