//! Run another process in a running container, from this process: its streams are ours, and nothing sits in between but
//! for a terminal.
//!
//! This process must be the sealed binary and have one thread (`runtime::launch`).

use crate::bundle;
use crate::engine::Engine;
use crate::failure::{Failure, Kind, Level, note};
use crate::model::id::Id;
use crate::model::user::UserRef;
use crate::runtime::cgroup::{Cgroup, Saved};
use crate::runtime::exec::{ExecOptions, plan_exec};
use crate::runtime::launch::{self, Created, Rootfs, Running, Stdio};
use crate::state::container::{self, ContainerRecord, Phase, State, Status};
use crate::state::event;
use crate::supervisor::acquire;
use crate::supervisor::client::{self, Ending, Keys, Peer, Session};
use crate::sys::{pipe, process, terminal};
use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// On top of the container's environment.
    pub env: Vec<(String, String)>,
    /// Instead of the container's user.
    pub user: Option<UserRef>,
    /// Instead of the container's working directory.
    pub workdir: Option<String>,
    /// All capabilities.
    pub privileged: bool,
    /// Our standard input is its own.
    pub interactive: bool,
    /// A terminal of its own.
    pub tty: bool,
    /// Descriptors from 3 on that it gets.
    pub preserve_fds: u32,
    /// Do not wait for it.
    pub detach: bool,
    /// Keys that leave it alone.
    pub detach_keys: Keys,
}

/// Run it; gives its exit code, 0 if it was left alone.
///
/// # Errors
/// 127 where the command is not there, 126 where it cannot be executed, 125 for all else.
pub fn exec(engine: &Engine, id: &Id, wish: Wish) -> Result<i32> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    let status = running(engine, id)?;
    // Before the process is there, so that no signal is lost for it.
    let signals = if wish.detach { None } else { Some(client::block_signals()?) };
    let Streams { stdio, input, outputs } = Streams::new(&wish)?;
    let mut created = join(engine, &record, &status, &wish, stdio)?;
    let master = created.terminal.take();
    if let Some(master) = &master {
        pipe::set_nonblocking(master)?;
    }
    let running = created.start()?;
    note(Level::Debug, || format!("Container {id} has process {} of ours", running.pid));
    event::record(&engine.layout, record.event("exec"));
    let Some(signals) = signals else { return Ok(0) };
    let session = match master {
        Some(master) => Session {
            outputs: [Some(master.try_clone()?), None],
            input: Some(master),
            forward_input: wish.interactive,
            terminal: true,
            detach_keys: wish.detach_keys,
            proxy_signals: true,
        },
        None => Session {
            forward_input: input.is_some(),
            input,
            outputs,
            terminal: false,
            detach_keys: wish.detach_keys,
            proxy_signals: true,
        },
    };
    let code = match client::relay(session, &signals, &mut Child(running))? {
        Ending::Exited { code, .. } => code,
        Ending::Detached => return Ok(0),
        Ending::Interrupted(signal) => 128 + signal,
        Ending::Lost => -1,
    };
    let mut died = record.event("exec_died");
    died.exit_code = Some(code);
    event::record(&engine.layout, died);
    Ok(code)
}

fn running(engine: &Engine, id: &Id) -> Result<Status> {
    match container::state(&engine.layout, id)? {
        State::Live(status) if matches!(status.phase, Phase::Running | Phase::Initialized) && status.pid > 0 => {
            Ok(status)
        }
        State::Live(status) if status.phase == Phase::Paused => {
            Err(Failure::new(Kind::Engine, format!("container {} is paused: container state improper", id.short()))
                .hint(format!("coracle unpause {}", id.short()))
                .into())
        }
        _ => Err(Failure::new(
            Kind::Engine,
            "can only create exec sessions on running containers: container state improper",
        )
        .hint(format!("coracle start {}", id.short()))
        .into()),
    }
}

