//! `coracle ps`.

use super::present::{self, Column, List, human};
use crate::engine::inspect::{ports, size};
use crate::engine::list::{self, Filters, Listed, Scope};
use crate::engine::{Engine, moment};
use crate::state::container::State;
use crate::state::event::now_ns;
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// List containers
#[derive(clap::Parser, Debug, Default)]
pub struct Args {
    /// Show all the containers, default is only running containers
    #[arg(short, long)]
    all: bool,
    /// Show containers of the storage that are not ours (there are none)
    #[arg(long)]
    external: bool,
    /// Filter output based on conditions given: KEY=VALUE
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Pretty-print containers to JSON or using a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the n last created containers (all states)
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<i64>,
    /// Show the latest container created (all states)
    #[arg(short, long)]
    latest: bool,
    /// Display namespace information
    #[arg(long, visible_alias = "ns")]
    namespace: bool,
    /// Display the extended information
    #[arg(long, visible_alias = "notruncate")]
    no_trunc: bool,
    /// Do not print headers
    #[arg(long, visible_alias = "no-heading")]
    noheading: bool,
    /// Print the ID and name of the pod the containers are associated with
    #[arg(short, long)]
    pod: bool,
    /// Print the IDs of the containers only
    #[arg(short, long)]
    quiet: bool,
    /// Display the total file sizes
    #[arg(short, long)]
    size: bool,
    /// Sort output by command, created, id, image, names, runningfor, size or status
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// Force a sync of container state with the runtime (it always is)
    #[arg(long)]
    sync: bool,
    /// Watch the output on an interval in seconds
    #[arg(short, long, value_name = "SECONDS")]
    watch: Option<u64>,
}

/// The table without options.
const COLUMNS: &[Column] = &[
    Column::new("ID", "CONTAINER ID"),
    Column::new("Image", "IMAGE"),
    Column::new("Command", "COMMAND"),
    Column::new("CreatedHuman", "CREATED"),
    Column::new("Status", "STATUS"),
    Column::new("Ports", "PORTS"),
    Column::new("Names", "NAMES"),
];

/// `--pod` adds these.
const POD: &[Column] = &[Column::new("Pod", "POD ID"), Column::new("PodName", "PODNAME")];

/// `--size` adds this.
const SIZE: Column = Column::new("Size", "SIZE");

/// `--ns`.
const NAMESPACES: &[Column] = &[
    Column::new("ID", "CONTAINER ID"),
    Column::new("Names", "NAMES"),
    Column::new("Pid", "PID"),
    Column::new("Cgroup", "CGROUPNS"),
    Column::new("IPC", "IPC"),
    Column::new("MNT", "MNT"),
    Column::new("NET", "NET"),
    Column::new("PIDNS", "PIDNS"),
    Column::new("User", "USERNS"),
    Column::new("UTS", "UTS"),
];

/// Fields that templates may name beside those of the tables.
const MORE: &[Column] = &[Column::new("RunningFor", "RUNNING FOR"), Column::new("Restarts", "RESTARTS")];

/// Print the containers, once or again and again.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    check(&args)?;
    let Some(seconds) = args.watch.filter(|seconds| *seconds > 0) else {
        let containers = select(&args, engine)?;
        print(&args, engine, &containers)?;
        return Ok(ExitCode::SUCCESS);
    };
    loop {
        let containers = select(&args, engine)?;
        if present::write(b"\x1b[2J\x1b[H")? == present::Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
        print(&args, engine, &containers)?;
        std::thread::park_timeout(Duration::from_secs(seconds));
    }
}

fn check(args: &Args) -> Result<()> {
    ensure!(!(args.last.is_some_and(|last| last >= 0) && args.latest), "last and latest are mutually exclusive");
    ensure!(!(args.quiet && (args.size || args.namespace)), "quiet conflicts with size and namespace");
    ensure!(!(args.size && args.namespace), "size and namespace options conflict");
    ensure!(
        !(args.watch.is_some_and(|watch| watch > 0) && args.latest),
        "the watch and latest flags cannot be used together"
    );
    let keys = ["command", "created", "id", "image", "names", "runningfor", "size", "status"];
    match &args.sort {
        Some(key) if !keys.contains(&key.as_str()) => {
            bail!("invalid argument {key:?} for \"--sort\" flag: {key:?} is not a valid value.  Choose from: {keys:?}")
        }
        _ => Ok(()),
    }
}

/// The containers that are asked for, in order.
fn select(args: &Args, engine: &Engine) -> Result<Vec<Listed>> {
    let filters = Filters::parse(engine, &args.filter)?;
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    let every = args.all || last.is_some_and(|last| last > 0) || filters.choose_states();
    let (mut containers, errors) = list::list(engine, if every { Scope::All } else { Scope::Live })?;
    for error in errors {
        eprintln!("coracle: {error:#}");
    }
    containers.retain(|container| (every || container.word() == "running") && filters.hold(container));
    if let Some(last) = last.filter(|last| *last > 0) {
        containers.drain(..containers.len().saturating_sub(last));
    }
    sort(args.sort.as_deref(), engine, &mut containers);
    Ok(containers)
}

