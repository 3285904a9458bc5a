//! End a container, or send it a signal. The supervisor keeps the time.

use crate::engine::{Engine, remove};
use crate::failure::{Failure, Kind, Level, note};
use crate::model::id::Id;
use crate::model::signal;
use crate::state::container::{self, ContainerRecord, Phase, State};
use crate::state::event;
use crate::supervisor::client;
use crate::supervisor::message::{Reply, Request};
use anyhow::{Context, Result};

/// How to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Instead of the container's stop signal.
    pub signal: Option<i32>,
    /// Instead of the container's stop time-out; negative: never kill.
    pub timeout_s: Option<i64>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It did not run.
    WasNotRunning,
    /// It has ended.
    Exited {
        /// How.
        code: i32,
        /// It did not obey in time; what to tell the user.
        warning: Option<String>,
    },
}

/// Stop a container and wait until nothing of it is held any more.
pub fn stop(engine: &Engine, id: &Id, wish: Wish) -> Result<Stopped> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    let Some(connection) = client::connect(&engine.layout, id)? else {
        remove::reap_orphan(engine, &record)?;
        return Ok(Stopped::WasNotRunning);
    };
    note(Level::Debug, || format!("Stopping container {id}"));
    let request = Request::Stop { signal: wish.signal, timeout_s: wish.timeout_s };
    let Ok((Reply::Exited { code, killed }, _)) = connection.ask(&request, &[]) else {
        // It ended, or was killed, while we spoke.
        remove::reap_orphan(engine, &record)?;
        return Ok(Stopped::WasNotRunning);
    };
    event::record(&engine.layout, record.event("stop"));
    let warning = killed.then(|| {
        let lifecycle = &record.spec.lifecycle;
        let name = signal::name(wish.signal.or(lifecycle.stop_signal).unwrap_or(libc::SIGTERM));
        let seconds = wish.timeout_s.or(lifecycle.stop_timeout_s).unwrap_or(10);
        format!("StopSignal {name} failed to stop container {} in {seconds} seconds, resorting to SIGKILL", record.name)
    });
    Ok(Stopped::Exited { code, warning: warning.filter(|_| wish.timeout_s != Some(0)) })
}

/// Send a signal to a running container; SIGKILL waits for its end.
pub fn kill(engine: &Engine, id: &Id, number: i32) -> Result<()> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    let state = container::state(&engine.layout, id)?;
    let runs = matches!(&state, State::Live(status) if matches!(status.phase, Phase::Running | Phase::Paused));
    let connection = if runs { client::connect(&engine.layout, id)? } else { None };
    let Some(connection) = connection else {
        let word = state.word();
        return Err(Failure::new(
            Kind::Engine,
            format!("can only kill running containers. {id} is in state {word}: container state improper"),
        )
        .into());
    };
    connection.ask(&Request::Signal { number }, &[]).with_context(|| format!("kill {}", record.name))?;
    event::record(&engine.layout, record.event("kill"));
    if number == libc::SIGKILL {
        // The end of the conversation is as good an answer.
        let _ = connection.ask(&Request::Wait, &[]);
    }
    Ok(())
}
