//! Control groups: version 2, version 1 and hybrid hosts behind one type, made by hand (cgroupfs) or by systemd.
//!
//! A [`Cgroup`] is made before the container's first process and outlives the process that made it: what a later one
//! must know is [`Saved`]. Nothing here decides policy: which limits, which path and which manager come in [`Request`].
//!
//! How a process gets in is what a start on cgroup v1 costs. Who writes another's pid to `cgroup.procs` takes a lock
//! of the kernel that waits for an RCU grace period, 8 to 20 ms; a process born into its group (CLONE_INTO_CGROUP) or
//! one that writes `0` to a v1 `tasks` file itself does not (Linux commit 9a3284fad42f). Hence [`Cgroup::clone_fd`] and
//! [`Cgroup::join_files`]; [`Cgroup::enter`] is for what remains.
//!
//! Invariants: only directories that this module made are removed. A limit that was asked for is set, or `create` and
//! `update` fail and say why. Without any limit and without the right to make a group, a container runs where its
//! caller is, and that is no error.
#![forbid(unsafe_code)]

mod crowd;
pub mod device;
mod limit;
mod place;
pub mod stat;
pub mod systemd;
mod v1;
mod v2;

use crate::failure::{Failure, Kind};
use anyhow::{Context, Result, bail};
use crowd::pids_of;
use limit::Setting;
use oci_spec::runtime::LinuxResources;
use place::Layout;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Does this host have nothing but cgroup v2?
pub fn is_unified() -> bool {
    matches!(Layout::detect(), Layout::Unified(_))
}

/// Who makes cgroups on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// We do, by mkdir(2).
    Cgroupfs,
    /// systemd does, as a transient scope.
    Systemd,
}

/// What is wanted of a new cgroup.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The container's id: the last part of the default path.
    pub id: &'a str,
    /// OCI's `cgroupsPath`: a path, or `slice:prefix:name` for systemd.
    pub path: Option<&'a Path>,
    /// OCI's `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// Who makes it.
    pub manager: Manager,
    /// The caller is not root of the host: groups are where the user was given one, devices are not filtered.
    pub rootless: bool,
    /// Version 1: a group of its own in every tree, not only where one is needed. For a container that may mount them.
    pub everywhere: bool,
}

/// What another process must know to go on with a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// The directory in the version 2 hierarchy; on hybrid hosts beside those of version 1.
    pub unified: Option<PathBuf>,
    /// The directory of each version 1 controller in use.
    pub v1: BTreeMap<String, PathBuf>,
    /// The directories in the other version 1 trees, which all containers share; never removed.
    pub shared: Vec<PathBuf>,
    /// As in the request.
    pub rootless: bool,
    /// Its scope, when systemd made it.
    pub scope: Option<systemd::Scope>,
}

/// The cgroup of a container; maybe none at all.
#[derive(Debug)]
pub struct Cgroup {
    saved: Saved,
    /// `saved.unified`, open.
    directory: Option<OwnedFd>,
    /// A scope that is started with the first process.
    pending: Option<Pending>,
}

/// What is left to do once there is a process.
#[derive(Debug)]
struct Pending {
    id: String,
    settings: Vec<Setting>,
    resources: Option<LinuxResources>,
    everywhere: bool,
}

impl Cgroup {
    /// Makes the cgroup and sets its limits; with systemd, prepares for [`Cgroup::enter`] to do so.
    pub fn create(request: &Request) -> Result<Cgroup> {
        let layout = Layout::detect();
        let settings = limit::settings(request.resources, &layout)?;
        if request.manager == Manager::Systemd {
            if systemd::is_there(request.rootless) {
                return Cgroup::prepare(request, settings);
            }
            if !request.rootless {
                return Err(Failure::new(Kind::Engine, "ask systemd for a cgroup: it does not run on this host")
                    .hint("use `--cgroup-manager cgroupfs`")
                    .into());
            }
        }
        let mut cgroup = Cgroup { saved: Saved::default(), directory: None, pending: None };
        cgroup.saved.rootless = request.rootless;
        let Err(error) = cgroup.make(request, &layout, &settings) else { return Ok(cgroup) };
        let _ = Cgroup::open(std::mem::take(&mut cgroup.saved)).remove_directories();
        cgroup.directory = None;
        if error.downcast_ref::<NotPermitted>().is_none() {
            return Err(error);
        }
        // A login session is not the user's own, but the user's systemd has a place that is.
        let no_path = request.path.is_none_or(|path| path.as_os_str().is_empty());
        let may_ask = request.rootless && matches!(layout, Layout::Unified(_)) && no_path;
        if may_ask && systemd::is_there(true) {
            return Cgroup::prepare(request, settings);
        }
        if settings.is_empty() { Ok(cgroup) } else { Err(explain_denied(error, &layout, &settings, request)) }
    }

