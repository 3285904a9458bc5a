//! Freeze and thaw a container.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord};
use crate::state::event;
use crate::supervisor::client;
use crate::supervisor::message::Request;
use anyhow::{Context, Result};

/// Freeze all processes of a running container.
pub fn pause(engine: &Engine, id: &Id) -> Result<()> {
    ask(engine, id, &Request::Pause, "pause")
}

/// Let them go on.
pub fn unpause(engine: &Engine, id: &Id) -> Result<()> {
    ask(engine, id, &Request::Unpause, "unpause")
}

fn ask(engine: &Engine, id: &Id, request: &Request, verb: &str) -> Result<()> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    let Some(connection) = client::connect(&engine.layout, id)? else {
        let text = match verb {
            "pause" => {
                let word = container::state(&engine.layout, id)?.word();
                format!("{word:?} is not running, can't pause: container state improper")
            }
            _ => format!("{:?} is not paused, can't unpause: container state improper", id.as_str()),
        };
        return Err(Failure::new(Kind::Engine, text).into());
    };
    connection.ask(request, &[]).with_context(|| format!("{verb} {}", record.name))?;
    event::record(&engine.layout, record.event(verb));
    Ok(())
}
