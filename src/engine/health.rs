//! Run a container's health check now.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::model::health::Healthcheck;
use crate::model::id::Id;
use crate::state::container::ContainerRecord;
use crate::supervisor::client;
use crate::supervisor::message::{Reply, Request};
use anyhow::{Result, bail};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Good,
    /// It failed.
    Bad,
    /// The container ended first.
    Stopped,
}

/// Run the check.
pub fn check(engine: &Engine, id: &Id) -> Result<Outcome> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    if !record.spec.health.as_ref().is_some_and(Healthcheck::runs) {
        return Err(Failure::new(Kind::Engine, format!("container {id} has no defined healthcheck")).into());
    }
    let Some(connection) = client::connect(&engine.layout, id)? else {
        return Err(Failure::new(Kind::Engine, format!("container {id} is not running")).into());
    };
    match connection.ask(&Request::CheckHealth, &[])? {
        (Reply::Checked { good: true }, _) => Ok(Outcome::Good),
        (Reply::Checked { good: false }, _) => Ok(Outcome::Bad),
        (Reply::Exited { .. }, _) => Ok(Outcome::Stopped),
        _ => bail!("check the container's health: an unknown answer"),
    }
}
