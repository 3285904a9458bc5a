//! The directory of containers, and what is written down of each.

use crate::runtime::cgroup::{Cgroup, Saved};
use crate::state::file::{self, Durability};
use crate::sys::process;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Of `state.json`; a newer one is refused.
const VERSION: u32 = 1;

/// What is written down of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Of this document.
    pub version: u32,
    pub oci_version: String,
    pub id: String,
    /// 0 until there is one.
    pub pid: i32,
    /// In clock ticks since boot: pid and start time together mean one process.
    pub start_time: u64,
    /// Who is creating it: alive while `pid` is 0, it is still at it.
    pub creator: i32,
    pub creator_start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub owner: String,
    pub annotations: HashMap<String, String>,
    /// There are hooks for after its start or its end.
    pub has_late_hooks: bool,
    /// Its pid namespace is also somebody else's.
    pub shares_pids: bool,
    pub cgroup: Saved,
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The name of the spec (and `paused`, which runc added).
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The directory of all containers.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

/// A container that is written down.
#[derive(Clone, Debug)]
pub struct Container {
    pub(super) dir: PathBuf,
    /// What is written.
    pub record: Record,
}

/// The kernel's view of a process.
struct Seen {
    /// Not a zombie.
    lives: bool,
    /// It has called execve since it was born.
    has_executed: bool,
    start_time: u64,
}

impl Root {
    /// This directory; made at the first create.
    pub fn new(path: PathBuf) -> Root {
        Root(path)
    }

    /// The directory of a new container, which must not be there.
    pub(super) fn make(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("make {}", self.0.display()))?;
        let dir = self.0.join(id);
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("container with id {id} exists already")
            }
            other => other.with_context(|| format!("make {}", dir.display()))?,
        }
        Ok(dir)
    }

    /// Is it there?
    pub fn check(&self) -> Result<()> {
        std::fs::read_dir(&self.0).map(drop).with_context(|| format!("read {}", self.0.display()))
    }

    /// Is there a container of this id, whole or half?
    pub fn has(&self, id: &str) -> Result<bool> {
        check_id(id)?;
        Ok(self.0.join(id).is_dir())
    }

    /// A container by id.
    pub fn container(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = self.0.join(id);
        let path = dir.join("state.json");
        let record = match file::read_json::<Record>(&path)? {
            Some(record) => record,
            // Its creator died before it could write anything.
            None if dir.is_dir() => Record { version: VERSION, id: id.to_owned(), ..Record::default() },
            None => bail!("container {id} does not exist"),
        };
        if record.version > VERSION {
            bail!("{} is of a newer version, {}; this program knows {VERSION}", path.display(), record.version);
        }
        Ok(Container { dir, record })
    }

    /// All containers, by id. What cannot be read is told as a second list.
    pub fn list(&self) -> Result<(Vec<Container>, Vec<anyhow::Error>)> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            other => other.with_context(|| format!("read {}", self.0.display()))?,
        };
        let mut ids: Vec<String> = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
                ids.push(name);
            }
        }
        ids.sort();
        let (good, bad): (Vec<_>, Vec<_>) = ids.iter().map(|id| self.container(id)).partition(Result::is_ok);
        Ok((good.into_iter().flatten().collect(), bad.into_iter().filter_map(Result::err).collect()))
    }
}

/// runc's rule.
fn check_id(id: &str) -> Result<()> {
    let is_good = |letter: u8| letter.is_ascii_alphanumeric() || b"_+-.".contains(&letter);
    if id.is_empty() || id.len() > 1024 || !id.bytes().all(is_good) || id.starts_with('.') {
        bail!(
            "invalid container ID format: {id:?} has an invalid character: a container ID has letters, digits and _ + - . only, and no . at its beginning"
        );
    }
    Ok(())
}

impl Container {
    /// Write it down.
    pub(super) fn save(&self) -> Result<()> {
        // On tmpfs: nothing outlives a crash of the machine, and the process it tells of neither.
        file::replace_json(&self.dir.join("state.json"), &self.record, Durability::Volatile)
    }

