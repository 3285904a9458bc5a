//! `exec`: another process in a container.

use super::create::{forwarder, hand_over, listen_fds, send_pidfd, write_pid_file};
use super::{Console, Container, Note, Status, Tell};
use crate::runtime::cgroup::{Cgroup, Saved};
use crate::runtime::exec::{ExecOptions, plan_exec};
use crate::runtime::launch::{self, Running, Stdio};
use anyhow::{Result, bail};
use oci_spec::runtime::{Process, Spec};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What `exec` is told.
pub struct ExecRequest {
    pub process: Process,
    pub console: Console,
    pub pid_file: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    /// The steps of the plan are told.
    pub debug: bool,
    /// Groups below the container's: `[controllers:]path`.
    pub cgroups: Vec<String>,
}

/// Start it: its process, and the master of its terminal.
pub fn exec(container: &Container, request: ExecRequest, tell: Tell<'_>) -> Result<(Running, Option<OwnedFd>)> {
    match container.status()? {
        Status::Running | Status::Created => {}
        Status::Paused if request.ignore_paused => {}
        Status::Paused => bail!("cannot exec in a paused container (use --ignore-paused to override)"),
        _ => bail!("cannot exec in a stopped container"),
    }
    let Some(pidfd) = container.pidfd()? else { bail!("cannot exec in a stopped container") };
    let spec = container.spec()?;
    let process = complete(request.process, &spec);
    let mut saved = container.record.cgroup.clone();
    for wanted in &request.cgroups {
        descend(&mut saved, wanted)?;
    }
    let mut cgroup = Cgroup::open(saved);
    let (listened, environment) = listen_fds();
    let plan = plan_exec(
        &process,
        ExecOptions {
            pid: container.record.pid,
            pidfd: Some(pidfd),
            linux: spec.linux().as_ref(),
            preserve_fds: request.preserve_fds + listened,
            environment,
            reset_affinity: true,
            ..ExecOptions::default()
        },
    )?;
    if request.debug {
        plan.to_string().lines().for_each(|line| tell(Note::Step(line)));
    }
    plan.warnings.iter().for_each(|warning| tell(Note::Warning(warning)));
    let wants_terminal = plan.wants_terminal;
    if wants_terminal && matches!(request.console, Console::None) {
        bail!("process.terminal: cannot allocate a terminal without --console-socket, for nobody would hold it");
    }
    let stdio = if wants_terminal { Stdio::Terminal } else { Stdio::Inherit };
    let cgroup = Some(&mut cgroup).filter(|cgroup| cgroup.exists());
    let mut created = launch::launch(plan, launch::Rootfs::Joined, stdio, cgroup)?;
    created.forward = forwarder(container, &spec);
    let terminal = hand_over(&request.console, created.terminal.take())?;
    if let (Some(path), Some(pidfd)) = (&request.pidfd_socket, created.pidfd()) {
        send_pidfd(path, pidfd)?;
    }
    let running = created.start()?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, running.pid)?;
    }
    Ok((running, terminal))
}

/// What a process does not say for itself is as in the container.
fn complete(mut process: Process, spec: &Spec) -> Process {
    let Some(first) = spec.process() else { return process };
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    if process.capabilities().is_none() {
        process.set_capabilities(first.capabilities().clone());
    }
    if is_empty(process.apparmor_profile()) {
        process.set_apparmor_profile(first.apparmor_profile().clone());
    }
    if is_empty(process.selinux_label()) {
        process.set_selinux_label(first.selinux_label().clone());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(first.rlimits().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(first.oom_score_adj());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*first.io_priority());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(first.scheduler().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(first.exec_cpu_affinity().clone());
    }
    process
}

/// `[controllers:]path` below the container's own group.
fn descend(saved: &mut Saved, wanted: &str) -> Result<()> {
    let (controllers, path) = match wanted.split_once(':') {
        Some((controllers, path)) => (Some(controllers), path),
        None => (None, wanted),
    };
    let relative = Path::new(path.trim_start_matches('/'));
    if relative.components().any(|part| part == std::path::Component::ParentDir) {
        bail!("--cgroup: {wanted:?}: bad sub cgroup path: `..` components are not allowed");
    }
    let move_down = |group: &mut PathBuf| -> Result<()> {
        let below = group.join(relative);
        if !below.is_dir() {
            bail!("--cgroup: error adding pid to {}: no such file or directory", below.display());
        }
        *group = below;
        Ok(())
    };
    let Some(controllers) = controllers else {
        // On hosts with several hierarchies: in those where it is.
        let moved = saved.unified.iter_mut().chain(saved.v1.values_mut()).map(move_down).filter(Result::is_ok).count();
        if moved == 0 {
            bail!("--cgroup: error adding pid to {path}: no such file or directory below the container's group");
        }
        return Ok(());
    };
    for controller in controllers.split(',') {
        match (controller, saved.v1.get_mut(controller), &mut saved.unified) {
            ("", _, Some(unified)) => move_down(unified)?,
            (_, Some(group), _) => move_down(group)?,
            _ => bail!("--cgroup: unknown controller {controller:?}: the container has no group of it"),
        }
    }
    Ok(())
}
