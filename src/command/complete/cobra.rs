//! `__complete` and `__completeNoDesc`: the question that shells which were set up for podman ask.
//!
//! Protocol (of the cobra library, which podman's scripts come from): the words are arguments, the last one is being
//! typed; a candidate a line, with a tab and a description unless none are wanted; then `:NUMBER`, a sum of what the
//! shell is to do besides, whose names stand on standard error.

use super::{Answer, answers_for};
use crate::command::present;
use crate::engine::Engine;
use anyhow::Result;
use std::process::ExitCode;

/// List what could stand for the last of the words
#[derive(clap::Parser, Debug)]
#[command(hide = true, disable_help_flag = true)]
pub struct Args {
    /// The words after the program's name
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    words: Vec<String>,
}

/// With descriptions.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    tell(&args.words, engine, true)
}

/// `__completeNoDesc`.
pub mod plain {
    pub use super::Args;
    use super::{Engine, ExitCode, Result, tell};

    /// Without descriptions.
    pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
        tell(&args.words, engine, false)
    }
}

const NO_SPACE: u8 = 2;
const NO_FILES: u8 = 4;
const DIRECTORIES: u8 = 16;

fn tell(words: &[String], engine: &Engine, described: bool) -> Result<ExitCode> {
    let (text, directive) = answer(&answers_for(engine, words), described);
    present::text(&text)?;
    eprintln!("Completion ended with directive: {}", names(directive));
    Ok(ExitCode::SUCCESS)
}

fn answer(answers: &[Answer], described: bool) -> (String, u8) {
    let mut text = String::new();
    let mut directive = NO_FILES;
    for answer in answers {
        match answer {
            Answer::Word(word, help) => {
                // More is to follow: a path in a container, a field of a field.
                if word.ends_with([':', '.', '/', '=']) {
                    directive |= NO_SPACE;
                }
                text.push_str(word);
                if described && !help.is_empty() {
                    text.push('\t');
                    text.push_str(help);
                }
                text.push('\n');
            }
            Answer::Files => directive &= !NO_FILES,
            Answer::Directories => directive = DIRECTORIES,
        }
    }
    text.push_str(&format!(":{directive}\n"));
    (text, directive)
}

fn names(directive: u8) -> String {
    let known = [(NO_SPACE, "NoSpace"), (NO_FILES, "NoFileComp"), (DIRECTORIES, "FilterDirs")];
    let set = known.iter().filter(|(bit, _)| directive & bit != 0);
    let names: Vec<String> = set.map(|(_, name)| format!("ShellCompDirective{name}")).collect();
    if names.is_empty() { "ShellCompDirectiveDefault".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_directives() {
        let word = |word: &str, help: &str| Answer::Word(word.to_owned(), help.to_owned());
        assert_eq!(answer(&[word("a", "b"), word("c", "")], true), ("a\tb\nc\n:4\n".to_owned(), 4));
        assert_eq!(answer(&[word("a", "b")], false).0, "a\n:4\n");
        assert_eq!(answer(&[word("web:", ""), Answer::Files], false), ("web:\n:2\n".to_owned(), 2));
        assert_eq!(answer(&[Answer::Directories], false).1, 16);
        assert_eq!(names(0), "ShellCompDirectiveDefault");
        assert_eq!(names(6), "ShellCompDirectiveNoSpace, ShellCompDirectiveNoFileComp");
    }
}
