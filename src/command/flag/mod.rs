//! Option groups that `run`, `create` and `update` share: what was typed, parsed once into the types of `model`.
//!
//! Each file holds one group with `fn apply(self, &mut ContainerSpec, …) -> Result<()>`. The groups bear no doc comments,
//! for clap would take them as the verb's own help. What the host has to say (environment, directory, id maps) comes in
//! as [`Surroundings`], so that words to spec is a function of its arguments and of the files the user names.

pub mod container;
pub mod defaults;
pub mod glob;
pub mod health;
pub mod image;
pub mod lifecycle;
pub mod log;
pub mod mount;
pub mod mount_option;
pub mod namespace;
pub mod network;
pub mod port;
pub mod process;
pub mod registry;
pub mod resource;
pub mod security;
pub mod selection;
pub mod userns;

use crate::engine::Engine;
use crate::host::config::{self, Config};
use crate::model::user::IdMaps;
use crate::supervisor::client::Keys;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// What the caller's own process adds to the words that were typed.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The caller's environment.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub directory: PathBuf,
    /// The caller is not root of the machine.
    pub rootless: bool,
    /// The whole command line, for `inspect`.
    pub command_line: Vec<String>,
    /// The id maps of the user namespace the command works in; empty in the host's own.
    pub id_maps: IdMaps,
    /// What `containers.conf` says.
    pub config: Config,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process(engine: &Engine) -> Surroundings {
        Surroundings {
            env: std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            rootless: engine.privilege.rootless,
            command_line: engine.arguments.clone(),
            id_maps: engine.privilege.maps.clone(),
            config: Config::default(),
        }
    }

    /// The same with what `containers.conf` says of new containers.
    pub fn of_new_container(engine: &Engine) -> Result<Surroundings> {
        Ok(Surroundings { config: config::get()?.clone(), ..Surroundings::of_process(engine) })
    }

    /// A variable of the caller's environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Make a path of the caller's absolute, without looking at the file system.
    pub fn absolute(&self, path: &str) -> String {
        let joined = self.directory.join(path);
        clean(&joined.to_string_lossy())
    }
}

/// A path without `.`, `..` and double slashes, as Go's `path.Clean` writes it.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The keys that leave a container alone: those of the option, else of containers.conf, else ctrl-p,ctrl-q.
pub fn detach_keys(option: Option<&str>) -> Result<Keys> {
    match option {
        Some(keys) => Keys::parse(keys),
        None => config::get()?.engine.detach_keys.as_deref().map_or_else(|| Ok(Keys::default()), Keys::parse),
    }
}

/// Refuse an option that was given though we cannot serve it.
pub fn refuse(option: &str, given: bool) -> Result<()> {
    if given {
        bail!("{option} is not supported yet");
    }
    Ok(())
}

/// The fields of options that take lists: each word is a line of CSV (`a,"b,c"`), as pflag's string slices.
pub fn csv(words: &[String]) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    for word in words {
        csv_line(word, &mut fields)?;
    }
    Ok(fields)
}

fn csv_line(line: &str, fields: &mut Vec<String>) -> Result<()> {
    if line.is_empty() {
        return Ok(());
    }
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next() {
                    Some((_, '"')) if characters.peek().is_some_and(|(_, next)| *next == '"') => {
                        characters.next();
                        field.push('"');
                    }
                    Some((index, '"')) => break index + 1,
                    Some((_, character)) => field.push(character),
                    None => bail!("`{line}`: a quote is not closed"),
                }
            };
            fields.push(field);
            rest = &quoted[end..];
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(()),
                None => bail!("`{line}`: text follows a closing quote"),
            }
        } else {
            match rest.split_once(',') {
                Some((field, after)) => {
                    fields.push(field.to_owned());
                    rest = after;
                }
                None => {
                    fields.push(rest.to_owned());
                    return Ok(());
                }
            }
        }
    }
}

/// Go's `strconv.ParseBool`, which is what podman's flags take.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")),
    }
}

/// Give a clap command the manners of podman's and docker's flag parser: switches take `=true` and `=false`, options take
/// the next word even if it begins with a hyphen, and the last of several counts.
pub fn as_pflag(command: clap::Command) -> clap::Command {
    use clap::ArgAction;
    let boolean = clap::builder::ValueParser::bool();
    command.args_override_self(true).mut_args(|arg| {
        if arg.is_positional() {
            return arg;
        }
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let option = matches!(arg.get_action(), ArgAction::Set)
            && arg.get_value_parser().type_id() == boolean.type_id()
            && arg.get_num_args().is_none();
        match arg.get_action() {
            ArgAction::SetTrue | ArgAction::Set if switch || option => {
                let arg = arg
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(parse_bool);
                if switch { arg.default_value("false") } else { arg }
            }
            ArgAction::Set | ArgAction::Append => arg.allow_hyphen_values(true),
            _ => arg,
        }
    })
}

/// What pflag, which docker and podman use, says of these errors; `None`: clap says it better.
pub fn words_of_pflag(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg)?;
    // `-h, --hostname <NAME>` or `--hostname <NAME>`.
    let option = argument.split(" <").next().unwrap_or(argument);
    let option = option.split("[=").next().unwrap_or(option);
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => Some(format!("unknown flag: {argument}")),
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            Some(format!("unknown shorthand flag: '{}' in {argument}", argument.trim_start_matches('-')))
        }
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue) == Some("") && argument.starts_with('-') => {
            Some(format!("flag needs an argument: {option}"))
        }
        ErrorKind::ValueValidation if argument.starts_with('-') => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Some(format!("invalid argument {value:?} for {option:?} flag{cause}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields() {
        let words = |words: &[&str]| csv(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["a,b", "c"]).unwrap(), ["a", "b", "c"]);
        assert_eq!(words(&["\"a,b\",c", ""]).unwrap(), ["a,b", "c"]);
        assert_eq!(words(&["\"a\"\"b\""]).unwrap(), ["a\"b"]);
        assert_eq!(words(&["a,"]).unwrap(), ["a", ""]);
        assert!(words(&["\"a"]).is_err());
    }

    #[test]
    fn clean_paths() {
        for (path, expected) in
            [("/a/../b//c/.", "/b/c"), ("/..", "/"), ("a/..", "."), ("../a", "../a"), ("/", "/"), ("a/./b", "a/b")]
        {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
