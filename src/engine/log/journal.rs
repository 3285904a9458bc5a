//! Reading back from the journal, by way of `journalctl`: its files are systemd's own affair.

use super::{Flow, Record, Wish, timeout, watch_end};
use crate::engine::Engine;
use crate::failure::Explain;
use crate::state::container::ContainerRecord;
use crate::state::event::now_ns;
use crate::supervisor::log::Stream;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, poll};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};

/// How long the journal may lag behind a container's end.
const LAG_NS: i64 = 300_000_000;

/// Read a container's entries.
pub(super) fn read(
    engine: &Engine,
    record: &ContainerRecord,
    wish: Wish,
    sink: &mut dyn FnMut(Record) -> Result<Flow>,
) -> Result<()> {
    let end = if wish.follow { watch_end(engine, &record.id)? } else { None };
    let mut child = Killed(spawn(record, wish, end.is_some())?);
    let output = child.0.stdout.take().context("journalctl has no output")?;
    let mut reader = BufReader::new(output);
    let Some(end) = end else {
        while let Some(flow) = next(&mut reader, sink)? {
            if flow == Flow::Enough {
                break;
            }
        }
        return Ok(());
    };
    let mut ended = false;
    loop {
        if reader.buffer().is_empty() {
            let until = wish.until_ns.map(|until_ns| until_ns - now_ns());
            let left = if ended { Some(LAG_NS) } else { until };
            let mut files = vec![PollFd::new(reader.get_ref().as_fd(), PollFlags::POLLIN)];
            if !ended {
                files.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
            }
            let count = poll(&mut files, timeout(left)).context("wait for the journal")?;
            let readable = files[0].any() == Some(true);
            ended |= files.get(1).is_some_and(|file| file.any() == Some(true));
            if count == 0 {
                return Ok(());
            }
            if !readable {
                continue;
            }
        }
        if next(&mut reader, sink)? != Some(Flow::More) {
            return Ok(());
        }
    }
}

/// journalctl, ended with whoever reads it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(record: &ContainerRecord, wish: Wish, follow: bool) -> Result<Child> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--output=json", "--all"]).arg(format!("CONTAINER_ID_FULL={}", record.id));
    let seconds = |time_ns: i64| {
        format!("@{}.{:06}", time_ns.div_euclid(1_000_000_000), time_ns.rem_euclid(1_000_000_000) / 1000)
    };
    if let Some(since_ns) = wish.since_ns {
        command.arg(format!("--since={}", seconds(since_ns)));
    }
    if let Some(until_ns) = wish.until_ns.filter(|_| !follow) {
        command.arg(format!("--until={}", seconds(until_ns)));
    }
    if follow {
        command.arg("--follow");
    }
    match wish.tail {
        Some(lines) => command.arg(format!("--lines={lines}")),
        None => command.arg("--lines=all"),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
        .spawn()
        .context("run journalctl")
        .hint("reading the journald log driver needs `journalctl`: install systemd, or use another --log-driver")
}

/// The next entry; `None` at the end.
fn next(reader: &mut BufReader<ChildStdout>, sink: &mut dyn FnMut(Record) -> Result<Flow>) -> Result<Option<Flow>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).context("read the journal")? == 0 {
        return Ok(None);
    }
    match parse(&line) {
        Some(record) => sink(record).map(Some),
        None => Ok(Some(Flow::More)),
    }
}

fn parse(line: &[u8]) -> Option<Record> {
    let entry: serde_json::Value = serde_json::from_slice(line).ok()?;
    let text = match entry.get("MESSAGE")? {
        serde_json::Value::String(text) => text.clone().into_bytes(),
        // Not UTF-8: a list of bytes.
        serde_json::Value::Array(bytes) => bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        _ => return None,
    };
    let time_us: i64 = entry.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok()?;
    let is = |name: &str, value: &str| entry.get(name).and_then(serde_json::Value::as_str) == Some(value);
    Some(Record {
        time_ns: time_us.checked_mul(1000)?,
        stream: if is("PRIORITY", "3") { Stream::Errors } else { Stream::Output },
        text,
        whole: !is("CONTAINER_PARTIAL_MESSAGE", "true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let record = parse(br#"{"MESSAGE":"hi","PRIORITY":"3","__REALTIME_TIMESTAMP":"1796027223000001"}"#).unwrap();
        assert_eq!((record.time_ns, record.stream, record.whole), (1_796_027_223_000_001_000, Stream::Errors, true));
        let record = parse(br#"{"MESSAGE":[104,255],"__REALTIME_TIMESTAMP":"1","CONTAINER_PARTIAL_MESSAGE":"true"}"#);
        let record = record.unwrap();
        assert_eq!((record.text.as_slice(), record.whole), (&[104, 255][..], false));
    }
}
