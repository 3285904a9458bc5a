//! The parent: clone, do the parent's tasks, hear of the child's progress, and hand out what came of it.
//!
//! `launch` -> [`Created`] -> `start` -> [`Running`]. Each consumes the former; a [`Created`] that is dropped kills its
//! process, so a half-made container dies with whoever was making it. The conversation is drawn in `sync.rs`.

use super::cgroup::Cgroup;
use super::init;
use super::netdev;
use super::plan::{Plan, Seed, Task};
use super::rootfs::{Root, Source};
use super::step::{Child, Limit, Place, Step};
use super::sync::{End, Message, STRANGER, STRANGER_EXECUTE, StepError, Word};
use crate::failure::{Explain, Failure, Kind};
use crate::sys::fd;
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, Birth, Newborn, Side};
use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What becomes the container's root.
pub enum Rootfs {
    /// A directory of the host; it must be the one that was planned with.
    Path(PathBuf),
    /// A detached mount.
    Mount(OwnedFd),
    /// That of the container which the process joins.
    Joined,
}

/// The process's 0, 1 and 2.
pub enum Stdio {
    /// The caller's.
    Inherit,
    /// These.
    Fds([OwnedFd; 3]),
    /// A pseudo terminal of the container's own devpts; its master comes back in [`Created::terminal`].
    Terminal,
}

/// Passes the listener of a filter on: (listener, pid).
pub type Forward = Box<dyn FnOnce(OwnedFd, i32) -> Result<()>>;

/// A process that is ready and waits for [`Created::start`].
pub struct Created {
    /// In this process's pid namespace.
    pub pid: i32,
    /// Its master, where there is a terminal.
    pub terminal: Option<OwnedFd>,
    /// Passes the listener of the process's filter on, where there is one.
    pub forward: Option<Forward>,
    child: Unfinished,
    channel: End,
    steps: Vec<Step>,
}

/// A process whose execve has happened.
#[derive(Debug)]
pub struct Running {
    /// In this process's pid namespace.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// A child that is killed and reaped unless it is taken out.
struct Unfinished(Option<OwnedFd>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            // Gone already is as good; there is nobody to tell otherwise.
            let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(pidfd.as_fd());
        }
    }
}

impl Unfinished {
    fn take(&mut self) -> Option<OwnedFd> {
        self.0.take()
    }

    /// Why it ended without a word.
    fn obituary(&mut self) -> Failure {
        let ended = self.take().map(|pidfd| process::wait(pidfd.as_fd()));
        match ended {
            Some(Ok(process::Ended::Killed(libc::SIGKILL))) => {
                Failure::new(Kind::Engine, "the process was killed before it could start")
                    .hint("its memory limit may be too low for any process to start")
            }
            Some(Ok(process::Ended::Killed(signal))) => {
                Failure::new(Kind::Engine, format!("the process died of signal {signal} before it could start"))
            }
            _ => Failure::new(Kind::Engine, "the process ended before it could start"),
        }
    }
}

