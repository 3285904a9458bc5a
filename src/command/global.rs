//! The options before the verb, and what they decide: where the store is.

use super::{Enter, help};
use crate::engine::Engine;
use crate::failure::{self, Failure, Kind, Level};
use crate::host::{config, userns};
use crate::state::{layout::Layout, version};
use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Manage pods, containers and images
#[derive(Parser, Debug, Default)]
#[command(name = "coracle", version, disable_help_subcommand = true, allow_external_subcommands = true)]
pub struct Global {
    /// Directory of images, containers, volumes and networks.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Directory of what runs.
    #[arg(long, value_name = "DIR")]
    pub runroot: Option<PathBuf>,
    /// Who makes cgroups: `systemd` or `cgroupfs`.
    #[arg(long, value_name = "MANAGER", value_parser = ["systemd", "cgroupfs"])]
    pub cgroup_manager: Option<String>,
    /// Messages below this level are not shown: trace, debug, info, warn, warning, error, fatal or panic.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// The same as `--log-level debug`.
    #[arg(short = 'D', long, hide = true)]
    pub debug: bool,
    /// Storage driver; `overlay` is the only one.
    #[arg(long, value_name = "DRIVER", value_parser = ["overlay"])]
    pub storage_driver: Option<String>,
    /// Where events are kept; `file` is the only backend.
    #[arg(long, value_name = "BACKEND", value_parser = ["file"], hide = true)]
    pub events_backend: Option<String>,
    /// Read this file of containers.conf's format too; a name is looked for in containers.conf.modules; repeatable.
    #[arg(long, value_name = "FILE")]
    pub module: Vec<PathBuf>,
    /// Write what goes to standard output to this file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write nothing to standard output.
    #[arg(long)]
    pub noout: bool,
}

/// podman's levels.
const LOG_LEVELS: [&str; 8] = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"];

/// What the words before the verb came to.
pub enum Parsed {
    /// The options, and the verb with all after it.
    Verb(Global, Vec<OsString>),
    /// Help or version was printed.
    Done(ExitCode),
}

/// Split the command line at the verb.
pub fn parse(arguments: &[OsString]) -> Result<Parsed> {
    use clap::error::ErrorKind;
    let mut command = Global::command().bin_name(help::program());
    let matches = match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let is_help = error.kind() == ErrorKind::DisplayHelp;
            super::present::text(&if is_help { help::of_program() } else { error.to_string() })?;
            return Ok(Parsed::Done(ExitCode::SUCCESS));
        }
        Err(error) => return Err(super::usage(help::program(), error, || None)),
    };
    let mut rest = Vec::new();
    if let Some((name, below)) = matches.subcommand() {
        rest.push(OsString::from(name));
        rest.extend(below.get_many::<OsString>("").into_iter().flatten().cloned());
    }
    // `help VERB` is `VERB --help`.
    if rest.first().is_some_and(|word| word == "help") {
        rest.remove(0);
        if rest.is_empty() {
            super::present::text(&help::of_program())?;
            return Ok(Parsed::Done(ExitCode::SUCCESS));
        }
        rest.push("--help".into());
    }
    let global = Global::from_arg_matches(&matches).unwrap_or_default();
    Ok(Parsed::Verb(global, rest))
}

/// The options of [`Global`] that may also stand after the verb, unless the verb has one of that name itself.
pub fn after_verb(command: clap::Command) -> clap::Command {
    let names: Vec<String> =
        command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned).collect();
    let ids: Vec<String> = command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
    let options = Global::command();
    let free = options.get_arguments().filter(|argument| {
        let is_free = |name: &str| !names.iter().any(|known| known == name);
        !ids.contains(&argument.get_id().to_string()) && argument.get_long().is_some_and(is_free)
    });
    let free: Vec<clap::Arg> = free
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version" | "debug" | "module"))
        .map(|argument| argument.clone().hide(true))
        .collect();
    command.args(free)
}

impl Global {
    /// Take over what stood after the verb.
    pub fn overlay(&mut self, matches: &clap::ArgMatches) {
        // An option that is the verb's own is of another type, or is not there.
        let path = |name: &str| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
        let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
        self.root = path("root").or(self.root.take());
        self.runroot = path("runroot").or(self.runroot.take());
        self.out = path("out").or(self.out.take());
        self.cgroup_manager = text("cgroup_manager").or(self.cgroup_manager.take());
        self.log_level = text("log_level").or(self.log_level.take());
        self.noout |= matches.try_get_one::<bool>("noout").ok().flatten().copied().unwrap_or(false);
    }

    /// Make `--module` part of the configuration.
    pub fn use_modules(&self) -> Result<()> {
        config::use_modules(&self.module).map_err(|error| {
            let cause = failure::message_of(&error);
            let message = format!("Failed to obtain podman configuration: parsing containers.conf: {cause}");
            eprintln!("{message}");
            Failure::new(Kind::Silent(1), "").into()
        })
    }

