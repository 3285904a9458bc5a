//! How an ordinary user becomes root of a user namespace: once a command, before anything else.
//!
//! All of a user's live containers share one user namespace (as podman's do), so that they can share networks and join
//! each other. There is no pause process: a command joins the namespace of a supervisor that lives, and only when there
//! is none it makes a new one with newuidmap and newgidmap. Supervisors are listed as `RUN/userns/PID` with their start
//! time; a file whose process is gone or another is stale, whoever sees it removes it.

use crate::failure::{Failure, Kind};
use crate::model::user::{IdMaps, IdRange};
use crate::sys;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for what runs inside `coracle unshare`, as podman sets it.
pub const UNSHARED: &str = "_CONTAINERS_USERNS_CONFIGURED";
/// There: the user's id outside.
pub const UNSHARED_UID: &str = "_CONTAINERS_ROOTLESS_UID";

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
}

/// As whom we work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// The caller's ids outside of any namespace of ours.
    pub caller: Caller,
    /// Not root of the machine: overlay needs `userxattr`, devices are bound, cgroups must be delegated.
    pub rootless: bool,
    /// We are uid 0 here, of the machine or of the user's namespace.
    pub inside: bool,
    /// Only one id is mapped: owners inside images cannot be kept.
    pub single: bool,
    /// Ids of the engine's namespace as the host numbers them; empty for root of the machine.
    pub maps: IdMaps,
}

impl Caller {
    /// This process.
    pub fn current() -> Caller {
        Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    /// Uid 0 (of whatever user namespace this is).
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The facts without entering anything.
pub fn outside(caller: &Caller) -> Privilege {
    let maps = current_maps();
    let rootless = !caller.is_root() || !maps.uid.is_empty();
    Privilege { caller: *caller, rootless, inside: caller.is_root(), single: false, maps }
}

/// Become root of the user's namespace; nothing to do for root. Must be called while the process has one thread.
pub fn enter(caller: &Caller, run: &Path) -> Result<Privilege> {
    if caller.is_root() {
        let mut privilege = outside(caller);
        privilege.single = privilege.rootless && is_single(&privilege.maps);
        return Ok(privilege);
    }
    let holders = run.join("userns");
    make_directory(&holders)?;
    let _lock = lock(&holders)?;
    if !join_any(&holders)? {
        create(caller)?;
    }
    // A mount namespace of our own: what we bind or mount is seen by nobody else, and clones of mounts need one.
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("make / a slave of the host's")?;
    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).context("become group 0 of the user namespace")?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).context("become root of the user namespace")?;
    register(&holders)?;
    let maps = current_maps();
    Ok(Privilege { caller: *caller, rootless: true, inside: true, single: is_single(&maps), maps })
}

/// List this process as one that holds the user's namespace (called by `enter`, and by a supervisor for itself).
pub fn register(holders: &Path) -> Result<()> {
    let pid = std::process::id();
    let start = start_time(pid as i32).unwrap_or(0);
    let path = holders.join(pid.to_string());
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("write {}", path.display()))?;
    write!(file, "{start}").with_context(|| format!("write {}", path.display()))
}

/// Take this process off the list; called when it ends. A stale entry does no harm.
pub fn unregister(run: &Path) {
    let _ = std::fs::remove_file(run.join("userns").join(std::process::id().to_string()));
}

/// Field 22 of /proc/PID/stat: with the pid it names a process for good.
pub fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold blanks and parentheses: count from the last one.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The maps of the user namespace this process is in; empty in the initial one.
pub fn current_maps() -> IdMaps {
    let maps = maps_of("/proc/self");
    let whole = |map: &[IdRange]| matches!(map, [IdRange { inside: 0, outside: 0, size: u32::MAX }]);
    if whole(&maps.uid) { IdMaps::default() } else { maps }
}

/// The maps of the user namespace of a process (`/proc/PID`), as ours numbers ids.
pub fn maps_of(process: &str) -> IdMaps {
    IdMaps { uid: read_map(&format!("{process}/uid_map")), gid: read_map(&format!("{process}/gid_map")) }
}

fn read_map(path: &str) -> Vec<IdRange> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            Some(IdRange { inside: numbers.next()?.ok()?, outside: numbers.next()?.ok()?, size: numbers.next()?.ok()? })
        })
        .collect()
}

fn is_single(maps: &IdMaps) -> bool {
    matches!(maps.uid[..], [IdRange { size: 1, .. }])
}

fn make_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make {}", path.display()))
}

