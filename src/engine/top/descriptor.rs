//! What can be shown of a process: podman's AIX format descriptors.

use super::{Process, Table};
use anyhow::{Result, bail};

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its word.
    pub name: &'static str,
    /// ps(1)'s letter for it (`%C`).
    code: Option<char>,
    /// Heading.
    pub header: &'static str,
    /// The cell.
    pub cell: fn(&Table, &Process) -> String,
}

const fn descriptor(
    name: &'static str,
    code: Option<char>,
    header: &'static str,
    cell: fn(&Table, &Process) -> String,
) -> Descriptor {
    Descriptor { name, code, header, cell }
}

/// All, in the order of their words.
const ALL: &[Descriptor] =
    &[
        descriptor("args", Some('a'), "COMMAND", |_, process| match process.arguments.as_slice() {
            [] => format!("[{}]", process.comm),
            arguments => arguments.join(" "),
        }),
        descriptor("capamb", None, "AMBIENT CAPS", |_, process| capabilities(process.status("CapAmb"))),
        descriptor("capbnd", None, "BOUNDING CAPS", |_, process| capabilities(process.status("CapBnd"))),
        descriptor("capeff", None, "EFFECTIVE CAPS", |_, process| capabilities(process.status("CapEff"))),
        descriptor("capinh", None, "INHERITED CAPS", |_, process| capabilities(process.status("CapInh"))),
        descriptor("capprm", None, "PERMITTED CAPS", |_, process| capabilities(process.status("CapPrm"))),
        descriptor("comm", Some('c'), "COMMAND", |_, process| process.comm.clone()),
        descriptor("etime", Some('t'), "ELAPSED", |table, process| go_duration(elapsed_s(table, process))),
        descriptor("group", Some('G'), "GROUP", |table, process| table.group(process.id("Gid", 1))),
        descriptor("groups", None, "GROUPS", |table, process| {
            let groups = process.status("Groups").split_whitespace().map(|id| table.group(id.parse().ok()));
            groups.collect::<Vec<_>>().join(",")
        }),
        descriptor("hgroup", None, "HGROUP", |_, process| host_name(process.id("Gid", 1), "/etc/group")),
        descriptor("hgroups", None, "HGROUPS", |_, process| {
            let groups = process.status("Groups").split_whitespace().map(|id| host_name(id.parse().ok(), "/etc/group"));
            groups.collect::<Vec<_>>().join(",")
        }),
        descriptor("hpid", None, "HPID", |_, process| process.host_pid.to_string()),
        descriptor("huid", None, "HUID", |_, process| number(process.id("Uid", 1))),
        descriptor("huser", None, "HUSER", |_, process| host_name(process.id("Uid", 1), "/etc/passwd")),
        descriptor("label", None, "LABEL", |_, process| {
            if process.label.is_empty() { "?".to_owned() } else { process.label.clone() }
        }),
        descriptor("nice", Some('n'), "NI", |_, process| process.stat(19).to_owned()),
        descriptor("pcpu", Some('C'), "%CPU", |table, process| {
            let elapsed = elapsed_s(table, process).max(0.01);
            format!("{:.3}", 100.0 * cpu_s(process) / elapsed)
        }),
        descriptor("pgid", Some('r'), "PGID", |table, process| inner(table, process.stat(5))),
        descriptor("pid", Some('p'), "PID", |_, process| process.inner_pid().to_string()),
        descriptor("ppid", Some('P'), "PPID", |table, process| inner(table, process.status("PPid"))),
        descriptor("rgroup", Some('g'), "RGROUP", |table, process| table.group(process.id("Gid", 0))),
        descriptor("rss", None, "RSS", |_, process| {
            process.status("VmRSS").split(' ').next().filter(|text| !text.is_empty()).unwrap_or("0").to_owned()
        }),
        descriptor("ruser", Some('u'), "RUSER", |table, process| table.user(process.id("Uid", 0))),
        descriptor("seccomp", None, "SECCOMP", |_, process| {
            match process.status("Seccomp") {
                "0" => "disabled",
                "1" => "strict",
                "2" => "filter",
                _ => "?",
            }
            .to_owned()
        }),
        descriptor("state", None, "STATE", |_, process| process.stat(3).to_owned()),
        descriptor("stime", None, "STIME", |table, process| {
            let now = crate::state::event::now_ns();
            crate::engine::moment::go(now - (elapsed_s(table, process) * 1e9) as i64)
        }),
        descriptor("time", Some('x'), "TIME", |_, process| go_duration(cpu_s(process))),
        descriptor("tty", Some('y'), "TTY", |_, process| tty(process.stat_number(7))),
        descriptor("uid", None, "UID", |table, process| {
            number(process.id("Uid", 1).and_then(|id| Table::inside(&table.uid_map, id)))
        }),
        descriptor("user", Some('U'), "USER", |table, process| table.user(process.id("Uid", 1))),
        descriptor("vsz", Some('z'), "VSZ", |_, process| (process.stat_number(23) / 1024).to_string()),
    ];

