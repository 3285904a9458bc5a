//! `create` and `run`.

use super::global::Global;
use super::relay;
use crate::runtime::lifecycle::{self, Console, CreateRequest};
use crate::sys::seal;
use anyhow::{Context, Result};
use clap::{Args, Parser};
use std::path::PathBuf;
use std::process::ExitCode;

/// What both take.
#[derive(Args)]
pub struct Common {
    /// The bundle: a directory with config.json and the root file system.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Socket that the master of the terminal is sent to.
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// File that the pid of the first process is written to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket that a pidfd of it is sent to.
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// Do not use pivot_root, for hosts whose root is a ramfs.
    #[arg(long)]
    no_pivot: bool,
    /// Stay in the caller's session keyring.
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass so many descriptors on, from 3.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Name of the spec in the bundle.
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    config: PathBuf,
    /// The container's id.
    id: String,
}

impl Common {
    fn request(self, global: &Global, fallback: Console) -> Result<CreateRequest> {
        // From here on containers are cloned from this process: it must not lead to a writable binary.
        seal::reexec_sealed().context("seal the program")?;
        let bundle = self.bundle.canonicalize().with_context(|| format!("--bundle {}", self.bundle.display()))?;
        Ok(CreateRequest {
            id: self.id,
            bundle,
            config: self.config,
            console: self.console_socket.map_or(fallback, Console::Socket),
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            manager: global.manager,
            rootless: global.rootless,
            debug: global.debug,
        })
    }
}

/// The options of `create`.
#[derive(Parser)]
pub struct Create {
    #[command(flatten)]
    common: Common,
}

/// Make a container that waits for `start`.
pub fn create(global: &Global, args: Create) -> Result<ExitCode> {
    let request = args.common.request(global, Console::None)?;
    lifecycle::create(&global.root, request, &mut |note| global.note(note))?;
    Ok(ExitCode::SUCCESS)
}

/// The options of `run`.
#[derive(Parser)]
pub struct Run {
    /// Do not wait for its end.
    #[arg(short, long)]
    detach: bool,
    /// Do not remove it at its end.
    #[arg(long)]
    keep: bool,
    /// Do not become the parent of what a shared pid namespace leaves behind.
    #[arg(long)]
    no_subreaper: bool,
    #[command(flatten)]
    common: Common,
}

/// Make a container, start it, and give its exit code.
pub fn run(global: &Global, args: Run) -> Result<ExitCode> {
    let fallback = if args.detach { Console::None } else { Console::Caller };
    let request = args.common.request(global, fallback)?;
    if !args.detach && !args.no_subreaper {
        crate::sys::process::set_child_subreaper()?;
    }
    // Before anything is to be forwarded.
    let signals = if args.detach { None } else { Some(relay::Signals::block()?) };
    let (container, running, terminal) = lifecycle::run(&global.root, request, &mut |note| global.note(note))?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let ended = relay::until_end(&running, terminal, signals);
    if !args.keep {
        for failure in container.delete(true)? {
            global.warn(&failure);
        }
    }
    Ok(ExitCode::from(ended?.code() as u8))
}
