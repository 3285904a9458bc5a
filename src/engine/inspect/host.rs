//! `HostConfig`: what was asked of the host.

use super::{option_words, ports};
use crate::engine::Engine;
use crate::engine::list::{Listed, restart_word};
use crate::host::config;
use crate::model::container::{ContainerSpec, LogDriver, NamespaceMode, Namespaces, Restart};
use crate::model::mount::{MountOptions, MountSource, Relabel};
use crate::model::network::NetworkMode;
use crate::model::resource::{CgroupsMode, DeviceValue, Resources};
use crate::model::security::Seccomp;
use crate::model::unit::ByteSize;
use crate::model::user::{IdMaps, IdRange, UserNamespace};
use crate::state::container::State;
use serde_json::{Map, Value, json};

/// The document.
pub fn document(engine: &Engine, container: &Listed) -> Value {
    let spec = &container.record.spec;
    let network = &spec.network;
    let lifecycle = &spec.lifecycle;
    let manager = spec.cgroup_manager.as_deref().or(engine.cgroup_manager.as_deref());
    let null_if_empty = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let mut host = json!({
        "Binds": binds(spec),
        "CgroupManager": manager.unwrap_or(default_cgroup_manager()),
        "CgroupMode": spec.namespaces.cgroup.as_ref().map_or("private".to_owned(), namespace),
        "ContainerIDFile": lifecycle.cidfile.as_deref().unwrap_or(""),
        "LogConfig": log(container),
        "NetworkMode": network_mode(network.mode.as_ref()),
        "PortBindings": ports::bindings(container, false),
        "RestartPolicy": restart(lifecycle.restart),
        "AutoRemove": lifecycle.remove,
        "AutoRemoveImage": lifecycle.remove_image,
        "Annotations": if spec.annotations.is_empty() { Value::Null } else { json!(spec.annotations) },
        "VolumeDriver": "",
        "VolumesFrom": null_if_empty(&spec.volumes_from),
        "CapAdd": spec.security.cap_add,
        "CapDrop": spec.security.cap_drop,
        "Dns": network.dns,
        "DnsOptions": network.dns_options,
        "DnsSearch": network.dns_search,
        "ExtraHosts": network.add_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect::<Vec<_>>(),
        "HostsFile": network.hosts_file.as_deref().unwrap_or(""),
        "GroupAdd": spec.process.groups,
        "IpcMode": if spec.namespaces.ipc_no_shm { "none".to_owned() } else { ipc(&spec.namespaces) },
        "Cgroup": "",
        "Cgroups": cgroups(spec.cgroups),
        "Links": null,
    });
    if let Value::Object(host) = &mut host {
        host.extend(confinement(spec));
        host.extend(limits(&spec.resources));
        let maps = &container.record.id_maps;
        if !maps.uid.is_empty() {
            host.insert("IDMappings".to_owned(), id_mappings(maps));
        }
    }
    host
}

