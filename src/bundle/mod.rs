//! PURE: a container record and what is held for it, to the OCI spec.
//!
//! Everything that needs the host (ids from the image's passwd, device numbers, which control groups there are) comes in
//! as [`Facts`]; so the spec of any container can be tested without a kernel.
#![forbid(unsafe_code)]

mod device;
pub mod mount;
mod process;
pub mod resource;
pub mod seccomp;
pub mod security;
pub mod user;

use crate::model::container::{ContainerSpec, NamespaceMode};
use crate::model::network::NetworkMode;
use crate::model::user::{IdMaps, IdRange, UserNamespace};
use crate::state::container::ContainerRecord;
use anyhow::Result;
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Process, Root, Spec,
};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// What the spec needs to know of the host and of what is held.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Who runs inside, looked up.
    pub user: user::Resolved,
    /// Where the root file system would be mounted on the host; for `root.path` only.
    pub rootfs: PathBuf,
    /// Not root of the machine.
    pub rootless: bool,
    /// Only one id is mapped.
    pub single_id: bool,
    /// The host has no /dev/mqueue to share.
    pub without_mqueue: bool,
    /// The controllers are on cgroup v2.
    pub cgroup_v2: bool,
    /// `linux.cgroupsPath`; absent: none is made.
    pub cgroups_path: Option<String>,
    /// The pids limit may be set though nobody asked.
    pub default_pids_limit: Option<i64>,
    /// Name inside.
    pub hostname: String,
    /// Mounts whose source is held already (binds, volumes, /etc/hosts …).
    pub prepared: Vec<mount::Prepared>,
    /// Devices of `--device`, with their numbers.
    pub devices: Vec<LinuxDevice>,
    /// All devices of the host, for `--privileged`.
    pub host_devices: Vec<LinuxDevice>,
    /// Block devices that are limited, with their numbers.
    pub block_devices: resource::BlockDevices,
    /// The hard limits of this process by name, of what is asked for and of what has defaults.
    pub hard_limits: BTreeMap<String, u64>,
    /// Whether it may raise them.
    pub may_raise_limits: bool,
    /// AppArmor profile, where the host has AppArmor.
    pub apparmor: Option<String>,
    /// SELinux label, where the host has SELinux.
    pub selinux: Option<String>,
    /// The host's time zone is asked for by `--tz local` and so on: the value for TZ.
    pub environment: Vec<(String, String)>,
    /// The capabilities the engine has itself, a bit for each.
    pub capabilities: u64,
    /// Version of the kernel, for profiles that depend on it.
    pub kernel: (u32, u32),
    /// The terminal's size, rows and columns.
    pub console_size: Option<(u64, u64)>,
    /// systemd (or another init) is pid 1 inside.
    pub systemd: bool,
}

/// The spec, and which of its mounts is which of [`Facts::prepared`].
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The OCI spec.
    pub spec: Spec,
    /// (index into `spec.mounts`, index into `facts.prepared`).
    pub prepared: Vec<(usize, usize)>,
}

/// Translate.
pub fn bundle(record: &ContainerRecord, facts: &Facts) -> Result<Bundle> {
    let spec = &record.spec;
    let (mounts, prepared) = mount::list(record, facts)?;
    let mut root = Root::default();
    root.set_path(facts.rootfs.clone()).set_readonly(Some(spec.read_only));
    let mut oci = Spec::default();
    oci.set_version("1.2.0".to_owned())
        .set_root(Some(root))
        .set_process(Some(process::process(record, facts)?))
        .set_mounts(Some(mounts))
        .set_hostname((spec.namespaces.uts == NamespaceMode::Private).then(|| facts.hostname.clone()))
        .set_annotations(Some(spec.annotations.clone().into_iter().collect::<HashMap<_, _>>()))
        .set_linux(Some(linux(record, facts)?));
    Ok(Bundle { spec: oci, prepared })
}

/// Another process of a running container, and what of `linux` is the same for all its processes.
pub fn exec(record: &ContainerRecord, facts: &Facts) -> Result<(Process, Linux)> {
    let spec = &record.spec;
    let mut linux = Linux::default();
    linux
        .set_seccomp(security::seccomp(&spec.security, facts.kernel, facts.capabilities)?)
        .set_personality(security::personality(spec.process.personality.as_deref())?);
    Ok((process::process(record, facts)?, linux))
}

