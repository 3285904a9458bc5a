//! The seccomp filter: OCI's `linux.seccomp` to a classic BPF program. Pure: nothing here is loaded.
//!
//! What it is not: the default profile (bundle/seccomp.rs makes a `LinuxSeccomp` from it) nor the system call that
//! loads the program (sys/bpf.rs). Semantics are libseccomp's as runc and crun use it, for a profile means the same
//! everywhere: unknown system calls are ignored; rules whose action is the default's are dropped; a rule without
//! arguments beats those with; several conditions on one argument are alternatives; on i386 a rule for a socket or
//! System V IPC call holds for its `socketcall` and `ipc` form as well. Calls newer than the profile get ENOSYS.
//!
//! Invariant: every path of a program ends in a return, jumps only go forward, and it has at most 4096 instructions.
#![forbid(unsafe_code)]

mod assemble;
mod table;
#[cfg(test)]
mod tests;

use crate::failure::{Failure, Kind};
use anyhow::{Result, bail};
use assemble::{Abi, Condition, Leaf, Rule, Segment};
use libc::sock_filter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use std::collections::BTreeMap;

/// The kernel's BPF_MAXINSNS.
const INSTRUCTIONS_MAX: usize = 4096;
/// Set in the number of an x32 call.
const X32_BIT: u32 = 0x4000_0000;
/// More than any call's number has, but for arm's private ones.
const NUMBERS: usize = 1024;
const I386_SOCKETCALL: u32 = 102;
const I386_IPC: u32 = 117;
/// From here on arm has calls of its own; they are not counted when the newest known call is looked for.
const PRIVATE: u32 = 0xf_0000;
/// ENOSYS for what the profile cannot know.
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A filter ready to be loaded with `sys::bpf::load_filter`.
#[derive(Clone)]
pub struct Program {
    /// The instructions.
    pub instructions: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` as the profile asks, NEW_LISTENER included where an action notifies.
    pub flags: libc::c_ulong,
}

/// The program of a profile. Errors name the field of config.json.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    let notifies = check_notify(profile)?;
    let default = action_value(profile.default_action(), profile.default_errno_ret(), "linux.seccomp.default")?;
    let rules = read_rules(profile, default)?;
    let mut sections = Vec::new();
    for abi in abis(profile.architectures().as_deref().unwrap_or_default()) {
        sections.push((abi, segments(abi, &rules, default, stub_wanted(profile))));
    }
    let instructions = assemble::program(&sections);
    if instructions.len() > INSTRUCTIONS_MAX {
        return Err(Failure::new(
            Kind::Engine,
            format!("compile linux.seccomp: {} instructions, the kernel takes {INSTRUCTIONS_MAX}", instructions.len()),
        )
        .hint("join rules, or name fewer entries in linux.seccomp.architectures")
        .into());
    }
    Ok(Program { instructions, flags: flag_bits(profile, notifies) })
}

/// What one entry of `linux.seccomp.syscalls` means, with its names resolved to rows of the table.
struct Entry {
    rows: Vec<usize>,
    action: u32,
    /// Alternatives; one empty alternative when there are no arguments, none when it says what the default says.
    alternatives: Vec<Vec<Condition>>,
}

fn read_rules(profile: &LinuxSeccomp, default: u32) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (index, call) in profile.syscalls().as_deref().unwrap_or_default().iter().enumerate() {
        let path = format!("linux.seccomp.syscalls[{index}]");
        let action = action_value(call.action(), call.errno_ret(), &path)?;
        if call.names().is_empty() {
            bail!("{path}.names: no system call is named");
        }
        let mut alternatives = alternatives(call, &path)?;
        if action == default {
            alternatives.clear(); // says nothing new, but that the profile knows these calls
        }
        let rows = rows_of(call.names());
        entries.push(Entry { rows, action, alternatives });
    }
    Ok(entries)
}

/// The rows of the names that are known. Profiles are mostly sorted, so each is looked for right behind the last first.
fn rows_of(names: &[String]) -> Vec<usize> {
    let mut rows = Vec::with_capacity(names.len());
    let mut next = 0;
    for name in names {
        let near = table::CALLS[next..].iter().take(3).position(|row| row.0 == name);
        if let Some(row) = near.map(|offset| next + offset).or_else(|| row_of(name)) {
            rows.push(row);
            next = row + 1;
        }
    }
    rows
}

/// Is this the name of a system call on any machine?
pub fn knows(name: &str) -> bool {
    row_of(name).is_some()
}

fn row_of(name: &str) -> Option<usize> {
    table::CALLS.binary_search_by_key(&name, |row| row.0).ok()
}

fn alternatives(call: &LinuxSyscall, path: &str) -> Result<Vec<Vec<Condition>>> {
    let args = call.args().as_deref().unwrap_or_default();
    let mut used = [0u8; 6];
    let mut conditions = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        if arg.index() > 5 {
            bail!("{path}.args[{index}].index: {} is not one of 0 to 5", arg.index());
        }
        used[arg.index()] += 1;
        conditions.push(condition(arg));
    }
    // Two conditions on one argument: runc and crun turn the whole list into alternatives (runc#2735).
    if used.iter().any(|&count| count > 1) {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    Ok(vec![conditions])
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    use LinuxSeccompOperator::*;
    let (index, value) = (arg.index() as u8, arg.value());
    match arg.op() {
        ScmpCmpNe => Condition::NotEqual { index, value },
        ScmpCmpLt => Condition::Less { index, value },
        ScmpCmpLe => Condition::LessOrEqual { index, value },
        ScmpCmpEq => Condition::MaskedEqual { index, mask: u64::MAX, value },
        ScmpCmpGe => Condition::GreaterOrEqual { index, value },
        ScmpCmpGt => Condition::Greater { index, value },
        ScmpCmpMaskedEq => Condition::MaskedEqual { index, mask: value, value: arg.value_two().unwrap_or(0) },
    }
}

fn action_value(action: LinuxSeccompAction, errno: Option<u32>, path: &str) -> Result<u32> {
    use LinuxSeccompAction::*;
    let data = errno.unwrap_or(libc::EPERM as u32);
    if errno.is_some() && !matches!(action, ScmpActErrno | ScmpActTrace) {
        bail!("{path}: an errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE only, not with {action}");
    }
    // The kernel caps errno values at MAX_ERRNO silently; TRACE carries 16 bits.
    if (action == ScmpActErrno && data > 4095) || data > 0xffff {
        bail!("{path}: errnoRet {data} is too large");
    }
    Ok(match action {
        ScmpActKill | ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        ScmpActTrap => libc::SECCOMP_RET_TRAP,
        ScmpActErrno => libc::SECCOMP_RET_ERRNO | data,
        ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        ScmpActTrace => libc::SECCOMP_RET_TRACE | data,
        ScmpActLog => libc::SECCOMP_RET_LOG,
        ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    })
}

/// Whether an agent is notified; refuses what can only hang (runc does too).
fn check_notify(profile: &LinuxSeccomp) -> Result<bool> {
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        bail!("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default: the agent could never be reached");
    }
    let mut notifies = false;
    for (index, call) in profile.syscalls().as_deref().unwrap_or_default().iter().enumerate() {
        if call.action() == LinuxSeccompAction::ScmpActNotify {
            notifies = true;
            if call.names().iter().any(|name| name == "write") {
                bail!("linux.seccomp.syscalls[{index}]: SCMP_ACT_NOTIFY for write would block the start itself");
            }
        }
    }
    match profile.listener_path() {
        None if notifies => {
            bail!("linux.seccomp.listenerPath: missing, but a rule has SCMP_ACT_NOTIFY")
        }
        // An agent that asks for a listener gets one, as from crun, also where no rule will ever wake it.
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

fn flag_bits(profile: &LinuxSeccomp, notifies: bool) -> libc::c_ulong {
    use LinuxSeccompFilterFlag::*;
    let mut bits = 0;
    for flag in profile.flags().as_deref().unwrap_or_default() {
        bits |= match flag {
            SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            // Without a listener the kernel refuses it with EINVAL; it would mean nothing.
            SeccompFilterFlagWaitKillableRecv if !notifies => 0,
            SeccompFilterFlagWaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        };
    }
    if notifies {
        bits |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        if bits & libc::SECCOMP_FILTER_FLAG_TSYNC != 0 {
            // One return value cannot be both a descriptor and a thread id (seccomp(2)).
            bits |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        }
    }
    bits
}

/// Programs probe for new calls and fall back on ENOSYS only: a profile that denies by default with anything else would
/// break them with each new kernel. runc has the same rule.
fn stub_wanted(profile: &LinuxSeccomp) -> bool {
    use LinuxSeccompAction::*;
    !matches!(profile.default_action(), ScmpActAllow | ScmpActLog | ScmpActTrace)
        && profile.default_errno_ret() != Some(libc::ENOSYS as u32)
}

/// The ABIs to filter; any other is killed. Those this machine can never run are left out.
fn abis(architectures: &[Arch]) -> Vec<Abi> {
    let native = if cfg!(target_arch = "aarch64") { Abi::Aarch64 } else { Abi::X86_64 };
    let mut abis = vec![native];
    for architecture in architectures {
        let abi = match architecture {
            Arch::ScmpArchX86 => Abi::I386,
            Arch::ScmpArchX32 => Abi::X32,
            Arch::ScmpArchArm => Abi::Arm,
            // Native, or foreign.
            _ => continue,
        };
        let runs_here = matches!(abi, Abi::Arm) == matches!(native, Abi::Aarch64);
        if runs_here && !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    abis
}

/// Which call of `socketcall` or `ipc` a name is on i386; sorted by name.
const MULTIPLEXED: [(&str, (&str, u64)); 32] = [
    ("accept", ("socketcall", 5)),
    ("accept4", ("socketcall", 18)),
    ("bind", ("socketcall", 2)),
    ("connect", ("socketcall", 3)),
    ("getpeername", ("socketcall", 7)),
    ("getsockname", ("socketcall", 6)),
    ("getsockopt", ("socketcall", 15)),
    ("listen", ("socketcall", 4)),
    ("msgctl", ("ipc", 14)),
    ("msgget", ("ipc", 13)),
    ("msgrcv", ("ipc", 12)),
    ("msgsnd", ("ipc", 11)),
    ("recv", ("socketcall", 10)),
    ("recvfrom", ("socketcall", 12)),
    ("recvmmsg", ("socketcall", 19)),
    ("recvmsg", ("socketcall", 17)),
    ("semctl", ("ipc", 3)),
    ("semget", ("ipc", 2)),
    ("semop", ("ipc", 1)),
    ("semtimedop", ("ipc", 4)),
    ("send", ("socketcall", 9)),
    ("sendmmsg", ("socketcall", 20)),
    ("sendmsg", ("socketcall", 16)),
    ("sendto", ("socketcall", 11)),
    ("setsockopt", ("socketcall", 14)),
    ("shmat", ("ipc", 21)),
    ("shmctl", ("ipc", 24)),
    ("shmdt", ("ipc", 22)),
    ("shmget", ("ipc", 23)),
    ("shutdown", ("socketcall", 13)),
    ("socket", ("socketcall", 1)),
    ("socketpair", ("socketcall", 8)),
];

fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    MULTIPLEXED.binary_search_by_key(&name, |row| row.0).ok().map(|index| MULTIPLEXED[index].1)
}

/// What is said of each call number of one ABI.
struct Calls {
    /// By number: decided whatever the arguments are. The first to say so wins, and over all in `rules`.
    plain: Vec<Option<u32>>,
    /// Decided by the arguments; in arm's private range also without.
    rules: BTreeMap<u32, Vec<Rule>>,
}

impl Calls {
    fn add(&mut self, number: u32, conditions: &[Condition], action: u32) {
        match self.plain.get_mut(number as usize) {
            Some(plain) if conditions.is_empty() => *plain = plain.or(Some(action)),
            _ => self.rules.entry(number).or_default().push(Rule { conditions: conditions.to_vec(), action }),
        }
    }

    fn leaf(&self, number: u32, default: u32) -> Leaf {
        if let Some(Some(action)) = self.plain.get(number as usize) {
            return Leaf::Return(*action);
        }
        match self.rules.get(&number).map(Vec::as_slice) {
            None => Leaf::Return(default),
            Some(rules) => match rules.iter().find(|rule| rule.conditions.is_empty()) {
                Some(rule) => Leaf::Return(rule.action),
                None => Leaf::Rules { rules: rules.to_vec(), default },
            },
        }
    }
}

/// One ABI's map from call number to what happens, as ranges in order from 0.
fn segments(abi: Abi, entries: &[Entry], default: u32, stub: bool) -> Vec<Segment> {
    let mut calls = Calls { plain: vec![None; NUMBERS], rules: BTreeMap::new() };
    let mut newest = None;
    for entry in entries {
        for &row in &entry.rows {
            let (name, numbers) = table::CALLS[row];
            if let Some(number) = abi.number(&numbers) {
                newest = newest.max(Some(number).filter(|number| *number < PRIVATE));
                for conditions in &entry.alternatives {
                    calls.add(number, conditions, entry.action);
                }
            }
            if abi == Abi::I386
                && let Some(multiplexed) = multiplexed(name)
            {
                add_multiplexed(&mut calls, multiplexed, entry, default);
            }
        }
    }
    let mut segments = Segments(Vec::with_capacity(128));
    // `ipc` may be filtered though the call that was named has no number of its own.
    let last = newest.max(calls.rules.range(..PRIVATE).next_back().map(|(number, _)| *number));
    let end = last.map_or(0, |last| last + 1);
    for number in 0..end {
        segments.push(number, calls.leaf(number, default));
    }
    let beyond = if stub && last.is_some() { UNKNOWN } else { default };
    segments.push(end, Leaf::Return(beyond));
    for number in calls.rules.range(PRIVATE..).map(|(number, _)| *number) {
        segments.push(number, calls.leaf(number, beyond));
        segments.push(number + 1, Leaf::Return(beyond));
    }
    segments.0
}

/// Ranges in order of their start; what is pushed holds from its start on.
struct Segments(Vec<Segment>);

impl Segments {
    fn push(&mut self, start: u32, leaf: Leaf) {
        if self.0.last().is_some_and(|last| last.start == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.leaf != leaf) {
            self.0.push(Segment { start, leaf });
        }
    }
}

/// The arguments of the call proper stand behind a pointer, so a rule that looks at them cannot be followed. One that
/// restricts then holds for every use of the call; one that permits is left out: never more is allowed than was said.
fn add_multiplexed(calls: &mut Calls, of: (&str, u64), entry: &Entry, default: u32) {
    let permits = |action: u32| matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG);
    if entry.alternatives.is_empty() {
        return;
    }
    let blind = entry.alternatives.iter().all(|conditions| !conditions.is_empty());
    if blind && (permits(entry.action) || !permits(default)) {
        return;
    }
    // `ipc` carries a version in the upper half of its first argument.
    let (number, mask) = if of.0 == "ipc" { (I386_IPC, 0xffff) } else { (I386_SOCKETCALL, u64::MAX) };
    calls.add(number, &[Condition::MaskedEqual { index: 0, mask, value: of.1 }], entry.action);
}
