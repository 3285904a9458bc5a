//! A new network namespace, held by descriptor: no name, no bind mount, gone with its last holder.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::OwnedFd;

/// Make one with its loopback up. The calling thread is in it for a moment and comes back.
pub fn create() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    let home = File::open(path).with_context(|| format!("open {path}"))?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let made = (|| {
        let made = File::open(path).with_context(|| format!("open {path}"))?;
        crate::sys::loopback::raise().context("raise the loopback device")?;
        Ok(OwnedFd::from(made))
    })();
    setns(&home, CloneFlags::CLONE_NEWNET).context("come back from the new network namespace")?;
    made
}