fn linux(record: &ContainerRecord, facts: &Facts) -> Result<Linux> {
    let spec = &record.spec;
    let mut linux = Linux::default();
    let maps = !record.id_maps.uid.is_empty();
    linux
        .set_namespaces(Some(namespaces(record, facts)))
        .set_uid_mappings(maps.then(|| mappings(&record.id_maps.uid)))
        .set_gid_mappings(maps.then(|| mappings(&record.id_maps.gid)))
        .set_cgroups_path(facts.cgroups_path.clone().map(PathBuf::from))
        .set_resources(Some(resource::resources(spec, facts)?))
        .set_devices(Some(device::devices(spec, facts)))
        .set_masked_paths(security::masked_paths(&spec.security))
        .set_readonly_paths(security::readonly_paths(spec))
        .set_sysctl(Some(security::sysctl(spec, facts, has_user_namespace(record))))
        .set_seccomp(security::seccomp(&spec.security, facts.kernel, facts.capabilities)?)
        .set_mount_label(facts.selinux.clone())
        .set_personality(security::personality(spec.process.personality.as_deref())?)
        .set_rootfs_propagation(mount::root_propagation(spec));
    Ok(linux)
}

/// The spec's form of a map.
pub fn mappings(ranges: &[IdRange]) -> Vec<LinuxIdMapping> {
    ranges
        .iter()
        .map(|range| {
            LinuxIdMappingBuilder::default()
                .container_id(range.inside)
                .host_id(range.outside)
                .size(range.size)
                .build()
                .expect("all three fields are given")
        })
        .collect()
}

/// Which namespaces are new. Those to be joined by descriptor are added by the supervisor, which holds them.
fn namespaces(record: &ContainerRecord, facts: &Facts) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as Type;
    let spec = &record.spec;
    let mut list = vec![namespace(Type::Mount, None)];
    let modes = [
        (Type::Pid, Some(&spec.namespaces.pid)),
        (Type::Ipc, Some(&spec.namespaces.ipc)),
        (Type::Uts, Some(&spec.namespaces.uts)),
        (Type::Cgroup, Some(cgroup_namespace(record, facts))),
    ];
    for (kind, mode) in modes {
        match mode {
            Some(NamespaceMode::Private) => list.push(namespace(kind, None)),
            Some(NamespaceMode::Path(path)) => list.push(namespace(kind, Some(path))),
            // Joined through a descriptor that the supervisor holds.
            Some(NamespaceMode::Container(_)) => list.push(namespace(kind, None)),
            Some(NamespaceMode::Host) | None => {}
        }
    }
    match &spec.network.mode {
        Some(NetworkMode::Host) => {}
        Some(NetworkMode::Path(path)) => list.push(namespace(Type::Network, Some(path))),
        _ => list.push(namespace(Type::Network, None)),
    }
    if let UserNamespace::Path(path) = &spec.userns {
        list.push(namespace(Type::User, Some(path)));
    } else if has_user_namespace(record) {
        list.push(namespace(Type::User, None));
    }
    list
}

/// Its own where the controllers are on cgroup v2, else the host's (podman-run(1), --cgroupns).
fn cgroup_namespace<'a>(record: &'a ContainerRecord, facts: &Facts) -> &'a NamespaceMode {
    let default = if facts.cgroup_v2 { &NamespaceMode::Private } else { &NamespaceMode::Host };
    record.spec.namespaces.cgroup.as_ref().unwrap_or(default)
}

/// Whether the container has a user namespace of its own, below the engine's.
pub fn has_user_namespace(record: &ContainerRecord) -> bool {
    record.id_maps != IdMaps::default()
}

fn namespace(kind: LinuxNamespaceType, path: Option<&String>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path.map(PathBuf::from));
    namespace
}

/// `--systemd`: whether the container's first process is an init system that wants its tmpfs set.
pub fn wants_systemd(spec: &ContainerSpec) -> bool {
    match spec.lifecycle.systemd.as_deref() {
        Some("false") => false,
        Some("always") => true,
        _ => {
            let first = spec.process.entrypoint.iter().flatten().chain(&spec.process.command).next();
            matches!(
                first.map(String::as_str),
                Some("/sbin/init" | "/usr/sbin/init" | "/usr/local/sbin/init" | "init" | "systemd")
            ) || first.is_some_and(|command| command.ends_with("/systemd"))
        }
    }
}
