//! The steps of a child on its way to execve, as data: what each is called ([`fmt::Display`]) and how it runs.
//!
//! The order is `plan.rs`'s business; the words said in between are `init.rs`'s. A step that mounts is in `rootfs.rs`,
//! one that runs a program in `hook.rs`.

mod name;

use super::hook::HookStep;
use super::label::Label;
use super::rootfs::{self, MountStep, Root};
use super::seccomp::Program;
use super::sync::{End, Word};
use crate::sys::capability::{self, Sets};
use crate::sys::process::{self, Scheduling};
use crate::sys::{bpf, fd, namespace};
use nix::fcntl::AT_FDCWD;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub use name::propagation_name;

/// One step. Those of one kind stand together; the order of a plan is another.
pub enum Step {
    // the conversation (run by init.rs)
    Say(Word),
    Hear(Word),
    /// Wait at the door for whoever runs `start`, then speak with them.
    Door,

    // the process
    /// Those that take no newborn: it writes itself into them.
    EnterCgroups,
    Conceal,
    /// Undo it.
    Reveal,
    NewSession,
    /// The new id maps make nobody of us: become a user of the new namespace.
    BecomeRoot {
        uid: u32,
        gid: u32,
    },
    Umask(u32),
    Keyring(CString),
    Personality(u64),
    MemoryPolicy {
        mode: i32,
        nodes: Vec<u64>,
    },
    IoPriority {
        class: u32,
        level: u32,
    },
    Scheduler(Scheduling),
    Affinity(Vec<u64>),
    Label(Label),

    // namespaces
    Join {
        kind: i32,
        name: &'static str,
        place: Place,
    },
    /// All namespaces of a process at once.
    JoinProcess {
        kinds: i32,
        process: OwnedFd,
    },
    Unshare(i32),
    NewCgroupNamespace,
    /// For [`Step::NewTimeNamespace`] to write to.
    OpenTimeOffsets,
    NewTimeNamespace(Vec<u8>),
    LoopbackUp,
    HostName(CString),
    DomainName(CString),

    // the root file system (run by rootfs.rs)
    Propagation {
        flags: u64,
        recursive: bool,
    },
    AttachRoot {
        path: CString,
        prepared: bool,
        is_hidden: bool,
    },
    RootPropagation {
        flags: u64,
        recursive: bool,
    },
    Mount(Box<MountStep>),
    Device(DeviceStep),
    Link {
        target: CString,
        path: CString,
    },
    /// Bound to /dev/console, too, in a container's first process.
    Console {
        binds: bool,
    },
    MakeWorkDir(CString),
    Mask(CString),
    ReadOnly(CString),
    ReadOnlyRoot,
    Sysctl {
        path: CString,
        value: CString,
    },
    Hook(Box<HookStep>),
    PivotRoot,
    MoveRoot,

    // the last things
    Terminal {
        rows: u16,
        columns: u16,
        owner: u32,
    },
    /// The user gets the files, to open them again by name.
    Stdio {
        uid: u32,
        gid: u32,
    },
    CloseOnExec {
        first: u32,
    },
    WorkDir {
        path: CString,
        last: bool,
    },
    Limit(Limit),
    Bounding(Vec<u32>),
    Groups(Vec<u32>),
    User {
        uid: u32,
        gid: u32,
    },
    Capabilities(Sets),
    Ambient(Vec<u32>),
    NoNewPrivileges,
    Filter(Box<Program>),
    Home,
    FindCommand,
    DieWithParent,
    Execute,
}

/// Where a namespace to join is.
pub enum Place {
    Path(CString),
    Fd(OwnedFd),
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// RLIMIT_*.
    pub resource: u32,
    /// That in words.
    pub name: &'static str,
    pub soft: u64,
    pub hard: u64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        write!(f, "{} {}:{}", self.name, text(self.soft), text(self.hard))
    }
}

