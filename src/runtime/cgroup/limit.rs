//! OCI's `LinuxResources` as control files and values, for either version. Pure but for [`Setting::apply`].
//!
//! Conversions between the versions follow runc and crun, so that a number means the same whoever runs the container.
//! What a version has no file for is refused here; what the host lacks is refused by `apply`, which finds no file.
#![forbid(unsafe_code)]

use super::place::Layout;
use super::{Saved, write};
use crate::failure::{Failure, Kind};
use anyhow::{Result, bail};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};
use std::collections::HashMap;
use std::path::Path;

/// One control file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Must be enabled (version 2) or mounted (version 1).
    pub(super) controller: &'static str,
    /// Name of the file.
    pub(super) file: String,
    /// What is written.
    pub(super) value: String,
    /// When there is no such file.
    missing: Missing,
}

/// What the lack of a file means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    /// The limit cannot be set: an error.
    Refuse,
    /// An older or newer kernel has another file for it.
    Instead(String, String),
    /// The file only refines another setting.
    Ignore,
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Setting {
        Setting { controller, file: file.into(), value: value.to_string(), missing: Missing::Refuse }
    }

    fn or(mut self, file: impl Into<String>, value: impl ToString) -> Setting {
        self.missing = Missing::Instead(file.into(), value.to_string());
        self
    }

    fn optional(mut self) -> Setting {
        self.missing = Missing::Ignore;
        self
    }

    /// Writes it into this group.
    pub(super) fn apply(&self, directory: &Path) -> Result<()> {
        match write(&directory.join(&self.file), &self.value) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => match &self.missing {
                Missing::Ignore => Ok(()),
                Missing::Refuse => Err(self.explain(directory, &self.file, &self.value, error)),
                Missing::Instead(file, value) => {
                    write(&directory.join(file), value).map_err(|error| self.explain(directory, file, value, error))
                }
            },
            result => result.map_err(|error| self.explain(directory, &self.file, &self.value, error)),
        }
    }

    fn explain(&self, directory: &Path, file: &str, value: &str, error: std::io::Error) -> anyhow::Error {
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) => format!(
                "the cgroup controller `{}` is not available in {}, or this kernel has no {file}",
                self.controller,
                directory.display()
            ),
            Some(libc::EBUSY) if file.starts_with("memory") => {
                "more memory is in use than the new limit allows; give a higher one".to_owned()
            }
            Some(libc::EACCES | libc::EPERM) => super::v2::DELEGATION_HINT.to_owned(),
            _ => format!("`{value}` is outside of what the parent cgroup or the kernel allows for {file}"),
        };
        let tried = format!("write `{value}` to {}", directory.join(file).display());
        anyhow::Error::new(error).context(Failure::new(Kind::Engine, tried).hint(hint))
    }
}

/// All files to write for these resources, in the order to write them.
pub(super) fn settings(resources: Option<&LinuxResources>, layout: &Layout) -> Result<Vec<Setting>> {
    let Some(resources) = resources else { return Ok(Vec::new()) };
    let v2 = matches!(layout, Layout::Unified(_));
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        if v2 { memory_v2(memory, &mut list)? } else { memory_v1(memory, &mut list)? }
    }
    if let Some(cpu) = resources.cpu() {
        if v2 {
            cpu_v2(cpu, &mut list)?
        } else {
            cpu_v1(cpu, &mut list)?
        }
        cpuset(cpu, &mut list);
    }
    if let Some(pids) = resources.pids() {
        // systemd knows no limit of 0, so runtimes have come to mean the least there can be by it.
        let text = match pids.limit() {
            limit if limit < 0 => "max".to_owned(),
            limit => limit.max(1).to_string(),
        };
        list.push(Setting::new("pids", "pids.max", text));
    }
    if let Some(io) = resources.block_io() {
        if v2 { io_v2(io, &mut list)? } else { io_v1(io, &mut list)? }
    }
    hugepages(resources.hugepage_limits().as_deref().unwrap_or_default(), v2, &mut list)?;
    if let Some(network) = resources.network() {
        self::network(network, v2, &mut list)?;
    }
    if let Some(rdma) = resources.rdma() {
        self::rdma(rdma, &mut list);
    }
    if let Some(unified) = resources.unified() {
        self::unified(unified, v2, &mut list)?;
    }
    Ok(list)
}

