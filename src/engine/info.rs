//! What there is to say of this machine and this store: podman's `info` tree. Nothing slow is looked at: records of
//! containers that do not run are counted, not read.

use crate::engine::Engine;
use crate::engine::inspect::default_cgroup_manager;
use crate::engine::list::{self, Scope};
use crate::host::is_cgroup_v2;
use crate::image::{conf, store};
use crate::model::user::IdRange;
use crate::runtime::cgroup::{self, Manager};
use crate::state::container;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The version of podman's REST interface whose objects ours are like.
const API_VERSION: &str = "5.0.0";

/// What `version` tells of this program.
pub fn version() -> Value {
    json!({
        "APIVersion": API_VERSION,
        "Arch": architecture(),
        "Built": 0,
        "BuiltTime": "",
        "GitCommit": "",
        "GoVersion": "",
        "Name": "coracle",
        "Os": "linux",
        "OsArch": format!("linux/{}", architecture()),
        "Version": env!("CARGO_PKG_VERSION"),
    })
}

/// Go's word for the machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The whole tree, with the names of podman's JSON.
pub fn document(engine: &Engine) -> Result<Value> {
    let mut version = version();
    if let Value::Object(fields) = &mut version {
        fields.remove("Name");
        fields.remove("Arch");
    }
    Ok(json!({
        "host": host(engine),
        "store": store_tree(engine)?,
        "registries": registries(),
        "plugins": {
            "volume": ["local"],
            "network": ["bridge", "macvlan", "ipvlan"],
            "log": ["k8s-file", "json-file", "journald", "none", "passthrough", "passthrough-tty"],
            "authorization": null,
        },
        "version": version,
    }))
}

fn host(engine: &Engine) -> Value {
    let own = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let manager = engine.cgroup_manager.as_deref().unwrap_or(default_cgroup_manager());
    let rootless = engine.privilege.rootless;
    let kind = if manager == "systemd" { Manager::Systemd } else { Manager::Cgroupfs };
    let memory = memory();
    let part = json!({ "package": format!("coracle-{}", env!("CARGO_PKG_VERSION")), "path": own, "version": format!("coracle {}", env!("CARGO_PKG_VERSION")) });
    let mut runtime = part.clone();
    runtime["name"] = json!("coracle");
    let socket = engine.layout.run().join("podman.sock");
    let pasta = find_program("pasta");
    json!({
        "arch": architecture(),
        "buildahVersion": env!("CARGO_PKG_VERSION"),
        "cgroupControllers": cgroup::controllers(kind, rootless),
        "cgroupManager": manager,
        "cgroupVersion": if is_cgroup_v2() { "v2" } else { "v1" },
        "conmon": part,
        "cpuUtilization": processors(),
        "cpus": std::thread::available_parallelism().map_or(1, |number| number.get()),
        "databaseBackend": "files",
        "distribution": distribution(),
        "eventLogger": "file",
        "hostname": nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        "idMappings": { "uidmap": mappings(&engine.privilege.maps.uid), "gidmap": mappings(&engine.privilege.maps.gid) },
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "linkmode": "static",
        "logDriver": "k8s-file",
        "memFree": memory("MemFree"),
        "memTotal": memory("MemTotal"),
        "networkBackend": "coracle",
        "networkBackendInfo": {
            "backend": "coracle",
            "version": env!("CARGO_PKG_VERSION"),
            "package": part["package"],
            "path": own,
            "dns": part,
        },
        "ociRuntime": runtime,
        "os": "linux",
        "pasta": { "executable": pasta.as_deref().unwrap_or(""), "package": "", "version": "" },
        "remoteSocket": { "exists": socket.exists(), "path": socket },
        "rootlessNetworkCmd": "pasta",
        "security": {
            "apparmorEnabled": Path::new("/sys/kernel/security/apparmor").exists(),
            "capabilities": crate::bundle::security::bounding(&Default::default(), u64::MAX).map(|names| {
                let mut names: Vec<String> = names.iter().map(|name| format!("CAP_{}", name.to_string().trim_start_matches("CAP_"))).collect();
                names.sort();
                names.join(",")
            }).unwrap_or_default(),
            "rootless": rootless,
            "seccompEnabled": true,
            "seccompProfilePath": "built-in",
            "selinuxEnabled": Path::new("/sys/fs/selinux/enforce").exists(),
        },
        "serviceIsRemote": false,
        "swapFree": memory("SwapFree"),
        "swapTotal": memory("SwapTotal"),
        "uptime": uptime(),
        "variant": "",
    })
}

fn find_program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.map(|path| path.display().to_string())
}

/// Percent since boot.
fn processors() -> Value {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let total: f64 = numbers.iter().take(8).sum();
    let percent = |indices: &[usize]| -> f64 {
        let sum: f64 = indices.iter().filter_map(|index| numbers.get(*index)).sum();
        if total > 0.0 { (sum / total * 10_000.0).round() / 100.0 } else { 0.0 }
    };
    json!({ "userPercent": percent(&[0, 1]), "systemPercent": percent(&[2, 5, 6]), "idlePercent": percent(&[3, 4]) })
}

fn distribution() -> Value {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let mut document = json!({
        "distribution": field("ID").unwrap_or_else(|| "unknown".to_owned()),
        "version": field("VERSION_ID").unwrap_or_else(|| "unknown".to_owned()),
    });
    for (name, value) in [("codename", field("VERSION_CODENAME")), ("variant", field("VARIANT_ID"))] {
        if let Some(value) = value {
            document[name] = json!(value);
        }
    }
    document
}

