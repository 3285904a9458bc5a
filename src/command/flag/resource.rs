//! Limits: `run`, `create` and `update` share them.

use super::csv;
use crate::model::container::ContainerSpec;
use crate::model::resource::{CgroupsMode, DeviceValue, Resources, Ulimit};
use crate::model::unit::ByteSize;
use anyhow::{Context, Result, anyhow, bail, ensure};

// Limits that `update` can change too.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Limits {
    /// Memory limit, such as 512m or 2g
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Memory soft limit
    #[arg(long, value_name = "SIZE")]
    pub memory_reservation: Option<String>,
    /// Limit of memory plus swap; -1 for unlimited swap
    #[arg(long, value_name = "SIZE")]
    pub memory_swap: Option<String>,
    /// Tune the container's memory swappiness, 0 to 100; -1 for the system's
    #[arg(long, value_name = "NUMBER")]
    pub memory_swappiness: Option<i64>,
    /// Number of CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<f64>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "SHARES")]
    pub cpu_shares: Option<u64>,
    /// Period of the CPU scheduler, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_quota: Option<i64>,
    /// Real-time period, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Real-time runtime, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "CPUS")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "NODES")]
    pub cpuset_mems: Option<String>,
    /// Limit of processes; -1 for unlimited
    #[arg(long, value_name = "NUMBER")]
    pub pids_limit: Option<i64>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<String>,
    /// Block I/O weight of a device: DEVICE:WEIGHT
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    pub blkio_weight_device: Vec<String>,
    /// Limit the rate of reads from a device: DEVICE:BYTES
    #[arg(long, value_name = "DEVICE:RATE")]
    pub device_read_bps: Vec<String>,
    /// Limit the rate of writes to a device: DEVICE:BYTES
    #[arg(long, value_name = "DEVICE:RATE")]
    pub device_write_bps: Vec<String>,
    /// Limit the rate of reads from a device: DEVICE:OPERATIONS
    #[arg(long, value_name = "DEVICE:RATE")]
    pub device_read_iops: Vec<String>,
    /// Limit the rate of writes to a device: DEVICE:OPERATIONS
    #[arg(long, value_name = "DEVICE:RATE")]
    pub device_write_iops: Vec<String>,
}

// Limits that are set once, when the container is made.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Resource {
    #[command(flatten)]
    pub limits: Limits,
    /// Write a value into a file of the cgroup: FILE=VALUE (cgroup v2)
    #[arg(long, value_name = "FILE=VALUE")]
    pub cgroup_conf: Vec<String>,
    /// Cgroup under which the container's is made
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Whether the container gets a cgroup: enabled, disabled, no-conmon or split
    #[arg(long, value_name = "MODE")]
    pub cgroups: Option<String>,
    /// Disable the out-of-memory killer (cgroup v1)
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Tune the host's choice of what to kill when memory is short, -1000 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub oom_score_adj: Option<i32>,
    /// Ulimit options: NAME=SOFT[:HARD], or `host`
    #[arg(long, value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Size of the tmpfs mounts of systemd mode
    #[arg(long, value_name = "SIZE", hide = true)]
    pub shm_size_systemd: Option<String>,
    /// Accepted for docker's sake, without effect since cgroup v2
    #[arg(long, value_name = "SIZE", hide = true)]
    pub kernel_memory: Option<String>,
    /// Class of service of Intel RDT
    #[arg(long, value_name = "CLASS", hide = true)]
    pub rdt_class: Option<String>,
    /// Size of the container's own layer: size=BYTES
    #[arg(long, value_name = "OPTION", hide = true)]
    pub storage_opt: Vec<String>,
}

impl Resource {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        if self.kernel_memory.is_some() {
            eprintln!("The --kernel-memory flag is no longer supported. This flag is a noop.");
        }
        super::refuse("--rdt-class", self.rdt_class.is_some())?;
        super::refuse("--shm-size-systemd", self.shm_size_systemd.is_some())?;
        super::refuse("--storage-opt", !self.storage_opt.is_empty())?;
        self.limits.apply(&mut spec.resources)?;
        spec.resources.unified = super::process::key_values(&csv(&self.cgroup_conf)?, "--cgroup-conf")?;
        spec.resources.oom_kill_disable = self.oom_kill_disable;
        spec.cgroup_parent = self.cgroup_parent.filter(|parent| !parent.is_empty());
        spec.cgroups = match self.cgroups.as_deref() {
            None | Some("" | "enabled") => CgroupsMode::Enabled,
            Some("disabled") => CgroupsMode::Disabled,
            Some("no-conmon") => CgroupsMode::NoConmon,
            Some("split") => CgroupsMode::Split,
            Some(other) => {
                bail!("--cgroups {other:?}: must be enabled, disabled, no-conmon or split: invalid argument")
            }
        };
        if let Some(score) = self.oom_score_adj {
            ensure!((-1000..=1000).contains(&score), "--oom-score-adj {score}: must be between -1000 and 1000");
        }
        spec.oom_score_adj = self.oom_score_adj;
        (spec.ulimits, spec.ulimits_host) = ulimits(&csv(&self.ulimit)?)?;
        spec.shm_size = match self.shm_size.as_deref() {
            None | Some("") => None,
            Some(size) => Some(size.parse::<ByteSize>().context("unable to translate --shm-size")?.0),
        };
        Ok(())
    }
}