/// A memory size or -1 for none; 0 says nothing.
fn bytes(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory_v2(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    refuse_kernel_memory(memory, "cgroup v2")?;
    if memory.swappiness().is_some() {
        bail!("memory.swappiness: cgroup v2 has no swappiness of a group");
    }
    if memory.disable_oom_killer() == Some(true) {
        bail!("memory.disableOOMKiller: cgroup v2 cannot disable the OOM killer");
    }
    let limit = memory.limit().filter(|limit| *limit != 0);
    // Swap first: lowering the limit may push pages out at once.
    if let Some(swap) = swap_v2(memory.swap().filter(|swap| *swap != 0), limit)? {
        list.push(Setting::new("memory", "memory.swap.max", swap));
    }
    if let Some(limit) = limit {
        list.push(Setting::new("memory", "memory.max", bytes(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        list.push(Setting::new("memory", "memory.low", bytes(reservation)));
    }
    Ok(())
}

/// Version 1 counts memory plus swap, version 2 swap alone.
pub(super) fn swap_v2(swap: Option<i64>, limit: Option<i64>) -> Result<Option<String>> {
    match (swap, limit) {
        // Unlimited memory means unlimited swap where nothing else is said, as on version 1.
        (None, Some(..=-1)) | (Some(..=-1), _) => Ok(Some("max".to_owned())),
        (None, _) => Ok(None),
        (Some(_), None | Some(..=-1)) => bail!("memory.swap: a limit of memory plus swap needs a limit of memory"),
        (Some(swap), Some(limit)) if swap < limit => {
            bail!("memory.swap: {swap} is memory plus swap and cannot be less than memory.limit, {limit}")
        }
        (Some(swap), Some(limit)) => Ok(Some((swap - limit).to_string())),
    }
}

fn memory_v1(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    refuse_kernel_memory(memory, "current Linux")?;
    let limit = memory.limit().filter(|limit| *limit != 0);
    let mut swap = memory.swap().filter(|swap| *swap != 0);
    if limit == Some(-1) && swap.is_none() {
        swap = Some(-1);
    }
    if let (Some(swap @ 1..), Some(limit)) = (swap, limit)
        && swap < limit
    {
        bail!("memory.swap: {swap} is memory plus swap and cannot be less than memory.limit, {limit}");
    }
    if memory.use_hierarchy() == Some(true) {
        list.push(Setting::new("memory", "memory.use_hierarchy", 1).optional());
    }
    if let Some(limit) = limit {
        list.push(Setting::new("memory", super::v1::MEMORY_LIMIT, limit));
    }
    if let Some(swap) = swap {
        let setting = Setting::new("memory", super::v1::SWAP_LIMIT, swap);
        list.push(if swap < 0 { setting.optional() } else { setting });
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        list.push(Setting::new("memory", "memory.soft_limit_in_bytes", reservation));
    }
    if let Some(limit) = memory.kernel_tcp().filter(|limit| *limit != 0) {
        list.push(Setting::new("memory", "memory.kmem.tcp.limit_in_bytes", limit));
    }
    if let Some(disable) = memory.disable_oom_killer() {
        list.push(Setting::new("memory", "memory.oom_control", u8::from(disable)));
    }
    match memory.swappiness() {
        Some(swappiness @ 0..=100) => list.push(Setting::new("memory", "memory.swappiness", swappiness)),
        Some(swappiness) => bail!("memory.swappiness: {swappiness} is not between 0 and 100"),
        None => {}
    }
    Ok(())
}

fn refuse_kernel_memory(memory: &LinuxMemory, who: &str) -> Result<()> {
    #[allow(deprecated)] // read only to be refused
    let kernel = memory.kernel();
    if kernel.is_some_and(|limit| limit != 0 && limit != -1) {
        bail!("memory.kernel: {who} has no limit of kernel memory; limit the memory as a whole");
    }
    if who == "cgroup v2" && memory.kernel_tcp().is_some_and(|limit| limit != 0 && limit != -1) {
        bail!("memory.kernelTCP: {who} has no limit of TCP buffers; limit the memory as a whole");
    }
    Ok(())
}

/// With `checkBeforeUpdate` a limit below what is in use is refused rather than met by killing.
pub(super) fn check_before_update(resources: &LinuxResources, saved: &Saved) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let (Some(true), Some(limit @ 1..)) = (memory.check_before_update(), memory.limit()) else { return Ok(()) };
    let path = match (saved.v1.get("memory"), &saved.unified) {
        (Some(path), _) => path.join("memory.usage_in_bytes"),
        (None, Some(path)) => path.join("memory.current"),
        (None, None) => return Ok(()),
    };
    let used: i64 = super::read(&path)?.trim().parse().unwrap_or(0);
    if used > limit {
        bail!("memory.limit: {limit} is less than the {used} bytes in use, and checkBeforeUpdate is set");
    }
    Ok(())
}

/// Version 1's shares (2 to 262144, 1024 the default) as version 2's weight (1 to 10000, 100 the default), by the curve
/// runc and crun have used since 2025: it maps the default to the default, which the straight line before it did not.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

fn cpu_v2(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    if cpu.realtime_period().is_some_and(|period| period != 0) || cpu.realtime_runtime().is_some_and(|time| time != 0) {
        bail!("cpu.realtimeRuntime: cgroup v2 has no realtime limits");
    }
    let idle = idle(cpu)?;
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && idle != Some(1)) {
        list.push(Setting::new("cpu", "cpu.weight", weight_of_shares(shares)));
    }
    if let Some(idle) = idle {
        list.push(Setting::new("cpu", "cpu.idle", idle));
    }
    let (quota, period) = (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        list.push(Setting::new("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000))));
    }
    if let Some(burst) = cpu.burst() {
        list.push(Setting::new("cpu", "cpu.max.burst", burst));
    }
    Ok(())
}

fn idle(cpu: &LinuxCpu) -> Result<Option<i64>> {
    match cpu.idle() {
        None | Some(0 | 1) => Ok(cpu.idle()),
        Some(other) => bail!("cpu.idle: {other} is neither 0 nor 1"),
    }
}

fn cpu_v1(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    let idle = idle(cpu)?;
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && idle != Some(1)) {
        list.push(Setting::new("cpu", "cpu.shares", shares.clamp(2, 262_144)));
    }
    if let Some(idle) = idle {
        list.push(Setting::new("cpu", "cpu.idle", idle));
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        list.push(Setting::new("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        list.push(Setting::new("cpu", "cpu.rt_runtime_us", runtime));
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        list.push(Setting::new("cpu", super::v1::PERIOD, period));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        list.push(Setting::new("cpu", super::v1::QUOTA, quota.max(-1)));
    }
    if let Some(burst) = cpu.burst() {
        list.push(Setting::new("cpu", "cpu.cfs_burst_us", burst));
    }
    Ok(())
}

fn cpuset(cpu: &LinuxCpu, list: &mut Vec<Setting>) {
    for (value, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            list.push(Setting::new("cpuset", file, value));
        }
    }
}

fn check_weight(weight: u16) -> Result<u64> {
    match weight {
        10..=1000 => Ok(u64::from(weight)),
        _ => bail!("blockIO.weight: {weight} is not between 10 and 1000"),
    }
}

fn throttles(io: &LinuxBlockIo) -> [(&[LinuxThrottleDevice], &'static str, &'static str); 4] {
    fn list(list: &Option<Vec<LinuxThrottleDevice>>) -> &[LinuxThrottleDevice] {
        list.as_deref().unwrap_or_default()
    }
    [
        (list(io.throttle_read_bps_device()), "rbps", "blkio.throttle.read_bps_device"),
        (list(io.throttle_write_bps_device()), "wbps", "blkio.throttle.write_bps_device"),
        (list(io.throttle_read_iops_device()), "riops", "blkio.throttle.read_iops_device"),
        (list(io.throttle_write_iops_device()), "wiops", "blkio.throttle.write_iops_device"),
    ]
}

fn io_v2(io: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let weight = check_weight(weight)?;
        // BFQ takes version 1's numbers; io.cost's weight goes from 1 to 10000.
        let converted = 1 + (weight - 10) * 9999 / 990;
        list.push(Setting::new("io", "io.bfq.weight", weight).or("io.weight", converted));
    }
    for device in io.weight_device().as_deref().unwrap_or_default() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let weight = check_weight(weight)?;
            let (major, minor) = (device.major(), device.minor());
            let converted = 1 + (weight - 10) * 9999 / 990;
            let setting = Setting::new("io", "io.bfq.weight", format!("{major}:{minor} {weight}"));
            list.push(setting.or("io.weight", format!("{major}:{minor} {converted}")));
        }
    }
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        bail!("blockIO.leafWeight: no kernel since 5.0 has it");
    }
    for (devices, key, _) in throttles(io) {
        for device in devices {
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            list.push(Setting::new("io", "io.max", value));
        }
    }
    Ok(())
}

