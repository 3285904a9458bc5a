//! Version 1: one tree for each controller (or a few). Only the trees that are needed are entered.
//!
//! A group of its own is made in those that give figures or guard devices, and in those whose limits were asked for:
//! each costs a directory, and `cpuset` is dear. In the others containers share one group.
#![forbid(unsafe_code)]

use super::limit::Setting;
use super::place::Hierarchy;
use super::{Request, Saved, make_directory, place, read, remove, write};
use crate::failure::{Failure, Kind};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const MEMORY_LIMIT: &str = "memory.limit_in_bytes";
pub(super) const SWAP_LIMIT: &str = "memory.memsw.limit_in_bytes";
pub(super) const PERIOD: &str = "cpu.cfs_period_us";
pub(super) const QUOTA: &str = "cpu.cfs_quota_us";

/// Entered by every container where mounted.
const ALWAYS: [&str; 4] = ["cpuacct", "devices", "memory", "pids"];
/// How long processes may take to freeze or leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the group in the trees that are needed. `kills`: whether a version 2 tree beside them can kill and pause.
pub(super) fn create(request: &Request, settings: &[Setting], kills: bool, saved: &mut Saved) -> Result<()> {
    let hierarchies = place::hierarchies()?;
    let mut needed: BTreeSet<&str> = ALWAYS.into();
    // Without a version 2 tree only the freezer can kill or pause.
    if !kills {
        needed.insert("freezer");
    }
    for setting in settings {
        if !hierarchies.iter().any(|hierarchy| hierarchy.has(setting.controller)) {
            return Err(not_mounted(setting.controller));
        }
        needed.insert(setting.controller);
    }
    for hierarchy in &hierarchies {
        if request.everywhere || needed.iter().any(|controller| hierarchy.has(controller)) {
            let path = place::path(request, || Ok(hierarchy.own.clone()))?;
            enter(hierarchy, &path, saved)?;
        } else if !request.rootless {
            let shared = place::shared(hierarchy);
            if make_directory(&shared)? && hierarchy.has("cpuset") {
                inherit_cpuset(&shared)?;
            }
            saved.shared.push(shared);
        }
    }
    Ok(())
}

/// Makes groups in further trees for an update, and moves those who live in the others there.
pub(super) fn add_controllers(
    settings: &[Setting],
    saved: &mut Saved,
    pids: impl Fn() -> Result<Vec<i32>>,
) -> Result<()> {
    let wanted: BTreeSet<&str> = settings.iter().map(|setting| setting.controller).collect();
    if wanted.iter().all(|controller| saved.v1.contains_key(*controller)) {
        return Ok(());
    }
    let hierarchies = place::hierarchies()?;
    let known = hierarchies.iter().find_map(|hierarchy| {
        let directory = saved.v1.get(hierarchy.controllers.first()?)?;
        directory.strip_prefix(&hierarchy.root).ok().map(Path::to_path_buf)
    });
    let Some(path) = known else { return Ok(()) };
    for controller in wanted {
        if saved.v1.contains_key(controller) {
            continue;
        }
        let hierarchy = hierarchies.iter().find(|hierarchy| hierarchy.has(controller));
        let hierarchy = hierarchy.ok_or_else(|| not_mounted(controller))?;
        enter(hierarchy, &path, saved)?;
        move_all(&hierarchy.root.join(&path).join("cgroup.procs"), &pids)?;
        let left = place::shared(hierarchy);
        saved.shared.retain(|path| *path != left);
    }
    Ok(())
}

/// Who is forked by one not moved yet is not moved either: until a look finds nobody new.
fn move_all(procs: &Path, pids: &impl Fn() -> Result<Vec<i32>>) -> Result<()> {
    let mut moved = BTreeSet::new();
    loop {
        let new: Vec<i32> = pids()?.into_iter().filter(|pid| moved.insert(*pid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for pid in new {
            match write(procs, &pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).with_context(|| format!("move process {pid} to {}", procs.display()));
                }
                _ => {}
            }
        }
    }
}

