//! Confinement: capabilities, masked and read-only paths, sysctls, the filter.

use super::Facts;
use super::seccomp::{Host, default_profile, parse as parse_profile};
use crate::failure::{Failure, Kind};
use crate::model::container::ContainerSpec;
use crate::model::network::NetworkMode;
use crate::model::security::{Seccomp, Security};
use anyhow::{Context, Result};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxPersonality, LinuxPersonalityDomain, LinuxSeccomp,
};
use std::collections::{HashMap, HashSet};

/// podman's default set (containers.conf(5), default_capabilities).
const DEFAULT: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Paths that would tell or change the host: docker's and podman's list. Rows 2017-16539 and 2018-10892.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The bounding set, after `--cap-add`, `--cap-drop` and `--privileged`, of those the engine has itself (`available`,
/// a bit for each): nobody can give more.
///
/// # Errors
/// An unknown name, one that is both added and dropped, or one that was named and is not available.
pub fn bounding(security: &Security, available: u64) -> Result<Capabilities> {
    let is_available = |capability: &Capability| number(*capability).is_some_and(|bit| available & (1 << bit) != 0);
    let all = || all_capabilities().into_iter().collect::<HashSet<_>>();
    let has_all = |list: &[String]| list.iter().any(|name| name == "ALL" || name == "CAP_ALL");
    for name in &security.cap_add {
        if name != "ALL" && name != "CAP_ALL" && security.cap_drop.contains(name) {
            return Err(Failure::new(Kind::Engine, format!("capability {name:?} cannot be dropped and added")).into());
        }
    }
    let mut set = if security.privileged || has_all(&security.cap_add) {
        all()
    } else if has_all(&security.cap_drop) {
        HashSet::new()
    } else {
        match &security.cap_default {
            Some(names) => names.iter().map(|name| parse(name)).collect::<Result<_>>()?,
            None => DEFAULT.into_iter().collect(),
        }
    };
    set.retain(is_available);
    for name in security.cap_add.iter().filter(|name| !name.ends_with("ALL")) {
        let capability = parse(name)?;
        if !is_available(&capability) {
            return Err(Failure::new(Kind::Engine, format!("--cap-add {name}: coracle was started without it"))
                .hint("the caller's own bounding set decides: see capsh --print")
                .into());
        }
        set.insert(capability);
    }
    for name in security.cap_drop.iter().filter(|name| !name.ends_with("ALL")) {
        set.remove(&parse(name)?);
    }
    Ok(set)
}

/// The kernel's number of a capability.
fn number(capability: Capability) -> Option<u8> {
    format!("CAP_{capability}").parse::<caps::Capability>().ok().map(|capability| capability.index())
}

/// The five sets. Inheritable is empty (CVE-2022-29162) but where ambient ones need it: a capability that was added by
/// name for a user other than root.
pub fn capabilities(security: &Security, uid: u32, available: u64) -> Result<LinuxCapabilities> {
    let bounding = bounding(security, available)?;
    let mut sets = LinuxCapabilities::default();
    let kept: Capabilities = if uid == 0 || security.privileged {
        bounding.clone()
    } else {
        let added: Result<HashSet<Capability>> =
            security.cap_add.iter().filter(|name| !name.ends_with("ALL")).map(|name| parse(name)).collect();
        added?
    };
    let ambient: Capabilities = if uid == 0 || security.privileged { HashSet::new() } else { kept.clone() };
    sets.set_bounding(Some(bounding))
        .set_effective(Some(kept.clone()))
        .set_permitted(Some(kept))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    Ok(sets)
}

fn parse(name: &str) -> Result<Capability> {
    // The crate's names have no prefix.
    name.strip_prefix("CAP_")
        .unwrap_or(name)
        .parse()
        .map_err(|_| Failure::new(Kind::Engine, format!("unknown capability {name:?} to add or drop")).into())
}

/// Every capability there is, up to the last this program knows.
fn all_capabilities() -> Vec<Capability> {
    caps::all().into_iter().filter_map(|capability| parse(&capability.to_string()).ok()).collect()
}

/// `linux.maskedPaths`; none when privileged or `unmask=ALL`.
pub fn masked_paths(security: &Security) -> Option<Vec<String>> {
    if security.privileged {
        return None;
    }
    let kept = MASKED.iter().map(|path| (*path).to_owned()).filter(|path| !is_unmasked(security, path));
    Some(kept.chain(security.mask.iter().cloned()).collect())
}

/// `linux.readonlyPaths`.
pub fn readonly_paths(spec: &ContainerSpec) -> Option<Vec<String>> {
    // `/dev` is a tmpfs too. It is made so at the end: what is mounted in it needs its place first.
    let dev = (spec.read_only && spec.read_only_tmpfs == Some(false)).then(|| "/dev".to_owned());
    let security = &spec.security;
    if security.privileged {
        return dev.map(|dev| vec![dev]);
    }
    let paths = READ_ONLY.iter().map(|path| (*path).to_owned()).filter(|path| !is_unmasked(security, path));
    Some(paths.chain(dev).collect())
}

/// `unmask=` names paths or shell patterns of one component, or `ALL`.
fn is_unmasked(security: &Security, path: &str) -> bool {
    security.unmask.iter().any(|pattern| pattern.eq_ignore_ascii_case("all") || glob(pattern, path))
}

/// Match `*`, `?` within a component.
pub fn glob(pattern: &str, text: &str) -> bool {
    fn step(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                step(&pattern[1..], text) || text.first().is_some_and(|byte| *byte != b'/' && step(pattern, &text[1..]))
            }
            (Some(b'?'), Some(byte)) if *byte != b'/' => step(&pattern[1..], &text[1..]),
            (Some(a), Some(b)) if a == b => step(&pattern[1..], &text[1..]),
            _ => false,
        }
    }
    step(pattern.trim_end_matches('/').as_bytes(), text.as_bytes())
}

