//! `coracle commit`.

use super::present;
use crate::engine::{Engine, commit};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

/// Create new image based on the changed container
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Set the author for the image committed
    #[arg(short, long, value_name = "AUTHOR")]
    author: Option<String>,
    /// Apply instruction to the created image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Format of the image manifest and metadata: oci or docker
    #[arg(short, long, value_name = "FORMAT", default_value = "oci")]
    format: String,
    /// File to write the image ID to
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Include container volumes as image volumes
    #[arg(long)]
    include_volumes: bool,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pause: bool,
    /// Suppress output
    #[arg(short, long)]
    quiet: bool,
    /// Squash newly built layers into a single new layer
    #[arg(short, long)]
    squash: bool,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

/// Make it; its id goes to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let docker = match args.format.as_str() {
        "oci" => false,
        "docker" => true,
        other => bail!("unrecognized image format {other:?}: choose oci or docker"),
    };
    if !docker && args.message.is_some() {
        bail!("messages are only compatible with the docker image format (-f docker)");
    }
    let wish = commit::Wish {
        name: args.image,
        author: args.author,
        changes: args.change,
        message: args.message,
        docker,
        pause: args.pause,
        squash: args.squash,
        volumes: args.include_volumes,
    };
    let record = commit::commit(engine, &args.container, &wish)?;
    if let Some(path) = &args.iidfile {
        std::fs::write(path, record.id.as_str()).with_context(|| format!("write {}", path.display()))?;
    }
    present::line(record.id.hex())?;
    Ok(ExitCode::SUCCESS)
}
