//! `coracle artifact add`.

use crate::command::manifest::annotations;
use crate::command::present;
use crate::engine::Engine;
use crate::engine::artifact::{self, Addition};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Add an OCI artifact to the local store
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Set an annotation on the files: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Append files to an existing artifact
    #[arg(short, long)]
    append: bool,
    /// Media type of the files (default: by their content)
    #[arg(long, value_name = "TYPE")]
    file_type: Option<String>,
    /// Take the place of an existing artifact
    #[arg(long)]
    replace: bool,
    /// Type of the artifact
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// The artifact
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
    /// The files
    #[arg(value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
}

/// Make it and print its digest.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let Args { annotation, append, file_type, replace, r#type, artifact, files } = args;
    let annotations = annotations(&annotation)?;
    let addition = Addition { files, annotations, artifact_type: r#type, file_type, append, replace };
    present::line(artifact::add(engine, &artifact, addition)?.hex())?;
    Ok(ExitCode::SUCCESS)
}
