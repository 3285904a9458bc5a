//! `coracle top`.

use super::present;
use crate::engine::{Engine, list, top};
use anyhow::{Context, Result};
use std::process::ExitCode;

/// Display the running processes of a container
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Act on the latest container
    #[arg(short, long)]
    latest: bool,
    /// List the words for columns
    #[arg(long, hide = true)]
    list_descriptors: bool,
    /// The container, and descriptors of columns (user, pid, args, …) or options of ps(1) that choose columns
    #[arg(value_name = "CONTAINER [DESCRIPTOR...]", trailing_var_arg = true, num_args = 0..)]
    words: Vec<String>,
}

/// Print them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.list_descriptors {
        let names: Vec<&str> = top::names().collect();
        present::line(names.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (container, words) = if args.latest {
        (list::latest(engine)?, args.words.as_slice())
    } else {
        let (name, words) =
            args.words.split_first().context("you must provide the name or id of a running container")?;
        (list::get(engine, name.strip_prefix('/').unwrap_or(name))?, words)
    };
    let columns = top::columns(words)?;
    let table = top::table(engine, &container)?;
    let headers: Vec<&str> = columns.iter().map(|column| column.header).collect();
    let mut text = headers.join("\t") + "\n";
    for process in &table.processes {
        let cells: Vec<String> =
            columns.iter().map(|column| (column.cell)(&table, process).replace(['\t', '\n'], " ")).collect();
        text.push_str(&cells.join("\t"));
        text.push('\n');
    }
    present::text(&present::table::align(&text))?;
    Ok(ExitCode::SUCCESS)
}