/// podman's columns when none are named.
const DEFAULT: [&str; 8] = ["user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"];

/// The words of all.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|descriptor| descriptor.name)
}

/// The columns of what was typed behind the container's name: descriptors, or options of ps(1) as far as they only
/// choose columns.
pub fn columns(words: &[String]) -> Result<Vec<Descriptor>> {
    let Some(first) = words.first() else { return find_all(DEFAULT) };
    if !first.starts_with('-') && first != "aux" {
        return find_all(words.iter().flat_map(|word| word.split([',', ' '])).filter(|word| !word.is_empty()));
    }
    let mut formats = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "aux" | "-aux" => {
                let columns = ["user", "pid", "pcpu", "vsz", "rss", "tty", "state", "stime", "time", "args"];
                formats.extend(columns.map(str::to_owned));
            }
            "-ef" => {
                let columns = ["user", "pid", "ppid", "pcpu", "stime", "tty", "time", "args"];
                formats.extend(columns.map(str::to_owned));
            }
            "-e" | "-A" | "-a" => {}
            word => match ["-eo", "-Ao", "-o"].iter().find_map(|option| word.strip_prefix(option)) {
                Some("") => match words.next() {
                    Some(list) => formats.push(list.clone()),
                    None => bail!("ps option {word}: a list of columns is missing"),
                },
                Some(list) => formats.push(list.to_owned()),
                None => bail!("ps option {word} is not supported yet: use descriptors or -eo COLUMN,…"),
            },
        }
    }
    if formats.is_empty() {
        return find_all(DEFAULT);
    }
    find_all(formats.iter().flat_map(|format| format.split([',', ' '])).filter(|word| !word.is_empty()).map(of_ps))
}

/// Other words of ps(1) for the same.
fn of_ps(word: &str) -> &str {
    match word {
        "cmd" | "command" => "args",
        "ucmd" | "ucomm" => "comm",
        "%cpu" | "cp" | "c" => "pcpu",
        "cputime" => "time",
        "tt" | "tname" => "tty",
        "s" | "stat" => "state",
        "ni" => "nice",
        "rssize" | "rsz" => "rss",
        "vsize" => "vsz",
        "euser" | "uname" => "user",
        "euid" => "uid",
        "egroup" => "group",
        "pgrp" => "pgid",
        "start" | "start_time" | "lstart" => "stime",
        other => other,
    }
}

fn find_all<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Vec<Descriptor>> {
    words.into_iter().map(find).collect()
}

fn find(word: &str) -> Result<Descriptor> {
    let code = word.strip_prefix('%').and_then(|code| code.chars().next());
    let known = |descriptor: &&Descriptor| descriptor.name == word || (code.is_some() && descriptor.code == code);
    match ALL.iter().find(known) {
        Some(descriptor) => Ok(*descriptor),
        None => bail!("'{word}': unknown descriptor"),
    }
}

fn number(id: Option<u32>) -> String {
    id.map_or("?".to_owned(), |id| id.to_string())
}

/// A process number of here as the container has it; 0 for one outside.
fn inner(table: &Table, host: &str) -> String {
    let host: i32 = host.parse().unwrap_or_default();
    let process = table.processes.iter().find(|process| process.host_pid == host);
    process.map_or(0, Process::inner_pid).to_string()
}