fn sort(key: Option<&str>, engine: &Engine, containers: &mut [Listed]) {
    match key {
        Some("command") => containers.sort_by_cached_key(Listed::command),
        Some("id") => containers.sort_by_cached_key(|container| container.record.id.clone()),
        Some("image") => containers.sort_by_cached_key(|container| container.image_name().to_owned()),
        Some("names") => containers.sort_by_cached_key(|container| container.record.name.clone()),
        Some("size") => containers.sort_by_cached_key(|container| size::of(engine, &container.record).root),
        Some("status") => containers.sort_by_cached_key(|container| container.word()),
        // `created` and `runningfor` are the order they have.
        _ => {}
    }
}

fn print(args: &Args, engine: &Engine, containers: &[Listed]) -> Result<()> {
    let format = args.format.as_deref();
    if args.quiet && format.is_none() {
        let mut text = String::with_capacity(containers.len() * 65);
        for container in containers {
            text.push_str(if args.no_trunc { container.record.id.as_str() } else { container.record.id.short() });
            text.push('\n');
        }
        return present::text(&text);
    }
    let columns: Vec<Column> = if args.namespace {
        NAMESPACES.to_vec()
    } else {
        let mut columns = COLUMNS.to_vec();
        columns.extend_from_slice(if args.pod { POD } else { &[] });
        columns.extend(args.size.then_some(SIZE));
        columns
    };
    let list = List { format, heading: !args.noheading, columns: &columns, more_headings: MORE };
    // podman lets templates write `.Namespaces.IPC` for `.IPC`.
    let plain = format.map(|format| format.replace(".Namespaces.", "."));
    let list = List { format: plain.as_deref(), ..list };
    let table_only = format.is_none_or(|format| format.trim() == "table");
    let row = |container: &Listed| {
        if table_only && !args.namespace { short_row(args, engine, container) } else { row(args, engine, container) }
    };
    list.print(containers, row, |container| document(args, engine, container))
}

/// The fields of the table without options: a list of a thousand containers need not make more.
fn short_row(args: &Args, engine: &Engine, container: &Listed) -> Value {
    let record = &container.record;
    let mut row = json!({
        "ID": id(args, record.id.as_str()),
        "Image": container.image_name(),
        "Command": command(args, container),
        "CreatedHuman": human::ago(moment_of(record.created_ns)),
        "Status": status(container),
        "Ports": ports::text(container),
        "Names": record.name,
        "Pod": "",
        "PodName": "",
    });
    if args.size {
        row["Size"] = json!(size_text(engine, container));
    }
    row
}

/// All that templates may name.
fn row(args: &Args, engine: &Engine, container: &Listed) -> Value {
    let record = &container.record;
    let created = human::ago(moment_of(record.created_ns));
    let labels = &record.spec.labels;
    let labels_text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let wants_size = args.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let more = json!({
        "AutoRemove": record.spec.lifecycle.remove,
        "CIDFile": record.spec.lifecycle.cidfile.as_deref().unwrap_or(""),
        "Created": moment::go(record.created_ns),
        "CreatedAt": moment::go(record.created_ns),
        "Exited": container.word() == "exited",
        "ExitedAt": seconds(container.finished_ns()),
        "ExitCode": container.exit_code(),
        "ExposedPorts": ports::exposed(container),
        "ImageID": id(args, container.image_id()),
        "IsInfra": false,
        "Label": labels,
        "Labels": labels_text.join(","),
        "Mounts": mounts(container),
        "Networks": container.networks().join(","),
        "Pid": container.pid(),
        "Restarts": container.restarts().to_string(),
        "RunningFor": created,
        "Size": if args.size || wants_size { size_text(engine, container) } else { String::new() },
        "StartedAt": seconds(container.started_ns()),
        "State": container.word(),
    });
    let row = present::merge(
        short_row(&Args { size: false, no_trunc: args.no_trunc, ..Args::default() }, engine, container),
        more,
    );
    let wants = |field: &str| args.format.as_deref().is_some_and(|format| format.contains(field));
    if args.namespace || NAMESPACES[3..].iter().any(|column| wants(column.field)) || wants("NS") {
        let namespaces = Namespaces::of(container.pid());
        return present::merge(row, namespaces.row());
    }
    row
}

