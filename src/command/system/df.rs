//! `coracle system df`.

use crate::command::present::{self, Column, List, human};
use crate::engine::Engine;
use crate::engine::disk::{self, Share, Usage};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// Show disk usage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Pretty-print images using a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show detailed information on disk usage
    #[arg(short, long)]
    verbose: bool,
}

const COLUMNS: &[Column] = &[
    Column::new("Type", "TYPE"),
    Column::new("Total", "TOTAL"),
    Column::new("Active", "ACTIVE"),
    Column::new("Size", "SIZE"),
    Column::new("Reclaimable", "RECLAIMABLE"),
];
const IMAGES: &[Column] = &[
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("ImageID", "IMAGE ID"),
    Column::new("Created", "CREATED"),
    Column::new("Size", "SIZE"),
    Column::new("SharedSize", "SHARED SIZE"),
    Column::new("UniqueSize", "UNIQUE SIZE"),
    Column::new("Containers", "CONTAINERS"),
];
const CONTAINERS: &[Column] = &[
    Column::new("ContainerID", "CONTAINER ID"),
    Column::new("Image", "IMAGE"),
    Column::new("Command", "COMMAND"),
    Column::new("LocalVolumes", "LOCAL VOLUMES"),
    Column::new("Size", "SIZE"),
    Column::new("Created", "CREATED"),
    Column::new("Status", "STATUS"),
    Column::new("Names", "NAMES"),
];
const VOLUMES: &[Column] =
    &[Column::new("VolumeName", "VOLUME NAME"), Column::new("Links", "LINKS"), Column::new("Size", "SIZE")];

/// Show it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.verbose && args.format.is_some() {
        bail!("cannot combine --format and --verbose flags");
    }
    let usage = disk::usage(engine)?;
    if args.verbose {
        return verbose(&usage);
    }
    let rows = [("Images", usage.images), ("Containers", usage.containers), ("Local Volumes", usage.volumes)];
    let list = List { format: args.format.as_deref(), heading: true, columns: COLUMNS, more_headings: &[] };
    list.print(&rows, |(kind, share)| row(kind, share), |(kind, share)| document(kind, share))?;
    Ok(ExitCode::SUCCESS)
}

fn reclaimable(share: &Share) -> String {
    let percent = if share.size == 0 { 0.0 } else { share.reclaimable as f64 * 100.0 / share.size as f64 };
    format!("{} ({percent:.0}%)", human::compact_size(share.reclaimable))
}

fn row(kind: &str, share: &Share) -> Value {
    json!({
        "Type": kind,
        "Total": share.total,
        "TotalCount": share.total,
        "Active": share.active,
        "Size": human::compact_size(share.size),
        "RawSize": share.size,
        "Reclaimable": reclaimable(share),
        "RawReclaimable": share.reclaimable,
    })
}

fn document(kind: &str, share: &Share) -> Value {
    json!({
        "Type": kind,
        "Total": share.total,
        "Active": share.active,
        "RawSize": share.size,
        "RawReclaimable": share.reclaimable,
        "TotalCount": share.total,
        "Size": human::compact_size(share.size),
        "Reclaimable": reclaimable(share),
    })
}

fn since(time_ns: i64) -> String {
    human::since(UNIX_EPOCH + Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0)))
}

fn verbose(usage: &Usage) -> Result<ExitCode> {
    let table = |title: &str, columns: &[Column], rows: &[Value]| -> Result<()> {
        present::text(&format!("{title} space usage:\n\n"))?;
        let list = List { format: None, heading: true, columns, more_headings: &[] };
        list.print(rows, Value::clone, Value::clone)
    };
    table("Images", IMAGES, &images(usage))?;
    present::text("\n")?;
    table("Containers", CONTAINERS, &containers(usage))?;
    present::text("\n")?;
    let volumes: Vec<Value> = usage
        .each_volume
        .iter()
        .map(|(volume, users, size)| {
            json!({"VolumeName": volume.name, "Links": users, "Size": human::compact_size(*size)})
        })
        .collect();
    table("Local Volumes", VOLUMES, &volumes)?;
    Ok(ExitCode::SUCCESS)
}

fn images(usage: &Usage) -> Vec<Value> {
    let mut rows = Vec::new();
    for one in &usage.each_image {
        let row = |repository: String, tag: String| {
            json!({
                "Repository": repository,
                "Tag": tag,
                "ImageID": one.image.record.id.short(),
                "Created": since(one.image.record.created_ns),
                "Size": human::compact_size(one.shared + one.unique),
                "SharedSize": human::compact_size(one.shared),
                "UniqueSize": human::compact_size(one.unique),
                "Containers": one.containers,
            })
        };
        if one.image.names.is_empty() {
            rows.push(row("<none>".to_owned(), "<none>".to_owned()));
        }
        for name in &one.image.names {
            rows.push(row(name.name(), name.tag.clone().unwrap_or_else(|| "<none>".to_owned())));
        }
    }
    rows
}

fn containers(usage: &Usage) -> Vec<Value> {
    let row = |(one, size): &(crate::engine::list::Listed, u64)| {
        let volumes = one.record.spec.mounts.iter();
        let volumes = volumes.filter(|mount| matches!(mount.source, crate::model::mount::MountSource::Volume { .. }));
        json!({
            "ContainerID": one.record.id.short(),
            "Image": one.record.image.as_ref().map(|image| image.id.chars().take(12).collect::<String>()),
            "Command": one.record.spec.process.command.join(" "),
            "LocalVolumes": volumes.count(),
            "Size": human::compact_size(*size),
            "Created": since(one.record.created_ns),
            "Status": one.state.word(),
            "Names": one.record.name,
        })
    };
    usage.each_container.iter().map(row).collect()
}
