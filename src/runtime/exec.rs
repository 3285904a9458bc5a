//! Another process in a running container: the plan of one that joins.
//!
//! The caller's own process clones it; nothing of the caller but the descriptors asked for is to be seen from inside
//! (CVE-2016-9962: hidden from tracers before it joins; all else closed on exec).

use super::plan::{Plan, Seed, Tail, Task, check_process, tail};
use super::step::{Child, Fault, Place, Step};
use super::sync::Word;
use crate::sys::process::pidfd_open;
use crate::sys::{fd, namespace};
use anyhow::{Context, Result};
use oci_spec::runtime::{Linux, Process};
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What joining needs beside the process.
#[derive(Default)]
pub struct ExecOptions<'a> {
    /// The container's first process.
    pub pid: i32,
    /// Its pidfd; opened by the pid where there is none.
    pub pidfd: Option<OwnedFd>,
    /// The container's spec: filter and personality are the same for all its processes.
    pub linux: Option<&'a Linux>,
    /// Descriptors 3.. that the command is to have.
    pub preserve_fds: u32,
    /// The process is killed when the caller dies.
    pub die_with_parent: bool,
    /// The process may run on every processor of its cgroup, wherever the caller is bound to.
    pub reset_affinity: bool,
    /// More of its environment, which goes before its own.
    pub environment: Vec<String>,
}

/// All namespaces: (name below /proc/PID/ns, CLONE_NEW*). The user namespace first.
const KINDS: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", namespace::CLONE_NEWTIME),
];

/// The plan of a process that joins a container.
pub fn plan_exec(process: &Process, options: ExecOptions<'_>) -> Result<Plan> {
    check_process(process)?;
    let pidfd = match options.pidfd {
        Some(pidfd) => pidfd,
        None => pidfd_open(options.pid).context("find the container's process")?,
    };
    let kinds = foreign_kinds(options.pid).context("look at the container's namespaces")?;
    let mut plan = Plan {
        flags: 0,
        tasks: vec![Task::Say(Word::Mapped)],
        child: vec![Step::EnterCgroups, Step::Hear(Word::Mapped), Step::Conceal, Step::NewSession],
        borrowed: Vec::new(),
        detour: None,
        wants_terminal: process.terminal().unwrap_or(false),
        warnings: Vec::new(),
        seed: Seed { preserve_fds: options.preserve_fds, ..Seed::default() },
    };
    if kinds & libc::CLONE_NEWPID != 0 {
        let path = CString::new(format!("/proc/{}/ns/pid", options.pid))?;
        plan.borrowed.push((libc::CLONE_NEWPID, "pid", Place::Path(path)));
        if kinds & libc::CLONE_NEWUSER != 0 {
            plan.detour = Some(pidfd.try_clone()?);
        }
    }
    plan.child.push(Step::JoinProcess { kinds: kinds & !libc::CLONE_NEWPID, process: pidfd });
    if kinds & libc::CLONE_NEWUSER != 0 {
        plan.child.push(Step::BecomeRoot { uid: 0, gid: 0 });
    }
    if plan.wants_terminal {
        plan.child.push(Step::Console { binds: false });
    }
    let rest = Tail {
        linux: options.linux,
        start_hooks: Vec::new(),
        environment: options.environment,
        die_with_parent: options.die_with_parent,
        keep_groups: false,
        reset_affinity: options.reset_affinity,
        wait_for_start: true,
    };
    tail(&mut plan, process, rest)?;
    Ok(plan)
}

/// The kinds in which the process's namespaces are not ours: entering one's own user namespace is an error.
fn foreign_kinds(pid: i32) -> io::Result<i32> {
    use std::os::unix::fs::MetadataExt;
    let mut kinds = 0;
    for (name, flag) in KINDS {
        let theirs = match std::fs::metadata(format!("/proc/{pid}/ns/{name}")) {
            // A kernel without this kind.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "time" => continue,
            other => other?,
        };
        if theirs.ino() != std::fs::metadata(format!("/proc/self/ns/{name}"))?.ino() {
            kinds |= flag;
        }
    }
    Ok(kinds)
}

/// Join all at once. Where some belong to the outside of the user namespace and others to its inside, the former go
/// first, with the rights of the caller.
pub fn join_process(process: BorrowedFd<'_>, kinds: i32) -> Result<(), Fault> {
    if kinds == 0 {
        return Ok(());
    }
    match namespace::setns(process, kinds) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && kinds & libc::CLONE_NEWUSER != 0 => {}
        other => return Ok(other?),
    }
    let mut left = kinds & !libc::CLONE_NEWUSER;
    for (_, flag) in KINDS {
        if left & flag != 0 && namespace::setns(process, flag).is_ok() {
            left &= !flag;
        }
    }
    Ok(namespace::setns(process, left | libc::CLONE_NEWUSER)?)
}

/// The longest /etc/passwd that is read, and no special file is (CVE-2024-9676).
const PASSWD_MAX: u64 = 1 << 20;

/// HOME of the user as the container's own /etc/passwd has it, `/` where it has none.
pub fn add_home(child: &mut Child) {
    let home = home_of(child.user).unwrap_or_else(|| "/".to_owned());
    if let Ok(entry) = CString::new(format!("HOME={home}")) {
        child.environment.push(entry);
    }
}

fn home_of(user: u32) -> Option<String> {
    let file = fd::open(c"/etc/passwd", libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).ok()?;
    let status = nix::sys::stat::fstat(file.as_fd()).ok()?;
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::from(file).take(PASSWD_MAX).read_to_end(&mut text).ok()?;
    find_home(&String::from_utf8_lossy(&text), user)
}

fn find_home(passwd: &str, user: u32) -> Option<String> {
    let wanted = user.to_string();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home =
        line.filter(|fields| fields.len() >= 6 && fields[2] == wanted).map(|fields| fields[5].to_owned()).next()?;
    Some(home).filter(|home| home.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n0:x:7:7::/seven:/bin/sh\nbad\nx:x:8:8::relative:\n";
        assert_eq!(find_home(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(find_home(passwd, 7).as_deref(), Some("/seven"));
        assert_eq!(find_home(passwd, 8), None);
        assert_eq!(find_home(passwd, 9), None);
    }
}