    fn prepare(request: &Request, settings: Vec<Setting>) -> Result<Cgroup> {
        let mut saved = Saved { rootless: request.rootless, ..Saved::default() };
        systemd::prepare(systemd::scope(request)?, &mut saved);
        let pending = Pending {
            id: request.id.to_owned(),
            settings,
            resources: request.resources.cloned(),
            everywhere: request.everywhere,
        };
        Ok(Cgroup { saved, directory: None, pending: Some(pending) })
    }

    fn make(&mut self, request: &Request, layout: &Layout, settings: &[Setting]) -> Result<()> {
        match layout {
            Layout::Unified(root) => {
                let path = place::path(request, place::own_path)?;
                self.directory = Some(v2::create(root, &path, settings, &mut self.saved)?);
            }
            Layout::Legacy { unified } => {
                v1::create(request, settings, unified.is_some(), &mut self.saved)?;
                if let Some(root) = unified {
                    let path = place::path(request, place::own_path)?;
                    self.directory = v2::create_plain(root, &path, &mut self.saved)?;
                }
            }
            Layout::Absent => {
                return Err(anyhow::Error::new(NotPermitted(io::Error::from(io::ErrorKind::NotFound)))
                    .context("find a cgroup hierarchy at /sys/fs/cgroup"));
            }
        }
        self.limit(settings, request.resources)
    }

    fn limit(&self, settings: &[Setting], resources: Option<&LinuxResources>) -> Result<()> {
        self.apply(settings)?;
        if !self.saved.rootless {
            let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
            self.set_devices(rules)?;
        }
        Ok(())
    }

    /// The cgroup that an earlier process made.
    pub fn open(saved: Saved) -> Cgroup {
        let directory = saved.unified.as_deref().and_then(|path| v2::open(path).ok());
        Cgroup { saved, directory, pending: None }
    }

    /// What [`Cgroup::open`] needs.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Whether there is a cgroup at all.
    pub fn exists(&self) -> bool {
        self.saved.unified.is_some() || !self.saved.v1.is_empty()
    }

