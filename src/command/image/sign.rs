//! `coracle image sign`.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Sign an image with a GPG key; refused, for coracle makes no GPG signatures
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Sign all the manifests of the multi-architecture image
    #[arg(short, long)]
    all: bool,
    /// Path of the authentication file
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// A directory of certificates for the registry
    #[arg(long, value_name = "DIRECTORY")]
    cert_dir: Option<PathBuf>,
    /// Where the signatures would go
    #[arg(short, long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Name of the signing key
    #[arg(long, value_name = "KEY")]
    sign_by: Option<String>,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Refuse.
pub fn run(args: Args, _: &Engine) -> Result<ExitCode> {
    let Args { all: _, authfile: _, cert_dir: _, directory: _, sign_by: _, images } = args;
    Err(Failure::new(Kind::Engine, format!("sign {}: GPG signatures are not supported", images.join(" ")))
        .hint("`coracle push --sign-by-sigstore-private-key FILE` signs an image as it is pushed")
        .into())
}
