//! The last part of a plan, the same for a container's first process and for one that joins it: what the process is
//! and may, and the command.

use super::{Plan, Task, c_string, path_string};
use crate::runtime::hook::HookStep;
use crate::runtime::label::Label;
use crate::runtime::seccomp;
use crate::runtime::step::{Limit, Step};
use crate::runtime::sync::Word;
use crate::sys::capability::Sets;
use crate::sys::process::Scheduling;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{
    Capabilities, IOPriorityClass, Linux, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Process, Scheduler,
};

/// What surrounds the process.
pub struct Tail<'a> {
    /// Filter, personality and memory policy come from here.
    pub linux: Option<&'a Linux>,
    pub start_hooks: Vec<HookStep>,
    pub environment: Vec<String>,
    pub die_with_parent: bool,
    pub keep_groups: bool,
    pub reset_affinity: bool,
    /// Stop when ready until `start`.
    pub wait_for_start: bool,
}

const CAP_SYS_ADMIN: u32 = 21;
/// As many processors as a kernel can be built for, in words of 64; the kernel takes those that are there.
const AFFINITY_WORDS: usize = 128;

/// Append the steps of the process.
pub fn tail(plan: &mut Plan, process: &Process, tail: Tail<'_>) -> Result<()> {
    let user = process.user();
    plan.seed.user = user.uid();
    plan.seed.arguments = c_strings(process.args().as_deref().unwrap_or_default(), "process.args")?;
    plan.seed.environment = c_strings(&tail.environment, "environment")?;
    plan.seed.environment.extend(c_strings(process.env().as_deref().unwrap_or_default(), "process.env")?);
    keep_last(&mut plan.seed.environment);
    for (index, entry) in process.env().iter().flatten().enumerate() {
        if !entry.contains('=') || entry.starts_with('=') {
            bail!("process.env[{index}]: {entry:?} is not NAME=value");
        }
    }
    let filter = match tail.linux.and_then(|linux| linux.seccomp().as_ref()) {
        Some(profile) => seccomp::compile(profile).map(Some)?.filter(|program| !program.instructions.is_empty()),
        None => None,
    };
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    // Without no_new_privs a filter needs CAP_SYS_ADMIN. It is installed at the very end all the same, so that it need
    // not allow what the runtime does before: the capability is kept so long.
    let keeps_admin = filter.is_some() && !no_new_privileges;
    let capabilities = Wanted::new(process)?;
    plan.warnings.extend(
        capabilities
            .refused
            .iter()
            .map(|name| format!("can't raise ambient capability {name}: it is not both permitted and inheritable")),
    );

    if plan.wants_terminal {
        let size = process.console_size().as_ref().map(|size| (size.height() as u16, size.width() as u16));
        let (rows, columns) = size.unwrap_or_default();
        plan.child.push(Step::Terminal { rows, columns, owner: user.uid() });
    }
    plan.child.push(Step::Stdio { uid: user.uid(), gid: user.gid() });
    plan.child.push(Step::CloseOnExec { first: 3 + plan.seed.preserve_fds });
    if tail.reset_affinity && process.exec_cpu_affinity().is_none() {
        plan.child.push(Step::Affinity(vec![u64::MAX; AFFINITY_WORDS]));
    }
    attributes(plan, process, tail.linux)?;
    let limits = limits(plan, process);
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|name| !name.is_empty()) {
        plan.child.push(Step::Label(Label::AppArmor(profile.clone())));
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|label| !label.is_empty()) {
        plan.child.push(Step::Label(Label::SeLinux(label.clone())));
    }
    let cwd = path_string(process.cwd())?;
    plan.child.push(Step::WorkDir { path: cwd.clone(), last: false });
    plan.child.push(Step::Umask(user.umask().unwrap_or(0o022)));
    plan.child.push(Step::Bounding(capabilities.dropped()));
    if !tail.keep_groups {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.sort_unstable();
        groups.dedup();
        plan.child.push(Step::Groups(groups));
    }
    plan.child.push(Step::User { uid: user.uid(), gid: user.gid() });
    plan.child.push(Step::Capabilities(capabilities.sets(if keeps_admin { 1 << CAP_SYS_ADMIN } else { 0 })));
    if !capabilities.ambient.is_empty() {
        plan.child.push(Step::Ambient(capabilities.ambient.clone()));
    }
    plan.child.push(Step::WorkDir { path: cwd, last: true });
    // An empty one is as none.
    plan.seed.environment.retain(|entry| entry.as_bytes() != b"HOME=");
    if !plan.seed.environment.iter().any(|entry| entry.as_bytes().starts_with(b"HOME=")) {
        plan.child.push(Step::Home);
    }
    if no_new_privileges {
        plan.child.push(Step::NoNewPrivileges);
    }
    plan.child.push(Step::FindCommand);
    plan.child.extend(limits.into_iter().map(Step::Limit));
    wait_for_start(plan, &tail);
    if tail.die_with_parent {
        plan.child.push(Step::DieWithParent);
    }
    if let Some(filter) = filter {
        plan.child.push(Step::Filter(Box::new(filter)));
        if keeps_admin {
            plan.child.push(Step::Capabilities(capabilities.sets(0)));
        }
    }
    plan.child.push(Step::Execute);
    Ok(())
}

