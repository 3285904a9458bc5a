//! `state`, `list`, `ps`, `events`.

use super::IdOnly;
use super::global::Global;
use crate::command::present;
use crate::runtime::cgroup::stat::Stats;
use crate::runtime::lifecycle::{Container, Status};
use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Print the state.
pub fn state(global: &Global, args: IdOnly) -> Result<ExitCode> {
    let container = global.container(&args.id)?;
    present::text(&format!("{}\n", serde_json::to_string_pretty(&document(&container)?)?))?;
    Ok(ExitCode::SUCCESS)
}

/// OCI's state and what runc adds to it, in runc's order: there are programs that read it as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    oci_version: String,
    id: String,
    pid: i32,
    status: String,
    bundle: PathBuf,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: HashMap<String, String>,
    owner: &'a str,
}

fn document(container: &Container) -> Result<Document<'_>> {
    let (state, record) = (container.oci_state()?, &container.record);
    Ok(Document {
        oci_version: state.oci_version,
        id: state.id,
        pid: state.pid,
        status: state.status,
        bundle: state.bundle,
        rootfs: &record.rootfs,
        created: &record.created,
        annotations: state.annotations,
        owner: &record.owner,
    })
}

/// The options of `list`.
#[derive(Parser)]
pub struct List {
    /// table or json.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Ids only.
    #[arg(short, long)]
    quiet: bool,
}

/// List all containers.
pub fn list(global: &Global, args: List) -> Result<ExitCode> {
    if global.root_is_named {
        global.root.check()?;
    }
    let (containers, unreadable) = global.root.list()?;
    for error in unreadable {
        global.warn(&error);
    }
    let mut text = String::new();
    if args.quiet {
        for container in &containers {
            text.push_str(&format!("{}\n", container.record.id));
        }
    } else if args.format == "json" {
        let documents = containers.iter().map(document).collect::<Result<Vec<_>>>()?;
        text = format!("{}\n", serde_json::to_string(&documents)?);
    } else {
        text = table(&containers)?;
    }
    present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(containers: &[Container]) -> Result<String> {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for container in containers {
        let (state, record) = (container.oci_state()?, &container.record);
        rows.push([
            state.id,
            state.pid.to_string(),
            state.status,
            state.bundle.display().to_string(),
            record.created.clone(),
            record.owner.clone(),
        ]);
    }
    let mut widths = [12; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let line = |row: &[String; 6]| {
        let cells: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.trim_end())
    };
    Ok(rows.iter().map(line).collect())
}

/// The options of `ps`.
#[derive(Parser)]
pub struct Ps {
    /// table or json.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// The container.
    id: String,
    /// Options of the program ps.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// List the processes.
pub fn ps(global: &Global, args: Ps) -> Result<ExitCode> {
    let container = global.container(&args.id)?;
    let mut pids = container.cgroup().pids()?;
    if pids.is_empty() && container.status()? != Status::Stopped {
        pids.push(container.record.pid);
    }
    if args.format == "json" {
        present::text(&format!("{}\n", json!(pids)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = if args.options.is_empty() { vec!["-ef".to_owned()] } else { args.options };
    let output = Command::new("ps").args(&options).output().context("run ps")?;
    if !output.status.success() {
        bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    present::text(&only(&String::from_utf8_lossy(&output.stdout), &pids)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The lines of ps's table that are of these processes.
fn only(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID").context("ps printed no column PID")?;
    let mut kept = format!("{head}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            kept.push_str(&format!("{line}\n"));
        }
    }
    Ok(kept)
}

/// One line of `events`, in runc's order.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// The options of `events`.
#[derive(Parser)]
pub struct Events {
    /// How often the figures are printed.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    /// Print them once.
    #[arg(long)]
    stats: bool,
    /// The container.
    id: String,
}

/// Print usage figures, and out-of-memory kills as they happen.
pub fn events(global: &Global, args: Events) -> Result<ExitCode> {
    let container = global.container(&args.id)?;
    let interval = duration(&args.interval)?;
    let id = &args.id;
    let print = |kind: &str, data: Option<Value>| {
        present::text(&format!("{}\n", serde_json::to_string(&Event { kind, id, data })?))
    };
    let cgroup = container.cgroup();
    if args.stats {
        print("stats", Some(figures(&cgroup.stats()?)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(pidfd) = container.pidfd()? else { bail!("container with id {id} is not running") };
    let oom = cgroup.oom_watch_or_look()?;
    let mut seen = oom.as_ref().map_or(0, |watch| watch.kills());
    let mut next = Instant::now();
    loop {
        if next <= Instant::now() {
            print("stats", Some(figures(&cgroup.stats()?)))?;
            next += interval;
        }
        let mut polled = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if let Some(watch) = &oom {
            polled.push(PollFd::new(watch.fd(), watch.events()));
        }
        let wait = next.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(wait.as_millis() as i64 + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, wait) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let (has_ended, has_news) = (polled[0].any() == Some(true), polled.get(1).and_then(PollFd::any) == Some(true));
        drop(polled);
        if let Some(watch) = oom.as_ref().filter(|_| has_news) {
            let kills = watch.kills();
            if kills > seen {
                print("oom", None)?;
            }
            seen = kills;
        }
        if has_ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn duration(text: &str) -> Result<Duration> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * seconds).filter(|value| value.is_finite() && *value > 0.0 && *value < 1e9)
    });
    parsed.map(Duration::from_secs_f64).with_context(|| format!("--interval: {text:?} is not a duration like 5s"))
}

/// runc's shape.
fn figures(stats: &Stats) -> Value {
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let entry = |usage: u64, limit: Option<u64>| json!({"usage": usage, "limit": limit.unwrap_or(u64::MAX), "max": 0, "failcnt": 0});
    let mut usage = entry(memory.usage, memory.limit);
    usage["max"] = json!(memory.peak);
    usage["failcnt"] = json!(memory.failures);
    let io = |value: fn(&crate::runtime::cgroup::stat::Io) -> [(&'static str, u64); 2]| -> Vec<Value> {
        let rows = stats.io.iter().flat_map(|io| value(io).map(|(op, value)| (io.major, io.minor, op, value)));
        rows.map(|(major, minor, op, value)| json!({"major": major, "minor": minor, "op": op, "value": value}))
            .collect()
    };
    let hugetlb: serde_json::Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, page)| (size.clone(), json!({"usage": page.usage, "max": page.peak, "failcnt": page.failures})))
        .collect();
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns,
                "percpu": cpu.per_cpu_ns,
                "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
            "psi": cpu.pressure,
        },
        "cpuset": {},
        "memory": {
            "cache": memory.cache(),
            "usage": usage,
            "swap": entry(memory.swap_usage, memory.swap_limit),
            "kernel": entry(memory.kernel_usage, None),
            "kernelTCP": entry(memory.kernel_tcp_usage, None),
            "raw": memory.raw,
            "psi": memory.pressure,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": io(|io| [("Read", io.read_bytes), ("Write", io.write_bytes)]),
            "ioServicedRecursive": io(|io| [("Read", io.reads), ("Write", io.writes)]),
        },
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_keeps_the_header_and_its_own() {
        let table = "UID PID PPID\nroot 1 0\nroot 12 1\nroot 2 12\n";
        assert_eq!(only(table, &[12]).unwrap(), "UID PID PPID\nroot 12 1\n");
    }

    #[test]
    fn intervals() {
        assert_eq!(duration("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for wrong in ["", "5", "0s", "-1s", "s", "NaNs"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
