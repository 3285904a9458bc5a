//! What is told of one container: podman's `inspect` document, field by field.
//!
//! Everything comes from the record, the state and what the supervisor wrote; nothing is asked of a running container.

pub mod config;
mod host;
mod network;
pub mod ports;
pub mod size;

pub use host::default_cgroup_manager;

use crate::bundle;
use crate::engine::list::Listed;
use crate::engine::{Engine, moment};
use crate::model::container::RootSource;
use crate::model::health::Healthcheck;
use crate::model::mount::{Mount, MountOptions, MountSource, Relabel};
use crate::runtime::cgroup::Saved;
use crate::state::container::State;
use anyhow::Result;
use serde_json::{Value, json};

/// The document of a container.
pub fn document(engine: &Engine, container: &Listed, with_size: bool) -> Result<Value> {
    let Listed { record, .. } = container;
    let layout = &engine.layout;
    let (directory, running) = (layout.container(&record.id), layout.running(&record.id));
    let spec = &record.spec;
    let command = container.command();
    let (path, arguments) = command.split_first().map_or(("", &[][..]), |(path, rest)| (path.as_str(), rest));
    let capabilities = capabilities(container);
    let live = container.state.is_live();
    let path_if =
        |there: bool, name: &str| if there { running.join(name).display().to_string() } else { String::new() };
    let mut document = json!({
        "Id": record.id,
        "Created": moment::rfc3339(record.created_ns),
        "Path": path,
        "Args": arguments,
        "State": state(container),
        "Image": container.image_id(),
        "ImageDigest": record.image.as_ref().map_or("", |image| &image.digest),
        "ImageName": container.image_name(),
        "Rootfs": match &spec.root { RootSource::Directory { path, .. } => path.as_str(), _ => "" },
        "Pod": "",
        "ResolvConfPath": path_if(live && !spec.network.dns_none, "resolv.conf"),
        "HostnamePath": path_if(live && !spec.network.no_hostname, "hostname"),
        "HostsPath": path_if(live && !spec.network.no_hosts, "hosts"),
        "StaticDir": directory,
        "OCIConfigPath": path_if(live, "bundle/config.json"),
        "OCIRuntime": "coracle",
        "ConmonPidFile": spec.lifecycle.supervisor_pidfile.as_deref().unwrap_or(""),
        "PidFile": spec.lifecycle.pidfile.as_deref().unwrap_or(""),
        "Name": record.name,
        "RestartCount": container.restarts(),
        "Driver": "overlay",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": spec.security.apparmor.as_deref().unwrap_or(""),
        "EffectiveCaps": capabilities.effective,
        "BoundingCaps": capabilities.bounding,
        "ExecIDs": [],
        "GraphDriver": graph_driver(engine, container),
        "Mounts": mounts(engine, container),
        "Dependencies": spec.lifecycle.requires,
        "NetworkSettings": network::settings(engine, container),
        "Namespace": "",
        "IsInfra": false,
        "IsService": false,
        "KubeExitCodePropagation": "invalid",
        "lockNumber": 0,
        "Config": config::document(container),
        "HostConfig": host::document(engine, container),
        "UseImageHosts": spec.network.no_hosts,
        "UseImageHostname": spec.network.no_hostname,
    });
    if with_size {
        let size = size::of(engine, record);
        document["SizeRw"] = json!(size.own);
        document["SizeRootFs"] = json!(size.root);
    }
    Ok(document)
}

fn state(container: &Listed) -> Value {
    let word = container.word();
    let is_paused = word == "paused";
    let (supervisor, cgroup, oom_killed, error, by_user) = match &container.state {
        State::Created => (0, String::new(), false, "", false),
        State::Live(status) => (status.supervisor_pid, cgroup_path(&status.cgroup), false, "", status.stopping),
        State::Exited(exit) => (0, String::new(), exit.oom_killed, exit.error.as_str(), exit.stopped_by_user),
    };
    let mut state = json!({
        "OciVersion": "1.3.0",
        "Status": word,
        "Running": matches!(word, "running" | "paused" | "stopping"),
        "Paused": is_paused,
        "Restarting": word == "restarting",
        "OOMKilled": oom_killed,
        "Dead": false,
        "Pid": container.pid(),
        "ConmonPid": supervisor,
        "ExitCode": container.exit_code(),
        "Error": error,
        "StartedAt": moment::rfc3339(container.started_ns()),
        "FinishedAt": moment::rfc3339(container.finished_ns()),
        "CheckpointedAt": moment::rfc3339(0),
        "RestoredAt": moment::rfc3339(0),
        "StoppedByUser": by_user,
    });
    if !cgroup.is_empty() {
        state["CgroupPath"] = json!(cgroup);
    }
    if container.record.spec.health.as_ref().is_some_and(Healthcheck::runs) {
        state["Health"] = health(container);
    }
    state
}

fn health(container: &Listed) -> Value {
    let (status, failing, log) = match &container.state {
        State::Live(status) => (&status.health, status.health_failing, &status.health_log),
        State::Exited(exit) => (&exit.health, exit.health_failing, &exit.health_log),
        State::Created => return json!({ "Status": "starting", "FailingStreak": 0, "Log": null }),
    };
    let log = log.iter().map(|result| {
        json!({
            "Start": moment::rfc3339(result.start_ns), "End": moment::rfc3339(result.end_ns),
            "ExitCode": result.exit_code, "Output": result.output,
        })
    });
    json!({ "Status": status, "FailingStreak": failing, "Log": log.collect::<Vec<_>>() })
}

