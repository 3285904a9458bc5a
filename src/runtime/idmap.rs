//! Id maps of user namespaces: of a container's, and of the ones that idmapped mounts need.

use crate::sys::process::{self, Birth, Side};
use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::LinuxIdMapping;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

/// The two maps of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    pub uid: Vec<Range>,
    pub gid: Vec<Range>,
}

/// Ids `inside..inside+size` are `outside..outside+size` of the parent namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

impl Range {
    /// From the spec.
    pub fn all(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<Range> {
        let range = |mapping: &LinuxIdMapping| Range {
            inside: mapping.container_id(),
            outside: mapping.host_id(),
            size: mapping.size(),
        };
        mappings.iter().flatten().map(range).collect()
    }
}

impl IdMaps {
    /// Root inside, or the first id there is.
    pub fn first_user(&self) -> (u32, u32) {
        let first = |ranges: &[Range]| {
            let has_root = ranges.iter().any(|range| range.inside == 0);
            if has_root { 0 } else { ranges.first().map_or(0, |range| range.inside) }
        };
        (first(&self.uid), first(&self.gid))
    }

    /// Write the maps of the process's new user namespace: ourselves where we may, else by the set-user-id helpers
    /// (which check /etc/subuid), else, for our own single id, without supplementary groups.
    pub fn write(&self, pid: i32) -> Result<()> {
        match self.write_directly(pid) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            other => return other.context("write the id maps"),
        }
        if self.is_own_id_only() {
            fs::write(format!("/proc/{pid}/setgroups"), "deny").context("write setgroups")?;
            return self.write_directly(pid).context("write the id maps");
        }
        map_by_helper("newgidmap", pid, &self.gid)?;
        map_by_helper("newuidmap", pid, &self.uid)
    }

    fn write_directly(&self, pid: i32) -> std::io::Result<()> {
        write_map(pid, "gid_map", &self.gid)?;
        write_map(pid, "uid_map", &self.uid)
    }

    fn is_own_id_only(&self) -> bool {
        let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        matches!((&self.uid[..], &self.gid[..]), ([uid], [gid])
            if (uid.size, uid.outside, gid.size, gid.outside) == (1, user, 1, group))
    }

    /// A user namespace with these maps that nobody lives in: for `MOUNT_ATTR_IDMAP`.
    pub fn namespace(&self) -> Result<OwnedFd> {
        let (ours, theirs) = crate::sys::fd::channel()?;
        let birth = Birth { flags: libc::CLONE_NEWUSER as u64, cgroup: None };
        match process::clone3(&birth).context("make a user namespace")? {
            Side::Child => {
                drop(ours);
                // Wait until the parent closes its end.
                let _ = crate::sys::fd::receive(theirs.as_fd(), &mut [0; 1]);
                process::exit_now(0)
            }
            Side::Parent(child) => {
                drop(theirs);
                let made = self
                    .write(child.pid)
                    .and_then(|()| Ok(fs::File::open(format!("/proc/{}/ns/user", child.pid))?.into()));
                drop(ours);
                process::wait(child.pidfd.as_fd())?;
                made
            }
        }
    }
}

/// One write: the kernel takes a map at once or not at all.
fn write_map(pid: i32, file: &str, ranges: &[Range]) -> std::io::Result<()> {
    let text: String = ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size)).collect();
    fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/{file}"))?.write_all(text.as_bytes())
}

fn map_by_helper(helper: &str, pid: i32, ranges: &[Range]) -> Result<()> {
    let mut command = Command::new(helper);
    command.arg(pid.to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.size].map(|number| number.to_string()));
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(crate::failure::Failure::new(
                crate::failure::Kind::Engine,
                format!("map more than one id: `{helper}` is not installed"),
            )
            .hint("install the package `uidmap`"))
            .map_err(Into::into);
        }
        other => other.with_context(|| format!("run {helper}"))?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it failed without a word").to_owned();
        bail!(anyhow!(last).context(format!("map ids by {helper}")));
    }
    Ok(())
}

impl fmt::Display for IdMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ranges: &[Range]| {
            let parts: Vec<_> = ranges.iter().map(|r| format!("{}:{}:{}", r.inside, r.outside, r.size)).collect();
            parts.join(",")
        };
        write!(f, "uid {} gid {}", list(&self.uid), list(&self.gid))
    }
}
