//! What a cgroup has used, from either version, in one shape; and word of out-of-memory kills.
//!
//! A figure the host does not keep is zero or absent; only a group that is gone is an error.
#![forbid(unsafe_code)]

use super::{Saved, read as read_file, write};
use anyhow::{Context, Result, bail};
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory and swap.
    pub memory: Memory,
    /// Processes.
    pub pids: Pids,
    /// Block devices, each once.
    pub io: Vec<Io>,
    /// Huge pages by size ("2MB").
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Processor time, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// All of it.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Per processor (version 1).
    pub per_cpu_ns: Vec<u64>,
    /// Periods of the quota gone by.
    pub periods: u64,
    /// Of those, with the quota used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled_ns: u64,
    /// Pressure stall information.
    pub pressure: Option<Pressure>,
}

/// Memory, bytes. An absent limit is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// In use, page cache included.
    pub usage: u64,
    /// The most that was in use.
    pub peak: u64,
    /// Limit.
    pub limit: Option<u64>,
    /// Swap in use (without memory).
    pub swap_usage: u64,
    /// Limit of swap (without memory).
    pub swap_limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// Kernel memory in use.
    pub kernel_usage: u64,
    /// TCP buffers in use (version 1).
    pub kernel_tcp_usage: u64,
    /// memory.stat as the kernel tells it.
    pub raw: BTreeMap<String, u64>,
    /// Pressure stall information.
    pub pressure: Option<Pressure>,
}

impl Memory {
    /// Page cache.
    pub fn cache(&self) -> u64 {
        self.of(&["total_cache", "cache", "file"])
    }

    /// In use without page cache that could be dropped at once: what docker shows.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.of(&["total_inactive_file", "inactive_file"]))
    }

    fn of(&self, names: &[&str]) -> u64 {
        names.iter().find_map(|name| self.raw.get(*name)).copied().unwrap_or(0)
    }
}

/// Number of tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// At most; absent: no limit.
    pub limit: Option<u64>,
}

/// One block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Io {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Huge pages of one size, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// In use.
    pub usage: u64,
    /// The most that was in use (version 1).
    pub peak: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Share of time in which some or all tasks waited for a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// Percent over 10, 60 and 300 seconds, and microseconds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// Reads all there is.
pub(super) fn read(saved: &Saved) -> Result<Stats> {
    let mut stats = Stats::default();
    let controllers_on_v1 = !saved.v1.is_empty();
    match &saved.unified {
        Some(path) if !controllers_on_v1 => {
            if !path.is_dir() {
                bail!("read the figures of cgroup {}: it is gone", path.display());
            }
            v2(path, &mut stats);
        }
        _ => v1(saved, &mut stats),
    }
    Ok(stats)
}

