//! What `--help` prints: the shape podman's users and their scripts know (`Usage:` with one line under it, `Available
//! Commands:`, `Options:`), from the same definitions that parse the command line.
//!
//! It is also where a wrong number of arguments gets its words, for both follow from the positionals of a verb.

use super::table::{self, Entry};
use super::{VERBS, global, present};
use clap::CommandFactory;
use std::ffi::OsString;
use std::path::Path;

/// The name we were called by, if it is one of those whose scripts look for their own words; else our own.
pub fn program() -> &'static str {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("podman") => "podman",
        Some("docker") => "docker",
        _ => "coracle",
    }
}

/// The help of a verb; `path` is what was typed to reach it.
pub fn of_verb(command: clap::Command, path: &str) -> String {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let mut template = format!("{about}\n\nUsage:\n  {}\n", usage_line(&command, path));
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if !aliases.is_empty() {
        let group = path.rsplit_once(' ').map_or(path, |(group, _)| group);
        let names = aliases.iter().map(|alias| format!(", {group} {alias}"));
        template.push_str(&format!("\nAliases:\n  {path}{}\n", names.collect::<String>()));
    }
    template.push_str(&arguments(&command));
    template.push_str("\nOptions:\n{options}");
    let mut command = command.help_template(template).bin_name(path.to_owned());
    // There is but one help, with all there is to say.
    let text = command.render_help().to_string().replace(" (see more with '--help')", "");
    format!("{}\n", text.trim_end())
}

/// What the words that are no options are, where there is more to say than their names.
fn arguments(command: &clap::Command) -> String {
    let line = |positional: &clap::Arg| Some(format!("  {}\t{}\n", usage_of(positional), positional.get_help()?));
    let text: String = command.get_positionals().filter_map(line).collect();
    if text.is_empty() { text } else { format!("\nArguments:\n{}", present::table::align(&text)) }
}

/// The help of a word with commands below it.
pub fn of_group(path: &str, about: &str, entries: &'static [Entry]) -> String {
    let command = clap::Command::new("group").disable_help_subcommand(true).about(about.to_owned());
    with_commands(command, entries, &format!("{path} [command]"))
}

/// The help of the program.
pub fn of_program() -> String {
    with_commands(global::Global::command(), VERBS, &format!("{} [options] [command]", program()))
}

fn with_commands(mut command: clap::Command, entries: &'static [Entry], usage: &str) -> String {
    for entry in entries {
        command = command.subcommand(table::clap_command(entry).display_order(0));
    }
    // One line for each command, however narrow the terminal.
    let mut command = command
        .subcommand_help_heading("Available Commands")
        .help_template(format!("{{about-with-newline}}\nUsage:\n  {usage}\n\n{{all-args}}"))
        .term_width(0);
    format!("{}\n", command.render_help().to_string().trim_end())
}

/// `coracle rm [options] CONTAINER [CONTAINER...]`.
pub fn usage_line(command: &clap::Command, path: &str) -> String {
    let mut usage = format!("{path} [options]");
    for positional in command.get_positionals().filter(|positional| !positional.is_hide_set()) {
        usage.push(' ');
        usage.push_str(&usage_of(positional));
    }
    usage
}

fn usage_of(positional: &clap::Arg) -> String {
    let name = positional.get_value_names().and_then(|names| names.first()).map_or("ARG", |name| name.as_str());
    let many = range(positional).1.is_none();
    match (positional.is_required_set(), many) {
        // It says all there is to say.
        _ if name.contains(' ') => name.to_owned(),
        (false, true) if positional.is_trailing_var_arg_set() => format!("[{name} [ARG...]]"),
        (true, true) => format!("{name} [{name}...]"),
        (true, false) => name.to_owned(),
        (false, true) => format!("[{name}...]"),
        (false, false) => format!("[{name}]"),
    }
}

