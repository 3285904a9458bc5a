//! Health checks: run by the supervisor's own clock as `coracle exec` in a process of its own, judged here.
//!
//! Nothing is watched from outside: no timer units, no second process that lives longer than a check.

use super::log::Clock;
use crate::model::container::ContainerSpec;
use crate::model::health::{Healthcheck, OnFailure};
use crate::model::id::Id;
use crate::state::container::{ContainerRecord, HealthResult};
use crate::state::event::{self, now_ns};
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::sys::{pipe, process};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
const LOG_COUNT: usize = 5;
const LOG_SIZE: usize = 500;

/// The checks of one life of a container.
#[derive(Debug)]
pub struct Health {
    regular: Rule,
    /// Must succeed first.
    startup: Option<Startup>,
    start_period: Duration,
    on_failure: OnFailure,
    log_count: usize,
    log_size: usize,
    /// `coracle --root … exec ID`.
    words: Vec<PathBuf>,
    /// Between two checks of the start period.
    start_interval: Option<Duration>,
    keep: Keep,
    layout: Layout,
    id: Id,
    born: Instant,
    next: Option<Instant>,
    running: Option<Check>,
    /// The word for it.
    pub status: &'static str,
    /// Failures in a row.
    pub failing: u32,
    /// The last results.
    pub log: Vec<HealthResult>,
}

#[derive(Debug)]
struct Rule {
    command: Vec<String>,
    /// `None`: not by itself.
    interval: Option<Duration>,
    timeout: Duration,
    retries: u32,
}

#[derive(Debug)]
struct Startup {
    rule: Rule,
    wanted: u32,
    successes: u32,
    failures: u32,
}

#[derive(Debug)]
struct Check {
    pid: i32,
    pidfd: OwnedFd,
    output: Option<File>,
    text: Vec<u8>,
    begun_ns: i64,
    deadline: Instant,
    timed_out: bool,
}

/// Where results go, besides the status.
#[derive(Debug)]
enum Keep {
    Nowhere,
    /// Into the events.
    Events,
    /// Into this file.
    File(PathBuf),
}

/// What a finished check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It succeeded.
    pub good: bool,
    /// What is to be done to the container.
    pub action: OnFailure,
}

impl Health {
    /// The checks a container was made with; `None`: it has none.
    pub fn new(spec: &ContainerSpec, layout: &Layout, id: &Id) -> Option<Health> {
        let check = spec.health.as_ref()?;
        let policy = &spec.health_policy;
        let regular = Rule::new(check)?;
        let startup = policy.startup.as_ref().and_then(|startup| {
            // Without a bound it may fail for ever.
            let rule = Rule { retries: startup.check.retries, ..Rule::new(&startup.check)? };
            Some(Startup { rule, wanted: startup.successes.max(1), successes: 0, failures: 0 })
        });
        let bound = |wish: Option<u32>, default: usize| match wish {
            None => default,
            Some(0) => usize::MAX,
            Some(number) => number as usize,
        };
        let now = Instant::now();
        let words = [
            "--root".into(),
            layout.data().into(),
            "--runroot".into(),
            layout.run().into(),
            "exec".into(),
            id.as_str().into(),
        ];
        let mut health = Health {
            regular,
            startup,
            start_period: Duration::from_nanos(check.start_period),
            on_failure: policy.on_failure,
            log_count: bound(policy.max_log_count, LOG_COUNT),
            log_size: bound(policy.max_log_size, LOG_SIZE),
            words: words.into(),
            start_interval: (check.start_interval > 0).then(|| Duration::from_nanos(check.start_interval)),
            keep: match policy.log_destination.as_deref() {
                None => Keep::Nowhere,
                Some("events_logger") => Keep::Events,
                Some(directory) => Keep::File(Path::new(directory).join(format!("{id}-healthcheck.log"))),
            },
            layout: layout.clone(),
            id: id.clone(),
            born: now,
            next: None,
            running: None,
            status: "starting",
            failing: 0,
            log: Vec::new(),
        };
        // The first at once, as podman does it.
        health.next = health.rule().interval.map(|_| now);
        Some(health)
    }

    fn rule(&self) -> &Rule {
        self.startup.as_ref().map_or(&self.regular, |startup| &startup.rule)
    }

    /// When something is to be done.
    pub fn deadline(&self) -> Option<Instant> {
        self.running.as_ref().map(|check| check.deadline).or(self.next)
    }

