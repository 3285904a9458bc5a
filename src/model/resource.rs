//! Limits: what was asked for, in the kernel's units. Absent: not limited by us.

use crate::model::unit::ByteSize;
use serde::{Deserialize, Serialize};

/// The limits of a container; `run`, `create` and `update` share it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `--memory`, bytes.
    pub memory: Option<ByteSize>,
    /// `--memory-reservation`, bytes.
    pub memory_reservation: Option<ByteSize>,
    /// `--memory-swap`, memory plus swap in bytes; -1: unlimited.
    pub memory_swap: Option<i64>,
    /// `--memory-swappiness`, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpu-rt-period`, microseconds.
    pub cpu_rt_period: Option<u64>,
    /// `--cpu-rt-runtime`, microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; -1 or 0: unlimited. Absent: the default of 2048 where it can be set.
    pub pids_limit: Option<i64>,
    /// `--blkio-weight`, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// `--blkio-weight-device`.
    pub blkio_weight_device: Vec<DeviceValue>,
    /// `--device-read-bps`.
    pub read_bps: Vec<DeviceValue>,
    /// `--device-write-bps`.
    pub write_bps: Vec<DeviceValue>,
    /// `--device-read-iops`.
    pub read_iops: Vec<DeviceValue>,
    /// `--device-write-iops`.
    pub write_iops: Vec<DeviceValue>,
    /// `--cgroup-conf`: file and value of cgroup v2.
    pub unified: Vec<(String, String)>,
}

/// A limit for one block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceValue {
    /// Path of the device on the host.
    pub path: String,
    /// Bytes or operations per second, or weight.
    pub value: u64,
}

/// `--cgroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupsMode {
    /// A cgroup for the container.
    #[default]
    Enabled,
    /// None: it stays in the caller's.
    Disabled,
    /// As enabled; the supervisor stays where it was started.
    NoConmon,
    /// Container and supervisor in two cgroups below the caller's own.
    Split,
}

/// `--ulimit NAME=SOFT[:HARD]`; -1 is unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`, such as `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}