fn host_name(id: Option<u32>, file: &str) -> String {
    let Some(id) = id else { return "?".to_owned() };
    let names = super::parse_accounts(&std::fs::read_to_string(file).unwrap_or_default());
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

/// The kernel's ticks in /proc are a hundredth of a second, whatever its own are.
const TICKS: f64 = 100.0;

fn elapsed_s(table: &Table, process: &Process) -> f64 {
    (table.uptime_s - process.stat_number(22) as f64 / TICKS).max(0.0)
}

fn cpu_s(process: &Process) -> f64 {
    (process.stat_number(14) + process.stat_number(15)) as f64 / TICKS
}

/// As Go prints a duration: `1h2m3.5s`.
pub fn go_duration(seconds: f64) -> String {
    let nanoseconds = (seconds * 1e9).round() as u64;
    let (whole, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (hours, minutes, left) = (whole / 3600, whole / 60 % 60, whole % 60);
    if whole == 0 && fraction > 0 {
        let scaled = |value: f64| {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        return match fraction {
            0..1000 => format!("{fraction}ns"),
            1000..1_000_000 => format!("{}µs", scaled(fraction as f64 / 1e3)),
            _ => format!("{}ms", scaled(fraction as f64 / 1e6)),
        };
    }
    let fraction = format!("{fraction:09}");
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let hours_text = if hours > 0 { format!("{hours}h") } else { String::new() };
    let minutes_text = if hours > 0 || minutes > 0 { format!("{minutes}m") } else { String::new() };
    format!("{hours_text}{minutes_text}{left}{point}{fraction}s")
}

/// The terminal's name by device number.
fn tty(number: u64) -> String {
    let (major, minor) = (number >> 8 & 0xfff, (number & 0xff) | (number >> 12 & 0xfff00));
    match major {
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

/// `full`, `none` or the names without prefix.
fn capabilities(mask: &str) -> String {
    let mask = u64::from_str_radix(mask, 16).unwrap_or_default();
    let mut names = Vec::new();
    let mut all = 0;
    for capability in caps::all() {
        let bit = 1u64 << capability.index();
        all |= bit;
        if mask & bit != 0 {
            names.push(capability.to_string().trim_start_matches("CAP_").to_owned());
        }
    }
    names.sort();
    match mask {
        0 => "none".to_owned(),
        mask if mask & all == all => "full".to_owned(),
        _ => names.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn cells() {
        let table = sample();
        for (name, expected) in [
            ("user", "root"),
            ("uid", "0"),
            ("pid", "1"),
            ("ppid", "0"),
            ("hpid", "4711"),
            ("huid", "100000"),
            ("pcpu", "10.000"),
            ("etime", "20s"),
            ("time", "2s"),
            ("tty", "pts/0"),
            ("args", "sh -c x y"),
            ("comm", "a) (b"),
            ("groups", "root,audio"),
            ("capeff", "CHOWN,DAC_OVERRIDE"),
            ("capinh", "none"),
            ("seccomp", "filter"),
            ("label", "label"),
            ("rss", "1024"),
            ("vsz", "2048"),
            ("state", "S"),
            ("pgid", "1"),
        ] {
            let descriptor = find(name).unwrap();
            assert_eq!((descriptor.cell)(&table, &table.processes[0]), expected, "{name}");
        }
    }

    #[test]
    fn what_was_typed() {
        let headers = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            columns(&words).map(|columns| columns.iter().map(|column| column.header).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(headers(&[]).unwrap(), "USER PID PPID %CPU ELAPSED TTY TIME COMMAND");
        assert_eq!(headers(&["pid", "seccomp", "%C"]).unwrap(), "PID SECCOMP %CPU");
        assert_eq!(headers(&["-eo", "pid,comm"]).unwrap(), "PID COMMAND");
        assert_eq!(headers(&["-eo", "pid comm"]).unwrap(), "PID COMMAND");
        assert_eq!(headers(&["-eopid,cmd"]).unwrap(), "PID COMMAND");
        for words in [&["nope"][..], &["-x"], &["-o"]] {
            assert!(headers(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn durations() {
        for (seconds, text) in
            [(0.0, "0s"), (1.5, "1.5s"), (61.0, "1m1s"), (3600.0, "1h0m0s"), (0.05, "50ms"), (0.0000015, "1.5µs")]
        {
            assert_eq!(go_duration(seconds), text);
        }
    }
}