    /// The running check's output.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().and_then(|check| check.output.as_ref()).map(AsFd::as_fd)
    }

    /// Whether a check runs now.
    pub fn is_checking(&self) -> bool {
        self.running.is_some()
    }

    /// Check at once, whatever the interval.
    pub fn check_soon(&mut self) {
        self.next = Some(Instant::now());
    }

    /// Start what is due, end what takes too long.
    pub fn keep_time(&mut self, now: Instant) -> Result<()> {
        if let Some(check) = self.running.as_mut().filter(|check| now >= check.deadline) {
            check.timed_out = true;
            // Its process inside dies with it.
            let _ = process::pidfd_send_signal(check.pidfd.as_fd(), libc::SIGKILL);
            check.deadline = now + Duration::from_secs(1);
        }
        if self.running.is_none() && self.next.is_some_and(|next| now >= next) {
            self.next = None;
            self.running = Some(self.start(now)?);
        }
        Ok(())
    }

    fn start(&self, now: Instant) -> Result<Check> {
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        pipe::set_nonblocking(&reader)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(&self.words).args(&self.rule().command);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().context("start a health check")?;
        let pid = child.id() as i32;
        Ok(Check {
            pid,
            pidfd: process::pidfd_open(pid).context("watch a health check")?,
            output: Some(File::from(OwnedFd::from(reader))),
            text: Vec::new(),
            begun_ns: now_ns(),
            deadline: now + self.rule().timeout,
            timed_out: false,
        })
    }

    /// Read what the check says; what is beyond the bound is dropped.
    pub fn read_output(&mut self) {
        let Some(check) = &mut self.running else { return };
        let Some(output) = &mut check.output else { return };
        let mut bytes = [0; 4096];
        loop {
            match output.read(&mut bytes) {
                Ok(0) => {
                    check.output = None;
                    return;
                }
                Ok(length) => {
                    let room = self.log_size.saturating_sub(check.text.len()).min(length);
                    check.text.extend_from_slice(&bytes[..room]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    check.output = None;
                    return;
                }
            }
        }
    }

    /// A child of ours has ended: if it was the check, judge. Not when the container is `over`: then it says nothing.
    pub fn ended(&mut self, pid: i32, code: i32, over: bool) -> Option<Verdict> {
        if self.running.as_ref().is_none_or(|check| check.pid != pid) {
            return None;
        }
        if over {
            self.cut_short();
            return None;
        }
        self.read_output();
        let check = self.running.take()?;
        let code = if check.timed_out { -1 } else { code };
        let mut output = String::from_utf8_lossy(&check.text).into_owned();
        if check.timed_out {
            output = format!("Health check exceeded timeout ({}s)", self.rule().timeout.as_secs());
        }
        let drop = (self.log.len() + 1).saturating_sub(self.log_count);
        self.log.drain(..drop.min(self.log.len()));
        self.log.push(HealthResult { start_ns: check.begun_ns, end_ns: now_ns(), exit_code: code, output });
        let age = self.born.elapsed();
        let action = self.judge(code == 0, age);
        let pause = match self.start_interval {
            Some(pause) if self.status == "starting" && age < self.start_period => Some(pause),
            _ => self.rule().interval,
        };
        self.next = pause.map(|pause| Instant::now() + pause);
        self.tell();
        Some(Verdict { good: code == 0, action })
    }

    /// The container has ended: a check that still runs has no result.
    pub fn cut_short(&mut self) {
        if self.running.take().is_some() {
            self.status = "stopped";
            self.failing = 0;
            self.next = None;
        }
    }

    /// The last result to whoever wants to know. What cannot be written is lost; the status has it.
    fn tell(&self) {
        let (Some(last), Ok(record)) = (self.log.last(), ContainerRecord::load(&self.layout, &self.id)) else { return };
        let mut event = record.event("health_status");
        self.status.clone_into(&mut event.health);
        event.health_failing = Some(self.failing);
        match &self.keep {
            Keep::Nowhere => {}
            Keep::Events => event.health_log.clone_from(&last.output),
            Keep::File(path) => {
                let mut clock = Clock::default();
                let mut time = |time_ns| clock.text(time_ns, "Z");
                let results = self.log.iter().map(|result| {
                    json!({
                        "Start": time(result.start_ns), "End": time(result.end_ns),
                        "ExitCode": result.exit_code, "Output": result.output,
                    })
                });
                let results: Vec<_> = results.collect();
                let document = json!({ "Status": self.status, "FailingStreak": self.failing, "Log": results });
                let _ = file::replace(path, format!("{document}\n").as_bytes(), Durability::Volatile);
            }
        }
        event::record(&self.layout, event);
    }

    fn judge(&mut self, good: bool, age: Duration) -> OnFailure {
        if let Some(startup) = &mut self.startup {
            if good {
                startup.successes += 1;
                startup.failures = 0;
                if startup.successes >= startup.wanted {
                    self.startup = None;
                    self.born = Instant::now();
                }
                return OnFailure::None;
            }
            startup.successes = 0;
            startup.failures += 1;
            let enough = startup.rule.retries > 0 && startup.failures >= startup.rule.retries;
            return if enough { OnFailure::Restart } else { OnFailure::None };
        }
        if good {
            self.failing = 0;
            self.status = "healthy";
            return OnFailure::None;
        }
        if self.status == "starting" && age < self.start_period {
            return OnFailure::None;
        }
        self.failing += 1;
        if self.failing < self.regular.retries {
            return OnFailure::None;
        }
        let news = self.status != "unhealthy";
        self.status = "unhealthy";
        if news { self.on_failure } else { OnFailure::None }
    }
}

