//! The child: run the plan step by step, say and hear the words between, and become the command.
//!
//! Invariant: nothing returns from here. The process leaves by execve or by `_exit`, also on a panic, so that exit
//! handlers and buffers of the parent, of which it has a copy, never run twice.

use super::step::{Child, Fault, Step};
use super::sync::{End, Message, STRANGER, STRANGER_EXECUTE, StepError, Word};
use crate::sys::fd::{accept, close_all_but};
use crate::sys::process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd;

/// Leave if something unwinds.
struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        process::exit_now(127)
    }
}

/// Run the plan. The parent knows the same steps, by their index.
pub fn become_container(mut child: Child, steps: &mut [Step]) -> ! {
    let _guard = NeverReturn;
    // The parent's mask and ignored signals would live on across execve: a command must be able to hear SIGTERM.
    process::reset_signals();
    for (index, step) in steps.iter_mut().enumerate() {
        let done = match &mut *step {
            // #2, #3, #4
            Step::Say(word) => child.channel.say(*word).map_err(Fault::from),
            // #1, #2, Start
            Step::Hear(word) => hear(&child.channel, *word),
            Step::Door => wait_at_door(&mut child),
            step => step.run(&mut child),
        };
        if let Err(fault) = done {
            let error = match (child.speaks_with_stranger, &step) {
                (false, _) => StepError::new(index as u32, fault.errno, &fault.detail),
                (true, Step::Execute) => StepError::new(STRANGER_EXECUTE, fault.errno, &fault.detail),
                (true, step) => StepError::new(STRANGER, fault.errno, &format!("{step}\t{}", fault.detail)),
            };
            // Where nobody listens any more there is nobody to tell.
            let _ = child.channel.fail(&error);
            process::exit_now(1);
        }
    }
    process::exit_now(127)
}

/// The parent may die at any time: then so do we, without a word.
fn hear(channel: &End, wanted: Word) -> Result<(), Fault> {
    match channel.hear() {
        Ok(Message::Word(word, _)) if word == wanted => Ok(()),
        Ok(Message::End) => process::exit_now(1),
        Ok(_) => Err(Fault::refused("the parent said another word")),
        Err(error) => Err(error.into()),
    }
}

/// The signals whose default is to end a process and that somebody may send on purpose; from here on they are read.
fn ending_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Wait for whoever runs `start`, and speak with them from then on. One that leaves without a word is forgotten.
fn wait_at_door(child: &mut Child) -> Result<(), Fault> {
    let Some(door) = child.door.take() else {
        return Err(Fault::refused("there is no door"));
    };
    // It may wait for days. Of the runtime and its caller it keeps nothing open meanwhile.
    child.let_go();
    close_all_but(3 + child.preserved_fds, &[door.as_fd(), child.channel.socket().as_fd()])?;
    // As the first process of a pid namespace it would not hear the signals that end others: read them.
    let signals = ending_signals()?;
    loop {
        let mut polled =
            [PollFd::new(door.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        if let Ok(Some(signal)) = signals.read_signal() {
            process::exit_now(128 + signal.ssi_signo as i32);
        }
        if polled[0].any() != Some(true) {
            continue;
        }
        let visitor = End::new(accept(door.as_fd())?);
        if let Ok(Message::Word(Word::Start, _)) = visitor.hear() {
            child.channel = visitor;
            child.speaks_with_stranger = true;
            process::reset_signals();
            return Ok(());
        }
    }
}
