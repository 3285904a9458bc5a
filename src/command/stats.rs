//! `coracle stats`.

use super::present::{self, Column, List, Reader, human};
use crate::engine::list::{self, Listed, Scope};
use crate::engine::stat::{self, Sample};
use crate::engine::{Engine, top};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Display a live stream of resource usage statistics
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Show all containers, default is only running ones
    #[arg(short, long)]
    all: bool,
    /// Pretty-print statistics to JSON or using a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Time in seconds between reports
    #[arg(short, long, value_name = "SECONDS", default_value_t = 5)]
    interval: u64,
    /// Act on the latest container
    #[arg(short, long)]
    latest: bool,
    /// Do not clear the terminal between reports
    #[arg(long)]
    no_reset: bool,
    /// Print the first report only
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// The containers; all running ones if none is named
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: &[Column] = &[
    Column::new("ID", "ID"),
    Column::new("Name", "NAME"),
    Column::new("CPUPerc", "CPU %"),
    Column::new("MemUsage", "MEM USAGE / LIMIT"),
    Column::new("MemPerc", "MEM %"),
    Column::new("NetIO", "NET IO"),
    Column::new("BlockIO", "BLOCK IO"),
    Column::new("PIDS", "PIDS"),
    Column::new("UpTime", "CPU TIME"),
    Column::new("AVGCPU", "AVG CPU %"),
];

const MORE: &[Column] = &[Column::new("MemUsageBytes", "MEM USAGE / LIMIT")];

/// Report once or again and again.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let chosen = usize::from(args.all) + usize::from(args.latest) + usize::from(!args.containers.is_empty());
    ensure!(chosen <= 1, "--all, --latest and containers cannot be used together");
    ensure!(args.interval > 0, "invalid interval, must be a positive number greater zero");
    let mut earlier: BTreeMap<String, Sample> = BTreeMap::new();
    let clears = !args.no_reset && !args.no_stream && args.format.is_none();
    loop {
        let mut rows = Vec::new();
        for container in select(&args, engine)? {
            match stat::sample(&container) {
                Ok(sample) => rows.push((container, sample)),
                // It ended while we looked; one that was named is an error.
                Err(error) if args.containers.is_empty() && !list_again(engine, &container) => drop(error),
                Err(error) => return Err(error),
            }
        }
        if clears && present::write(b"\x1b[2J\x1b[H")? == Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
        let report: Vec<Report> = rows
            .iter()
            .map(|(container, sample)| Report { container, sample, earlier: earlier.get(container.record.id.as_str()) })
            .collect();
        let list = List { format: args.format.as_deref(), heading: true, columns: COLUMNS, more_headings: MORE };
        let text = list.text(&report, |report| report.row(args.no_trunc), |report| report.document(args.no_trunc))?;
        if present::write(text.as_bytes())? == Reader::Gone || args.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
        earlier = rows.into_iter().map(|(container, sample)| (container.record.id.to_string(), sample)).collect();
        std::thread::park_timeout(Duration::from_secs(args.interval));
    }
}

/// Whether it still runs.
fn list_again(engine: &Engine, container: &Listed) -> bool {
    list::get(engine, container.record.id.as_str()).is_ok_and(|container| container.state.is_live())
}

fn select(args: &Args, engine: &Engine) -> Result<Vec<Listed>> {
    if args.latest {
        return Ok(vec![list::latest(engine)?]);
    }
    if args.containers.is_empty() {
        let scope = if args.all { Scope::All } else { Scope::Live };
        return Ok(list::list(engine, scope)?.0);
    }
    let mut containers = Vec::new();
    for name in &args.containers {
        let container = list::get(engine, name.strip_prefix('/').unwrap_or(name))?;
        if !container.state.is_live() && args.no_stream {
            bail!("container {} is not running: container state improper", container.record.name);
        }
        containers.push(container);
    }
    Ok(containers)
}

struct Report<'a> {
    container: &'a Listed,
    sample: &'a Sample,
    earlier: Option<&'a Sample>,
}

impl Report<'_> {
    fn id(&self, whole: bool) -> &str {
        let id = &self.container.record.id;
        if whole { id.as_str() } else { id.short() }
    }

    /// podman's fields for templates and the table.
    fn row(&self, whole: bool) -> Value {
        let Report { container, sample, earlier } = self;
        let memory = sample.cgroup.memory.working_set();
        let traffic = sample.traffic();
        let (read, written) = sample.blocks();
        let pair = |one: u64, other: u64, text: fn(u64) -> String| format!("{} / {}", text(one), text(other));
        let cpu_ns = sample.cgroup.cpu.usage_ns;
        json!({
            "ID": self.id(whole),
            "ContainerID": container.record.id,
            "Name": container.record.name,
            "CPUPerc": percent(sample.cpu_percent(*earlier)),
            "CPU": sample.cpu_percent(*earlier),
            "AVGCPU": percent(sample.cpu_percent(None)),
            "AvgCPU": sample.cpu_percent(None),
            "CPUNano": cpu_ns,
            "CPUSystemNano": sample.cgroup.cpu.system_ns,
            "SystemNano": sample.time_ns,
            "Duration": cpu_ns,
            "UpTime": top::go_duration(cpu_ns as f64 / 1e9),
            "MemUsage": pair(memory, sample.memory_limit, human::compact_size),
            "MemUsageBytes": pair(memory, sample.memory_limit, human::binary_size),
            "MemLimit": sample.memory_limit,
            "MemPerc": percent(sample.memory_percent()),
            "NetIO": pair(traffic.received, traffic.sent, human::compact_size),
            "NetInput": traffic.received,
            "NetOutput": traffic.sent,
            "BlockIO": pair(read, written, human::compact_size),
            "BlockInput": read,
            "BlockOutput": written,
            "PIDS": sample.cgroup.pids.current.to_string(),
            "PIDs": sample.cgroup.pids.current,
        })
    }

    /// `--format json`.
    fn document(&self, whole: bool) -> Value {
        let row = self.row(whole);
        json!({
            "id": row["ID"],
            "name": row["Name"],
            "cpu_time": row["UpTime"],
            "cpu_percent": row["CPUPerc"],
            "avg_cpu": row["AVGCPU"],
            "mem_usage": row["MemUsage"],
            "mem_percent": row["MemPerc"],
            "net_io": row["NetIO"],
            "block_io": row["BlockIO"],
            "pids": row["PIDS"],
        })
    }
}

fn percent(value: f64) -> String {
    format!("{value:.2}%")
}
