//! What a spec must not ask for. Each refusal begins with the JSON path of the wrong value.

use crate::runtime::seccomp;
use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

/// Refuse what no kernel can do, and what this runtime cannot.
pub fn check(spec: &Spec) -> Result<()> {
    let version = spec.version().trim_start_matches('v');
    if version.split('.').next() != Some("1") {
        bail!("ociVersion: {:?} is not supported, only 1.x is", spec.version());
    }
    if spec.root().as_ref().is_none_or(|root| root.path().as_os_str().is_empty()) {
        bail!("root.path: missing");
    }
    let Some(process) = spec.process() else { bail!("process: missing") };
    check_process(process)?;
    let Some(linux) = spec.linux() else { bail!("linux: missing") };
    check_namespaces(linux)?;
    check_idmaps(linux)?;
    let has = |kind| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind);
    let set = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    if !has(LinuxNamespaceType::Uts) && set(spec.hostname()) {
        bail!("hostname: needs a uts namespace in linux.namespaces");
    }
    if !has(LinuxNamespaceType::Uts) && set(spec.domainname()) {
        bail!("domainname: needs a uts namespace in linux.namespaces");
    }
    let sets = |name: &str| linux.sysctl().as_ref().and_then(|sysctl| sysctl.get(name));
    if let Some(value) =
        sets("kernel.domainname").filter(|value| spec.domainname().as_ref().is_some_and(|d| d != *value))
    {
        bail!("domainname: contradicts linux.sysctl[kernel.domainname], which is {value:?}");
    }
    if !has(LinuxNamespaceType::Time) && linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) {
        bail!("linux.timeOffsets: need a time namespace in linux.namespaces");
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) && !has(LinuxNamespaceType::Network) {
        bail!("linux.netDevices: need a network namespace in linux.namespaces");
    }
    if linux.intel_rdt().is_some() {
        bail!("linux.intelRdt: cache and memory bandwidth allocation is not supported");
    }
    Ok(())
}

/// A process, the first or a later one.
pub fn check_process(process: &oci_spec::runtime::Process) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        bail!("process.args: must not be empty");
    }
    if !process.cwd().is_absolute() {
        bail!("process.cwd: {:?} must be an absolute path", process.cwd());
    }
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        bail!("process.oomScoreAdj: {score} is not in -1000..1000");
    }
    let mut seen = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        if seen.contains(&limit.typ()) {
            bail!("process.rlimits[{index}]: {} is there twice", limit.typ());
        }
        if limit.soft() > limit.hard() {
            bail!("process.rlimits[{index}].soft: {} is above the hard limit {}", limit.soft(), limit.hard());
        }
        seen.push(limit.typ());
    }
    Ok(())
}

fn check_namespaces(linux: &Linux) -> Result<()> {
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        if seen.contains(&namespace.typ()) {
            bail!("linux.namespaces[{index}].type: {} is there twice", namespace.typ());
        }
        seen.push(namespace.typ());
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if path.is_some_and(|path| !path.is_absolute()) {
            bail!("linux.namespaces[{index}].path: must be absolute");
        }
    }
    Ok(())
}

fn check_idmaps(linux: &Linux) -> Result<()> {
    let none: Vec<LinuxIdMapping> = Vec::new();
    let uid = linux.uid_mappings().as_ref().unwrap_or(&none);
    let gid = linux.gid_mappings().as_ref().unwrap_or(&none);
    let user = linux.namespaces().iter().flatten().find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    match user {
        None if !uid.is_empty() => bail!("linux.uidMappings: need a user namespace in linux.namespaces"),
        None if !gid.is_empty() => bail!("linux.gidMappings: need a user namespace in linux.namespaces"),
        Some(namespace) if namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty()) => {
            if uid.is_empty() {
                bail!("linux.uidMappings: a new user namespace needs them");
            }
            if gid.is_empty() {
                bail!("linux.gidMappings: a new user namespace needs them");
            }
        }
        _ => {}
    }
    check_ranges("linux.uidMappings", uid)?;
    check_ranges("linux.gidMappings", gid)
}

fn check_ranges(name: &str, ranges: &[LinuxIdMapping]) -> Result<()> {
    // The kernel's UID_GID_MAP_MAX_EXTENTS.
    if ranges.len() > 340 {
        bail!("{name}: {} ranges are more than the kernel's 340", ranges.len());
    }
    for (index, range) in ranges.iter().enumerate() {
        if range.size() == 0 {
            bail!("{name}[{index}].size: must not be 0");
        }
        let end = |start: u32| u64::from(start) + u64::from(range.size());
        if end(range.container_id()) > u64::from(u32::MAX) || end(range.host_id()) > u64::from(u32::MAX) {
            bail!("{name}[{index}]: reaches beyond the last id");
        }
    }
    Ok(())
}

/// Refuse names of system calls that nobody knows.
pub fn check_filter_names(linux: &Linux) -> Result<()> {
    let calls = linux.seccomp().as_ref().and_then(|seccomp| seccomp.syscalls().as_ref());
    for (index, call) in calls.into_iter().flatten().enumerate() {
        if let Some(unknown) = call.names().iter().find(|name| !seccomp::knows(name)) {
            bail!("linux.seccomp.syscalls[{index}].names: unknown system call {unknown:?}");
        }
    }
    Ok(())
}
