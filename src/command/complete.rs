//! `coracle complete -- WORD…`: what could stand for the last word. The scripts of `coracle completion` ask it.
//!
//! One candidate a line, with a tab and a description where there is one; `:files` or `:directories` asks the shell
//! for paths besides. It only reads, and when something is wrong it says nothing: a shell is waiting.

use super::present;
use crate::engine::Engine;
use crate::image::reference::Reference;
use anyhow::Result;
use clap::ValueHint;
use std::path::Path;
use std::process::ExitCode;

/// List what could stand for the last of the words
#[derive(clap::Parser, Debug)]
#[command(hide = true)]
pub struct Args {
    /// Candidates only
    #[arg(long)]
    no_descriptions: bool,
    /// The words after `coracle`; the last one is being typed
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Print the candidates.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let mut text = String::new();
    let tree = super::tree();
    for answer in answers(&tree, &args.words, &|kind| names(engine, kind)) {
        match answer {
            Answer::Word(word, help) if help.is_empty() || args.no_descriptions => text.push_str(&word),
            Answer::Word(word, help) => text.push_str(&format!("{word}\t{help}")),
            Answer::Files => text.push_str(":files"),
            Answer::Directories => text.push_str(":directories"),
        }
        text.push('\n');
    }
    present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What the names in the store are names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Pod,
    Secret,
    Volume,
}

impl Kind {
    /// A value is of this kind if its place in the help is called so.
    fn of(value_name: &str) -> Option<Kind> {
        Some(match value_name.trim_end_matches("...") {
            "CONTAINER" => Kind::Container,
            "IMAGE" => Kind::Image,
            "NETWORK" => Kind::Network,
            "POD" => Kind::Pod,
            "SECRET" => Kind::Secret,
            "VOLUME" => Kind::Volume,
            _ => return None,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Word(String, String),
    Files,
    Directories,
}

fn answers(tree: &clap::Command, words: &[String], names: &dyn Fn(Kind) -> Vec<String>) -> Vec<Answer> {
    let Some((current, before)) = words.split_last() else { return Vec::new() };
    let place = walk(tree, before);
    if let Some(option) = place.option {
        return values(option, current, "", names);
    }
    if place.takes_options && current.starts_with('-') {
        if let Some((name, value)) = current.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
            let option = place.command.get_arguments().find(|option| option.get_long() == Some(name));
            return option.map_or_else(Vec::new, |option| values(option, value, &format!("--{name}="), names));
        }
        return options(place.command, current);
    }
    if place.command.has_subcommands() {
        return subcommands(place.command, current);
    }
    let positionals: Vec<&clap::Arg> = place.command.get_positionals().collect();
    // The last one may take any number of words.
    let positional = positionals.get(place.positionals).or_else(|| positionals.last().filter(|last| many(last)));
    positional.map_or_else(Vec::new, |positional| values(positional, current, "", names))
}

/// Where the word that is being typed stands.
struct Place<'a> {
    command: &'a clap::Command,
    /// The option before it that still wants its value.
    option: Option<&'a clap::Arg>,
    /// How many words stand before it that are no options.
    positionals: usize,
    takes_options: bool,
}

fn walk<'a>(tree: &'a clap::Command, words: &[String]) -> Place<'a> {
    let mut place = Place { command: tree, option: None, positionals: 0, takes_options: true };
    for word in words {
        if place.option.take().is_some() {
            continue;
        }
        if place.takes_options && word == "--" {
            place.takes_options = false;
        } else if place.takes_options && word.len() > 1 && word.starts_with('-') {
            place.option = waiting_option(place.command, word);
        } else if let Some(below) = place.command.find_subcommand(word) {
            place.command = below;
        } else {
            place.positionals += 1;
            // `run IMAGE COMMAND --option`: behind the image, or behind the command, options are the container's.
            let next = place.command.get_positionals().nth(place.positionals);
            if next.is_some_and(clap::Arg::is_trailing_var_arg_set) {
                place.takes_options = false;
            }
        }
    }
    place
}

/// The option of this word if its value is the next word.
fn waiting_option<'a>(command: &'a clap::Command, word: &str) -> Option<&'a clap::Arg> {
    let takes_value = |option: &&clap::Arg| option.get_action().takes_values() && !is_optional(option);
    if let Some(long) = word.strip_prefix("--") {
        let is_it = |option: &&clap::Arg| {
            option.get_long() == Some(long) || option.get_all_aliases().is_some_and(|names| names.contains(&long))
        };
        return command.get_arguments().find(is_it).filter(takes_value);
    }
    let mut letters = word[1..].chars();
    while let Some(letter) = letters.next() {
        let option = command.get_arguments().find(|option| option.get_short() == Some(letter))?;
        if takes_value(&option) {
            // `-eNAME` has its value already.
            return letters.next().is_none().then_some(option);
        }
    }
    None
}

/// A value that may be missing is joined with `=` only.
fn is_optional(option: &clap::Arg) -> bool {
    option.get_num_args().is_some_and(|range| range.min_values() == 0)
}

fn many(positional: &clap::Arg) -> bool {
    let repeats = matches!(positional.get_action(), clap::ArgAction::Append);
    repeats || positional.get_num_args().is_some_and(|range| range.max_values() > 1)
}

