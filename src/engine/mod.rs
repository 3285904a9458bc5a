//! The use cases, one file each: what a command, an API request or a kube manifest asks for, done.
//!
//! The engine reads and writes records and talks to supervisors; it starts no container itself (that is `supervisor`).
#![forbid(unsafe_code)]

pub mod archive;
pub mod artifact;
pub mod attach;
pub mod between;
pub mod check;
pub mod commit;
pub mod copy;
pub mod create;
pub mod diff;
pub mod disk;
pub mod dns;
pub mod event;
pub mod exec;
pub mod health;
mod idmap;
pub mod image;
pub mod image_mount;
pub mod info;
pub mod inspect;
pub mod list;
pub mod log;
pub mod login;
pub mod manifest;
mod merge;
pub mod moment;
pub mod network;
pub mod pause;
pub mod port;
pub mod registry;
pub mod remove;
pub mod rename;
pub mod rootfs;
pub mod search;
pub mod select;
pub mod start;
pub mod stat;
pub mod stop;
pub mod top;
pub mod transfer;
pub mod update;
pub mod volume;
pub mod wait;

use crate::host::config;
use crate::host::userns::Privilege;
use crate::state::layout::Layout;
use anyhow::{Result, bail};

/// What every use case needs to know.
#[derive(Debug)]
pub struct Engine {
    /// Where everything is.
    pub layout: Layout,
    /// As whom we work.
    pub privilege: Privilege,
    /// `--cgroup-manager`; absent: systemd where it runs and is ours to ask, else cgroupfs.
    pub cgroup_manager: Option<String>,
    /// The command line, for `CreateCommand`.
    pub arguments: Vec<String>,
}

impl Engine {
    /// The cgroup manager that was asked for, on the command line or in `containers.conf`.
    pub fn wanted_cgroup_manager(&self) -> Result<Option<&str>> {
        if let Some(manager) = &self.cgroup_manager {
            return Ok(Some(manager));
        }
        match config::get()?.engine.cgroup_manager.as_str() {
            "" => Ok(None),
            manager @ ("systemd" | "cgroupfs") => Ok(Some(manager)),
            other => bail!("containers.conf: cgroup_manager {other:?}: must be systemd or cgroupfs"),
        }
    }
}

/// Whether we were called by a link named `podman` or `docker`: whoever made it has scripts that look for their words.
pub fn speaks_as_podman() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    matches!(std::path::Path::new(&name).file_name().and_then(|name| name.to_str()), Some("podman" | "docker"))
}
