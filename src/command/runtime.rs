//! `coracle oci …`, and the same under the names coracle-oci, runc and crun: runc's command line, so that containerd,
//! CRI-O, Docker and podman can use it as their runtime. Thin, straight onto `runtime/`; it has no store.
//!
//! Every failure is one line on stderr and, with `--log`, one record in the log in the form that shims parse.

mod control;
mod create;
mod describe;
mod exec;
mod global;
mod observe;
mod relay;
mod update;

use crate::failure::{self, Failure, Kind};
use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use global::Global;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A command of the runtime: its name, the words after it, and what it does with them.
struct Verb {
    name: &'static str,
    words: &'static str,
    run: fn(&Global, &[OsString]) -> Result<ExitCode>,
    about: &'static str,
}

const fn verb(
    name: &'static str,
    words: &'static str,
    about: &'static str,
    run: fn(&Global, &[OsString]) -> Result<ExitCode>,
) -> Verb {
    Verb { name, words, run, about }
}

const VERBS: &[Verb] = &[
    verb("create", "CONTAINER", "create a container", |g, w| create::create(g, parse(w)?)),
    verb("start", "CONTAINER", "execute the command of a created container", |g, w| control::start(g, parse(w)?)),
    verb("run", "CONTAINER", "create and start a container", |g, w| create::run(g, parse(w)?)),
    verb("exec", "CONTAINER cmd", "execute another process in a container", |g, w| exec::exec(g, parse(w)?)),
    verb("state", "CONTAINER", "print the state of a container", |g, w| observe::state(g, parse(w)?)),
    verb("list", "", "list containers", |g, w| observe::list(g, parse(w)?)),
    verb("ps", "CONTAINER [PS OPTION...]", "list the processes of a container", |g, w| observe::ps(g, parse(w)?)),
    verb("events", "CONTAINER", "print usage and out-of-memory events", |g, w| observe::events(g, parse(w)?)),
    verb("kill", "CONTAINER [SIGNAL]", "send a signal to a container", |g, w| control::kill(g, parse(w)?)),
    verb("pause", "CONTAINER", "stop all processes where they are", |g, w| control::pause(g, parse(w)?)),
    verb("resume", "CONTAINER", "let paused processes go on", |g, w| control::resume(g, parse(w)?)),
    verb("update", "CONTAINER", "change resource limits", |g, w| update::update(g, parse(w)?)),
    verb("delete", "CONTAINER...", "remove a container that has ended", |g, w| control::delete(g, parse(w)?)),
    verb("spec", "", "write a template of config.json", |g, w| describe::spec(g, parse(w)?)),
    verb("features", "", "print what this runtime can do", |g, w| describe::features(g, parse(w)?)),
    verb("checkpoint", "CONTAINER", "refused: a container cannot be frozen to disk", |_, w| {
        describe::checkpoint(parse(w)?)
    }),
    verb("restore", "CONTAINER", "refused, as checkpoint is", |_, w| describe::checkpoint(parse(w)?)),
];

/// The arguments for the runtime, if it is the runtime that was called.
pub fn arguments(arguments: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = arguments.split_first()?;
    let name = Path::new(name).file_name()?.to_str()?;
    match rest.first() {
        _ if is_runtime_name(name) => Some(rest),
        Some(first) if first == "oci" => Some(&rest[1..]),
        _ => None,
    }
}

fn is_runtime_name(name: &str) -> bool {
    matches!(name, "coracle-oci" | "runc" | "crun")
}

/// Run the runtime's command line.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let (global, words) = match global::parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    match dispatch(&global, words) {
        Ok(code) => code,
        Err(error) => report(&global, &error),
    }
}

