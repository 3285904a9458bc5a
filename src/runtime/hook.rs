//! Hooks: programs of the administrator that run at six points of a container's life, with its state on stdin.

use super::step::{Child, Fault};
use crate::sys::process;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Hook;
use serde::Serialize;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where in the life of a container a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    /// The name of the spec.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Prestart => "prestart",
            Stage::CreateRuntime => "createRuntime",
            Stage::CreateContainer => "createContainer",
            Stage::StartContainer => "startContainer",
            Stage::Poststart => "poststart",
            Stage::Poststop => "poststop",
        }
    }

    /// The container's status while these hooks run.
    fn status(self) -> &'static str {
        match self {
            Stage::Prestart | Stage::CreateRuntime | Stage::CreateContainer => "creating",
            Stage::StartContainer => "created",
            Stage::Poststart => "running",
            Stage::Poststop => "stopped",
        }
    }
}

/// The state of a container as OCI writes it, on a hook's stdin and for `state`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub status: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    pub bundle: PathBuf,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// One hook, ready to run.
#[derive(Clone, Debug)]
pub struct HookStep {
    pub stage: Stage,
    /// Its place among the hooks of its stage.
    pub index: usize,
    pub hook: Hook,
    pub state: State,
}

impl fmt::Display for HookStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} hook {}", self.stage.name(), self.hook.path().display())
    }
}

impl HookStep {
    /// Run it for the container whose first process is `pid`.
    pub fn run(&self, pid: i32) -> Result<()> {
        self.execute(pid, None).with_context(|| self.title())
    }

    /// Run it in the container's first process. A hook of the container's own namespaces that names no environment has
    /// that of the process which it precedes.
    pub fn run_in_child(&self, child: &Child) -> Result<(), Fault> {
        let inherited = Some(child.environment.as_slice()).filter(|_| self.stage == Stage::StartContainer);
        if self.stage == Stage::CreateContainer {
            // runc's hooks of this stage run in the root file system, and there are some that count on it.
            child.root.enter()?;
        }
        self.execute(nix::unistd::getpid().as_raw(), inherited)
            .map_err(|error| Fault::refused(format!("{:#}", error.context(self.title()))))
    }

    /// What an error begins with: engines look for these words.
    fn title(&self) -> String {
        format!("error running {} hook #{}", self.stage.name(), self.index)
    }

    fn execute(&self, pid: i32, inherited: Option<&[CString]>) -> Result<()> {
        let state = State { pid, status: self.stage.status().to_owned(), ..self.state.clone() };
        let state = serde_json::to_vec(&state)?;
        let arguments = self.hook.args().clone().unwrap_or_default();
        // What the hook says goes into our error, however long it is.
        let mut said = said_file()?;
        let mut command = Command::new(self.hook.path());
        if let Some((name, rest)) = arguments.split_first() {
            command.arg0(name).args(rest);
        }
        // A hook that names no environment has the runtime's own.
        if let Some(environment) = self.hook.env() {
            command.env_clear().envs(environment.iter().filter_map(|entry| entry.split_once('=')));
        } else if let Some(environment) = inherited {
            command.env_clear().envs(environment.iter().filter_map(|entry| pair(entry)));
        }
        if !matches!(self.stage, Stage::CreateContainer | Stage::StartContainer) {
            command.current_dir(&self.state.bundle);
        }
        let stream = |annotation: &str, said: &File| -> Result<Stdio> {
            match self.state.annotations.get(annotation) {
                Some(path) => append_to(path).with_context(|| format!("annotations[{annotation}]")),
                None => Ok(said.try_clone()?.into()),
            }
        };
        command.stdin(Stdio::piped());
        command.stdout(stream("run.oci.hooks.stdout", &said)?).stderr(stream("run.oci.hooks.stderr", &said)?);
        let mut child = command.spawn().with_context(|| self.hook.path().display().to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A hook need not read its state.
            let _ = stdin.write_all(&state);
        }
        let timeout = self.hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        if !wait_until(child.id(), timeout)? {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{}: timed out after {} s", self.hook.path().display(), timeout.unwrap_or_default().as_secs());
        }
        let status = child.wait()?;
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        let _ = said.rewind().and_then(|()| (&mut said).take(1024).read_to_string(&mut text));
        let how = match status.code() {
            Some(code) => format!("failed with exit code {code}"),
            None => format!("died: {status}"),
        };
        let what = format!("{}: {} hook {how}", self.hook.path().display(), self.stage.name());
        match text.trim() {
            "" => bail!("{what}"),
            text => bail!("{what}: {text}"),
        }
    }
}

fn pair(entry: &CStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = entry.to_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

fn append_to(path: &str) -> Result<Stdio> {
    Ok(File::options().append(true).create(true).open(path)?.into())
}

fn said_file() -> Result<File> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    Ok(nix::sys::memfd::memfd_create(c"hook", flags)?.into())
}

/// Wait for the end of a child, at most so long; false where it lives on.
fn wait_until(pid: u32, timeout: Option<Duration>) -> Result<bool> {
    let Some(timeout) = timeout else { return Ok(true) };
    let pidfd = process::pidfd_open(pid as i32)?;
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left.as_millis() as i64).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) if end > Instant::now() => {}
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn shell(script: &str, timeout: Option<i64>) -> HookStep {
        let mut hook = HookBuilder::default().path("/bin/sh").args(["sh", "-c", script].map(str::to_owned));
        if let Some(timeout) = timeout {
            hook = hook.timeout(timeout);
        }
        let state = State { id: "some".into(), bundle: "/".into(), ..State::default() };
        HookStep { stage: Stage::Poststart, index: 0, hook: hook.build().unwrap(), state }
    }

    #[test]
    fn a_hook_reads_the_state() {
        shell("grep -q '\"id\":\"some\",\"status\":\"running\",\"pid\":7'", None).run(7).unwrap();
    }

    #[test]
    fn what_a_failing_hook_said_is_told() {
        let error = shell("echo no such luck >&2; exit 3", None).run(7).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "error running poststart hook #0: /bin/sh: poststart hook failed with exit code 3: no such luck"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_killed() {
        let error = shell("exec sleep 1000", Some(1)).run(7).unwrap_err();
        assert_eq!(format!("{error:#}"), "error running poststart hook #0: /bin/sh: timed out after 1 s");
    }
}
