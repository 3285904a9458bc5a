//! The conversation between the one who starts a container and the process that becomes it.
//!
//! ```text
//!   launch.rs — parent                                   init.rs — child
//!   clone3(plan.flags, pidfd, cgroup fd)   ──────────▶   blocked on the channel
//!   #1 enter the cgroup, write id maps      ── Mapped ─▶  steps: join/create namespaces, root file system, mounts
//!   #2 prestart/createRuntime hooks         ◀─ Mounted ─
//!                                           ─ HooksRun ▶  createContainer hooks, masks, sysctl, pivot_root, ids, caps
//!   #3 keep the terminal's master           ◀─ Terminal+fd  (only where there is a terminal)
//!   #4 "created": record it, print the id   ◀─ Ready ──   blocked: this is OCI "created"
//!      … `start` …                          ── Start ──▶  startContainer hooks, filter, execve
//!   #5 forward the seccomp listener         ◀─ Filter+fd  (only if the profile asks for it)
//!   EOF = execve happened (close-on-exec)   ◀─ EOF ────
//!   at any point: StepError{step, errno, path} then EOF → parent reaps, releases in reverse, prints plan.child[step]
//! ```
//!
//! Only `launch.rs` and `init.rs` speak it (and `lifecycle.rs` knocks at the door of a created container with `Start`).
//! Messages have a fixed size; a socket that keeps their borders carries them.

use crate::sys::fd;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// The named points, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// #1 parent: cgroup and id maps are in place.
    Mapped = 1,
    /// #2 child: all is mounted, the old root is still in sight.
    Mounted,
    /// #2 parent: the hooks of the runtime's namespace have run.
    HooksRun,
    /// #3 child: here is the master of the console.
    Terminal,
    /// #4 child: nothing is left but to start.
    Ready,
    /// Parent, or whoever knocks at the door: execute.
    Start,
    /// #5 child: here is the listener of the system call filter.
    Filter,
    /// #5 parent: it has been passed on.
    Forwarded,
    /// Child: a step failed.
    Failed,
}

impl Word {
    fn from_byte(byte: u8) -> Option<Word> {
        use Word::*;
        [Mapped, Mounted, HooksRun, Terminal, Ready, Start, Filter, Forwarded, Failed]
            .into_iter()
            .find(|word| *word as u8 == byte)
    }
}

/// [`StepError::step`] of one who speaks at the door, to somebody who has no plan: the detail then begins with the
/// step's own name, a tab after it.
pub const STRANGER: u32 = u32::MAX;
/// The same for the last step, whose errors decide the exit code.
pub const STRANGER_EXECUTE: u32 = u32::MAX - 1;

/// How much of a path or a reason fits into a message.
const DETAIL_LENGTH: usize = 240;

/// What went wrong in the child: fixed size, so it can be told when memory has run out.
#[derive(Clone, Copy)]
pub struct StepError {
    /// Index into `plan.child`.
    pub step: u32,
    /// The cause; 0 where `detail` tells it in words.
    pub errno: i32,
    length: u16,
    detail: [u8; DETAIL_LENGTH],
}

impl StepError {
    /// A failure of this step. What does not fit of the detail is cut off.
    pub fn new(step: u32, errno: i32, text: &str) -> StepError {
        let mut detail = [0; DETAIL_LENGTH];
        let length = text.len().min(DETAIL_LENGTH);
        detail[..length].copy_from_slice(&text.as_bytes()[..length]);
        StepError { step, errno, length: length as u16, detail }
    }

    /// The path or reason.
    pub fn detail(&self) -> String {
        String::from_utf8_lossy(&self.detail[..usize::from(self.length).min(DETAIL_LENGTH)]).into_owned()
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "step {} errno {} {}", self.step, self.errno, self.detail())
    }
}

/// What one end hears.
#[derive(Debug)]
pub enum Message {
    /// A point was reached; Terminal and Filter bring a descriptor.
    Word(Word, Option<OwnedFd>),
    /// A step failed; the end follows.
    Failed(StepError),
    /// The other side closed its end: for the parent, execve happened or the child died.
    End,
}

