//! Which devices a container may open or make: an eBPF program on version 2, an exception list on version 1.
//!
//! Rules are read in order and the last that speaks of an access decides, as OCI has it; without any, everything is
//! denied but what every container needs. The same reading ([`Policy`]) serves both versions.
#![forbid(unsafe_code)]

use super::{read, write};
use crate::failure::{Failure, Kind};
use crate::sys::bpf::{self, Instruction};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Block or character; the kernel's numbers (BPF_DEVCG_DEV_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Block = 1,
    Character = 2,
}

/// A set of rights; the kernel's bits (BPF_DEVCG_ACC_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access(i32);

impl Access {
    const MAKE: Access = Access(1);
    const ALL: Access = Access(7);

    fn parse(text: &str) -> Result<Access> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => bail!("device access `{text}` has other letters than r, w and m"),
            };
        }
        Ok(if bits == 0 { Access::ALL } else { Access(bits) })
    }

    fn text(self) -> String {
        [(2, 'r'), (4, 'w'), (1, 'm')].iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, letter)| *letter).collect()
    }
}

/// One rule; an absent number stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    class: Class,
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
}

/// All rules as one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    /// What no rule speaks of.
    allow: bool,
    /// In order; the last that matches decides.
    rules: Vec<Rule>,
}

/// What every container needs, as runc has it: making any node (they are of no use without a right to open them),
/// null, zero, full, random, urandom, tty, and the terminals of its own devpts.
const NEEDED: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

fn policy(rules: &[LinuxDeviceCgroup]) -> Result<Policy> {
    let mut policy = Policy { allow: false, rules: Vec::new() };
    for (index, rule) in rules.iter().enumerate() {
        add(&mut policy, rule).with_context(|| format!("linux.resources.devices[{index}]"))?;
    }
    if policy.allow && policy.rules.is_empty() {
        return Ok(policy);
    }
    for class in [Class::Character, Class::Block] {
        policy.rules.push(Rule { allow: true, class, major: None, minor: None, access: Access::MAKE });
    }
    for (major, minor) in NEEDED {
        let class = Class::Character;
        policy.rules.push(Rule { allow: true, class, major: Some(major), minor, access: Access::ALL });
    }
    Ok(policy)
}

fn add(policy: &mut Policy, rule: &LinuxDeviceCgroup) -> Result<()> {
    let access = Access::parse(rule.access().as_deref().unwrap_or_default())?;
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    let classes: &[Class] = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A if major.is_none() && minor.is_none() && access == Access::ALL => {
            *policy = Policy { allow: rule.allow(), rules: Vec::new() };
            return Ok(());
        }
        LinuxDeviceType::A => &[Class::Character, Class::Block],
        LinuxDeviceType::B => &[Class::Block],
        LinuxDeviceType::C | LinuxDeviceType::U => &[Class::Character],
        LinuxDeviceType::P => bail!("type `p`: a FIFO is no device"),
    };
    policy.rules.extend(classes.iter().map(|&class| Rule { allow: rule.allow(), class, major, minor, access }));
    Ok(())
}

fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) if value <= i32::MAX as u32 => Ok(Some(value)),
            _ => bail!("device number {value} is out of range"),
        },
    }
}

/// Puts the rules on a version 2 group, in place of those of an earlier call.
pub fn set_v2(cgroup: BorrowedFd, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let instructions = assemble(&policy(rules)?);
    let hint = "device rules on cgroup v2 need a kernel with CONFIG_CGROUP_BPF and the capability CAP_BPF or \
                CAP_SYS_ADMIN outside of user namespaces";
    let explain = |tried: &str, error: std::io::Error| {
        anyhow::Error::new(error).context(Failure::new(Kind::Engine, tried).hint(hint))
    };
    let program = bpf::load_device_program(&instructions).map_err(|error| explain("load the device program", error))?;
    let old = bpf::device_programs(cgroup).unwrap_or_default();
    let replaced = if let [only] = old.as_slice() { Some(only.as_fd()) } else { None };
    bpf::attach_device_program(cgroup, program.as_fd(), replaced)
        .map_err(|error| explain("attach the device program", error))?;
    // Several programs must all agree, so nothing was open to all meanwhile.
    for program in old.iter().filter(|_| replaced.is_none()) {
        bpf::detach_device_program(cgroup, program.as_fd())
            .map_err(|error| explain("detach the old device program", error))?;
    }
    Ok(())
}

