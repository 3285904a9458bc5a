//! `containers.conf`: what the administrator and the user want by default, as podman reads it.
//!
//! Format: containers.conf(5). The files are looked for when somebody asks ([`get`]), once in a process; where there are
//! none that costs a few failed opens. A key that is not here is passed over without a word, as podman does: the page
//! coracle-containers.conf(5) says which are read. Nothing is decided here, the values go to whoever parses the option
//! of the same meaning.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use toml::{Table, Value};

/// All files merged.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `[containers]`.
    pub containers: Containers,
    /// `[engine]`.
    pub engine: EngineTable,
}

/// Defaults of `run` and `create`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Containers {
    pub annotations: Vec<String>,
    pub apparmor_profile: String,
    pub base_hosts_file: String,
    pub cgroupns: String,
    pub cgroups: String,
    pub default_capabilities: Option<Vec<String>>,
    pub default_sysctls: Vec<String>,
    pub default_ulimits: Vec<String>,
    pub devices: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_searches: Vec<String>,
    pub dns_servers: Vec<String>,
    pub env: Vec<String>,
    pub env_host: Option<bool>,
    pub host_containers_internal_ip: String,
    pub http_proxy: Option<bool>,
    pub init: Option<bool>,
    pub ipcns: String,
    pub label: Option<bool>,
    pub log_driver: String,
    pub log_path: String,
    pub log_size_max: Option<i64>,
    pub log_tag: String,
    pub mounts: Vec<String>,
    pub netns: String,
    pub no_hosts: Option<bool>,
    pub oom_score_adj: Option<i32>,
    pub pidns: String,
    pub pids_limit: Option<i64>,
    pub privileged: bool,
    pub read_only: Option<bool>,
    pub seccomp_profile: String,
    pub shm_size: String,
    pub tz: String,
    pub umask: String,
    pub userns: String,
    pub utsns: String,
    pub volumes: Vec<String>,
}

/// Defaults of the engine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct EngineTable {
    pub cgroup_manager: String,
    pub detach_keys: Option<String>,
    pub pull_policy: String,
    pub retry: Option<u32>,
    pub retry_delay: String,
    pub stop_timeout: Option<i64>,
}

/// Read these files after the others. Before the first [`get`].
///
/// # Errors
/// One that is not there, named, or that is not TOML.
pub fn use_modules(modules: &[PathBuf]) -> Result<()> {
    if modules.is_empty() {
        return Ok(());
    }
    let tables = modules.iter().map(|module| read(&find_module(module)?)).collect::<Result<Vec<Table>>>()?;
    MODULES.set(tables).map_err(|_| anyhow!("modules are named once"))
}

static MODULES: OnceLock<Vec<Table>> = OnceLock::new();

/// An absolute path is itself, another name is looked for beside the user's and the system's files.
fn find_module(module: &Path) -> Result<PathBuf> {
    let there = |path: &Path| {
        path.metadata().map(drop).with_context(|| format!("could not resolve module: open {}", path.display()))
    };
    if module.is_absolute() {
        return match there(module) {
            Ok(()) => Ok(module.to_owned()),
            Err(error) => Err(anyhow!("{error}: no such file or directory")),
        };
    }
    let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let system = ["/etc", "/usr/share"].map(PathBuf::from);
    let candidates =
        user.into_iter().chain(system).map(|base| base.join("containers/containers.conf.modules").join(module));
    let candidates: Vec<PathBuf> = candidates.collect();
    let found = candidates.iter().find(|path| path.exists());
    found.cloned().with_context(|| {
        let told: Vec<String> =
            candidates.iter().map(|path| format!("\n\t* open {}: no such file or directory", path.display())).collect();
        format!("could not resolve module: {} errors occurred:{}", told.len(), told.concat())
    })
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The configuration; read at the first call.
///
/// # Errors
/// A file that is not TOML, or a value of the wrong kind.
pub fn get() -> Result<&'static Config> {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config);
    }
    let config = load(variable)?;
    Ok(CONFIG.get_or_init(|| config))
}

