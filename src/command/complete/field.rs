//! Which fields a `--format` template may name, for each verb that takes one. A test renders every one of them.

use crate::engine::{Engine, info};
use serde_json::Value;

/// Fields by the words of the verb.
const FIELDS: &[(&[&str], &[&str])] = &[
    (
        &["ps", "container list"],
        &[
            "AutoRemove",
            "CIDFile",
            "Command",
            "Created",
            "CreatedAt",
            "CreatedHuman",
            "ExitCode",
            "Exited",
            "ExitedAt",
            "ExposedPorts",
            "ID",
            "Image",
            "ImageID",
            "IsInfra",
            "Labels",
            "Mounts",
            "Names",
            "Networks",
            "Pid",
            "Pod",
            "PodName",
            "Ports",
            "Restarts",
            "RunningFor",
            "Size",
            "StartedAt",
            "State",
            "Status",
        ],
    ),
    (
        &["images", "image list"],
        &[
            "Created",
            "CreatedAt",
            "CreatedSince",
            "CreatedTime",
            "Dangling",
            "Digest",
            "History",
            "ID",
            "Id",
            "IsReadOnly",
            "Labels",
            "Names",
            "ParentId",
            "ReadOnly",
            "RepoDigests",
            "RepoTags",
            "Repository",
            "SharedSize",
            "Size",
            "Tag",
            "VirtualSize",
        ],
    ),
    (
        &["history", "image history"],
        &["Comment", "Created", "CreatedAt", "CreatedBy", "CreatedSince", "ID", "Size", "Tags"],
    ),
    (
        &["volume ls", "volume inspect"],
        &[
            "Anonymous",
            "CreatedAt",
            "Driver",
            "GID",
            "Labels",
            "LockNumber",
            "MountCount",
            "Mountpoint",
            "Name",
            "NeedsChown",
            "NeedsCopyUp",
            "Options",
            "Scope",
            "Status",
            "StorageID",
            "Timeout",
            "UID",
        ],
    ),
    (&["network ls"], &["DNSEnabled", "Driver", "ID", "Internal", "Labels", "Name", "Subnets"]),
    (&["network inspect"], &["DNSEnabled", "Driver", "ID", "Internal", "Name", "Subnets"]),
    (
        &["events", "system events"],
        &[
            "Attributes",
            "ContainerExitCode",
            "HealthStatus",
            "ID",
            "Image",
            "Name",
            "Network",
            "PodID",
            "Status",
            "Time",
            "TimeNano",
            "Type",
        ],
    ),
    (
        &["stats", "container stats"],
        &[
            "AVGCPU",
            "AvgCPU",
            "BlockIO",
            "BlockInput",
            "BlockOutput",
            "CPU",
            "CPUNano",
            "CPUPerc",
            "CPUSystemNano",
            "ContainerID",
            "Duration",
            "ID",
            "MemLimit",
            "MemPerc",
            "MemUsage",
            "MemUsageBytes",
            "Name",
            "NetIO",
            "NetInput",
            "NetOutput",
            "PIDS",
            "PIDs",
            "SystemNano",
            "UpTime",
        ],
    ),
    (&["system df"], &["Active", "RawReclaimable", "RawSize", "Reclaimable", "Size", "Total", "TotalCount", "Type"]),
    (&["search", "image search"], &["Automated", "Description", "Index", "Name", "Official", "Stars", "Tag"]),
    (&["artifact ls"], &["Created", "Digest", "Repository", "Size", "Tag", "VirtualSize"]),
    (
        &["inspect", "container inspect"],
        &[
            "AppArmorProfile",
            "Args",
            "BoundingCaps",
            "Config",
            "Created",
            "Dependencies",
            "Driver",
            "EffectiveCaps",
            "ExecIDs",
            "GraphDriver",
            "HostConfig",
            "HostnamePath",
            "HostsPath",
            "Id",
            "Image",
            "ImageDigest",
            "ImageName",
            "IsInfra",
            "IsService",
            "MountLabel",
            "Mounts",
            "Name",
            "Namespace",
            "NetworkSettings",
            "OCIRuntime",
            "Path",
            "Pod",
            "ProcessLabel",
            "ResolvConfPath",
            "RestartCount",
            "Rootfs",
            "State",
        ],
    ),
    (
        &["image inspect"],
        &[
            "Annotations",
            "Architecture",
            "Author",
            "Comment",
            "Config",
            "Created",
            "Digest",
            "GraphDriver",
            "History",
            "Id",
            "Labels",
            "ManifestType",
            "NamesHistory",
            "Os",
            "Parent",
            "RepoDigests",
            "RepoTags",
            "RootFS",
            "Size",
            "User",
            "Version",
            "VirtualSize",
        ],
    ),
];

