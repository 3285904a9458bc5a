//! `coracle images`.

use super::present::{self, Column, List, human};
use crate::engine::{Engine, image};
use crate::image::store;
use crate::state::layout::Layout;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// List images in local storage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Show all images (by default filter out the intermediate image layers)
    #[arg(short, long)]
    all: bool,
    /// Show image digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Change the output format to JSON or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Display the image name history
    #[arg(long)]
    history: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not print column headings
    #[arg(short, long)]
    noheading: bool,
    /// Display only image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Sort by created, id, repository, size or tag
    #[arg(long, value_name = "FIELD", default_value = "created")]
    sort: String,
    /// Names to look for
    #[arg(value_name = "IMAGE")]
    name: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("ID", "IMAGE ID"),
    Column::new("Created", "CREATED"),
    Column::new("Size", "SIZE"),
];
const WITH_DIGESTS: &[Column] = &[
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("Digest", "DIGEST"),
    Column::new("ID", "IMAGE ID"),
    Column::new("Created", "CREATED"),
    Column::new("Size", "SIZE"),
];
const WITH_HISTORY: &[Column] = &[
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("ID", "IMAGE ID"),
    Column::new("Created", "CREATED"),
    Column::new("Size", "SIZE"),
    Column::new("History", "HISTORY"),
];

/// A line: an image under one of its names.
struct Line<'a> {
    image: &'a image::Listed,
    repository: String,
    tag: String,
}

/// List them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if !["created", "id", "repository", "size", "tag"].contains(&args.sort.as_str()) {
        bail!("{:?} is not a valid field for sorting. Choose from: created, id, repository, size, tag", args.sort);
    }
    let filters = image::Filters::parse(&args.filter)?;
    let mut images = image::list(engine, &filters, args.all)?;
    let lists = image::lists(engine, &filters)?;
    if !lists.is_empty() {
        images.extend(lists);
        images.sort_by_key(|image| std::cmp::Reverse(image.record.created_ns));
    }
    if let Some(name) = &args.name {
        let found = store::find(&engine.layout, name).ok().flatten().map(|(record, _)| record.id);
        images.retain(|image| {
            found.as_ref() == Some(&image.record.id)
                || image.names.iter().any(|known| image::matches_pattern(known, name))
        });
    }
    let mut lines: Vec<Line<'_>> = images.iter().flat_map(lines_of).collect();
    sort(&mut lines, &args.sort);
    if args.quiet {
        return quiet(&lines, args.no_trunc);
    }
    let columns = match (args.history, args.digests) {
        (true, _) => WITH_HISTORY,
        (_, true) => WITH_DIGESTS,
        _ => COLUMNS,
    };
    let more =
        [Column::new("CreatedAt", "CREATED AT"), Column::new("CreatedSince", "CREATED"), Column::new("Id", "ID")];
    let list = List { format: args.format.as_deref(), heading: !args.noheading, columns, more_headings: &more };
    let labels = args.format.as_deref().is_some_and(|format| format.contains("Labels"));
    let row = |line: &Line<'_>| row(line, args.no_trunc, labels.then_some(&engine.layout));
    let used = match list.format {
        Some("json") => image::used_by(&engine.layout)?,
        _ => Default::default(),
    };
    list.print(&lines, row, |line| {
        let containers = used.get(line.image.record.id.hex()).map_or(0, Vec::len);
        document(line.image, containers, &engine.layout)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn lines_of(image: &image::Listed) -> Vec<Line<'_>> {
    let none = || "<none>".to_owned();
    if image.names.is_empty() {
        return vec![Line { image, repository: none(), tag: none() }];
    }
    let mut lines: Vec<Line<'_>> = image
        .names
        .iter()
        .map(|name| Line { image, repository: name.name(), tag: name.tag.clone().unwrap_or_else(none) })
        .collect();
    // NAME@DIGEST shows a line only where no tag shows the repository.
    let tagged: Vec<String> =
        lines.iter().filter(|line| line.tag != "<none>").map(|line| line.repository.clone()).collect();
    lines.retain(|line| line.tag != "<none>" || !tagged.contains(&line.repository));
    lines
}

fn sort(lines: &mut [Line<'_>], field: &str) {
    match field {
        "id" => lines.sort_by(|one, other| one.image.record.id.cmp(&other.image.record.id)),
        "repository" => {
            lines.sort_by(|one, other| (&one.repository, &one.tag).cmp(&(&other.repository, &other.tag)));
        }
        "size" => lines.sort_by_key(|line| line.image.record.size),
        "tag" => lines.sort_by(|one, other| one.tag.cmp(&other.tag)),
        // The list comes newest first.
        _ => {}
    }
}

fn quiet(lines: &[Line<'_>], no_trunc: bool) -> Result<ExitCode> {
    let mut text = String::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in lines {
        let id = &line.image.record.id;
        if seen.insert(id) {
            text.push_str(if no_trunc { id.as_str() } else { id.short() });
            text.push('\n');
        }
    }
    present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(line: &Line<'_>, no_trunc: bool, labels: Option<&Layout>) -> Value {
    let record = &line.image.record;
    let created = UNIX_EPOCH + Duration::from_nanos(u64::try_from(record.created_ns).unwrap_or(0));
    let since = human::ago(created);
    let labels = labels.and_then(|layout| record.config(layout).ok()).and_then(|config| config.config.labels);
    let names = line.image.tags();
    json!({
        "ID": if no_trunc { record.id.as_str() } else { record.id.short() },
        "Id": record.id.hex(),
        "Repository": line.repository,
        "Tag": line.tag,
        "Digest": record.digest().map_or("<none>", |digest| digest.as_str()),
        "Created": since,
        "CreatedSince": since,
        "CreatedAt": human::go_time(record.created_ns),
        "CreatedTime": human::go_time(record.created_ns),
        "Size": human::size(record.size),
        "VirtualSize": record.size,
        "SharedSize": 0,
        "Names": names,
        "RepoTags": names,
        "RepoDigests": line.image.repository_digests(),
        "History": names.join(", "),
        "Labels": labels.unwrap_or_default(),
        "Dangling": line.image.is_dangling(),
        "ReadOnly": false,
        "IsReadOnly": false,
        "ParentId": "",
    })
}

fn document(image: &image::Listed, containers: usize, layout: &Layout) -> Value {
    let record = &image.record;
    let config = record.config(layout).unwrap_or_default();
    let mut value = json!({
        "Id": record.id.hex(),
        "ParentId": "",
        "RepoTags": Value::Null,
        "RepoDigests": image.repository_digests(),
        "Size": record.size,
        "SharedSize": 0,
        "VirtualSize": record.size,
        "Labels": config.config.labels,
        "Containers": containers,
        "Names": image.tags(),
        "Digest": record.digest(),
        "History": image.tags(),
        "Created": record.created_ns.div_euclid(1_000_000_000),
        "CreatedAt": image::created_text(record),
    });
    if image.is_dangling() {
        value["Dangling"] = json!(true);
    }
    if !config.architecture.is_empty() {
        value["Arch"] = json!(config.architecture);
        value["Os"] = json!(config.os);
    }
    value
}