fn load(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Config> {
    let mut merged = Table::new();
    if let Some(path) = variable("CONTAINERS_CONF") {
        merge(&mut merged, read(&path)?);
    } else {
        let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        let user = user.map(|directory| directory.join("containers/containers.conf"));
        let system = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"].map(PathBuf::from);
        for path in system.into_iter().chain(user) {
            with_drop_ins(&path, &mut merged)?;
        }
    }
    for module in MODULES.get().into_iter().flatten() {
        merge(&mut merged, module.clone());
    }
    if let Some(path) = variable("CONTAINERS_CONF_OVERRIDE") {
        merge(&mut merged, read(&path)?);
    }
    if merged.is_empty() {
        return Ok(Config::default());
    }
    Value::Table(without_marks(merged)).try_into().context("containers.conf")
}

/// A file, and after it those of the directory beside it, by name. What is not there says nothing.
fn with_drop_ins(path: &Path, merged: &mut Table) -> Result<()> {
    let directory = PathBuf::from(format!("{}.d", path.display()));
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect();
    files.sort();
    for file in std::iter::once(path.to_owned()).chain(files) {
        let missing = |error: &anyhow::Error| {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            matches!(kind, Some(ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory))
        };
        match read(&file) {
            Ok(table) => merge(merged, table),
            Err(error) if missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.parse::<Table>().with_context(|| format!("read {}", path.display()))
}

/// Later files win, key by key. A list replaces the one before, unless `{append=true}` stands in either: the mark stays
/// for the files that follow.
fn merge(base: &mut Table, more: Table) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(more)) => merge(base, more),
            (Some(Value::Array(base)), Value::Array(more)) => {
                let wish = more.iter().chain(base.iter()).find_map(mark);
                if wish != Some(true) {
                    base.clear();
                }
                base.retain(|item| mark(item).is_none());
                base.extend(more.into_iter().filter(|item| mark(item).is_none()));
                if let Some(append) = wish {
                    base.push(Value::Table(Table::from_iter([("append".to_owned(), Value::Boolean(append))])));
                }
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// `{append=BOOL}`.
fn mark(item: &Value) -> Option<bool> {
    item.as_table()?.get("append")?.as_bool()
}

fn without_marks(mut table: Table) -> Table {
    for (_, value) in table.iter_mut() {
        match value {
            Value::Table(below) => *below = without_marks(std::mem::take(below)),
            Value::Array(list) => list.retain(|item| mark(item).is_none()),
            _ => {}
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(texts: &[&str]) -> Config {
        let mut merged = Table::new();
        for text in texts {
            merge(&mut merged, text.parse().unwrap());
        }
        Value::Table(without_marks(merged)).try_into().unwrap()
    }

    #[test]
    fn later_files_win_key_by_key() {
        let config = merged(&[
            "[containers]\numask = \"0022\"\nenv = [\"A=1\"]\nunknown = 3\n[other]\nx = 1",
            "[containers]\nenv = [\"B=2\"]\n[engine]\nretry = 3",
        ]);
        assert_eq!(config.containers.umask, "0022");
        assert_eq!(config.containers.env, ["B=2"]);
        assert_eq!(config.engine.retry, Some(3));
    }

    #[test]
    fn lists_are_appended_where_a_mark_says_so() {
        let first = "[containers]\nenv = [\"A=1\", {append=true}]";
        let more = "[containers]\nenv = [\"B=2\"]";
        assert_eq!(merged(&[first, more, "[containers]\nenv = [\"C=3\"]"]).containers.env, ["A=1", "B=2", "C=3"]);
        assert_eq!(merged(&[first, "[containers]\nenv = [\"B=2\", {append=false}]"]).containers.env, ["B=2"]);
        assert_eq!(merged(&[more, first]).containers.env, ["B=2", "A=1"]);
    }

    #[test]
    fn files_in_their_order() {
        let directory = std::env::temp_dir().join(format!("coracle-config-{}", std::process::id()));
        let base = directory.join("containers");
        std::fs::create_dir_all(base.join("containers.conf.d")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.join(name), text).unwrap();
        write("containers.conf", "[containers]\ntz = \"a\"\numask = \"1\"\nshm_size = \"1\"");
        write("containers.conf.d/1.conf", "[containers]\ntz = \"b\"\numask = \"2\"");
        write("containers.conf.d/2.conf", "[containers]\ntz = \"c\"");
        write("containers.conf.d/3.txt", "nonsense");
        write("override", "[containers]\nshm_size = \"3\"");
        let load = |extra: Option<(&str, &str)>| {
            load(|name| match name {
                "XDG_CONFIG_HOME" => Some(directory.clone()),
                name => extra.filter(|(known, _)| *known == name).map(|(_, file)| base.join(file)),
            })
        };
        let config = load(Some(("CONTAINERS_CONF_OVERRIDE", "override"))).unwrap().containers;
        assert_eq!((&*config.tz, &*config.umask, &*config.shm_size), ("c", "2", "3"));
        assert_eq!(load(Some(("CONTAINERS_CONF", "override"))).unwrap().containers.tz, "");
        assert!(load(Some(("CONTAINERS_CONF", "missing"))).is_err());
        assert!(load(Some(("CONTAINERS_CONF", "containers.conf.d/3.txt"))).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
