//! `coracle artifact inspect`.

use crate::command::present;
use crate::engine::{Engine, artifact};
use anyhow::Result;
use serde_json::json;
use std::process::ExitCode;

/// Inspect an OCI artifact
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Format the output to a Go template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The artifact
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
}

/// Print its manifest, name and digest.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let found = artifact::find(engine, &args.artifact)?;
    let document = json!({
        "Manifest": serde_json::to_value(&found.manifest)?,
        "Name": found.name.to_string(),
        "Digest": found.digest.as_str(),
    });
    match args.format.as_deref() {
        Some(format) if format != "json" => present::document(format, &document)?,
        _ => present::line(present::pretty(&document)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
