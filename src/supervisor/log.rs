//! The log drivers: what a container says, as lines with their time, in bounded files or in the journal.
//!
//! What is written is complete and in order: a file is rotated by renaming between two records, and a reader that holds
//! it open reads it to its end. Only a full disk loses lines, never the container's progress.

mod journal;

use crate::model::container::{Log as Wish, LogDriver};
use crate::state::event::{civil, now_ns};
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bound of one file, if the user sets none.
pub const SIZE_MAX_DEFAULT: u64 = 10 << 20;
/// How many files are kept, if the user does not say.
pub const FILES_MAX_DEFAULT: u32 = 3;
/// A line that is longer is kept in parts (docker's figure).
const PART_MAX: usize = 16 * 1024;
/// Records are written together up to this size: what one read of the relay becomes.
const BATCH: usize = 512 * 1024;

/// One of the two streams; a terminal is all `Output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

impl Stream {
    /// Its name in log files.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Output => "stdout",
            Stream::Errors => "stderr",
        }
    }
}

/// Whose log it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its image.
    pub image: &'a str,
    /// Its directory in DATA.
    pub directory: &'a Path,
}

/// An open log.
#[derive(Debug)]
pub enum Log {
    /// Nothing is kept.
    None,
    /// In files.
    File(FileLog),
    /// In the journal of systemd.
    Journal(journal::Journal),
}

impl Log {
    /// Open the log a container was made with.
    pub fn open(wish: &Wish, owner: Owner<'_>) -> Result<Log> {
        match wish.driver {
            LogDriver::None | LogDriver::Passthrough | LogDriver::PassthroughTty => Ok(Log::None),
            LogDriver::Journald => Ok(Log::Journal(journal::Journal::open(wish, owner)?)),
            LogDriver::K8sFile | LogDriver::JsonFile => Ok(Log::File(FileLog::open(wish, owner)?)),
        }
    }

    /// Keep what has come from a stream.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match self {
            Log::None => {}
            Log::File(file) => file.write(stream, bytes),
            Log::Journal(journal) => journal.write(stream, bytes),
        }
    }

    /// The streams are at their end: lines without an end are kept as they are.
    pub fn finish(&mut self) {
        match self {
            Log::None => {}
            Log::File(file) => file.finish(),
            Log::Journal(journal) => journal.finish(),
        }
    }

    /// Give memory back after a burst.
    pub fn rest(&mut self) {
        if let Log::File(file) = self {
            file.batch = Vec::new();
        }
    }
}

/// Where a container's log file is; `None` for drivers that keep none.
pub fn path(wish: &Wish, directory: &Path) -> Option<PathBuf> {
    match wish.driver {
        LogDriver::K8sFile | LogDriver::JsonFile => {
            Some(wish.path.as_ref().map_or_else(|| directory.join("ctr.log"), PathBuf::from))
        }
        _ => None,
    }
}

/// The `number`th older file of a log: `ctr.log.1` is the one before `ctr.log`.
pub fn older(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `TIME STREAM F|P TEXT`, as the kubelet reads it.
    Kubernetes,
    /// Docker's `{"log":…,"stream":…,"time":…}`.
    Json,
}

/// A log in files.
#[derive(Debug)]
pub struct FileLog {
    format: Format,
    path: PathBuf,
    /// Made with the first record: most short-lived containers say nothing.
    file: Option<File>,
    size: u64,
    size_max: u64,
    files_max: u32,
    clock: Clock,
    /// Records that are not written yet; empty between two calls of `write`.
    batch: Vec<u8>,
    /// Json only: lines whose end has not come yet.
    parts: [Vec<u8>; 2],
}