fn io_v1(io: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let weight = check_weight(weight)?;
        list.push(Setting::new("blkio", "blkio.bfq.weight", weight).or("blkio.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blkio", "blkio.leaf_weight", check_weight(weight)?));
    }
    for device in io.weight_device().as_deref().unwrap_or_default() {
        let (major, minor) = (device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = format!("{major}:{minor} {}", check_weight(weight)?);
            list.push(Setting::new("blkio", "blkio.bfq.weight_device", &value).or("blkio.weight_device", &value));
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            let value = format!("{major}:{minor} {}", check_weight(weight)?);
            list.push(Setting::new("blkio", "blkio.leaf_weight_device", value));
        }
    }
    for (devices, _, file) in throttles(io) {
        for device in devices {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            list.push(Setting::new("blkio", file, value));
        }
    }
    Ok(())
}

fn hugepages(limits: &[LinuxHugepageLimit], v2: bool, list: &mut Vec<Setting>) -> Result<()> {
    let file = if v2 { "max" } else { "limit_in_bytes" };
    for limit in limits {
        let size = limit.page_size();
        let digits = size.trim_end_matches(|letter: char| letter.is_ascii_uppercase());
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || !size.ends_with('B') {
            bail!("hugepageLimits: page size `{size}` is not like 2MB or 1GB");
        }
        let value = if limit.limit() < 0 && v2 { "max".to_owned() } else { limit.limit().to_string() };
        list.push(Setting::new("hugetlb", format!("hugetlb.{size}.{file}"), &value));
        // Reservations count where the kernel (5.7) can.
        list.push(Setting::new("hugetlb", format!("hugetlb.{size}.rsvd.{file}"), &value).optional());
    }
    Ok(())
}

