//! `coracle history`.

use super::present::{self, Column, List, human};
use crate::engine::Engine;
use crate::image::store::{self, HistoryLine};
use anyhow::Result;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// Show the history of an image
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output to JSON or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Display sizes and dates in human readable format
    #[arg(short = 'H', long, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    human: bool,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Display the numeric IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

const COLUMNS: &[Column] = &[
    Column::new("ID", "ID"),
    Column::new("Created", "CREATED"),
    Column::new("CreatedBy", "CREATED BY"),
    Column::new("Size", "SIZE"),
    Column::new("Comment", "COMMENT"),
];
/// Letters of a command that are shown.
const COMMAND_WIDTH: usize = 45;

/// Show it, newest first.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let image = store::require(&engine.layout, &args.image)?;
    let lines = store::history(&engine.layout, &image)?;
    if args.quiet {
        let ids = lines.iter().map(|line| short_id(line, args.no_trunc) + "\n").collect::<String>();
        present::text(&ids)?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = List { format: args.format.as_deref(), heading: true, columns: COLUMNS, more_headings: &[] };
    let names = store::names_of(&engine.layout, &image.record.id)?;
    let tags: Vec<String> = names.iter().map(ToString::to_string).collect();
    list.print(&lines, |line| row(line, &args, &tags), document)?;
    Ok(ExitCode::SUCCESS)
}

fn short_id(line: &HistoryLine, no_trunc: bool) -> String {
    match &line.id {
        None => "<missing>".to_owned(),
        Some(id) if no_trunc => id.hex().to_owned(),
        Some(id) => id.short().to_owned(),
    }
}

fn time_of(line: &HistoryLine) -> Option<i64> {
    let time = line.step.created.as_deref()?.parse::<jiff::Timestamp>().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// `tags`: the image's names, which belong to its newest line.
fn row(line: &HistoryLine, args: &Args, tags: &[String]) -> Value {
    let time = time_of(line).unwrap_or(0);
    let command = &line.step.created_by;
    let shown = if args.no_trunc || command.chars().count() <= COMMAND_WIDTH {
        command.clone()
    } else {
        command.chars().take(COMMAND_WIDTH - 3).chain("...".chars()).collect()
    };
    let created = match u64::try_from(time) {
        Ok(time) if args.human => human::ago(UNIX_EPOCH + Duration::from_nanos(time)),
        _ => line.step.created.clone().unwrap_or_default(),
    };
    json!({
        "ID": short_id(line, args.no_trunc),
        "Created": created,
        "CreatedSince": created,
        "CreatedAt": line.step.created,
        "CreatedBy": shown,
        "Size": if args.human { human::size(line.size) } else { line.size.to_string() },
        "Comment": line.step.comment,
        "Tags": if line.id.is_some() { tags } else { &[] },
    })
}

fn document(line: &HistoryLine) -> Value {
    json!({
        "id": line.id.as_ref().map_or("<missing>", |id| id.hex()),
        "created": line.step.created,
        "Created": line.step.created,
        "CreatedBy": line.step.created_by,
        "size": line.size,
        "comment": line.step.comment,
    })
}
