//! `coracle artifact push`.

use crate::command::push::Delivery;
use crate::engine::{Engine, artifact};
use anyhow::Result;
use std::process::ExitCode;

/// Push an OCI artifact
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    delivery: Delivery,
    /// The artifact
    #[arg(value_name = "ARTIFACT")]
    artifact: String,
    /// Where to; its own name if not said
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// Send it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let Args { delivery, artifact, destination } = args;
    delivery.deliver(|access, signer, progress| {
        artifact::push(engine, &artifact, destination.as_deref(), (access, signer), progress)
    })?;
    Ok(ExitCode::SUCCESS)
}
