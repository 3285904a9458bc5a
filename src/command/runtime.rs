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
use clap::{CommandFactory, FromArgMatches, Parser};
use global::Global;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// A command of the runtime: its name and what it does with the words after it.
struct Verb {
    name: &'static str,
    run: fn(&Global, &[OsString]) -> Result<ExitCode>,
    about: &'static str,
}

const VERBS: &[Verb] = &[
    Verb { name: "create", run: |g, w| create::create(g, parse(w)?), about: "create a container" },
    Verb {
        name: "start",
        run: |g, w| control::start(g, parse(w)?),
        about: "execute the command of a created container",
    },
    Verb { name: "run", run: |g, w| create::run(g, parse(w)?), about: "create and start a container" },
    Verb { name: "exec", run: |g, w| exec::exec(g, parse(w)?), about: "execute another process in a container" },
    Verb { name: "state", run: |g, w| observe::state(g, parse(w)?), about: "print the state of a container" },
    Verb { name: "list", run: |g, w| observe::list(g, parse(w)?), about: "list containers" },
    Verb { name: "ps", run: |g, w| observe::ps(g, parse(w)?), about: "list the processes of a container" },
    Verb { name: "events", run: |g, w| observe::events(g, parse(w)?), about: "print usage and out-of-memory events" },
    Verb { name: "kill", run: |g, w| control::kill(g, parse(w)?), about: "send a signal to a container" },
    Verb { name: "pause", run: |g, w| control::pause(g, parse(w)?), about: "stop all processes where they are" },
    Verb { name: "resume", run: |g, w| control::resume(g, parse(w)?), about: "let paused processes go on" },
    Verb { name: "update", run: |g, w| update::update(g, parse(w)?), about: "change resource limits" },
    Verb { name: "delete", run: |g, w| control::delete(g, parse(w)?), about: "remove a container that has ended" },
    Verb { name: "spec", run: |g, w| describe::spec(g, parse(w)?), about: "write a template of config.json" },
    Verb { name: "features", run: |g, w| describe::features(g, parse(w)?), about: "print what this runtime can do" },
];

/// The arguments for the runtime, if it is the runtime that was called.
pub fn arguments(arguments: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = arguments.split_first()?;
    let name = Path::new(name).file_name()?.to_str()?;
    match rest.first() {
        _ if matches!(name, "coracle-oci" | "runc" | "crun") => Some(rest),
        Some(first) if first == "oci" => Some(&rest[1..]),
        _ => None,
    }
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
        Some(verb) => (verb.run)(global, rest),
        None if name == "help" => {
            print_help();
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Failure::new(Kind::Missing, format!("no command {name:?}"))
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
    if !error.use_stderr() {
        super::present::text(&error.to_string())
            .map_or_else(|error| error, |()| Failure::new(Kind::Silent(0), "").into())
    } else {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Failure::new(Kind::Missing, first).into()
    }
}

fn print_help() {
    let mut text = String::from("Usage: coracle oci [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands:\n");
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