fn lock(holders: &Path) -> Result<Flock<File>> {
    let file = File::open(holders).with_context(|| format!("lock {}", holders.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("lock the user namespace's list")
}

/// Join the namespace of the first listed process that lives.
fn join_any(holders: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(holders).with_context(|| format!("read {}", holders.display()))?;
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let recorded = std::fs::read_to_string(entry.path()).unwrap_or_default().trim().parse::<u64>().ok();
        if recorded.is_none() || start_time(pid) != recorded {
            let _ = std::fs::remove_file(entry.path());
            continue;
        }
        if join(pid).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Join the user namespace of this process, as root of it.
pub fn join(pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/user");
    let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
    let own = std::fs::read_link("/proc/self/ns/user")?;
    if std::fs::read_link(&path)? == own {
        bail!("process {pid} has no user namespace of its own");
    }
    setns(namespace, CloneFlags::CLONE_NEWUSER).with_context(|| format!("join {path}"))
}

/// Make a user namespace: root inside is the caller, followed by their subordinate ids where they have any.
fn create(caller: &Caller) -> Result<()> {
    let helpers = subordinate_maps(caller);
    let pid = std::process::id();
    let (ready_read, mut ready_write) = std::io::pipe().context("make a pipe")?;
    let helper = match &helpers {
        Some(maps) => Some(fork_mapper(pid, maps, ready_read, &ready_write)?),
        None => None,
    };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(explain_unshare)?;
    match helper {
        Some(helper) => {
            ready_write.write_all(b"x").context("wake the id-map helper")?;
            match waitpid(helper, None).context("wait for the id-map helper")? {
                WaitStatus::Exited(_, 0) => Ok(()),
                _ => Err(Failure::new(Kind::Engine, "map the subordinate ids: newuidmap or newgidmap refused")
                    .hint("see that /etc/subuid and /etc/subgid give this user a range nobody else has, and that newuidmap is setuid root")
                    .into()),
            }
        }
        None => map_single(caller),
    }
}

/// The helper: outside of the new namespace, where newuidmap's set-user-id bit counts.
fn fork_mapper(
    pid: u32,
    maps: &IdMaps,
    mut ready: std::io::PipeReader,
    writer: &std::io::PipeWriter,
) -> Result<nix::unistd::Pid> {
    let arguments = |ranges: &[IdRange]| -> Vec<String> {
        let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.size]);
        std::iter::once(pid.to_string()).chain(numbers.map(|number| number.to_string())).collect()
    };
    let (uid, gid) = (arguments(&maps.uid), arguments(&maps.gid));
    let writer_fd = std::os::fd::AsRawFd::as_raw_fd(writer);
    sys::fork::in_child(move || {
        // Our copy of the write end must go, or the parent's death would not be seen.
        let _ = nix::unistd::close(writer_fd);
        let mut byte = [0];
        if !matches!(ready.read(&mut byte), Ok(1)) {
            return 1;
        }
        let spawn = |program: &str, arguments: &[String]| {
            Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn()
        };
        let (first, second) = (spawn("newuidmap", &uid), spawn("newgidmap", &gid));
        let mut good = true;
        for child in [first, second] {
            good &= child.and_then(|mut child| child.wait()).is_ok_and(|status| status.success());
        }
        i32::from(!good)
    })
    .context("fork the id-map helper")
}

/// Without subordinate ids: this one id only, said once a command by whoever minds.
fn map_single(caller: &Caller) -> Result<()> {
    let write = |path: &str, text: String| std::fs::write(path, text).with_context(|| format!("write {path}"));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1", caller.uid))?;
    write("/proc/self/gid_map", format!("0 {} 1", caller.gid))
}

fn explain_unshare(error: nix::errno::Errno) -> anyhow::Error {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let hint = if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "set the sysctl kernel.unprivileged_userns_clone=1"
    } else if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "set the sysctl kernel.apparmor_restrict_unprivileged_userns=0, or load an AppArmor profile that allows userns for coracle"
    } else if read("/proc/sys/user/max_user_namespaces") == "0" {
        "set the sysctl user.max_user_namespaces to a higher number"
    } else {
        "this kernel or sandbox does not allow user namespaces to ordinary users"
    };
    anyhow::Error::from(error).context(Failure::new(Kind::Engine, "make a user namespace").hint(hint))
}

/// The caller and their ranges of /etc/subuid and /etc/subgid; `None`: there are none, or no helper to map them.
pub fn subordinate_maps(caller: &Caller) -> Option<IdMaps> {
    let in_path = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin:/usr/sbin:/sbin".into());
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists())
    };
    in_path("newuidmap").and(in_path("newgidmap"))?;
    let name = user_name(caller.uid);
    let ranges = |file: &str, own: u32| -> Option<Vec<IdRange>> {
        let text = std::fs::read_to_string(file).ok()?;
        let mut ranges = vec![IdRange { inside: 0, outside: own, size: 1 }];
        let mut inside = 1;
        for (outside, size) in parse_subordinate(&text, name.as_deref(), caller.uid) {
            ranges.push(IdRange { inside, outside, size });
            inside += size;
        }
        (ranges.len() > 1).then_some(ranges)
    };
    Some(IdMaps { uid: ranges("/etc/subuid", caller.uid)?, gid: ranges("/etc/subgid", caller.gid)? })
}

/// The ranges (first, count) of one user, by name or number: subuid(5).
pub fn parse_subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
            let ours = Some(owner) == name || owner == number;
            (ours && count > 0 && first.checked_add(count).is_some()).then_some((first, count))
        })
        .collect()
}

/// A user's name from /etc/passwd: read as text, for a static binary must not load NSS libraries.
pub fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let named = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // Users of LDAP are not in the file; the login has left their name in the environment.
    named.or_else(|| std::env::var("USER").ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges() {
        let text = "ann:100000:65536\nbob:165536:65536\n1000:300000:10\n# x\nann:400000:5\nann:x:1\nann:4294967295:2\n";
        assert_eq!(parse_subordinate(text, Some("ann"), 1000), [(100_000, 65_536), (300_000, 10), (400_000, 5)]);
        assert_eq!(parse_subordinate(text, None, 7), []);
    }
}
