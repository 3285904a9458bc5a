//! `--filter KEY=VALUE` of everything that chooses containers: `ps`, `rm`, `stop`, `start`, `prune`, …
//!
//! Values of one key are alternatives (labels are not: all must be there), keys are conditions that must all hold.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::model::container::Restart;
use crate::model::mount::MountSource;
use crate::model::unit;
use crate::state::container::{self, ContainerRecord, State};
use crate::state::event::now_ns;
use anyhow::{Context, Result, bail};
use regex_lite::Regex;
use std::collections::BTreeMap;

/// What a container must be like.
#[derive(Debug, Default)]
pub struct Filters {
    conditions: Vec<Condition>,
}

#[derive(Debug)]
enum Condition {
    /// One of these holds.
    Any(Vec<Test>),
    /// All of these hold.
    All(Vec<Test>),
}

#[derive(Debug)]
enum Test {
    Id(Regex),
    Name(Regex),
    Label {
        key: String,
        value: Option<String>,
        wanted: bool,
    },
    Annotation {
        key: String,
        value: Option<String>,
    },
    Status(String),
    Exited(i32),
    Ancestor(String),
    CreatedBefore(i64),
    CreatedAfter(i64),
    Volume(String),
    Network(String),
    Health(String),
    Restart(String),
    StartsOnBoot(bool),
    Command(String),
    /// No container is in a pod yet.
    Nothing,
}

impl Filters {
    /// Parse what was typed.
    pub fn parse(engine: &Engine, words: &[String]) -> Result<Filters> {
        let mut by_key: BTreeMap<&str, Vec<Test>> = BTreeMap::new();
        for word in words {
            let (key, value) = match word.split_once("!=") {
                // `label!=key=value`
                Some((key, value)) if !key.contains('=') => (format!("{key}!"), value),
                _ => word.split_once('=').map(|(key, value)| (key.to_owned(), value)).unwrap_or_default(),
            };
            if key.is_empty() {
                bail!("invalid filter {word:?}");
            }
            let (known, test) = test(engine, &key, value)?;
            by_key.entry(known).or_default().push(test);
        }
        let conditions = by_key.into_iter().map(|(key, tests)| match key {
            "label" | "label!" | "annotation" | "before" | "since" | "until" => Condition::All(tests),
            _ => Condition::Any(tests),
        });
        Ok(Filters { conditions: conditions.collect() })
    }

    /// Whether a container is as wanted.
    pub fn match_container(&self, record: &ContainerRecord, state: &State) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Any(tests) => tests.iter().any(|test| test.holds(record, state)),
            Condition::All(tests) => tests.iter().all(|test| test.holds(record, state)),
        })
    }
}

/// One word, under the key's one name.
fn test(engine: &Engine, key: &str, value: &str) -> Result<(&'static str, Test)> {
    let regex = |text: &str| Regex::new(text).with_context(|| format!("filter {key}={value}"));
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    };
    Ok(match key {
        "id" => ("id", Test::Id(regex(&format!("^{value}"))?)),
        "name" => ("name", Test::Name(regex(value)?)),
        "label" | "label!" => {
            let wanted = key == "label";
            let (key, value) = pair(value);
            (if wanted { "label" } else { "label!" }, Test::Label { key, value, wanted })
        }
        "annotation" => {
            let (key, value) = pair(value);
            ("annotation", Test::Annotation { key, value })
        }
        "status" => {
            const STATES: [&str; 12] = [
                "created",
                "initialized",
                "running",
                "stopped",
                "paused",
                "exited",
                "unknown",
                "stopping",
                "removing",
                "restarting",
                "configured",
                "dead",
            ];
            if !STATES.contains(&value) {
                bail!("{value:?} is not a valid container status: filter status={value}");
            }
            ("status", Test::Status(value.to_owned()))
        }
        "exited" => {
            ("exited", Test::Exited(value.parse().with_context(|| format!("exited code out of range {value:?}"))?))
        }
        "ancestor" => ("ancestor", Test::Ancestor(value.to_owned())),
        "before" => ("before", Test::CreatedBefore(created_of(engine, value)?)),
        "since" => ("since", Test::CreatedAfter(created_of(engine, value)?)),
        "until" => ("until", Test::CreatedBefore(parse_until(value)?)),
        "volume" => ("volume", Test::Volume(value.to_owned())),
        "network" => ("network", Test::Network(value.to_owned())),
        "health" => ("health", Test::Health(value.to_owned())),
        "restart-policy" => ("restart-policy", Test::Restart(value.to_owned())),
        "should-start-on-boot" => (
            "should-start-on-boot",
            Test::StartsOnBoot(value.parse().with_context(|| format!("filter {key}={value}"))?),
        ),
        "command" => ("command", Test::Command(value.to_owned())),
        "pod" => ("pod", Test::Nothing),
        _ => return Err(Failure::new(Kind::Engine, format!("{key} is an invalid filter")).into()),
    })
}