fn network(network: &LinuxNetwork, v2: bool, list: &mut Vec<Setting>) -> Result<()> {
    let priorities = network.priorities().as_deref().unwrap_or_default();
    if v2 && (network.class_id().is_some_and(|class| class != 0) || !priorities.is_empty()) {
        bail!("network: class id and priorities are of cgroup v1; on v2 use traffic control or nftables' `cgroupv2`");
    }
    if v2 {
        return Ok(());
    }
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        list.push(Setting::new("net_cls", "net_cls.classid", class));
    }
    for priority in priorities {
        let value = format!("{} {}", priority.name(), priority.priority());
        list.push(Setting::new("net_prio", "net_prio.ifpriomap", value));
    }
    Ok(())
}

fn rdma(limits: &HashMap<String, LinuxRdma>, list: &mut Vec<Setting>) {
    let mut devices: Vec<_> = limits.iter().collect();
    devices.sort_by_key(|(device, _)| device.as_str());
    for (device, limit) in devices {
        let mut value = device.clone();
        for (key, count) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(count) = count {
                value.push_str(&format!(" {key}={count}"));
            }
        }
        list.push(Setting::new("rdma", "rdma.max", value));
    }
}

/// Files of version 2 by name.
fn unified(files: &HashMap<String, String>, v2: bool, list: &mut Vec<Setting>) -> Result<()> {
    if !v2 && !files.is_empty() {
        return Err(Failure::new(
            Kind::Engine,
            "invalid configuration: linux.resources.unified: this host's controllers are on cgroup v1",
        )
        .hint("boot with `systemd.unified_cgroup_hierarchy=1` for cgroup v2")
        .into());
    }
    const CONTROLLERS: [&str; 9] = ["cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
    let mut names: Vec<_> = files.iter().collect();
    names.sort();
    for (name, value) in names {
        if name.contains('/') || !name.contains('.') {
            bail!("unified: `{name}` is not the name of a control file");
        }
        let prefix = name.split('.').next().unwrap_or_default();
        // cgroup.* files are of no controller and always there.
        let controller = match CONTROLLERS.iter().find(|controller| **controller == prefix) {
            Some(controller) => controller,
            None if prefix == "cgroup" => "cgroup",
            None => bail!("unified: `{name}`: there is no cgroup controller `{prefix}`"),
        };
        list.push(Setting::new(controller, name, value));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
