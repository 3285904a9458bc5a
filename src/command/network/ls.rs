//! `coracle network ls`.

use super::document;
use crate::command::present::{self, Column, List};
use crate::engine::{Engine, network};
use crate::state::network::NetworkRecord;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::process::ExitCode;

/// List networks
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Only those that match, KEY=VALUE: name, id, driver, label, dangling, until
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Change the output to JSON or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not print headings
    #[arg(short, long)]
    noheading: bool,
    /// Do not truncate the network id
    #[arg(long)]
    no_trunc: bool,
    /// Display only names
    #[arg(short, long)]
    quiet: bool,
}

const COLUMNS: &[Column] =
    &[Column::new("ID", "NETWORK ID"), Column::new("Name", "NAME"), Column::new("Driver", "DRIVER")];

/// Print the list.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let filters = Filters::parse(&args.filter)?;
    let mut records = Vec::new();
    for record in network::list(engine)? {
        if filters.matches(engine, &record)? {
            records.push(record);
        }
    }
    records.sort_by(|a, b| network::shown_name(&a.name).cmp(network::shown_name(&b.name)));
    if args.quiet {
        if args.format.is_some() {
            bail!("quiet and format options cannot be used together");
        }
        for record in &records {
            present::line(network::shown_name(&record.name))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let list = List { format: args.format.as_deref(), heading: !args.noheading, columns: COLUMNS, more_headings: &[] };
    // Both kinds of output are made of the same document; a row has the shorter id.
    let json = |record: &NetworkRecord| document(record, &[]).unwrap_or_default();
    list.print(&records, |record| row(record, json(record), args.no_trunc), json)?;
    Ok(ExitCode::SUCCESS)
}

fn row(record: &NetworkRecord, document: Value, whole: bool) -> Value {
    let id = if whole { record.id.as_str() } else { record.id.short() };
    let labels: Vec<String> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    present::merge(
        document,
        json!({ "ID": id, "Name": network::shown_name(&record.name), "Driver": record.driver, "Labels": labels.join(",") }),
    )
}

/// `--filter` of `network ls` and `network prune`: of one key any, of several keys all must match.
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Read them.
    pub fn parse(words: &[String]) -> Result<Filters> {
        let mut filters = Vec::new();
        for word in words {
            let (key, value) = word.split_once('=').with_context(|| format!("invalid filter: {word}"))?;
            match key {
                "name" | "id" | "driver" | "label" | "label!" => {}
                "dangling" if matches!(value, "true" | "false" | "1" | "0") => {}
                "until" => drop(cutoff_ns(value)?),
                "dangling" => bail!("invalid dangling filter value \"{value}\""),
                _ => bail!("invalid filter \"{key}\""),
            }
            filters.push((key.to_owned(), value.to_owned()));
        }
        Ok(Filters(filters))
    }

    /// Whether a network is meant.
    pub fn matches(&self, engine: &Engine, record: &NetworkRecord) -> Result<bool> {
        for (key, _) in &self.0 {
            let mut any = false;
            for (_, value) in self.0.iter().filter(|(other, _)| other == key) {
                any |= one(engine, record, key, value)?;
            }
            if !any {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn one(engine: &Engine, record: &NetworkRecord, key: &str, value: &str) -> Result<bool> {
    Ok(match key {
        "name" => {
            let pattern = regex_lite::Regex::new(value).with_context(|| format!("invalid filter name={value}"))?;
            pattern.is_match(network::shown_name(&record.name))
        }
        "id" => record.id.as_str().starts_with(value),
        "driver" => record.driver.as_str() == value,
        "dangling" => network::is_unused(engine, record)? == matches!(value, "true" | "1"),
        "until" => record.created_ns < cutoff_ns(value)?,
        "label!" => !has_label(record, value),
        _ => has_label(record, value),
    })
}

fn has_label(record: &NetworkRecord, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => record.labels.get(key).is_some_and(|found| found == value),
        None => record.labels.contains_key(wanted),
    }
}

/// A time as `until=` has it: seconds since 1970, RFC 3339, or a span back from now.
fn cutoff_ns(value: &str) -> Result<i64> {
    if let Ok(seconds) = value.parse::<i64>() {
        return Ok(seconds.saturating_mul(1_000_000_000));
    }
    if let Ok(time) = value.parse::<jiff::Timestamp>() {
        return Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX));
    }
    let span = crate::model::unit::parse_duration_ns(value)?;
    Ok(crate::state::event::now_ns().saturating_sub(i64::try_from(span).unwrap_or(i64::MAX)))
}