/// podman's `ListContainer`, for `--format json`.
fn document(args: &Args, engine: &Engine, container: &Listed) -> Value {
    let record = &container.record;
    let namespaces = if args.namespace { Namespaces::of(container.pid()).document() } else { json!({}) };
    let size = args.size.then(|| {
        let size = size::of(engine, record);
        json!({ "rootFsSize": size.root, "rwSize": size.own })
    });
    json!({
        "AutoRemove": record.spec.lifecycle.remove,
        "Command": container.command(),
        "CreatedAt": human::ago(moment_of(record.created_ns)),
        "CIDFile": record.spec.lifecycle.cidfile.as_deref().unwrap_or(""),
        "Exited": container.word() == "exited",
        "ExitedAt": seconds(container.finished_ns()),
        "ExitCode": container.exit_code(),
        "ExposedPorts": ports::exposed(container),
        "Id": record.id,
        "Image": container.image_name(),
        "ImageID": container.image_id(),
        "IsInfra": false,
        "Labels": if record.spec.labels.is_empty() { Value::Null } else { json!(record.spec.labels) },
        "Mounts": mounts(container),
        "Names": [record.name],
        "Namespaces": namespaces,
        "Networks": container.networks(),
        "Pid": container.pid(),
        "Pod": "",
        "PodName": "",
        "Ports": ports::mappings(container),
        "Restarts": container.restarts(),
        "Size": size,
        "StartedAt": seconds(container.started_ns()),
        "State": container.word(),
        "Status": status(container),
        "Created": seconds(record.created_ns),
    })
}

fn id(args: &Args, id: &str) -> String {
    if args.no_trunc { id.to_owned() } else { id.get(..12).unwrap_or(id).to_owned() }
}

fn command(args: &Args, container: &Listed) -> String {
    let command = container.command().join(" ");
    match command.char_indices().nth(17) {
        Some((index, _)) if !args.no_trunc => format!("{}...", &command[..index]),
        _ => command,
    }
}

/// `Up 2 minutes (healthy)`, `Exited (0) 3 seconds ago`, `Created`.
fn status(container: &Listed) -> String {
    let word = container.word();
    let text = match &container.state {
        State::Live(status) if word == "running" => format!("Up {}", human::since(moment_of(status.started_ns))),
        State::Exited(exit) if !exit.never_ran() => {
            format!("Exited ({}) {}", exit.code, human::ago(moment_of(exit.finished_ns)))
        }
        _ => {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        }
    };
    match container.health() {
        "" => text,
        health => format!("{text} ({health})"),
    }
}

fn size_text(engine: &Engine, container: &Listed) -> String {
    let size = size::of(engine, &container.record);
    format!("{} (virtual {})", human::compact_size(size.own), human::compact_size(size.root))
}

/// Targets of what the user asked to be mounted.
fn mounts(container: &Listed) -> Vec<&str> {
    container.record.spec.mounts.iter().map(|mount| mount.target.as_str()).collect()
}

/// Go's Unix seconds of a time that may be its zero time.
fn seconds(time_ns: i64) -> i64 {
    if time_ns == 0 { -62_135_596_800 } else { time_ns / 1_000_000_000 }
}

fn moment_of(time_ns: i64) -> SystemTime {
    let time_ns = if time_ns == 0 { now_ns() } else { time_ns };
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0))
}

/// The namespaces of a process, by inode number; empty when it has ended.
#[derive(Debug, Default)]
struct Namespaces(Vec<(&'static str, &'static str, String)>);

impl Namespaces {
    fn of(pid: i32) -> Namespaces {
        let kinds = [
            ("cgroup", "Cgroup", "Cgroup"),
            ("ipc", "IPC", "Ipc"),
            ("mnt", "MNT", "Mnt"),
            ("net", "NET", "Net"),
            ("pid", "PIDNS", "Pidns"),
            ("user", "User", "User"),
            ("uts", "UTS", "Uts"),
        ];
        let number = |file: &str| -> Option<String> {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).ok()?;
            let link = link.to_string_lossy();
            Some(link.split_once('[')?.1.trim_end_matches(']').to_owned())
        };
        let read = |file| if pid > 0 { number(file).unwrap_or_default() } else { String::new() };
        Namespaces(kinds.into_iter().map(|(file, row, json)| (row, json, read(file))).collect())
    }

    fn row(&self) -> Value {
        let mut row: serde_json::Map<String, Value> =
            self.0.iter().map(|(row, _, number)| ((*row).to_owned(), json!(number))).collect();
        for (alias, field) in [("CGROUPNS", "Cgroup"), ("USERNS", "User")] {
            let value = row.get(field).cloned().unwrap_or_default();
            row.insert(alias.to_owned(), value);
        }
        Value::Object(row)
    }

    fn document(&self) -> Value {
        let there = self.0.iter().filter(|(_, _, number)| !number.is_empty());
        Value::Object(there.map(|(_, json, number)| ((*json).to_owned(), json!(number))).collect())
    }
}
