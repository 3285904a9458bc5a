//! Mounts of the spec: the fixed ones, those of `--read-only` and systemd mode, and the user's, each target once.

use super::Facts;
use crate::model::container::{ContainerSpec, NamespaceMode, RootSource};
use crate::model::mount::{Mount as Wanted, MountOptions, MountSource};
use crate::model::network::NetworkMode;
use crate::state::container::ContainerRecord;
use anyhow::Result;
use oci_spec::runtime::{LinuxIdMapping, Mount};
use std::path::{Path, PathBuf};

/// Where our own init is bound for `--init` (podman's path).
pub const INIT_PATH: &str = "/run/podman-init";

/// 64 MiB, docker's and podman's /dev/shm.
const DEFAULT_SHM: u64 = 65_536_000;

/// A mount whose source the supervisor holds by descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Path inside.
    pub target: String,
    /// Where it comes from, for the spec and for errors.
    pub source: PathBuf,
    /// How.
    pub options: MountOptions,
    /// Bind what is below it too.
    pub recursive: bool,
    /// The user's, not one of ours (/etc/hosts): it wins over the fixed ones.
    pub asked: bool,
}

/// One mount on its way into the spec.
struct Entry {
    target: String,
    mount: Mount,
    prepared: Option<usize>,
}

/// All mounts, parents before children, and which of them are prepared.
pub(super) fn list(record: &ContainerRecord, facts: &Facts) -> Result<(Vec<Mount>, Vec<(usize, usize)>)> {
    let spec = &record.spec;
    let mut entries: Vec<Entry> = Vec::new();
    for mount in fixed(record, facts) {
        put(&mut entries, mount, None);
    }
    if facts.systemd {
        for mount in systemd() {
            put(&mut entries, mount, None);
        }
    }
    if spec.read_only && spec.read_only_tmpfs.unwrap_or(true) {
        for target in ["/run", "/tmp", "/var/tmp"] {
            let mode = if target == "/run" { "mode=755" } else { "mode=1777" };
            let mut options = vec!["rw", "nosuid", "nodev", mode];
            // What lies in the machine's own /tmp is its users', and not all of it is ours to read.
            options.extend((spec.root != RootSource::Host).then_some("tmpcopyup"));
            put(&mut entries, mount(target, "tmpfs", "tmpfs", &options), None);
        }
    }
    let (ours, theirs): (Vec<_>, Vec<_>) = facts.prepared.iter().enumerate().partition(|(_, prepared)| !prepared.asked);
    for (index, prepared) in ours {
        put(&mut entries, bind(prepared), Some(index));
    }
    for wanted in &spec.mounts {
        if let Some(mount) = unprepared(wanted, facts) {
            put(&mut entries, mount, None);
        }
    }
    for (index, prepared) in theirs {
        put(&mut entries, bind(prepared), Some(index));
    }
    // Parents first; among equals the order given. The fixed ones under /dev come after /dev by the same rule.
    entries.sort_by_key(|entry| Path::new(&entry.target).components().count());
    let prepared = entries.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.prepared?))).collect();
    Ok((entries.into_iter().map(|entry| entry.mount).collect(), prepared))
}

/// Put a mount in the list, in the place of one with the same target.
fn put(entries: &mut Vec<Entry>, mount: Mount, prepared: Option<usize>) {
    let target = normal(&mount.destination().to_string_lossy());
    entries.retain(|entry| entry.target != target);
    entries.push(Entry { target, mount, prepared });
}

/// Without double and trailing slashes.
fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(target))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// What every container has.
fn fixed(record: &ContainerRecord, facts: &Facts) -> Vec<Mount> {
    let spec = &record.spec;
    let mut list = vec![
        proc(record, facts),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        devpts(record, facts),
    ];
    list.push(sys(record, facts));
    list.push(cgroup(record, facts));
    if !(facts.rootless && spec.namespaces.ipc == NamespaceMode::Host) {
        list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    } else if !facts.without_mqueue {
        list.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["bind", "nosuid", "noexec", "nodev"]));
    }
    match spec.namespaces.ipc {
        _ if spec.namespaces.ipc_no_shm => {}
        NamespaceMode::Private | NamespaceMode::Path(_) => {
            let size = format!("size={}", spec.shm_size.unwrap_or(DEFAULT_SHM));
            list.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
        NamespaceMode::Host => list.push(mount("/dev/shm", "bind", "/dev/shm", &["bind", "nosuid", "noexec", "nodev"])),
        // The other container's is cloned by the supervisor.
        NamespaceMode::Container(_) => {}
    }
    list
}

/// A user namespace may mount a new procfs only together with a pid namespace of its own.
fn proc(record: &ContainerRecord, facts: &Facts) -> Mount {
    let shared = !matches!(record.spec.namespaces.pid, NamespaceMode::Private | NamespaceMode::Container(_));
    if shared && (facts.rootless || super::has_user_namespace(record)) {
        return mount("/proc", "bind", "/proc", &["rbind", "nosuid", "noexec", "nodev"]);
    }
    let mut options = vec!["nosuid", "noexec", "nodev"];
    options.extend(record.spec.security.proc_options.iter().map(String::as_str));
    mount("/proc", "proc", "proc", &options)
}

fn devpts(record: &ContainerRecord, facts: &Facts) -> Mount {
    let mut options = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // Group 5 is tty on most systems; it must be mapped to be named.
    let mapped = record.id_maps.gid.is_empty()
        || record.id_maps.gid.iter().any(|range| (range.inside..range.inside.saturating_add(range.size)).contains(&5));
    if !facts.single_id && mapped {
        options.push("gid=5");
    }
    mount("/dev/pts", "devpts", "devpts", &options)
}