/// A device node to make.
pub struct DeviceStep {
    pub path: CString,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Not asked for in the spec but owed to every container: kept if the root file system has one.
    pub is_default: bool,
}

/// What a child holds while it runs its steps.
pub struct Child {
    pub channel: End,
    pub cgroup_files: Vec<OwnedFd>,
    /// The channel leads to one who has no plan: steps are told by name.
    pub speaks_with_stranger: bool,
    /// The listening socket of a container that waits for `start` from another process.
    pub door: Option<OwnedFd>,
    /// /proc/self/timens_offsets, for a time namespace to come.
    pub time_offsets: Option<OwnedFd>,
    /// Handed in by the supervisor: a detached mount that becomes the root.
    pub root_mount: Option<OwnedFd>,
    /// Handed in: detached mounts in the place of a mount's source, by index into `mounts`.
    pub prepared: BTreeMap<usize, OwnedFd>,
    /// 0, 1, 2 of the process, where there is no terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    pub root: Root,
    pub terminal: Option<OwnedFd>,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    pub command: Option<CString>,
    pub user: u32,
    pub in_work_dir: bool,
    pub preserved_fds: u32,
}

impl Child {
    /// Drop what only steps before `start` need.
    pub fn let_go(&mut self) {
        self.root = Root::default();
        self.cgroup_files.clear();
        self.prepared.clear();
        (self.root_mount, self.stdio, self.terminal) = (None, None, None);
    }
}

/// Why a step failed.
pub struct Fault {
    pub errno: i32,
    pub detail: String,
}

impl Fault {
    /// A refusal of ours, in words.
    pub fn refused(reason: impl Into<String>) -> Fault {
        Fault { errno: 0, detail: reason.into() }
    }

    /// A system call's error on this path.
    pub fn at(path: &CStr, error: impl Into<io::Error>) -> Fault {
        Fault { detail: path.to_string_lossy().into_owned(), ..Fault::from(error.into()) }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.raw_os_error() {
            Some(errno) => Fault { errno, detail: String::new() },
            None => Fault { errno: 0, detail: error.to_string() },
        }
    }
}

impl From<nix::Error> for Fault {
    fn from(error: nix::Error) -> Fault {
        Fault { errno: error as i32, detail: String::new() }
    }
}

