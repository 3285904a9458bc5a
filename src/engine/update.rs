//! Change a container that is there: its limits at once, the rest from its next start on.

use crate::bundle::resource;
use crate::engine::Engine;
use crate::engine::create::{event_of, find};
use crate::host::device;
use crate::model::container::{ContainerSpec, Restart};
use crate::model::id::Id;
use crate::model::resource::Resources;
use crate::runtime::cgroup::{Cgroup, Saved};
use crate::state::container::{self, ContainerRecord, State};
use crate::state::event;
use crate::state::lock::{self, Mode, Rank};
use crate::supervisor::client;
use crate::supervisor::message::Request;
use anyhow::{Context, Result, bail};

/// Let `change` change the spec; limits that changed are set on the running container first, so that the record never
/// says what the kernel has refused.
pub fn update(engine: &Engine, name: &str, change: impl FnOnce(&mut ContainerSpec) -> Result<()>) -> Result<Id> {
    let layout = &engine.layout;
    let id = find(engine, name)?;
    let _guard = lock::lock(&layout.container(&id), Rank::Container, Mode::Exclusive)?;
    let mut record = ContainerRecord::load(layout, &id)?;
    let before = record.spec.clone();
    change(&mut record.spec)?;
    if record.spec == before {
        return Ok(id);
    }
    if record.spec.lifecycle.remove && matches!(record.spec.lifecycle.restart, Restart::Always | Restart::UnlessStopped)
    {
        bail!("cannot set the restart policy of a container that removes itself (--rm)");
    }
    if record.spec.resources != before.resources
        && let State::Live(status) = container::state(layout, &id)?
    {
        let saved: Saved = serde_json::from_value(status.cgroup).unwrap_or_default();
        set_limits(saved, &record.spec.resources).with_context(|| format!("update {name}"))?;
    }
    record.save(layout)?;
    let checks = |spec: &ContainerSpec| (spec.health.clone(), spec.health_policy.clone());
    if checks(&record.spec) != checks(&before)
        && let Some(connection) = client::connect(layout, &id)?
    {
        connection.ask(&Request::RenewHealth, &[]).with_context(|| format!("update {name}"))?;
    }
    event::record(layout, event_of(&record, "update"));
    Ok(id)
}

fn set_limits(saved: Saved, wanted: &Resources) -> Result<()> {
    let mut numbers = resource::BlockDevices::new();
    for path in resource::block_device_paths(wanted) {
        numbers.insert(path.to_owned(), device::block_number(path)?);
    }
    Cgroup::open(saved).update(&resource::limits(wanted, None, &numbers)?)
}
