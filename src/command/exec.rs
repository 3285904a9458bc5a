//! `coracle exec`.

use super::flag::Surroundings;
use super::flag::process::{lines, put, variable};
use super::present;
use crate::engine::Engine;
use crate::engine::exec::{self, Wish};
use crate::engine::select::{self, latest};
use crate::failure::{Explain, Failure, Kind};
use crate::model::id::Id;
use crate::model::user::UserRef;
use crate::sys::terminal;
use anyhow::{Context, Result, bail};
use std::process::ExitCode;

/// Run a process in a running container
///
/// Exit status: that of the process; 127 if the command is not there, 126 if it cannot be executed, 125 for other
/// failures.
#[derive(clap::Parser, Debug)]
#[command(override_usage = "coracle exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub struct Args {
    /// Read the container ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<String>,
    /// Run it in the background
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the process alone, as ctrl-p,ctrl-q; empty for none
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set an environment variable: NAME=VALUE, or NAME for the caller's value
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Send standard input to the process
    #[arg(short, long)]
    interactive: bool,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Accepted: sessions are never recorded
    #[arg(long, hide = true)]
    no_session: bool,
    /// Pass down so many file descriptors from 3 on
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    preserve_fds: u32,
    /// Give the process all capabilities
    #[arg(long)]
    privileged: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, command and arguments
    #[arg(value_name = "CONTAINER COMMAND [ARG...]", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Run it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let (id, command) = target(&args, engine)?;
    if command.is_empty() {
        return Err(Failure::new(
            Kind::Engine,
            "must provide a non-empty command to start an exec session: invalid argument",
        )
        .into());
    }
    for number in 3..3 + args.preserve_fds {
        if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!(
                "file descriptor {number} is not available - the preserve-fds option requires that file descriptors must be passed"
            );
        }
    }
    if args.tty && args.interactive && !terminal::is_terminal(std::io::stdin()) {
        present::warn("The input device is not a TTY. The --tty and --interactive flags might not work properly");
    }
    let user = args.user.as_deref().filter(|user| !user.is_empty()).map(UserRef::parse).transpose()?;
    let wish = Wish {
        command,
        env: environment(&args, engine)?,
        user,
        workdir: args.workdir.filter(|directory| !directory.is_empty()),
        privileged: args.privileged,
        interactive: args.interactive,
        tty: args.tty,
        preserve_fds: args.preserve_fds,
        detach: args.detach,
        detach_keys: super::flag::detach_keys(args.detach_keys.as_deref())?,
    };
    let detach = wish.detach;
    let result = exec::exec(engine, &id, wish);
    // Its exit codes are those of a process that is waited for.
    let code = if detach { result.kind(Kind::Engine)? } else { result? };
    if detach {
        present::line(crate::engine::create::new_id()?)?;
    }
    Ok(ExitCode::from(code as u8))
}

fn target(args: &Args, engine: &Engine) -> Result<(Id, Vec<String>)> {
    if args.latest && args.cidfile.is_some() {
        bail!("--latest and --cidfile can not be used together");
    }
    if args.latest {
        return Ok((latest(engine)?, args.words.clone()));
    }
    let (name, command) = match (&args.cidfile, args.words.split_first()) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading CIDFile: open {path}"))?;
            (text.lines().next().unwrap_or_default().trim().to_owned(), args.words.clone())
        }
        (None, Some((name, command))) => (name.clone(), command.to_vec()),
        (None, None) => bail!("exec requires the name or ID of a container or the --latest or --cidfile flag"),
    };
    let wish = select::Wish { names: vec![name], ..select::Wish::default() };
    let chosen = select::select(engine, &wish, "exec", |_, _| true)?;
    let id = chosen.first().context("no container")?.id()?.clone();
    Ok((id, command))
}

fn environment(args: &Args, engine: &Engine) -> Result<Vec<(String, String)>> {
    let around = Surroundings::of_process(engine);
    let mut environment = Vec::new();
    for file in &args.env_file {
        for line in lines(file, &around)? {
            variable(&mut environment, &line, &around).with_context(|| format!("parsing file {file:?}"))?;
        }
    }
    for word in &args.env {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => put(&mut environment, name, value),
            _ => variable(&mut environment, word, &around)?,
        }
    }
    Ok(environment)
}
