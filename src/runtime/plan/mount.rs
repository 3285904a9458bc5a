//! Mounts, propagation, time offsets and sysctls of the spec, as steps.

use super::{Layout, c_string, path_string};
use crate::runtime::idmap::{IdMaps, Range};
use crate::runtime::rootfs::{Mapping, MountStep, Source};
use crate::runtime::step::Step;
use crate::sys::mount::{self, Attributes};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxTimeOffset, Mount};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// What surrounds one mount of the spec.
pub struct Surroundings<'a> {
    pub index: usize,
    pub is_prepared: bool,
    pub layout: &'a Layout<'a>,
}

/// What an option does to the flags of a mount: (name, bits to set, bits to clear).
const FLAGS: &[(&str, u64, u64)] = &[
    ("ro", mount::ATTR_RDONLY, 0),
    ("rw", 0, mount::ATTR_RDONLY),
    ("nosuid", mount::ATTR_NOSUID, 0),
    ("suid", 0, mount::ATTR_NOSUID),
    ("nodev", mount::ATTR_NODEV, 0),
    ("dev", 0, mount::ATTR_NODEV),
    ("noexec", mount::ATTR_NOEXEC, 0),
    ("exec", 0, mount::ATTR_NOEXEC),
    ("nodiratime", mount::ATTR_NODIRATIME, 0),
    ("diratime", 0, mount::ATTR_NODIRATIME),
    ("noatime", mount::ATTR_NOATIME, mount::ATTR_ATIME),
    ("atime", 0, mount::ATTR_ATIME),
    ("relatime", 0, mount::ATTR_ATIME),
    ("norelatime", 0, mount::ATTR_ATIME),
    ("strictatime", mount::ATTR_STRICTATIME, mount::ATTR_ATIME),
    ("nostrictatime", 0, mount::ATTR_ATIME),
    ("nosymfollow", mount::ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, mount::ATTR_NOSYMFOLLOW),
];

const PROPAGATION: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Flags of the file system rather than of the mount; fsconfig knows them by these names.
const FILE_SYSTEM_FLAGS: &[&str] =
    &["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "iversion", "noiversion"];

/// All options that are known by name, for `features`.
pub fn option_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "acl",
        "bind",
        "copy-symlink",
        "defaults",
        "dest-nofollow",
        "idmap",
        "loud",
        "noacl",
        "rbind",
        "remount",
        "ridmap",
        "silent",
        "src-nofollow",
        "tmpcopyup",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend(FILE_SYSTEM_FLAGS.iter().map(|name| (*name).to_owned()));
    let both = FLAGS.iter().map(|(name, _, _)| *name).chain(PROPAGATION.iter().map(|(name, _)| *name));
    names.extend(both.flat_map(|name| [name.to_owned(), format!("r{name}")]));
    names.sort();
    names
}

/// A flag with `r` before it works on the whole tree.
fn flag(option: &str) -> Option<(bool, u64, u64)> {
    let find = |name: &str| FLAGS.iter().find(|(known, _, _)| *known == name);
    // `relatime` and `ro`, `rw` begin with an r of their own.
    if let Some((_, set, clear)) = find(option) {
        return Some((false, *set, *clear));
    }
    let (_, set, clear) = find(option.strip_prefix('r')?)?;
    Some((true, *set, *clear))
}

fn propagation(option: &str) -> Option<(u64, bool)> {
    let find = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name).map(|(_, flags)| *flags);
    if let Some(flags) = find(option) {
        return Some((flags, false));
    }
    find(option.strip_prefix('r')?).map(|flags| (flags, true))
}

/// Is this a bind mount, by type or by option?
pub fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind")
}

/// All options of a mount, sorted by what they concern.
#[derive(Default)]
struct Options {
    top: Attributes,
    all: Attributes,
    propagates_recursively: bool,
    is_bind: bool,
    is_recursive: bool,
    is_remount: bool,
    copy_up: bool,
    no_follow: bool,
    idmap: Option<bool>,
    data: Vec<(CString, Option<CString>)>,
}

fn parse(mount: &Mount) -> Result<Options> {
    let mut options = Options::default();
    for option in mount.options().iter().flatten() {
        if let Some((is_recursive, set, clear)) = flag(option) {
            let attributes = if is_recursive { &mut options.all } else { &mut options.top };
            attributes.set = attributes.set & !clear | set;
            attributes.clear = attributes.clear & !set | clear;
            continue;
        }
        if let Some((flags, is_recursive)) = propagation(option) {
            options.top.propagation = flags;
            options.propagates_recursively = is_recursive;
            continue;
        }
        match option.as_str() {
            "" | "defaults" | "silent" | "loud" | "acl" | "noacl" | "dest-nofollow" => {}
            "bind" => options.is_bind = true,
            "rbind" => (options.is_bind, options.is_recursive) = (true, true),
            "remount" => options.is_remount = true,
            "tmpcopyup" => options.copy_up = true,
            "copy-symlink" | "src-nofollow" => options.no_follow = true,
            "idmap" => options.idmap = Some(false),
            "ridmap" => options.idmap = Some(true),
            other if FILE_SYSTEM_FLAGS.contains(&other) => options.data.push((c_string("", other)?, None)),
            other => {
                let (key, value) = match other.split_once('=') {
                    Some((key, value)) => (key, Some(c_string("", value)?)),
                    None => (other, None),
                };
                options.data.push((c_string("", key)?, value));
            }
        }
    }
    Ok(options)
}