impl Rule {
    fn new(check: &Healthcheck) -> Option<Rule> {
        let command = match check.test.split_first() {
            Some((kind, rest)) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")],
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            _ => return None,
        };
        let or = |nanoseconds: u64, default: Duration| match nanoseconds {
            0 => default,
            nanoseconds => Duration::from_nanos(nanoseconds),
        };
        Some(Rule {
            command,
            interval: (check.interval != i64::MAX as u64).then(|| or(check.interval, INTERVAL)),
            timeout: or(check.timeout, TIMEOUT),
            retries: if check.retries == 0 { RETRIES } else { check.retries },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::StartupCheck;

    fn health(change: impl FnOnce(&mut ContainerSpec)) -> Health {
        let mut spec = ContainerSpec::default();
        let test = vec!["CMD-SHELL".to_owned(), "true".to_owned()];
        spec.health = Some(Healthcheck { test, retries: 2, ..Healthcheck::default() });
        spec.health_policy.on_failure = OnFailure::Kill;
        change(&mut spec);
        Health::new(&spec, &Layout::new("/d".into(), "/r".into()), &Id::from_random([1; 32])).unwrap()
    }

    #[test]
    fn judged() {
        let age = Duration::from_secs(1);
        let mut health = health(|_| {});
        assert_eq!((health.judge(false, age), health.status), (OnFailure::None, "starting"));
        assert_eq!((health.judge(false, age), health.status), (OnFailure::Kill, "unhealthy"));
        // Said once.
        assert_eq!(health.judge(false, age), OnFailure::None);
        assert_eq!((health.judge(true, age), health.status, health.failing), (OnFailure::None, "healthy", 0));
    }

    #[test]
    fn failures_of_the_start_do_not_count() {
        let mut health = health(|spec| spec.health.as_mut().unwrap().start_period = 10_000_000_000);
        for _ in 0..5 {
            assert_eq!(health.judge(false, Duration::from_secs(9)), OnFailure::None);
        }
        assert_eq!((health.status, health.failing), ("starting", 0));
        health.judge(false, Duration::from_secs(11));
        assert_eq!(health.failing, 1);
    }

    #[test]
    fn a_startup_check_comes_first() {
        let mut health = health(|spec| {
            let test = vec!["CMD".to_owned(), "ready".to_owned()];
            let check = Healthcheck { test, retries: 2, ..Healthcheck::default() };
            spec.health_policy.startup = Some(StartupCheck { check, successes: 2 });
        });
        let age = Duration::ZERO;
        assert_eq!(health.rule().command, ["ready"]);
        assert_eq!(health.judge(false, age), OnFailure::None);
        assert_eq!(health.judge(true, age), OnFailure::None);
        assert_eq!(health.judge(true, age), OnFailure::None);
        assert_eq!(health.rule().command, ["/bin/sh", "-c", "true"]);
        assert_eq!(health.status, "starting");
    }

    #[test]
    fn none_is_none() {
        let mut spec = ContainerSpec::default();
        spec.health = Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        assert!(Health::new(&spec, &Layout::new("/d".into(), "/r".into()), &Id::from_random([1; 32])).is_none());
    }
}