/// How many words a positional takes; `None`: any number.
fn range(positional: &clap::Arg) -> (usize, Option<usize>) {
    let least = usize::from(positional.is_required_set());
    let appends = matches!(positional.get_action(), clap::ArgAction::Append);
    match positional.get_num_args() {
        Some(range) if range.max_values() == usize::MAX => (least, None),
        Some(range) if range.max_values() > 1 => (least.max(range.min_values()), Some(range.max_values())),
        _ if appends => (least, None),
        _ => (least, Some(1)),
    }
}

/// What is wrong with the number of arguments, if that is what is wrong; `command` is as it was parsed.
pub fn wrong_count(command: clap::Command, path: &str, words: &[OsString]) -> Option<String> {
    let ranges: Vec<(usize, Option<usize>)> = command.get_positionals().map(range).collect();
    let least: usize = ranges.iter().map(|(least, _)| least).sum();
    let most = ranges.iter().try_fold(0, |sum, (_, most)| most.map(|most| sum + most));
    let given = count(command, words)?;
    let words = |number: usize| format!("{number} arg(s)");
    Some(match most {
        Some(0) if given > 0 => format!("`{path}` takes no arguments"),
        Some(most) if most == least && given != most => format!("accepts {}, received {given}", words(most)),
        Some(most) if given > most && least == 0 => format!("accepts at most {}, received {given}", words(most)),
        Some(most) if given > most => format!("accepts between {least} and {}, received {given}", words(most)),
        _ if given < least => format!("requires at least {}, only received {given}", words(least)),
        _ => return None,
    })
}

/// How many words are no options, by the same command with a place for any number of them.
fn count(command: clap::Command, words: &[OsString]) -> Option<usize> {
    let options: Vec<clap::Arg> = command.get_arguments().filter(|arg| !arg.is_positional()).cloned().collect();
    let all = clap::Arg::new("every word").num_args(0..).value_parser(clap::builder::ValueParser::os_string());
    let mut command = clap::Command::new("count").no_binary_name(true).args_override_self(true).disable_help_flag(true);
    command = command.args(options).arg(all);
    let matches = command.try_get_matches_from_mut(words).ok()?;
    Some(matches.get_many::<OsString>("every word").map_or(0, Iterator::count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    fn command(positionals: &[(&'static str, bool, bool)]) -> Command {
        let mut command = Command::new("x").no_binary_name(true);
        command = command.arg(Arg::new("all").long("every").action(ArgAction::SetTrue));
        for (name, required, many) in positionals {
            let action = if *many { ArgAction::Append } else { ArgAction::Set };
            let arg = Arg::new(*name).value_name(*name).required(*required).action(action);
            command = command.arg(if *many { arg.num_args(1..) } else { arg });
        }
        command
    }

    #[track_caller]
    fn check(positionals: &[(&'static str, bool, bool)], usage: &str, words: &str, wrong: Option<&str>) {
        assert_eq!(usage_line(&command(positionals), "c x"), format!("c x [options]{usage}"));
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        assert_eq!(wrong_count(command(positionals), "c x", &words).as_deref(), wrong);
    }

    #[test]
    fn usages_and_counts() {
        check(&[], "", "--every a", Some("`c x` takes no arguments"));
        check(&[], "", "", None);
        check(&[("A", true, false)], " A", "", Some("accepts 1 arg(s), received 0"));
        check(&[("A", true, false), ("B", true, false)], " A B", "a b c", Some("accepts 2 arg(s), received 3"));
        check(
            &[("A", true, false), ("B", false, false)],
            " A [B]",
            "a b c",
            Some("accepts between 1 and 2 arg(s), received 3"),
        );
        check(&[("A", false, false)], " [A]", "a b", Some("accepts at most 1 arg(s), received 2"));
        check(&[("A", true, true)], " A [A...]", "--every", Some("requires at least 1 arg(s), only received 0"));
        check(&[("A", false, true)], " [A...]", "a b c", None);
    }
}
