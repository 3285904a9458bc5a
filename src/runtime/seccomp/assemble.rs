//! Ranges of call numbers to BPF instructions. Knows numbers and masks only; what they mean is mod.rs's affair.
//!
//! A program is a chain over the ABIs, then a binary search over the call number, then the conditions of that call.
//! Each piece is position independent and ends in a return, so pieces are put together by concatenation.
#![forbid(unsafe_code)]

use super::X32_BIT;
use libc::sock_filter;

/// A way to enter the kernel: its audit number and its column in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
}

impl Abi {
    /// This ABI's number of a call.
    pub(super) fn number(self, numbers: &[u16; 5]) -> Option<u32> {
        let column = match self {
            Abi::X86_64 => 0,
            Abi::I386 => 1,
            Abi::X32 => 2,
            Abi::Aarch64 => 3,
            Abi::Arm => 4,
        };
        match numbers[column] {
            super::table::NONE => None,
            private @ 0xf000.. => Some(0xf_0000 | u32::from(private & 0xfff)),
            number => Some(u32::from(number)),
        }
    }

    /// AUDIT_ARCH_*.
    pub(super) fn audit(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::I386 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
        }
    }

    /// Arguments have 64 bits.
    pub(super) fn wide(self) -> bool {
        !matches!(self, Abi::I386 | Abi::Arm)
    }
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    NotEqual { index: u8, value: u64 },
    Less { index: u8, value: u64 },
    LessOrEqual { index: u8, value: u64 },
    GreaterOrEqual { index: u8, value: u64 },
    Greater { index: u8, value: u64 },
    MaskedEqual { index: u8, mask: u64, value: u64 },
}

/// All conditions hold: the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Return(u32),
    /// The first rule that holds, else the default.
    Rules {
        rules: Vec<Rule>,
        default: u32,
    },
}

/// The calls from this number to the next segment's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u32,
    pub(super) leaf: Leaf,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const NOT_LESS: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Offsets in struct seccomp_data; both supported machines are little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
fn argument_low(index: u8) -> u32 {
    16 + 8 * u32::from(index)
}
fn argument_high(index: u8) -> u32 {
    argument_low(index) + 4
}

