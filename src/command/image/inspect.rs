//! `coracle image inspect`.

use crate::command::flag::registry::Registry;
use crate::command::{present, rmi};
use crate::engine::{Engine, image, registry};
use crate::image::store;
use anyhow::Result;
use std::process::ExitCode;

/// Display an image's configuration
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Format the output to a Go template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    registry: Registry,
    /// Names or ids; docker://NAME is looked at in its registry
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Show each; what is not there is told at the end.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let mut documents = Vec::new();
    let mut failures = Vec::new();
    for name in &args.images {
        let document = if name.starts_with("docker://") {
            args.registry.access().and_then(|access| registry::inspect(engine, name, access, None))
        } else {
            store::require(&engine.layout, name).and_then(|image| image::inspect(engine, &image))
        };
        match document {
            Ok(document) => documents.push(document),
            Err(error) => failures.push(error),
        }
    }
    present::documents(args.format.as_deref(), documents)?;
    rmi::outcome(failures)
}