// eBPF operations (linux/bpf.h): class | operation | source.
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOVE: u8 = 0xb4; // ALU | MOV | K
const MOVE_REGISTER: u8 = 0xbc; // ALU | MOV | X
const AND: u8 = 0x54; // ALU | AND | K
const SHIFT_RIGHT: u8 = 0x74; // ALU | RSH | K
const JUMP_EQUAL: u8 = 0x15; // JMP | JEQ | K
const JUMP_NOT_EQUAL: u8 = 0x55; // JMP | JNE | K
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d; // JMP | JNE | X
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const SCRATCH: u8 = 1; // the context at first
const CLASS: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn operation(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: target | source << 4, offset, immediate }
}

/// `struct bpf_cgroup_dev_ctx` is { access << 16 | class, major, minor }, each 32 bits.
fn assemble(policy: &Policy) -> Vec<Instruction> {
    let mut code = vec![
        operation(LOAD_WORD, CLASS, SCRATCH, 0, 0),
        operation(MOVE_REGISTER, ACCESS, CLASS, 0, 0),
        operation(AND, CLASS, 0, 0, 0xffff),
        operation(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        operation(LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        operation(LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in policy.rules.iter().rev() {
        append_rule(&mut code, rule);
    }
    code.push(operation(MOVE, RESULT, 0, 0, i32::from(policy.allow)));
    code.push(operation(EXIT, 0, 0, 0, 0));
    code
}

/// Decides and exits, or falls through when the rule says nothing about this access.
fn append_rule(code: &mut Vec<Instruction>, rule: &Rule) {
    let mut tests = vec![operation(JUMP_NOT_EQUAL, CLASS, 0, 0, rule.class as i32)];
    if let Some(major) = rule.major {
        tests.push(operation(JUMP_NOT_EQUAL, MAJOR, 0, 0, major as i32));
    }
    if let Some(minor) = rule.minor {
        tests.push(operation(JUMP_NOT_EQUAL, MINOR, 0, 0, minor as i32));
    }
    if rule.access != Access::ALL {
        tests.push(operation(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        tests.push(operation(AND, SCRATCH, 0, 0, rule.access.0));
        // Allowed when all of what is wanted is granted, denied when any of it is refused.
        tests.push(match rule.allow {
            true => operation(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0, 0),
            false => operation(JUMP_EQUAL, SCRATCH, 0, 0, 0),
        });
    }
    let count = tests.len();
    for (position, test) in tests.iter_mut().enumerate() {
        if test.code & 0x07 == 0x05 {
            test.offset = (count - 1 - position + 2) as i16;
        }
    }
    code.append(&mut tests);
    code.push(operation(MOVE, RESULT, 0, 0, i32::from(rule.allow)));
    code.push(operation(EXIT, 0, 0, 0, 0));
}

/// A device or several, as version 1's list names them.
type Name = (Class, Option<u32>, Option<u32>);

/// Puts the rules on a version 1 group. What is in the list already is left, so that an update denies nothing for a
/// moment that is allowed before and after.
pub(super) fn set_v1(directory: &Path, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let policy = policy(rules)?;
    let (allow, deny) = (directory.join("devices.allow"), directory.join("devices.deny"));
    let tell = |path: &Path| format!("write {}", path.display());
    if policy.allow {
        write(&allow, "a").with_context(|| tell(&allow))?;
        let refused = policy.rules.iter().filter(|rule| !rule.allow);
        let lines = refused.map(|rule| line((rule.class, rule.major, rule.minor), rule.access)).collect::<Vec<_>>();
        return write_lines(&deny, &lines);
    }
    let wanted = exceptions(&policy)?;
    let list = read(&directory.join("devices.list"))?;
    let mut present = BTreeMap::new();
    match parse_list(&list) {
        Some(list) => present = list,
        None => write(&deny, "a").with_context(|| tell(&deny))?,
    }
    let lacks = |from: &BTreeMap<Name, Access>, name: &Name, access: &Access| {
        access.0 & !from.get(name).map_or(0, |access| access.0)
    };
    let more = |of: &BTreeMap<Name, Access>, than: &BTreeMap<Name, Access>| -> Vec<String> {
        let extra = of.iter().map(|(name, access)| (*name, Access(lacks(than, name, access))));
        extra.filter(|(_, access)| access.0 != 0).map(|(name, access)| line(name, access)).collect()
    };
    write_lines(&allow, &more(&wanted, &present))?;
    write_lines(&deny, &more(&present, &wanted))
}

fn write_lines(path: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).open(path).with_context(|| format!("open {}", path.display()))?;
    for line in lines {
        file.write_all(line.as_bytes()).with_context(|| format!("write `{line}` to {}", path.display()))?;
    }
    Ok(())
}

fn line((class, major, minor): Name, access: Access) -> String {
    let letter = if class == Class::Block { 'b' } else { 'c' };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    format!("{letter} {}:{} {}", number(major), number(minor), access.text())
}

/// The list of what is allowed where all else is denied; `None`: everything is allowed.
fn parse_list(text: &str) -> Option<BTreeMap<Name, Access>> {
    let mut list = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let class = match fields.next()? {
            "b" => Class::Block,
            "c" => Class::Character,
            _ => return None,
        };
        let (major, minor) = fields.next()?.split_once(':')?;
        list.insert((class, major.parse().ok(), minor.parse().ok()), Access::parse(fields.next()?).ok()?);
    }
    Some(list)
}

/// Version 1 has a list of what is allowed and no way to except a part of an entry.
fn exceptions(policy: &Policy) -> Result<BTreeMap<Name, Access>> {
    let mut list: BTreeMap<Name, Access> = BTreeMap::new();
    for rule in &policy.rules {
        let name = (rule.class, rule.major, rule.minor);
        let covers = |a: Option<u32>, b: Option<u32>| a.is_none() || a == b;
        if rule.allow {
            list.entry(name).or_insert(Access(0)).0 |= rule.access.0;
            continue;
        }
        for (&(class, major, minor), access) in &mut list {
            if class != rule.class || access.0 & rule.access.0 == 0 {
                continue;
            }
            if covers(rule.major, major) && covers(rule.minor, minor) {
                access.0 &= !rule.access.0;
            } else if covers(major, rule.major) && covers(minor, rule.minor) {
                bail!(
                    "device rule: cgroup v1 cannot deny `{}` out of what is allowed before it",
                    line(name, rule.access)
                );
            }
        }
    }
    list.retain(|_, access| access.0 != 0);
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(json).unwrap()
    }

    /// Runs the program on one access, for the operations that `assemble` emits.
    fn run(code: &[Instruction], class: Class, (major, minor): (u32, u32), access: &str) -> bool {
        let context = [Access::parse(access).unwrap().0 << 16 | class as i32, major as i32, minor as i32];
        let mut registers = [0i64; 16];
        let mut pc = 0usize;
        loop {
            let i = code[pc];
            pc += 1;
            let (target, source) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            let mut jump = |holds: bool| pc += if holds { i.offset as usize } else { 0 };
            match i.code {
                LOAD_WORD => registers[target] = i64::from(context[i.offset as usize / 4]),
                MOVE => registers[target] = i64::from(i.immediate),
                MOVE_REGISTER => registers[target] = registers[source],
                AND => registers[target] &= i64::from(i.immediate),
                SHIFT_RIGHT => registers[target] >>= i.immediate,
                JUMP_EQUAL => jump(registers[target] == i64::from(i.immediate)),
                JUMP_NOT_EQUAL => jump(registers[target] != i64::from(i.immediate)),
                JUMP_NOT_EQUAL_REGISTER => jump(registers[target] != registers[source]),
                EXIT => return registers[0] != 0,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let rules = rules(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
                {"allow":true,"type":"c","major":10,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#,
        );
        let code = assemble(&policy(&rules).unwrap());
        let check = |class, device, access: &str, expected| {
            assert_eq!(run(&code, class, device, access), expected, "{class:?} {device:?} {access}");
        };
        check(Class::Block, (8, 0), "r", true);
        check(Class::Block, (8, 0), "rw", false);
        check(Class::Block, (8, 0), "w", false);
        check(Class::Block, (8, 1), "r", false);
        check(Class::Block, (8, 1), "m", true);
        check(Class::Character, (10, 7), "rw", true);
        check(Class::Character, (10, 200), "r", true);
        check(Class::Character, (10, 200), "rw", false);
        check(Class::Character, (1, 3), "rw", true);
        check(Class::Character, (1, 1), "r", false);
        check(Class::Character, (136, 9), "rw", true);
    }

    #[test]
    fn all_allowed() {
        let policy = policy(&rules(r#"[{"allow":true,"type":"a","access":"rwm"}]"#)).unwrap();
        assert!(run(&assemble(&policy), Class::Block, (8, 0), "rwm"));
        assert!(policy.rules.is_empty());
    }

    #[test]
    fn lists_of_version_1() {
        let wanted = rules(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"}]"#);
        let list = exceptions(&policy(&wanted).unwrap()).unwrap();
        assert_eq!(list.get(&(Class::Block, Some(8), Some(0))), Some(&Access(2)));
        assert_eq!(list.len(), 11);
        assert_eq!(parse_list("c 1:3 rwm\nb *:* m\n").unwrap().len(), 2);
        assert_eq!(parse_list("a *:* rwm\n"), None);
        let part = rules(
            r#"[{"allow":true,"type":"c","major":10,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#,
        );
        let error = exceptions(&policy(&part).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "device rule: cgroup v1 cannot deny `c 10:200 w` out of what is allowed before it");
    }
}
