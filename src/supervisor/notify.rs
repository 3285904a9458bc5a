//! `--sdnotify container`: what the container says to its service manager (sd_notify(3)) goes through us. The manager's own
//! socket is not given to it: only what can be meant is passed on.

use super::acquire::{Request, clone_path};
use super::source::ours;
use crate::bundle::mount::Prepared;
use crate::host::notify;
use crate::storage::tree;
use anyhow::{Context, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

/// Where its socket is inside.
const DIRECTORY: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
/// Longest message that is passed on.
const LENGTH_MAX: usize = 4096;
/// Processes and descriptors of the container mean nothing outside.
const PASSED_ON: [&str; 8] =
    ["READY=", "RELOADING=", "STOPPING=", "STATUS=", "ERRNO=", "WATCHDOG=", "EXTEND_TIMEOUT_USEC=", "MONOTONIC_USEC="];

/// The socket a container speaks to.
#[derive(Debug)]
pub struct Notify(UnixDatagram);

/// What the container gets.
pub(super) struct Inside {
    pub mount: (Prepared, OwnedFd),
    pub variable: (String, String),
}

impl Notify {
    /// A socket for this container; `None`: no manager listens, or somebody else tells it.
    pub(super) fn open(request: &Request<'_>) -> Result<Option<(Notify, Inside)>> {
        let mode = request.record.spec.lifecycle.sdnotify.as_deref().unwrap_or("container");
        if mode != "container" || std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(None);
        }
        let directory = request.layout.running(&request.record.id).join("notify");
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let path = directory.join(SOCKET);
        let _ = std::fs::remove_file(&path);
        let held = tree::open_directory(&directory)?;
        // An address has room for 107 bytes, the path may have more.
        let short = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
        let socket = UnixDatagram::bind(short).with_context(|| format!("listen at {}", path.display()))?;
        socket.set_nonblocking(true)?;
        // Whoever the container runs as. Nobody else gets at a directory of ours in RUN.
        for (path, mode) in [(&path, 0o666), (&directory, 0o755)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        let inside = Inside {
            mount: (ours(DIRECTORY, &directory, true), clone_path(&directory, false)?),
            variable: ("NOTIFY_SOCKET".to_owned(), format!("{DIRECTORY}/{SOCKET}")),
        };
        Ok(Some((Notify(socket), inside)))
    }

    /// It has spoken: pass it on.
    pub(super) fn pass_on(&self) {
        let mut bytes = [0; LENGTH_MAX];
        while let Ok(length) = self.0.recv(&mut bytes) {
            let lines = meant(&String::from_utf8_lossy(&bytes[..length]));
            if !lines.is_empty() {
                notify::notify(&lines);
            }
        }
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn meant(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| PASSED_ON.iter().any(|word| line.starts_with(word))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on() {
        assert_eq!(meant("READY=1\nMAINPID=7\nSTATUS=fine\nFDSTORE=1"), "READY=1\nSTATUS=fine");
        assert_eq!(meant("MAINPID=7"), "");
    }
}
