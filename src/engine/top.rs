//! The processes of a container, read from /proc; nothing of the image is executed.

mod descriptor;

pub use descriptor::{columns, go_duration, names};

use crate::engine::Engine;
use crate::engine::list::Listed;
use crate::failure::{Failure, Kind};
use crate::runtime::cgroup::{Cgroup, Saved};
use crate::state::container::State;
use crate::storage::tree;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// One process, as its own files in /proc tell it.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Its number here.
    pub host_pid: i32,
    /// `/proc/PID/status`.
    status: BTreeMap<String, String>,
    /// `/proc/PID/stat` behind the name: state first.
    stat: Vec<String>,
    /// Its name.
    comm: String,
    /// Its arguments.
    arguments: Vec<String>,
    /// Its security label.
    label: String,
}

/// All there is to say of a container's processes.
#[derive(Debug, Default)]
pub struct Table {
    /// The processes, first one first.
    pub processes: Vec<Process>,
    /// Names of the container's users by id inside.
    users: BTreeMap<u32, String>,
    /// Names of the container's groups by id inside.
    groups: BTreeMap<u32, String>,
    /// First id inside, first id here, how many.
    uid_map: Vec<(u32, u32, u32)>,
    /// The same for groups.
    gid_map: Vec<(u32, u32, u32)>,
    /// Seconds since boot.
    uptime_s: f64,
}

/// Read the processes of a running container.
///
/// # Errors
/// Exit code 125 when it does not run.
pub fn table(_engine: &Engine, container: &Listed) -> Result<Table> {
    let State::Live(status) = &container.state else { return Err(not_running().into()) };
    if status.pid <= 0 {
        return Err(not_running().into());
    }
    let mut processes: Vec<Process> = pids(status.pid, &status.cgroup).into_iter().filter_map(Process::read).collect();
    processes.sort_by_key(|process| (process.inner_pid(), process.host_pid));
    let map =
        |kind: &str| read_map(&std::fs::read_to_string(format!("/proc/{}/{kind}_map", status.pid)).unwrap_or_default());
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    Ok(Table {
        processes,
        users: account_names(status.pid, "etc/passwd"),
        groups: account_names(status.pid, "etc/group"),
        uid_map: map("uid"),
        gid_map: map("gid"),
        uptime_s: uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default(),
    })
}

fn not_running() -> Failure {
    Failure::new(Kind::Engine, "top can only be used on running containers")
}

/// Those in its cgroup; without one, those in the pid namespace of its first process.
fn pids(first: i32, saved: &serde_json::Value) -> BTreeSet<i32> {
    let saved: Saved = serde_json::from_value(saved.clone()).unwrap_or_default();
    let mut pids: BTreeSet<i32> = Cgroup::open(saved).pids().unwrap_or_default().into_iter().collect();
    if pids.is_empty() {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let wanted = namespace(first);
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.extend(all.filter(|pid| wanted.is_some() && namespace(*pid) == wanted));
    }
    pids.insert(first);
    pids
}

impl Process {
    /// `None`: it has ended.
    fn read(pid: i32) -> Option<Process> {
        let file = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).ok();
        let status = String::from_utf8_lossy(&file("status")?).into_owned();
        let stat = String::from_utf8_lossy(&file("stat")?).into_owned();
        let arguments = file("cmdline").unwrap_or_default();
        let label = file("attr/current").unwrap_or_default();
        Some(Process::parse(pid, &status, &stat, &arguments, &String::from_utf8_lossy(&label)))
    }

    fn parse(host_pid: i32, status: &str, stat: &str, arguments: &[u8], label: &str) -> Process {
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        // The name may hold blanks and parentheses: the last parenthesis ends it.
        let (comm, rest) = stat.rsplit_once(')').unwrap_or(("", stat));
        let comm = comm.split_once('(').map_or("", |(_, comm)| comm);
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
        Process {
            host_pid,
            status: fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect(),
            stat: rest.split_whitespace().map(str::to_owned).collect(),
            comm: comm.to_owned(),
            arguments: match arguments {
                [] => Vec::new(),
                bytes => {
                    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
                }
            },
            label: label.trim_end_matches(['\0', '\n']).to_owned(),
        }
    }

    fn status(&self, key: &str) -> &str {
        self.status.get(key).map_or("", String::as_str)
    }

    /// The n-th number of a field with several: real, effective, saved, file system.
    fn id(&self, key: &str, index: usize) -> Option<u32> {
        self.status(key).split_whitespace().nth(index)?.parse().ok()
    }

    /// Field of /proc/PID/stat by its number in proc(5).
    fn stat(&self, number: usize) -> &str {
        self.stat.get(number - 3).map_or("", String::as_str)
    }

    fn stat_number(&self, number: usize) -> u64 {
        self.stat(number).parse().unwrap_or_default()
    }

    /// Its number in its own pid namespace.
    pub fn inner_pid(&self) -> i32 {
        let inner = self.status("NSpid").split_whitespace().last();
        inner.and_then(|text| text.parse().ok()).unwrap_or(self.host_pid)
    }
}