impl Limits {
    /// Over what is there: what was not typed stays.
    pub fn apply(self, resources: &mut Resources) -> Result<()> {
        ensure!(self.cpus.is_none() || self.cpu_period.is_none(), "--cpu-period and --cpus cannot be set together");
        ensure!(self.cpus.is_none() || self.cpu_quota.is_none(), "--cpu-quota and --cpus cannot be set together");
        self.memory(resources)?;
        if let Some(cpus) = self.cpus.filter(|cpus| *cpus != 0.0) {
            // Below 0.01 the kernel refuses the quota of 1 ms that this period makes of it.
            ensure!((0.01..1e6).contains(&cpus), "--cpus {cpus}: must be at least 0.01");
            resources.cpu_period = Some(100_000);
            resources.cpu_quota = Some((cpus * 100_000.0).round() as i64);
        }
        set(&mut resources.cpu_shares, self.cpu_shares.filter(|shares| *shares > 0));
        set(&mut resources.cpu_period, self.cpu_period.filter(|period| *period > 0));
        set(&mut resources.cpu_quota, self.cpu_quota.filter(|quota| *quota != 0));
        set(&mut resources.cpu_rt_period, self.cpu_rt_period.filter(|period| *period > 0));
        set(&mut resources.cpu_rt_runtime, self.cpu_rt_runtime.filter(|runtime| *runtime > 0));
        set(&mut resources.cpuset_cpus, cpu_list("--cpuset-cpus", self.cpuset_cpus)?);
        set(&mut resources.cpuset_mems, cpu_list("--cpuset-mems", self.cpuset_mems)?);
        set(&mut resources.pids_limit, self.pids_limit);
        if let Some(weight) = self.blkio_weight.filter(|weight| !weight.is_empty()) {
            let weight: u16 = weight.parse().with_context(|| format!("invalid value for blkio-weight: {weight:?}"))?;
            ensure!(
                weight == 0 || (10..=1000).contains(&weight),
                "--blkio-weight {weight}: must be between 10 and 1000"
            );
            resources.blkio_weight = Some(weight);
        }
        device_values(&mut resources.blkio_weight_device, &self.blkio_weight_device, weight)?;
        device_values(&mut resources.read_bps, &self.device_read_bps, rate_bytes)?;
        device_values(&mut resources.write_bps, &self.device_write_bps, rate_bytes)?;
        device_values(&mut resources.read_iops, &self.device_read_iops, rate_operations)?;
        device_values(&mut resources.write_iops, &self.device_write_iops, rate_operations)
    }

