//! Give a container another name.

use crate::engine::Engine;
use crate::engine::create::{event_of, find};
use crate::failure::{Failure, Kind};
use crate::model::id;
use crate::state::container::ContainerRecord;
use crate::state::event;
use crate::state::lock::{self, Mode, Rank};
use crate::state::name::{self, Names};
use anyhow::{Context, Result};

/// Rename. The new name is taken before the record says it, and the old one is free only after: whenever it is cut
/// short, both names lead to this container or the record's name does.
pub fn rename(engine: &Engine, container: &str, new: &str) -> Result<()> {
    id::check_name(new)?;
    let layout = &engine.layout;
    let id = find(engine, container)?;
    let _guard = lock::lock(&layout.container(&id), Rank::Container, Mode::Exclusive)?;
    let mut record = ContainerRecord::load(layout, &id)?;
    let old = std::mem::replace(&mut record.name, new.to_owned());
    if old == new {
        return Err(taken(container, new).into());
    }
    {
        let names = Names::lock(layout)?;
        match names.take(new, &id)? {
            None => {}
            // Our own, from a rename that was cut short.
            Some(owner) if owner == id => {}
            Some(_) => return Err(taken(container, new).into()),
        }
    }
    if let Err(error) = record.save(layout) {
        let _ = name::release(layout, new, &id);
        return Err(error).context(format!("rename {container}"));
    }
    name::release(layout, &old, &id)?;
    event::record(layout, event_of(&record, "rename"));
    Ok(())
}

fn taken(container: &str, new: &str) -> Failure {
    Failure::new(
        Kind::Engine,
        format!("renaming container {container}: name {new:?} is in use: container already exists"),
    )
}