    /// The directory for CLONE_INTO_CGROUP.
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// The `tasks` files of version 1: the process itself, while it has one thread, writes `0` to each.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>> {
        let mut seen = BTreeSet::new();
        let all = self.saved.v1.values().chain(&self.saved.shared);
        let distinct = all.filter(|path| seen.insert(path.as_path()));
        distinct.map(|path| v1::open_tasks(path)).collect()
    }

    /// To be called with the first process after clone(2), before it goes on: a scope is made around it.
    pub fn enter(&mut self, pid: i32) -> Result<()> {
        let (Some(pending), Some(scope)) = (self.pending.take(), self.saved.scope.clone()) else { return Ok(()) };
        let path = systemd::start(&scope, &pending.id, pid, pending.resources.as_ref())?;
        match Layout::detect() {
            Layout::Unified(root) => {
                let directory = root.join(path);
                self.directory = Some(v2::open(&directory)?);
                self.saved.unified = Some(directory);
            }
            Layout::Legacy { unified } => {
                // systemd's own tree has no controllers; the others get the same path by hand.
                self.saved.unified = None;
                let path = Path::new("/").join(path);
                let request = Request {
                    id: &pending.id,
                    path: Some(&path),
                    resources: None,
                    manager: Manager::Cgroupfs,
                    rootless: self.saved.rootless,
                    everywhere: pending.everywhere,
                };
                v1::create(&request, &pending.settings, unified.is_some(), &mut self.saved)?;
                if let Some(root) = unified {
                    let path = path.strip_prefix("/").unwrap_or(&path);
                    self.directory = v2::create_plain(&root, path, &mut self.saved)?;
                }
                self.add(pid)?;
            }
            Layout::Absent => {}
        }
        self.limit(&pending.settings, pending.resources.as_ref())
    }

    /// Moves a process in, with all its threads. Slow on version 1, see above.
    pub fn add(&self, pid: i32) -> Result<()> {
        for path in self.directories().into_iter().chain(self.saved.shared.iter().map(PathBuf::as_path)) {
            match (write(&path.join("cgroup.procs"), &pid.to_string()), &self.saved.scope) {
                // From outside of the user's own tree only systemd may.
                (Err(error), Some(scope)) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                    systemd::attach(scope, pid)?;
                }
                (result, _) => {
                    result.with_context(|| format!("move process {pid} to cgroup {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Sets these limits; what is not named stays.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<()> {
        let layout = Layout::detect();
        let settings = limit::settings(Some(resources), &layout)?;
        if !self.exists() && !settings.is_empty() {
            return Err(Failure::new(Kind::Engine, "set limits: the container runs without a cgroup of its own")
                .hint("remove and create it again where cgroups can be made (rootless: cgroup v2 with delegation)")
                .into());
        }
        limit::check_before_update(resources, &self.saved)?;
        if matches!(layout, Layout::Legacy { .. }) {
            let directory = self.directory_of_pids();
            v1::add_controllers(&settings, &mut self.saved, || pids_of(&directory))?;
        }
        if let Some(scope) = &self.saved.scope {
            systemd::update(scope, resources)?;
        }
        self.apply(&settings)?;
        match resources.devices() {
            Some(rules) if !self.saved.rootless && !rules.is_empty() => self.set_devices(rules),
            _ => Ok(()),
        }
    }

    fn apply(&self, settings: &[Setting]) -> Result<()> {
        v1::apply(settings, |controller| self.saved.v1.get(controller).or(self.saved.unified.as_ref()).cloned())
    }

    fn set_devices(&self, rules: &[oci_spec::runtime::LinuxDeviceCgroup]) -> Result<()> {
        match (self.saved.v1.get("devices"), &self.directory) {
            (Some(path), _) => device::set_v1(path, rules),
            (None, Some(directory)) if self.saved.v1.is_empty() => device::set_v2(directory.as_fd(), rules),
            _ => Ok(()),
        }
    }

    /// Every directory once, version 2 first.
    fn directories(&self) -> Vec<&Path> {
        let all = self.saved.unified.iter().chain(self.saved.v1.values());
        let mut directories: Vec<&Path> = Vec::new();
        for path in all {
            if !directories.contains(&path.as_path()) {
                directories.push(path);
            }
        }
        directories
    }

    fn directory_of_pids(&self) -> PathBuf {
        self.directories().first().map(|path| path.to_path_buf()).unwrap_or_default()
    }

    /// Usage figures.
    pub fn stats(&self) -> Result<stat::Stats> {
        stat::read(&self.saved)
    }

    /// Tells of out-of-memory kills; absent when memory is not accounted for.
    pub fn oom_watch(&self) -> Result<Option<stat::OomWatch>> {
        stat::OomWatch::open(&self.saved)
    }

    /// The same for who waits for nothing else: looks now and then where the kernel does not tell.
    pub fn oom_watch_or_look(&self) -> Result<Option<stat::OomWatch>> {
        stat::OomWatch::open_or_look(&self.saved)
    }

    /// Removes it, with the groups a container made inside. What is gone already is no error; who still lives in it is.
    pub fn delete(&self) -> Result<()> {
        match &self.saved.scope {
            None => self.remove_directories(),
            Some(scope) => {
                if let Some(path) = &self.saved.unified {
                    v2::await_empty(path)?;
                }
                // Without its bus (the user has logged out) the scope is gone or will go by itself.
                let stopped = systemd::stop(scope);
                self.remove_directories().and(stopped.or_else(|error| match systemd::is_there(self.saved.rootless) {
                    true => Err(error),
                    false => Ok(()),
                }))
            }
        }
    }

    fn remove_directories(&self) -> Result<()> {
        let unified = self.saved.unified.as_deref();
        // Version 1 tells nobody when the last process has left, version 2 does: it goes first.
        if let Some(path) = unified {
            v2::delete(path)?;
        }
        for path in self.directories().into_iter().filter(|path| Some(*path) != unified) {
            v1::delete(path)?;
        }
        Ok(())
    }
}

/// The controllers whose limits could be set for a container of this caller, with the default path.
pub fn controllers(manager: Manager, rootless: bool) -> BTreeSet<String> {
    match Layout::detect() {
        Layout::Unified(root) => {
            let direct = if manager == Manager::Cgroupfs { v2::available(&root, rootless) } else { BTreeSet::new() };
            match systemd::is_there(rootless) {
                true if direct.is_empty() => systemd::available(&root, rootless),
                _ => direct,
            }
        }
        Layout::Legacy { .. } if !rootless => place::legacy_controllers(),
        _ => BTreeSet::new(),
    }
}

/// Whether a limit of this controller, which nobody asked for, could be set for a container of this caller.
pub fn may_limit(controller: &str, manager: Manager, rootless: bool) -> bool {
    match Layout::detect() {
        Layout::Unified(root) if !rootless => manager == Manager::Systemd || v2::may_have(&root, controller),
        Layout::Unified(_) => controllers(manager, true).contains(controller),
        Layout::Legacy { .. } => !rootless && v2::is_writable(&place::legacy_root(controller)),
        Layout::Absent => false,
    }
}

/// `--cgroups=split`: moves all processes of the caller's own group (a service's, delegated) to a group `supervisor`
/// below it, and gives the path for the container's beside that, for [`Request::path`] with [`Manager::Cgroupfs`].
pub fn split(id: &str) -> Result<PathBuf> {
    let own = match Layout::detect() {
        Layout::Unified(root) => v2::split(&root)?,
        Layout::Legacy { .. } => {
            let memory = place::hierarchies()?.into_iter().find(|hierarchy| hierarchy.has("memory"));
            memory.map(|hierarchy| hierarchy.own).unwrap_or_default()
        }
        Layout::Absent => bail!("split the cgroup: no cgroup hierarchy at /sys/fs/cgroup"),
    };
    Ok(own.join(format!("libpod-payload-{id}")))
}

/// Making a cgroup failed for want of rights; whether that matters depends on what was asked.
#[derive(Debug)]
struct NotPermitted(io::Error);

impl std::fmt::Display for NotPermitted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for NotPermitted {}

/// mkdir(2) of one group; that it is there already is fine.
fn make_directory(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            let denied = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS));
            let error = if denied { anyhow::Error::new(NotPermitted(error)) } else { error.into() };
            Err(error.context(format!("make cgroup {}", path.display())))
        }
    }
}