/// Bring the process to life, up to where it waits for `start`.
///
/// It is born in `cgroup`, which the caller keeps.
pub fn launch(mut plan: Plan, rootfs: Rootfs, stdio: Stdio, cgroup: Option<&mut Cgroup>) -> Result<Created> {
    if plan.wants_terminal != matches!(stdio, Stdio::Terminal) {
        bail!("process.terminal: does not fit the stdio that was given");
    }
    let mut root_mount = match rootfs {
        Rootfs::Mount(mount) => Some(mount),
        Rootfs::Path(path) if !path.is_dir() => bail!("root.path: {} is not a directory", path.display()),
        Rootfs::Path(_) | Rootfs::Joined => None,
    };
    prepare_mounts(&mut plan, &mut root_mount)?;
    let Plan { flags, tasks, mut child, borrowed, detour, seed, .. } = plan;
    let Seed { prepared, door, arguments, environment, user, preserve_fds } = seed;
    let cgroup_files = cgroup.as_ref().map_or_else(|| Ok(Vec::new()), |cgroup| cgroup.join_files())?;
    let (ours, theirs) = End::pair().context("make the channel to the container")?;
    let directory = cgroup.as_ref().and_then(|cgroup| cgroup.clone_fd());
    let mut directory_was_refused = false;
    let borrowed = open_namespaces(borrowed)?;
    let side = {
        let namespaces: Vec<_> = borrowed.iter().map(|(namespace, kind)| (namespace.as_fd(), *kind)).collect();
        let bear = |directory, namespaces: &[(BorrowedFd<'_>, i32)]| match namespaces {
            [] => process::clone3(&Birth { flags, cgroup: directory }),
            namespaces => process::clone3_inside(&Birth { flags, cgroup: directory }, namespaces),
        };
        let side = match (bear(directory, &namespaces), &detour) {
            // Rights over a pid namespace one may have in the user namespace it belongs to, and nowhere else.
            (Err(error), Some(process)) if error.raw_os_error() == Some(libc::EPERM) => {
                directory_was_refused = true;
                leave_user_namespace_out(&mut child);
                bear(None, &[(process.as_fd(), libc::CLONE_NEWUSER | libc::CLONE_NEWPID)])
            }
            // The cgroup takes no newborn (a threaded one, say): move it there.
            (Err(error), _) if directory.is_some() && is_cgroup_refusal(&error) => {
                directory_was_refused = true;
                bear(None, &namespaces)
            }
            (other, _) => other,
        };
        side.context("start the container's process").map_err(explain_clone)?
    };
    let Newborn { pid, pidfd } = match side {
        Side::Parent(newborn) => newborn,
        Side::Child => {
            drop(ours);
            let stdio = match stdio {
                Stdio::Fds(fds) => Some(fds),
                Stdio::Inherit | Stdio::Terminal => None,
            };
            let root = Root::default();
            let child_state = Child {
                channel: theirs,
                speaks_with_stranger: false,
                cgroup_files,
                time_offsets: None,
                door,
                root_mount,
                prepared,
                stdio,
                root,
                terminal: None,
                arguments,
                environment,
                command: None,
                user,
                in_work_dir: false,
                preserved_fds: preserve_fds,
            };
            init::become_container(child_state, &mut child)
        }
    };
    drop((theirs, root_mount, prepared, door, stdio, cgroup_files));
    let mut created =
        Created { pid, terminal: None, forward: None, child: Unfinished(Some(pidfd)), channel: ours, steps: child };
    if let Some(cgroup) = cgroup {
        // Systemd's scopes are made around a process that is there.
        cgroup.enter(pid)?;
        if directory_was_refused {
            cgroup.add(pid)?;
        }
    }
    for task in tasks {
        created.perform(task)?;
    }
    Ok(created)
}

/// Only who has the right in the first user namespace may raise a hard limit, and that is us rather than the child.
fn raise_limit(pid: i32, limit: &Limit) -> std::io::Result<()> {
    let (soft, hard) = process::limit(limit.resource)?;
    if limit.hard > hard { process::set_limit(pid, limit.resource, soft, limit.hard) } else { Ok(()) }
}

fn is_cgroup_refusal(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EBUSY | libc::EACCES))
}

fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
}

/// The process will be born in it.
fn leave_user_namespace_out(steps: &mut [Step]) {
    for step in steps {
        if let Step::JoinProcess { kinds, .. } = step {
            *kinds &= !libc::CLONE_NEWUSER;
        }
    }
}

fn explain_clone(error: anyhow::Error) -> anyhow::Error {
    match errno_of(&error) {
        Some(libc::ENOSPC) => error.context(
            Failure::new(Kind::Engine, "").hint("raise the sysctls user.max_user_namespaces and user.max_*_namespaces"),
        ),
        Some(libc::EPERM) => error.context(Failure::new(Kind::Engine, "").hint(
            "an ordinary user needs user namespaces: see the sysctls kernel.unprivileged_userns_clone and \
             kernel.apparmor_restrict_unprivileged_userns",
        )),
        _ => error,
    }
}

