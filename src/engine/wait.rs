//! Wait for a container to end, or to be in a state.

use crate::engine::Engine;
use crate::model::id::Id;
use crate::state::container::{self, State};
use crate::supervisor::client;
use crate::supervisor::message::{Reply, Request};
use anyhow::{Result, bail};
use std::time::Duration;

/// States that can be waited for, with podman's words.
pub const CONDITIONS: [&str; 12] = [
    "configured",
    "created",
    "exited",
    "healthy",
    "initialized",
    "paused",
    "removing",
    "running",
    "stopped",
    "stopping",
    "unhealthy",
    "unknown",
];

/// Wait until the container has ended; its exit code, 0 for one that never ran, -1 for one that was removed.
pub fn wait(engine: &Engine, id: &Id) -> Result<i32> {
    loop {
        if let Some(connection) = client::connect(&engine.layout, id)? {
            match connection.ask(&Request::Wait, &[]) {
                Ok((Reply::Exited { code, .. }, _)) => return Ok(code),
                Ok(_) => bail!("wait: an unknown answer"),
                // Killed, or it ended while we spoke: what is on disk tells.
                Err(_) if !container::is_alive(&engine.layout, id)? => {}
                Err(error) => return Err(error),
            }
        }
        match container::state(&engine.layout, id)? {
            State::Live(_) => {}
            State::Exited(exit) => return Ok(exit.code),
            State::Created if engine.layout.container(id).exists() => return Ok(0),
            State::Created => return Ok(-1),
        }
    }
}

/// Wait until the container is in one of these states, looking every `interval`.
pub fn wait_for(engine: &Engine, id: &Id, conditions: &[String], interval: Duration) -> Result<i32> {
    let ends = |condition: &String| matches!(condition.as_str(), "exited" | "stopped");
    if conditions.is_empty() || conditions.iter().all(ends) {
        return wait(engine, id);
    }
    loop {
        let state = container::state(&engine.layout, id)?;
        let gone = !engine.layout.container(id).exists();
        if conditions.iter().any(|condition| is_in(&state, gone, condition)) {
            return Ok(match state {
                State::Exited(exit) => exit.code,
                _ => -1,
            });
        }
        if gone {
            return Ok(-1);
        }
        std::thread::sleep(interval);
    }
}

fn is_in(state: &State, gone: bool, condition: &str) -> bool {
    match (condition, state) {
        ("removing", _) => gone,
        ("configured" | "created", State::Created) => !gone,
        ("stopped", State::Exited(_)) => true,
        ("healthy" | "unhealthy", State::Live(status)) => status.health == condition,
        _ => state.word() == condition,
    }
}
