//! Containers between calls: what `create` leaves for `start`, `exec`, `kill`, `delete`.
//!
//! Not the engine's containers, which have a supervisor and records of their own. A container here is a directory
//! ROOT/ID with `state.json` (written by us), `config.json` (as it was at create), and, until it is started, `door`, the
//! socket at which its first process waits. Nobody watches it: whether it runs is read from /proc, and a process is the
//! container's only if its start time is the recorded one.

mod create;
mod exec;
mod record;

#[cfg(test)]
pub use create::parse_spec;
pub use create::{Console, CreateRequest, Note, Tell, create, run, with_known_names};
pub use exec::{ExecRequest, exec};
pub use record::{Container, Record, Root, Status, default_root};

use super::hook::{Stage, State};
use super::launch;
use super::plan;
use super::sync::{self, Message, Word};
use crate::sys::fd;
use crate::sys::process;
use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Spec;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of the document that goes with a seccomp listener; the specification shows it with this one, and crun sends it.
const PROCESS_STATE_VERSION: &str = "0.2.0";

/// How long `delete --force` waits for a killed process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Container {
    /// The state as OCI writes it.
    pub fn oci_state(&self) -> Result<State> {
        let status = self.status()?;
        Ok(State {
            oci_version: self.record.oci_version.clone(),
            id: self.record.id.clone(),
            status: status.name().to_owned(),
            pid: if status == Status::Stopped { 0 } else { self.record.pid },
            bundle: self.record.bundle.clone(),
            annotations: self.record.annotations.clone(),
        })
    }

    /// Let a created container execute its command.
    pub fn start(&self) -> Result<()> {
        match self.status()? {
            Status::Created => {}
            Status::Stopped => bail!("cannot start a container that has stopped"),
            Status::Creating => bail!("cannot start a container that is being created"),
            Status::Running | Status::Paused => bail!("cannot start an already running container"),
        }
        let channel = {
            let at = ShortPath::new(&self.dir)?;
            sync::knock(&at.join("door")).context("knock at the door of the container")?
        };
        channel.say(Word::Start).context("start the container")?;
        loop {
            match channel.hear().context("listen to the container")? {
                Message::End => break,
                Message::Word(Word::Filter, Some(listener)) => {
                    self.forward_listener(&self.spec()?, listener)?;
                    channel.say(Word::Forwarded)?;
                }
                Message::Failed(error) => return Err(launch::explain_step(None, &error)),
                Message::Word(word, _) => bail!("the container said {word:?} after its start"),
            }
        }
        // The end was heard: that it was execve, and not death, is seen from outside.
        if self.status()? == Status::Stopped && !self.has_executed() {
            bail!("the process died before it could execute its command");
        }
        // Gone already where two started it.
        let _ = std::fs::remove_file(self.dir.join("door"));
        self.poststart()
    }

    /// Hooks after start. One that fails ends the container for good.
    fn poststart(&self) -> Result<()> {
        if !self.record.has_late_hooks {
            return Ok(());
        }
        self.run_hooks(&self.spec()?, Stage::Poststart).inspect_err(|_| {
            // The hook's failure is the one to tell.
            let _ = self.delete(true);
        })
    }

    /// Run the hooks of a stage, for the process that was there.
    fn run_hooks(&self, spec: &Spec, stage: Stage) -> Result<()> {
        let state = State { status: String::new(), ..self.oci_state()? };
        plan::hook_steps(spec, stage, &state).try_for_each(|hook| hook.run(self.record.pid))
    }

    /// Pass the listener of the container's filter to whoever the profile names.
    fn forward_listener(&self, spec: &Spec, listener: OwnedFd) -> Result<()> {
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let path = seccomp.and_then(|seccomp| seccomp.listener_path().as_ref());
        let path = path.context("linux.seccomp.listenerPath: missing, and the filter notifies")?;
        let state = serde_json::json!({
            "ociVersion": PROCESS_STATE_VERSION,
            "fds": ["seccompFd"],
            "pid": self.record.pid,
            "metadata": seccomp.and_then(|seccomp| seccomp.listener_metadata().clone()).unwrap_or_default(),
            "state": State { status: "creating".to_owned(), ..self.oci_state()? },
        });
        let socket = std::os::unix::net::UnixStream::connect(path)
            .with_context(|| format!("connect to linux.seccomp.listenerPath {}", path.display()))?;
        Ok(fd::send(socket.as_fd(), serde_json::to_vec(&state)?.as_slice(), Some(listener.as_fd()))?)
    }

    /// Send a signal to the first process.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let Some(pidfd) = self.pidfd()? else { bail!("container not running") };
        match process::pidfd_send_signal(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => bail!("container not running"),
            other => other.with_context(|| format!("signal process {}", self.record.pid)),
        }
    }

    /// Send a signal to all its processes.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let mut cgroup = self.cgroup();
        if !cgroup.exists() {
            // All of nobody.
            return if self.status()? == Status::Stopped { Ok(()) } else { self.signal(signal) };
        }
        if signal == libc::SIGKILL {
            return cgroup.kill();
        }
        for pid in cgroup.pids()? {
            match process::pidfd_open(pid).and_then(|pidfd| process::pidfd_send_signal(pidfd.as_fd(), signal)) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.with_context(|| format!("signal process {pid}"))?,
            }
        }
        Ok(())
    }

    /// The first process is gone and others of its cgroup are not, which a pid namespace of its own would have ended.
    pub fn has_survivors(&self) -> Result<bool> {
        Ok(self.record.shares_pids && !self.cgroup().pids()?.is_empty())
    }

    /// SIGKILL, whatever state it is in: a frozen process does not die before it is thawed, and one whose pid namespace
    /// is shared leaves others behind.
    pub fn kill(&self) -> Result<()> {
        let mut cgroup = self.cgroup();
        if self.record.shares_pids {
            self.signal_all(libc::SIGKILL)?;
        }
        if let Err(error) = self.signal(libc::SIGKILL) {
            if self.status()? != Status::Stopped {
                return Err(error);
            }
        }
        if cgroup.exists() && cgroup.frozen().unwrap_or(false) {
            cgroup.thaw()?;
        }
        Ok(())
    }

    /// Remove a container that has ended; with `force` end it first. A half-made one is removed in any case. What comes
    /// back are failures of poststop hooks: the container is gone all the same.
    pub fn delete(&self, force: bool) -> Result<Vec<anyhow::Error>> {
        let status = self.status()?;
        match status {
            Status::Stopped => {}
            Status::Created | Status::Creating => self.end()?,
            _ if force => self.end()?,
            _ => bail!("cannot delete container {} that is not stopped: {}", self.record.id, status.name()),
        }
        let mut cgroup = self.cgroup();
        if cgroup.exists() {
            // What the first process left behind in a pid namespace that is not its own.
            cgroup.kill()?;
            cgroup.delete().context("remove the cgroup")?;
        }
        let spec = if self.record.has_late_hooks { self.spec().ok() } else { None };
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("remove {}", self.dir.display()))?,
        }
        if let (Some(spec), true) = (spec, self.record.pid != 0) {
            return Ok(self.run_poststop(&spec));
        }
        Ok(Vec::new())
    }

    fn run_poststop(&self, spec: &Spec) -> Vec<anyhow::Error> {
        let state = State {
            oci_version: self.record.oci_version.clone(),
            id: self.record.id.clone(),
            bundle: self.record.bundle.clone(),
            annotations: self.record.annotations.clone(),
            ..State::default()
        };
        plan::hook_steps(spec, Stage::Poststop, &state).filter_map(|hook| hook.run(0).err()).collect()
    }

    /// Kill the first process and wait until it is gone.
    fn end(&self) -> Result<()> {
        let Some(pidfd) = self.pidfd()? else { return Ok(()) };
        self.kill()?;
        let end = Instant::now() + KILL_TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left.as_millis() as i64).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) if left.is_zero() => bail!("the process did not die within {} s", KILL_TIMEOUT.as_secs()),
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Stop all its processes where they are.
    pub fn pause(&self) -> Result<()> {
        match self.status()? {
            Status::Running | Status::Created => self.cgroup().freeze(),
            status => bail!("cannot pause a container that is {}", status.name()),
        }
    }

    /// Let them go on.
    pub fn resume(&self) -> Result<()> {
        match self.status()? {
            Status::Paused => self.cgroup().thaw(),
            _ => bail!("container not paused"),
        }
    }
}

/// A directory by a path short enough for a socket's address, whatever its own is.
struct ShortPath(OwnedFd);

impl ShortPath {
    fn new(dir: &Path) -> Result<ShortPath> {
        let file = std::fs::File::open(dir).with_context(|| format!("open {}", dir.display()))?;
        Ok(ShortPath(file.into()))
    }

    fn join(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

/// A signal by number or name, with or without SIG.
pub fn parse_signal(text: &str) -> Result<i32> {
    let unknown = || anyhow!("unknown signal {text:?}");
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() { Ok(0) } else { offset.trim_start_matches('+').parse::<i32>() };
        return offset.ok().filter(|offset| (0..=30).contains(offset)).map(|offset| 34 + offset).ok_or_else(unknown);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset = if offset.is_empty() { Ok(0) } else { offset.trim_start_matches('-').parse::<i32>() };
        return offset.ok().filter(|offset| (0..=30).contains(offset)).map(|offset| 64 - offset).ok_or_else(unknown);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().map_err(|_| unknown())?;
    Ok(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_every_name() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMAX", 64), ("0", 0)] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "65", "-1", "FOO", "RTMIN+99", "SIGSIGKILL"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
