//! `coracle complete -- WORD…`: what could stand for the last word. The scripts of `coracle completion` ask it.
//!
//! One candidate a line, with a tab and a description where there is one; `:files` or `:directories` asks the shell
//! for paths besides. It only reads, and when something is wrong it says nothing: a shell is waiting.

pub mod cobra;
mod field;
mod store;

use super::present;
use crate::engine::Engine;
use anyhow::Result;
use clap::ValueHint;
use serde_json::Value;
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
    for answer in answers_for(engine, &args.words) {
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

/// What could stand for the last word, by the tree of verbs and the names in the store.
fn answers_for(engine: &Engine, words: &[String]) -> Vec<Answer> {
    answers(&super::tree(), words, engine)
}

/// Where names come from.
trait Names {
    /// All of a kind; `current` is what is typed already.
    fn of(&self, kind: Kind, current: &str) -> Vec<String>;
    /// The document that a template of this verb, given these words, would be rendered over.
    fn document(&self, verb: &str, words: &[String]) -> Option<Value>;
}

/// What the names in the store are names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Interface,
    Parameter,
    Pod,
    Registry,
    Secret,
    Volume,
}

impl Kind {
    /// A value is of this kind if its place in the help is called so.
    fn of(value_name: &str) -> Option<Kind> {
        Some(match value_name {
            "CONTAINER" => Kind::Container,
            "REGISTRY" => Kind::Registry,
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

fn answers(tree: &clap::Command, words: &[String], names: &dyn Names) -> Vec<Answer> {
    let Some((current, before)) = words.split_last() else { return Vec::new() };
    let place = walk(tree, before);
    if let Some(option) = place.option {
        return option_values(&place, option, current, "", names);
    }
    if place.takes_options && current.starts_with('-') {
        if let Some((name, value)) = current.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
            let option = place.command.get_arguments().find(|option| option.get_long() == Some(name));
            let prefix = format!("--{name}=");
            return option.map_or_else(Vec::new, |option| option_values(&place, option, value, &prefix, names));
        }
        return options(place.command, current);
    }
    if place.command.has_subcommands() {
        return subcommands(place.command, current);
    }
    let places: Vec<Positional<'_>> = place.command.get_positionals().flat_map(positionals).collect();
    // The last one may take any number of words.
    let found = places.get(place.words.len()).or_else(|| places.last().filter(|last| last.repeats));
    found.map_or_else(Vec::new, |found| values(found.argument, &found.name, current, "", names))
}

/// A place for a word that is no option.
struct Positional<'a> {
    argument: &'a clap::Arg,
    name: String,
    repeats: bool,
}

/// The places of one argument: `IMAGE [COMMAND [ARG...]]` has three.
fn positionals(argument: &clap::Arg) -> Vec<Positional<'_>> {
    let name = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let words: Vec<&str> = name.split_whitespace().collect();
    let trailing = argument.is_trailing_var_arg_set();
    let place = |word: &str, last: bool| Positional {
        argument,
        name: match word.starts_with("[CONTAINER:]") {
            true => word.to_owned(),
            false => word.trim_matches(['[', ']', '.']).to_owned(),
        },
        repeats: last && (word.contains("...") || trailing || words.len() == 1 && many(argument)),
    };
    words.iter().enumerate().map(|(index, word)| place(word, index + 1 == words.len())).collect()
}

/// Where the word that is being typed stands.
struct Place<'a> {
    command: &'a clap::Command,
    /// The option before it that still wants its value.
    option: Option<&'a clap::Arg>,
    /// The words before it that are no options.
    words: Vec<String>,
    takes_options: bool,
    /// The words of the verb.
    verb: Vec<&'a str>,
}

