//! `coracle container inspect`.

use crate::command::inspect;
use crate::engine::Engine;
use anyhow::Result;
use std::process::ExitCode;

/// Display the configuration of containers
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Format the output to a Go template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Return the document of the latest container
    #[arg(short, long)]
    latest: bool,
    /// Display total file size
    #[arg(short, long)]
    size: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

/// As `inspect --type container`.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let Args { format, latest, size, names } = args;
    inspect::run(inspect::Args { format, latest, size, r#type: "container".to_owned(), names }, engine)
}