/// One mount.
pub fn mount_step(mount: &Mount, around: &Surroundings<'_>) -> Result<MountStep> {
    let options = parse(mount).context("options")?;
    let kind = mount.typ().as_deref().unwrap_or(if options.is_bind { "bind" } else { "none" });
    let is_bind = options.is_bind || kind == "bind";
    let target = inside_root(mount.destination(), around.layout);
    check_target(&target, kind, is_bind || around.is_prepared).context("destination")?;
    let idmap = idmap(mount, &options, around.layout.linux)?;
    let source = if around.is_prepared {
        Source::Prepared
    } else if options.is_remount {
        Source::Remount
    } else if is_bind {
        let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
        let source = source.context("source: a bind mount needs one")?;
        let path = path_string(&around.layout.bundle.join(source))?;
        Source::Bind { path, recursive: options.is_recursive, follow: !options.no_follow }
    } else if matches!(kind, "cgroup" | "cgroup2") {
        Source::Cgroup(around.layout.cgroup)
    } else {
        new_file_system(mount, kind, &options, around.layout)?
    };
    if options.copy_up && !matches!(&source, Source::New { kind, .. } if kind.as_c_str() == c"tmpfs") {
        bail!("options: `tmpcopyup` is for tmpfs");
    }
    if !options.data.is_empty() && is_bind && !around.is_prepared {
        let (key, _) = &options.data[0];
        bail!("options: {key:?} is no option of a bind mount");
    }
    Ok(MountStep {
        index: around.index,
        source,
        target: path_string(&target)?,
        attributes: options.top,
        recursive: options.all,
        propagates_recursively: options.propagates_recursively,
        // A link would put procfs, or the device nodes, where an image wants them (CVE-2026-41579).
        is_strict: matches!(kind, "proc" | "sysfs")
            || ["/dev", "/proc", "/sys"].iter().any(|path| target == Path::new(path)),
        may_cover_proc: may_cover_proc(&target),
        idmap,
    })
}

/// Some engines write the root's own path before a destination; runc has always taken it away.
fn inside_root(destination: &Path, layout: &Layout<'_>) -> PathBuf {
    let root = layout.spec.root().as_ref().map(|root| layout.bundle.join(root.path()));
    let rest = root.as_deref().and_then(|root| destination.strip_prefix(root).ok());
    Path::new("/").join(rest.unwrap_or(destination))
}

fn new_file_system(mount: &Mount, kind: &str, options: &Options, layout: &Layout<'_>) -> Result<Source> {
    if kind == "none" {
        bail!("type: missing, and no option `bind` either");
    }
    let mut data = options.data.clone();
    // The virtual ones have no source; others read it as a device or a share.
    let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
    if let Some(source) = source {
        data.insert(0, (c_string("", "source")?, Some(path_string(source)?)));
    }
    if let (Some(label), "tmpfs" | "mqueue" | "devpts") = (&layout.label, kind) {
        data.push((c_string("", "context")?, Some(c_string("", label)?)));
    }
    let is_read_only_disk = options.top.set & mount::ATTR_RDONLY != 0
        && !matches!(kind, "tmpfs" | "proc" | "sysfs" | "devpts" | "mqueue" | "ramfs" | "devtmpfs");
    if is_read_only_disk {
        data.push((c_string("", "ro")?, None));
    }
    Ok(Source::New { kind: c_string("", kind)?, options: data, copy_up: options.copy_up })
}

/// The maps of an idmapped mount and whether they hold for the whole tree.
fn idmap(mount: &Mount, options: &Options, linux: &Linux) -> Result<Option<(Mapping, bool)>> {
    let own = IdMaps { uid: Range::all(mount.uid_mappings()), gid: Range::all(mount.gid_mappings()) };
    match (options.idmap, own.uid.is_empty(), own.gid.is_empty()) {
        (None, true, true) => Ok(None),
        (recursive, false, false) => Ok(Some((Mapping::Own(own), recursive.unwrap_or(false)))),
        (Some(recursive), true, true) => {
            let maps = IdMaps { uid: Range::all(linux.uid_mappings()), gid: Range::all(linux.gid_mappings()) };
            let user = linux.namespaces().iter().flatten().find(|n| n.typ() == LinuxNamespaceType::User);
            if let (true, Some(path)) = (maps.uid.is_empty(), user.and_then(|user| user.path().as_ref())) {
                return Ok(Some((Mapping::Joined(path_string(path)?), recursive)));
            }
            if maps.uid.is_empty() {
                bail!("options: `idmap` needs uidMappings and gidMappings, of the mount or of the container");
            }
            Ok(Some((Mapping::Own(maps), recursive)))
        }
        _ => bail!("uidMappings, gidMappings: one needs the other"),
    }
}

/// Files of procfs that other programs (lxcfs) may stand in for.
const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