/// Namespaces, privileges, files.
fn confinement(spec: &ContainerSpec) -> Map<String, Value> {
    let document = json!({
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "PidMode": namespace(&spec.namespaces.pid),
        "Privileged": spec.security.privileged,
        "PublishAllPorts": spec.network.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security_options(spec),
        "Tmpfs": tmpfs(spec),
        "UTSMode": namespace(&spec.namespaces.uts),
        "UsernsMode": userns(&spec.userns),
        "ShmSize": spec.shm_size.unwrap_or(65_536_000),
        "Runtime": "oci",
        "ConsoleSize": [0, 0],
        "Isolation": "",
        "CgroupParent": spec.cgroup_parent.as_deref().unwrap_or(""),
        "Devices": devices(spec),
        "DiskQuota": 0,
        "KernelMemory": 0,
        "Init": spec.process.init,
        "Ulimits": ulimits(spec),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

/// That of containers.conf, else systemd where it runs.
pub fn default_cgroup_manager() -> &'static str {
    let configured = config::get().map_or("", |config| config.engine.cgroup_manager.as_str());
    if matches!(configured, "systemd" | "cgroupfs") {
        return configured;
    }
    if std::path::Path::new("/run/systemd/system").exists() { "systemd" } else { "cgroupfs" }
}

fn limits(limits: &Resources) -> Map<String, Value> {
    let bytes = |size: Option<ByteSize>| size.map_or(0, |size| size.0);
    let devices = |values: &[DeviceValue], field: &str| {
        if values.is_empty() {
            return Value::Null;
        }
        values.iter().map(|value| json!({ "Path": value.path, field: value.value })).collect()
    };
    // Quota over period; podman shows NanoCpus where the two make it.
    let cpus = match (limits.cpu_quota, limits.cpu_period) {
        (Some(quota), Some(period)) if quota > 0 && period > 0 => {
            (i128::from(quota) * 1_000_000_000 / i128::from(period)) as i64
        }
        _ => 0,
    };
    let memory = bytes(limits.memory);
    // Memory without a word of swap: as much swap again.
    let swap = limits.memory_swap.unwrap_or(i64::try_from(memory * 2).unwrap_or(i64::MAX));
    let unified: Map<String, Value> = limits.unified.iter().map(|(file, value)| (file.clone(), json!(value))).collect();
    let document = json!({
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": memory,
        "NanoCpus": cpus,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": devices(&limits.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": devices(&limits.read_bps, "Rate"),
        "BlkioDeviceWriteBps": devices(&limits.write_bps, "Rate"),
        "BlkioDeviceReadIOps": devices(&limits.read_iops, "Rate"),
        "BlkioDeviceWriteIOps": devices(&limits.write_iops, "Rate"),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": limits.cpu_rt_period.unwrap_or(0),
        "CpuRealtimeRuntime": limits.cpu_rt_runtime.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "MemoryReservation": bytes(limits.memory_reservation),
        "MemorySwap": swap,
        "MemorySwappiness": limits.memory_swappiness.unwrap_or(0),
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids_limit.unwrap_or(2048),
        "CgroupConf": if unified.is_empty() { Value::Null } else { Value::Object(unified) },
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

fn binds(spec: &ContainerSpec) -> Vec<String> {
    let words = |options: &MountOptions| {
        let mut words = vec![if options.read_only { "ro" } else { "rw" }.to_owned()];
        words.push(options.propagation.clone().unwrap_or_else(|| "rprivate".to_owned()));
        words.extend(option_words(options));
        words.extend(options.relabel.map(|label| if label == Relabel::Shared { "z" } else { "Z" }.to_owned()));
        words
    };
    spec.mounts
        .iter()
        .filter_map(|mount| {
            let (source, last) = match &mount.source {
                MountSource::Bind { path, recursive, .. } => (path, if *recursive { "rbind" } else { "bind" }),
                MountSource::Volume { name: Some(name), .. } => (name, "rbind"),
                _ => return None,
            };
            Some(format!("{source}:{}:{},{last}", mount.target, words(&mount.options).join(",")))
        })
        .collect()
}

fn tmpfs(spec: &ContainerSpec) -> Value {
    let mounts = spec.mounts.iter().filter_map(|mount| {
        let MountSource::Tmpfs { size, mode, copy_up } = &mount.source else { return None };
        let mut words = vec![if mount.options.read_only { "ro" } else { "rw" }.to_owned(), "rprivate".to_owned()];
        words.extend(option_words(&mount.options));
        words.extend(size.map(|size| format!("size={}", size.0)));
        words.extend(mode.map(|mode| format!("mode={mode:o}")));
        words.extend(copy_up.then(|| "tmpcopyup".to_owned()));
        Some((mount.target.clone(), json!(words.join(","))))
    });
    Value::Object(mounts.collect())
}

fn log(container: &Listed) -> Value {
    let log = &container.record.spec.log;
    let kept = match &container.state {
        State::Live(status) => status.log_path.as_deref(),
        State::Exited(exit) => exit.log_path.as_deref(),
        State::Created => None,
    };
    let driver = match log.driver {
        LogDriver::K8sFile => "k8s-file",
        LogDriver::JsonFile => "json-file",
        LogDriver::Journald => "journald",
        LogDriver::None => "none",
        LogDriver::Passthrough => "passthrough",
        LogDriver::PassthroughTty => "passthrough-tty",
    };
    json!({
        "Type": driver,
        "Config": if log.other.is_empty() { Value::Null } else { json!(log.other) },
        "Path": kept.or(log.path.as_deref()).unwrap_or(""),
        "Tag": log.tag.as_deref().unwrap_or(""),
        "Size": ByteSize(log.max_size.unwrap_or(0)).to_string(),
    })
}

/// podman's word for a network mode.
pub fn network_mode(mode: Option<&NetworkMode>) -> String {
    match mode {
        None => "default".to_owned(),
        Some(NetworkMode::None) => "none".to_owned(),
        Some(NetworkMode::Host) => "host".to_owned(),
        Some(NetworkMode::Container(id)) => format!("container:{id}"),
        Some(NetworkMode::Path(path)) => format!("ns:{path}"),
        Some(NetworkMode::Pasta(_)) => "pasta".to_owned(),
        Some(NetworkMode::Networks(_)) => "bridge".to_owned(),
    }
}

fn restart(restart: Restart) -> Value {
    let retries = match restart {
        Restart::OnFailure { retries } => retries,
        _ => 0,
    };
    json!({ "Name": restart_word(restart), "MaximumRetryCount": retries })
}

fn namespace(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Private => "private".to_owned(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Container(id) => format!("container:{id}"),
        NamespaceMode::Path(path) => format!("ns:{path}"),
    }
}

/// One that was not asked to be private can be joined by others.
fn ipc(namespaces: &Namespaces) -> String {
    match &namespaces.ipc {
        NamespaceMode::Private if !namespaces.ipc_unshared => "shareable".to_owned(),
        mode => namespace(mode),
    }
}

fn userns(mode: &UserNamespace) -> String {
    match mode {
        UserNamespace::Host => String::new(),
        UserNamespace::Container(id) => format!("container:{id}"),
        UserNamespace::Path(path) => format!("ns:{path}"),
        _ => "private".to_owned(),
    }
}

fn id_mappings(maps: &IdMaps) -> Value {
    let lines = |ranges: &[IdRange]| {
        ranges.iter().map(|range| format!("{}:{}:{}", range.inside, range.outside, range.size)).collect::<Vec<_>>()
    };
    json!({ "UidMap": lines(&maps.uid), "GidMap": lines(&maps.gid) })
}

fn cgroups(mode: CgroupsMode) -> &'static str {
    match mode {
        CgroupsMode::Enabled => "default",
        CgroupsMode::Disabled => "disabled",
        CgroupsMode::NoConmon => "no-conmon",
        CgroupsMode::Split => "split",
    }
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let security = &spec.security;
    let mut words: Vec<String> = security.label.iter().map(|label| format!("label={label}")).collect();
    match &security.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => words.push("seccomp=unconfined".to_owned()),
        Seccomp::File { path, .. } => words.push(format!("seccomp={path}")),
    }
    words.extend(security.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    if security.no_new_privileges {
        words.push("no-new-privileges".to_owned());
    }
    for (word, paths) in [("mask", &security.mask), ("unmask", &security.unmask)] {
        if !paths.is_empty() {
            words.push(format!("{word}={}", paths.join(":")));
        }
    }
    words
}

fn devices(spec: &ContainerSpec) -> Vec<Value> {
    spec.devices
        .iter()
        .map(|device| {
            json!({
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.access,
            })
        })
        .collect()
}

fn ulimits(spec: &ContainerSpec) -> Vec<Value> {
    let signed = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    spec.ulimits
        .iter()
        .map(|limit| {
            json!({
                "Name": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
                "Soft": signed(limit.soft),
                "Hard": signed(limit.hard),
            })
        })
        .collect()
}
