//! A container's documents: `config.json`, `exit.json` in DATA and `status.json` in RUN, and what they say together.

use crate::model::container::{ContainerSpec, NamespaceMode};
use crate::model::id::Id;
use crate::model::network::NetworkMode;
use crate::model::user::{IdMaps, UserNamespace};
use crate::state::event::Event;
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::state::{lock, name};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// The number in each of these documents.
pub const VERSION: u32 = 1;

/// What was created; immutable but for `update` and `rename`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Format of this document.
    pub version: u32,
    /// The id.
    pub id: Id,
    /// The name.
    pub name: String,
    /// When, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The image it was made of; absent with `--rootfs`.
    pub image: Option<ImageUse>,
    /// Diff ids (hexadecimal digits of sha256) of the layers, lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
    /// The id maps that were chosen; empty: those of the engine.
    #[serde(default)]
    pub id_maps: IdMaps,
    /// The image's config merged in.
    pub spec: ContainerSpec,
}

/// An image as a container remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUse {
    /// The image id: hexadecimal digits of the config's sha256.
    pub id: String,
    /// The full reference it was found under, or the id.
    pub name: String,
    /// Digest of the manifest, `sha256:…`.
    #[serde(default)]
    pub digest: String,
}

/// What a running container's supervisor says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Format of this document.
    pub version: u32,
    /// Where in its life.
    pub phase: Phase,
    /// The container's first process, for showing and for `setns`; signals go through the supervisor.
    pub pid: i32,
    /// Its start time (field 22 of /proc/PID/stat), to know a reused pid.
    pub pid_start: u64,
    /// The supervisor.
    pub supervisor_pid: i32,
    /// When it was started, nanoseconds since 1970.
    pub started_ns: i64,
    /// How often the restart policy has started it again.
    pub restarts: u32,
    /// The cgroup, as `runtime::cgroup` saved it.
    pub cgroup: Value,
    /// What `network::attach` says (addresses, ports), for `inspect` and `port`.
    pub network: Value,
    /// Where the log is, if a driver keeps one.
    pub log_path: Option<String>,
    /// Health: `starting`, `healthy`, `unhealthy`; empty without a check.
    pub health: String,
    /// Failed checks in a row.
    pub health_failing: u32,
    /// The last checks.
    pub health_log: Vec<HealthResult>,
    /// Stopped on purpose: a restart policy does not start it again.
    pub stopping: bool,
    /// Volumes and other facts a front end wants to show.
    pub shown: BTreeMap<String, String>,
}

/// One health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthResult {
    /// When it began, nanoseconds since 1970.
    pub start_ns: i64,
    /// When it ended.
    pub end_ns: i64,
    /// Its exit code; -1: it took too long.
    pub exit_code: i32,
    /// What it said.
    pub output: String,
}

/// Where in its life a container with a supervisor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The supervisor is at work on it.
    #[default]
    Starting,
    /// Made, its process waits for `start` (podman's `init`).
    Initialized,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Waiting for the restart policy's delay.
    Restarting,
}

/// How it ended, last time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// Format of this document.
    pub version: u32,
    /// Exit code, 128 + n for signal n; 125 to 127 when it never ran; -1 unknown (its supervisor was killed).
    pub code: i32,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// When it had been started, nanoseconds since 1970; 0: never.
    pub started_ns: i64,
    /// When it ended, nanoseconds since 1970.
    pub finished_ns: i64,
    /// Why it never ran.
    pub error: String,
    /// Ended by `stop` or `kill` of a user: `unless-stopped` leaves it so.
    pub stopped_by_user: bool,
    /// Restarts until then.
    pub restarts: u32,
    /// Health at the end; `stopped`: a check was cut short by it. Empty without a check.
    pub health: String,
    /// Failed checks in a row.
    pub health_failing: u32,
    /// The last checks.
    pub health_log: Vec<HealthResult>,
    /// Where its log is.
    pub log_path: Option<String>,
}

impl Exit {
    /// The start failed.
    pub fn never_ran(&self) -> bool {
        self.started_ns == 0 && !self.error.is_empty()
    }
}

/// The state as people see it, with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Never started.
    Created,
    /// Supervised.
    Live(Status),
    /// Ended.
    Exited(Exit),
}

impl State {
    /// podman's word for it: what could not be started is still only created.
    pub fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Exited(exit) if exit.never_ran() => "created",
            State::Exited(_) => "exited",
            State::Live(status) => match status.phase {
                Phase::Starting | Phase::Initialized => "initialized",
                Phase::Running if status.stopping => "stopping",
                Phase::Running => "running",
                Phase::Paused => "paused",
                Phase::Restarting => "restarting",
            },
        }
    }

    /// Whether a process of it exists.
    pub fn is_live(&self) -> bool {
        matches!(self, State::Live(_))
    }
}

