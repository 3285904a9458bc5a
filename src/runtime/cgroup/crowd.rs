//! Those who live in a cgroup: who they are, stopping them where they are, ending them.
#![forbid(unsafe_code)]

use super::{Cgroup, children, read, v1, v2};
use crate::failure::{Failure, Kind};
use anyhow::{Context, Result};
use std::path::Path;

impl Cgroup {
    /// Every process in it and in the groups below.
    pub fn pids(&self) -> Result<Vec<i32>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        pids_of(&self.directory_of_pids())
    }

    /// Stops all its processes where they are, until [`Cgroup::thaw`]. Returns when they have stopped.
    pub fn freeze(&mut self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets them go on.
    pub fn thaw(&mut self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&mut self, frozen: bool) -> Result<()> {
        if let Some(path) = &self.saved.unified {
            return v2::set_frozen(path, frozen);
        }
        if !self.exists() {
            return Err(Failure::new(Kind::Engine, "pause: the container runs without a cgroup of its own")
                .hint("rootless pause needs cgroup v2 with delegation to the user")
                .into());
        }
        v1::set_frozen(&self.saved, frozen)
    }

    /// Somebody else has frozen it, in whichever tree: a process would not come out of its first step there.
    pub fn is_frozen_already(&self) -> bool {
        let unified = self.saved.unified.as_ref().is_some_and(|path| v2::frozen(path).unwrap_or(false));
        unified || v1::frozen(&self.saved).unwrap_or(false)
    }

    /// How many processes are in it, not counting those below.
    pub fn population(&self) -> usize {
        let path = self.directory_of_pids().join("cgroup.procs");
        read(&path).map_or(0, |text| text.lines().count())
    }

    /// Whether it is frozen.
    pub fn frozen(&self) -> Result<bool> {
        match &self.saved.unified {
            Some(path) => v2::frozen(path),
            None => v1::frozen(&self.saved),
        }
    }

    /// SIGKILL to every process, those that fork meanwhile included. Without a cgroup it does nothing.
    pub fn kill(&mut self) -> Result<()> {
        match &self.saved.unified {
            Some(path) if v2::kill(path)? => Ok(()),
            _ => self.kill_one_by_one(),
        }
    }

    /// For kernels before 5.14 and pure version 1: nothing can fork while frozen, nor is a pid reused.
    fn kill_one_by_one(&mut self) -> Result<()> {
        if self.pids()?.is_empty() {
            return Ok(());
        }
        self.freeze()?;
        for pid in self.pids()? {
            match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(errno).with_context(|| format!("kill process {pid}")),
            }
        }
        self.thaw()
    }
}

pub(super) fn pids_of(directory: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect_pids(directory, &mut pids)?;
    Ok(pids)
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let text = match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => text,
        // A group that goes away while we look has no processes; a threaded one lists them in its root.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => {
            String::new()
        }
        Err(error) => return Err(error).with_context(|| format!("read the processes of {}", directory.display())),
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(directory) {
        collect_pids(&child, pids)?;
    }
    Ok(())
}
