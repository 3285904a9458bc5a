//! Version 2: one tree; controllers are handed down level by level, and a group that hands down has no processes.
#![forbid(unsafe_code)]

use super::limit::Setting;
use super::{NotPermitted, Saved, make_directory, place, read, remove, write};
use crate::failure::{Explain, Failure, Kind};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open as open_file};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What gives an ordinary user controllers.
pub(super) const DELEGATION_HINT: &str = "let systemd delegate the controllers to users: write `[Service]` and \
    `Delegate=cpu cpuset io memory pids` to /etc/systemd/system/user@.service.d/delegate.conf, run \
    `systemctl daemon-reload`, and log in again";

/// Enabled for every container, limited or not, for `stats` tells their figures.
const ACCOUNTED: [&str; 4] = ["cpu", "io", "memory", "pids"];
/// How long a group may take to become empty or frozen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the group at `path` below `root`, with the controllers that the settings need, and opens it.
pub(super) fn create(root: &Path, path: &Path, settings: &[Setting], saved: &mut Saved) -> Result<OwnedFd> {
    let needed: BTreeSet<&str> =
        settings.iter().map(|setting| setting.controller).filter(|name| *name != "cgroup").collect();
    let wanted: BTreeSet<&str> = needed.iter().copied().chain(ACCOUNTED).collect();
    let directory = root.join(path);
    let parent = directory.parent().unwrap_or(root);
    let enabled = std::fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    if missing(&wanted, &enabled).next().is_some() {
        if saved.rootless && parent.is_dir() && !is_writable(parent) {
            let error = NotPermitted(io::Error::from(io::ErrorKind::PermissionDenied));
            return Err(anyhow::Error::new(error).context(format!("make cgroup {}", directory.display())));
        }
        hand_down(root, path.parent().unwrap_or(Path::new("")), &wanted)?;
        let enabled = read(&parent.join("cgroup.subtree_control"))?;
        if let Some(controller) = missing(&needed, &enabled).next() {
            return Err(unavailable(controller, root, parent));
        }
    }
    make_directory(&directory)?;
    saved.unified = Some(directory.clone());
    open(&directory)
}

/// The names of `wanted` that are not in the kernel's list.
fn missing<'a>(wanted: &BTreeSet<&'a str>, list: &str) -> impl Iterator<Item = &'a str> {
    let present: BTreeSet<&str> = list.split_ascii_whitespace().collect();
    wanted.iter().copied().filter(|name| !present.contains(name)).collect::<Vec<_>>().into_iter()
}

/// From the root down to `parent` (inclusive), makes the groups and enables what there is to enable. A level that
/// refuses (not ours, or with processes) is passed over: what counts is what arrives, which the caller checks.
fn hand_down(root: &Path, parent: &Path, wanted: &BTreeSet<&str>) -> Result<()> {
    let mut level = root.to_path_buf();
    let mut components = parent.components();
    loop {
        let available = read(&level.join("cgroup.controllers"))?;
        let control = level.join("cgroup.subtree_control");
        let enabled = read(&control)?;
        let absent =
            missing(wanted, &enabled).filter(|name| available.split_ascii_whitespace().any(|one| one == *name));
        let absent: Vec<&str> = absent.collect();
        // With processes in it some controllers could be enabled still, but only by making the group a threaded one.
        let takes = |level: &Path| !level.join("cgroup.type").exists() || is_empty(level);
        if !absent.is_empty() && (takes(&level) || (level == root && evacuate(root).is_ok())) {
            for controller in absent {
                let _ = write(&control, &format!("+{controller}"));
            }
        }
        let Some(component) = components.next() else { return Ok(()) };
        level.push(component);
        make_directory(&level)?;
    }
}

/// No process is in the group itself.
fn is_empty(level: &Path) -> bool {
    std::fs::read_to_string(level.join("cgroup.procs")).is_ok_and(|text| text.trim().is_empty())
}

/// Inside another container the root of the tree is that container's own group, with all its processes, and hands
/// nothing down. They go to a group `init` below it, as in Docker's and podman's images for running in containers.
fn evacuate(root: &Path) -> Result<()> {
    if place::own_path()? != Path::new("/") {
        bail!("{} has processes that are not in our namespace", root.display());
    }
    let target = root.join("init");
    make_directory(&target)?;
    move_processes(root, &target)
}

/// Whether a container of root's could be given this controller, as far as can be told without trying.
pub(super) fn may_have(root: &Path, controller: &str) -> bool {
    let listed = |file: &str| {
        std::fs::read_to_string(root.join(file))
            .is_ok_and(|text| text.split_ascii_whitespace().any(|name| name == controller))
    };
    // Only a machine's true root has no type, and only it may hold processes and hand down.
    let hands_down = || {
        listed("cgroup.subtree_control")
            || !root.join("cgroup.type").exists()
            || place::own_path().is_ok_and(|own| own == Path::new("/"))
    };
    is_writable(root) && listed("cgroup.controllers") && hands_down()
}

fn unavailable(controller: &str, root: &Path, parent: &Path) -> anyhow::Error {
    let has = |directory: &Path, file: &str| {
        std::fs::read_to_string(directory.join(file))
            .is_ok_and(|text| text.split_ascii_whitespace().any(|name| name == controller))
    };
    let hint = if !has(root, "cgroup.controllers") {
        match place::legacy_root(controller).is_dir() {
            true => format!("`{controller}` is mounted as cgroup v1; boot with `cgroup_no_v1=all`"),
            false => format!(
                "this kernel was built or booted without it (see /proc/cgroups; `cgroup_disable={controller}` on the \
                 kernel's command line?)"
            ),
        }
    } else if !has(parent, "cgroup.controllers") {
        DELEGATION_HINT.to_owned()
    } else {
        format!(
            "{} has processes of its own, so it cannot hand controllers down; use `--cgroups=split`, or \
             `--cgroup-parent` with a group without processes",
            parent.display()
        )
    };
    let tried = format!("set limits: the cgroup controller `{controller}` is not available in {}", parent.display());
    Failure::new(Kind::Engine, tried).hint(hint).into()
}

