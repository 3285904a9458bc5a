//! `coracle image tree`.

use crate::command::present::{self, human};
use crate::engine::Engine;
use crate::image::reference::Reference;
use crate::image::store;
use crate::storage::layer;
use anyhow::Result;
use std::fmt::Write;
use std::process::ExitCode;

/// Print layer hierarchy of an image in a tree format
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Show all child images and layers of the specified image
    #[arg(long)]
    whatrequires: bool,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Print it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let layout = &engine.layout;
    let wanted = store::require(layout, &args.image)?.record;
    let tags = store::tags(layout)?;
    let named = |record: &store::ImageRecord| -> Vec<String> {
        tags.iter().filter(|(_, id)| *id == record.id).map(|(name, _): &(Reference, _)| name.to_string()).collect()
    };
    let mut text = String::new();
    writeln!(text, "Image ID: {}", wanted.id.short())?;
    writeln!(text, "Tags:     [{}]", named(&wanted).join(" "))?;
    writeln!(text, "Size:     {}", human::compact_size(wanted.size))?;
    let images = store::list(layout)?;
    let mut branches: Vec<(Vec<String>, String)> = Vec::new();
    if args.whatrequires {
        writeln!(text, "Image Layers")?;
        for image in images.iter().filter(|image| image.id != wanted.id && image.layers.starts_with(&wanted.layers)) {
            branches.push((vec![format!("Image ID: {}", image.id.short())], named(image).join(" ")));
        }
    } else if wanted.layers.is_empty() {
        writeln!(text, "No Image Layers")?;
    } else {
        writeln!(text, "Image Layers")?;
        for (index, diff_id) in wanted.layers.iter().enumerate() {
            let size = layer::load(layout, diff_id.hex())?.map_or(0, |layer| layer.size);
            let below = &wanted.layers[..=index];
            let names: Vec<String> = images.iter().filter(|image| image.layers == below).flat_map(named).collect();
            branches
                .push((vec![format!("ID: {} Size: {}", diff_id.short(), human::compact_size(size))], names.join(" ")));
        }
    }
    for (index, (words, names)) in branches.iter().enumerate() {
        let sign = if index + 1 == branches.len() { "└──" } else { "├──" };
        let top = if names.is_empty() { String::new() } else { format!(" Top Layer of: [{names}]") };
        writeln!(text, "{sign} {}{top}", words.join(" "))?;
    }
    present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}