/// Of entries with one name the last one counts; most programs would take the first.
fn keep_last(environment: &mut Vec<std::ffi::CString>) {
    let name =
        |entry: &std::ffi::CString| entry.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default().to_vec();
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<_> = environment.drain(..).rev().filter(|entry| seen.insert(name(entry))).collect();
    kept.reverse();
    *environment = kept;
}

fn wait_for_start(plan: &mut Plan, tail: &Tail<'_>) {
    plan.child.push(Step::Say(Word::Ready));
    plan.tasks.push(Task::Hear(Word::Ready));
    if !tail.wait_for_start {
        return;
    }
    // An ordinary user's `exec` must find it while it waits. Nobody else is in its pid namespace yet, and it holds nothing.
    let is_alone = plan.flags & (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64
        == (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64;
    plan.child.extend((plan.seed.door.is_some() && is_alone).then_some(Step::Reveal));
    plan.child.push(if plan.seed.door.is_some() { Step::Door } else { Step::Hear(Word::Start) });
    for hook in &tail.start_hooks {
        plan.child.push(Step::Hook(Box::new(hook.clone())));
    }
}

fn c_strings(texts: &[String], path: &str) -> Result<Vec<std::ffi::CString>> {
    let one = |(index, text): (usize, &String)| c_string("", text).with_context(|| format!("{path}[{index}]"));
    texts.iter().enumerate().map(one).collect()
}

/// Scheduling, priorities, personality, memory policy.
fn attributes(plan: &mut Plan, process: &Process, linux: Option<&Linux>) -> Result<()> {
    if let Some(affinity) = process.exec_cpu_affinity() {
        if let Some(initial) = affinity.initial().as_ref().filter(|list| !list.is_empty()) {
            plan.tasks.insert(0, Task::Affinity(bit_list(initial).context("process.execCPUAffinity.initial")?));
        }
        if let Some(last) = affinity.cpu_affinity_final().as_ref().filter(|list| !list.is_empty()) {
            let mask = bit_list(last).context("process.execCPUAffinity.final")?;
            plan.child.push(Step::Affinity(mask));
        }
    }
    if let Some(scheduler) = process.scheduler() {
        plan.child.push(Step::Scheduler(scheduling(scheduler)?));
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u32::try_from(priority.priority()).ok().filter(|level| *level < 8);
        let level =
            level.with_context(|| format!("process.ioPriority.priority: {} is not in 0..7", priority.priority()))?;
        plan.child.push(Step::IoPriority { class, level });
    }
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            bail!("linux.personality.flags: no flags are defined");
        }
        plan.child.push(Step::Personality(match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        }));
    }
    if let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) {
        plan.child.push(memory_policy(policy)?);
    }
    Ok(())
}

/// The limits, for the very end: they hold for us as well while we work.
fn limits(plan: &mut Plan, process: &Process) -> Vec<Limit> {
    let mut limits = Vec::new();
    if let Some(score) = process.oom_score_adj() {
        plan.tasks.insert(0, Task::OomScore(score));
    }
    for limit in process.rlimits().iter().flatten() {
        let (resource, name) = rlimit(limit.typ());
        let limit = Limit { resource, name, soft: limit.soft(), hard: limit.hard() };
        plan.tasks.insert(0, Task::RaiseLimit(limit));
        limits.push(limit);
    }
    limits
}

