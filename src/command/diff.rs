//! `coracle diff`.

use super::present;
use crate::engine::diff::Line;
use crate::engine::{Engine, diff};
use crate::storage::diff::Change;
use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Inspect changes to the file system of a container or image
///
/// Each line has a letter and a path: A for added, C for changed, D for deleted. A second one is what the first is compared
/// with; without it, that is what the first was made of.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output format (json)
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// A container or image
    #[arg(value_name = "CONTAINER|IMAGE")]
    names: Vec<String>,
}

/// Show them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let name = match (args.names.as_slice(), args.latest) {
        ([], true) => crate::engine::select::latest(engine)?.to_string(),
        ([name], false) => name.clone(),
        ([name, base], false) => return print(&diff::between(engine, name, base)?, args.format.as_deref()),
        (_, true) => bail!("--latest and arguments cannot be used together"),
        _ => bail!("name a container or image, and perhaps another to compare it with, or use --latest"),
    };
    print(&diff::of_any(engine, &name)?, args.format.as_deref())
}

/// Lines, or podman's JSON.
pub(super) fn print(changes: &[Line], format: Option<&str>) -> Result<ExitCode> {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    match format {
        None => {
            let line = |(path, change): &Line| format!("{} {}\n", letter(*change), shown(path));
            present::text(&changes.iter().map(line).collect::<String>())?;
        }
        Some("json") => {
            let mut document = Map::new();
            for (key, wanted) in [("changed", Change::Changed), ("added", Change::Added), ("deleted", Change::Deleted)]
            {
                let paths: Vec<String> =
                    changes.iter().filter(|(_, change)| *change == wanted).map(|(path, _)| shown(path)).collect();
                if !paths.is_empty() {
                    document.insert(key.to_owned(), json!(paths));
                }
            }
            present::document("json", &Value::Object(document))?;
        }
        Some(_) => bail!("only supported value for '--format' is 'json'"),
    }
    Ok(ExitCode::SUCCESS)
}

fn letter(change: Change) -> char {
    match change {
        Change::Added => 'A',
        Change::Changed => 'C',
        Change::Deleted => 'D',
    }
}
