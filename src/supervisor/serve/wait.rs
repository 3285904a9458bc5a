//! What a supervisor waits for: everything it has open, and the next thing that is due. Changes nothing.

use super::{CLIENTS_MAX, House, Process, REST_AFTER};
use crate::state::container::Phase;
use crate::supervisor::health::Health;
use crate::supervisor::log::Stream;
use crate::supervisor::relay::{STALL_MAX, Viewer};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl House {
    /// The next time at which [`House::keep_time`] has something to do.
    fn next_deadline(&self, until: Option<Instant>) -> Option<Instant> {
        let stalled = self.clients.iter().filter_map(|client| client.viewer.as_ref()).any(Viewer::is_stalled);
        let rest = self.restless.then(|| self.last_event + REST_AFTER);
        let stall = stalled.then(|| Instant::now() + STALL_MAX);
        let checks = self.status.get().phase == Phase::Running && !self.status.get().stopping;
        let health = self.health.as_ref().filter(|health| checks || health.is_checking()).and_then(Health::deadline);
        [until, self.stop_deadline, self.run_deadline, rest, stall, health].into_iter().flatten().min()
    }

    /// Wait until something can be done.
    pub(super) fn wait(&self, process: Option<&dyn Process>, until: Option<Instant>) -> Result<Ready> {
        let mut places = Places { files: Vec::with_capacity(8 + 3 * self.clients.len()) };
        let signals = places.add(&self.signals, PollFlags::POLLIN);
        let full = self.clients.len() >= CLIENTS_MAX;
        let listener = if full { None } else { places.add(&self.listener, PollFlags::POLLIN) };
        let pidfd = process.and_then(|process| process.pidfd()).and_then(|pidfd| places.add(pidfd, PollFlags::POLLIN));
        let sources = [Stream::Output, Stream::Errors].map(|stream| {
            let mut viewers = self.clients.iter().filter_map(|client| client.viewer.as_ref());
            let held = viewers.any(|viewer| viewer.pending(stream).is_some());
            let source = self.relay.source(stream).filter(|_| !held);
            source.and_then(|source| places.add(source, PollFlags::POLLIN))
        });
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|client| {
                let sink = |stream| client.viewer.as_ref().and_then(|viewer| viewer.pending(stream));
                let sinks = [Stream::Output, Stream::Errors];
                let sinks = sinks.map(|stream| sink(stream).and_then(|file| places.add(file, PollFlags::POLLOUT)));
                (places.add(&client.connection, PollFlags::POLLIN), sinks)
            })
            .collect();
        let check = self.health.as_ref().and_then(Health::output).map(|output| {
            places.files.push(PollFd::new(output, PollFlags::POLLIN));
            places.files.len() - 1
        });
        let notify = self.notify.as_ref().and_then(|notify| places.add(notify, PollFlags::POLLIN));
        let first = places.files.len();
        let names = self.network.fds();
        for file in &names {
            places.files.push(PollFd::new(*file, PollFlags::POLLIN));
        }
        let names = first..places.files.len();
        let left = self.next_deadline(until).map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(&mut places.files, timeout(left)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the container"),
        }
        let is = |place: Option<usize>| place.is_some_and(|index| places.files[index].any() == Some(true));
        Ok(Ready {
            signals: is(signals),
            listener: is(listener),
            process: is(pidfd),
            check: is(check),
            notify: is(notify),
            network: names.into_iter().any(|index| is(Some(index))),
            sources: sources.map(is),
            clients: clients
                .into_iter()
                .map(|(speaks, sinks)| Seen { speaks: is(speaks), sinks: sinks.map(is) })
                .collect(),
        })
    }
}

struct Places<'a> {
    files: Vec<PollFd<'a>>,
}

impl<'a> Places<'a> {
    fn add(&mut self, file: &'a impl AsFd, events: PollFlags) -> Option<usize> {
        self.files.push(PollFd::new(file.as_fd(), events));
        Some(self.files.len() - 1)
    }
}

/// What can be done now.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) signals: bool,
    pub(super) listener: bool,
    pub(super) process: bool,
    pub(super) check: bool,
    pub(super) notify: bool,
    pub(super) network: bool,
    pub(super) sources: [bool; 2],
    pub(super) clients: Vec<Seen>,
}

impl Ready {
    /// Whether there is anything to do.
    pub(super) fn any(&self) -> bool {
        let of_client = |seen: &Seen| seen.speaks || seen.sinks != [false; 2];
        self.signals
            || self.listener
            || self.process
            || self.check
            || self.notify
            || self.network
            || self.sources != [false; 2]
            || self.clients.iter().any(of_client)
    }
}

/// The same of one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) speaks: bool,
    pub(super) sinks: [bool; 2],
}

/// For poll(2).
pub(super) fn timeout(left: Option<Duration>) -> PollTimeout {
    // A millisecond more, or the loop turns until the last fraction of it is over.
    left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left.as_millis().saturating_add(1).min(i32::MAX as u128) as i32)
            .unwrap_or(PollTimeout::MAX)
    })
}