impl FileLog {
    fn open(wish: &Wish, owner: Owner<'_>) -> Result<FileLog> {
        let path = path(wish, owner.directory).context("no log file")?;
        // A place of the user's own choice may be wrong, which must be said now.
        let file = wish.path.is_some().then(|| open_append(&path)).transpose();
        let file = file.with_context(|| format!("open the log {}", path.display()))?;
        Ok(FileLog {
            format: if wish.driver == LogDriver::JsonFile { Format::Json } else { Format::Kubernetes },
            size: std::fs::metadata(&path).map_or(0, |metadata| metadata.len()),
            path,
            file,
            size_max: match wish.max_size {
                None => SIZE_MAX_DEFAULT,
                Some(0) => u64::MAX,
                Some(size) => size,
            },
            files_max: wish.max_files.unwrap_or(FILES_MAX_DEFAULT).max(1),
            clock: Clock::default(),
            batch: Vec::new(),
            parts: [Vec::new(), Vec::new()],
        })
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let time_ns = now_ns();
        match self.format {
            Format::Kubernetes => self.write_kubernetes(stream, bytes, time_ns),
            Format::Json => self.write_json(stream, bytes, time_ns),
        }
        self.flush();
    }

    fn finish(&mut self) {
        let time_ns = now_ns();
        for stream in [Stream::Output, Stream::Errors] {
            let part = std::mem::take(&mut self.parts[stream as usize]);
            if !part.is_empty() {
                let tail = self.json_tail(stream, time_ns);
                self.json_record(&part, &tail);
            }
        }
        self.flush();
    }

    fn write_kubernetes(&mut self, stream: Stream, mut bytes: &[u8], time_ns: i64) {
        let head = format!("{} {} F ", self.clock.text(time_ns, "+00:00"), stream.name()).into_bytes();
        while !bytes.is_empty() {
            let start = self.batch.len();
            self.batch.extend_from_slice(&head);
            // Searches with memchr and copies in one go; reading from memory does not fail.
            let _ = bytes.read_until(b'\n', &mut self.batch);
            if self.batch.last() != Some(&b'\n') {
                self.batch[start + head.len() - 2] = b'P';
                self.batch.push(b'\n');
            }
            self.end_record(start);
        }
    }

    fn write_json(&mut self, stream: Stream, mut bytes: &[u8], time_ns: i64) {
        let tail = self.json_tail(stream, time_ns);
        while !bytes.is_empty() {
            let mut part = std::mem::take(&mut self.parts[stream as usize]);
            let room = PART_MAX.saturating_sub(part.len()).min(bytes.len());
            let mut head = &bytes[..room];
            let taken = head.read_until(b'\n', &mut part).unwrap_or(room);
            bytes = &bytes[taken..];
            if part.last() == Some(&b'\n') || part.len() >= PART_MAX {
                self.json_record(&part, &tail);
                part.clear();
            }
            self.parts[stream as usize] = part;
        }
    }

    /// What follows the text in a record of docker's.
    fn json_tail(&mut self, stream: Stream, time_ns: i64) -> String {
        format!(",\"stream\":\"{}\",\"time\":\"{}\"}}\n", stream.name(), self.clock.text(time_ns, "Z"))
    }

    fn json_record(&mut self, text: &[u8], tail: &str) {
        let start = self.batch.len();
        self.batch.extend_from_slice(b"{\"log\":");
        let _ = serde_json::to_writer(&mut self.batch, &String::from_utf8_lossy(text));
        self.batch.extend_from_slice(tail.as_bytes());
        self.end_record(start);
    }