impl Step {
    /// Do it. `Say`, `Hear` and `Door` are `init.rs`'s.
    pub fn run(&mut self, child: &mut Child) -> Result<(), Fault> {
        match self {
            Step::Say(_) | Step::Hear(_) | Step::Door => Ok(()),

            Step::EnterCgroups => {
                // `0` is whoever writes.
                Ok(child.cgroup_files.drain(..).try_for_each(|file| nix::unistd::write(&file, b"0").map(drop))?)
            }
            Step::Conceal => Ok(process::set_dumpable(false)?),
            Step::Reveal => Ok(process::set_dumpable(true)?),
            // Already the leader of a session: as good.
            Step::NewSession => Ok(nix::unistd::setsid().map(drop).or_else(tolerate(&[libc::EPERM]))?),
            Step::BecomeRoot { uid, gid } => become_root(*uid, *gid),
            Step::Unshare(kinds) => Ok(namespace::unshare(*kinds)?),
            Step::Umask(mask) => {
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(*mask));
                Ok(())
            }
            // Kernels without keyrings, and users whose quota of keys is used up, still run containers.
            Step::Keyring(name) => {
                Ok(process::join_session_keyring(name).or_else(|error| match error.raw_os_error() {
                    Some(libc::ENOSYS | libc::EDQUOT | libc::EPERM | libc::EACCES) => Ok(()),
                    _ => Err(error),
                })?)
            }
            Step::Personality(persona) => Ok(process::set_personality(*persona)?),
            Step::MemoryPolicy { mode, nodes } => Ok(process::set_memory_policy(*mode, nodes)?),
            Step::IoPriority { class, level } => Ok(process::set_io_priority(0, *class, *level)?),
            Step::Scheduler(scheduling) => Ok(process::set_scheduling(0, *scheduling)?),
            Step::Affinity(mask) => Ok(process::set_affinity(0, mask)?),
            Step::Label(label) => label.apply(child.root.proc()?.as_fd()),

            Step::Join { kind, place, .. } => join(*kind, place),
            Step::JoinProcess { kinds, process } => {
                child.root = Root::before_joining()?;
                super::exec::join_process(process.as_fd(), *kinds)?;
                child.root.joined()
            }
            Step::NewCgroupNamespace => Ok(namespace::unshare(libc::CLONE_NEWCGROUP)?),
            Step::OpenTimeOffsets => {
                let proc = rootfs::host_proc()?;
                let flags = (libc::O_WRONLY, fd::RESOLVE_BENEATH);
                let file = fd::openat2(proc.as_fd(), c"self/timens_offsets", flags.0, 0, flags.1)?;
                child.time_offsets = Some(file);
                Ok(())
            }
            Step::NewTimeNamespace(offsets) => new_time_namespace(offsets, child.time_offsets.take()),
            Step::LoopbackUp => Ok(namespace::raise_loopback()?),
            Step::HostName(name) => Ok(nix::unistd::sethostname(os(name))?),
            Step::DomainName(name) => Ok(namespace::set_domain_name(name)?),

            Step::Propagation { flags, recursive } => rootfs::set_host_propagation(*flags, *recursive),
            Step::AttachRoot { path, is_hidden, .. } => child.root.attach(path, child.root_mount.take(), *is_hidden),
            Step::RootPropagation { flags, recursive } => child.root.set_propagation(*flags, *recursive),
            Step::Mount(mount) => mount.run(&mut child.root, &mut child.prepared),
            Step::Device(device) => child.root.make_device(device),
            Step::Link { target, path } => child.root.link(target, path),
            Step::Console { binds } => {
                let (master, terminal) = child.root.open_console(*binds)?;
                child.terminal = Some(terminal);
                Ok(child.channel.pass(Word::Terminal, &master)?)
            }
            Step::MakeWorkDir(path) => child.root.make_work_dir(path),
            Step::Mask(path) => child.root.mask(path),
            Step::ReadOnly(path) => child.root.make_read_only(path),
            Step::ReadOnlyRoot => child.root.make_root_read_only(),
            Step::Sysctl { path, value } => child.root.write_sysctl(path, value.as_bytes()),
            Step::Hook(hook) => hook.run_in_child(child),
            Step::PivotRoot => child.root.pivot(),
            Step::MoveRoot => child.root.move_to_root(),

            Step::Terminal { rows, columns, owner } => set_terminal(child, *rows, *columns, *owner),
            Step::Stdio { uid, gid } => place_stdio(child, *uid, *gid),
            Step::CloseOnExec { first } => Ok(fd::close_range_cloexec(*first)?),
            Step::WorkDir { path, last } => change_dir(child, path, *last),
            Step::Limit(limit) => Ok(process::set_limit(0, limit.resource, limit.soft, limit.hard)?),
            Step::Bounding(dropped) => Ok(dropped.iter().try_for_each(|cap| drop_bounding(*cap))?),
            Step::Groups(groups) if groups.is_empty() => Ok(drop_groups()?),
            Step::Groups(groups) => Ok(process::set_groups(groups)?),
            Step::User { uid, gid } => {
                capability::keep_over_setuid()?;
                process::set_group(*gid)?;
                Ok(process::set_user(*uid)?)
            }
            Step::Capabilities(sets) => Ok(capability::set_granted(sets)?),
            Step::Ambient(raised) => {
                capability::clear_ambient()?;
                Ok(raised.iter().try_for_each(|cap| capability::raise_ambient(*cap))?)
            }
            Step::NoNewPrivileges => Ok(process::set_no_new_privileges()?),
            Step::Filter(filter) => install_filter(child, filter),
            Step::Home => {
                super::exec::add_home(child);
                Ok(())
            }
            Step::FindCommand => find_command(child),
            Step::DieWithParent => die_with_parent(child),
            Step::Execute => Err(execute(child)),
        }
    }
}

