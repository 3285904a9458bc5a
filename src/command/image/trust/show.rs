//! `coracle image trust show`.

use crate::command::present::{self, Column, List};
use crate::engine::Engine;
use crate::image::policy::edit::{self, Line};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Display trust policy for the system
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Output as json
    #[arg(short, long)]
    json: bool,
    /// Output raw policy file
    #[arg(long)]
    raw: bool,
    /// Do not print column headings
    #[arg(short, long)]
    noheading: bool,
    /// The policy to show
    #[arg(long, hide = true, value_name = "FILE")]
    policypath: Option<PathBuf>,
    /// Only the rules of this registry, repository or image
    #[arg(value_name = "REGISTRY")]
    scope: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::new("Transport", "TRANSPORT"),
    Column::new("Name", "NAME"),
    Column::new("Type", "TYPE"),
    Column::new("GPGId", "ID"),
    Column::new("SignatureStore", "STORE"),
];

/// Print them.
pub fn run(args: Args, _: &Engine) -> Result<ExitCode> {
    let path = args.policypath.as_deref();
    if args.raw {
        present::text(&edit::raw(path)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = edit::lines(path)?;
    if let Some(scope) = &args.scope {
        lines.retain(|line| line.repository == *scope);
    }
    let format = args.json.then_some("json");
    let list = List { format, heading: !args.noheading, columns: COLUMNS, more_headings: &[] };
    list.print(&lines, row, document)?;
    Ok(ExitCode::SUCCESS)
}

fn row(line: &Line) -> Value {
    json!({"Transport": line.transport, "Name": line.repository, "Type": line.kind, "GPGId": line.identity,
        "SignatureStore": ""})
}

fn document(line: &Line) -> Value {
    let mut document = Map::new();
    document.insert("transport".to_owned(), json!(line.transport));
    document.insert("name".to_owned(), json!(line.name));
    document.insert("repo_name".to_owned(), json!(line.repository));
    if !line.keys.is_empty() {
        document.insert("keys".to_owned(), json!(line.keys));
    }
    document.insert("type".to_owned(), json!(line.kind));
    if !line.identity.is_empty() {
        document.insert("gpg_id".to_owned(), json!(line.identity));
    }
    Value::Object(document)
}
