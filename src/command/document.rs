//! `coracle document DIR`: the man pages and completion scripts, from the same tree that parses the command line.
//!
//! Invariant: nothing in `man/*.1` and `completions/` is written by hand; a test compares what is checked in with what
//! this verb writes.

use super::completion::Shell;
use crate::engine::Engine;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write the man pages and completion scripts into a directory
#[derive(clap::Parser, Debug)]
#[command(hide = true)]
pub struct Args {
    /// Gets `man/` and `completions/`
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Write them.
pub fn run(args: Args, _engine: &Engine) -> Result<ExitCode> {
    let mut pages = BTreeMap::new();
    let mut tree = super::tree().disable_help_subcommand(true);
    tree.build();
    man_pages(&tree, "coracle", &mut pages)?;
    for (name, text) in &pages {
        write(&args.directory.join("man").join(format!("{name}.1")), text)?;
    }
    for shell in Shell::ALL {
        write(&args.directory.join("completions").join(shell.file_name()), shell.script())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of a command and of all below it.
fn man_pages(command: &clap::Command, name: &str, pages: &mut BTreeMap<String, String>) -> Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        man_pages(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    let page = clap_mangen::Man::new(command.clone().display_name(name.to_owned()))
        .title(name.to_uppercase())
        .source(concat!("coracle ", env!("CARGO_PKG_VERSION")))
        .manual("Coracle");
    let mut text = Vec::new();
    page.render(&mut text).with_context(|| format!("write the page of {name}"))?;
    let text = String::from_utf8(text).with_context(|| format!("write the page of {name}"))?;
    // `.TH` and the parts that name the crate's version move with each release; the rest is the tree's.
    pages.insert(name.to_owned(), text);
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let place = || format!("write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(place)?;
    }
    std::fs::write(path, text).with_context(place)
}
