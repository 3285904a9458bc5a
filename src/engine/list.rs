//! Many containers at once: all there are, with their states, and the ones that filters choose.
//!
//! One readdir of RUN tells which containers may be alive, so that a stopped one costs two reads and no lock. What
//! cannot be read is told and passed over: one bad record hides no other container.

mod filter;

pub use filter::{Filters, has_label, restart_word};

use crate::engine::Engine;
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord, Exit, State};
use crate::state::file;
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::ffi::OsString;

/// A container and what is true of it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What was created.
    pub record: ContainerRecord,
    /// How it is.
    pub state: State,
}

/// Which containers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those with a supervisor.
    Live,
}

/// All containers of a scope, oldest first, and what could not be read.
pub fn list(engine: &Engine, scope: Scope) -> Result<(Vec<Listed>, Vec<anyhow::Error>)> {
    let running = running(engine)?;
    let ids = match scope {
        Scope::All => container::list(&engine.layout)?,
        Scope::Live => running.iter().filter_map(|name| Id::parse(&name.to_string_lossy()).ok()).collect(),
    };
    let (mut containers, mut errors) = read_all(engine, &ids, &running);
    if scope == Scope::Live {
        containers.retain(|container| container.state.is_live());
    }
    containers.sort_by(|one, other| {
        (one.record.created_ns, &one.record.id).cmp(&(other.record.created_ns, &other.record.id))
    });
    errors.sort_by_key(ToString::to_string);
    Ok((containers.into_iter().map(|container| *container).collect(), errors))
}

/// One container by name or id.
pub fn get(engine: &Engine, name: &str) -> Result<Listed> {
    let id = crate::engine::create::find(engine, name)?;
    let record = ContainerRecord::load(&engine.layout, &id)?;
    let state = container::state(&engine.layout, &id)?;
    Ok(Listed { record, state })
}

/// The one that was created last (`--latest`).
pub fn latest(engine: &Engine) -> Result<Listed> {
    let (mut containers, _) = list(engine, Scope::All)?;
    containers.pop().context("no containers found: no such container")
}

/// The names in RUN/containers.
fn running(engine: &Engine) -> Result<HashSet<OsString>> {
    let path = engine.layout.run().join("containers");
    match std::fs::read_dir(&path) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.file_name()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Above this number reading is shared among the processors.
const ALONE_MAX: usize = 64;

/// In boxes, for a record is large, and they are moved about until they are in order.
fn read_all(engine: &Engine, ids: &[Id], running: &HashSet<OsString>) -> (Vec<Box<Listed>>, Vec<anyhow::Error>) {
    let workers = match ids.len() {
        0..ALONE_MAX => 1,
        _ => std::thread::available_parallelism().map_or(1, |number| number.get().min(8)),
    };
    let part = ids.len().div_ceil(workers).max(1);
    let results: Vec<Result<Option<Box<Listed>>>> = if workers == 1 {
        ids.iter().map(|id| read(engine, id, running)).collect()
    } else {
        std::thread::scope(|scope| {
            let handles: Vec<_> = ids
                .chunks(part)
                .map(|ids| scope.spawn(|| ids.iter().map(|id| read(engine, id, running)).collect::<Vec<_>>()))
                .collect();
            handles.into_iter().flat_map(|handle| handle.join().unwrap_or_default()).collect()
        })
    };
    let mut containers = Vec::with_capacity(results.len());
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(container) => containers.extend(container),
            Err(error) => errors.push(error),
        }
    }
    (containers, errors)
}

/// `None`: it was removed while we looked.
fn read(engine: &Engine, id: &Id, running: &HashSet<OsString>) -> Result<Option<Box<Listed>>> {
    let layout = &engine.layout;
    let record = match ContainerRecord::load(layout, id) {
        Ok(record) => record,
        Err(_) if !ContainerRecord::path(layout, id).exists() => return Ok(None),
        Err(error) => return Err(error),
    };
    let state = if running.contains(std::ffi::OsStr::new(id.as_str())) {
        container::state(layout, id)?
    } else {
        match file::read_json::<Exit>(&layout.container(id).join("exit.json"))? {
            Some(exit) => State::Exited(exit),
            None => State::Created,
        }
    };
    Ok(Some(Box::new(Listed { record, state })))
}

impl Listed {
    /// podman's word for the state, as filters and `ps` have it.
    pub fn word(&self) -> &'static str {
        self.state.word()
    }

    /// The first process; 0 when there is none.
    pub fn pid(&self) -> i32 {
        match &self.state {
            State::Live(status) => status.pid,
            _ => 0,
        }
    }

    /// `starting`, `healthy`, `unhealthy`; empty without a check.
    pub fn health(&self) -> &str {
        match &self.state {
            State::Live(status) => &status.health,
            _ => "",
        }
    }

    /// When it was started last, nanoseconds since 1970; 0: never.
    pub fn started_ns(&self) -> i64 {
        match &self.state {
            State::Created => 0,
            State::Live(status) => status.started_ns,
            State::Exited(exit) => exit.started_ns,
        }
    }

    /// When it ended last, nanoseconds since 1970; 0: never, or it runs.
    pub fn finished_ns(&self) -> i64 {
        match &self.state {
            State::Exited(exit) => exit.finished_ns,
            _ => 0,
        }
    }

    /// Exit code of the last run; 0 when there was none.
    pub fn exit_code(&self) -> i32 {
        match &self.state {
            State::Exited(exit) => exit.code,
            _ => 0,
        }
    }

    /// How often the restart policy has started it again.
    pub fn restarts(&self) -> u32 {
        match &self.state {
            State::Created => 0,
            State::Live(status) => status.restarts,
            State::Exited(exit) => exit.restarts,
        }
    }

    /// The whole command: entrypoint and arguments.
    pub fn command(&self) -> Vec<String> {
        let process = &self.record.spec.process;
        process.entrypoint.iter().flatten().chain(&process.command).cloned().collect()
    }

    /// The image's name, empty with `--rootfs`.
    pub fn image_name(&self) -> &str {
        self.record.image.as_ref().map_or("", |image| &image.name)
    }

    /// The image's id, empty with `--rootfs`.
    pub fn image_id(&self) -> &str {
        self.record.image.as_ref().map_or("", |image| &image.id)
    }

    /// Networks it is joined to.
    pub fn networks(&self) -> Vec<String> {
        match &self.record.spec.network.mode {
            Some(crate::model::network::NetworkMode::Networks(endpoints)) => {
                endpoints.iter().map(|endpoint| endpoint.network.clone()).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::container::{ImageUse, VERSION};

    /// A container of this image that has ended with code 3.
    pub(crate) fn container(image: &str) -> Listed {
        let id = crate::model::id::Id::parse(&"ab".repeat(32)).unwrap();
        let mut record = ContainerRecord {
            version: VERSION,
            id,
            name: "web-1".to_owned(),
            created_ns: 100,
            image: Some(ImageUse { id: "cd".repeat(32), name: image.to_owned(), digest: String::new() }),
            layers: Vec::new(),
            id_maps: Default::default(),
            spec: Default::default(),
        };
        record.spec.labels.insert("team".to_owned(), "one".to_owned());
        record.spec.process.command = vec!["nginx".to_owned(), "-g".to_owned()];
        Listed { record, state: State::Exited(Exit { code: 3, ..Exit::default() }) }
    }
}
