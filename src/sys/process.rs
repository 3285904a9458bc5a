//! Processes: born, signalled, made ready for an exec. One system call a function, no policy.

use super::fd::{check, owned};
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null;

/// clone3(2): begin in the cgroup of `Birth::cgroup`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a process is to be born.
#[derive(Clone, Copy, Default)]
pub struct Birth<'a> {
    /// CLONE_NEW* and CLONE_PARENT; never CLONE_VM and its like.
    pub flags: u64,
    /// The cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which of the two one is after [`clone3`].
pub enum Side {
    /// The one that called.
    Parent(Newborn),
    /// The new one, in a copy of the caller's memory.
    Child,
}

/// A child: its number here, and the descriptor that means it and nobody else.
pub struct Newborn {
    /// In this process's pid namespace.
    pub pid: i32,
    /// Close-on-exec.
    pub pidfd: OwnedFd,
}

/// How many threads this process has.
pub fn thread_count() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// clone3(2) without shared memory: the child goes on in a copy of this process, as after fork(2).
///
/// Refused in a process of several threads: a lock (of the allocator, say) that another thread holds would stay
/// locked in the child for ever.
pub fn clone3(birth: &Birth<'_>) -> io::Result<Side> {
    if thread_count()? != 1 {
        return Err(io::Error::other("a process of several threads cannot start a container"));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data; zero is valid.
    let mut arguments: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    arguments.flags = birth.flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    if birth.flags & libc::CLONE_PARENT as u64 == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = birth.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of stack and heap, and we are the only thread (checked
    // above): every lock is in a state this thread knows. pidfd and arguments live through the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of_val(&arguments)) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel stored a new descriptor there.
    Ok(Side::Parent(Newborn { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }))
}

/// [`clone3`] of a process that is born in these namespaces (of the kinds beside them), none of which the caller enters:
/// root of a user namespace could not come back into the host's. A child enters them, clones a sibling of its own and
/// hands it over.
pub fn clone3_inside(birth: &Birth<'_>, namespaces: &[(BorrowedFd<'_>, i32)]) -> io::Result<Side> {
    let (ours, theirs) = super::fd::channel()?;
    if thread_count()? != 1 {
        return Err(io::Error::other("a process of several threads cannot start a container"));
    }
    // SAFETY: one thread (checked above), so every lock is in a state this thread knows; the child makes system calls,
    // and leaves by _exit or as the new process, which may go on as after clone3.
    let helper = match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let flags = birth.flags | libc::CLONE_PARENT as u64;
            // Nobody in there may trace it and find the caller's files (CVE-2016-9962).
            let side = set_dumpable(false)
                .and_then(|()| enter_all(namespaces))
                .and_then(|()| clone3(&Birth { flags, ..*birth }));
            let sent = match side {
                Ok(Side::Child) => return Ok(Side::Child),
                Ok(Side::Parent(born)) => {
                    super::fd::send(theirs.as_fd(), &born.pid.to_ne_bytes(), Some(born.pidfd.as_fd()))
                }
                Err(error) => {
                    super::fd::send(theirs.as_fd(), &(-error.raw_os_error().unwrap_or(libc::EIO)).to_ne_bytes(), None)
                }
            };
            exit_now(i32::from(sent.is_err()));
        }
    };
    drop(theirs);
    let mut bytes = [0; 4];
    let heard = super::fd::receive(ours.as_fd(), &mut bytes);
    nix::sys::wait::waitpid(helper, None)?;
    match (heard?, i32::from_ne_bytes(bytes)) {
        ((4, Some(pidfd)), pid) => Ok(Side::Parent(Newborn { pid, pidfd })),
        ((4, None), error) if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::from_raw_os_error(libc::ECHILD)),
    }
}

/// Some may be entered with the rights of the caller, others only with those that the user namespace among them gives.
fn enter_all(namespaces: &[(BorrowedFd<'_>, i32)]) -> io::Result<()> {
    let enter = |(namespace, kind): &(BorrowedFd<'_>, i32)| super::namespace::setns(*namespace, *kind);
    let is_user = |(_, kind): &(BorrowedFd<'_>, i32)| kind & libc::CLONE_NEWUSER != 0;
    let has_user = namespaces.iter().any(is_user);
    let mut later = Vec::new();
    for namespace in namespaces.iter().filter(|namespace| !is_user(namespace)) {
        match enter(namespace) {
            Err(error) if has_user && error.raw_os_error() == Some(libc::EPERM) => later.push(namespace),
            other => other?,
        }
    }
    namespaces.iter().filter(|namespace| is_user(namespace)).try_for_each(enter)?;
    later.into_iter().try_for_each(enter)
}

/// Leave at once: no exit handlers, no flushing of what the parent had buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// pidfd_open(2).
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_send_signal(2). Signal 0 asks whether it lives.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null::<libc::siginfo_t>(), 0)
    })?;
    Ok(())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit code a shell would give: 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => 128 + signal,
        }
    }
}

