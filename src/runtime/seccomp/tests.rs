//! The compiler against a naive reading of the profile, by an interpreter of classic BPF.

use super::assemble::Abi;
use super::*;
use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

/// What the kernel hands to a filter.
#[derive(Clone, Copy, Debug)]
struct Data {
    number: u32,
    architecture: u32,
    args: [u64; 6],
}

fn word(data: &Data, offset: u32) -> u32 {
    match offset {
        0 => data.number,
        4 => data.architecture,
        _ => {
            let value = data.args[(offset as usize - 16) / 8];
            if offset % 8 == 0 { value as u32 } else { (value >> 32) as u32 }
        }
    }
}

/// Runs a program as net/core/filter.c does, for the instructions the assembler uses.
fn interpret(program: &[sock_filter], data: &Data) -> u32 {
    let (mut pc, mut a) = (0usize, 0u32);
    loop {
        let i = program[pc];
        pc += 1;
        let mut jump = |holds: bool| pc += usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x20 => a = word(data, i.k),
            0x54 => a &= i.k,
            0x05 => pc += i.k as usize,
            0x15 => jump(a == i.k),
            0x25 => jump(a > i.k),
            0x35 => jump(a >= i.k),
            0x06 => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn holds(condition: &Condition, args: &[u64; 6], wide: bool) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    match *condition {
        Condition::NotEqual { index, value } => args[index as usize] != cut(value),
        Condition::Less { index, value } => args[index as usize] < value,
        Condition::LessOrEqual { index, value } => args[index as usize] <= value,
        Condition::GreaterOrEqual { index, value } => args[index as usize] >= value,
        Condition::Greater { index, value } => args[index as usize] > value,
        Condition::MaskedEqual { index, mask, value } => args[index as usize] & cut(mask) == cut(value),
    }
}

/// The meaning of a profile for one call, read straight from it (no multiplexed calls in the random profiles).
fn naive(profile: &LinuxSeccomp, abi: Abi, data: &Data) -> u32 {
    let default = action_value(profile.default_action(), profile.default_errno_ret(), "").unwrap();
    let (mut newest, mut first, mut unconditional) = (None, None, None);
    for call in profile.syscalls().as_deref().unwrap_or_default() {
        let action = action_value(call.action(), call.errno_ret(), "").unwrap();
        for name in call.names() {
            let Some(number) = row_of(name).and_then(|row| abi.number(&table::CALLS[row].1)) else {
                continue;
            };
            newest = newest.max(Some(number).filter(|number| *number < PRIVATE));
            if number != data.number || action == default {
                continue;
            }
            for conditions in alternatives(call, "").unwrap() {
                if conditions.is_empty() {
                    unconditional = unconditional.or(Some(action));
                } else if conditions.iter().all(|condition| holds(condition, &data.args, abi.wide())) {
                    first = first.or(Some(action));
                }
            }
        }
    }
    let unknown = stub_wanted(profile) && newest.is_some_and(|newest| data.number > newest);
    unconditional.or(first).unwrap_or(if unknown { UNKNOWN } else { default })
}

/// A small deterministic generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
    fn value(&mut self) -> u64 {
        const VALUES: [u64; 10] =
            [0, 1, 2, 16, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX, 1 << 63, 0x7e02_0000];
        self.pick(&VALUES)
    }
}

const ACTIONS: [LinuxSeccompAction; 5] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActTrap,
    LinuxSeccompAction::ScmpActLog,
];

fn random_profile(random: &mut Random) -> LinuxSeccomp {
    use LinuxSeccompOperator::*;
    const OPERATORS: [LinuxSeccompOperator; 8] =
        [ScmpCmpNe, ScmpCmpLt, ScmpCmpLe, ScmpCmpEq, ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpMaskedEq];
    let names: Vec<&str> = table::CALLS.iter().map(|row| row.0).filter(|name| multiplexed(name).is_none()).collect();
    let mut calls = Vec::new();
    let few: Vec<&str> = (0..4).map(|_| random.pick(&names)).collect();
    for _ in 0..random.below(60) {
        let conditional = random.below(2) == 0;
        let picked: Vec<String> = (0..1 + random.below(if conditional { 2 } else { 30 }))
            .map(|_| if conditional { random.pick(&few) } else { random.pick(&names) }.to_string())
            .collect();
        let mut call = LinuxSyscallBuilder::default().names(picked).action(random.pick(&ACTIONS));
        if conditional {
            let args: Vec<_> = (0..1 + random.below(3))
                .map(|_| {
                    LinuxSeccompArgBuilder::default()
                        .index(random.below(6))
                        .value(random.value())
                        .value_two(random.value())
                        .op(random.pick(&OPERATORS))
                        .build()
                        .unwrap()
                })
                .collect();
            call = call.args(args);
        }
        calls.push(call.build().unwrap());
    }
    LinuxSeccompBuilder::default()
        .default_action(random.pick(&ACTIONS))
        .architectures(vec![Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchArm])
        .syscalls(calls)
        .build()
        .unwrap()
}