impl ContainerRecord {
    /// Where `config.json` is.
    pub fn path(layout: &Layout, id: &Id) -> PathBuf {
        layout.container(id).join("config.json")
    }

    /// Read a record.
    ///
    /// # Errors
    /// Names the file when it is missing or not ours.
    pub fn load(layout: &Layout, id: &Id) -> Result<ContainerRecord> {
        let path = ContainerRecord::path(layout, id);
        let record: ContainerRecord =
            file::read_json(&path)?.with_context(|| format!("read {}: no such file", path.display()))?;
        anyhow::ensure!(
            record.version <= VERSION,
            "{} has version {}, this coracle knows {VERSION}",
            path.display(),
            record.version
        );
        Ok(record)
    }

    /// Write it again (`update`, `rename`), under the container's lock.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        let path = ContainerRecord::path(layout, &self.id);
        file::replace(&path, &self.document()?, Durability::Durable)
            .with_context(|| format!("write {}", path.display()))
    }

    /// The text of `config.json`. What was not asked for is left out: whoever lists a thousand containers reads a third.
    pub fn document(&self) -> Result<Vec<u8>> {
        let mut document = serde_json::to_value(self)?;
        // Two levels: what is deeper need not have a default of its own.
        leave_out(&mut document["spec"], &serde_json::to_value(ContainerSpec::default())?, 2);
        Ok(serde_json::to_vec(&document)?)
    }

    /// An event about it.
    pub fn event(&self, status: &str) -> Event {
        Event {
            kind: "container".to_owned(),
            status: status.to_owned(),
            id: self.id.to_string(),
            name: self.name.clone(),
            image: self.image.as_ref().map(|image| image.name.clone()).unwrap_or_default(),
            attributes: self.spec.labels.clone(),
            ..Event::default()
        }
    }

    /// The containers it cannot be without: whose namespaces it joins, and which it requires.
    pub fn needed(&self) -> Vec<Id> {
        let (spec, spaces) = (&self.spec, &self.spec.namespaces);
        let joined = [Some(&spaces.pid), Some(&spaces.ipc), Some(&spaces.uts), spaces.cgroup.as_ref()];
        let joined = joined.into_iter().flatten().filter_map(|mode| match mode {
            NamespaceMode::Container(other) => Some(other),
            _ => None,
        });
        let network = spec.network.mode.iter().filter_map(|mode| match mode {
            NetworkMode::Container(other) => Some(other),
            _ => None,
        });
        let user = match &spec.userns {
            UserNamespace::Container(other) => Some(other),
            _ => None,
        };
        let all = joined.chain(network).chain(user).chain(&spec.lifecycle.requires);
        let mut needed: Vec<Id> = all.filter_map(|other| Id::parse(other).ok()).collect();
        needed.sort();
        needed.dedup();
        needed
    }

    /// Whether nobody will read the record after a crash: it goes with its process.
    pub fn durability(&self) -> Durability {
        if self.spec.lifecycle.remove { Durability::Volatile } else { Durability::Durable }
    }
}

/// Take out the fields of an object that are as in this one. So a default of [`ContainerSpec`] is part of the format:
/// who changes one raises [`VERSION`].
fn leave_out(value: &mut Value, default: &Value, levels: u32) {
    let (Some(fields), Some(defaults)) = (value.as_object_mut(), default.as_object()) else { return };
    fields.retain(|name, value| {
        let Some(default) = defaults.get(name) else { return true };
        if value == default {
            return false;
        }
        if levels > 1 {
            leave_out(value, default, levels - 1);
        }
        true
    });
}

/// Note with each container this one needs that it does, before it can be seen itself. So a removal asks one directory
/// and not every record; a note whose container is not there is of one that was cut off or is gone.
///
/// # Errors
/// A container that is needed is gone.
pub fn note_needs(layout: &Layout, record: &ContainerRecord) -> Result<()> {
    for needed in record.needed() {
        let directory = layout.dependents(&needed);
        let note = directory.join(record.id.as_str());
        let made = match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) if record.durability() == Durability::Durable => file::sync_directory(&layout.container(&needed)),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        made.and_then(|()| file::create_new(&note, b"", record.durability()))
            .with_context(|| format!("make {}", note.display()))?;
    }
    Ok(())
}

/// The containers that need this one.
pub fn dependents(layout: &Layout, id: &Id) -> Result<Vec<Id>> {
    let directory = layout.dependents(id);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let ids = entries.flatten().filter_map(|entry| Id::parse(&entry.file_name().to_string_lossy()).ok());
    Ok(ids.filter(|other| layout.container(other).exists()).collect())
}

