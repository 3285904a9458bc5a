//! `coracle info`.

use super::present::{self, yaml};
use crate::engine::{Engine, info};
use anyhow::Result;
use std::process::ExitCode;

/// Display coracle and system information
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output to JSON or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Print the tree.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let document = info::document(engine)?;
    match args.format.as_deref().map(str::trim) {
        None | Some("") => present::text(&yaml::text(&document))?,
        Some("json") => present::document("json", &document)?,
        // `{{json .}}` shows the names of JSON, `{{.Host.Arch}}` those of Go.
        Some(format) if format.replace(' ', "") == "{{json.}}" => present::document(format, &document)?,
        Some(format) => present::document(format, &info::with_go_names(&document))?,
    }
    Ok(ExitCode::SUCCESS)
}