fn read_map(text: &str) -> Vec<(u32, u32, u32)> {
    let numbers = |line: &str| -> Option<(u32, u32, u32)> {
        let mut numbers = line.split_whitespace().map(|text| text.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    text.lines().filter_map(numbers).collect()
}

/// An account file of the container: nothing in it leads out of the container's root.
fn account_names(pid: i32, path: &str) -> BTreeMap<u32, String> {
    let text = (|| -> Result<String> {
        let root = tree::open_directory(Path::new(&format!("/proc/{pid}/root")))?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = std::fs::File::from(tree::open_in_root(root.as_fd(), path.as_bytes(), flags)?);
        let mut text = String::new();
        file.take(1 << 20).read_to_string(&mut text).context("read accounts")?;
        Ok(text)
    })();
    parse_accounts(&text.unwrap_or_default())
}

/// `NAME:x:ID:…`; the first name of an id counts.
fn parse_accounts(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

impl Table {
    /// A user id of here as the container numbers it.
    fn inside(map: &[(u32, u32, u32)], id: u32) -> Option<u32> {
        map.iter().find_map(|(inside, outside, size)| {
            let offset = id.checked_sub(*outside)?;
            (offset < *size).then(|| inside + offset)
        })
    }

    fn user(&self, id: Option<u32>) -> String {
        name_of(&self.users, &self.uid_map, id)
    }

    fn group(&self, id: Option<u32>) -> String {
        name_of(&self.groups, &self.gid_map, id)
    }
}

fn name_of(names: &BTreeMap<u32, String>, map: &[(u32, u32, u32)], id: Option<u32>) -> String {
    let Some(id) = id else { return "?".to_owned() };
    match Table::inside(map, id) {
        Some(inside) => names.get(&inside).cloned().unwrap_or_else(|| inside.to_string()),
        // An id from outside of the container's namespace: the kernel's overflow id.
        None => "nobody".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container with one process.
    pub(crate) fn sample() -> Table {
        let status = "Name:\tsh\nState:\tS (sleeping)\nPPid:\t4000\nUid:\t100000\t100000\t100000\t100000\n\
                      Gid:\t100000\t100000\t100000\t100000\nGroups:\t100000 100005\nNSpid:\t4711\t1\n\
                      VmRSS:\t1024 kB\nCapEff:\t0000000000000003\nCapInh:\t0000000000000000\nSeccomp:\t2\n";
        let stat = "4711 (a) (b) S 4000 4711 4711 34816 4711 0 0 0 0 0 150 50 0 0 20 0 1 0 1000 2097152 256";
        Table {
            processes: vec![Process::parse(4711, status, stat, b"sh\0-c\0x y\0", "label\n")],
            users: parse_accounts("root:x:0:0::/:/bin/sh\nweb:x:33:33::/:\n"),
            groups: parse_accounts("root:x:0:\naudio:x:5:\n"),
            uid_map: vec![(0, 100_000, 65_536)],
            gid_map: vec![(0, 100_000, 65_536)],
            uptime_s: 30.0,
        }
    }

    #[test]
    fn ids_are_the_containers() {
        let table = sample();
        assert_eq!(table.user(Some(100_033)), "web");
        assert_eq!(table.user(Some(100_001)), "1");
        assert_eq!(table.user(Some(0)), "nobody");
        assert_eq!(table.processes[0].inner_pid(), 1);
        assert_eq!(table.processes[0].comm, "a) (b");
    }
}