fn rlimit(kind: PosixRlimitType) -> (u32, &'static str) {
    match kind {
        PosixRlimitType::RlimitCpu => (libc::RLIMIT_CPU, "RLIMIT_CPU"),
        PosixRlimitType::RlimitFsize => (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
        PosixRlimitType::RlimitData => (libc::RLIMIT_DATA, "RLIMIT_DATA"),
        PosixRlimitType::RlimitStack => (libc::RLIMIT_STACK, "RLIMIT_STACK"),
        PosixRlimitType::RlimitCore => (libc::RLIMIT_CORE, "RLIMIT_CORE"),
        PosixRlimitType::RlimitRss => (libc::RLIMIT_RSS, "RLIMIT_RSS"),
        PosixRlimitType::RlimitNproc => (libc::RLIMIT_NPROC, "RLIMIT_NPROC"),
        PosixRlimitType::RlimitNofile => (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        PosixRlimitType::RlimitMemlock => (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
        PosixRlimitType::RlimitAs => (libc::RLIMIT_AS, "RLIMIT_AS"),
        PosixRlimitType::RlimitLocks => (libc::RLIMIT_LOCKS, "RLIMIT_LOCKS"),
        PosixRlimitType::RlimitSigpending => (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"),
        PosixRlimitType::RlimitMsgqueue => (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"),
        PosixRlimitType::RlimitNice => (libc::RLIMIT_NICE, "RLIMIT_NICE"),
        PosixRlimitType::RlimitRtprio => (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO"),
        PosixRlimitType::RlimitRttime => (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME"),
    }
}

/// The capability sets of a process, as masks.
#[derive(Default)]
struct Wanted {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: Vec<u32>,
    /// Of the ambient ones, those the kernel would refuse.
    refused: Vec<String>,
}

impl Wanted {
    fn new(process: &Process) -> Result<Wanted> {
        let Some(capabilities) = process.capabilities() else {
            return Ok(Wanted::default());
        };
        let mask = |set: &Option<Capabilities>| -> Result<u64> {
            let numbers: Vec<u32> = set.iter().flatten().map(number).collect::<Result<_>>()?;
            Ok(numbers.into_iter().fold(0, |mask, number| mask | 1 << number))
        };
        let (permitted, inheritable) = (mask(capabilities.permitted())?, mask(capabilities.inheritable())?);
        let asked = mask(capabilities.ambient())?;
        let ambient = asked & permitted & inheritable;
        let wanted = Wanted {
            bounding: mask(capabilities.bounding())?,
            effective: mask(capabilities.effective())?,
            permitted,
            inheritable,
            ambient: bits(ambient).collect(),
            refused: bits(asked & !ambient).map(capability_name).collect(),
        };
        if wanted.effective & !wanted.permitted != 0 {
            bail!("process.capabilities.effective: has what is not in process.capabilities.permitted");
        }
        Ok(wanted)
    }

    fn dropped(&self) -> Vec<u32> {
        (0..=CAPABILITY_LAST).filter(|number| self.bounding >> number & 1 == 0).collect()
    }

    fn sets(&self, kept: u64) -> Sets {
        Sets { effective: self.effective | kept, permitted: self.permitted | kept, inheritable: self.inheritable }
    }
}

fn bits(mask: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |number| mask >> number & 1 == 1)
}

fn capability_name(number: u32) -> String {
    let known = caps::all().into_iter().find(|capability| u32::from(capability.index()) == number);
    known.map_or_else(|| number.to_string(), |capability| capability.to_string())
}

/// CAP_CHECKPOINT_RESTORE: the newest.
const CAPABILITY_LAST: u32 = 40;

/// All capabilities, by number.
pub fn capability_names() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(|capability| capability.index());
    all.iter().map(ToString::to_string).collect()
}

fn number(capability: &oci_spec::runtime::Capability) -> Result<u32> {
    let name = format!("CAP_{}", capability.to_string().trim_start_matches("CAP_"));
    let known: caps::Capability =
        name.parse().ok().with_context(|| format!("process.capabilities: unknown {name:?}"))?;
    Ok(known.index().into())
}

fn scheduling(scheduler: &Scheduler) -> Result<Scheduling> {
    use LinuxSchedulerPolicy::*;
    let policy = match scheduler.policy() {
        SchedOther => 0,
        SchedFifo => 1,
        SchedRr => 2,
        SchedBatch => 3,
        SchedIso => bail!("process.scheduler.policy: Linux never had SCHED_ISO"),
        SchedIdle => 5,
        SchedDeadline => 6,
    };
    let is_real_time = matches!(policy, 1 | 2);
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !is_real_time {
        bail!("process.scheduler.priority: only for SCHED_FIFO and SCHED_RR");
    }
    if is_real_time && !(1..=99).contains(&priority) {
        bail!("process.scheduler.priority: {priority} is not in 1..99");
    }
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        bail!("process.scheduler.nice: {nice} is not in -20..19");
    }
    let times = [*scheduler.runtime(), *scheduler.deadline(), *scheduler.period()].map(Option::unwrap_or_default);
    if policy != 6 && times != [0; 3] {
        bail!("process.scheduler.runtime, deadline, period: only for SCHED_DEADLINE");
    }
    if policy == 6 {
        check_deadline(scheduler).context("process.scheduler")?;
    }
    let mut flags = 0;
    for flag in scheduler.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    let [runtime, deadline, period] = times;
    Ok(Scheduling { size: 0, policy, flags, nice, priority: priority as u32, runtime, deadline, period })
}

/// The kernel only says EINVAL (sched(7): runtime <= deadline <= period, all between 1024 ns and 2^63).
fn check_deadline(scheduler: &Scheduler) -> Result<()> {
    const SHORTEST_NS: u64 = 1024;
    let needed = |value: Option<u64>, name: &str| {
        value.with_context(|| format!("sched_setattr: `SCHED_DEADLINE` requires `{name}`"))
    };
    let runtime = needed(*scheduler.runtime(), "runtime")?;
    let deadline = needed(*scheduler.deadline(), "deadline")?;
    let period = scheduler.period().filter(|period| *period != 0).unwrap_or(deadline);
    if runtime == 0 {
        bail!("sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0");
    }
    if !(SHORTEST_NS..=i64::MAX as u64).contains(&runtime) {
        bail!("sched_setattr: `SCHED_DEADLINE` runtime {runtime} must be between {SHORTEST_NS} and {}", i64::MAX);
    }
    if runtime > deadline {
        bail!("sched_setattr: `SCHED_DEADLINE` runtime {runtime} must be <= deadline {deadline}");
    }
    if deadline > period {
        bail!("sched_setattr: `SCHED_DEADLINE` deadline {deadline} must be <= period {period}");
    }
    Ok(())
}

fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<Step> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = match policy.nodes().as_ref().filter(|nodes| !nodes.is_empty()) {
        Some(nodes) => bit_list(nodes).context("linux.memoryPolicy.nodes")?,
        None => Vec::new(),
    };
    Ok(Step::MemoryPolicy { mode: mode | flags, nodes })
}

/// `0-3,7` as bits.
pub fn bit_list(text: &str) -> Result<Vec<u64>> {
    const NUMBER_MAX: usize = 8191;
    let mut mask: Vec<u64> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<usize>(), last.trim().parse::<usize>());
        let (Ok(first), Ok(last)) = bounds else { bail!("{text:?} is not a list like 0-3,7") };
        if first > last || last > NUMBER_MAX {
            bail!("{part:?} is not a range within 0..{NUMBER_MAX}");
        }
        mask.resize(mask.len().max(last / 64 + 1), 0);
        for number in first..=last {
            mask[number / 64] |= 1 << (number % 64);
        }
    }
    if mask.is_empty() {
        bail!("{text:?} is empty");
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(bit_list("0-3,7").unwrap(), [0x8f]);
        assert_eq!(bit_list("64").unwrap(), [0, 1]);
        for wrong in ["", "a", "3-1", "99999999999", "-1", "1-"] {
            assert!(bit_list(wrong).is_err(), "{wrong}");
        }
    }
}
