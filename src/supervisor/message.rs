//! What a command and a supervisor say to each other over `RUN/containers/ID/control.sock`, one JSON packet a message.
//!
//! ```text
//!  client.rs — a command                              serve.rs — the supervisor
//!  Start{begin, attach, inherit} + fds  ──────────▶   (on the socket it was born with) acquire, launch
//!                                       ◀──────────   Started{pid, terminal} + input     or Failed
//!  Attach{..} + fds                     ──────────▶
//!                                       ◀──────────   Attached{terminal} + input         or Failed
//!  CloseInput                           ──────────▶   (no answer)
//!  Begin | Signal | Pause | Unpause | RenewHealth
//!  | Connect | Disconnect
//!  | Publish | Withdraw | LookUpAgain   ──────────▶
//!                                       ◀──────────   Done                               or Failed
//!  CheckHealth                          ──────────▶   … the check runs …
//!                                       ◀──────────   Checked{good}, Exited{code}        or Failed
//!  Stop | Wait                          ──────────▶   … the container ends, everything is released …
//!                                       ◀──────────   Exited{code}, also to all who attached
//! ```
//!
//! The fds of `Start` and `Attach` are the write ends of the client's pipes for output and errors. The `input` that
//! comes back is the container's standard input itself (the write end of its pipe, or its terminal's master): the client
//! writes to it and sets the size of the terminal without the supervisor. The end of a connection without `Exited`
//! means that the supervisor was killed.

use crate::failure::{self, Failure, Kind};
use crate::model::network::Endpoint;
use crate::model::port::PortMapping;
use crate::sys::socket;
use crate::sys::terminal::Size;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message; an error text that is longer is cut.
const LENGTH_MAX: usize = 16 * 1024;

/// A command speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first word, on the socket the supervisor was born with.
    Start(Start),
    /// Let me see what comes, from now on.
    Attach(Attach),
    /// Who attached with input has no more: the container shall read the end of it.
    CloseInput,
    /// `start` of what waits for it.
    Begin,
    /// Send this signal to the container's first process.
    Signal {
        /// Its number.
        number: i32,
    },
    /// End it: this signal, and SIGKILL when it has not obeyed in time. Answered by `Exited`.
    Stop {
        /// Instead of the container's own.
        signal: Option<i32>,
        /// Instead of the container's own; negative: never kill.
        timeout_s: Option<i64>,
    },
    /// Freeze.
    Pause,
    /// Thaw.
    Unpause,
    /// Tell me when it has ended.
    Wait,
    /// The record says other health checks.
    RenewHealth,
    /// Run the health check now. Answered by `Checked`.
    CheckHealth,
    /// Join another network.
    Connect(Endpoint),
    /// Leave the network of this name.
    Disconnect(String),
    /// The records of its networks have changed: ask other name servers.
    LookUpAgain,
    /// Publish this too.
    Publish(PortMapping),
    /// Publish this, as it is published, no longer.
    Withdraw(PortMapping),
}

/// How to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Run its process at once; else it waits for `Begin`.
    pub begin: bool,
    /// As in [`Request::Attach`].
    pub attach: Option<Attach>,
    /// The container has these descriptors as its own, behind those of `attach`: 0, 1, 2 (for the log driver
    /// `passthrough`), then those from 3 on (`--preserve-fds`).
    pub inherit_stdio: bool,
    /// How many from 3 on.
    pub preserve_fds: u32,
}

/// What a client wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// It wants to write to the standard input.
    pub input: bool,
    /// A descriptor for standard output comes along.
    pub output: bool,
    /// A descriptor for standard error comes along, behind that for output.
    pub errors: bool,
    /// The client's terminal.
    pub size: Option<Size>,
    /// The container waits for as long as this client does not read. Else a client that takes nothing for a while is
    /// dropped.
    pub patient: bool,
}

/// The supervisor speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It runs (or is ready to).
    Started {
        /// The container's first process.
        pid: i32,
        /// Its streams are one terminal.
        terminal: bool,
    },
    /// Output comes from now on.
    Attached {
        /// Its streams are one terminal.
        terminal: bool,
    },
    /// So it was done.
    Done,
    /// It has ended, and everything of it is released.
    Exited {
        /// Exit code, 128 + n for signal n.
        code: i32,
        /// It did not obey the stop signal in time and was killed.
        killed: bool,
    },
    /// The health check has ended.
    Checked {
        /// It succeeded.
        good: bool,
    },
    /// It could not be done.
    Failed(Trouble),
}

/// A failure on its way to another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Exit code.
    pub code: u8,
    /// The chain of causes.
    pub message: String,
    /// The cure.
    pub hint: Option<String>,
}

impl Trouble {
    /// What is told of an error.
    pub fn of(error: &anyhow::Error) -> Trouble {
        let mut message = failure::message_of(error);
        if let Some((cut, _)) = message.char_indices().find(|(index, _)| *index > LENGTH_MAX / 8) {
            message.truncate(cut);
        }
        Trouble {
            code: failure::kind_of(error).exit_code(),
            message,
            hint: failure::hint_of(error).map(|hint| hint.chars().take(1000).collect()),
        }
    }

    /// The error again.
    pub fn into_error(self) -> anyhow::Error {
        let kind = match self.code {
            125 => Kind::Engine,
            126 => Kind::NotExecutable,
            127 => Kind::NotFound,
            code => Kind::Code(code),
        };
        Failure { kind, message: self.message, hint: self.hint }.into()
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Over this socket.
    pub fn new(socket: OwnedFd) -> Connection {
        Connection(socket)
    }

    /// Say something.
    pub fn send<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = serde_json::to_vec(message)?;
        socket::send(&self.0, &bytes, descriptors).context("speak over the control socket")
    }

    /// Hear something; `None`: the other end is closed.
    ///
    /// # Errors
    /// `WouldBlock` on a socket that does not block, when nothing was said.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; LENGTH_MAX];
        let (length, descriptors) = match socket::receive(&self.0, &mut bytes) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            return Ok(None);
        }
        let message =
            serde_json::from_slice(&bytes[..length]).context("understand what came over the control socket")?;
        Ok(Some((message, descriptors)))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let (here, there) = socket::pair().unwrap();
        let (here, there) = (Connection::new(here), Connection::new(there));
        let start = Request::Start(Start { begin: true, ..Start::default() });
        here.send(&start, &[]).unwrap();
        assert_eq!(there.receive::<Request>().unwrap().unwrap().0, start);
        let error = anyhow::Error::from(Failure::new(Kind::NotFound, "exec `x`: not found").hint("see PATH"));
        there.send(&Reply::Failed(Trouble::of(&error.context("start web"))), &[]).unwrap();
        let Some((Reply::Failed(trouble), _)) = here.receive().unwrap() else { panic!("not a failure") };
        let error = trouble.into_error();
        assert_eq!(failure::kind_of(&error), Kind::NotFound);
        assert_eq!(failure::hint_of(&error), Some("see PATH"));
        assert_eq!(failure::message_of(&error), "start web: exec `x`: not found");
        drop(there);
        assert!(here.receive::<Reply>().unwrap().is_none());
    }
}