fn not_mounted(controller: &str) -> anyhow::Error {
    let hint = match controller {
        "cgroup" | "io" => "it is of cgroup v2; boot with `systemd.unified_cgroup_hierarchy=1`".to_owned(),
        _ => format!("mount it: `mount -t cgroup -o {controller} {controller} /sys/fs/cgroup/{controller}`"),
    };
    let tried = format!("set limits: the cgroup v1 controller `{controller}` is not mounted or not in this kernel");
    Failure::new(Kind::Engine, tried).hint(hint).into()
}

fn enter(hierarchy: &Hierarchy, path: &Path, saved: &mut Saved) -> Result<()> {
    let is_cpuset = hierarchy.has("cpuset");
    let directory = hierarchy.root.join(path);
    let made = std::fs::create_dir(&directory).is_ok();
    if made && is_cpuset {
        inherit_cpuset(&directory)?;
    } else if !made {
        let mut level = hierarchy.root.clone();
        for component in path.components() {
            level.push(component);
            if make_directory(&level)? && is_cpuset {
                inherit_cpuset(&level)?;
            }
        }
    }
    for controller in &hierarchy.controllers {
        saved.v1.insert(controller.clone(), directory.clone());
    }
    Ok(())
}

/// A new cpuset is empty and takes no process: it begins as its parent is.
fn inherit_cpuset(directory: &Path) -> Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = read(&parent.join(file))?;
        if value.trim().is_empty() {
            // Made by somebody who did not think of it; the root of the tree has all.
            inherit_cpuset(parent)?;
            value = read(&parent.join(file))?;
        }
        let path = directory.join(file);
        write(&path, value.trim()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The file to which a task writes `0` to come in.
pub(super) fn open_tasks(path: &Path) -> Result<OwnedFd> {
    let file = path.join("tasks");
    open(&file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).with_context(|| format!("open {}", file.display()))
}

/// `memory` before `memory plus swap` or after, and `quota` before `period` or after: whichever order the kernel takes,
/// for at every moment the first may not exceed the second.
pub(super) fn apply(settings: &[Setting], directory_of: impl Fn(&str) -> Option<PathBuf>) -> Result<()> {
    let mut rest: Vec<&Setting> = settings.iter().collect();
    while !rest.is_empty() {
        let setting = rest.remove(0);
        let Some(directory) = directory_of(setting.controller) else { continue };
        let partner = match setting.file.as_str() {
            MEMORY_LIMIT => Some(SWAP_LIMIT),
            PERIOD => Some(QUOTA),
            "cpu.rt_period_us" => Some("cpu.rt_runtime_us"),
            _ => None,
        };
        let partner = partner.and_then(|file| rest.iter().position(|other| other.file == file));
        match (setting.apply(&directory), partner) {
            (Err(_), Some(position)) => {
                let partner = rest.remove(position);
                partner.apply(&directory)?;
                setting.apply(&directory)?;
            }
            (result, _) => result?,
        }
    }
    Ok(())
}

fn freezer(saved: &Saved) -> Result<&Path> {
    saved.v1.get("freezer").map(PathBuf::as_path).context("pause: this host has no cgroup freezer")
}

pub(super) fn set_frozen(saved: &Saved, wanted: bool) -> Result<()> {
    let file = freezer(saved)?.join("freezer.state");
    let (value, deadline) = (if wanted { "FROZEN" } else { "THAWED" }, Instant::now() + PATIENCE);
    // The kernel may stay in FREEZING when a task forks meanwhile, until told again (runc does so too); no event tells.
    loop {
        write(&file, value).with_context(|| format!("write {}", file.display()))?;
        if read(&file)?.trim() == value {
            return Ok(());
        }
        if Instant::now() > deadline {
            let _ = write(&file, "THAWED");
            bail!("freeze {}: some process did not stop within {PATIENCE:?}", file.display());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn frozen(saved: &Saved) -> Result<bool> {
    match saved.v1.get("freezer") {
        Some(path) => Ok(read(&path.join("freezer.state"))?.trim() != "THAWED"),
        None => Ok(false),
    }
}

/// Removes it, deepest first. Nothing tells when a killed process is gone, so a busy group is tried again.
pub(super) fn delete(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        match remove(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(error) => return Err(error).with_context(|| format!("remove cgroup {}", path.display())),
        }
    }
}
