//! Limits: from what was asked to the spec's fields.

use super::{Facts, device};
use crate::failure::{Failure, Kind};
use crate::model::container::ContainerSpec;
use crate::model::resource::{DeviceValue, Resources};
use anyhow::Result;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDevice, LinuxWeightDeviceBuilder,
};
use std::collections::BTreeMap;

/// Paths of block devices and their major and minor numbers.
pub type BlockDevices = BTreeMap<String, (i64, i64)>;

/// All limits and device rules of a container.
pub(super) fn resources(spec: &ContainerSpec, facts: &Facts) -> Result<LinuxResources> {
    let mut limits = limits(&spec.resources, facts.default_pids_limit, &facts.block_devices)?;
    limits.set_devices(Some(device::rules(spec, facts)?));
    Ok(limits)
}

/// The limits alone; `update` uses this too.
pub fn limits(wanted: &Resources, default_pids: Option<i64>, numbers: &BlockDevices) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources
        .set_memory(memory(wanted))
        .set_cpu(cpu(wanted))
        .set_pids(pids(wanted.pids_limit.or(default_pids)))
        .set_block_io(block_io(wanted, numbers)?);
    if !wanted.unified.is_empty() {
        resources.set_unified(Some(wanted.unified.iter().cloned().collect()));
    }
    Ok(resources)
}

fn memory(wanted: &Resources) -> Option<LinuxMemory> {
    let bytes = |size: Option<crate::model::unit::ByteSize>| size.map(|size| i64::try_from(size.0).unwrap_or(i64::MAX));
    let limit = bytes(wanted.memory).filter(|limit| *limit != 0);
    let any = limit.is_some()
        || wanted.memory_reservation.is_some()
        || wanted.memory_swap.is_some()
        || wanted.memory_swappiness.is_some()
        || wanted.oom_kill_disable;
    any.then(|| {
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(limit)
            .set_reservation(bytes(wanted.memory_reservation))
            // As docker and podman: as much swap as memory unless said otherwise.
            .set_swap(wanted.memory_swap.filter(|swap| *swap != 0).or(limit.map(|limit| limit.saturating_mul(2))))
            .set_swappiness(wanted.memory_swappiness)
            .set_disable_oom_killer(wanted.oom_kill_disable.then_some(true));
        memory
    })
}

fn cpu(wanted: &Resources) -> Option<LinuxCpu> {
    let any = wanted.cpu_shares.is_some()
        || wanted.cpu_quota.is_some()
        || wanted.cpu_period.is_some()
        || wanted.cpu_rt_period.is_some()
        || wanted.cpu_rt_runtime.is_some()
        || wanted.cpuset_cpus.is_some()
        || wanted.cpuset_mems.is_some();
    any.then(|| {
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(wanted.cpu_shares.filter(|shares| *shares != 0))
            .set_quota(wanted.cpu_quota.filter(|quota| *quota != 0))
            .set_period(wanted.cpu_period.filter(|period| *period != 0))
            .set_realtime_period(wanted.cpu_rt_period)
            .set_realtime_runtime(wanted.cpu_rt_runtime)
            .set_cpus(wanted.cpuset_cpus.clone())
            .set_mems(wanted.cpuset_mems.clone());
        cpu
    })
}

fn pids(limit: Option<i64>) -> Option<LinuxPids> {
    limit.map(|limit| {
        let mut pids = LinuxPids::default();
        // 0 is podman's and docker's "unlimited"; the spec's is -1.
        pids.set_limit(if limit == 0 { -1 } else { limit });
        pids
    })
}

fn block_io(wanted: &Resources, numbers: &BlockDevices) -> Result<Option<LinuxBlockIo>> {
    let lists =
        [&wanted.blkio_weight_device, &wanted.read_bps, &wanted.write_bps, &wanted.read_iops, &wanted.write_iops];
    if wanted.blkio_weight.is_none() && lists.iter().all(|list| list.is_empty()) {
        return Ok(None);
    }
    let throttle = |list: &[DeviceValue]| -> Result<Option<Vec<LinuxThrottleDevice>>> {
        let devices: Result<Vec<LinuxThrottleDevice>> = list
            .iter()
            .map(|value| {
                let (major, minor) = number_of(numbers, &value.path)?;
                Ok(LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(value.value).build()?)
            })
            .collect();
        Ok(Some(devices?).filter(|devices| !devices.is_empty()))
    };
    let weights: Result<Vec<LinuxWeightDevice>> = wanted
        .blkio_weight_device
        .iter()
        .map(|value| {
            let (major, minor) = number_of(numbers, &value.path)?;
            let weight = u16::try_from(value.value).unwrap_or(u16::MAX);
            Ok(LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build()?)
        })
        .collect();
    let mut block = LinuxBlockIo::default();
    block
        .set_weight(wanted.blkio_weight)
        .set_weight_device(Some(weights?).filter(|weights| !weights.is_empty()))
        .set_throttle_read_bps_device(throttle(&wanted.read_bps)?)
        .set_throttle_write_bps_device(throttle(&wanted.write_bps)?)
        .set_throttle_read_iops_device(throttle(&wanted.read_iops)?)
        .set_throttle_write_iops_device(throttle(&wanted.write_iops)?);
    Ok(Some(block))
}

/// The paths of all block devices that are limited.
pub fn block_device_paths(wanted: &Resources) -> impl Iterator<Item = &str> {
    let lists =
        [&wanted.blkio_weight_device, &wanted.read_bps, &wanted.write_bps, &wanted.read_iops, &wanted.write_iops];
    lists.into_iter().flatten().map(|value| value.path.as_str())
}

fn number_of(numbers: &BlockDevices, path: &str) -> Result<(i64, i64)> {
    let number = numbers.get(path).copied();
    number.ok_or_else(|| Failure::new(Kind::Engine, format!("{path}: not a block device")).into())
}
