//! A command's half of the conversation: find the supervisor, ask it, and sit between a person and a container.
//!
//! [`relay`] is used by `run`, `start`, `attach` and `exec`. The container's output comes through pipes and is moved to
//! the caller's own streams without copying where the kernel can; what the caller types goes to the container's
//! standard input directly. Whatever happens, the terminal gets its old mode back.

mod keys;
mod stream;

pub use keys::Keys;

use crate::model::id::Id;
use crate::state::container;
use crate::state::layout::Layout;
use crate::supervisor::message::{Attach, Connection, Reply, Request};
use crate::sys::{pipe, socket, terminal};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stream::{Input, Output};

/// How long a supervisor that has just been born may take to listen.
const BIRTH_MAX: Duration = Duration::from_secs(10);

/// Where a container's supervisor listens.
pub fn socket_path(layout: &Layout, id: &Id) -> PathBuf {
    layout.running(id).join("control.sock")
}

/// Connect to a container's supervisor; `None`: it has none.
pub fn connect(layout: &Layout, id: &Id) -> Result<Option<Connection>> {
    let path = socket_path(layout, id);
    let begin = Instant::now();
    loop {
        match socket::connect_to(&path) {
            Ok(connection) => return Ok(Some(Connection::new(connection))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(error).with_context(|| format!("connect to {}", path.display())),
        }
        // Between taking `alive` and listening (or the other way round, at its end) lies a moment.
        if !container::is_alive(layout, id)? {
            return Ok(None);
        }
        if begin.elapsed() > BIRTH_MAX {
            bail!("connect to {}: its supervisor does not listen", path.display());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Connection {
    /// Ask, and wait for the answer.
    ///
    /// # Errors
    /// What the supervisor answered, or that it was killed before it could.
    pub fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        self.send(request, descriptors)?;
        self.answer()
    }

    /// Wait for an answer.
    pub fn answer(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        match self.receive()? {
            Some((Reply::Failed(trouble), _)) => Err(trouble.into_error()),
            Some(answer) => Ok(answer),
            None => bail!("the container's supervisor was killed"),
        }
    }
}

/// The pipes of one who attaches.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Our ends, for output and errors.
    pub ours: [Option<OwnedFd>; 2],
    /// The supervisor's ends.
    pub theirs: Vec<OwnedFd>,
}

impl Pipes {
    /// What this attach needs.
    pub fn new(attach: &Attach) -> io::Result<Pipes> {
        let mut pipes = Pipes::default();
        for (index, wanted) in [attach.output, attach.errors].into_iter().enumerate() {
            if wanted {
                let (reader, writer) = io::pipe()?;
                let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
                pipe::set_nonblocking(&reader)?;
                pipe::set_nonblocking(&writer)?;
                pipes.ours[index] = Some(reader);
                pipes.theirs.push(writer);
            }
        }
        Ok(pipes)
    }

    /// The supervisor's ends, to send.
    pub fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.theirs.iter().map(AsFd::as_fd).collect()
    }
}

/// What a person and a container share.
#[derive(Debug)]
pub struct Session {
    /// The container's standard input, or its terminal; it does not block.
    pub input: Option<OwnedFd>,
    /// Send on what the caller's standard input gives.
    pub forward_input: bool,
    /// The container's output and errors; they do not block.
    pub outputs: [Option<OwnedFd>; 2],
    /// `input` is a terminal: raw mode, sizes, detach keys.
    pub terminal: bool,
    /// Keys to leave it alone.
    pub detach_keys: Keys,
    /// Send on the signals this process gets.
    pub proxy_signals: bool,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The container's process has ended.
    Exited {
        /// Exit code.
        code: i32,
        /// It was killed after the stop time-out.
        killed: bool,
    },
    /// By the detach keys.
    Detached,
    /// This process got a signal that ends it.
    Interrupted(i32),
    /// The supervisor was killed.
    Lost,
}

/// Who tells how the container's process ended, and passes signals on.
pub trait Peer {
    /// Readable when there is news.
    fn news(&self) -> BorrowedFd<'_>;
    /// Look at the news.
    fn look(&mut self) -> Option<Ending>;
    /// Pass a signal on.
    fn signal(&mut self, number: i32);
    /// The caller's standard input is at its end.
    fn close_input(&mut self);
}

impl Peer for Connection {
    fn news(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn look(&mut self) -> Option<Ending> {
        match self.receive() {
            Ok(Some((Reply::Exited { code, killed }, _))) => Some(Ending::Exited { code, killed }),
            // Answers to signals.
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => Some(Ending::Lost),
        }
    }

    fn signal(&mut self, number: i32) {
        let _ = self.send(&Request::Signal { number }, &[]);
    }

    fn close_input(&mut self) {
        let _ = self.send(&Request::CloseInput, &[]);
    }
}

/// The signals that a session takes into its own hands.
///
/// Block them before the container is started, so that none is lost; they stay blocked.
pub fn block_signals() -> Result<SignalFd> {
    let mut signals = SigSet::all();
    // PIPE is seen as an error of the write. The others are the job control of the caller's shell, or faults.
    for kept in [
        Signal::SIGPIPE,
        Signal::SIGURG,
        Signal::SIGCHLD,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
        Signal::SIGTRAP,
    ] {
        signals.remove(kept);
    }
    signals.thread_block().context("block signals")?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Sit between the caller and the container until the end of one of them.
pub fn relay(session: Session, signals: &SignalFd, peer: &mut impl Peer) -> Result<Ending> {
    let Session { input, forward_input, outputs, terminal, detach_keys, proxy_signals } = session;
    let stdin = io::stdin();
    let _raw = match terminal && forward_input && terminal::is_terminal(&stdin) {
        true => Some(terminal::RawMode::enter(&stdin).context("set the terminal to raw mode")?),
        false => None,
    };
    let screen = if terminal { input.as_ref().map(OwnedFd::try_clone).transpose()? } else { None };
    if let Some(screen) = &screen {
        adopt_size(screen);
    }
    let mut input = match (forward_input, input) {
        (true, Some(target)) => Some(Input::new(target, terminal.then_some(detach_keys))),
        _ => None,
    };
    let [output, errors] = outputs;
    let mut outputs = [output.map(|file| Output::new(file, 1)), errors.map(|file| Output::new(file, 2))];
    let mut ending = None;
    while ending.is_none() || outputs.iter().any(Option::is_some) {
        let ready = wait(&input, &outputs, signals, ending.is_none().then(|| peer.news()))?;
        if ready.signal {
            while let Some(news) = signals.read_signal().context("read a signal")? {
                match news.ssi_signo as i32 {
                    libc::SIGWINCH if screen.is_some() => screen.as_ref().map_or((), adopt_size),
                    number if proxy_signals => peer.signal(number),
                    number @ (libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM) => {
                        return Ok(Ending::Interrupted(number));
                    }
                    _ => {}
                }
            }
        }
        for (index, output) in outputs.iter_mut().enumerate() {
            if ready.outputs[index] && output.as_mut().is_some_and(|output| output.pump().is_end()) {
                *output = None;
            }
        }
        if ready.input
            && let Some(sending) = &mut input
        {
            match sending.pump() {
                stream::Pumped::More => {}
                stream::Pumped::Detach => return Ok(Ending::Detached),
                stream::Pumped::End => {
                    if !terminal {
                        peer.close_input();
                    }
                    input = None;
                }
            }
        }
        if ready.news {
            ending = peer.look();
            if ending.is_some() {
                input = None;
            }
        }
    }
    Ok(ending.unwrap_or(Ending::Lost))
}

fn adopt_size(screen: &OwnedFd) {
    if let Ok(size) = terminal::size(io::stdout()).or_else(|_| terminal::size(io::stdin())) {
        let _ = terminal::set_size(screen, size);
    }
}

#[derive(Debug, Default)]
struct Ready {
    signal: bool,
    news: bool,
    input: bool,
    outputs: [bool; 2],
}

/// Wait until something can be done.
fn wait(
    input: &Option<Input>,
    outputs: &[Option<Output>; 2],
    signals: &SignalFd,
    news: Option<BorrowedFd<'_>>,
) -> Result<Ready> {
    let stdin = io::stdin();
    let mut files = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let mut places = [None; 4];
    if let Some(news) = news {
        files.push(PollFd::new(news, PollFlags::POLLIN));
        places[0] = Some(files.len() - 1);
    }
    if let Some(input) = input {
        files.push(if input.is_blocked() {
            PollFd::new(input.target(), PollFlags::POLLOUT)
        } else {
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN)
        });
        places[1] = Some(files.len() - 1);
    }
    for (index, output) in outputs.iter().enumerate() {
        if let Some(output) = output {
            files.push(if output.is_blocked() {
                PollFd::new(output.target(), PollFlags::POLLOUT)
            } else {
                PollFd::new(output.source(), PollFlags::POLLIN)
            });
            places[2 + index] = Some(files.len() - 1);
        }
    }
    match poll(&mut files, PollTimeout::NONE) {
        Ok(_) => {}
        Err(nix::errno::Errno::EINTR) => return Ok(Ready::default()),
        Err(error) => return Err(error).context("wait for the container"),
    }
    let is_ready = |place: Option<usize>| place.is_some_and(|index| files[index].any() == Some(true));
    Ok(Ready {
        signal: is_ready(Some(0)),
        news: is_ready(places[0]),
        input: is_ready(places[1]),
        outputs: [is_ready(places[2]), is_ready(places[3])],
    })
}
