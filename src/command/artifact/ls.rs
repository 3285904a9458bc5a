//! `coracle artifact ls`.

use crate::command::present::{Column, List, human};
use crate::engine::{Engine, artifact};
use anyhow::Result;
use serde_json::json;
use std::process::ExitCode;

/// List OCI artifacts
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output format to JSON or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not print column headings
    #[arg(short, long)]
    noheading: bool,
}

const COLUMNS: &[Column] = &[
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("Digest", "DIGEST"),
    Column::new("Size", "SIZE"),
];

/// Show them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let all = artifact::list(engine)?;
    let list = List { format: args.format.as_deref(), heading: !args.noheading, columns: COLUMNS, more_headings: &[] };
    let row = |artifact: &artifact::Artifact| {
        let digest = if args.no_trunc { artifact.digest.hex() } else { artifact.digest.short() };
        json!({"Repository": artifact.name.name(), "Tag": artifact.name.tag.clone().unwrap_or_default(),
            "Digest": digest, "Size": human::size(artifact.size()), "VirtualSize": artifact.size(),
            "Created": artifact.created()})
    };
    list.print(&all, row, row)?;
    Ok(ExitCode::SUCCESS)
}
