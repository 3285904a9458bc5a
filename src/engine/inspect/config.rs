//! `Config`: what the image and the user said of the process.

use crate::engine::list::Listed;
use crate::model::container::ContainerSpec;
use crate::model::health::Healthcheck;
use crate::model::mount::MountSource;
use crate::model::signal;
use crate::model::user::{NameOrId, UserRef};
use serde_json::{Map, Value, json};

/// The document.
pub fn document(container: &Listed) -> Value {
    let record = &container.record;
    let spec = &record.spec;
    let process = &spec.process;
    let mut config = json!({
        "Hostname": spec.network.hostname.as_deref().unwrap_or(record.id.short()),
        "Domainname": "",
        "User": process.user.as_ref().map_or(String::new(), user),
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": spec.stdio.tty,
        "OpenStdin": spec.stdio.interactive,
        "StdinOnce": false,
        "Env": process.env.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        "Cmd": process.command,
        "Image": container.image_name(),
        "Volumes": volumes(spec),
        "WorkingDir": process.workdir.as_deref().unwrap_or("/"),
        "Entrypoint": process.entrypoint,
        "OnBuild": null,
        "Labels": if spec.labels.is_empty() { Value::Null } else { json!(spec.labels) },
        "Annotations": if spec.annotations.is_empty() { Value::Null } else { json!(spec.annotations) },
        "StopSignal": signal::name(spec.lifecycle.stop_signal.unwrap_or(15)),
        "HealthcheckOnFailureAction": spec.health_policy.on_failure.as_str(),
        "CreateCommand": spec.create_command,
        "Umask": format!("{:04o}", process.umask.unwrap_or(0o022)),
        "Timeout": spec.lifecycle.run_timeout_s.unwrap_or(0),
        "StopTimeout": spec.lifecycle.stop_timeout_s.unwrap_or(10),
        "Passwd": process.passwd.unwrap_or(true),
        "sdNotifyMode": spec.lifecycle.sdnotify.as_deref().unwrap_or("container"),
    });
    if let Value::Object(config) = &mut config {
        config.extend(sometimes(spec));
    }
    config
}

/// What is told only where it was asked for.
fn sometimes(spec: &ContainerSpec) -> Map<String, Value> {
    let policy = &spec.health_policy;
    let checked = spec.health.as_ref().is_some_and(Healthcheck::runs);
    let ports: Map<String, Value> = spec
        .network
        .expose
        .iter()
        .flat_map(|(first, last, protocol)| {
            (*first..=*last).map(|port| (format!("{port}/{}", protocol.as_str()), json!({})))
        })
        .collect();
    let fields = [
        ("Healthcheck", spec.health.as_ref().map(|check| json!(check))),
        ("StartupHealthCheck", policy.startup.as_ref().map(startup)),
        ("HealthLogDestination", checked.then(|| json!(policy.log_destination.as_deref().unwrap_or("local")))),
        ("HealthcheckMaxLogCount", checked.then(|| json!(policy.max_log_count.unwrap_or(5)))),
        ("HealthcheckMaxLogSize", checked.then(|| json!(policy.max_log_size.unwrap_or(500)))),
        ("Timezone", spec.process.timezone.as_ref().map(|zone| json!(zone))),
        ("SystemdMode", crate::bundle::wants_systemd(spec).then(|| json!(true))),
        ("ExposedPorts", (!ports.is_empty()).then_some(Value::Object(ports))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn startup(startup: &crate::model::health::StartupCheck) -> Value {
    let mut document = json!(startup.check);
    if startup.successes > 0 {
        document["Successes"] = json!(startup.successes);
    }
    document
}

/// As it was typed.
pub fn user(user: &UserRef) -> String {
    let half = |half: &Option<NameOrId>| match half {
        None => String::new(),
        Some(NameOrId::Id(id)) => id.to_string(),
        Some(NameOrId::Name(name)) => name.clone(),
    };
    match &user.group {
        None => half(&user.user),
        group => format!("{}:{}", half(&user.user), half(group)),
    }
}

/// Targets of anonymous volumes: the image's VOLUMEs and `-v TARGET`.
fn volumes(spec: &ContainerSpec) -> Value {
    let targets: Map<String, Value> = spec
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. }))
        .map(|mount| (mount.target.clone(), json!({})))
        .collect();
    if targets.is_empty() { Value::Null } else { Value::Object(targets) }
}
