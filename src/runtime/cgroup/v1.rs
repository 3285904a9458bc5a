//! Version 1: one tree for each controller (or a few). Only the trees that are needed are entered.
//!
//! A group is made in those that give figures or guard devices, and in those whose limits were asked for: each costs
//! a directory, and `cpuset` is dear.
#![forbid(unsafe_code)]

use super::limit::Setting;
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

/// Makes the group in the trees that are needed.
pub(super) fn create(request: &Request, settings: &[Setting], saved: &mut Saved) -> Result<()> {
    let mut controllers: BTreeSet<&str> = ALWAYS.iter().copied().filter(|name| mounted(name)).collect();
    // Without a version 2 tree only the freezer can kill or pause.
    if !place::legacy_root("unified").is_dir() && mounted("freezer") {
        controllers.insert("freezer");
    }
    controllers.extend(settings.iter().map(|setting| setting.controller));
    for controller in controllers {
        let path = place::path(request, || place::own_path(Some(controller)))?;
        enter(controller, &path, saved)?;
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
    for controller in wanted {
        if saved.v1.contains_key(controller) {
            continue;
        }
        let Some(relative) = relative_path(saved) else { continue };
        enter(controller, &relative, saved)?;
        let procs = saved.v1[controller].join("cgroup.procs");
        let mut moved = BTreeSet::new();
        // Who is forked by one not moved yet is not moved either: until a look finds nobody new.
        loop {
            let new: Vec<i32> = pids()?.into_iter().filter(|pid| moved.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                match write(&procs, &pid.to_string()) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                        return Err(error).with_context(|| format!("move process {pid} to {}", procs.display()));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The group's path below the roots, from one that exists.
fn relative_path(saved: &Saved) -> Option<PathBuf> {
    let (controller, path) = saved.v1.iter().next()?;
    path.strip_prefix(place::legacy_root(controller)).ok().map(Path::to_path_buf)
}

fn mounted(controller: &str) -> bool {
    place::legacy_root(controller).is_dir()
}

fn enter(controller: &str, path: &Path, saved: &mut Saved) -> Result<()> {
    if !mounted(controller) {
        let hint = match controller {
            "cgroup" | "io" => "it is of cgroup v2; boot with `systemd.unified_cgroup_hierarchy=1`".to_owned(),
            _ => format!("mount it: mount -t cgroup -o {controller} {controller} /sys/fs/cgroup/{controller}"),
        };
        let tried = format!("set limits: the cgroup v1 controller `{controller}` is not mounted or not in this kernel");
        return Err(Failure::new(Kind::Engine, tried).hint(hint).into());
    }
    let mut level = place::legacy_root(controller);
    let leaf = level.join(path);
    if !std::fs::create_dir(&leaf).is_ok() {
        for component in path.components() {
            level.push(component);
            if make_directory(&level)? && controller == "cpuset" {
                inherit_cpuset(&level)?;
            }
        }
    } else if controller == "cpuset" {
        inherit_cpuset(&leaf)?;
    }
    saved.v1.insert(controller.to_owned(), leaf);
    Ok(())
}

/// A new cpuset is empty and takes no process: it begins as its parent is.
fn inherit_cpuset(directory: &Path) -> Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = read(&parent.join(file))?;
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
