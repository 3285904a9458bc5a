//! The end of a container's first process, as the supervisor sees it: its streams are read to their ends, who waits is told,
//! and who watches gets all there is.

use super::wait::timeout;
use super::{House, Process};
use crate::supervisor::log::Stream;
use crate::supervisor::message::Reply;
use crate::supervisor::relay::{Pumped, Relay};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl House {
    /// The process has ended: read its streams to their end, whatever the viewers do, and finish the log.
    ///
    /// Somebody else may still hold the other end (a descriptor sent to another container): a stream that gives nothing
    /// for a while is taken to be at its end.
    pub fn drain(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(2000);
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let mut open = false;
            for stream in [Stream::Output, Stream::Errors] {
                loop {
                    match self.pump(stream) {
                        Pumped::Data => deadline = Instant::now() + PATIENCE,
                        Pumped::Empty => {
                            open = true;
                            break;
                        }
                        Pumped::End => break,
                    }
                }
            }
            let now = Instant::now();
            if !open || now >= deadline {
                break;
            }
            let mut files: Vec<PollFd<'_>> = [Stream::Output, Stream::Errors]
                .into_iter()
                .filter_map(|stream| self.relay.source(stream))
                .map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN))
                .collect();
            let _ = poll(&mut files, timeout(Some(deadline - now)));
        }
        self.log.finish();
        self.log.rest();
        self.relay = Relay::default();
        self.input = None;
    }

    /// Tell all who wait how it ended. Viewers stay until they have taken what is theirs.
    pub fn tell_exit(&mut self, code: i32) {
        let reply = Reply::Exited { code, killed: self.killed };
        for client in self.clients.iter_mut().filter(|client| client.waits || client.waits_for_check) {
            client.tell(&reply, None);
            client.waits = false;
            client.waits_for_check = false;
            client.starter = false;
        }
        self.clients.retain(|client| !client.gone && client.viewer.is_some());
    }

    /// Serve those who have not yet taken all output, and nobody else.
    pub fn linger(&mut self) {
        for client in &mut self.clients {
            let Some(viewer) = &mut client.viewer else { continue };
            for stream in [Stream::Output, Stream::Errors] {
                while let Some(file) = viewer.pending(stream) {
                    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut files, timeout(Some(Duration::from_secs(1))));
                    viewer.flush(stream);
                    viewer.drop_stalled(Instant::now());
                }
            }
        }
        self.clients.clear();
    }
}

/// Whether the first process has ended.
pub(super) fn has_ended(process: &dyn Process) -> bool {
    let Some(pidfd) = process.pidfd() else { return true };
    let mut files = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut files, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Reap the orphans of the container that have become our children. Its first process is left for its pidfd.
pub(super) fn reap_strangers(first: Option<i32>) -> Vec<(i32, i32)> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let mut reaped = Vec::new();
    while let Ok(status) = waitid(Id::All, look) {
        let Some(pid) = status.pid().filter(|pid| Some(pid.as_raw()) != first) else { break };
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => reaped.push((pid.as_raw(), code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => reaped.push((pid.as_raw(), 128 + signal as i32)),
            _ => break,
        }
    }
    reaped
}
