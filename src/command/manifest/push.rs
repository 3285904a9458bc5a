//! `coracle manifest push`.

use crate::command::flag::registry::{Registry, boolean};
use crate::command::present::progress::Progress;
use crate::command::push::{Change, Refused};
use crate::engine::copy::How;
use crate::engine::{Engine, manifest};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Push a manifest list or image index to a registry
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Also push the images in the list; they always are, for without them a registry takes no list
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = boolean)]
    all: Option<bool>,
    /// Add further compressions of each image; not supported
    #[arg(long, hide = true, value_name = "FORMAT")]
    add_compression: Vec<String>,
    #[command(flatten)]
    change: Change,
    /// After copying the list, write its digest to the file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Don't output progress information when pushing lists
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    refused: Refused,
    #[command(flatten)]
    registry: Registry,
    /// Remove the manifest list if push succeeds
    #[arg(long)]
    rm: bool,
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Where to; its own name if not said
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// Send it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    args.refused.check()?;
    anyhow::ensure!(args.add_compression.is_empty(), "--add-compression is not supported");
    let progress = Progress::new(args.quiet);
    let how = How { conversion: args.change.conversion(), all: true, platform: None };
    let access = args.registry.access()?;
    let digest = manifest::push(engine, &args.list, args.destination.as_deref(), access, &how, &progress)?;
    if let Some(path) = &args.digestfile {
        std::fs::write(path, digest.as_str()).with_context(|| format!("write {}", path.display()))?;
    }
    if args.rm {
        manifest::remove(engine, &args.list)?;
    }
    Ok(ExitCode::SUCCESS)
}