    /// Its cgroup has changed.
    pub fn set_cgroup(mut self, saved: Saved) -> Result<()> {
        if self.record.cgroup != saved {
            self.record.cgroup = saved;
            self.save()?;
        }
        Ok(())
    }

    /// The spec it was created with.
    pub fn spec(&self) -> Result<Spec> {
        let text = std::fs::read(self.dir.join("config.json")).context("read the container's config.json")?;
        super::create::parse_spec(&text)
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::open(self.record.cgroup.clone())
    }

    /// Where in its life it is.
    pub fn status(&self) -> Result<Status> {
        if self.record.pid == 0 {
            let creator = see(self.record.creator)?.filter(|seen| seen.start_time == self.record.creator_start_time);
            return Ok(if creator.is_some_and(|seen| seen.lives) { Status::Creating } else { Status::Stopped });
        }
        match self.seen()? {
            Some(seen) if !seen.lives => Ok(Status::Stopped),
            None => Ok(Status::Stopped),
            Some(seen) => {
                let cgroup = self.cgroup();
                if cgroup.exists() && cgroup.frozen().unwrap_or(false) {
                    return Ok(Status::Paused);
                }
                Ok(if seen.has_executed { Status::Running } else { Status::Created })
            }
        }
    }

    /// Its first process, if it is still the one.
    fn seen(&self) -> Result<Option<Seen>> {
        Ok(see(self.record.pid)?.filter(|seen| seen.start_time == self.record.start_time))
    }

    /// Whether the process that was (or its zombie) had executed its command.
    pub(super) fn has_executed(&self) -> bool {
        // Reaped already: then somebody waited for it as the running container it was.
        self.seen().ok().flatten().is_none_or(|seen| seen.has_executed)
    }

    /// A pidfd of its first process, if it lives.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>> {
        if self.record.pid == 0 {
            return Ok(None);
        }
        let pidfd = match process::pidfd_open(self.record.pid) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => return Ok(None),
            other => other.context("open the container's process")?,
        };
        // Looked at after it was opened: if it is the one now, the descriptor means it.
        Ok(self.seen()?.filter(|seen| seen.lives).map(|_| pidfd))
    }
}

/// The start time of a process, with its pid what tells it from all others.
pub(super) fn start_time(pid: i32) -> Result<u64> {
    Ok(see(pid)?.map_or(0, |seen| seen.start_time))
}

fn see(pid: i32) -> Result<Option<Seen>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse_stat(&text).map(Some).with_context(|| format!("read /proc/{pid}/stat")),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read /proc/{pid}/stat")),
    }
}

/// proc_pid_stat(5). The name, in parentheses, may hold anything.
fn parse_stat(text: &str) -> Result<Seen> {
    /// "Forked but didn't exec."
    const PF_FORKNOEXEC: u64 = 0x40;
    let (_, rest) = text.rsplit_once(')').context("no name")?;
    // From field 3 on.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().context("too short");
    let flags: u64 = field(9)?.parse()?;
    Ok(Seen {
        lives: !matches!(field(3)?, "Z" | "X" | "x"),
        has_executed: flags & PF_FORKNOEXEC == 0,
        start_time: field(22)?.parse()?,
    })
}

/// The name of a user of the host, from /etc/passwd alone.
pub(super) fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.len() > 2 && fields[2] == wanted);
    found.map_or(format!("#{uid}"), |fields| fields[0].to_owned())
}

/// The directory of containers where none is named: /run for root, the user's own else.
pub fn default_root(rootless: bool) -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match own {
        Some(dir) if rootless => Path::new(&dir).join("coracle-oci"),
        None if rootless => PathBuf::from(format!("/run/user/{}/coracle-oci", nix::unistd::geteuid())),
        _ => PathBuf::from("/run/coracle-oci"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let rest = "S 1 2 3 4 5 64 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        let seen = parse_stat(&format!("7 (a) R) {rest}\n")).unwrap();
        assert!(seen.lives && !seen.has_executed);
        assert_eq!(seen.start_time, 4242);
    }

    #[test]
    fn ids_are_names_of_directories() {
        for good in ["a", "a.b", "A_+-1"] {
            check_id(good).unwrap();
        }
        for bad in ["", ".", "..", ".a", "a/b", "ä", "a b"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
