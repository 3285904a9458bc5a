//! `coracle image mount`.

use crate::command::present;
use crate::engine::{Engine, image_mount as images};
use crate::image::store;
use anyhow::{Result, bail};
use serde_json::json;
use std::process::ExitCode;

/// Mount an image's root filesystem, read-only
///
/// Prints where; without an image it lists those that are mounted.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Mount all images
    #[arg(short, long)]
    all: bool,
    /// Print the mounted images in specified format (json)
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Mount or list.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.all && !args.images.is_empty() {
        bail!("when using the --all switch, you may not pass any image names or IDs");
    }
    if args.format.as_deref().is_some_and(|format| format != "json") {
        bail!("invalid --format value {:?}: only json is supported", args.format.unwrap_or_default());
    }
    let names =
        if args.all { store::ids(&engine.layout)?.iter().map(|id| id.hex().to_owned()).collect() } else { args.images };
    if names.is_empty() {
        return list(engine, args.format.is_some());
    }
    for name in &names {
        let place = images::mount(engine, name)?;
        match names.as_slice() {
            [_] if !args.all => present::line(place.display())?,
            _ => present::line(format!("{name} {}", place.display()))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(engine: &Engine, as_json: bool) -> Result<ExitCode> {
    let mut documents = Vec::new();
    for (record, place) in images::mounted(engine)? {
        let names: Vec<String> = store::names_of(&engine.layout, &record.id)?.iter().map(ToString::to_string).collect();
        if !as_json {
            present::line(format!("{} {}", names.first().map_or(record.id.hex(), String::as_str), place.display()))?;
        }
        documents.push(json!({"id": record.id.hex(), "Repositories": names, "mountpoint": place}));
    }
    if as_json {
        present::document("json", &serde_json::Value::Array(documents))?;
    }
    Ok(ExitCode::SUCCESS)
}
