//! The options before the verb, and the log.

use crate::failure::{Failure, Kind};
use crate::runtime::cgroup::Manager;
use crate::runtime::lifecycle::{Container, Note, Root, default_root};
use anyhow::{Result, bail};
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;

/// The options of runc, and those of crun that programs use.
#[derive(Parser, Debug)]
#[command(no_binary_name = true, disable_version_flag = true)]
pub struct Options {
    /// Directory of the containers' state.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File that errors are appended to.
    #[arg(long, value_name = "FILE")]
    log: Option<String>,
    /// How they are written: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Errors below this level are not logged.
    #[arg(long, value_name = "LEVEL", value_parser = ["debug", "info", "warning", "error"], hide = true)]
    log_level: Option<String>,
    /// Log every step of a plan as well.
    #[arg(long)]
    debug: bool,
    /// Make cgroups by asking systemd for scopes.
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes cgroups: systemd, cgroupfs or disabled.
    #[arg(long, value_name = "MANAGER", value_parser = ["systemd", "cgroupfs", "disabled"])]
    cgroup_manager: Option<String>,
    /// Whether an ordinary user runs this: true, false or auto.
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = ["true", "false", "auto"])]
    rootless: String,
    /// Path of the criu program; it is not used.
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print the version.
    #[arg(short = 'v', long)]
    version: bool,
}

/// What they come to.
pub struct Global {
    pub root: Root,
    /// The directory was named, so it must be there.
    pub root_is_named: bool,
    /// None: no cgroups are made.
    pub manager: Option<Manager>,
    pub rootless: bool,
    pub debug: bool,
    log: Option<PathBuf>,
    is_json: bool,
}

/// Options that take a value as the next word.
const WITH_VALUE: [&str; 7] =
    ["--root", "--log", "--log-format", "--log-level", "--cgroup-manager", "--rootless", "--criu"];

/// Split the command line at the verb.
pub fn parse(arguments: &[OsString]) -> Result<(Global, &[OsString])> {
    let mut count = 0;
    while let Some(word) = arguments.get(count).filter(|word| word.as_encoded_bytes().starts_with(b"-")) {
        count += if WITH_VALUE.iter().any(|name| word == name) { 2 } else { 1 };
    }
    let count = count.min(arguments.len());
    let options = &arguments[..count];
    if options.iter().any(|word| word == "--help" || word == "-h") {
        super::print_help();
        return Err(Failure::new(Kind::Silent(0), "").into());
    }
    let options = if options.is_empty() {
        Options::default_options()
    } else {
        Options::try_parse_from(options).map_err(super::wrong_usage)?
    };
    if options.version {
        let (name, _) = super::called();
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("{name} version {version}\ncommit: v{version}\nspec: {}\n", super::describe::SPEC_VERSION);
        crate::command::present::text(&text)?;
        return Err(Failure::new(Kind::Silent(0), "").into());
    }
    Ok((Global::new(options)?, &arguments[count..]))
}

impl Options {
    /// As clap would give them; building its parser takes longer than a system call or fifty.
    fn default_options() -> Options {
        Options {
            root: None,
            log: None,
            log_format: "text".to_owned(),
            log_level: None,
            debug: false,
            systemd_cgroup: false,
            cgroup_manager: None,
            rootless: "auto".to_owned(),
            criu: None,
            version: false,
        }
    }
}

impl Global {
    fn new(options: Options) -> Result<Global> {
        let rootless = match options.rootless.as_str() {
            "true" => true,
            "false" => false,
            _ => is_rootless(),
        };
        let wants_systemd = options.systemd_cgroup || options.cgroup_manager.as_deref() == Some("systemd");
        Ok(Global {
            root_is_named: options.root.is_some(),
            root: Root::new(options.root.unwrap_or_else(|| default_root(rootless))),
            manager: match options.cgroup_manager.as_deref() {
                Some("disabled") => None,
                _ if wants_systemd => Some(Manager::Systemd),
                _ => Some(Manager::Cgroupfs),
            },
            rootless,
            debug: options.debug,
            log: options.log.map(|log| log_file(&log)).transpose()?.flatten(),
            is_json: options.log_format == "json",
        })
    }

    /// A container by its id. One that is still being made is not there yet.
    pub fn container(&self, id: &str) -> Result<Container> {
        let container = self.root.container(id)?;
        if container.record.pid == 0 {
            bail!("container {id} does not exist: it is being created, or its creation was cut short");
        }
        Ok(container)
    }

    /// Tell what went wrong beside a success.
    pub fn warn(&self, error: &anyhow::Error) {
        self.note(Note::Warning(&crate::failure::message_of(error)));
    }

    /// Pass on what a container's making has to tell.
    pub fn note(&self, note: Note<'_>) {
        match note {
            // Without a log, debugging is for whoever sits there.
            Note::Step(line) if self.log.is_none() => eprintln!("{}", self.record("debug", line)),
            Note::Step(line) => self.log("debug", line),
            Note::Warning(message) => {
                self.log("warning", message);
                eprintln!("warning: {message}");
            }
        }
    }

    /// Append one record to the log.
    pub fn log(&self, level: &str, message: &str) {
        let Some(path) = &self.log else { return };
        // The failure is on stderr as well; a log that cannot be written must not hide it.
        let _ = crate::state::file::append(path, format!("{}\n", self.record(level, message)).as_bytes());
    }

    /// A record in the form that shims parse.
    fn record(&self, level: &str, message: &str) -> String {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if self.is_json {
            return serde_json::json!({"level": level, "msg": message, "time": time}).to_string();
        }
        format!("time={time:?} level={level} msg={message:?}")
    }
}

/// runc's path, or crun's `file:PATH`.
fn log_file(log: &str) -> Result<Option<PathBuf>> {
    let path = match log.split_once(':') {
        Some(("file", path)) => path,
        Some((driver, _)) if !driver.contains('/') => {
            bail!("--log {log:?}: there is no log driver {driver:?}, only a file")
        }
        _ => log,
    };
    Ok(Some(path).filter(|path| !path.is_empty() && *path != "/dev/stderr").map(PathBuf::from))
}

/// Not root, or root in a user namespace only.
fn is_rootless() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    !whole && !map.is_empty()
}