    /// The batch has grown by a record: write it if it is full, and rotate before a record that would go over the bound.
    fn end_record(&mut self, start: usize) {
        let before = self.size + start as u64;
        if self.size + self.batch.len() as u64 > self.size_max && before > 0 {
            let record = self.batch.split_off(start);
            self.flush();
            self.rotate();
            self.batch.extend_from_slice(&record);
        }
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // On a full disk the lines are lost: the container must not stand still for its log.
        if self.file.is_none() {
            self.file = open_append(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            if file.write_all(&self.batch).is_ok() {
                self.size += self.batch.len() as u64;
            } else {
                self.size = file.metadata().map_or(self.size, |metadata| metadata.len());
            }
        }
        self.batch.clear();
    }

    /// `ctr.log.1` becomes `ctr.log.2`, `ctr.log` becomes `ctr.log.1`; what is too old is written over.
    fn rotate(&mut self) {
        // The oldest goes first: a rename onto a file makes ext4 (auto_da_alloc) put the other on disk before it returns,
        // while files that come and go within seconds need not get there at all.
        let oldest = if self.files_max == 1 { self.path.clone() } else { older(&self.path, self.files_max - 1) };
        let _ = std::fs::remove_file(oldest);
        for number in (1..self.files_max).rev() {
            let younger = if number == 1 { self.path.clone() } else { older(&self.path, number - 1) };
            let _ = std::fs::rename(younger, older(&self.path, number));
        }
        // If no new file can be made, the old one goes on.
        if let Ok(file) = open_append(&self.path) {
            self.size = file.metadata().map_or(0, |metadata| metadata.len());
            self.file = Some(file);
        }
    }
}

fn open_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Writes times as RFC 3339 in UTC; the part down to the second is kept from call to call.
#[derive(Debug, Default)]
pub struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    /// This time with nanoseconds and this zone, which must be UTC's.
    pub fn text(&mut self, time_ns: i64, zone: &str) -> String {
        let second = time_ns.div_euclid(1_000_000_000);
        if second != self.second || self.text.is_empty() {
            let (year, month, day) = civil(second.div_euclid(86_400));
            let clock = second.rem_euclid(86_400);
            let (hour, minute, rest) = (clock / 3600, clock / 60 % 60, clock % 60);
            self.text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}");
            self.second = second;
        }
        format!("{}.{:09}{zone}", self.text, time_ns.rem_euclid(1_000_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene(PathBuf);

    impl Scene {
        fn new(name: &str) -> Scene {
            let directory = std::env::temp_dir().join(format!("coracle-log-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            Scene(directory)
        }

        fn open(&self, wish: Wish) -> Log {
            let owner = Owner { id: "i", name: "n", image: "m", directory: &self.0 };
            Log::open(&wish, owner).unwrap()
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// Without the time.
    fn tails(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.split_once(' ').unwrap().1).collect()
    }

    #[test]
    fn times() {
        let mut clock = Clock::default();
        assert_eq!(clock.text(0, "Z"), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(clock.text(1_796_027_223_000_000_042, "+00:00"), "2026-11-30T08:27:03.000000042+00:00");
    }

    #[test]
    fn kubernetes_lines() {
        let scene = Scene::new("k8s");
        let mut log = scene.open(Wish::default());
        log.write(Stream::Output, b"one\ntwo\nthr");
        log.write(Stream::Errors, b"\n");
        log.write(Stream::Output, b"ee\nend");
        log.finish();
        let text = scene.read("ctr.log");
        assert_eq!(
            tails(&text),
            ["stdout F one", "stdout F two", "stdout P thr", "stderr F ", "stdout F ee", "stdout P end"]
        );
    }

    #[test]
    fn json_lines() {
        let scene = Scene::new("json");
        let mut log = scene.open(Wish { driver: LogDriver::JsonFile, ..Wish::default() });
        log.write(Stream::Output, b"a\"b\nc");
        log.write(Stream::Output, b"d\n");
        log.write(Stream::Errors, &[b'x'; PART_MAX + 1]);
        log.finish();
        let text = scene.read("ctr.log");
        let entries: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries[0]["log"], "a\"b\n");
        assert_eq!(entries[1]["log"], "cd\n");
        assert_eq!(entries[2]["log"].as_str().unwrap().len(), PART_MAX);
        assert_eq!(entries[3]["log"], "x");
        assert_eq!(entries[3]["stream"], "stderr");
    }

    #[test]
    fn rotation_keeps_the_bound_and_every_line() {
        let scene = Scene::new("rotate");
        let mut log = scene.open(Wish { max_size: Some(500), max_files: Some(3), ..Wish::default() });
        let lines: String = (0..25).map(|number| format!("line {number}\n")).collect();
        log.write(Stream::Output, lines.as_bytes());
        let texts = ["ctr.log.2", "ctr.log.1", "ctr.log"].map(|name| scene.read(name));
        assert!(texts.iter().all(|text| text.len() <= 500), "{texts:?}");
        let kept: Vec<String> = texts.iter().flat_map(|text| tails(text)).map(str::to_owned).collect();
        assert!(kept.len() >= 18, "{kept:?}");
        let expected: Vec<String> = (25 - kept.len()..25).map(|number| format!("stdout F line {number}")).collect();
        assert_eq!(kept, expected);
        assert!(!scene.0.join("ctr.log.3").exists());
    }
}