/// An errno that does not matter here.
fn tolerate(harmless: &'static [i32]) -> impl Fn(nix::Error) -> nix::Result<()> {
    move |error| if harmless.contains(&(error as i32)) { Ok(()) } else { Err(error) }
}

fn os(name: &CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}

/// Where the map was made without privileges the kernel forbids setgroups: the caller's groups then stay.
fn become_root(uid: u32, gid: u32) -> Result<(), Fault> {
    drop_groups()?;
    process::set_group(gid)?;
    Ok(process::set_user(uid)?)
}

fn drop_groups() -> io::Result<()> {
    process::set_groups(&[]).or_else(|error| match error.raw_os_error() {
        Some(libc::EPERM) => Ok(()),
        _ => Err(error),
    })
}

fn join(kind: i32, place: &Place) -> Result<(), Fault> {
    match place {
        Place::Fd(fd) => Ok(namespace::setns(fd.as_fd(), kind)?),
        Place::Path(path) => {
            let file = fd::open(path, libc::O_RDONLY).map_err(|error| Fault::at(path, error))?;
            namespace::setns(file.as_fd(), kind).map_err(|error| Fault::at(path, error))
        }
    }
}

/// The offsets of a time namespace can be set only while nobody is in it, and one enters it by name.
fn new_time_namespace(offsets: &[u8], file: Option<OwnedFd>) -> Result<(), Fault> {
    namespace::unshare(namespace::CLONE_NEWTIME)?;
    let proc = rootfs::host_proc()?;
    if let Some(file) = file {
        nix::unistd::write(&file, offsets)?;
    }
    let entered = fd::openat2(proc.as_fd(), c"self/ns/time_for_children", libc::O_RDONLY, 0, 0)?;
    Ok(namespace::setns(entered.as_fd(), namespace::CLONE_NEWTIME)?)
}

/// A capability this kernel does not know is not in the set either.
fn drop_bounding(capability: u32) -> io::Result<()> {
    capability::drop_bounding(capability).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => Ok(()),
        _ => Err(error),
    })
}

fn set_terminal(child: &mut Child, rows: u16, columns: u16, owner: u32) -> Result<(), Fault> {
    let Some(terminal) = &child.terminal else {
        return Err(Fault::refused("no terminal was opened"));
    };
    if rows != 0 || columns != 0 {
        process::set_terminal_size(terminal.as_fd(), rows, columns)?;
    }
    // Its devpts may be mounted with another owner than the user who is to open /dev/console again.
    nix::unistd::fchown(terminal, Some(owner.into()), None).or_else(tolerate(&[libc::EPERM, libc::EINVAL]))?;
    Ok(process::set_controlling_terminal(terminal.as_fd())?)
}

fn place_stdio(child: &mut Child, uid: u32, gid: u32) -> Result<(), Fault> {
    if let Some(terminal) = child.terminal.take() {
        return Ok((0..3).try_for_each(|number| fd::place_at(terminal.as_fd(), number))?);
    }
    if let Some(stdio) = child.stdio.take() {
        for (number, end) in stdio.iter().enumerate() {
            fd::place_at(end.as_fd(), number as i32)?;
        }
    }
    give_stdio(uid, gid)
}