/// Makes a group without controllers (hybrid hosts), for kill, freeze and to learn when it is empty. That it cannot be
/// made is no error, version 1 does the work then.
pub(super) fn create_plain(root: &Path, path: &Path, saved: &mut Saved) -> Result<Option<OwnedFd>> {
    let mut level = root.to_path_buf();
    for component in path.components() {
        level.push(component);
        match make_directory(&level) {
            Err(error) if error.downcast_ref::<NotPermitted>().is_some() => return Ok(None),
            result => result?,
        };
    }
    saved.unified = Some(level.clone());
    open(&level).map(Some)
}

/// The directory, for CLONE_INTO_CGROUP and for BPF.
pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    open_file(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("open cgroup {}", path.display()))
}

/// The controllers that a new group of this caller could have.
pub(super) fn available(root: &Path, rootless: bool) -> BTreeSet<String> {
    let directory = match rootless.then(place::own_path) {
        Some(Ok(own)) => root.join(own.parent().unwrap_or(&own).strip_prefix("/").unwrap_or(Path::new(""))),
        _ => root.to_path_buf(),
    };
    if rootless && !is_writable(&directory) {
        return BTreeSet::new();
    }
    controllers(&directory)
}

/// Whether groups can be made in it: a read-only mount says no to root too.
pub(super) fn is_writable(directory: &Path) -> bool {
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// What could be enabled below this group.
pub(super) fn controllers(directory: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Empties the caller's own group into `supervisor` below it, so that it can hand controllers down, and gives its path.
pub(super) fn split(root: &Path) -> Result<PathBuf> {
    const SUPERVISOR: &str = "supervisor";
    let own = place::own_path()?;
    // A second container of the same service.
    if own.file_name().is_some_and(|name| name == SUPERVISOR) {
        return Ok(own.parent().unwrap_or(Path::new("/")).to_path_buf());
    }
    let directory = root.join(own.strip_prefix("/").unwrap_or(&own));
    let supervisor = directory.join(SUPERVISOR);
    let hint = "the unit must be delegated: put `Delegate=yes` into its [Service] section";
    make_directory(&supervisor).context("split the cgroup").hint(hint)?;
    move_processes(&directory, &supervisor).hint(hint)?;
    Ok(own)
}

/// Until nobody is left: they may fork meanwhile.
fn move_processes(from: &Path, to: &Path) -> Result<()> {
    let target = to.join("cgroup.procs");
    loop {
        let text = read(&from.join("cgroup.procs"))?;
        if text.trim().is_empty() {
            return Ok(());
        }
        for pid in text.lines() {
            if pid == "0" {
                bail!("{} has a process of another pid namespace", from.display());
            }
            match write(&target, pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                result => result.with_context(|| format!("move process {pid} to {}", to.display()))?,
            }
        }
    }
}

/// The value of a key in `cgroup.events`.
fn event(text: &str, key: &str) -> Option<bool> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(|value| value == "1")
}

/// Waits until a key of `cgroup.events` has this value. The kernel tells of a change by POLLPRI.
fn await_event(path: &Path, key: &str, wanted: bool) -> Result<bool> {
    let file = path.join("cgroup.events");
    let mut events = match File::open(&file) {
        Ok(events) => events,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error).with_context(|| format!("open {}", file.display())),
    };
    let deadline = Instant::now() + PATIENCE;
    let mut text = String::new();
    loop {
        text.clear();
        events.rewind()?;
        match events.read_to_string(&mut text) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
            result => result?,
        };
        if event(&text, key) == Some(wanted) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("wait on {}", file.display())),
        }
    }
}

pub(super) fn set_frozen(path: &Path, wanted: bool) -> Result<()> {
    let file = path.join("cgroup.freeze");
    write(&file, if wanted { "1" } else { "0" }).with_context(|| format!("write {}", file.display()))?;
    if !await_event(path, "frozen", wanted)? {
        let _ = write(&file, "0");
        bail!("freeze cgroup {}: some process did not stop within {PATIENCE:?}", path.display());
    }
    Ok(())
}

pub(super) fn frozen(path: &Path) -> Result<bool> {
    Ok(read(&path.join("cgroup.freeze"))?.trim() == "1")
}

/// Kills all at once; false: this kernel has no cgroup.kill.
pub(super) fn kill(path: &Path) -> Result<bool> {
    match write(&path.join("cgroup.kill"), "1") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(!path.exists()),
        // Gone between open and write.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("kill cgroup {}", path.display())),
    }
}

/// Waits until no process lives in it or below.
pub(super) fn await_empty(path: &Path) -> Result<()> {
    if await_event(path, "populated", false)? {
        return Ok(());
    }
    let pids = super::pids_of(path)?;
    bail!("remove cgroup {}: processes {pids:?} live in it", path.display());
}

/// Removes it, deepest first.
pub(super) fn delete(path: &Path) -> Result<()> {
    match remove(path) {
        // Killed processes leave a moment later.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            await_empty(path)?;
            remove(path).with_context(|| format!("remove cgroup {}", path.display()))
        }
        result => result.with_context(|| format!("remove cgroup {}", path.display())),
    }
}