#[test]
fn random_profiles_mean_what_they_say() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..40 {
        let profile = random_profile(&mut random);
        let program = compile(&profile).unwrap();
        let abis = abis(profile.architectures().as_deref().unwrap());
        assert!(abis.len() > 1);
        for _ in 0..120 {
            let abi = random.pick(&abis);
            let number = match random.below(3) {
                0 => random.below(560) as u32,
                1 => 0xf_0000 + random.below(8) as u32,
                _ => abi.number(&random.pick(table::CALLS).1).unwrap_or(700),
            };
            let cut = if abi.wide() { u64::MAX } else { 0xffff_ffff };
            let data = Data { number, architecture: abi.audit(), args: [0; 6].map(|_: u64| random.value() & cut) };
            let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
            let seen = interpret(&program.instructions, &Data { number: number | bit, ..data });
            assert_eq!(seen, naive(&profile, abi, &data), "{abi:?} {data:?} {profile:?}");
        }
    }
}

fn call(names: &[&str], action: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.iter().map(|name| name.to_string()).collect()).set_action(action);
    call.set_args((!args.is_empty()).then_some(args));
    call
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default().index(index).op(op).value(value).build().unwrap()
}

fn profile(default: LinuxSeccompAction, calls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(default).set_syscalls(Some(calls));
    profile.set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]));
    profile
}

#[test]
fn table_is_sorted() {
    assert!(table::CALLS.is_sorted_by(|a, b| a.0 < b.0));
    assert!(MULTIPLEXED.is_sorted_by(|a, b| a.0 < b.0));
    let largest = |abi: Abi| table::CALLS.iter().filter_map(|row| abi.number(&row.1)).max().unwrap();
    assert!([Abi::X86_64, Abi::I386, Abi::X32, Abi::Aarch64].iter().all(|abi| largest(*abi) < NUMBERS as u32));
    let number = |name| Abi::I386.number(&table::CALLS[row_of(name).unwrap()].1);
    assert_eq!((number("socketcall"), number("ipc")), (Some(I386_SOCKETCALL), Some(I386_IPC)));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn socketcall_never_permits_more_than_the_rule_said() {
    use LinuxSeccompAction::{ScmpActAllow as Allow, ScmpActErrno as Errno};
    let run = |profile: &LinuxSeccomp, number: u32, first: u64| {
        let data = Data { number, architecture: Abi::I386.audit(), args: [first, 0, 0, 0, 0, 0] };
        interpret(&compile(profile).unwrap().instructions, &data)
    };
    let inet = argument(0, LinuxSeccompOperator::ScmpCmpEq, 2);
    let permits = profile(Errno, vec![call(&["socket"], Allow, vec![inet]), call(&["bind"], Allow, vec![])]);
    assert_eq!(run(&permits, 359, 2), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run(&permits, 102, 1), libc::SECCOMP_RET_ERRNO | 1);
    assert_eq!(run(&permits, 102, 2), libc::SECCOMP_RET_ALLOW);
    let refuses = profile(Allow, vec![call(&["socket"], Errno, vec![inet]), call(&["shmget"], Errno, vec![])]);
    assert_eq!(run(&refuses, 102, 1), libc::SECCOMP_RET_ERRNO | 1);
    assert_eq!(run(&refuses, 102, 2), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run(&refuses, 117, 0x1_0000 | 23), libc::SECCOMP_RET_ERRNO | 1);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_abis_are_killed_but_a_tracers_minus_one_is_not() {
    let program = compile(&profile(LinuxSeccompAction::ScmpActAllow, vec![])).unwrap();
    let run = |architecture, number| interpret(&program.instructions, &Data { number, architecture, args: [0; 6] });
    assert_eq!(run(Abi::X86_64.audit(), 1), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run(Abi::X86_64.audit(), X32_BIT | 1), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(run(Abi::X86_64.audit(), u32::MAX), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run(Abi::Aarch64.audit(), 1), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn bad_profiles_are_refused_by_path() {
    use LinuxSeccompAction::*;
    let check = |profile: LinuxSeccomp, expected: &str| {
        let error = compile(&profile).err().expect("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(profile(ScmpActNotify, vec![]), "linux.seccomp.defaultAction:");
    check(profile(ScmpActAllow, vec![call(&["read"], ScmpActNotify, vec![])]), "linux.seccomp.listenerPath:");
    check(profile(ScmpActAllow, vec![call(&["write"], ScmpActNotify, vec![])]), "linux.seccomp.syscalls[0]:");
    check(profile(ScmpActAllow, vec![call(&[], ScmpActLog, vec![])]), "linux.seccomp.syscalls[0].names:");
    let bad = argument(6, LinuxSeccompOperator::ScmpCmpEq, 0);
    check(
        profile(ScmpActAllow, vec![call(&["read"], ScmpActLog, vec![bad])]),
        "linux.seccomp.syscalls[0].args[0].index:",
    );
    let mut errno = call(&["read"], ScmpActKill, vec![]);
    errno.set_errno_ret(Some(1));
    check(profile(ScmpActAllow, vec![errno]), "linux.seccomp.syscalls[0]:");
}