    fn set_log_level(&self) -> Result<()> {
        let Some(level) = self.log_level.as_deref() else {
            if self.debug {
                failure::set_level(Level::Debug);
            }
            return Ok(());
        };
        failure::set_level(match level.to_ascii_lowercase().as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" | "warning" => Level::Warning,
            "error" | "fatal" | "panic" => Level::Error,
            _ => {
                // podman's words, which stand alone.
                eprintln!("Log Level {level:?} is not supported, choose from: {}", LOG_LEVELS.join(", "));
                return Err(Failure::new(Kind::Silent(1), "").into());
            }
        });
        Ok(())
    }

    /// Put `--out FILE` or nothing in the place of standard output.
    fn redirect(&self) -> Result<()> {
        let target = match (&self.out, self.noout) {
            (_, true) => Path::new("/dev/null"),
            (Some(path), false) => path,
            (None, false) => return Ok(()),
        };
        let file = std::fs::File::create(target).with_context(|| format!("open {}", target.display()))?;
        crate::sys::fd::place_at(std::os::fd::AsFd::as_fd(&file), 1).context("redirect standard output")
    }

    /// Open the store, as the user who is asked for.
    pub fn open(self, enter: Enter) -> Result<Engine> {
        self.set_log_level()?;
        self.redirect()?;
        let caller = userns::Caller::current();
        let data = match &self.root {
            Some(root) => absolute(root)?,
            None => default_data(&caller)?,
        };
        let run = match (&self.runroot, &self.root) {
            (Some(runroot), _) => absolute(runroot)?,
            // A store elsewhere has its own RUN: two stores never mix what runs.
            (None, Some(_)) => data.join("run"),
            (None, None) => default_run(&caller)?,
        };
        let layout = Layout::new(data, run);
        failure::note(Level::Debug, || format!("Using graph root {}", layout.data().display()));
        failure::note(Level::Debug, || format!("Using run root {}", layout.run().display()));
        version::open(&layout)?;
        let privilege = match enter {
            Enter::Outside => userns::outside(&caller),
            Enter::Inside | Enter::Sealed => userns::enter(&caller, layout.run())?,
        };
        Ok(Engine { layout, privilege, cgroup_manager: self.cgroup_manager, arguments: std::env::args().collect() })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("read {}", path.display()))
}

/// Root of a machine, or of a container that has a store of its own; not a user inside `coracle unshare`, who goes on with
/// the store of outside.
fn is_system(caller: &userns::Caller) -> bool {
    caller.is_root() && (std::env::var_os(userns::UNSHARED).is_none() || !userns::outside(caller).rootless)
}

fn default_data(caller: &userns::Caller) -> Result<PathBuf> {
    if is_system(caller) {
        return Ok(PathBuf::from("/var/lib/coracle"));
    }
    if let Some(directory) = absolute_env("XDG_DATA_HOME") {
        return Ok(directory.join("coracle"));
    }
    let home = absolute_env("HOME").ok_or_else(|| {
        Failure::new(Kind::Engine, "find the store: neither XDG_DATA_HOME nor HOME is set")
            .hint("set HOME, or name a directory with --root")
    })?;
    Ok(home.join(".local/share/coracle"))
}

fn default_run(caller: &userns::Caller) -> Result<PathBuf> {
    if is_system(caller) {
        return Ok(PathBuf::from("/run/coracle"));
    }
    if let Some(directory) = absolute_env("XDG_RUNTIME_DIR")
        && is_ours(&directory, caller.uid)
    {
        return Ok(directory.join("coracle"));
    }
    // cron, su, a unit: no XDG_RUNTIME_DIR. Its name has the uid of outside.
    let outside = std::env::var(userns::UNSHARED_UID).ok().filter(|_| caller.is_root());
    let uid = outside.and_then(|uid| uid.parse().ok()).unwrap_or(caller.uid);
    let directory = PathBuf::from(format!("/run/user/{uid}"));
    if is_ours(&directory, caller.uid) {
        return Ok(directory.join("coracle"));
    }
    let directory = PathBuf::from(format!("/tmp/coracle-run-{uid}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make {}", directory.display()));
        }
        _ => {}
    }
    // Somebody else may have made it first, in a directory that all may write.
    let metadata = std::fs::symlink_metadata(&directory).with_context(|| format!("read {}", directory.display()))?;
    if !metadata.is_dir() || metadata.uid() != caller.uid || metadata.mode() & 0o077 != 0 {
        return Err(Failure::new(Kind::Engine, format!("{} is not a directory of yours alone", directory.display()))
            .hint("remove it, or set XDG_RUNTIME_DIR")
            .into());
    }
    Ok(directory.join("coracle"))
}

fn absolute_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn is_ours(directory: &Path, uid: u32) -> bool {
    std::fs::metadata(directory).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid)
}