/// The cgroup as /proc/PID/cgroup names it.
fn cgroup_path(saved: &Value) -> String {
    let saved: Saved = serde_json::from_value(saved.clone()).unwrap_or_default();
    let path = saved.unified.as_ref().or_else(|| saved.v1.values().next());
    let Some(path) = path.map(|path| path.display().to_string()) else { return String::new() };
    // On hybrid and version 1 hosts the first part below the mount is the controller.
    let below = path.strip_prefix("/sys/fs/cgroup").unwrap_or(&path);
    let of_controller = saved.unified.is_none() || below.starts_with("/unified/");
    match below[1.min(below.len())..].find('/') {
        Some(end) if of_controller => below[end + 1..].to_owned(),
        _ => below.to_owned(),
    }
}

struct Capabilities {
    effective: Vec<String>,
    bounding: Vec<String>,
}

fn capabilities(container: &Listed) -> Capabilities {
    let spec = &container.record.spec;
    let is_root = spec.process.user.as_ref().is_none_or(|user| match &user.user {
        None | Some(crate::model::user::NameOrId::Id(0)) => true,
        Some(crate::model::user::NameOrId::Name(name)) => name == "root",
        Some(_) => false,
    });
    let sorted = |names: Option<&oci_spec::runtime::Capabilities>| {
        let mut names: Vec<String> = names
            .into_iter()
            .flatten()
            .map(|name| {
                let name = name.to_string();
                if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
            })
            .collect();
        names.sort();
        names
    };
    match bundle::security::capabilities(&spec.security, if is_root { 0 } else { 1 }, u64::MAX) {
        Ok(sets) => {
            Capabilities { effective: sorted(sets.effective().as_ref()), bounding: sorted(sets.bounding().as_ref()) }
        }
        Err(_) => Capabilities { effective: Vec::new(), bounding: Vec::new() },
    }
}

fn graph_driver(engine: &Engine, container: &Listed) -> Value {
    let record = &container.record;
    let directory = engine.layout.container(&record.id);
    let layers: Vec<String> = record
        .layers
        .iter()
        .rev()
        .map(|layer| engine.layout.layers().join(layer).join("diff").display().to_string())
        .collect();
    let mut data = json!({ "UpperDir": directory.join("upper"), "WorkDir": directory.join("work") });
    if !layers.is_empty() {
        data["LowerDir"] = json!(layers.join(":"));
    }
    json!({ "Name": "overlay", "Data": data })
}

/// Binds, volumes and images; what is a tmpfs stands in `HostConfig.Tmpfs`.
fn mounts(engine: &Engine, container: &Listed) -> Vec<Value> {
    container.record.spec.mounts.iter().filter_map(|mount| mount_document(engine, mount)).collect()
}

fn mount_document(engine: &Engine, mount: &Mount) -> Option<Value> {
    let options = &mount.options;
    let mut document = json!({
        "Destination": mount.target,
        "Driver": "",
        "Mode": match options.relabel { Some(Relabel::Shared) => "z", Some(Relabel::Private) => "Z", None => "" },
        "Options": option_words(options),
        "RW": !options.read_only,
        "Propagation": options.propagation.as_deref().unwrap_or("rprivate"),
    });
    let (kind, source) = match &mount.source {
        MountSource::Bind { path, recursive, .. } => {
            let word = if *recursive { "rbind" } else { "bind" };
            document["Options"].as_array_mut()?.push(json!(word));
            ("bind", path.clone())
        }
        MountSource::Volume { name, subpath, .. } => {
            let name = name.as_deref().unwrap_or("");
            document["Name"] = json!(name);
            document["Driver"] = json!("local");
            if let Some(subpath) = subpath {
                document["SubPath"] = json!(subpath);
            }
            ("volume", engine.layout.volumes().join(name).join("_data").display().to_string())
        }
        MountSource::Image { reference, .. } => ("image", reference.clone()),
        MountSource::Tmpfs { .. } | MountSource::Ramfs | MountSource::Devpts { .. } => return None,
    };
    document["Type"] = json!(kind);
    document["Source"] = json!(source);
    Some(document)
}

/// The options that were given, in the words of `-v`.
pub fn option_words(options: &MountOptions) -> Vec<String> {
    let flag = |value: Option<bool>, on: &str, off: &str| value.map(|value| if value { on } else { off }.to_owned());
    let words = [
        flag(options.nosuid, "nosuid", "suid"),
        flag(options.nodev, "nodev", "dev"),
        flag(options.noexec, "noexec", "exec"),
        options.recursive_read_only.then(|| "rro".to_owned()),
        options.chown.then(|| "U".to_owned()),
        options.idmap.is_some().then(|| "idmap".to_owned()),
        options.overlay.is_some().then(|| "O".to_owned()),
        flag(options.copy, "copy", "nocopy"),
    ];
    words.into_iter().flatten().chain(options.data.iter().cloned()).collect()
}
