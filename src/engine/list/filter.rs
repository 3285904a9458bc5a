//! `--filter KEY=VALUE` of `ps` and of all verbs that choose containers: values of one key are alternatives, keys must
//! all hold.

use super::Listed;
use crate::engine::{Engine, moment};
use crate::model::container::Restart;
use crate::model::mount::MountSource;
use crate::model::network::NetworkMode;
use crate::state::container::State;
use crate::state::event::now_ns;
use anyhow::{Context, Result, anyhow, bail};
use regex_lite::Regex;
use std::collections::BTreeMap;

/// All filters of a command line, ready to be used.
#[derive(Debug, Default)]
pub struct Filters(Vec<Filter>);

/// One key with its values.
#[derive(Debug)]
pub enum Filter {
    /// Beginnings of ids.
    Id(Vec<String>),
    /// Patterns of names.
    Name(Vec<Regex>),
    /// Labels that must all be there.
    Label(Vec<String>),
    /// Labels none of which may be there.
    NoLabel(Vec<String>),
    /// Annotations that must all be there.
    Annotation(Vec<String>),
    /// Words for states.
    Status(Vec<String>),
    /// Exit codes.
    Exited(Vec<i32>),
    /// Images, by a part of the id or a pattern of the name.
    Ancestor(Vec<(String, Option<Regex>)>),
    /// Made before this moment.
    Before(i64),
    /// Made after this moment.
    Since(i64),
    /// Volume names, sources or targets.
    Volume(Vec<String>),
    /// States of health.
    Health(Vec<String>),
    /// Networks, or `container:ID`.
    Network(Vec<String>),
    /// Restart policies.
    RestartPolicy(Vec<String>),
    /// Patterns of the first word of the command.
    Command(Vec<Regex>),
    /// Started again after boot, or not.
    StartOnBoot(bool),
    /// Pods: no container has one.
    Pod,
}

/// The key is none of ours.
#[derive(Debug)]
pub struct Unknown(String);

impl std::fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} is an invalid filter", self.0)
    }
}

impl std::error::Error for Unknown {}

/// podman's words for states.
const STATES: [&str; 12] = [
    "created",
    "initialized",
    "running",
    "stopped",
    "paused",
    "exited",
    "unknown",
    "removing",
    "stopping",
    "restarting",
    "configured",
    "dead",
];

impl Filters {
    /// Of words `KEY=VALUE`.
    pub fn parse(engine: &Engine, words: &[String]) -> Result<Filters> {
        let mut keys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for word in words {
            let (key, value) = split(word).with_context(|| format!("invalid filter {word:?}"))?;
            keys.entry(key).or_default().push(value.to_owned());
        }
        let filters = keys.into_iter().map(|(key, values)| Filter::new(engine, key, values)).collect::<Result<_>>()?;
        Ok(Filters(filters))
    }

    /// Whether a container passes them all.
    pub fn hold(&self, container: &Listed) -> bool {
        self.0.iter().all(|filter| filter.holds(container))
    }

    /// Whether states are asked for: then those that do not run are looked at too.
    pub fn choose_states(&self) -> bool {
        self.0.iter().any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)))
    }
}

/// `label!=x` is the key `label!`.
fn split(word: &str) -> Option<(&str, &str)> {
    match word.split_once("!=") {
        Some(("label", value)) => Some(("label!", value)),
        _ => word.split_once('='),
    }
}

fn patterns(values: &[String]) -> Result<Vec<Regex>> {
    values.iter().map(|value| Regex::new(value).with_context(|| format!("invalid pattern {value:?}"))).collect()
}