/// What could stand for a template that is being typed: its last field is completed, the rest is kept.
pub(super) fn candidates(verb: &str, current: &str, sample: &dyn Fn() -> Option<Value>) -> Vec<String> {
    let Some((before, typed)) = current.rsplit_once("{{.").map(|(before, typed)| (format!("{before}{{{{."), typed))
    else {
        return if "json".starts_with(current) { vec!["json".to_owned()] } else { Vec::new() };
    };
    let (parents, last) = typed.rsplit_once('.').map_or(("", typed), |(parents, last)| (parents, last));
    let known = FIELDS.iter().find(|(verbs, _)| verbs.contains(&verb)).map(|(_, fields)| *fields);
    let fields: Vec<(String, bool)> = match (sample(), known) {
        (Some(document), _) => below(&document, parents),
        (None, Some(fields)) if parents.is_empty() => fields.iter().map(|field| ((*field).to_owned(), false)).collect(),
        _ => Vec::new(),
    };
    let parents = if parents.is_empty() { String::new() } else { format!("{parents}.") };
    let matching = fields.into_iter().filter(|(field, _)| field.starts_with(last));
    matching.map(|(field, has_more)| format!("{before}{parents}{field}{}", if has_more { "." } else { "}}" })).collect()
}

/// The fields of the object at a path, and which of them are objects with fields.
fn below(document: &Value, path: &str) -> Vec<(String, bool)> {
    let object = path.split('.').filter(|part| !part.is_empty()).try_fold(document, |value, part| value.get(part));
    let fields = object.and_then(Value::as_object).into_iter().flatten();
    // Keys of labels and the like are no fields.
    let is_field = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fields.filter(|(name, _)| is_field(name)).map(|(name, value)| (name.clone(), is_struct(value))).collect()
}

fn is_struct(value: &Value) -> bool {
    let starts_upper = |name: &String| name.starts_with(|letter: char| letter.is_ascii_uppercase());
    value.as_object().is_some_and(|fields| !fields.is_empty() && fields.keys().all(starts_upper))
}

/// The document of a verb that shows but one.
pub(super) fn document(engine: &Engine, verb: &str) -> Option<Value> {
    match verb {
        "info" | "system info" => Some(info::with_go_names(&info::document(engine).ok()?)),
        "version" => Some(serde_json::json!({ "Client": info::version(), "Server": info::version() })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_completed() {
        let none = || None;
        assert_eq!(candidates("volume ls", "{{.Na", &none), ["{{.Name}}"]);
        assert_eq!(candidates("volume ls", "{{.Name}} {{.Sc", &none), ["{{.Name}} {{.Scope}}"]);
        assert_eq!(candidates("volume ls", "", &none), ["json"]);
        assert!(candidates("rm", "{{.", &none).is_empty());
        let sample = || Some(json!({"State": {"Pid": 1, "Health": {"Status": ""}}, "Labels": {"a.b": ""}}));
        assert_eq!(candidates("inspect", "{{.", &sample), ["{{.Labels}}", "{{.State."]);
        assert_eq!(candidates("inspect", "{{.State.P", &sample), ["{{.State.Pid}}"]);
    }
}
