//! Start a container: give birth to its supervisor, and hear what came of it.

use crate::engine::{Engine, remove};
use crate::failure::{Failure, Kind, Level, note};
use crate::model::container::LogDriver;
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord, Phase, State};
use crate::supervisor::client::{self, Pipes};
use crate::supervisor::message::{Attach, Connection, Reply, Request, Start};
use crate::supervisor::source::BINARY_VARIABLE;
use crate::sys::{seal, socket};
use anyhow::{Context, Result, bail};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Make it ready only (podman's `init`).
    pub prepare_only: bool,
    /// What to see of it.
    pub attach: Option<Attach>,
}

/// A container that runs, and the way to its supervisor.
#[derive(Debug)]
pub struct Started {
    /// The way.
    pub connection: Connection,
    /// Its streams are one terminal.
    pub terminal: bool,
    /// Its standard input or terminal, if it was asked for.
    pub input: Option<OwnedFd>,
    /// Our ends of its output and errors, if they were asked for.
    pub outputs: [Option<OwnedFd>; 2],
}

/// Start a container that does not run. One that does is attached to, or left as it is.
///
/// # Errors
/// Exit codes 125, 126, 127 as for `run`; nothing is left held.
pub fn start(engine: &Engine, id: &Id, wish: Wish) -> Result<Started> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    start_required(engine, &record)?;
    if let Some(started) = join_living(engine, id, &wish)? {
        return Ok(started);
    }
    remove::reap_orphan(engine, &record)?;
    let pipes = wish.attach.as_ref().map(Pipes::new).transpose().context("make pipes")?.unwrap_or_default();
    let inherit_stdio = matches!(record.spec.log.driver, LogDriver::Passthrough | LogDriver::PassthroughTty);
    let connection = give_birth(engine, &record)?;
    let request = Request::Start(Start {
        begin: !wish.prepare_only,
        attach: wish.attach.filter(|_| !inherit_stdio),
        inherit_stdio,
        preserve_fds: record.spec.stdio.preserve_fds,
    });
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let own: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let (reply, descriptors) = match inherit_stdio {
        true => connection.ask(&request, &own)?,
        false => connection.ask(&request, &pipes.borrowed())?,
    };
    let Reply::Started { terminal, pid } = reply else { bail!("the container's supervisor did not start it") };
    note(Level::Debug, || format!("Container {id} has process {pid}"));
    Ok(Started { connection, terminal, input: descriptors.into_iter().next(), outputs: pipes.ours })
}

/// `--requires`: those that must run before.
fn start_required(engine: &Engine, record: &ContainerRecord) -> Result<()> {
    for required in &record.spec.lifecycle.requires {
        let required = Id::parse(required)?;
        if !container::is_alive(&engine.layout, &required)? {
            start(engine, &required, Wish::default())
                .with_context(|| format!("start container {}, which {} requires", required.short(), record.name))?;
        }
    }
    Ok(())
}

/// A container that has a supervisor: begin it if it waits for that, and attach.
fn join_living(engine: &Engine, id: &Id, wish: &Wish) -> Result<Option<Started>> {
    let State::Live(status) = container::state(&engine.layout, id)? else { return Ok(None) };
    let Some(connection) = client::connect(&engine.layout, id)? else { return Ok(None) };
    if status.phase == Phase::Paused {
        return Err(Failure::new(Kind::Engine, format!("container {} is paused", id.short()))
            .hint(format!("coracle unpause {}", id.short()))
            .into());
    }
    let mut started = Started { connection, terminal: false, input: None, outputs: [None, None] };
    if let Some(attach) = &wish.attach {
        let pipes = Pipes::new(attach).context("make pipes")?;
        let (reply, descriptors) = started.connection.ask(&Request::Attach(*attach), &pipes.borrowed())?;
        let Reply::Attached { terminal } = reply else { bail!("attach: an unknown answer") };
        started.terminal = terminal;
        started.input = descriptors.into_iter().next();
        started.outputs = pipes.ours;
    }
    if status.phase == Phase::Initialized && !wish.prepare_only {
        started.connection.ask(&Request::Begin, &[])?;
    }
    Ok(Some(started))
}

/// Our own binary again, in a process that outlives this one.
fn give_birth(engine: &Engine, record: &ContainerRecord) -> Result<Connection> {
    let (ours, theirs) = socket::pair().context("make a socket")?;
    // A container could get at the binary of whoever makes it, through /proc.
    let binary = seal::sealed_self().context("protect the binary")?;
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.arg0(format!("coracle: {} [supervise]", record.name));
    command.arg("--root").arg(engine.layout.data()).arg("--runroot").arg(engine.layout.run());
    if let Some(manager) = record.spec.cgroup_manager.as_ref().or(engine.cgroup_manager.as_ref()) {
        command.arg("--cgroup-manager").arg(manager);
    }
    command.arg("supervise").arg(record.id.as_str());
    if record.spec.process.init {
        // The detached mount it is started from has no path by which to bind it inside.
        command.env(BINARY_VARIABLE, std::env::current_exe().context("find our own binary")?);
    }
    // It lives long and has little to do: freed memory goes back to the kernel instead of into caches.
    command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
    let supervisor = command.spawn().context("start the container's supervisor")?;
    note(Level::Debug, || format!("Started supervisor {} of container {}", supervisor.id(), record.id));
    Ok(Connection::new(ours))
}
