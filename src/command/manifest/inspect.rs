//! `coracle manifest inspect`.

use crate::command::flag::registry::Tls;
use crate::command::present;
use crate::engine::{Engine, manifest};
use crate::image::access::Access;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Display the contents of a manifest list or image index
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    tls: Tls,
    /// This is a Docker specific option and is a NOOP
    #[arg(short, long, hide = true)]
    verbose: bool,
    /// The list, or an image of a registry
    #[arg(value_name = "LIST")]
    list: String,
}

/// Print it as JSON.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let access = Access { authfile: args.authfile, tls_verify: args.tls.tls_verify, ..Access::default() };
    let bytes = manifest::inspect(engine, &args.list, access)?;
    let document = serde_json::from_slice(&bytes).context("parse the manifest")?;
    present::line(present::pretty(&document)?)?;
    Ok(ExitCode::SUCCESS)
}