const HEAD: usize = 11;

/// One end of the channel. What either end may say is the drawing above.
#[derive(Debug)]
pub struct End(OwnedFd);

impl End {
    /// Wrap a connected socket that keeps message borders.
    pub fn new(socket: OwnedFd) -> End {
        End(socket)
    }

    /// Both ends.
    pub fn pair() -> io::Result<(End, End)> {
        let (parent, child) = fd::channel()?;
        Ok((End(parent), End(child)))
    }

    /// The socket, to poll it.
    pub fn socket(&self) -> &OwnedFd {
        &self.0
    }

    /// Say that a point was reached.
    pub fn say(&self, word: Word) -> io::Result<()> {
        fd::send(self.0.as_fd(), &[word as u8], None)
    }

    /// Say it and pass a descriptor.
    pub fn pass(&self, word: Word, descriptor: &OwnedFd) -> io::Result<()> {
        fd::send(self.0.as_fd(), &[word as u8], Some(descriptor.as_fd()))
    }

    /// Tell a failure.
    pub fn fail(&self, error: &StepError) -> io::Result<()> {
        let mut bytes = [0_u8; HEAD + DETAIL_LENGTH];
        bytes[0] = Word::Failed as u8;
        bytes[1..5].copy_from_slice(&error.step.to_ne_bytes());
        bytes[5..9].copy_from_slice(&error.errno.to_ne_bytes());
        bytes[9..11].copy_from_slice(&error.length.to_ne_bytes());
        bytes[HEAD..].copy_from_slice(&error.detail);
        fd::send(self.0.as_fd(), &bytes, None)
    }

    /// Wait for the other end.
    pub fn hear(&self) -> io::Result<Message> {
        let mut bytes = [0_u8; HEAD + DETAIL_LENGTH];
        let (length, descriptor) = match fd::receive(self.0.as_fd(), &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Message::End),
            other => other?,
        };
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "garbled message");
        match (length, Word::from_byte(bytes[0])) {
            (0, _) => Ok(Message::End),
            (_, Some(Word::Failed)) if length == bytes.len() => {
                let number = |range: std::ops::Range<usize>| bytes[range].try_into().unwrap_or([0; 4]);
                let mut error = StepError::new(u32::from_ne_bytes(number(1..5)), i32::from_ne_bytes(number(5..9)), "");
                error.length = u16::from_ne_bytes([bytes[9], bytes[10]]);
                error.detail.copy_from_slice(&bytes[HEAD..]);
                Ok(Message::Failed(error))
            }
            (_, Some(word)) if word != Word::Failed => Ok(Message::Word(word, descriptor)),
            _ => Err(garbled()),
        }
    }

    /// Wait for exactly this word; anything else is an error.
    pub fn expect(&self, wanted: Word) -> io::Result<()> {
        match self.hear()? {
            Message::Word(word, _) if word == wanted => Ok(()),
            Message::End => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            other => Err(io::Error::other(format!("waited for {wanted:?}, heard {other:?}"))),
        }
    }
}

/// A door: a listening socket at this path, for the one who runs `start`.
pub fn door(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(8)?)?;
    Ok(socket)
}

/// Knock at a door.
pub fn knock(path: &Path) -> io::Result<End> {
    let socket = seqpacket()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(End(socket))
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_whole() {
        let (parent, child) = End::pair().unwrap();
        child.fail(&StepError::new(7, libc::EPERM, "/proc")).unwrap();
        let Message::Failed(error) = parent.hear().unwrap() else { panic!() };
        assert_eq!((error.step, error.errno, error.detail().as_str()), (7, libc::EPERM, "/proc"));
    }

    #[test]
    fn a_word_brings_its_descriptor_and_the_end_is_heard() {
        let (parent, child) = End::pair().unwrap();
        let (some, _other) = fd::channel().unwrap();
        child.pass(Word::Terminal, &some).unwrap();
        assert!(matches!(parent.hear().unwrap(), Message::Word(Word::Terminal, Some(_))));
        drop(child);
        assert!(matches!(parent.hear().unwrap(), Message::End));
    }
}
