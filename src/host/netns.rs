//! A new network namespace, held by descriptor: no name, no bind mount, gone with its last holder.

use crate::sys::netlink;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::OwnedFd;

/// Make one with its loopback up. An ordinary user could not come back into the host's, so the caller does not go there.
pub fn create() -> Result<OwnedFd> {
    let make = || -> Result<OwnedFd> {
        let made = File::open("/proc/thread-self/ns/net").context("open the new network namespace")?;
        crate::sys::loopback::raise().context("raise the loopback device")?;
        Ok(OwnedFd::from(made))
    };
    netlink::within_new(make).context("make a network namespace")?
}
