//! The command line: one file per verb.
//!
//! A verb's file holds, in this order, its `Args` (the doc comment is its help and man page) and
//! `pub fn run(args: Args, engine: &Engine) -> Result<ExitCode>`. The table [`VERBS`] names them all; parsing builds the
//! clap command of the one verb that was typed and of no other, so that `version` does not pay for the options of `run`.

#![forbid(unsafe_code)]

mod complete;
mod completion;
mod copy;
mod document;
pub mod flag;
mod forward;
mod global;
mod help;
mod login;
mod logout;
mod manifest;
mod network;
mod pid1;
pub mod present;
mod pull;
mod push;
mod runtime;
mod search;
mod selftest;
mod system;
mod table;

mod artifact;
mod attach;
mod commit;
mod container;
mod cp;
mod create;
mod diff;
mod each;
mod events;
mod exec;
mod export;
mod healthcheck;
mod history;
mod image;
mod images;
mod import;
mod info;
mod init;
mod inspect;
mod kill;
mod load;
mod logs;
mod pause;
mod port;
mod ps;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod start;
mod stats;
mod stop;
mod supervise;
mod tag;
mod top;
mod unpause;
mod unshare;
mod untag;
mod update;
mod version;
mod volume;
mod wait;

use crate::engine::Engine;
use crate::failure::{self, Failure, Kind, Level, note};
use crate::sys::seal;
use anyhow::{Context, Result};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

pub use table::{Entry, VERBS};

/// A command that can be typed.
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Whether it works on files of the user's subordinate ids.
    pub enter: Enter,
    /// Its clap definition.
    pub command: fn() -> clap::Command,
    /// What it does.
    pub run: fn(&ArgMatches, &Engine) -> Result<ExitCode>,
}

/// Whether an ordinary user's command must be root in a user namespace of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// It reads records or talks to supervisors only: no id-map helpers are run.
    Outside,
    /// It touches layers, mounts or starts containers.
    Inside,
    /// The same, and this very process is cloned into a container: it must be the sealed binary.
    Sealed,
}

/// Parse, dispatch, print the failure.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.first().is_some_and(|name| name == crate::bundle::mount::INIT_PATH) {
        return ExitCode::from(pid1::run(&arguments[1..]));
    }
    if arguments.get(1).is_some_and(|word| word == selftest::inside::WORD) {
        return ExitCode::from(selftest::inside::run(&arguments[2..]));
    }
    if let Some(arguments) = runtime::arguments(&arguments) {
        return runtime::main(arguments);
    }
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

fn dispatch(arguments: &[OsString]) -> Result<ExitCode> {
    let (mut global, rest) = match global::parse(arguments)? {
        global::Parsed::Verb(global, rest) => (global, rest),
        global::Parsed::Done(code) => return Ok(code),
    };
    global.use_modules()?;
    let (verb, path, rest) = find(VERBS, help::program(), &rest)?;
    let command =
        || (verb.command)().name(verb.name).bin_name(path.clone()).no_binary_name(true).disable_version_flag(true);
    let parsed = || flag::as_pflag(global::after_verb(command()));
    let matches = match parsed().try_get_matches_from_mut(rest) {
        Ok(matches) => matches,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            // What those manners add to each option is no help to the reader.
            let command = command().visible_aliases(verb.aliases.iter().copied());
            present::text(&help::of_verb(command, &path))?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(usage(&path, error, || help::wrong_count(parsed(), &path, rest))),
    };
    global.overlay(&matches);
    if verb.enter == Enter::Sealed {
        seal::reexec_sealed().context("protect the binary")?;
    }
    let engine = global.open(verb.enter)?;
    note(Level::Debug, || format!("Called {path} ({})", engine.arguments.join(" ")));
    let result = (verb.run)(&matches, &engine);
    note(Level::Debug, || "Shutting down engines".to_owned());
    result
}

/// Walk from group to group down to a verb.
fn find<'a>(
    entries: &'static [Entry],
    path: &str,
    words: &'a [OsString],
) -> Result<(&'static Verb, String, &'a [OsString])> {
    let Some((word, rest)) = words.split_first() else {
        present::text(&help::of_program())?;
        return Err(missing_command(path));
    };
    let word = word.to_string_lossy();
    for entry in entries {
        match entry {
            Entry::Verb(verb) if verb.name == word || verb.aliases.contains(&word.as_ref()) => {
                return Ok((verb, format!("{path} {}", verb.name), rest));
            }
            Entry::Group { name, about, entries } if *name == word => {
                let path = format!("{path} {name}");
                if rest.first().is_none_or(|next| next == "--help" || next == "-h") {
                    present::text(&help::of_group(&path, about, entries))?;
                    let asked = !rest.is_empty();
                    return Err(if asked { Failure::new(Kind::Silent(0), "").into() } else { missing_command(&path) });
                }
                return find(entries, &path, rest);
            }
            _ => {}
        }
    }
    Err(Failure::new(Kind::Engine, format!("unrecognized command `{path} {word}`"))
        .hint(match table::similar(entries, &word) {
            Some(name) => format!("did you mean `{path} {name}`?"),
            None => format!("`{path} --help` lists the commands"),
        })
        .into())
}

fn missing_command(path: &str) -> anyhow::Error {
    Failure::new(Kind::Engine, format!("missing command '{path} COMMAND'"))
        .hint(format!("`{path} --help` lists the commands"))
        .into()
}

/// What clap says of a wrong command line, in our words. A wrong number of arguments is looked into only then.
fn usage(path: &str, error: clap::Error, wrong_count: impl FnOnce() -> Option<String>) -> anyhow::Error {
    // podman's users read where to look in the message itself.
    let of_podman = |message: String| match help::program() {
        "coracle" => message,
        _ => format!("{message}\nSee '{path} --help'"),
    };
    let message = flag::words_of_pflag(&error).map(of_podman).or_else(wrong_count).unwrap_or_else(|| {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let message = text.split("\n\n").next().unwrap_or(text).trim().replace('\n', " ");
        match path.split_once(' ') {
            Some((_, verb)) => format!("{verb}: {message}"),
            None => message.to_owned(),
        }
    });
    Failure::new(Kind::Engine, message).hint(format!("`{path} --help` shows the options")).into()
}

/// The one place that prints a failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let kind = failure::kind_of(error);
    let broken_pipe = error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    });
    if broken_pipe && kind == Kind::Engine {
        return ExitCode::SUCCESS;
    }
    let message = failure::message_of(error);
    if !matches!(kind, Kind::Silent(_)) && !message.is_empty() {
        eprintln!("{} {message}", if help::program() == "coracle" { "coracle:" } else { "Error:" });
        // A script that compares podman's words line by line has no use for one more.
        let is_read_by_people = help::program() == "coracle" || std::io::stderr().is_terminal();
        if let Some(hint) = failure::hint_of(error)
            && is_read_by_people
        {
            eprintln!("hint: {hint}");
        }
    }
    ExitCode::from(kind.exit_code())
}

/// The whole tree of commands, for help, man pages and completions.
pub fn tree() -> clap::Command {
    let mut command = global::Global::command().name("coracle");
    for entry in VERBS {
        command = command.subcommand(table::clap_command(entry));
    }
    command
}

/// Read `Args` out of what clap matched; they were checked already, so this does not fail on user input.
fn arguments<A: FromArgMatches>(matches: &ArgMatches) -> Result<A> {
    A::from_arg_matches(matches).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim()))
}
