//! On the host's own cgroups, where the caller may make some; else each test says that it was skipped.

use super::*;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh cgroup of this process with these resources, removed at the end.
struct Scratch(Cgroup);

impl Scratch {
    fn new(resources: &str) -> Option<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP: not root");
            return None;
        }
        let id = format!("unit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        let available = controllers(Manager::Cgroupfs, false);
        if !["memory", "pids"].iter().all(|name| available.contains(*name)) {
            eprintln!("SKIP: no memory or pids controller among {available:?}");
            return None;
        }
        let request = Request {
            id: &id,
            path: None,
            resources: Some(&resources),
            manager: Manager::Cgroupfs,
            rootless: false,
            everywhere: false,
        };
        match Cgroup::create(&request) {
            Ok(cgroup) if cgroup.exists() => Some(Scratch(cgroup)),
            Ok(_) => {
                eprintln!("SKIP: no right to make cgroups");
                None
            }
            Err(error) => panic!("{}", crate::failure::message_of(&error)),
        }
    }

    fn sleeper(&self) -> Sleeper {
        let child = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        let sleeper = Sleeper(child);
        self.0.add(sleeper.0.id() as i32).unwrap();
        sleeper
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.delete();
    }
}

/// Killed and reaped at the end.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn limits_are_set_and_updated() {
    let Some(mut scratch) = Scratch::new(r#"{"memory":{"limit":67108864},"pids":{"limit":9}}"#) else { return };
    let stats = scratch.0.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (Some(67_108_864), Some(9)));
    for limit in [33_554_432, 134_217_728] {
        let update = format!(r#"{{"memory":{{"limit":{limit}}},"pids":{{"limit":-1}}}}"#);
        scratch.0.update(&serde_json::from_str(&update).unwrap()).unwrap();
        let stats = scratch.0.stats().unwrap();
        assert_eq!((stats.memory.limit, stats.pids.limit), (Some(limit), None));
    }
}

#[test]
fn another_process_can_go_on_with_it() {
    let Some(scratch) = Scratch::new("{}") else { return };
    let sleeper = scratch.sleeper();
    let saved: Saved = serde_json::from_str(&serde_json::to_string(scratch.0.saved()).unwrap()).unwrap();
    let mut again = Cgroup::open(saved);
    assert_eq!(again.pids().unwrap(), [sleeper.0.id() as i32]);
    again.freeze().unwrap();
    assert!(again.frozen().unwrap());
    again.thaw().unwrap();
    assert!(!again.frozen().unwrap());
}

#[test]
fn a_busy_group_is_removed_once_its_killed_processes_are_gone() {
    let Some(mut scratch) = Scratch::new("{}") else { return };
    let mut sleeper = scratch.sleeper();
    scratch.0.freeze().unwrap();
    scratch.0.kill().unwrap();
    sleeper.0.wait().unwrap();
    scratch.0.delete().unwrap();
    scratch.0.delete().unwrap();
    assert!(scratch.0.directories().iter().all(|path| !path.exists()));
}

#[test]
fn a_limit_of_a_further_tree_takes_those_inside_along() {
    let Some(mut scratch) = Scratch::new("{}") else { return };
    if !controllers(Manager::Cgroupfs, false).contains("cpu") {
        return eprintln!("SKIP: no cpu controller");
    }
    let sleeper = scratch.sleeper();
    scratch.0.update(&serde_json::from_str(r#"{"cpu":{"quota":50000,"period":100000}}"#).unwrap()).unwrap();
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.0.id())).unwrap();
    let lines = text.lines().filter(|line| line.contains(":cpu") && !line.contains("cpuset") && !line.contains("acct"));
    assert!(lines.into_iter().all(|line| line.contains("/coracle/unit-")), "{text}");
}

#[test]
fn every_saved_directory_takes_a_zero_from_the_process_itself() {
    let Some(scratch) = Scratch::new("{}") else { return };
    let files = scratch.0.join_files().unwrap();
    assert_eq!(files.is_empty(), scratch.0.saved.v1.is_empty());
}
