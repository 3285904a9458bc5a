//! From the container's streams to its log and to whoever watches: every byte, in order.
//!
//! A stream is not read on while somebody who watches it has not taken what was read before: memory is bounded, and a
//! patient viewer slows the container down as a pipe does. The log never waits for a viewer but through this.

use super::log::{Log, Stream};
use nix::errno::Errno;
use nix::unistd::{read, write};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What is read at once while little comes: all that a pipe holds.
const CHUNK_SMALL: usize = 64 * 1024;
/// What is read at once of a container that fills its pipe. The writer is woken less often, and the log is written in
/// pieces for which the page cache takes large folios.
const CHUNK: usize = 256 * 1024;
/// A container that fills its pipe gets a larger one (what an ordinary user may have: pipe(7)).
const PIPE_LARGE: i32 = 1024 * 1024;
/// So long an impatient viewer may take nothing.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// The ends of a container's streams that the supervisor reads.
#[derive(Debug, Default)]
pub struct Relay {
    sources: [Option<Source>; 2],
    /// Empty while nothing comes.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Source {
    file: OwnedFd,
    enlarged: bool,
}

/// What came of reading a stream once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// Something was read.
    Data,
    /// Nothing is there now.
    Empty,
    /// It is at its end.
    End,
}

/// Where a viewer wants a stream.
#[derive(Debug)]
struct Sink {
    file: OwnedFd,
    pending: Vec<u8>,
    /// Since when it has taken nothing of what is pending.
    stalled: Option<Instant>,
}

/// Somebody who watches.
#[derive(Debug, Default)]
pub struct Viewer {
    sinks: [Option<Sink>; 2],
    /// The container waits for this one.
    patient: bool,
    /// One of its pipes was closed at the other end.
    broken: bool,
}

impl Relay {
    /// Of these streams, which must not block.
    pub fn new(output: Option<OwnedFd>, errors: Option<OwnedFd>) -> Relay {
        let source = |file: Option<OwnedFd>| file.map(|file| Source { file, enlarged: false });
        Relay { sources: [source(output), source(errors)], buffer: Vec::new() }
    }

    /// The descriptor to poll for a stream, unless it is at its end.
    pub fn source(&self, stream: Stream) -> Option<&OwnedFd> {
        self.sources[stream as usize].as_ref().map(|source| &source.file)
    }

    /// Close a stream: whoever writes to it gets SIGPIPE.
    pub fn close(&mut self, stream: Stream) {
        self.sources[stream as usize] = None;
    }

    /// Read what is there of a stream, once, and hand it on.
    pub fn pump<'a>(&mut self, stream: Stream, log: &mut Log, viewers: impl Iterator<Item = &'a mut Viewer>) -> Pumped {
        let Some(source) = &mut self.sources[stream as usize] else { return Pumped::End };
        let room = if source.enlarged { CHUNK } else { CHUNK_SMALL };
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let length = match read(&source.file, &mut self.buffer) {
            Ok(0) => 0,
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Pumped::Empty,
            // EIO is a terminal's way to say that nobody has its other end open.
            Err(_) => 0,
        };
        if length == 0 {
            self.sources[stream as usize] = None;
            return Pumped::End;
        }
        if length >= CHUNK_SMALL && !source.enlarged {
            source.enlarged = true;
            let _ = nix::fcntl::fcntl(&source.file, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_LARGE));
        }
        let bytes = &self.buffer[..length];
        log.write(stream, bytes);
        for viewer in viewers {
            viewer.offer(stream, bytes);
        }
        Pumped::Data
    }

    /// Give memory back after a burst.
    pub fn rest(&mut self) {
        self.buffer = Vec::new();
    }
}

impl Viewer {
    /// One who takes these streams through pipes that do not block.
    pub fn new(output: Option<OwnedFd>, errors: Option<OwnedFd>, patient: bool) -> Viewer {
        let sink = |file: Option<OwnedFd>| file.map(|file| Sink { file, pending: Vec::new(), stalled: None });
        Viewer { sinks: [sink(output), sink(errors)], patient, broken: false }
    }

    /// The descriptor to poll for writing, while something is pending.
    pub fn pending(&self, stream: Stream) -> Option<&OwnedFd> {
        let sink = self.sinks[stream as usize].as_ref()?;
        (!sink.pending.is_empty()).then_some(&sink.file)
    }