/// A user namespace may mount a new sysfs only together with a network namespace that it owns.
fn sys(record: &ContainerRecord, facts: &Facts) -> Mount {
    let spec = &record.spec;
    let foreign_network = matches!(spec.network.mode, Some(NetworkMode::Host | NetworkMode::Path(_)))
        || (super::has_user_namespace(record) && !matches!(spec.network.mode, Some(NetworkMode::None)));
    let access = if spec.security.privileged { "rw" } else { "ro" };
    if foreign_network && (facts.rootless || super::has_user_namespace(record)) {
        // Never writable, whoever asks: it is the host's.
        return mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro", "rslave"]);
    }
    mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])
}

fn cgroup(record: &ContainerRecord, facts: &Facts) -> Mount {
    let private = *super::cgroup_namespace(record, facts) == NamespaceMode::Private;
    let writable = record.spec.security.privileged || (facts.systemd && (private || !facts.cgroup_v2));
    let access = if writable { "rw" } else { "ro" };
    mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rprivate", "nosuid", "noexec", "nodev", "relatime", access])
}

/// What systemd wants to find (systemd.io/CONTAINER_INTERFACE).
fn systemd() -> Vec<Mount> {
    let options = ["rw", "nosuid", "nodev", "tmpcopyup", "mode=755"];
    let mut list: Vec<Mount> = ["/run", "/run/lock", "/var/log/journal"]
        .iter()
        .map(|target| mount(target, "tmpfs", "tmpfs", &options))
        .collect();
    list.push(mount("/tmp", "tmpfs", "tmpfs", &["rw", "nosuid", "nodev", "tmpcopyup", "mode=1777"]));
    list
}

/// Mounts that need no source of the host: made inside by the runtime.
fn unprepared(wanted: &Wanted, facts: &Facts) -> Option<Mount> {
    let mut options = flags(&wanted.options);
    let (kind, source) = match &wanted.source {
        MountSource::Tmpfs { size, mode, copy_up } => {
            // docker's and podman's default for a user's tmpfs.
            for (given, default) in
                [(wanted.options.nosuid, "nosuid"), (wanted.options.nodev, "nodev"), (wanted.options.noexec, "noexec")]
            {
                if given.is_none() && default != "noexec" {
                    options.push(default.to_owned());
                }
            }
            options.extend(size.map(|size| format!("size={}", size.0)));
            options.extend(mode.map(|mode| format!("mode={mode:o}")));
            if wanted.options.chown {
                options.extend([format!("uid={}", facts.user.uid), format!("gid={}", facts.user.gid)]);
            }
            options.extend(copy_up.then(|| "tmpcopyup".to_owned()));
            ("tmpfs", "tmpfs")
        }
        MountSource::Ramfs => ("ramfs", "ramfs"),
        MountSource::Devpts { uid, gid, mode, max } => {
            options.extend(["newinstance".to_owned(), "ptmxmode=0666".to_owned()]);
            let mut number =
                |name: &str, value: Option<u32>| options.extend(value.map(|value| format!("{name}={value}")));
            number("uid", *uid);
            number("gid", *gid);
            number("max", *max);
            options.extend(mode.map(|mode| format!("mode={mode:o}")));
            ("devpts", "devpts")
        }
        MountSource::Bind { .. } | MountSource::Volume { .. } | MountSource::Image { .. } => return None,
    };
    options.extend(wanted.options.data.iter().cloned());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Some(mount(&wanted.target, kind, source, &options))
}

/// A held mount as a bind.
fn bind(prepared: &Prepared) -> Mount {
    let mut options = vec![if prepared.recursive { "rbind" } else { "bind" }.to_owned()];
    options.extend(flags(&prepared.options));
    options.push(prepared.options.propagation.clone().unwrap_or_else(|| "rprivate".to_owned()));
    let mut bind = Mount::default();
    bind.set_destination(PathBuf::from(&prepared.target))
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(prepared.source.clone()))
        .set_options(Some(options));
    if let Some(maps) = &prepared.options.idmap {
        let mappings = |ranges| Some(super::mappings(ranges)).filter(|list: &Vec<LinuxIdMapping>| !list.is_empty());
        bind.set_uid_mappings(mappings(&maps.uid)).set_gid_mappings(mappings(&maps.gid));
    }
    bind
}

fn flags(options: &MountOptions) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    if options.recursive_read_only {
        list.extend(["ro".to_owned(), "rro".to_owned()]);
    } else {
        list.push(if options.read_only { "ro" } else { "rw" }.to_owned());
    }
    for (given, yes, no) in
        [(options.nosuid, "nosuid", "suid"), (options.nodev, "nodev", "dev"), (options.noexec, "noexec", "exec")]
    {
        list.extend(given.map(|given| if given { yes } else { no }.to_owned()));
    }
    list
}

/// Shared mounts inside need a root that is not private to the container.
pub(super) fn root_propagation(spec: &ContainerSpec) -> Option<String> {
    let mut wanted = spec.mounts.iter().filter_map(|mount| mount.options.propagation.as_deref());
    if wanted.clone().any(|propagation| propagation.ends_with("shared")) {
        Some("shared".to_owned())
    } else if wanted.any(|propagation| propagation.ends_with("slave")) {
        Some("slave".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_mount_takes_the_place_of_a_fixed_one() {
        let mut entries = Vec::new();
        put(&mut entries, mount("/dev/shm", "tmpfs", "shm", &[]), None);
        put(&mut entries, mount("/dev//shm/", "bind", "/x", &[]), Some(0));
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].mount.typ().as_deref(), Some("bind"));
    }
}