/// /dev/stdout of a user who is not root: a file or pipe made by somebody else cannot be opened again. The null device
/// belongs to everybody; what cannot change its owner keeps it.
fn give_stdio(uid: u32, gid: u32) -> Result<(), Fault> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for end in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let Ok(status) = nix::sys::stat::fstat(end) else { continue };
        let is_null = status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3);
        if status.st_uid == uid || is_null {
            continue;
        }
        match nix::unistd::fchown(end, Some(uid.into()), Some(gid.into())) {
            Ok(()) | Err(nix::Error::EPERM | nix::Error::EINVAL | nix::Error::EROFS | nix::Error::EACCES) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Enter the working directory. Root may be kept out where the user is not (NFS) and the other way round, so it is
/// tried before and after the change of user. It must lie inside the root (CVE-2024-21626): the kernel says so.
fn change_dir(child: &mut Child, path: &CStr, last: bool) -> Result<(), Fault> {
    if child.in_work_dir {
        return Ok(());
    }
    match nix::unistd::chdir(path) {
        Err(nix::Error::EACCES) if !last => return Ok(()),
        other => other.map_err(|error| Fault::at(path, error))?,
    }
    let inside = nix::unistd::getcwd().is_ok_and(|directory| directory.is_absolute());
    if !inside {
        return Err(Fault::refused("the working directory is outside of the container"));
    }
    child.in_work_dir = true;
    Ok(())
}

fn install_filter(child: &mut Child, filter: &Program) -> Result<(), Fault> {
    if let Some(listener) = bpf::load_filter(&filter.instructions, filter.flags)? {
        child.channel.pass(Word::Filter, &listener)?;
        child.channel.expect(Word::Forwarded)?;
    }
    Ok(())
}

/// Find what argv[0] means in the container's own PATH, as the container's own user.
fn find_command(child: &mut Child) -> Result<(), Fault> {
    let Some(name) = child.arguments.first().cloned() else {
        return Err(Fault::refused("no command"));
    };
    let not_found = |errno| Fault { errno, detail: name.to_string_lossy().into_owned() };
    if name.as_bytes().contains(&b'/') {
        executable(&name).map_err(not_found)?;
        child.command = Some(name);
        return Ok(());
    }
    if name.is_empty() {
        return Err(not_found(libc::ENOENT));
    }
    let path = child.environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let mut worst = libc::ENOENT;
    for directory in path.unwrap_or(b"/bin:/usr/bin").split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let Ok(candidate) = CString::new([directory, b"/", name.as_bytes()].concat()) else { continue };
        match executable(&candidate) {
            Ok(()) => {
                child.command = Some(candidate);
                return Ok(());
            }
            Err(libc::EACCES) => worst = libc::EACCES,
            Err(_) => {}
        }
    }
    Err(not_found(worst))
}

fn executable(path: &CStr) -> Result<(), i32> {
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    process::may_execute(path).map_err(errno)?;
    let status = nix::sys::stat::fstatat(AT_FDCWD, path, nix::fcntl::AtFlags::empty()).map_err(|e| e as i32)?;
    if status.st_mode & libc::S_IFMT == libc::S_IFREG { Ok(()) } else { Err(libc::EACCES) }
}

/// Set last, for a change of user clears it. The parent may be gone already: then nobody holds the other end.
fn die_with_parent(child: &mut Child) -> Result<(), Fault> {
    process::set_parent_death_signal(libc::SIGKILL)?;
    let mut polled = [nix::poll::PollFd::new(child.channel.socket().as_fd(), nix::poll::PollFlags::empty())];
    nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO)?;
    match polled[0].revents() {
        Some(events) if events.contains(nix::poll::PollFlags::POLLHUP) => Err(Fault::refused("the parent is gone")),
        _ => Ok(()),
    }
}

fn execute(child: &mut Child) -> Fault {
    let Some(command) = child.command.take() else {
        return Fault::refused("no command was found");
    };
    for number in 3..3 + child.preserved_fds as i32 {
        fd::keep_on_exec(number);
    }
    let arguments = process::Strings::new(std::mem::take(&mut child.arguments));
    let environment = process::Strings::new(std::mem::take(&mut child.environment));
    Fault::at(&command, process::execute(&command, &arguments, &environment))
}
