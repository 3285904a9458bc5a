//! Devices: nodes and the rules of the device control group.

use super::Facts;
use crate::failure::{Failure, Kind};
use crate::model::container::ContainerSpec;
use anyhow::Result;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

/// The nodes beyond the fixed set that every container has.
pub(super) fn devices(spec: &ContainerSpec, facts: &Facts) -> Vec<LinuxDevice> {
    let mut devices: Vec<LinuxDevice> = Vec::new();
    if spec.security.privileged {
        devices.extend(facts.host_devices.iter().cloned());
    }
    for device in &facts.devices {
        devices.retain(|known| known.path() != device.path());
        devices.push(device.clone());
    }
    devices
}

/// Deny all, then what was asked; the runtime adds the fixed set. Privileged: allow all.
pub(super) fn rules(spec: &ContainerSpec, facts: &Facts) -> Result<Vec<LinuxDeviceCgroup>> {
    let mut rules = vec![rule(spec.security.privileged, None, None, None, "rwm")];
    if spec.security.privileged {
        return Ok(rules);
    }
    for (device, asked) in facts.devices.iter().zip(access(spec, facts)) {
        rules.push(rule(true, Some(device.typ()), Some(device.major()), Some(device.minor()), asked));
    }
    for text in &spec.device_rules {
        rules.push(parse_rule(text)?);
    }
    Ok(rules)
}

/// The access letters that belong to each of `facts.devices`: a directory stands for several.
fn access<'a>(spec: &'a ContainerSpec, facts: &'a Facts) -> impl Iterator<Item = &'a str> {
    facts.devices.iter().map(|device| {
        let path = device.path().to_string_lossy();
        let asked = spec.devices.iter().rev().find(|asked| {
            path == asked.target || path.strip_prefix(asked.target.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        asked.map_or("rwm", |asked| asked.access.as_str())
    })
}

/// `--device-cgroup-rule`: `c 1:3 rwm`, `b *:* r`, `a 7 rwm`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let wrong = || Failure::new(Kind::Engine, format!("invalid device cgroup rule format: '{text}'"));
    let mut fields = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(wrong().into());
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong().into()),
    };
    let number = |text: &str| if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| wrong()) };
    // Without a minor number it means all of them.
    let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
    if access.is_empty() || !access.bytes().all(|letter| b"rwm".contains(&letter)) {
        return Err(wrong().into());
    }
    Ok(rule(true, Some(kind), number(major)?, number(minor)?, access))
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(kind).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}