/// A file with one number; "max" and what is not there: none.
fn number(path: PathBuf) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `key value` lines.
fn table(path: PathBuf) -> BTreeMap<String, u64> {
    parse_table(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse_table(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
}

fn v2(path: &Path, stats: &mut Stats) {
    let cpu = table(path.join("cpu.stat"));
    let of = |key: &str| cpu.get(key).copied().unwrap_or(0);
    stats.cpu = Cpu {
        usage_ns: of("usage_usec") * 1000,
        user_ns: of("user_usec") * 1000,
        system_ns: of("system_usec") * 1000,
        per_cpu_ns: Vec::new(),
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_ns: of("throttled_usec") * 1000,
        pressure: pressure(path.join("cpu.pressure")),
    };
    let raw = table(path.join("memory.stat"));
    let events = table(path.join("memory.events"));
    stats.memory = Memory {
        usage: number(path.join("memory.current")).unwrap_or(0),
        peak: number(path.join("memory.peak")).unwrap_or(0),
        limit: number(path.join("memory.max")),
        swap_usage: number(path.join("memory.swap.current")).unwrap_or(0),
        swap_limit: number(path.join("memory.swap.max")),
        failures: events.get("max").copied().unwrap_or(0),
        kernel_usage: raw.get("kernel").copied().unwrap_or(0),
        kernel_tcp_usage: raw.get("sock").copied().unwrap_or(0),
        raw,
        pressure: pressure(path.join("memory.pressure")),
    };
    stats.pids = Pids { current: number(path.join("pids.current")).unwrap_or(0), limit: number(path.join("pids.max")) };
    stats.io = parse_io(&std::fs::read_to_string(path.join("io.stat")).unwrap_or_default());
    for (size, usage) in huge_sizes(path, ".current") {
        let failures = table(path.join(format!("hugetlb.{size}.events"))).get("max").copied().unwrap_or(0);
        stats.hugetlb.insert(size, Hugetlb { usage, peak: 0, failures });
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn parse_io(text: &str) -> Vec<Io> {
    text.lines().filter_map(parse_io_line).collect()
}

fn parse_io_line(line: &str) -> Option<Io> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let mut io = Io { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Io::default() };
    for (key, value) in fields.filter_map(|field| field.split_once('=')) {
        let value = value.parse().unwrap_or(0);
        match key {
            "rbytes" => io.read_bytes = value,
            "wbytes" => io.write_bytes = value,
            "rios" => io.reads = value,
            "wios" => io.writes = value,
            _ => {}
        }
    }
    Some(io)
}

/// Huge page sizes by the names of the files, with the number in them.
fn huge_sizes(path: &Path, suffix: &str) -> Vec<(String, u64)> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let sizes = names.filter_map(|name| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    });
    sizes
        .filter_map(|size| Some((number(path.join(format!("hugetlb.{size}{suffix}")))?, size)))
        .map(|(n, s)| (s, n))
        .collect()
}

fn pressure(path: PathBuf) -> Option<Pressure> {
    Some(parse_pressure(&std::fs::read_to_string(path).ok()?))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let stall = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

/// Version 1's "no limit" is the largest multiple of a page.
fn legacy_limit(value: Option<u64>) -> Option<u64> {
    value.filter(|value| *value < 0x7fff_ffff_ffff_0000)
}

fn v1(saved: &Saved, stats: &mut Stats) {
    if let Some(path) = saved.v1.get("cpuacct") {
        let per_cpu = std::fs::read_to_string(path.join("cpuacct.usage_percpu")).unwrap_or_default();
        stats.cpu.usage_ns = number(path.join("cpuacct.usage")).unwrap_or(0);
        stats.cpu.user_ns = number(path.join("cpuacct.usage_user")).unwrap_or(0);
        stats.cpu.system_ns = number(path.join("cpuacct.usage_sys")).unwrap_or(0);
        stats.cpu.per_cpu_ns = per_cpu.split_ascii_whitespace().filter_map(|value| value.parse().ok()).collect();
    }
    if let Some(path) = saved.v1.get("cpu") {
        let cpu = table(path.join("cpu.stat"));
        let of = |key: &str| cpu.get(key).copied().unwrap_or(0);
        stats.cpu.periods = of("nr_periods");
        stats.cpu.throttled_periods = of("nr_throttled");
        stats.cpu.throttled_ns = of("throttled_time");
    }
    if let Some(path) = saved.v1.get("memory") {
        stats.memory = memory_v1(path);
    }
    if let Some(path) = saved.v1.get("pids") {
        let (current, limit) = (number(path.join("pids.current")).unwrap_or(0), number(path.join("pids.max")));
        stats.pids = Pids { current, limit };
    }
    if let Some(path) = saved.v1.get("blkio") {
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        stats.io = parse_blkio(
            &read("blkio.throttle.io_service_bytes_recursive"),
            &read("blkio.throttle.io_serviced_recursive"),
        );
    }
    if let Some(path) = saved.v1.get("hugetlb") {
        for (size, usage) in huge_sizes(path, ".usage_in_bytes") {
            let of = |file: &str| number(path.join(format!("hugetlb.{size}.{file}"))).unwrap_or(0);
            let (peak, failures) = (of("max_usage_in_bytes"), of("failcnt"));
            stats.hugetlb.insert(size, Hugetlb { usage, peak, failures });
        }
    }
}

fn memory_v1(path: &Path) -> Memory {
    let of = |file: &str| number(path.join(file));
    let usage = of("memory.usage_in_bytes").unwrap_or(0);
    let limit = legacy_limit(of("memory.limit_in_bytes"));
    let both = legacy_limit(of("memory.memsw.limit_in_bytes"));
    Memory {
        usage,
        peak: of("memory.max_usage_in_bytes").unwrap_or(0),
        limit,
        swap_usage: of("memory.memsw.usage_in_bytes").unwrap_or(0).saturating_sub(usage),
        swap_limit: both.map(|both| both.saturating_sub(limit.unwrap_or(0))),
        failures: of("memory.failcnt").unwrap_or(0),
        kernel_usage: of("memory.kmem.usage_in_bytes").unwrap_or(0),
        kernel_tcp_usage: of("memory.kmem.tcp.usage_in_bytes").unwrap_or(0),
        raw: table(path.join("memory.stat")),
        pressure: None,
    }
}

/// `8:0 Read 123` lines of bytes and of operations.
fn parse_blkio(bytes: &str, operations: &str) -> Vec<Io> {
    let mut devices: BTreeMap<(u64, u64), Io> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [device, kind, value] = fields[..] else { continue };
            let Some((major, minor)) = device.split_once(':') else { continue };
            let (Ok(major), Ok(minor), Ok(value)) = (major.parse(), minor.parse(), value.parse()) else { continue };
            let io = devices.entry((major, minor)).or_insert_with(|| Io { major, minor, ..Io::default() });
            match (kind, is_bytes) {
                ("Read", true) => io.read_bytes = value,
                ("Write", true) => io.write_bytes = value,
                ("Read", false) => io.reads = value,
                ("Write", false) => io.writes = value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

/// How often a count is looked at that nobody tells of.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Tells of out-of-memory kills in a group: poll [`OomWatch::fd`] for [`OomWatch::events`], then ask for the count.
#[derive(Debug)]
pub struct OomWatch {
    /// memory.events (version 2) or memory.oom_control.
    file: PathBuf,
    wake: Wake,
}

#[derive(Debug)]
enum Wake {
    /// An open memory.events: POLLPRI after each change.
    Changes(File),
    /// An eventfd that the kernel counts up.
    Counter(EventFd),
    /// A clock, where a kernel has the counts and no longer tells of them (version 1 since Linux 6.18).
    Clock(TimerFd),
}

impl OomWatch {
    pub(super) fn open(saved: &Saved) -> Result<Option<OomWatch>> {
        if let Some(path) = saved.v1.get("memory") {
            return OomWatch::open_v1(path).map(Some);
        }
        let Some(file) = saved.unified.as_ref().map(|path| path.join("memory.events")) else { return Ok(None) };
        match File::open(&file) {
            Ok(open) => Ok(Some(OomWatch { file, wake: Wake::Changes(open) })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}", file.display())),
        }
    }

    fn open_v1(path: &Path) -> Result<OomWatch> {
        let file = path.join("memory.oom_control");
        let control = File::open(&file).with_context(|| format!("open {}", file.display()))?;
        let counter = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("make an eventfd")?;
        let registration = path.join("cgroup.event_control");
        write(&registration, &format!("{} {}", counter.as_fd().as_raw_fd(), OwnedFd::from(control).as_raw_fd()))
            .with_context(|| format!("write {}", registration.display()))?;
        Ok(OomWatch { file, wake: Wake::Counter(counter) })
    }

    /// The same; by the clock where the kernel does not tell.
    pub(super) fn open_or_look(saved: &Saved) -> Result<Option<OomWatch>> {
        let (opened, memory) = (OomWatch::open(saved), saved.v1.get("memory"));
        match (opened, memory) {
            (Err(_), Some(path)) => {
                let clock = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
                clock.set(Expiration::Interval(LOOK_INTERVAL.into()), TimerSetTimeFlags::empty())?;
                Ok(Some(OomWatch { file: path.join("memory.oom_control"), wake: Wake::Clock(clock) }))
            }
            (opened, _) => opened,
        }
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.wake {
            Wake::Changes(file) => file.as_fd(),
            Wake::Counter(counter) => counter.as_fd(),
            Wake::Clock(clock) => clock.as_fd(),
        }
    }

    /// What to poll for.
    pub fn events(&self) -> PollFlags {
        match &self.wake {
            Wake::Changes(_) => PollFlags::POLLPRI,
            Wake::Counter(_) | Wake::Clock(_) => PollFlags::POLLIN,
        }
    }

    /// Processes killed so far for want of memory; also re-arms [`OomWatch::fd`]. A group that is gone says 0.
    pub fn kills(&self) -> u64 {
        match &self.wake {
            Wake::Changes(file) => {
                // The read must be on the polled file: that is what the kernel takes for "seen".
                let mut text = String::new();
                let mut file: &File = file;
                use std::io::{Read, Seek};
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
                parse_table(&text).get("oom_kill").copied().unwrap_or(0)
            }
            Wake::Counter(counter) => {
                let _ = counter.read();
                self.count()
            }
            Wake::Clock(clock) => {
                let _ = clock.wait();
                self.count()
            }
        }
    }

    fn count(&self) -> u64 {
        let text = read_file(&self.file).unwrap_or_default();
        parse_table(&text).get("oom_kill").copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_of_both_versions() {
        let expected = vec![Io { major: 8, minor: 0, read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 }];
        assert_eq!(parse_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"), expected);
        let bytes = "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\n8:0 Total 3\nTotal 3\n";
        assert_eq!(parse_blkio(bytes, "8:0 Read 3\n8:0 Write 4\n"), expected);
    }

    #[test]
    fn pressure_lines() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=9\n";
        let pressure = parse_pressure(text);
        assert_eq!((pressure.some.avg10, pressure.some.avg60, pressure.some.total), (1.5, 0.25, 77));
        assert_eq!((pressure.full.avg10, pressure.full.total), (0.5, 9));
    }

    #[test]
    fn no_limit_of_version_1() {
        assert_eq!(legacy_limit(Some(0x7fff_ffff_ffff_f000)), None);
        assert_eq!(legacy_limit(Some(4096)), Some(4096));
    }
}
