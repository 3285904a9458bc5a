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
    /// Some action is SCMP_ACT_NOTIFY: loading gives a listener that belongs to `listenerPath`.
    pub notifies: bool,
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
    Ok(Program { instructions, flags: flag_bits(profile, notifies), notifies })
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
        let rows = call.names().iter().filter_map(|name| row_of(name)).collect();
        entries.push(Entry { rows, action, alternatives });
    }
    Ok(entries)
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
        Some(_) if !notifies => {
            bail!("linux.seccomp.listenerPath: set, but no rule has SCMP_ACT_NOTIFY")
        }
        _ => Ok(notifies),
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

/// Which call of `socketcall` or `ipc` a name is on i386.
fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(position) = SOCKET.iter().position(|known| *known == name) {
        return Some(("socketcall", position as u64 + 1));
    }
    IPC.iter().find(|(known, _)| *known == name).map(|&(_, call)| ("ipc", call))
}

/// One ABI's map from call number to what happens, as ranges in order from 0.
fn segments(abi: Abi, entries: &[Entry], default: u32, stub: bool) -> Vec<Segment> {
    let mut calls: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    let mut newest = None;
    for entry in entries {
        for &row in &entry.rows {
            let (name, numbers) = table::CALLS[row];
            if let Some(number) = abi.number(&numbers) {
                newest = newest.max(Some(number).filter(|number| *number < PRIVATE));
                for conditions in &entry.alternatives {
                    let rule = Rule { conditions: conditions.clone(), action: entry.action };
                    calls.entry(number).or_default().push(rule);
                }
            }
            if abi == Abi::I386
                && let Some(multiplexed) = multiplexed(name)
            {
                add_multiplexed(&mut calls, multiplexed, entry, default);
            }
        }
    }
    let mut segments = Segments(vec![Segment { start: 0, leaf: Leaf::Return(default) }]);
    for (number, rules) in calls.range(..PRIVATE) {
        segments.push(*number, leaf(rules, default));
        segments.push(number + 1, Leaf::Return(default));
    }
    let mut beyond = default;
    if let Some(newest) = newest.filter(|_| stub) {
        beyond = UNKNOWN;
        segments.push(newest + 1, Leaf::Return(beyond));
    }
    for (number, rules) in calls.range(PRIVATE..) {
        segments.push(*number, leaf(rules, beyond));
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
fn add_multiplexed(calls: &mut BTreeMap<u32, Vec<Rule>>, of: (&str, u64), entry: &Entry, default: u32) {
    let permits = |action: u32| matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG);
    if entry.alternatives.is_empty() {
        return;
    }
    let blind = entry.alternatives.iter().all(|conditions| !conditions.is_empty());
    if blind && (permits(entry.action) || !permits(default)) {
        return;
    }
    let Some(number) = row_of(of.0).and_then(|row| Abi::I386.number(&table::CALLS[row].1)) else {
        return;
    };
    // `ipc` carries a version in the upper half of its first argument.
    let mask = if of.0 == "ipc" { 0xffff } else { u64::MAX };
    let condition = Condition::MaskedEqual { index: 0, mask, value: of.1 };
    calls.entry(number).or_default().push(Rule { conditions: vec![condition], action: entry.action });
}

fn leaf(rules: &[Rule], default: u32) -> Leaf {
    match rules.iter().find(|rule| rule.conditions.is_empty()) {
        Some(rule) => Leaf::Return(rule.action),
        None => Leaf::Rules { rules: rules.to_vec(), default },
    }
}
