//! `coracle pull`.

use super::flag::registry::{Registry, Retry, Tls};
use super::present;
use super::present::progress::Progress;
use crate::engine::{Engine, registry};
use crate::model::pull::{Pull, PullPolicy};
use anyhow::{Result, ensure};
use std::process::ExitCode;

/// Pull an image from a registry
///
/// Of an index the image for this machine is taken, and the index is kept. A pull that was interrupted goes on where it
/// stopped; what several pulls need at once is fetched once.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// All tagged images in the repository will be pulled
    #[arg(short, long)]
    all_tags: bool,
    /// The images for all platforms, not only for one
    #[arg(long, conflicts_with_all = ["platform", "arch", "os", "variant", "all_tags"])]
    all_platforms: bool,
    /// Use ARCH instead of the architecture of the machine for choosing images
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Use OS instead of the running OS for choosing images
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Use VARIANT instead of the running architecture variant for choosing images
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
    /// Specify the platform for selecting the image: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Pull image policy
    #[arg(long, value_name = "POLICY", default_value = "always", value_parser = policy)]
    policy: PullPolicy,
    /// Suppress output information when pulling images
    #[arg(short, long)]
    quiet: bool,
    /// Key needed to decrypt the image; images that are encrypted are refused
    #[arg(long, value_name = "KEY", hide = true)]
    decryption_key: Vec<String>,
    /// This is a Docker specific option and is a NOOP
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<String>,
    #[command(flatten)]
    registry: Registry,
    /// What to pull
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Pull each image; the ids go to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(args.decryption_key.is_empty(), "--decryption-key: encrypted images are not supported");
    let progress = Progress::new(args.quiet);
    let Registry { authfile, creds, cert_dir, tls: Tls { tls_verify }, retry: Retry { retry, retry_delay } } =
        args.registry.clone();
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let options = Pull {
        policy: args.policy,
        platform: platform(&args),
        authfile: authfile.map(text),
        creds,
        cert_dir: cert_dir.map(text),
        tls_verify,
        quiet: args.quiet,
        retry,
        retry_delay_ns: retry_delay.map(|delay| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
    };
    for image in &args.images {
        if args.all_tags {
            for pulled in registry::pull_all_tags(engine, image, &options, &progress)? {
                present::line(pulled.record.id.hex())?;
            }
        } else if args.all_platforms || args.policy == PullPolicy::Always {
            let pulled = registry::pull(engine, image, &options, args.all_platforms, &progress)?;
            present::line(pulled.record.id.hex())?;
        } else {
            present::line(registry::ensure_image(engine, image, &options, &progress)?.id())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `--os --arch --variant` as one; what was not said is this machine's.
fn platform(args: &Args) -> Option<String> {
    if args.platform.is_some() {
        return args.platform.clone();
    }
    if args.os.is_none() && args.arch.is_none() && args.variant.is_none() {
        return None;
    }
    let host = crate::image::manifest::Platform::host();
    let os = args.os.clone().unwrap_or(host.os);
    let arch = args.arch.clone().unwrap_or(host.architecture);
    Some(match &args.variant {
        Some(variant) => format!("{os}/{arch}/{variant}"),
        None => format!("{os}/{arch}"),
    })
}

/// A pull policy; podman also takes truth values.
pub fn policy(text: &str) -> Result<PullPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        "always" | "true" => Ok(PullPolicy::Always),
        "missing" | "ifmissing" | "ifnotpresent" | "" => Ok(PullPolicy::Missing),
        "never" | "false" => Ok(PullPolicy::Never),
        "newer" | "ifnewer" => Ok(PullPolicy::Newer),
        _ => Err(format!("unsupported pull policy \"{text}\": always, missing, never or newer")),
    }
}
