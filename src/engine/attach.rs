//! Sit before a running container.

use crate::engine::Engine;
use crate::engine::start::Started;
use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord, Phase, State};
use crate::state::event;
use crate::supervisor::client::{self, Ending, Keys, Pipes, Session};
use crate::supervisor::message::{Attach, Reply, Request};
use crate::sys::terminal;
use anyhow::{Context, Result, bail};
use nix::sys::signalfd::SignalFd;

/// How to sit.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    /// Send on what the caller types.
    pub input: bool,
    /// Keys to leave.
    pub detach_keys: Keys,
    /// Send on signals.
    pub proxy_signals: bool,
}

/// What a client of this terminal wants to see: everything.
pub fn everything(input: bool, patient: bool) -> Attach {
    let size = terminal::size(std::io::stdout()).or_else(|_| terminal::size(std::io::stdin())).ok();
    Attach { input, output: true, errors: true, size, patient }
}

/// Connect to the streams of a running container.
pub fn attach(engine: &Engine, id: &Id, wish: Attach) -> Result<Started> {
    let state = container::state(&engine.layout, id)?;
    let runs = matches!(&state, State::Live(status) if status.phase == Phase::Running);
    let connection = if runs { client::connect(&engine.layout, id)? } else { None };
    let Some(connection) = connection else {
        return Err(Failure::new(Kind::Engine, "you can only attach to running containers").into());
    };
    let record = ContainerRecord::load(&engine.layout, id)?;
    let pipes = Pipes::new(&wish).context("make pipes")?;
    let (reply, descriptors) = connection.ask(&Request::Attach(wish), &pipes.borrowed())?;
    let Reply::Attached { terminal } = reply else { bail!("attach: an unknown answer") };
    event::record(&engine.layout, record.event("attach"));
    Ok(Started { connection, terminal, input: descriptors.into_iter().next(), outputs: pipes.ours })
}

/// Sit there until the end of one of both. `signals` were blocked before the container was started.
pub fn sit(started: Started, seat: Seat, signals: &SignalFd) -> Result<Ending> {
    let Started { mut connection, terminal, input, outputs } = started;
    let session = Session {
        input,
        forward_input: seat.input,
        outputs,
        terminal,
        detach_keys: seat.detach_keys,
        proxy_signals: seat.proxy_signals,
    };
    client::relay(session, signals, &mut connection)
}

/// The exit code of a command that sat before a container.
pub fn exit_code(ending: Ending) -> Result<i32> {
    match ending {
        Ending::Exited { code, .. } => Ok(code),
        Ending::Detached => Ok(0),
        Ending::Interrupted(signal) => Ok(128 + signal),
        Ending::Lost => bail!("the container's supervisor was killed"),
    }
}