impl Filter {
    /// One key with its values.
    ///
    /// # Errors
    /// [`Unknown`] for the key; values that mean nothing.
    pub fn new(engine: &Engine, key: &str, values: Vec<String>) -> Result<Filter> {
        Ok(match key {
            "id" => Filter::Id(values),
            "name" => {
                // Docker's names begin with a slash.
                Filter::Name(patterns(&values.iter().map(|value| value.replace('/', "")).collect::<Vec<_>>())?)
            }
            "label" => Filter::Label(values),
            "label!" => Filter::NoLabel(values),
            "annotation" => Filter::Annotation(values),
            "status" => {
                if let Some(value) = values.iter().find(|value| !STATES.contains(&value.as_str())) {
                    bail!("unknown container state: {value}: invalid argument");
                }
                Filter::Status(values)
            }
            "exited" => {
                let code = |value: &String| value.parse().map_err(|_| anyhow!("exited code out of range {value:?}"));
                Filter::Exited(values.iter().map(code).collect::<Result<_>>()?)
            }
            "ancestor" => {
                Filter::Ancestor(values.into_iter().map(|value| (value.clone(), Regex::new(&value).ok())).collect())
            }
            "before" | "since" => {
                let created = |value: &String| super::get(engine, value).map(|container| container.record.created_ns);
                let moments = values.iter().map(created).collect::<Result<Vec<_>>>()?;
                let moment = moments.into_iter().min().unwrap_or_default();
                if key == "before" { Filter::Before(moment) } else { Filter::Since(moment) }
            }
            "until" => {
                let [value] = values.as_slice() else { bail!("specify exactly one timestamp for until") };
                Filter::Before(moment::parse(value, now_ns())?)
            }
            "volume" => Filter::Volume(values),
            "health" => Filter::Health(values),
            "network" => Filter::Network(values.iter().map(|value| network(engine, value)).collect()),
            "pod" => Filter::Pod,
            "restart-policy" => {
                let known = ["none", "no", "always", "on-failure", "unless-stopped", ""];
                let unknown: Vec<&str> =
                    values.iter().map(String::as_str).filter(|value| !known.contains(value)).collect();
                match unknown.len() {
                    0 => Filter::RestartPolicy(values),
                    1 => bail!("{} invalid restart policy", unknown.join(", ")),
                    _ => bail!("{} invalid restart policies", unknown.join(", ")),
                }
            }
            "command" => Filter::Command(patterns(&values)?),
            "should-start-on-boot" => {
                let value = values.last().map_or("", String::as_str);
                match value {
                    "true" | "1" | "t" | "T" | "True" | "TRUE" => Filter::StartOnBoot(true),
                    "false" | "0" | "f" | "F" | "False" | "FALSE" => Filter::StartOnBoot(false),
                    _ => bail!("should-start-on-boot={value}: must be true or false"),
                }
            }
            _ => return Err(Unknown(key.to_owned()).into()),
        })
    }

    /// Whether it holds for a container.
    pub fn holds(&self, container: &Listed) -> bool {
        let record = &container.record;
        let spec = &record.spec;
        match self {
            Filter::Id(ids) => ids.iter().any(|id| {
                record.id.as_str().starts_with(&id.to_ascii_lowercase())
                    || id.contains(['^', '.', '*', '[', '$'])
                        && Regex::new(id).is_ok_and(|pattern| pattern.is_match(record.id.as_str()))
            }),
            Filter::Name(patterns) => patterns.iter().any(|pattern| pattern.is_match(&record.name)),
            Filter::Label(labels) => labels.iter().all(|label| has_label(&spec.labels, label)),
            Filter::NoLabel(labels) => !labels.iter().any(|label| has_label(&spec.labels, label)),
            Filter::Annotation(wanted) => wanted.iter().all(|wanted| has_label(&spec.annotations, wanted)),
            Filter::Status(states) => states.iter().any(|state| {
                let state = if state == "stopped" { "exited" } else { state };
                container.word() == state
            }),
            Filter::Exited(codes) => {
                matches!(&container.state, State::Exited(exit) if !exit.never_ran() && codes.contains(&exit.code))
            }
            Filter::Ancestor(images) => images.iter().any(|(text, pattern)| is_ancestor(container, text, pattern)),
            Filter::Before(moment) => record.created_ns < *moment,
            Filter::Since(moment) => record.created_ns > *moment,
            Filter::Volume(wanted) => wanted.iter().any(|wanted| has_volume(container, wanted)),
            Filter::Health(states) => states.iter().any(|state| match container.health() {
                "" => state == "none",
                health => state == health,
            }),
            Filter::Network(wanted) => match &spec.network.mode {
                Some(NetworkMode::Container(id)) => {
                    wanted.iter().any(|wanted| wanted.strip_prefix("container:") == Some(id))
                }
                _ => container.networks().iter().any(|network| wanted.contains(network)),
            },
            Filter::RestartPolicy(policies) => policies.iter().any(|policy| match spec.lifecycle.restart {
                Restart::No => ["none", "no", ""].contains(&policy.as_str()),
                restart => policy == restart_word(restart),
            }),
            Filter::Command(patterns) => {
                container.command().first().is_some_and(|word| patterns.iter().any(|pattern| pattern.is_match(word)))
            }
            Filter::StartOnBoot(wanted) => {
                let starts = match spec.lifecycle.restart {
                    Restart::Always => true,
                    Restart::UnlessStopped => !matches!(&container.state, State::Exited(exit) if exit.stopped_by_user),
                    _ => false,
                };
                starts == *wanted
            }
            Filter::Pod => false,
        }
    }
}