/// Bytes of a line of /proc/meminfo.
fn memory() -> impl Fn(&str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

/// `2h 3m 4.00s (Approximately 0.08 days)`.
fn uptime() -> String {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
    uptime_text(seconds)
}

fn uptime_text(seconds: f64) -> String {
    let whole = seconds as u64;
    let (hours, minutes, left) = (whole / 3600, whole / 60 % 60, whole % 60);
    let text = match (hours, minutes) {
        (0, 0) => format!("{left}.00s"),
        (0, _) => format!("{minutes}m {left}.00s"),
        _ => format!("{hours}h {minutes}m {left}.00s"),
    };
    if hours > 0 { format!("{text} (Approximately {:.2} days)", seconds / 86_400.0) } else { text }
}

fn mappings(ranges: &[IdRange]) -> Value {
    if ranges.is_empty() {
        return Value::Null;
    }
    ranges
        .iter()
        .map(|range| json!({ "container_id": range.inside, "host_id": range.outside, "size": range.size }))
        .collect()
}

fn store_tree(engine: &Engine) -> Result<Value> {
    let layout = &engine.layout;
    let (live, _) = list::list(engine, Scope::Live)?;
    let number = container::list(layout)?.len();
    let running = live.iter().filter(|container| container.word() == "running").count();
    let paused = live.iter().filter(|container| container.word() == "paused").count();
    let space = nix::sys::statvfs::statvfs(layout.data()).ok();
    let bytes = |blocks: Option<u64>| blocks.unwrap_or(0);
    let size = space.as_ref().map(|space| space.blocks() as u64 * space.fragment_size() as u64);
    let free = space.as_ref().map(|space| space.blocks_free() as u64 * space.fragment_size() as u64);
    Ok(json!({
        "configFile": "",
        "containerStore": {
            "number": number,
            "paused": paused,
            "running": running,
            "stopped": number.saturating_sub(running + paused),
        },
        "graphDriverName": "overlay",
        "graphOptions": {},
        "graphRoot": layout.data(),
        "graphRootAllocated": bytes(size),
        "graphRootUsed": bytes(size).saturating_sub(bytes(free)),
        "graphStatus": {
            "Backing Filesystem": filesystem(layout.data()),
            "Native Overlay Diff": if engine.privilege.rootless { "false" } else { "true" },
            "Supports d_type": "true",
            "Using metacopy": "false",
        },
        "imageCopyTmpDir": layout.tmp(),
        "imageStore": { "number": store::ids(layout).map_or(0, |ids| ids.len()) },
        "runRoot": layout.run(),
        "transientStore": false,
        "volumePath": layout.volumes(),
    }))
}

/// Name of the file system a path is on.
fn filesystem(path: &Path) -> String {
    use nix::sys::statfs;
    let Ok(status) = statfs::statfs(path) else { return "<unknown>".to_owned() };
    let known = [
        (statfs::EXT4_SUPER_MAGIC, "extfs"),
        (statfs::XFS_SUPER_MAGIC, "xfs"),
        (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
        (statfs::TMPFS_MAGIC, "tmpfs"),
        (statfs::OVERLAYFS_SUPER_MAGIC, "overlayfs"),
    ];
    let found = known.iter().find(|(magic, _)| *magic == status.filesystem_type());
    found.map_or("<unknown>", |(_, name)| name).to_owned()
}

fn registries() -> Value {
    let search = conf::Registries::load().map(|conf| conf.search_list()).unwrap_or_default();
    if search.is_empty() { json!({}) } else { json!({ "search": search }) }
}

/// The same tree with the names Go's templates know (`.Host.OCIRuntime`).
pub fn with_go_names(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed: Map<String, Value> =
                fields.iter().map(|(name, value)| (go_name(name), with_go_names(value))).collect();
            Value::Object(renamed)
        }
        Value::Array(list) => list.iter().map(with_go_names).collect(),
        other => other.clone(),
    }
}

fn go_name(name: &str) -> String {
    let known = [
        ("ociRuntime", "OCIRuntime"),
        ("cpus", "CPUs"),
        ("cpuUtilization", "CPUUtilization"),
        ("os", "OS"),
        ("idMappings", "IDMappings"),
        ("uidmap", "UIDMap"),
        ("gidmap", "GIDMap"),
        ("cgroupVersion", "CgroupsVersion"),
        ("dns", "DNS"),
        ("apparmorEnabled", "AppArmorEnabled"),
        ("capabilities", "DefaultCapabilities"),
        ("seccompEnabled", "SECCOMPEnabled"),
        ("seccompProfilePath", "SECCOMPProfilePath"),
        ("selinuxEnabled", "SELinuxEnabled"),
        // A key of a map, not a field.
        ("search", "search"),
    ];
    if let Some((_, go)) = known.iter().find(|(json, _)| *json == name) {
        return (*go).to_owned();
    }
    match name.chars().next() {
        Some(first) => format!("{}{}", first.to_ascii_uppercase(), &name[first.len_utf8()..]),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_templates() {
        let tree =
            json!({ "host": { "ociRuntime": { "name": "x" }, "cgroupVersion": "v2" }, "store": { "graphRoot": "/" } });
        let tree = with_go_names(&tree);
        assert_eq!(tree["Host"]["OCIRuntime"]["Name"], "x");
        assert_eq!(tree["Host"]["CgroupsVersion"], "v2");
        assert_eq!(tree["Store"]["GraphRoot"], "/");
    }

    #[test]
    fn uptimes() {
        assert_eq!(uptime_text(5.0), "5.00s");
        assert_eq!(uptime_text(65.0), "1m 5.00s");
        assert_eq!(uptime_text(7384.0), "2h 3m 4.00s (Approximately 0.09 days)");
    }
}
