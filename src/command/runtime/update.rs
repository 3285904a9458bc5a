//! `update`.

use super::global::Global;
use crate::model::unit::ByteSize;
use crate::runtime::lifecycle::Status;
use anyhow::{Context, Result, bail};
use clap::Parser;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::io::Read;
use std::process::ExitCode;

/// The options of `update`.
#[derive(Parser)]
pub struct Update {
    /// The resources as JSON, `-` for standard input; all other options are then not used.
    #[arg(short, long, value_name = "FILE")]
    resources: Option<String>,
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    #[arg(long, value_name = "N", alias = "cpu-shares")]
    cpu_share: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// In bytes or with a unit; -1 is no limit.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory: Option<String>,
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory_tcp: Option<String>,
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container.
    id: String,
}

/// Change the limits of a container.
pub fn update(global: &Global, args: Update) -> Result<ExitCode> {
    let container = global.container(&args.id)?;
    if container.status()? == Status::Stopped {
        bail!("container with id {} is not running", args.id);
    }
    let resources = match &args.resources {
        Some(path) => read(path)?,
        None => collect(&args)?,
    };
    let mut cgroup = container.cgroup();
    cgroup.update(&resources)?;
    container.set_cgroup(cgroup.saved().clone())?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &str) -> Result<LinuxResources> {
    let mut text = Vec::new();
    if path == "-" {
        std::io::stdin().lock().read_to_end(&mut text).context("read --resources from standard input")?;
    } else {
        text = std::fs::read(path).with_context(|| format!("read --resources {path}"))?;
    }
    let mut reader = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut reader).with_context(|| format!("read --resources {path}"))
}

fn size(text: &Option<String>, option: &str) -> Result<Option<i64>> {
    match text.as_deref() {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => {
            let size: ByteSize = text.parse().with_context(|| format!("{option} {text}"))?;
            i64::try_from(size.0).map(Some).with_context(|| format!("{option} {text}"))
        }
    }
}

fn collect(args: &Update) -> Result<LinuxResources> {
    if args.l3_cache_schema.is_some() || args.mem_bw_schema.is_some() {
        bail!("--l3-cache-schema, --mem-bw-schema: cache and memory bandwidth allocation is not supported");
    }
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        bail!("--kernel-memory, --kernel-memory-tcp: Linux has no such limits any more");
    }
    let mut resources = LinuxResources::default();
    let mut memory = LinuxMemory::default();
    memory.set_limit(size(&args.memory, "--memory")?);
    memory.set_reservation(size(&args.memory_reservation, "--memory-reservation")?);
    memory.set_swap(size(&args.memory_swap, "--memory-swap")?);
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_period(args.cpu_period);
    cpu.set_quota(args.cpu_quota);
    cpu.set_burst(args.cpu_burst);
    cpu.set_shares(args.cpu_share);
    cpu.set_realtime_period(args.cpu_rt_period);
    cpu.set_realtime_runtime(args.cpu_rt_runtime);
    cpu.set_cpus(args.cpuset_cpus.clone());
    cpu.set_mems(args.cpuset_mems.clone());
    cpu.set_idle(args.cpu_idle);
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = args.blkio_weight {
        let mut block = LinuxBlockIo::default();
        block.set_weight(Some(weight));
        resources.set_block_io(Some(block));
    }
    Ok(resources)
}