fn dispatch(global: &Global, words: &[OsString]) -> Result<ExitCode> {
    let Some((name, rest)) = words.split_first() else {
        print_help();
        return Ok(ExitCode::SUCCESS);
    };
    let name = name.to_string_lossy();
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => match (verb.run)(global, rest) {
            Err(error) if error.is::<Help>() => print_verb_help(verb, &error.to_string()),
            other => other,
        },
        None if name == "help" => {
            print_help();
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Failure::new(Kind::Missing, format!("No help topic for '{name}': there is no such command"))
            .hint("`coracle oci --help` lists the commands")
            .into()),
    }
}

/// The options of one verb; help ends the process here, as it does everywhere in clap.
fn parse<T: CommandFactory + FromArgMatches>(words: &[OsString]) -> Result<T> {
    let mut command = T::command().no_binary_name(true).disable_version_flag(true);
    let matches = command.try_get_matches_from_mut(words).map_err(wrong_usage)?;
    T::from_arg_matches(&matches).map_err(wrong_usage)
}

fn wrong_usage(error: clap::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::DisplayHelp => Help(error.to_string()).into(),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Failure::new(Kind::Missing, first).into()
        }
    }
}

/// Not a failure: help was asked for, and clap wrote this.
#[derive(Debug)]
struct Help(String);

impl std::fmt::Display for Help {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Help {}

/// By what name we were called, and how a command is then written.
fn called() -> (String, &'static str) {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let name = path.file_name().map_or_else(|| "coracle".to_owned(), |name| name.to_string_lossy().into_owned());
    let is_runtime = is_runtime_name(&name);
    (name, if is_runtime { "" } else { " oci" })
}

/// Help for one verb, in runc's order with crun's line of usage.
fn print_verb_help(verb: &Verb, help: &str) -> Result<ExitCode> {
    let (name, oci) = called();
    let Verb { name: word, words, about, .. } = verb;
    let at = ["Options:", "Arguments:"].into_iter().filter_map(|title| help.find(title)).min().unwrap_or(help.len());
    let usage = format!("Usage: {name}{oci} [OPTION...] {word} {words}");
    let text = format!("NAME:\n   {name}{oci} {word} - {about}\n\n{}\n\n{}\n", usage.trim_end(), help[at..].trim_end());
    super::present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn print_help() {
    let (name, oci) = called();
    let mut text = format!("NAME:\n   {name}{oci} - Open Container Initiative runtime\n\n");
    text.push_str(&format!("Usage: {name}{oci} [OPTION...] COMMAND [ARGUMENT...]\n\nCommands:\n"));
    for verb in VERBS {
        text.push_str(&format!("  {:10} {}\n", verb.name, verb.about));
    }
    text.push('\n');
    let options = global::Options::command().render_help().to_string();
    text.push_str(options.split_once("Options:").map_or("", |(_, options)| options).trim_start_matches('\n'));
    // Where nobody reads help there is nothing to help.
    let _ = super::present::text(&format!("{}\n", text.trim_end()));
}

/// A wrong option before the verb: there is no log yet.
fn usage(error: &anyhow::Error) -> ExitCode {
    if let Kind::Silent(code) = failure::kind_of(error) {
        return ExitCode::from(code);
    }
    tell(error);
    ExitCode::from(1)
}

fn tell(error: &anyhow::Error) {
    eprintln!("{}", failure::message_of(error));
    if let Some(hint) = failure::hint_of(error) {
        eprintln!("hint: {hint}");
    }
}

/// Tell a failure on stderr and in the log. runc's exit codes: 1, and those of `exec` are its own affair.
fn report(global: &Global, error: &anyhow::Error) -> ExitCode {
    let kind = failure::kind_of(error);
    if let Kind::Silent(code) = kind {
        return ExitCode::from(code);
    }
    global.log("error", &failure::message_of(error));
    tell(error);
    match kind {
        Kind::Code(code) => ExitCode::from(code),
        _ => ExitCode::from(1),
    }
}

/// An id and nothing else.
#[derive(Parser)]
struct IdOnly {
    /// The container.
    id: String,
}