    fn memory(&self, resources: &mut Resources) -> Result<()> {
        let size = |text: &Option<String>| -> Result<Option<ByteSize>> {
            let text = text.as_deref().filter(|text| !text.is_empty());
            text.map(|text| text.parse::<ByteSize>().context("invalid value for memory")).transpose()
        };
        let memory = size(&self.memory)?.filter(|memory| memory.0 > 0);
        set(&mut resources.memory, memory);
        set(&mut resources.memory_reservation, size(&self.memory_reservation)?.filter(|memory| memory.0 > 0));
        match self.memory_swap.as_deref() {
            None | Some("") => {
                // A new memory limit above the old sum would be refused by the kernel: the sum follows as at first.
                if memory.is_some() && resources.memory_swap != Some(-1) {
                    resources.memory_swap = None;
                }
            }
            Some("-1") => resources.memory_swap = Some(-1),
            Some(text) => {
                let swap = text.parse::<ByteSize>().context("invalid value for memory")?.0;
                resources.memory_swap = (swap > 0).then(|| i64::try_from(swap).unwrap_or(i64::MAX));
            }
        }
        if let (Some(memory), Some(swap)) = (resources.memory, resources.memory_swap) {
            ensure!(
                swap < 0 || swap as u64 >= memory.0,
                "minimum memoryswap limit should be larger than memory limit, see usage"
            );
        }
        if let Some(swappiness) = self.memory_swappiness {
            ensure!(
                (-1..=100).contains(&swappiness),
                "invalid value: {swappiness}, valid memory swappiness range is 0-100"
            );
            resources.memory_swappiness = u64::try_from(swappiness).ok();
        }
        Ok(())
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

/// `0-3,5`: checked here, for the kernel's EINVAL names nothing.
fn cpu_list(option: &str, text: Option<String>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let part = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            matches!((first.trim().parse::<u32>(), last.trim().parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
        }
        None => part.trim().parse::<u32>().is_ok(),
    };
    ensure!(text.split(',').all(part), "{option} {text:?}: write it as 0-3 or 0,1");
    Ok(Some(text))
}

/// Ulimits, and whether `host` was among them: then the container keeps the caller's.
pub fn ulimits(words: &[String]) -> Result<(Vec<Ulimit>, bool)> {
    if words.iter().any(|word| word == "host") {
        return Ok((Vec::new(), true));
    }
    let mut limits: Vec<Ulimit> = Vec::new();
    for word in words {
        let limit = ulimit(word)
            .with_context(|| format!("ulimit option {word:?} requires name=SOFT:HARD, failed to be parsed"))?;
        limits.retain(|other| other.name != limit.name);
        limits.push(limit);
    }
    Ok((limits, false))
}

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimit(word: &str) -> Result<Ulimit> {
    let lower = word.to_ascii_lowercase();
    let lower = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    let (name, values) = lower.split_once('=').ok_or_else(|| anyhow!("invalid ulimit argument: {lower}"))?;
    ensure!(ULIMITS.contains(&name), "invalid ulimit type: {name}");
    let value = |text: &str| -> Result<u64> {
        match text.parse::<i64>() {
            Ok(-1) => Ok(u64::MAX),
            Ok(number) if number >= 0 => Ok(number as u64),
            _ if text == "unlimited" => Ok(u64::MAX),
            _ => bail!("invalid ulimit value: {text}"),
        }
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    let shown = |limit: u64| if limit == u64::MAX { "-1 (unlimited)".to_owned() } else { limit.to_string() };
    ensure!(
        soft <= hard,
        "ulimit soft limit must be less than or equal to hard limit: soft: {}, hard: {}",
        shown(soft),
        shown(hard)
    );
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn device_values(field: &mut Vec<DeviceValue>, words: &[String], parse: fn(&str, &str) -> Result<u64>) -> Result<()> {
    for word in words {
        let (path, value) = word.split_once(':').ok_or_else(|| anyhow!("bad format: {word}"))?;
        ensure!(path.starts_with("/dev/"), "bad format for device path: {word}");
        let value = DeviceValue { path: path.to_owned(), value: parse(value, word)? };
        field.retain(|other| other.path != value.path);
        field.push(value);
    }
    Ok(())
}

fn weight(value: &str, word: &str) -> Result<u64> {
    match value.parse::<u64>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => Ok(weight),
        _ => bail!("invalid weight for device: {word}"),
    }
}

fn rate_bytes(value: &str, word: &str) -> Result<u64> {
    value.parse::<ByteSize>().map(|size| size.0).map_err(|_| {
        anyhow!(
            "invalid rate for device: {word}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })
}

fn rate_operations(value: &str, word: &str) -> Result<u64> {
    value.parse().map_err(|_| {
        anyhow!(
            "invalid rate for device: {word}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimit_words() {
        assert_eq!(ulimit("nofile=1024:2048").unwrap(), Ulimit { name: "nofile".into(), soft: 1024, hard: 2048 });
        assert_eq!(
            ulimit("RLIMIT_CORE=-1:-1").unwrap(),
            Ulimit { name: "core".into(), soft: u64::MAX, hard: u64::MAX }
        );
        for word in ["nofile", "x=1", "nofile=2:1", "nofile=a", "nofile=-1:5"] {
            assert!(ulimit(word).is_err(), "{word}");
        }
        assert_eq!(ulimits(&["nofile=1".into(), "host".into()]).unwrap(), (vec![], true));
    }

    fn limits(limits: Limits) -> Result<Resources> {
        let mut resources = Resources::default();
        limits.apply(&mut resources)?;
        Ok(resources)
    }

    #[test]
    fn cpus_are_quota_and_period() {
        let resources = limits(Limits { cpus: Some(1.5), ..Limits::default() }).unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_period), (Some(150_000), Some(100_000)));
        assert!(limits(Limits { cpus: Some(1.5), cpu_quota: Some(1), ..Limits::default() }).is_err());
        assert_eq!(limits(Limits { cpus: Some(0.0), ..Limits::default() }).unwrap().cpu_quota, None);
    }

    #[test]
    fn memory_and_swap() {
        let swap = |memory: &str, swap: &str| {
            limits(Limits { memory: Some(memory.into()), memory_swap: Some(swap.into()), ..Limits::default() })
        };
        assert_eq!(swap("1m", "-1").unwrap().memory_swap, Some(-1));
        assert_eq!(swap("1m", "2m").unwrap().memory_swap, Some(2 << 20));
        assert!(swap("2m", "1m").is_err());
    }

    #[test]
    fn lists_of_cpus() {
        for (text, good) in [("0", true), ("0-3,5", true), ("3-1", false), ("a", false), ("0,", false)] {
            assert_eq!(cpu_list("--cpuset-cpus", Some(text.into())).is_ok(), good, "{text}");
        }
    }
}