impl Created {
    fn perform(&mut self, task: Task) -> Result<()> {
        let what = task.to_string();
        match task {
            Task::Say(word) => self.say(word),
            Task::Hear(word) => self.hear(word),
            Task::WriteIdMaps(maps) => maps.write(self.pid),
            Task::OomScore(score) => {
                let path = format!("/proc/{}/oom_score_adj", self.pid);
                std::fs::write(path, score.to_string()).with_context(|| what)
            }
            Task::RaiseLimit(limit) => raise_limit(self.pid, &limit).with_context(|| what),
            Task::Affinity(mask) => process::set_affinity(self.pid, &mask).with_context(|| what),
            Task::NetDevices(devices) => {
                devices.iter().try_for_each(|(host, name)| netdev::move_device(host, name, self.pid))
            }
            Task::Hook(hook) => hook.run(self.pid),
        }
    }

    /// The child may have failed already: then that is the error.
    fn say(&mut self, word: Word) -> Result<()> {
        match self.channel.say(word) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => self.hear(word),
            other => other.context("speak to the container"),
        }
    }

    /// Wait until the child has come so far, and keep what it hands over on the way.
    fn hear(&mut self, wanted: Word) -> Result<()> {
        loop {
            match self.channel.hear().context("listen to the container")? {
                Message::Word(word, _) if word == wanted => return Ok(()),
                Message::Word(Word::Terminal, Some(master)) => self.terminal = Some(master),
                Message::Word(Word::Filter, Some(listener)) => self.forward(listener)?,
                Message::Failed(error) => return Err(self.failed(&error)),
                Message::End => return Err(self.child.obituary().into()),
                Message::Word(word, _) => bail!("the container said {word:?}, not {wanted:?}"),
            }
        }
    }

    fn forward(&mut self, listener: OwnedFd) -> Result<()> {
        match self.forward.take() {
            Some(forward) => forward(listener, self.pid).context("pass on the seccomp listener")?,
            None => bail!("linux.seccomp.listenerPath: missing, and the filter notifies"),
        }
        Ok(self.channel.say(Word::Forwarded)?)
    }

    fn failed(&self, error: &StepError) -> anyhow::Error {
        explain_step(self.steps.get(error.step as usize), error)
    }

    /// Execute the command. An error carries its exit code: 127 where the command is not there, 126 where it is not
    /// executable.
    pub fn start(self) -> Result<Running> {
        self.channel.say(Word::Start).or_else(|error| match error.raw_os_error() {
            // It died while it waited; that is heard next.
            Some(libc::EPIPE | libc::ECONNRESET) => Ok(()),
            _ => Err(error),
        })?;
        self.await_exec()
    }

    /// For a process that does not wait: hear how its execve went.
    pub fn await_exec(mut self) -> Result<Running> {
        loop {
            match self.channel.hear().context("listen to the container")? {
                Message::End => break,
                Message::Word(Word::Filter, Some(listener)) => self.forward(listener)?,
                Message::Failed(error) => return Err(self.failed(&error)),
                Message::Word(word, _) => bail!("the container said {word:?} after its start"),
            }
        }
        match self.child.take() {
            Some(pidfd) => Ok(Running { pid: self.pid, pidfd }),
            None => bail!("the container's process is gone"),
        }
    }

    /// Leave the process waiting at its door, for another process to start it.
    pub fn leave(mut self) -> Result<Running> {
        match self.child.take() {
            Some(pidfd) => Ok(Running { pid: self.pid, pidfd }),
            None => bail!("the container's process is gone"),
        }
    }

    /// Its pidfd, to watch it or to kill it.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.child.0.as_ref()
    }
}

/// "mount proc on /proc: operation not permitted".
pub fn explain_step(step: Option<&Step>, error: &StepError) -> anyhow::Error {
    let detail = error.detail();
    let (what, detail) = match (step, detail.split_once('\t')) {
        (Some(step), _) => (step.to_string(), detail),
        (None, Some((name, rest))) if error.step == STRANGER => (name.to_owned(), rest.to_owned()),
        (None, _) => (format!("step {}", error.step), detail),
    };
    if error.errno == 0 {
        return anyhow::anyhow!(detail).context(what);
    }
    let cause = describe(error.errno);
    if matches!(step, Some(Step::FindCommand | Step::Execute)) || error.step == STRANGER_EXECUTE {
        let is_found = error.step == STRANGER_EXECUTE || matches!(step, Some(Step::Execute));
        return explain_command(&detail, error.errno, &cause, is_found);
    }
    let cause = if detail.is_empty() || what.contains(&detail) { cause } else { format!("{detail}: {cause}") };
    anyhow::anyhow!(cause).context(what)
}

