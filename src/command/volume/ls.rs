//! `coracle volume ls`.

use crate::command::present::{self, Column, List};
use crate::engine::{Engine, volume};
use anyhow::Result;
use serde_json::Value;
use std::process::ExitCode;

/// List all the available volumes
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Filter volume output
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format volume output using Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not print headers
    #[arg(short, long)]
    noheading: bool,
    /// Print volume names only
    #[arg(short, long)]
    quiet: bool,
}

const COLUMNS: &[Column] = &[Column::new("Driver", "DRIVER"), Column::new("Name", "VOLUME NAME")];

/// List them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let volumes = volume::list(engine, &volume::Filters::parse(&args.filter)?)?;
    if args.quiet {
        present::text(&volumes.iter().map(|volume| volume.name.clone() + "\n").collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = List { format: args.format.as_deref(), heading: !args.noheading, columns: COLUMNS, more_headings: &[] };
    list.print(&volumes, |found| row(volume::fields(engine, found)), |found| volume::document(engine, found))?;
    Ok(ExitCode::SUCCESS)
}

/// In a table labels and options are text, `a=b,c=d`.
fn row(mut document: Value) -> Value {
    for field in ["Labels", "Options"] {
        if let Some(map) = document[field].as_object() {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            document[field] = Value::String(pairs.join(","));
        }
    }
    document
}
