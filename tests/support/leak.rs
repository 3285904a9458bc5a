//! What a test left on the machine: processes, mounts, cgroups and records of what runs.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// By what an environment's things are known.
pub(crate) struct Traces<'a> {
    pub(crate) base: &'a Path,
    pub(crate) data: &'a Path,
    pub(crate) runroot: &'a Path,
}

/// The ids of all objects that were ever made here: their directories, and the events that tell of them.
pub(crate) fn ids(data: &Path, runroot: &Path) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for directory in [data.join("containers"), data.join("pods"), runroot.join("containers"), runroot.join("pods")] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            ids.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    for entry in fs::read_dir(data.join("events")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for word in text.split(|character: char| !character.is_ascii_alphanumeric()) {
            if word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                ids.insert(word.to_owned());
            }
        }
    }
    ids
}

/// Everything of this environment that is still there.
pub(crate) fn find(traces: &Traces<'_>) -> Vec<String> {
    find_with(traces, &ids(traces.data, traces.runroot))
}

fn find_with(traces: &Traces<'_>, ids: &BTreeSet<String>) -> Vec<String> {
    let mut leaks: Vec<String> =
        processes(traces.base).iter().map(|(pid, words)| format!("process {pid}: {words}")).collect();
    leaks.extend(mounts(traces.base));
    leaks.extend(cgroups(ids));
    for kind in ["containers", "pods"] {
        for entry in fs::read_dir(traces.runroot.join(kind)).into_iter().flatten().flatten() {
            leaks.push(format!("record {}", entry.path().display()));
        }
    }
    leaks
}

/// The same after everything had time to go: what is killed needs a moment to be gone.
pub(crate) fn settle(traces: &Traces<'_>, ids: &BTreeSet<String>) -> Vec<String> {
    let start = Instant::now();
    loop {
        let leaks = find_with(traces, ids);
        if leaks.is_empty() || start.elapsed() > Duration::from_secs(10) {
            return leaks;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kill and unmount what is left, so that the next test is not disturbed.
pub(crate) fn clean(base: &Path) {
    for (pid, _) in processes(base) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let mut points = mount_points(base);
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        let _ = nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Processes that carry the environment's mark, name its directory, or have it mounted in a namespace of their own.
fn processes(base: &Path) -> Vec<(i32, String)> {
    let base = base.to_string_lossy();
    let mark = format!("CORACLE_TEST_ENV={base}");
    let me = std::process::id() as i32;
    let our_mounts = fs::read_link("/proc/self/ns/mnt").ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if pid == me {
            continue;
        }
        let path = entry.path();
        let words = |file: &str| {
            let bytes = fs::read(path.join(file)).unwrap_or_default();
            bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
        };
        let inside =
            |word: &String| word.split_once(&*base).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('/'));
        let marked = words("environ").contains(&mark);
        let named = words("cmdline").iter().any(inside);
        let elsewhere = fs::read_link(path.join("ns/mnt")).ok() != our_mounts;
        let mounted =
            || fs::read_to_string(path.join("mountinfo")).is_ok_and(|text| text.contains(&format!("{base}/")));
        let zombie = fs::read_to_string(path.join("stat")).is_ok_and(|text| text.contains(") Z "));
        if !zombie && (marked || named || (elsewhere && mounted())) {
            found.push((pid, words("cmdline").join(" ")));
        }
    }
    found
}

fn mount_points(base: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let base = format!("{}/", base.display());
    text.lines()
        .filter(|line| line.contains(&base))
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect()
}

fn mounts(base: &Path) -> Vec<String> {
    mount_points(base).into_iter().map(|point| format!("mount on {point}")).collect()
}

/// Cgroups whose name holds one of the ids.
fn cgroups(ids: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    if !ids.is_empty() {
        walk(Path::new("/sys/fs/cgroup"), 0, &mut |path, name| {
            if ids.iter().any(|id| name.contains(id.as_str())) {
                found.push(format!("cgroup {}", path.display()));
            }
        });
    }
    found
}

fn walk(directory: &Path, depth: usize, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if depth < 8 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            visit(&path, &entry.file_name().to_string_lossy());
            walk(&path, depth + 1, visit);
        }
    }
}
