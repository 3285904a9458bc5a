//! The process: arguments, environment, ids, capabilities, limits.

use super::{Facts, security};
use crate::failure::{Failure, Kind};
use crate::model::container::ContainerSpec;
use crate::model::resource::Ulimit;
use crate::state::container::ContainerRecord;
use anyhow::{Context, Result};
use oci_spec::runtime::{
    Box as ConsoleBox, BoxBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User,
};

/// What the kernel calls "no limit".
const INFINITY: u64 = u64::MAX;

/// podman's defaults, where the host allows them.
const DEFAULT_NOFILE: u64 = 1_048_576;
const DEFAULT_NPROC: u64 = 1_048_576;

pub(super) fn process(record: &ContainerRecord, facts: &Facts) -> Result<Process> {
    let spec = &record.spec;
    let mut process = Process::default();
    let mut user = User::default();
    user.set_uid(facts.user.uid)
        .set_gid(facts.user.gid)
        .set_additional_gids((!facts.user.groups.is_empty()).then(|| facts.user.groups.clone()))
        .set_umask(Some(spec.process.umask.unwrap_or(0o022)));
    process
        .set_terminal(Some(spec.stdio.tty))
        .set_console_size(facts.console_size.map(console_size).transpose()?)
        .set_user(user)
        .set_args(Some(arguments(spec, facts)?))
        .set_env(Some(environment(record, facts)))
        .set_cwd(spec.process.workdir.clone().unwrap_or_else(|| "/".to_owned()).into())
        .set_capabilities(Some(security::capabilities(&spec.security, facts.user.uid, facts.capabilities)?))
        .set_rlimits(if spec.ulimits_host { None } else { Some(rlimits(&spec.ulimits, facts)?) })
        .set_no_new_privileges(Some(spec.security.no_new_privileges))
        .set_oom_score_adj(spec.oom_score_adj)
        .set_apparmor_profile(facts.apparmor.clone())
        .set_selinux_label(facts.selinux.clone());
    Ok(process)
}

fn arguments(spec: &ContainerSpec, _facts: &Facts) -> Result<Vec<String>> {
    let mut arguments: Vec<String> = Vec::new();
    if spec.process.init {
        arguments.extend([crate::bundle::mount::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let before = arguments.len();
    arguments.extend(spec.process.entrypoint.iter().flatten().cloned());
    arguments.extend(spec.process.command.iter().cloned());
    if arguments.len() == before {
        return Err(Failure::new(
            Kind::NotFound,
            "no command or entrypoint provided, and no CMD or ENTRYPOINT from image",
        )
        .into());
    }
    Ok(arguments)
}

/// The whole environment: literals of image and flags, a fixed list of ours, nothing of the host's.
fn environment(record: &ContainerRecord, facts: &Facts) -> Vec<String> {
    let spec = &record.spec;
    let mut list: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => list.push((name.to_owned(), value.to_owned())),
    };
    if !spec.process.unset_env_all {
        set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        if spec.stdio.tty {
            set("TERM", "xterm");
        }
        // Programs look for this variable to know where they are; the word is the one they look for.
        set("container", "podman");
    }
    for (name, value) in facts.environment.iter().chain(&spec.process.env) {
        set(name, value);
    }
    let given = |name: &str| spec.process.env.iter().any(|(known, _)| known == name);
    if !given("HOME") {
        set("HOME", &facts.user.home);
    }
    if !given("HOSTNAME") && !facts.hostname.is_empty() {
        set("HOSTNAME", &facts.hostname);
    }
    list.retain(|(name, _)| !spec.process.unset_env.contains(name));
    list.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Asked limits as they are, "no limit" and the defaults as far as the host goes.
fn rlimits(asked: &[Ulimit], facts: &Facts) -> Result<Vec<PosixRlimit>> {
    let mut limits = Vec::new();
    let hard = |name: &str| match facts.may_raise_limits {
        true => INFINITY,
        false => facts.hard_limits.get(name).copied().unwrap_or(INFINITY),
    };
    for limit in asked {
        let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        let kind: PosixRlimitType = serde_json::from_value(serde_json::Value::from(name))
            .with_context(|| format!("--ulimit {}: unknown limit", limit.name))?;
        let reachable = |value: u64| if value == INFINITY { hard(&limit.name) } else { value };
        limits.push(rlimit(kind, reachable(limit.soft), reachable(limit.hard))?);
    }
    let defaults = [
        ("nofile", PosixRlimitType::RlimitNofile, DEFAULT_NOFILE),
        ("nproc", PosixRlimitType::RlimitNproc, DEFAULT_NPROC),
    ];
    for (name, kind, wanted) in defaults {
        if asked.iter().any(|limit| limit.name == name) {
            continue;
        }
        let value = wanted.min(hard(name));
        limits.push(rlimit(kind, value, value)?);
    }
    Ok(limits)
}

fn rlimit(kind: PosixRlimitType, soft: u64, hard: u64) -> Result<PosixRlimit> {
    Ok(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build()?)
}

fn console_size((rows, columns): (u64, u64)) -> Result<ConsoleBox> {
    Ok(BoxBuilder::default().height(rows).width(columns).build()?)
}