    /// Whether it has a pipe for this stream.
    pub fn watches(&self, stream: Stream) -> bool {
        self.sinks[stream as usize].is_some()
    }

    /// Whether one of its pipes was closed at the other end; says so once.
    pub fn take_broken(&mut self) -> bool {
        std::mem::take(&mut self.broken)
    }

    /// Write on what is pending.
    pub fn flush(&mut self, stream: Stream) {
        let Some(sink) = &mut self.sinks[stream as usize] else { return };
        match write_some(&sink.file, &sink.pending) {
            Ok(0) => {}
            Ok(taken) => {
                sink.pending.drain(..taken);
                sink.stalled = (!sink.pending.is_empty()).then(Instant::now);
                if sink.pending.is_empty() {
                    sink.pending = Vec::new();
                }
            }
            Err(_) => self.lose(stream),
        }
    }

    /// Drop it if it is not patient and has not taken anything for too long.
    pub fn drop_stalled(&mut self, now: Instant) {
        for stream in [Stream::Output, Stream::Errors] {
            let stalled = self.sinks[stream as usize].as_ref().and_then(|sink| sink.stalled);
            if !self.patient && stalled.is_some_and(|since| now.duration_since(since) >= STALL_MAX) {
                self.lose(stream);
            }
        }
    }

    /// Whether [`Viewer::drop_stalled`] has to be called some time.
    pub fn is_stalled(&self) -> bool {
        !self.patient && self.sinks.iter().flatten().any(|sink| sink.stalled.is_some())
    }

    fn offer(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(sink) = &mut self.sinks[stream as usize] else { return };
        let taken = if sink.pending.is_empty() { write_some(&sink.file, bytes) } else { Ok(0) };
        match taken {
            Ok(taken) if taken == bytes.len() => {}
            Ok(taken) => {
                sink.pending.extend_from_slice(&bytes[taken..]);
                sink.stalled.get_or_insert_with(Instant::now);
            }
            Err(_) => self.lose(stream),
        }
    }

    fn lose(&mut self, stream: Stream) {
        self.sinks[stream as usize] = None;
        self.broken = true;
    }
}

/// Write until it would block; how much that was.
fn write_some(file: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match write(file, &bytes[done..]) {
            Ok(written) => done += written,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe::set_nonblocking;
    use std::io::{Read, Write};

    fn nonblocking(file: impl Into<OwnedFd>) -> OwnedFd {
        let file = file.into();
        set_nonblocking(&file).unwrap();
        file
    }

    #[test]
    fn a_slow_viewer_holds_the_stream_back_and_loses_nothing() {
        let (source, mut container) = io::pipe().unwrap();
        let (mut client, sink) = io::pipe().unwrap();
        let mut relay = Relay::new(Some(nonblocking(source)), None);
        let mut viewer = Viewer::new(Some(nonblocking(sink)), None, true);
        let sent: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || container.write_all(&sent).unwrap());
        let mut received = Vec::new();
        let mut chunk = vec![0; 10_000];
        loop {
            if viewer.pending(Stream::Output).is_some() {
                assert!(viewer.sinks[0].as_ref().unwrap().pending.len() <= CHUNK);
                let length = client.read(&mut chunk).unwrap();
                received.extend_from_slice(&chunk[..length]);
                viewer.flush(Stream::Output);
            } else if relay.pump(Stream::Output, &mut Log::None, std::iter::once(&mut viewer)) == Pumped::End {
                break;
            }
        }
        writer.join().unwrap();
        drop(viewer);
        client.read_to_end(&mut received).unwrap();
        assert!(received == expected);
        relay.rest();
        assert_eq!(relay.buffer.capacity(), 0);
    }

    #[test]
    fn a_viewer_that_leaves_is_told_of_once() {
        let (source, mut container) = io::pipe().unwrap();
        let (client, sink) = io::pipe().unwrap();
        let mut relay = Relay::new(Some(nonblocking(source)), None);
        let mut viewer = Viewer::new(Some(nonblocking(sink)), None, true);
        drop(client);
        container.write_all(b"x").unwrap();
        relay.pump(Stream::Output, &mut Log::None, std::iter::once(&mut viewer));
        assert!(viewer.take_broken() && !viewer.take_broken() && !viewer.watches(Stream::Output));
        relay.close(Stream::Output);
        assert_eq!(container.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