/// Its ends and, where something is relayed, ours.
struct Streams {
    stdio: Stdio,
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

impl Streams {
    /// Our own streams, but for the caller's terminal: that is relayed, for who has a terminal open can type on it.
    fn new(wish: &Wish) -> Result<Streams> {
        let mut streams = Streams { stdio: Stdio::Terminal, input: None, outputs: [None, None] };
        if wish.tty {
            return Ok(streams);
        }
        let null = || -> Result<OwnedFd> {
            Ok(File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?.into())
        };
        let stdin = std::io::stdin();
        let input = if !wish.interactive || wish.detach {
            null()?
        } else if terminal::is_terminal(&stdin) {
            let (reader, writer) = std::io::pipe().context("make a pipe")?;
            pipe::set_nonblocking(&writer)?;
            streams.input = Some(writer.into());
            reader.into()
        } else {
            stdin.as_fd().try_clone_to_owned()?
        };
        let mut output = |index: usize, own: BorrowedFd<'_>| -> Result<OwnedFd> {
            if wish.detach {
                return null();
            }
            if !terminal::is_terminal(own) {
                return Ok(own.try_clone_to_owned()?);
            }
            let (reader, writer) = std::io::pipe().context("make a pipe")?;
            pipe::set_nonblocking(&reader)?;
            streams.outputs[index] = Some(reader.into());
            Ok(writer.into())
        };
        let output_end = output(0, std::io::stdout().as_fd())?;
        let errors_end = output(1, std::io::stderr().as_fd())?;
        streams.stdio = Stdio::Fds([input, output_end, errors_end]);
        Ok(streams)
    }
}

/// The process, ready to run.
fn join(engine: &Engine, record: &ContainerRecord, status: &Status, wish: &Wish, stdio: Stdio) -> Result<Created> {
    let mut record = record.clone();
    let container_user = wish.user.is_none();
    let spec = &mut record.spec;
    spec.process.entrypoint = None;
    spec.process.command.clone_from(&wish.command);
    spec.process.init = false;
    if spec.stdio.tty && !spec.process.env.iter().any(|(name, _)| name == "TERM") {
        // Its programs share the terminal's settings, whether they have one or not.
        spec.process.env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    spec.stdio.tty = wish.tty;
    if let Some(user) = &wish.user {
        spec.process.user = Some(user.clone());
    }
    for (name, value) in &wish.env {
        spec.process.env.retain(|(known, _)| known != name);
        spec.process.env.push((name.clone(), value.clone()));
    }
    if let Some(directory) = &wish.workdir {
        spec.process.workdir = Some(directory.clone());
    }
    spec.security.privileged |= wish.privileged;
    let request = acquire::Request {
        layout: &engine.layout,
        privilege: &engine.privilege,
        record: &record,
        cgroup_manager: record.spec.cgroup_manager.as_deref().or(engine.cgroup_manager.as_deref()),
        console_size: None,
    };
    let facts = acquire::joining(&request, status.pid).map_err(|error| match container_user {
        true => error,
        false => error.context(Failure::new(Kind::NotExecutable, "")),
    })?;
    let (process, linux) = bundle::exec(&record, &facts)?;
    let options = ExecOptions {
        pid: status.pid,
        linux: Some(&linux),
        preserve_fds: wish.preserve_fds,
        // With a terminal its end is the hangup; without one nothing runs unwatched that nobody wanted so.
        die_with_parent: !wish.detach && !wish.tty,
        ..ExecOptions::default()
    };
    let plan = plan_exec(&process, options)?;
    let mut cgroup = serde_json::from_value::<Saved>(status.cgroup.clone()).ok().map(Cgroup::open);
    let result = launch::launch(plan, Rootfs::Path(PathBuf::from("/")), stdio, cgroup.as_mut());
    result.map_err(|error| match container::is_alive(&engine.layout, &record.id) {
        Ok(false) => error.context("the container has ended"),
        _ => error,
    })
}

/// The process, as a session's other side.
struct Child(Running);

impl Peer for Child {
    fn news(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }

    fn look(&mut self) -> Option<Ending> {
        Some(match process::wait(self.0.pidfd.as_fd()) {
            Ok(ended) => Ending::Exited { code: ended.code(), killed: false },
            Err(_) => Ending::Lost,
        })
    }

    fn signal(&mut self, number: i32) {
        let _ = process::pidfd_send_signal(self.0.pidfd.as_fd(), number);
    }

    fn close_input(&mut self) {
        // The write end of its pipe was ours, and is closed.
    }
}