fn may_cover_proc(target: &Path) -> bool {
    PROC_FILES.iter().any(|file| target == Path::new(file)) || target.starts_with("/proc/net/dev")
}

/// A mount that takes the place of procfs would forge what label and sysctl writes go through (CVE-2019-16884,
/// CVE-2019-19921, CVE-2023-28642). The host's own procfs may be bound there: that is checked when it is.
fn check_target(target: &Path, kind: &str, is_bind: bool) -> Result<()> {
    if target.components().any(|part| part == std::path::Component::ParentDir) {
        bail!("{target:?} has `..` in it");
    }
    if target == Path::new("/proc") && kind != "proc" && !is_bind {
        bail!("only a procfs may be mounted on /proc");
    }
    if target.starts_with("/proc") && target != Path::new("/proc") && !may_cover_proc(target) {
        bail!("{target:?} is inside procfs");
    }
    Ok(())
}

/// `rootfsPropagation` as (MS_*, whole tree).
pub fn root_propagation(name: Option<&str>) -> Result<Option<(u64, bool)>> {
    match name {
        None | Some("") => Ok(None),
        Some(name) => match propagation(name) {
            Some(known) => Ok(Some(known)),
            None => {
                bail!("linux.rootfsPropagation: {name:?} is not one of [r]shared, [r]slave, [r]private, [r]unbindable")
            }
        },
    }
}

/// What becomes of the host's mounts in the new namespace: they follow the host's unless more is asked for.
pub fn host_propagation(asked: Option<(u64, bool)>) -> Step {
    match asked {
        Some((flags @ (libc::MS_SHARED | libc::MS_PRIVATE), _)) => Step::Propagation { flags, recursive: true },
        _ => Step::Propagation { flags: libc::MS_SLAVE, recursive: true },
    }
}

/// The text for timens_offsets.
pub fn time_offsets(offsets: Option<&HashMap<String, LinuxTimeOffset>>) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            bail!("linux.timeOffsets: {clock:?} is not one of monotonic, boottime");
        }
        lines.push(format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    }
    lines.sort();
    Ok(lines.concat().into_bytes())
}

/// Sysctls of namespaces the container has for itself, as (path below /proc, value).
pub fn sysctls(linux: &Linux) -> Result<Vec<(CString, CString)>> {
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    let mut steps = Vec::new();
    for (name, value) in sysctls {
        let path = sysctl_path(name);
        let has = |kind: LinuxNamespaceType| linux.namespaces().iter().flatten().any(|n| n.typ() == kind);
        let (kind, needed) = if path.starts_with("net/") {
            (LinuxNamespaceType::Network, "network")
        } else if is_ipc_sysctl(&path) {
            (LinuxNamespaceType::Ipc, "ipc")
        } else if path == "kernel/domainname" {
            (LinuxNamespaceType::Uts, "uts")
        } else {
            bail!("linux.sysctl: {name:?} is not namespaced: it would change the host");
        };
        if !has(kind) {
            bail!("linux.sysctl: {name:?} needs a {needed} namespace of the container's own");
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            bail!("linux.sysctl: {name:?} is no name of a sysctl");
        }
        steps.push((c_string("sys/", &path)?, c_string("", value)?));
    }
    Ok(steps)
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/mtu`: whichever separator comes first is the separator.
fn sysctl_path(name: &str) -> String {
    let is_dotted = name.find(['.', '/']).is_some_and(|first| name.as_bytes()[first] == b'.');
    if !is_dotted {
        return name.to_owned();
    }
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

fn is_ipc_sysctl(path: &str) -> bool {
    const NAMES: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    path.starts_with("fs/mqueue/") || path.strip_prefix("kernel/").is_some_and(|name| NAMES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_r_means_the_tree_unless_it_is_the_word() {
        assert_eq!(flag("ro"), Some((false, mount::ATTR_RDONLY, 0)));
        assert_eq!(flag("rro"), Some((true, mount::ATTR_RDONLY, 0)));
        assert_eq!(flag("relatime"), Some((false, 0, mount::ATTR_ATIME)));
        assert_eq!(flag("rrelatime"), Some((true, 0, mount::ATTR_ATIME)));
        assert_eq!(flag("size"), None);
        assert_eq!(propagation("rslave"), Some((libc::MS_SLAVE, true)));
        assert_eq!(propagation("slave"), Some((libc::MS_SLAVE, false)));
    }

    #[test]
    fn a_sysctl_may_be_written_both_ways() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.mtu"), "net/ipv4/conf/eth0.1/mtu");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/mtu"), "net/ipv4/conf/eth0.1/mtu");
    }

    #[test]
    fn nothing_covers_procfs() {
        let check = |target: &str, kind: &str, is_bind: bool| check_target(Path::new(target), kind, is_bind).is_ok();
        assert!(check("/proc", "proc", false));
        assert!(!check("/proc", "tmpfs", false));
        assert!(!check("/proc/self/attr", "bind", true));
        assert!(!check("/a/../proc", "tmpfs", false));
        assert!(check("/proc/meminfo", "bind", true));
        assert!(check("/process", "tmpfs", false));
    }
}
