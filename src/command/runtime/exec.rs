//! `exec`.

use super::global::Global;
use super::relay;
use crate::failure::{Explain, Kind};
use crate::runtime::lifecycle::{self, Console, Container, ExecRequest};
use crate::sys::seal;
use anyhow::{Context, Result, bail};
use clap::Parser;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, User};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// The options of `exec`.
#[derive(Parser)]
pub struct Exec {
    /// Socket that the master of the terminal is sent to.
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Working directory.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// More of the environment.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// With a terminal.
    #[arg(short, long)]
    tty: bool,
    /// As this user.
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// In these groups as well.
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<String>,
    /// The process as JSON; the options about it are then not used.
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Do not wait for its end.
    #[arg(short, long)]
    detach: bool,
    /// File that its pid is written to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket that a pidfd of it is sent to.
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// SELinux label.
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile.
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Nothing it runs gains privileges.
    #[arg(long)]
    no_new_privs: bool,
    /// With this capability as well.
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Pass so many descriptors on, from 3.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// In this group below the container's.
    #[arg(long, value_name = "[CONTROLLERS:]PATH")]
    cgroup: Vec<String>,
    /// Also in a paused container.
    #[arg(long)]
    ignore_paused: bool,
    /// The container.
    id: String,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// runc's exit code where the process could not be started.
const NOT_STARTED: u8 = 255;

/// Start another process and give its exit code.
pub fn exec(global: &Global, args: Exec) -> Result<ExitCode> {
    try_exec(global, args).kind(Kind::Code(NOT_STARTED))
}

fn try_exec(global: &Global, args: Exec) -> Result<ExitCode> {
    seal::reexec_sealed().context("seal the program")?;
    let container = global.container(&args.id)?;
    let is_detached = args.detach;
    let fallback = if is_detached { Console::None } else { Console::Caller };
    let request = ExecRequest {
        process: process(&container, &args)?,
        console: args.console_socket.map_or(fallback, Console::Socket),
        pid_file: args.pid_file,
        pidfd_socket: args.pidfd_socket,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        debug: global.debug,
        cgroups: args.cgroup,
    };
    let signals = if is_detached { None } else { Some(relay::Signals::block()?) };
    let (running, terminal) = lifecycle::exec(&container, request, &mut |note| global.note(note))?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    Ok(ExitCode::from(relay::until_end(&running, terminal, signals)?.code() as u8))
}

fn process(container: &Container, args: &Exec) -> Result<Process> {
    if let Some(path) = &args.process {
        let text = std::fs::read(path).with_context(|| format!("read --process {}", path.display()))?;
        let text = lifecycle::with_known_names(&text);
        let what = || format!("read --process {}", path.display());
        let mut document: Value = serde_json::from_slice(&text).with_context(what)?;
        if let Some(fields) = document.as_object_mut() {
            // Programs that have no user in mind leave it out.
            fields.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
        }
        let mut process: Process = serde_path_to_error::deserialize(document).with_context(what)?;
        if args.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if args.command.is_empty() {
        bail!("exec needs a command, or --process");
    }
    let spec = container.spec()?;
    let mut process = spec.process().clone().context("process: missing in the container's config.json")?;
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(args.env.iter().cloned());
    process.set_env(Some(environment));
    if let Some(user) = &args.user {
        process.set_user(parse_user(user, process.user())?);
    }
    if !args.additional_gids.is_empty() {
        let more = args.additional_gids.iter().map(|text| id(text, "--additional-gids")).collect::<Result<Vec<_>>>()?;
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(more);
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// Numbers only: names would have to be looked up in the container's own files (CVE-2016-3697, CVE-2026-30892).
fn parse_user(text: &str, before: &User) -> Result<User> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let mut user = before.clone();
    user.set_uid(id(uid, "--user")?);
    if let Some(gid) = gid {
        user.set_gid(id(gid, "--user")?);
    }
    Ok(user)
}

fn id(text: &str, option: &str) -> Result<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(id) if is_number && id != u32::MAX => Ok(id),
        _ => bail!("{option}: {text:?} is not a number of a user or group"),
    }
}

fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = Capabilities::new();
    for name in names {
        let capability: Capability = name
            .to_ascii_uppercase()
            .trim_start_matches("CAP_")
            .parse()
            .ok()
            .with_context(|| format!("--cap: unknown capability {name:?}"))?;
        added.insert(capability);
    }
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&added).copied().collect());
    let mut capabilities = process.capabilities().clone().unwrap_or_else(LinuxCapabilities::default);
    capabilities.set_bounding(with(capabilities.bounding()));
    capabilities.set_effective(with(capabilities.effective()));
    capabilities.set_permitted(with(capabilities.permitted()));
    // Ambient ones are lost on a process that inherits nothing; with some to inherit they are meant to be kept.
    if capabilities.inheritable().as_ref().is_some_and(|inheritable| !inheritable.is_empty()) {
        capabilities.set_ambient(with(capabilities.ambient()));
    }
    process.set_capabilities(Some(capabilities));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let before = User::default();
        let user = parse_user("1000:7", &before).unwrap();
        assert_eq!((user.uid(), user.gid()), (1000, 7));
        for wrong in ["", "root", "1000abc", "0x0", "-1", "+1", "4294967295", "4294967296", "1:", ":1", "1:2:3"] {
            assert!(parse_user(wrong, &before).is_err(), "{wrong}");
        }
    }
}
