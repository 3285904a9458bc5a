//! `coracle unshare`.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::host::userns;
use anyhow::Result;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Run a command in the user namespace of your containers
///
/// There you are root, and the files of containers have the owners that containers see: the way to look at or to remove
/// what belongs to your subordinate ids. Without a command it runs your shell.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Become the command.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if !engine.privilege.rootless {
        return Err(Failure::new(Kind::Engine, "please use unshare with rootless").into());
    }
    let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program, rest) = match args.command.split_first() {
        Some((program, rest)) => (program.clone(), rest.to_vec()),
        None => (shell(), Vec::new()),
    };
    let mut command = Command::new(&program);
    command.args(rest).env(userns::UNSHARED, "done");
    command.env(userns::UNSHARED_UID, engine.privilege.caller.uid.to_string());
    command.env("_CONTAINERS_ROOTLESS_GID", engine.privilege.caller.gid.to_string());
    let error = command.exec();
    let kind = if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::NotExecutable };
    Err(anyhow::Error::from(error).context(Failure::new(kind, format!("run {}", program.to_string_lossy()))))
}
