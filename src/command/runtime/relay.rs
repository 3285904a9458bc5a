//! Wait for a container in the foreground: hand signals on, and the terminal through.

use crate::runtime::launch::Running;
use crate::sys::process::{self, Ended};
use crate::sys::terminal::{self, RawMode};
use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Signals of this process, read instead of suffered.
pub struct Signals(SignalFd);

impl Signals {
    /// From here on they wait to be read.
    pub fn block() -> Result<Signals> {
        let mut set = SigSet::all();
        // Faults are ours; a stopped job is the shell's affair; and a reader that left is an error of write.
        for own in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
            Signal::SIGTRAP,
            Signal::SIGPIPE,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
        ] {
            set.remove(own);
        }
        set.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }
}

/// Until the process has ended: its end.
pub fn until_end(running: &Running, master: Option<OwnedFd>, signals: Signals) -> Result<Ended> {
    let mut relay = Relay::new(master);
    loop {
        let mut polled = vec![
            PollFd::new(running.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        let (stdin, stdout) = (io::stdin(), io::stdout());
        if let Some(master) = &relay.master {
            polled.push(PollFd::new(master.as_fd(), PollFlags::POLLIN));
            if relay.has_stdin {
                polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let is_ready = |index: usize| polled.get(index).and_then(PollFd::any).unwrap_or(false);
        let (ended, output, input) = (is_ready(0), is_ready(2), is_ready(3));
        drop(polled);
        while let Ok(Some(signal)) = signals.0.read_signal() {
            relay.signal(running, signal.ssi_signo as i32);
        }
        if output {
            relay.copy_output(&stdout)?;
        }
        if input {
            relay.copy_input(&stdin)?;
        }
        if ended {
            // Nothing it has written is to be lost.
            relay.drain(&stdout)?;
            return Ok(process::wait(running.pidfd.as_fd())?);
        }
    }
}

struct Relay {
    master: Option<OwnedFd>,
    has_stdin: bool,
    /// Given back when this is dropped.
    _raw: Option<RawMode<io::Stdin>>,
}

impl Relay {
    fn new(master: Option<OwnedFd>) -> Relay {
        let raw = master.as_ref().and_then(|_| RawMode::enter(io::stdin()).ok());
        let relay = Relay { master, has_stdin: true, _raw: raw };
        relay.resize();
        relay
    }

    fn resize(&self) {
        if let (Some(master), Ok(size)) = (&self.master, terminal::size(io::stdin())) {
            // A terminal that is gone needs no size.
            let _ = terminal::set_size(master, size);
        }
    }

    fn signal(&self, running: &Running, signal: i32) {
        match signal {
            libc::SIGCHLD | libc::SIGURG => {}
            libc::SIGWINCH if self.master.is_some() => self.resize(),
            // The process may have ended: that is seen next.
            other => drop(process::pidfd_send_signal(running.pidfd.as_fd(), other)),
        }
    }

    /// One read of what the container has written; false at its end.
    fn copy_output(&mut self, stdout: &io::Stdout) -> Result<bool> {
        let Some(master) = &self.master else { return Ok(false) };
        let mut bytes = [0; 16384];
        match nix::unistd::read(master, &mut bytes) {
            // EIO: nobody has the terminal open any more.
            Ok(0) | Err(nix::Error::EIO) => {
                self.master = None;
                Ok(false)
            }
            Ok(length) => {
                let mut stdout = stdout.lock();
                stdout.write_all(&bytes[..length])?;
                stdout.flush()?;
                Ok(true)
            }
            Err(nix::Error::EINTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn copy_input(&mut self, stdin: &io::Stdin) -> Result<()> {
        let Some(master) = &self.master else { return Ok(()) };
        let mut bytes = [0; 4096];
        let length = match nix::unistd::read(stdin, &mut bytes) {
            Err(nix::Error::EINTR) => return Ok(()),
            Err(nix::Error::EIO) => 0,
            other => other?,
        };
        if length == 0 {
            self.has_stdin = false;
            // ^D, for whoever reads lines.
            nix::unistd::write(master, b"\x04")?;
        }
        let mut rest = &bytes[..length];
        while !rest.is_empty() {
            match nix::unistd::write(master, rest) {
                Ok(written) => rest = &rest[written..],
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EIO) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn drain(&mut self, stdout: &io::Stdout) -> Result<()> {
        while let Some(master) = &self.master {
            let mut polled = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::ZERO)? == 0 || !self.copy_output(stdout)? {
                return Ok(());
            }
        }
        Ok(())
    }
}
