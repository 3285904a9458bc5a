//! `--init`: the first process of a container that has none of its own for the purpose.
//!
//! The same binary, bound read-only at /run/podman-init: it starts the command, passes signals on to it, reaps whatever
//! is left to it, and ends with the command's code. Not a shell, not a service manager.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;

/// Run `arguments` (a leading `--` is passed over) and give its exit code; 127 or 126 when it cannot be started.
pub fn run(arguments: &[OsString]) -> u8 {
    let arguments = match arguments.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => arguments,
    };
    let Some((command, rest)) = arguments.split_first() else {
        eprintln!("podman-init: no command");
        return 127;
    };
    // All signals wait for sigwait: none can be lost between two looks.
    let all = SigSet::all();
    let mut before = SigSet::empty();
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before)).is_err() {
        return 126;
    }
    let started = crate::sys::fork::in_child(|| {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        take_terminal();
        let error = std::process::Command::new(command).args(rest).exec();
        eprintln!("podman-init: {}: {error}", command.to_string_lossy());
        if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
    });
    match started {
        Ok(child) => watch(child, &all),
        Err(error) => {
            eprintln!("podman-init: fork: {error}");
            126
        }
    }
}

/// A process group of its own, in the foreground of the terminal if there is one, so that job control works.
fn take_terminal() {
    let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        // The background group that takes the terminal would be stopped by SIGTTOU.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None);
        let _ = nix::unistd::tcsetpgrp(std::io::stdin(), nix::unistd::getpid());
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None);
    }
}

/// Pass on, reap, end with the child.
fn watch(child: Pid, all: &SigSet) -> u8 {
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            Ok(signal) => {
                let _ = kill(child, signal);
            }
            // A real-time signal has no name here; there is nothing to tell it by.
            Err(_) => {}
        }
    }
}

/// Reap all that have ended; the child's code if it is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32 as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code,
        }
    }
}
