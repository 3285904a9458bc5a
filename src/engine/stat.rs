//! What running containers use: their cgroup's figures, the traffic of their network, and shares over time.

use crate::engine::list::Listed;
use crate::runtime::cgroup::{Cgroup, Saved, stat};
use crate::state::container::State;
use crate::state::event::now_ns;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// The figures of a container at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When, nanoseconds since 1970.
    pub time_ns: i64,
    /// The container's start.
    pub started_ns: i64,
    /// Its cgroup's figures; zeros for one that does not run.
    pub cgroup: stat::Stats,
    /// Received and sent bytes of each interface.
    pub network: BTreeMap<String, Traffic>,
    /// The memory there is at most.
    pub memory_limit: u64,
}

/// What an interface has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// Take a sample. A container that does not run has used nothing.
///
/// # Errors
/// It runs without a cgroup of its own.
pub fn sample(container: &Listed) -> Result<Sample> {
    let mut sample = Sample { time_ns: now_ns(), memory_limit: machine_memory(), ..Sample::default() };
    let State::Live(status) = &container.state else { return Ok(sample) };
    sample.started_ns = status.started_ns;
    let saved: Saved = serde_json::from_value(status.cgroup.clone()).unwrap_or_default();
    let cgroup = Cgroup::open(saved);
    if !cgroup.exists() {
        bail!("stats of {}: the container runs without a cgroup of its own", container.record.name);
    }
    sample.cgroup = cgroup.stats().with_context(|| format!("stats of {}", container.record.name))?;
    let network = std::fs::read_to_string(format!("/proc/{}/net/dev", status.pid)).unwrap_or_default();
    sample.network = traffic(&network);
    if let Some(limit) = sample.cgroup.memory.limit.filter(|limit| *limit > 0) {
        sample.memory_limit = sample.memory_limit.min(limit);
    }
    Ok(sample)
}

impl Sample {
    /// Processor time in percent of one processor, since an earlier sample or since the start.
    pub fn cpu_percent(&self, earlier: Option<&Sample>) -> f64 {
        let (time_ns, usage_ns) = match earlier {
            Some(earlier) => (earlier.time_ns, earlier.cgroup.cpu.usage_ns),
            None => (self.started_ns, 0),
        };
        let elapsed = self.time_ns.saturating_sub(time_ns);
        if elapsed <= 0 || self.started_ns == 0 {
            return 0.0;
        }
        self.cgroup.cpu.usage_ns.saturating_sub(usage_ns) as f64 / elapsed as f64 * 100.0
    }

    /// Memory in percent of what there is at most.
    pub fn memory_percent(&self) -> f64 {
        if self.memory_limit == 0 {
            return 0.0;
        }
        self.cgroup.memory.working_set() as f64 / self.memory_limit as f64 * 100.0
    }

    /// Bytes of all interfaces.
    pub fn traffic(&self) -> Traffic {
        self.network.values().fold(Traffic::default(), |sum, traffic| Traffic {
            received: sum.received + traffic.received,
            sent: sum.sent + traffic.sent,
        })
    }

    /// Bytes read from and written to block devices.
    pub fn blocks(&self) -> (u64, u64) {
        let io = &self.cgroup.io;
        (io.iter().map(|device| device.read_bytes).sum(), io.iter().map(|device| device.write_bytes).sum())
    }
}

/// `/proc/PID/net/dev`, without the loopback.
fn traffic(text: &str) -> BTreeMap<String, Traffic> {
    let line = |line: &str| -> Option<(String, Traffic)> {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
        let name = name.trim();
        (name != "lo").then_some((name.to_owned(), Traffic { received: *numbers.first()?, sent: *numbers.get(8)? }))
    };
    text.lines().skip(2).filter_map(line).collect()
}

/// `MemTotal` in bytes.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 5 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), [("eth0".to_owned(), Traffic { received: 100, sent: 200 })].into());
    }

    #[test]
    fn shares() {
        let at = |time_ns, usage_ns| {
            let mut sample = Sample { time_ns, started_ns: 1, memory_limit: 200, ..Sample::default() };
            sample.cgroup.cpu.usage_ns = usage_ns;
            sample.cgroup.memory.usage = 50;
            sample
        };
        let (first, second) = (at(1001, 500), at(2001, 2500));
        assert_eq!(first.cpu_percent(None), 50.0);
        assert_eq!(second.cpu_percent(Some(&first)), 200.0);
        assert_eq!(first.memory_percent(), 25.0);
        assert_eq!(Sample::default().cpu_percent(None), 0.0);
    }
}