/// podman's word for a restart policy.
pub fn restart_word(restart: Restart) -> &'static str {
    match restart {
        Restart::No => "no",
        Restart::OnFailure { .. } => "on-failure",
        Restart::Always => "always",
        Restart::UnlessStopped => "unless-stopped",
    }
}

/// `KEY` or `KEY=VALUE`; a `*` at the end of either matches what follows.
pub fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    let matches = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    };
    match wanted.split_once('=') {
        Some((key, value)) => {
            labels.iter().any(|(own, held)| matches(key, own) && (value == held || matches(value, held)))
        }
        None => labels.keys().any(|own| matches(wanted, own)),
    }
}

fn is_ancestor(container: &Listed, text: &str, pattern: &Option<Regex>) -> bool {
    let name = container.image_name();
    if !container.image_id().is_empty() && container.image_id().contains(text.strip_prefix("sha256:").unwrap_or(text)) {
        return true;
    }
    pattern.as_ref().map_or(name.contains(text), |pattern| pattern.is_match(name))
}

fn has_volume(container: &Listed, wanted: &str) -> bool {
    let (source, target) = match wanted.split_once(':') {
        Some((source, target)) => (source, Some(target)),
        None => (wanted, None),
    };
    container.record.spec.mounts.iter().any(|mount| {
        let own = match &mount.source {
            MountSource::Bind { path, .. } => path,
            MountSource::Volume { name: Some(name), .. } => name,
            _ => "",
        };
        match target {
            Some(target) => own == source && mount.target == target,
            None => mount.target == source || own == source,
        }
    })
}

/// `bridge` and `podman` are our default network; a container is known by its id.
fn network(engine: &Engine, value: &str) -> String {
    if let Some(name) = value.strip_prefix("container:")
        && let Ok(Some(id)) = crate::state::container::find(&engine.layout, name)
    {
        return format!("container:{id}");
    }
    match value {
        "bridge" | "podman" | "default" => "coracle".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::list::tests::container;

    fn holds(key: &str, value: &str) -> bool {
        let layout = crate::state::layout::Layout::new("/nowhere".into(), "/nowhere".into());
        let privilege = crate::host::userns::outside(&crate::host::userns::Caller::current());
        let engine = Engine { layout, privilege, cgroup_manager: None, arguments: Vec::new() };
        Filters::parse(&engine, &[format!("{key}={value}")])
            .unwrap_or_else(|error| panic!("{error:#}"))
            .hold(&container("docker.io/library/nginx:latest"))
    }

    #[test]
    fn keys() {
        for (key, value, expected) in [
            ("id", "abab", true),
            ("id", "cd", false),
            ("name", "web", true),
            ("name", "^/?web-1$", true),
            ("name", "^eb", false),
            ("label", "team", true),
            ("label", "team=one", true),
            ("label", "team=two", false),
            ("label", "te*", true),
            ("label!", "team", false),
            ("label!", "other", true),
            ("status", "exited", true),
            ("status", "stopped", true),
            ("status", "running", false),
            ("exited", "3", true),
            ("exited", "0", false),
            ("ancestor", "nginx", true),
            ("ancestor", "docker.io/library/nginx:latest", true),
            ("ancestor", "nginx:1", false),
            ("ancestor", "alpine", false),
            ("ancestor", "cdcd", true),
            ("until", "1", true),
            ("health", "none", true),
            ("restart-policy", "none", true),
            ("restart-policy", "always", false),
            ("command", "ngin", true),
            ("should-start-on-boot", "false", true),
            ("pod", "x", false),
        ] {
            assert_eq!(holds(key, value), expected, "{key}={value}");
        }
    }
}