fn explain_denied(error: anyhow::Error, layout: &Layout, settings: &[Setting], request: &Request) -> anyhow::Error {
    let what: BTreeSet<&str> = settings.iter().map(|setting| setting.controller).collect();
    let what = what.into_iter().collect::<Vec<_>>().join(", ");
    let hint = match layout {
        Layout::Legacy { .. } if request.rootless => {
            "cgroup v1 cannot be delegated to users: boot with `systemd.unified_cgroup_hierarchy=1` (cgroup v2), or run \
             as root"
                .to_owned()
        }
        Layout::Unified(_) if request.rootless => v2::DELEGATION_HINT.to_owned(),
        Layout::Absent => "mount a cgroup hierarchy at /sys/fs/cgroup".to_owned(),
        _ => "is /sys/fs/cgroup mounted read-only? In a container give it cgroup rights (`--privileged`, or \
              `--security-opt unmask=/sys/fs/cgroup`)"
            .to_owned(),
    };
    let tried =
        if what.is_empty() { "set up the cgroup".to_owned() } else { format!("set the limits asked for ({what})") };
    error.context(Failure::new(Kind::Engine, tried).hint(hint))
}

/// Writes a control file in one write(2), as the kernel wants it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// rmdir(2) of a group and those below it, deepest first; that it is gone already is fine.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => return Err(error),
    }
    for child in children(path) {
        remove(&child)?;
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The groups right below; none when it is gone.
fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests;