/// Asked sysctls, and podman's default that lets every group use ping sockets.
pub fn sysctl(spec: &ContainerSpec, facts: &Facts, mapped: bool) -> HashMap<String, String> {
    let mut sysctl: HashMap<String, String> = HashMap::new();
    let own_network =
        !matches!(spec.network.mode, Some(NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Path(_)));
    // The network namespace is the engine's: root of another user namespace may not set it.
    if own_network && !facts.rootless && !mapped {
        sysctl.insert("net.ipv4.ping_group_range".to_owned(), "0 0".to_owned());
    }
    sysctl.extend(spec.security.sysctl.iter().cloned());
    sysctl
}

/// The filter that was asked for.
pub fn seccomp(security: &Security, kernel: (u32, u32), available: u64) -> Result<Option<LinuxSeccomp>> {
    let capabilities = bounding(security, available)?;
    match &security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if security.privileged => Ok(None),
        Seccomp::Default => Ok(Some(default_profile(&capabilities, false))),
        Seccomp::File { path, json } => {
            let host = Host { capabilities: &capabilities, kernel };
            parse_profile(json, host).map(Some).with_context(|| format!("read seccomp profile {path}"))
        }
    }
}

/// `--personality`: `LINUX` or `LINUX32`.
pub fn personality(wanted: Option<&str>) -> Result<Option<LinuxPersonality>> {
    let domain = match wanted {
        None => return Ok(None),
        Some("LINUX") => LinuxPersonalityDomain::PerLinux,
        Some("LINUX32") => LinuxPersonalityDomain::PerLinux32,
        Some(other) => {
            return Err(Failure::new(Kind::Engine, format!("unknown personality {other:?}: LINUX or LINUX32")).into());
        }
    };
    let mut personality = LinuxPersonality::default();
    personality.set_domain(domain);
    Ok(Some(personality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_sets() {
        let count = |security: &Security, uid| {
            let sets = capabilities(security, uid, u64::MAX).unwrap();
            [sets.bounding(), sets.effective(), sets.inheritable(), sets.ambient()]
                .map(|set| set.as_ref().map_or(0, HashSet::len))
        };
        let mut security = Security::default();
        assert_eq!(count(&security, 0), [11, 11, 0, 0]);
        assert_eq!(count(&security, 7), [11, 0, 0, 0]);
        security.cap_add = vec!["CAP_NET_ADMIN".to_owned()];
        assert_eq!(count(&security, 7), [12, 1, 1, 1]);
        security.cap_drop = vec!["ALL".to_owned()];
        assert_eq!(count(&security, 0), [1, 1, 0, 0]);
        security.privileged = true;
        assert!(count(&security, 0)[0] >= 41);
    }

    #[test]
    fn added_and_dropped_is_refused() {
        let security = Security {
            cap_add: vec!["CAP_CHOWN".to_owned()],
            cap_drop: vec!["CAP_CHOWN".to_owned()],
            ..Security::default()
        };
        assert_eq!(
            bounding(&security, u64::MAX).unwrap_err().to_string(),
            "capability \"CAP_CHOWN\" cannot be dropped and added"
        );
    }

    #[test]
    fn nobody_gives_what_they_have_not() {
        let mut security = Security { privileged: true, ..Security::default() };
        let without = u64::MAX & !(1 << 24); // CAP_SYS_RESOURCE
        assert_eq!(bounding(&security, without).unwrap().len() + 1, bounding(&security, u64::MAX).unwrap().len());
        security.cap_add = vec!["CAP_SYS_RESOURCE".to_owned()];
        let error = bounding(&security, without).unwrap_err();
        assert_eq!(error.to_string(), "--cap-add CAP_SYS_RESOURCE: coracle was started without it");
    }

    #[test]
    fn unmask() {
        let mut security = Security::default();
        assert!(masked_paths(&security).unwrap().contains(&"/proc/acpi".to_owned()));
        security.unmask = vec!["/proc/a*".to_owned()];
        let masked = masked_paths(&security).unwrap();
        assert!(!masked.contains(&"/proc/acpi".to_owned()) && masked.contains(&"/proc/kcore".to_owned()));
        security.unmask = vec!["ALL".to_owned()];
        assert!(
            masked_paths(&security).unwrap().is_empty()
                && readonly_paths(&ContainerSpec { security, ..ContainerSpec::default() }).unwrap().is_empty()
        );
    }
}