fn created_of(engine: &Engine, name: &str) -> Result<i64> {
    let id = container::find(&engine.layout, name)?;
    let id = id.with_context(|| format!("no container with name or ID {name:?} found: no such container"))?;
    Ok(ContainerRecord::load(&engine.layout, &id)?.created_ns)
}

/// A point in time: Unix seconds, a date, or so long ago.
fn parse_until(text: &str) -> Result<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e9) as i64);
    }
    if let Ok(ago) = unit::parse_duration_ns(text) {
        return Ok(now_ns() - ago as i64);
    }
    let time: jiff::Timestamp = text.parse().with_context(|| format!("filter until={text}"))?;
    Ok(time.as_nanosecond() as i64)
}

impl Test {
    fn holds(&self, record: &ContainerRecord, state: &State) -> bool {
        let spec = &record.spec;
        let matches_pair = |map: &BTreeMap<String, String>, key: &String, value: &Option<String>| {
            map.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        match self {
            Test::Id(regex) => regex.is_match(record.id.as_str()),
            Test::Name(regex) => regex.is_match(&record.name),
            Test::Label { key, value, wanted } => matches_pair(&spec.labels, key, value) == *wanted,
            Test::Annotation { key, value } => matches_pair(&spec.annotations, key, value),
            Test::Status(word) => match word.as_str() {
                "stopped" | "dead" => state.word() == "exited",
                "configured" => state.word() == "created",
                word => state.word() == word,
            },
            Test::Exited(code) => matches!(state, State::Exited(exit) if exit.code == *code),
            Test::Ancestor(wanted) => is_ancestor(record, wanted),
            Test::CreatedBefore(time_ns) => record.created_ns < *time_ns,
            Test::CreatedAfter(time_ns) => record.created_ns > *time_ns,
            Test::Volume(wanted) => spec.mounts.iter().any(|mount| {
                let source = match &mount.source {
                    MountSource::Volume { name, .. } => name.as_deref(),
                    MountSource::Bind { path, .. } => Some(path.as_str()),
                    _ => None,
                };
                let (source_wanted, target) = wanted.split_once(':').unwrap_or((wanted, ""));
                let same = source == Some(source_wanted) || mount.target == source_wanted && target.is_empty();
                same && (target.is_empty() || mount.target == target)
            }),
            Test::Network(wanted) => uses_network(record, wanted),
            Test::Health(wanted) => match state {
                State::Live(status) => status.health == *wanted,
                _ => wanted == "none",
            },
            Test::Restart(wanted) => restart_name(spec.lifecycle.restart) == wanted,
            Test::StartsOnBoot(wanted) => {
                let stopped = matches!(state, State::Exited(exit) if exit.stopped_by_user);
                let starts = match spec.lifecycle.restart {
                    Restart::Always => true,
                    Restart::UnlessStopped => !stopped,
                    Restart::No | Restart::OnFailure { .. } => false,
                };
                starts == *wanted
            }
            Test::Command(wanted) => {
                spec.process.command.first().or(spec.process.entrypoint.iter().flatten().next()) == Some(wanted)
            }
            // No container is in a pod yet.
            Test::Nothing => false,
        }
    }
}

fn is_ancestor(record: &ContainerRecord, wanted: &str) -> bool {
    let Some(image) = &record.image else { return false };
    let bare = image.name.rsplit('/').next().unwrap_or(&image.name);
    let untagged = |name: &str| {
        name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name).to_owned()
    };
    let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    image.name == wanted
        || bare == wanted
        || untagged(&image.name) == wanted
        || untagged(bare) == wanted
        || hex.len() >= 3 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) && image.id.starts_with(hex)
}

fn uses_network(record: &ContainerRecord, wanted: &str) -> bool {
    let network = serde_json::to_value(&record.spec.network).unwrap_or_default();
    let mut found = false;
    search(&network, wanted, &mut found);
    found
}

/// The name stands somewhere in the network's description.
fn search(value: &serde_json::Value, wanted: &str, found: &mut bool) {
    match value {
        serde_json::Value::String(text) => *found |= text == wanted,
        serde_json::Value::Array(items) => items.iter().for_each(|item| search(item, wanted, found)),
        serde_json::Value::Object(fields) => {
            for (key, item) in fields {
                *found |= key == wanted;
                search(item, wanted, found);
            }
        }
        _ => {}
    }
}

/// podman's word for a policy.
pub fn restart_name(restart: Restart) -> &'static str {
    match restart {
        Restart::No => "no",
        Restart::OnFailure { .. } => "on-failure",
        Restart::Always => "always",
        Restart::UnlessStopped => "unless-stopped",
    }
}