/// In words that docker, podman and the shims look for.
fn explain_command(command: &str, errno: i32, cause: &str, is_found: bool) -> anyhow::Error {
    let kind = match errno {
        libc::ENOENT | libc::ENOTDIR => Kind::NotFound,
        _ => Kind::NotExecutable,
    };
    if is_found && errno == libc::ENOENT {
        // It is there, and the interpreter in its first line is not. Engines know this by these very words.
        let failure: Result<()> = Err(anyhow::anyhow!("{cause}").context(format!("exec {command}")));
        return failure.kind(kind).err().unwrap_or_else(|| anyhow::anyhow!("{cause}"));
    }
    let cause = match errno {
        libc::ENOENT if !command.contains('/') => "executable file not found in $PATH".to_owned(),
        libc::ENOENT => format!("stat {command}: {cause}"),
        _ => cause.to_owned(),
    };
    let result: Result<()> = Err(anyhow::anyhow!(cause).context(format!("exec: {command:?}")));
    match result.kind(kind) {
        Err(error) => error,
        Ok(()) => unreachable!("it was an error"),
    }
}

/// An errno in lower case, as the chain of an error wants it.
pub fn describe(errno: i32) -> String {
    let text = nix::Error::from_raw(errno).desc();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => format!("errno {errno}"),
    }
}

/// Mounts only the parent can make: those with mapped ids, and those of places that nobody in the container's user
/// namespace may enter.
fn prepare_mounts(plan: &mut Plan, root_mount: &mut Option<OwnedFd>) -> Result<()> {
    let is_born_in_one = plan.borrowed.iter().any(|(kind, _, _)| *kind == libc::CLONE_NEWUSER);
    let has_user = plan.flags & libc::CLONE_NEWUSER as u64 != 0 || is_born_in_one;
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    // None where we have no rights either: then the child, in its own user namespace, can.
    let detach = |path: &CString, recursive: bool| -> Result<Option<OwnedFd>> {
        match mount::clone_tree(AT_FDCWD, path, recursive) {
            Ok(tree) => {
                mount::mount_setattr(tree.as_fd(), true, &slave)?;
                Ok(Some(tree))
            }
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
            // It may be made by one of the container's own mounts before.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| path.to_string_lossy().into_owned()),
        }
    };
    for step in &mut plan.child {
        let what = step.to_string();
        match step {
            Step::AttachRoot { path, prepared, .. } if has_user && root_mount.is_none() => {
                *root_mount = detach(path, true).context(what)?;
                *prepared = root_mount.is_some();
            }
            Step::Mount(mount) if has_user || mount.idmap.is_some() => {
                let tree = match &mount.source {
                    Source::Bind { path, recursive, follow: true } => detach(path, *recursive).context(what.clone())?,
                    Source::Prepared => plan.seed.prepared.remove(&mount.index),
                    _ => None,
                };
                if let Some((maps, recursive)) = &mount.idmap {
                    let Some(tree) = &tree else { bail!("{what}: only a bind mount by root can have mapped ids") };
                    let user = maps.namespace()?;
                    let attributes = Attributes {
                        set: mount::ATTR_IDMAP,
                        user_namespace: std::os::fd::AsRawFd::as_raw_fd(&user) as u64,
                        ..Attributes::default()
                    };
                    mount::mount_setattr(tree.as_fd(), *recursive, &attributes).context(what)?;
                }
                if let Some(tree) = tree {
                    mount.source = Source::Prepared;
                    plan.seed.prepared.insert(mount.index, tree);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The namespaces the child is to be born in.
fn open_namespaces(borrowed: Vec<(i32, &'static str, Place)>) -> Result<Vec<(OwnedFd, i32)>> {
    let open = |(kind, name, place)| match place {
        Place::Fd(fd) => Ok((fd, kind)),
        Place::Path(path) => {
            let namespace = fd::open(&path, libc::O_RDONLY);
            let what = || format!("join {name} namespace {}", path.to_string_lossy());
            Ok((namespace.with_context(what)?, kind))
        }
    };
    borrowed.into_iter().map(open).collect()
}