fn walk<'a>(tree: &'a clap::Command, words: &[String]) -> Place<'a> {
    let mut place = Place { command: tree, option: None, words: Vec::new(), takes_options: true, verb: Vec::new() };
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
            place.verb.push(below.get_name());
        } else {
            place.words.push(word.clone());
            // `run IMAGE --option`: behind the image options are the container's.
            let last = place.words.len();
            let taken = |index: usize| place.command.get_positionals().nth(index);
            if [last - 1, last].into_iter().filter_map(taken).any(clap::Arg::is_trailing_var_arg_set) {
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

/// What the value of an option may be.
fn option_values(place: &Place<'_>, option: &clap::Arg, current: &str, prefix: &str, names: &dyn Names) -> Vec<Answer> {
    let named = |kind| -> Vec<String> {
        names.of(kind, current).into_iter().filter(|name| name.starts_with(current)).collect()
    };
    let words: Vec<String> = match option.get_long() {
        Some("format") => {
            let verb = place.verb.join(" ");
            field::candidates(&verb, current, &|| names.document(&verb, &place.words))
        }
        Some("sysctl") => named(Kind::Parameter),
        Some("interface-name") => named(Kind::Interface),
        _ => {
            let name = option.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
            return values(option, name, current, prefix, names);
        }
    };
    words.into_iter().map(|word| Answer::Word(format!("{prefix}{word}"), String::new())).collect()
}

/// What an option or positional may be; `prefix` is what the shell wants back before it.
fn values(argument: &clap::Arg, value_name: &str, current: &str, prefix: &str, names: &dyn Names) -> Vec<Answer> {
    let possible: Vec<Answer> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && value.get_name().starts_with(current))
        .map(|value| Answer::Word(format!("{prefix}{}", value.get_name()), first_line(value.get_help())))
        .collect();
    if !possible.is_empty() {
        return possible;
    }
    let kinds: Vec<Kind> = value_name.split('|').filter_map(Kind::of).collect();
    if !kinds.is_empty() {
        let all = kinds.iter().flat_map(|kind| names.of(*kind, current));
        let mut names: Vec<String> = all.filter(|name| name.starts_with(current)).collect();
        // Registries come in the order they are asked.
        if kinds != [Kind::Registry] {
            names.sort();
        }
        return names.into_iter().map(|name| Answer::Word(format!("{prefix}{name}"), String::new())).collect();
    }
    if value_name.starts_with("[CONTAINER:]") {
        let containers = names.of(Kind::Container, current).into_iter().map(|name| format!("{name}:"));
        let matching = containers.filter(|name| name.starts_with(current));
        return matching.map(|name| Answer::Word(name, String::new())).chain([Answer::Files]).collect();
    }
    match (argument.get_value_hint(), value_name) {
        (ValueHint::DirPath, _) | (_, "DIR" | "DIRECTORY" | "CONTEXT") => vec![Answer::Directories],
        (ValueHint::FilePath | ValueHint::AnyPath, _) | (_, "FILE" | "PATH" | "ARCHIVE" | "COMMAND" | "ARG") => {
            vec![Answer::Files]
        }
        _ => Vec::new(),
    }
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
        let exec = Command::new("exec")
            .arg(Arg::new("words").value_name("CONTAINER COMMAND").num_args(0..).trailing_var_arg(true));
        let cp = Command::new("cp")
            .arg(Arg::new("source").value_name("[CONTAINER:]SRC_PATH"))
            .arg(Arg::new("target").value_name("[CONTAINER:]DEST_PATH"));
        let rm = Command::new("rm").arg(Arg::new("names").value_name("CONTAINER").num_args(0..));
        Command::new("coracle")
            .arg(Arg::new("root").long("root").value_name("DIR"))
            .subcommand(Command::new("container").subcommand(rm.clone()))
            .subcommand(run)
            .subcommand(exec)
            .subcommand(cp)
            .subcommand(rm)
            .subcommand(Command::new("secretly").hide(true))
    }

    /// Two names of each kind.
    struct Two;

    impl Names for Two {
        fn of(&self, kind: Kind, _: &str) -> Vec<String> {
            vec![format!("{kind:?}-b").to_lowercase(), format!("{kind:?}-a").to_lowercase()]
        }

        fn document(&self, _: &str, _: &[String]) -> Option<Value> {
            None
        }
    }

    #[track_caller]
    fn check(words: &str, expected: &[&str]) {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let answers: Vec<String> = answers(&tree(), &words, &Two)
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
        check("run image-a ", &["Files"]);
        check("run image-a sh --de", &["Files"]);
        check("exec ", &["container-a", "container-b"]);
        check("exec container-a ", &["Files"]);
        check("exec container-a sh -", &["Files"]);
        check("cp x container-b", &["container-b:", "Files"]);
        check("run -d image-", &["image-a", "image-b"]);
        check("run -d image-a --de", &["Files"]);
        check("--root ", &["Directories"]);
        check("--root /x run --pull=n", &["--pull=never"]);
    }
}
