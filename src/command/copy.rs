//! `coracle copy`.

use super::flag::registry::{Retry, boolean};
use super::present::progress::Progress;
use super::push::{Change, Protection};
use crate::engine::Engine;
use crate::engine::copy::{self, How};
use crate::image::access::Access;
use crate::image::auth::Credentials;
use crate::image::manifest::{Platform, normal_architecture};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Copy an image from any place to any other
///
/// SOURCE and DESTINATION are docker://NAME, oci:PATH[:NAME], oci-archive:PATH[:NAME], docker-archive:PATH[:NAME],
/// dir:PATH or containers-storage:NAME. What need not change is copied byte for byte.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Copy all images of an index
    #[arg(short, long)]
    all: bool,
    /// Path of the authentication file of both sides
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
    /// Path of the authentication file of the destination
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    /// Directory with certificates and keys for the destination's registry
    #[arg(long, value_name = "DIR")]
    dest_cert_dir: Option<PathBuf>,
    /// Credentials for the destination's registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    dest_creds: Option<String>,
    /// Require HTTPS and verify certificates of the destination's registry
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = boolean)]
    dest_tls_verify: Option<bool>,
    /// Write the digest of the image to the specified file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Use ARCH instead of the architecture of the machine for choosing images
    #[arg(long, value_name = "ARCH")]
    override_arch: Option<String>,
    /// Use OS instead of the running OS for choosing images
    #[arg(long, value_name = "OS")]
    override_os: Option<String>,
    /// Use VARIANT instead of the running architecture variant for choosing images
    #[arg(long, value_name = "VARIANT")]
    override_variant: Option<String>,
    /// Suppress progress information
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    retry: Retry,
    /// Path of the authentication file of the source
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    /// Directory with certificates and keys for the source's registry
    #[arg(long, value_name = "DIR")]
    src_cert_dir: Option<PathBuf>,
    /// Credentials for the source's registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    src_creds: Option<String>,
    /// Require HTTPS and verify certificates of the source's registry
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = boolean)]
    src_tls_verify: Option<bool>,
    /// From where
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// Copy it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let Retry { retry, retry_delay } = args.retry;
    let side = |authfile: &Option<PathBuf>, creds: &Option<String>, cert_dir: &Option<PathBuf>, tls_verify| {
        Ok::<_, anyhow::Error>(Access {
            authfile: authfile.clone().or_else(|| args.authfile.clone()),
            credentials: creds.as_deref().map(Credentials::parse).transpose()?,
            cert_dir: cert_dir.clone(),
            tls_verify,
            retry,
            retry_delay,
        })
    };
    let from = side(&args.src_authfile, &args.src_creds, &args.src_cert_dir, args.src_tls_verify)?;
    let to = side(&args.dest_authfile, &args.dest_creds, &args.dest_cert_dir, args.dest_tls_verify)?;
    let progress = Progress::new(args.quiet);
    let signer = args.protection.signer()?;
    let how = How { conversion: args.change.conversion(), all: args.all, platform: platform(&args), signer };
    let digest = copy::copy(engine, &args.source, &args.destination, (from, to), &how, &progress)?;
    if let Some(path) = &args.digestfile {
        std::fs::write(path, digest.as_str()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn platform(args: &Args) -> Option<Platform> {
    let Args { override_arch, override_os, override_variant, .. } = args;
    if override_arch.is_none() && override_os.is_none() && override_variant.is_none() {
        return None;
    }
    let mut platform = Platform::host();
    if let Some(arch) = override_arch {
        (platform.architecture, platform.variant) = normal_architecture(arch);
    }
    if let Some(os) = override_os {
        platform.os.clone_from(os);
    }
    if override_variant.is_some() {
        platform.variant.clone_from(override_variant);
    }
    Some(platform)
}
