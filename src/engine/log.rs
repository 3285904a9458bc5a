//! Read what a container has said: from its log files across rotations and restarts, or from the journal, and on.
//!
//! A follower reads a file to its end before it goes on to the younger one, and stops after the last line that was
//! written before the container ended; it is woken by inotify and by the supervisor, it does not poll.

mod chain;
mod journal;
mod parse;

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::model::container::LogDriver;
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord};
use crate::state::event::now_ns;
use crate::supervisor::client;
use crate::supervisor::log::{self, Stream};
use crate::supervisor::message::{Connection, Request};
use anyhow::{Context, Result};
use chain::Chain;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// What to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Go on until the container ends.
    pub follow: bool,
    /// Nothing older, nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Nothing younger.
    pub until_ns: Option<i64>,
    /// Only so many lines at the end.
    pub tail: Option<u64>,
}

/// One record: a line, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was written.
    pub time_ns: i64,
    /// Where.
    pub stream: Stream,
    /// Without the newline.
    pub text: Vec<u8>,
    /// A newline follows.
    pub whole: bool,
}

/// Whether the reader wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    More,
    /// No.
    Enough,
}

/// Read a container's log.
///
/// # Errors
/// `this container is not logging output` for the drivers that keep none.
pub fn read(engine: &Engine, id: &Id, wish: Wish, sink: &mut dyn FnMut(Record) -> Result<Flow>) -> Result<()> {
    let record = ContainerRecord::load(&engine.layout, id)?;
    let driver = record.spec.log.driver;
    let none = |text: &str| -> Result<()> {
        Err(Failure::new(Kind::Engine, text)
            .hint("create the container with another --log-driver to have its output kept")
            .into())
    };
    match driver {
        LogDriver::None => none(
            "this container is not logging output: this container is using the 'none' log driver, cannot read logs",
        ),
        LogDriver::Passthrough | LogDriver::PassthroughTty => {
            none("this container is using the 'passthrough' log driver, cannot read logs")
        }
        LogDriver::Journald => journal::read(engine, &record, wish, sink),
        LogDriver::K8sFile | LogDriver::JsonFile => {
            let path = log::path(&record.spec.log, &engine.layout.container(id)).context("no log file")?;
            let format = if driver == LogDriver::JsonFile { parse::json } else { parse::kubernetes };
            Reader {
                engine,
                id,
                path,
                files_max: record.spec.log.max_files.unwrap_or(log::FILES_MAX_DEFAULT),
                wish,
                format,
            }
            .read(sink)
        }
    }
}

/// The supervisor of a container that runs, asked to tell of its end.
pub(crate) fn watch_end(engine: &Engine, id: &Id) -> Result<Option<Connection>> {
    let Some(connection) = client::connect(&engine.layout, id)? else { return Ok(None) };
    Ok(connection.send(&Request::Wait, &[]).is_ok().then_some(connection))
}

struct Reader<'a> {
    engine: &'a Engine,
    id: &'a Id,
    path: PathBuf,
    files_max: u32,
    wish: Wish,
    format: fn(&[u8]) -> Option<Record>,
}

impl Reader<'_> {
    fn read(&self, sink: &mut dyn FnMut(Record) -> Result<Flow>) -> Result<()> {
        // Watch first, then read: nothing falls in between.
        let watch = if self.wish.follow { self.watch_directory()? } else { None };
        let mut chain = Chain::open(&self.path, self.files_max)?;
        if let Some(lines) = self.wish.tail {
            chain.seek_tail(lines, |line| (self.format)(line).is_some_and(|record| record.whole))?;
        }
        if self.drain(&mut chain, sink)? == Flow::Enough {
            return Ok(());
        }
        let Some(watch) = watch else { return Ok(()) };
        loop {
            // Between two lives of the restart policy the supervisor stays, and so do we.
            let Some(end) = watch_end(self.engine, self.id)? else { break };
            if self.follow(&mut chain, &watch, &end, sink)? == Flow::Enough {
                return Ok(());
            }
            if !container::is_alive(&self.engine.layout, self.id)? {
                break;
            }
        }
        self.drain(&mut chain, sink)?;
        Ok(())
    }

    fn watch_directory(&self) -> Result<Option<Inotify>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("watch the log")?;
        let directory = self.path.parent().context("a log without a directory")?;
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(directory, flags).with_context(|| format!("watch {}", directory.display()))?;
        Ok(Some(inotify))
    }

    /// Until the supervisor tells of the end.
    fn follow(
        &self,
        chain: &mut Chain,
        watch: &Inotify,
        end: &Connection,
        sink: &mut dyn FnMut(Record) -> Result<Flow>,
    ) -> Result<Flow> {
        loop {
            if self.drain(chain, sink)? == Flow::Enough {
                return Ok(Flow::Enough);
            }
            let left = self.wish.until_ns.map(|until_ns| until_ns.saturating_sub(now_ns()));
            if left.is_some_and(|left| left <= 0) {
                return Ok(Flow::Enough);
            }
            let mut files =
                [PollFd::new(watch.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            match poll(&mut files, timeout(left)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the log"),
            }
            let ended = files[1].any() == Some(true);
            while watch.read_events().is_ok() {}
            if ended {
                return self.drain(chain, sink);
            }
        }
    }

    /// Hand on all that is there.
    fn drain(&self, chain: &mut Chain, sink: &mut dyn FnMut(Record) -> Result<Flow>) -> Result<Flow> {
        while let Some(line) = chain.next_line()? {
            let Some(record) = (self.format)(line) else { continue };
            if self.wish.since_ns.is_some_and(|since_ns| record.time_ns < since_ns) {
                continue;
            }
            if self.wish.until_ns.is_some_and(|until_ns| record.time_ns > until_ns) {
                return Ok(Flow::Enough);
            }
            if sink(record)? == Flow::Enough {
                return Ok(Flow::Enough);
            }
        }
        Ok(Flow::More)
    }
}

/// For poll(2), rounded up.
pub(crate) fn timeout(left_ns: Option<i64>) -> PollTimeout {
    left_ns.map_or(PollTimeout::NONE, |left| {
        let left = Duration::from_nanos(left.max(0) as u64).as_millis().saturating_add(1);
        PollTimeout::try_from(left.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
    })
}