fn first_line(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn options(command: &clap::Command, current: &str) -> Vec<Answer> {
    let visible = command.get_arguments().filter(|option| !option.is_hide_set());
    let named = visible.filter_map(|option| option.get_long().map(|long| (option, format!("--{long}"))));
    named
        .filter(|(_, long)| long.starts_with(current))
        .map(|(option, long)| Answer::Word(long, first_line(option.get_help())))
        .collect()
}

fn subcommands(command: &clap::Command, current: &str) -> Vec<Answer> {
    let visible = command.get_subcommands().filter(|below| !below.is_hide_set());
    visible
        .filter(|below| below.get_name().starts_with(current))
        .map(|below| Answer::Word(below.get_name().to_owned(), first_line(below.get_about())))
        .collect()
}

/// What an option or positional may be; `prefix` is what the shell wants back before it.
fn values(argument: &clap::Arg, current: &str, prefix: &str, names: &dyn Fn(Kind) -> Vec<String>) -> Vec<Answer> {
    let possible: Vec<Answer> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && value.get_name().starts_with(current))
        .map(|value| Answer::Word(format!("{prefix}{}", value.get_name()), first_line(value.get_help())))
        .collect();
    if !possible.is_empty() {
        return possible;
    }
    let value_name = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    if let Some(kind) = Kind::of(value_name) {
        let mut names: Vec<String> = names(kind).into_iter().filter(|name| name.starts_with(current)).collect();
        names.sort();
        return names.into_iter().map(|name| Answer::Word(format!("{prefix}{name}"), String::new())).collect();
    }
    match (argument.get_value_hint(), value_name) {
        (ValueHint::DirPath, _) | (_, "DIR" | "DIRECTORY" | "CONTEXT") => vec![Answer::Directories],
        (ValueHint::FilePath | ValueHint::AnyPath, _) | (_, "FILE" | "PATH" | "ARCHIVE") => vec![Answer::Files],
        _ => Vec::new(),
    }
}

/// All names of a kind in the store, read from directories alone; none where something cannot be read.
fn names(engine: &Engine, kind: Kind) -> Vec<String> {
    let layout = &engine.layout;
    match kind {
        Kind::Container => linked(&layout.names(), "containers"),
        Kind::Pod => linked(&layout.names(), "pods"),
        Kind::Network => entries(&layout.networks()),
        Kind::Volume => entries(&layout.volumes()),
        Kind::Secret => entries(&layout.data().join("secrets")),
        Kind::Image => entries(&layout.tags()).iter().flat_map(|name| image_names(name)).collect(),
    }
}

/// An image's whole name, and the short one that people type.
fn image_names(file_name: &str) -> Vec<String> {
    let Ok(reference) = Reference::unescape(file_name) else { return Vec::new() };
    let whole = reference.to_string();
    let short = ["docker.io/library/", "docker.io/", "localhost/"].iter().find_map(|prefix| whole.strip_prefix(prefix));
    short.map(str::to_owned).into_iter().chain([whole.clone()]).collect()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Names that are links to an object of this kind (`names/web -> ../containers/ID`).
fn linked(directory: &Path, kind: &str) -> Vec<String> {
    let is_one = |name: &String| {
        std::fs::read_link(directory.join(name))
            .is_ok_and(|target| target.components().any(|part| part.as_os_str() == kind))
    };
    entries(directory).into_iter().filter(is_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    fn tree() -> Command {
        let run = Command::new("run")
            .about("Run a command\n\nMore.")
            .arg(Arg::new("detach").short('d').long("detach").action(ArgAction::SetTrue).help("Do not wait"))
            .arg(Arg::new("env-file").long("env-file").value_name("FILE"))
            .arg(Arg::new("network").long("network").short('n').value_name("NETWORK"))
            .arg(Arg::new("pull").long("pull").value_parser(["always", "never"]))
            .arg(Arg::new("image").value_name("IMAGE"))
            .arg(Arg::new("command").value_name("COMMAND").num_args(0..).trailing_var_arg(true));
        let rm = Command::new("rm").arg(Arg::new("names").value_name("CONTAINER").num_args(0..));
        Command::new("coracle")
            .arg(Arg::new("root").long("root").value_name("DIR"))
            .subcommand(Command::new("container").subcommand(rm.clone()))
            .subcommand(run)
            .subcommand(rm)
            .subcommand(Command::new("secretly").hide(true))
    }

    #[track_caller]
    fn check(words: &str, expected: &[&str]) {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let names = |kind: Kind| vec![format!("{kind:?}-b").to_lowercase(), format!("{kind:?}-a").to_lowercase()];
        let answers: Vec<String> = answers(&tree(), &words, &names)
            .into_iter()
            .map(|answer| match answer {
                Answer::Word(word, help) if help.is_empty() => word,
                Answer::Word(word, help) => format!("{word} ({help})"),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(answers, expected, "{words:?}");
    }

    #[test]
    fn completes() {
        check("r", &["run (Run a command)", "rm"]);
        check("s", &[]);
        check("container ", &["rm"]);
        check("rm ", &["container-a", "container-b"]);
        check("container rm x container-a", &["container-a"]);
        check("run --de", &["--detach (Do not wait)"]);
        check("run --env-file ", &["Files"]);
        check("run --network ", &["network-a", "network-b"]);
        check("run --network=network-b", &["--network=network-b"]);
        check("run -dn ", &["network-a", "network-b"]);
        check("run -nx ", &["image-a", "image-b"]);
        check("run --pull a", &["always"]);
        check("run -d image-", &["image-a", "image-b"]);
        check("run -d image-a --de", &[]);
        check("--root ", &["Directories"]);
        check("--root /x run --pull=n", &["--pull=never"]);
    }
}