type Code = Vec<sock_filter>;

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes `jt` instructions further when the test holds, `jf` when not.
fn test(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The whole filter: an architecture without a section is killed, as no rule can say what its numbers mean.
pub(super) fn program(sections: &[(Abi, Vec<Segment>)]) -> Code {
    let mut code = vec![statement(LOAD, ARCHITECTURE)];
    for (abi, segments) in sections {
        if *abi == Abi::X32 {
            continue; // shares x86_64's audit number, see there
        }
        let mut section = vec![statement(LOAD, NUMBER)];
        if *abi == Abi::X86_64 {
            x32(&mut section, sections);
        }
        search(&mut section, segments, *abi);
        code.push(test(EQUAL, abi.audit(), 1, 0));
        code.push(statement(JUMP, section.len() as u32));
        code.append(&mut section);
    }
    code.push(statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    code
}

/// Numbers with the x32 bit: their own section, or death; but -1 is no x32 call, a tracer may have put it there.
fn x32(code: &mut Code, sections: &[(Abi, Vec<Segment>)]) {
    let mut section = match sections.iter().find(|(abi, _)| *abi == Abi::X32) {
        Some((_, segments)) => {
            let mut section = vec![statement(AND, !X32_BIT)];
            search(&mut section, segments, Abi::X32);
            section
        }
        None => vec![statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS)],
    };
    code.push(test(NOT_LESS, X32_BIT, 0, 1));
    code.push(test(EQUAL, u32::MAX, 0, 1));
    code.push(statement(JUMP, section.len() as u32));
    code.append(&mut section);
}

/// Binary search for the segment that holds the number in the accumulator.
fn search(code: &mut Code, segments: &[Segment], abi: Abi) {
    match segments {
        [] => {}
        [segment] => leaf(code, &segment.leaf, abi),
        _ => {
            let (left, right) = segments.split_at(segments.len() / 2);
            let mut lower = Code::new();
            search(&mut lower, left, abi);
            match u8::try_from(lower.len()) {
                Ok(distance) => code.push(test(NOT_LESS, right[0].start, distance, 0)),
                Err(_) => {
                    code.push(test(NOT_LESS, right[0].start, 0, 1));
                    code.push(statement(JUMP, lower.len() as u32));
                }
            }
            code.append(&mut lower);
            search(code, right, abi);
        }
    }
}

fn leaf(code: &mut Code, leaf: &Leaf, abi: Abi) {
    let (rules, default) = match leaf {
        Leaf::Return(action) => return code.push(statement(RETURN, *action)),
        Leaf::Rules { rules, default } => (rules.as_slice(), *default),
    };
    let mut rest = rules;
    while let Some((first, others)) = rest.split_first() {
        let values = equal_values(rest, abi);
        if values.len() > 1 {
            one_of(code, &rest[..values.len()], &values, abi);
            rest = &rest[values.len()..];
        } else {
            rule(code, first, abi);
            rest = others;
        }
    }
    code.push(statement(RETURN, default));
}

/// The values of the leading rules that each compare the same argument with one small number and act alike.
fn equal_values(rules: &[Rule], abi: Abi) -> Vec<u32> {
    let plain = |rule: &Rule| match rule.conditions.as_slice() {
        [Condition::MaskedEqual { index, mask: u64::MAX, value }] => {
            let value = if abi.wide() { u32::try_from(*value).ok()? } else { *value as u32 };
            Some((*index, value, rule.action))
        }
        _ => None,
    };
    let Some((index, _, action)) = rules.first().and_then(plain) else {
        return Vec::new();
    };
    // 200 keeps every jump of `one_of` in a byte.
    rules.iter().take(200).map_while(plain).take_while(|x| x.0 == index && x.2 == action).map(|x| x.1).collect()
}

/// `rules` as one list: the argument is loaded once. (The default profile compares `socket`'s with 30 families.)
fn one_of(code: &mut Code, rules: &[Rule], values: &[u32], abi: Abi) {
    let Some(Condition::MaskedEqual { index, .. }) = rules[0].conditions.first() else {
        return;
    };
    let count = values.len() as u8;
    if abi.wide() {
        code.push(statement(LOAD, argument_high(*index)));
        code.push(test(EQUAL, 0, 0, count + 2));
    }
    code.push(statement(LOAD, argument_low(*index)));
    for (position, value) in values.iter().enumerate() {
        let left = count - 1 - position as u8;
        // Hit: over the remaining tests to the return. The last miss goes past it.
        code.push(test(EQUAL, *value, left, u8::from(left == 0)));
    }
    code.push(statement(RETURN, rules[0].action));
}

/// One rule: falls through to what follows unless all conditions hold. At most 6 conditions of 7, so jumps fit a byte.
fn rule(code: &mut Code, rule: &Rule, abi: Abi) {
    let mut body = vec![statement(RETURN, rule.action)];
    for condition in rule.conditions.iter().rev() {
        let mut check = Code::new();
        compare(&mut check, *condition, abi, body.len() as u8);
        check.append(&mut body);
        body = check;
    }
    code.append(&mut body);
}

/// Falls through when the condition holds, else jumps over the `skip` instructions that follow it.
fn compare(code: &mut Code, condition: Condition, abi: Abi, skip: u8) {
    match condition {
        Condition::MaskedEqual { index, mask, value } => masked_equal(code, (index, mask, value), abi, skip),
        Condition::NotEqual { index, value } => {
            let (high, low) = split(value);
            if abi.wide() {
                code.push(statement(LOAD, argument_high(index)));
                code.push(test(EQUAL, high, 0, 2)); // differs: holds
            }
            code.push(statement(LOAD, argument_low(index)));
            code.push(test(EQUAL, low, skip, 0));
        }
        Condition::Greater { index, value } => ordered(code, (index, value, GREATER), (0, skip)),
        Condition::GreaterOrEqual { index, value } => ordered(code, (index, value, NOT_LESS), (0, skip)),
        Condition::Less { index, value } => ordered(code, (index, value, NOT_LESS), (skip, 0)),
        Condition::LessOrEqual { index, value } => ordered(code, (index, value, GREATER), (skip, 0)),
    }
}

/// `to.0` when the argument is greater (or, as `operator` says, not less) than the value, else `to.1`; both counted from
/// the end of this piece. 32-bit ABIs too compare in full, for the kernel extends their arguments with zeros; equality
/// does not, for a profile's -1 is meant in the argument's width.
fn ordered(code: &mut Code, (index, value, operator): (u8, u64, u16), to: (u8, u8)) {
    let (high, low) = split(value);
    code.push(statement(LOAD, argument_high(index)));
    code.push(test(GREATER, high, to.0 + 3, 0));
    code.push(test(EQUAL, high, 0, to.1 + 2));
    code.push(statement(LOAD, argument_low(index)));
    code.push(test(operator, low, to.0, to.1));
}

fn masked_equal(code: &mut Code, (index, mask, value): (u8, u64, u64), abi: Abi, skip: u8) {
    let (mask_high, mask_low) = split(mask);
    let (high, low) = split(value);
    let mut lower = vec![statement(LOAD, argument_low(index))];
    if mask_low != u32::MAX {
        lower.push(statement(AND, mask_low));
    }
    lower.push(test(EQUAL, low, 0, skip));
    if abi.wide() {
        code.push(statement(LOAD, argument_high(index)));
        if mask_high != u32::MAX {
            code.push(statement(AND, mask_high));
        }
        code.push(test(EQUAL, high, 0, skip + lower.len() as u8));
    }
    code.append(&mut lower);
}

fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