/// What is true of a container now. Costs one look at a lock and one read.
///
/// A container whose supervisor died without a word is reported as exited with code -1.
pub fn state(layout: &Layout, id: &Id) -> Result<State> {
    if is_alive(layout, id)? {
        let path = layout.running(id).join("status.json");
        // Between taking `alive` and the first status there is nothing to read: it is starting.
        return Ok(State::Live(file::read_json(&path)?.unwrap_or_default()));
    }
    state_of_dead(layout, id)
}

/// Where its end is kept while DATA takes nothing.
pub fn kept_exit(layout: &Layout, id: &Id) -> PathBuf {
    layout.running(id).join("exit.json")
}

/// What is true of a container that nobody supervises.
pub fn state_of_dead(layout: &Layout, id: &Id) -> Result<State> {
    let exit: Option<Exit> = file::read_json(&layout.container(id).join("exit.json"))?;
    let kept: Option<Exit> = file::read_json(&kept_exit(layout, id))?;
    let exit = exit.into_iter().chain(kept).max_by_key(|exit| exit.finished_ns);
    // A status without a living supervisor is an orphan's: newer than any exit that was written before it.
    let orphan: Option<Status> = file::read_json(&layout.running(id).join("status.json"))?;
    Ok(match (exit, orphan) {
        (exit, Some(status)) if exit.as_ref().is_none_or(|exit| exit.finished_ns < status.started_ns) => {
            State::Exited(Exit {
                version: VERSION,
                code: -1,
                started_ns: status.started_ns,
                finished_ns: status.started_ns,
                error: "its supervisor was killed".to_owned(),
                restarts: status.restarts,
                log_path: status.log_path,
                ..Exit::default()
            })
        }
        (Some(exit), _) => State::Exited(exit),
        (None, _) => State::Created,
    })
}

/// Whether a supervisor holds the container's `alive`.
pub fn is_alive(layout: &Layout, id: &Id) -> Result<bool> {
    let path = layout.alive(id);
    match std::fs::File::open(&path).and_then(|file| lock::is_held(&file)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        result => result.with_context(|| format!("look at {}", path.display())),
    }
}

/// The ids of all containers, in no order. Entries that are no container's are passed over.
pub fn list(layout: &Layout) -> Result<Vec<Id>> {
    let entries = match std::fs::read_dir(layout.containers()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", layout.containers().display())),
    };
    Ok(entries.flatten().filter_map(|entry| Id::parse(&entry.file_name().to_string_lossy()).ok()).collect())
}

/// Find a container by name, whole id, or unambiguous beginning of an id. `Ok(None)`: there is none.
pub fn find(layout: &Layout, wanted: &str) -> Result<Option<Id>> {
    // Docker's names begin with a slash.
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    if crate::model::id::check_name(wanted).is_err() {
        return Ok(None);
    }
    if let Some(id) = name::owner(layout, wanted)?
        && layout.container(&id).exists()
    {
        return Ok(Some(id));
    }
    if let Ok(id) = Id::parse(wanted) {
        return Ok(layout.container(&id).exists().then_some(id));
    }
    if !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut matching = list(layout)?.into_iter().filter(|id| id.as_str().starts_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(Some(id)),
        (Some(_), Some(_)) => anyhow::bail!("more than one result for container ID {wanted}"),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_is_left_out_and_comes_back() {
        let mut record = ContainerRecord {
            version: VERSION,
            id: Id::from_random([7; 32]),
            name: "web".to_owned(),
            created_ns: 5,
            image: None,
            layers: Vec::new(),
            id_maps: IdMaps::default(),
            spec: ContainerSpec::default(),
        };
        let back = |record: &ContainerRecord| {
            let text = record.document().unwrap();
            assert_eq!(&serde_json::from_slice::<ContainerRecord>(&text).unwrap(), record);
            serde_json::from_slice::<Value>(&text).unwrap()
        };
        assert_eq!(back(&record)["spec"], serde_json::json!({}));
        record.spec.process.command = vec!["sh".to_owned()];
        record.spec.labels.insert("a".to_owned(), String::new());
        record.spec.network.mode = Some(NetworkMode::None);
        record.spec.lifecycle.stop_timeout_s = Some(0);
        let expected = serde_json::json!({
            "process": {"command": ["sh"]}, "labels": {"a": ""}, "network": {"mode": "none"}, "lifecycle": {"stop_timeout_s": 0},
        });
        assert_eq!(back(&record)["spec"], expected);
    }
}