/// waitid(2) on a child's pidfd: wait for its end and reap it.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        // SAFETY: siginfo is plain data that the kernel fills; the fields read belong to SIGCHLD.
        let result = unsafe {
            let mut info: libc::siginfo_t = MaybeUninit::zeroed().assume_init();
            check(libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as u32, &mut info, libc::WEXITED).into()).map(|_| {
                let status = info.si_status();
                if info.si_code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Killed(status) }
            })
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn prctl(option: i32, value: libc::c_ulong) -> io::Result<()> {
    const ZERO: libc::c_ulong = 0;
    // SAFETY: private; the options used below take numbers only.
    check(unsafe { libc::prctl(option, value, ZERO, ZERO, ZERO) }.into()).map(drop)
}

/// This signal comes when the parent dies. Lost at each change of user.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as _)
}

/// May others of the same user trace this process and look at its descriptors? Yes again at the next exec.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into())
}

/// Nothing run from here on gains privileges. For good.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Orphans below this process become its children.
pub fn set_child_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// A session keyring of its own, named `name`.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: name is a C string that lives through the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}

/// personality(2).
pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::personality(persona as libc::c_ulong) }.into())?;
    Ok(())
}

/// ioprio_set(2) of a process; 0 is the caller.
pub fn set_io_priority(pid: i32, class: u32, level: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, class << 13 | level) })?;
    Ok(())
}

/// What sched_setattr(2) is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scheduling {
    /// Of this structure; set by [`set_scheduling`].
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, as the two after it.
    pub runtime: u64,
    /// In nanoseconds.
    pub deadline: u64,
    /// In nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) of a process; 0 is the caller.
pub fn set_scheduling(pid: i32, mut scheduling: Scheduling) -> io::Result<()> {
    scheduling.size = size_of::<Scheduling>() as u32;
    // SAFETY: Scheduling has the layout of struct sched_attr's first version; its size is in it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &scheduling, 0) })?;
    Ok(())
}

/// sched_setaffinity(2) of a process; 0 is the caller. Bit n of the words is processor n.
pub fn set_affinity(pid: i32, mask: &[u64]) -> io::Result<()> {
    // SAFETY: mask lives through the call and its size in bytes is given.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) })?;
    Ok(())
}

/// set_mempolicy(2). Bit n of the words is node n.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // A mask of no words is none: with a pointer the kernel takes its length for a very long one.
    let (mask, bits) = if nodes.is_empty() { (null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: nodes lives through the call and its length in bits is given; null means no nodes.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}

/// prlimit(2) of this process, asked: (soft, hard).
pub fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills limit, which lives through the call; no new value is set.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, null::<libc::rlimit64>(), &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// prlimit(2) of a process: (soft, hard).
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit lives through the call; no old value is asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &limit, null::<libc::rlimit64>()) })?;
    Ok(())
}

/// setgroups(2), setresgid(2) and setresuid(2) are one decision; each is a raw system call of this one thread.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: groups lives through the call and its length is given.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// setresgid(2).
pub fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    Ok(())
}

/// setresuid(2).
pub fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Put every signal back to its default and unblock all (SIGPIPE is ignored by the Rust runtime).
pub fn reset_signals() {
    // The kernel's struct, all zero: SIG_DFL, no flags, nothing blocked. The C library keeps two real-time signals to
    // itself, and leaves them ignored in what it spawns; so the system calls are made without it.
    let (default, none) = ([0_u64; 4], 0_u64);
    for signal in 1..=64 {
        // SAFETY: `default` is as large as the kernel's struct sigaction; failures (KILL, STOP) do not matter.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null::<u64>(), 8) };
    }
    // SAFETY: a mask of 8 bytes, which is the size given.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, null::<u64>(), 8) };
}

/// The arguments or the environment of an exec, made ready before.
pub struct Strings {
    pointers: Vec<*const libc::c_char>,
    // Owns what `pointers` points at; a CString's bytes do not move with it.
    _strings: Vec<CString>,
}

impl Strings {
    /// Make them ready.
    pub fn new(strings: Vec<CString>) -> Strings {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([null()]).collect();
        Strings { pointers, _strings: strings }
    }
}

/// execve(2). Comes back only with the error.
pub fn execute(path: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: both arrays end with null and point at C strings that `Strings` owns.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of the file behind a descriptor. Comes back only with the error.
pub fn execute_fd(file: BorrowedFd<'_>, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: as above; the path is empty and AT_EMPTY_PATH says so.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// May the effective user execute the file?
pub fn may_execute(path: &CStr) -> io::Result<()> {
    // SAFETY: path is a C string that lives through the call.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) }.into())?;
    Ok(())
}

/// The other end of a pseudo terminal whose master this is.
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as a number; TIOCSPTLCK reads an int that lives through the call.
    unsafe {
        let unlock: libc::c_int = 0;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock).into())?;
        owned(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags).into())
    }
}

/// Make the terminal the controlling one of this session.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}

/// Tell the terminal its size.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize that lives through the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) }.into())?;
    Ok(())
}
