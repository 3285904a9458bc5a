//! Remove a container, and clean up after one whose supervisor was killed.

use crate::engine::{Engine, stop};
use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::runtime::cgroup::{Cgroup, Saved};
use crate::state::container::{self, ContainerRecord, Exit, State};
use crate::state::file;
use crate::storage::volume;
use crate::supervisor::acquire::{self, Attachments};
use crate::supervisor::exit;
use anyhow::{Context, Result};

/// How to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Stop it first, and do not mind if parts are missing.
    pub force: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
    /// The stop time-out.
    pub timeout_s: Option<i64>,
    /// And those that depend on it, before it.
    pub dependents: bool,
}

/// Remove a container; gives the ids of all that were removed, in order.
///
/// # Errors
/// Exit code 2 for a running one without `force`.
pub fn remove(engine: &Engine, id: &Id, wish: Wish) -> Result<Vec<Id>> {
    let mut removed = Vec::new();
    remove_into(engine, id, wish, &mut removed)?;
    Ok(removed)
}

fn remove_into(engine: &Engine, id: &Id, wish: Wish, removed: &mut Vec<Id>) -> Result<()> {
    let dependents = container::dependents(&engine.layout, id)?;
    if !dependents.is_empty() && !wish.dependents {
        let list: Vec<String> = dependents.iter().map(Id::to_string).collect();
        let (id, list) = (id.to_string(), list.join(", "));
        return Err(Failure::new(
            Kind::Engine,
            format!("container {id} has dependent containers which must be removed before it: {list}: container already exists"),
        )
        .hint("remove them first, or all at once with --depend")
        .into());
    }
    for dependent in &dependents {
        if !removed.contains(dependent) {
            remove_into(engine, dependent, wish, removed)?;
        }
    }
    let record = match ContainerRecord::load(&engine.layout, id) {
        Ok(record) => Some(record),
        // Its record cannot be read: with force it goes all the same.
        Err(_) if wish.force && engine.layout.container(id).exists() => None,
        Err(error) => return Err(error),
    };
    let state = container::state(&engine.layout, id)?;
    if state.is_live() {
        if !wish.force {
            let word = state.word();
            return Err(Failure::new(
                Kind::InUse,
                format!(
                    "cannot remove container {id} as it is {word} - running or paused containers cannot be removed \
                     without force: container state improper"
                ),
            )
            .hint(format!("stop it first, or use --force: coracle rm -f {}", id.short()))
            .into());
        }
        stop::stop(engine, id, stop::Wish { signal: None, timeout_s: wish.timeout_s })?;
    }
    bury(engine, id, record.as_ref())?;
    if let Some(record) = record.filter(|record| wish.volumes || record.spec.lifecycle.remove) {
        volume::remove_anonymous(&engine.layout, &record)?;
    }
    removed.push(id.clone());
    Ok(())
}

/// Nobody supervises it: what it left is released, then it goes.
fn bury(engine: &Engine, id: &Id, record: Option<&ContainerRecord>) -> Result<()> {
    let Some(alive) = exit::take_alive(&engine.layout, id)? else {
        return Err(Failure::new(Kind::InUse, format!("cannot remove container {id} as it was started again")).into());
    };
    let result = match record {
        Some(record) => {
            release_leftovers(engine, record);
            exit::remove(&engine.layout, record)
        }
        None => exit::remove_unreadable(&engine.layout, id),
    };
    alive.release(&engine.layout, id);
    result
}

/// If the container's supervisor was killed: kill what is left of it, release what it held, and note its end.
pub fn reap_orphan(engine: &Engine, record: &ContainerRecord) -> Result<()> {
    let layout = &engine.layout;
    if !layout.running(&record.id).exists() {
        return Ok(());
    }
    let Some(alive) = exit::take_alive(layout, &record.id)? else { return Ok(()) };
    let state = container::state_of_dead(layout, &record.id)?;
    release_leftovers(engine, record);
    if let State::Exited(exit) = &state
        && exit.code != -1
        && container::kept_exit(layout, &record.id).exists()
    {
        exit::write(layout, record, exit)?;
    }
    if let State::Exited(exit) = state
        && exit.code == -1
    {
        exit::write(layout, record, &Exit { finished_ns: crate::state::event::now_ns(), ..exit })?;
    }
    if record.spec.lifecycle.remove {
        exit::remove(layout, record).with_context(|| format!("remove {}", record.name))?;
    }
    alive.release(layout, &record.id);
    Ok(())
}

/// What a killed supervisor could not release.
fn release_leftovers(engine: &Engine, record: &ContainerRecord) {
    let running = engine.layout.running(&record.id);
    let status: Option<container::Status> = file::read_json(&running.join("status.json")).ok().flatten();
    if let Some(status) = status
        && let Ok(saved) = serde_json::from_value::<Saved>(status.cgroup)
    {
        let mut cgroup = Cgroup::open(saved);
        if cgroup.exists() {
            let _ = cgroup.kill();
            let _ = cgroup.delete();
        }
    }
    let held: Option<Attachments> = file::read_json(&running.join("attachments.json")).ok().flatten();
    if let Some(held) = held {
        let _ = acquire::release(&engine.layout, &held);
    }
}
