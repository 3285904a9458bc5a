//! Events: those of the past out of the files, those to come by inotify.

use crate::engine::Engine;
use crate::engine::list::has_label;
use crate::state::event::{Event, now_ns};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Not before, nanoseconds since 1970; absent: from now on when streaming, else all.
    pub since_ns: Option<i64>,
    /// Not after.
    pub until_ns: Option<i64>,
    /// Go on with what happens from now on.
    pub stream: bool,
    /// Keys with alternatives; all keys must hold.
    pub filters: BTreeMap<String, Vec<String>>,
}

/// Words `KEY=VALUE` of `--filter`.
pub fn parse_filters(words: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else { bail!("{word} is an invalid filter") };
        let known = [
            "container",
            "event",
            "status",
            "image",
            "artifact",
            "pod",
            "volume",
            "network",
            "type",
            "label",
            "secret",
        ];
        let lower = key.to_ascii_lowercase();
        if !known.contains(&lower.as_str()) {
            bail!("{key} is an invalid filter");
        }
        let lower = if lower == "status" { "event".to_owned() } else { lower };
        filters.entry(lower).or_default().push(value.to_owned());
    }
    Ok(filters)
}

impl Query {
    /// Whether an event is asked for.
    pub fn holds(&self, event: &Event) -> bool {
        let early = self.since_ns.is_some_and(|since| event.time_ns < since);
        let late = self.until_ns.is_some_and(|until| event.time_ns > until);
        !early && !late && self.filters.iter().all(|(key, values)| values.iter().any(|value| is(event, key, value)))
    }
}

fn is(event: &Event, key: &str, value: &str) -> bool {
    let named =
        |kind: &str| event.kind == kind && (event.name == value || (!value.is_empty() && event.id.starts_with(value)));
    match key {
        "event" => event.status == if value == "die" { "died" } else { value },
        "type" => event.kind == value,
        "label" => has_label(&event.attributes, value),
        "volume" => event.kind == "volume" && event.name.starts_with(value),
        // Docker's meaning too: the events of containers of this image.
        "image" => named("image") || event.kind == "container" && event.image == value,
        "network" => event.kind == "network" && (event.network == value || event.name == value),
        kind => named(kind),
    }
}

/// Hand each event to `tell`, oldest first, until it breaks off or there is no more to come.
pub fn follow(engine: &Engine, query: &Query, tell: &mut dyn FnMut(Event) -> Result<ControlFlow<()>>) -> Result<()> {
    let directory = engine.layout.events();
    // Watched before the past is read: what happens in between is in the files or wakes us.
    let watch = if query.stream { Some(watch(&directory)?) } else { None };
    let from_start = query.since_ns.is_some() || query.until_ns.is_some() || !query.stream;
    let mut places = BTreeMap::new();
    if !from_start {
        for file in day_files(&directory)? {
            let length = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
            places.insert(file, length);
        }
    }
    loop {
        for file in day_files(&directory)? {
            if is_before(&file, query.since_ns) && !places.contains_key(&file) {
                continue;
            }
            let place = places.entry(file.clone()).or_insert(0);
            for event in read_from(&file, place)?.into_iter().filter(|event| query.holds(event)) {
                if tell(event)?.is_break() {
                    return Ok(());
                }
            }
        }
        let Some(watch) = &watch else { return Ok(()) };
        if !wait(watch, query.until_ns)? {
            return Ok(());
        }
    }
}

fn watch(directory: &Path) -> Result<Inotify> {
    let what = || format!("watch {}", directory.display());
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).with_context(what)?;
    let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(directory, changes).with_context(what)?;
    Ok(inotify)
}

/// Wait for a change; false: the time is up.
fn wait(watch: &Inotify, until_ns: Option<i64>) -> Result<bool> {
    let timeout = match until_ns {
        None => PollTimeout::NONE,
        Some(until) => {
            let left_ms = (until - now_ns()) / 1_000_000 + 1;
            if left_ms <= 0 {
                return Ok(false);
            }
            PollTimeout::try_from(left_ms.min(60_000)).unwrap_or(PollTimeout::MAX)
        }
    };
    let mut files = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    match poll(&mut files, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error).context("wait for events"),
    }
    while watch.read_events().is_ok_and(|events| !events.is_empty()) {}
    Ok(true)
}

/// One file a day; their names are in order of time.
fn day_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    Ok(files)
}

/// Whether all of a day lies before a moment.
fn is_before(file: &Path, since_ns: Option<i64>) -> bool {
    let Some(since_ns) = since_ns else { return false };
    let layout = crate::state::layout::Layout::new(PathBuf::new(), PathBuf::new());
    file.file_name() < crate::state::event::day_file(&layout, since_ns).file_name()
}

/// The whole lines behind a place; the place moves behind them.
fn read_from(file: &Path, place: &mut u64) -> Result<Vec<Event>> {
    let what = || format!("read {}", file.display());
    let mut opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(what),
    };
    opened.seek(SeekFrom::Start(*place)).with_context(what)?;
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes).with_context(what)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    *place += whole as u64;
    Ok(bytes[..whole].split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            time_ns: 100,
            kind: "container".to_owned(),
            status: "died".to_owned(),
            id: "abc".to_owned(),
            name: "web".to_owned(),
            image: "image".to_owned(),
            attributes: [("team".to_owned(), "one".to_owned())].into(),
            ..Event::default()
        }
    }

    #[test]
    fn filters() {
        for (words, expected) in [
            (&["container=web"][..], true),
            (&["container=ab"], true),
            (&["container=x", "container=web"], true),
            (&["container=web", "event=start"], false),
            (&["event=die"], true),
            (&["status=died"], true),
            (&["type=container"], true),
            (&["type=image"], false),
            (&["label=team"], true),
            (&["label=team=two"], false),
            (&["image=image"], true),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let query = Query { filters: parse_filters(&words).unwrap(), ..Query::default() };
            assert_eq!(query.holds(&event()), expected, "{words:?}");
        }
        assert!(parse_filters(&["x=y".to_owned()]).is_err());
        assert!(parse_filters(&["container".to_owned()]).is_err());
    }

    #[test]
    fn time_bounds() {
        let query = |since_ns, until_ns| Query { since_ns, until_ns, ..Query::default() };
        assert!(query(Some(100), Some(100)).holds(&event()));
        assert!(!query(Some(101), None).holds(&event()));
        assert!(!query(None, Some(99)).holds(&event()));
    }

    #[test]
    fn torn_lines_wait_for_their_end() {
        let file = std::env::temp_dir().join(format!("coracle-event-{}", std::process::id()));
        std::fs::write(&file, "{\"Name\":\"a\"}\n{\"Name\":").unwrap();
        let mut place = 0;
        let first = read_from(&file, &mut place).unwrap();
        std::fs::write(&file, "{\"Name\":\"a\"}\n{\"Name\":\"b\"}\n").unwrap();
        let second = read_from(&file, &mut place).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!((first.len(), second.len(), second[0].name.as_str()), (1, 1, "b"));
    }
}
