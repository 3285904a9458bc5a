//! `coracle push`.

use super::flag::registry::Registry;
use super::present::progress::Progress;
use crate::engine::Engine;
use crate::engine::copy::{self, How};
use crate::image::copy::{Conversion, Format};
use crate::storage::compress::Compression;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Push an image to a specified destination
///
/// What the registry has is not sent. An image that was pulled is pushed as it came, so its digest stays.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The whole index the image was chosen from (`pull --all-platforms` fetches all of it)
    #[arg(long)]
    all_platforms: bool,
    #[command(flatten)]
    change: Change,
    /// Write the digest of the pushed image to the specified file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Don't output progress information when pushing images
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    refused: Refused,
    #[command(flatten)]
    registry: Registry,
    /// Compress layers with dir destinations (they are kept as they are)
    #[arg(long, hide = true)]
    compress: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to; a registry's name or TRANSPORT:WHERE
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

// What may be changed on the way.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Change {
    /// Compression format to use: gzip, zstd or zstd:chunked (as zstd)
    #[arg(long, value_name = "FORMAT", value_parser = compression)]
    pub compression_format: Option<Compression>,
    /// Compression level to use
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<i32>,
    /// Use the specified compression algorithm even if the layers are compressed in another way
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = super::flag::registry::boolean)]
    pub force_compression: Option<bool>,
    /// Manifest type (oci or v2s2) to use (default: as the image has it)
    #[arg(short, long, value_name = "TYPE", value_parser = Format::parse)]
    pub format: Option<Format>,
}

fn compression(text: &str) -> Result<Compression, String> {
    copy::compression(text).map_err(|error| error.to_string())
}

impl Change {
    /// As the image room wants it. Naming a format means all layers shall have it, as with podman.
    pub fn conversion(&self) -> Conversion {
        let Change { compression_format, compression_level, force_compression, format } = self;
        Conversion {
            format: *format,
            compression: *compression_format,
            force: force_compression.unwrap_or(compression_format.is_some()),
            level: *compression_level,
        }
    }
}

// What is known but not done here; each is refused by name.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Refused {
    /// This is a Docker specific option and is a NOOP
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<String>,
    /// Discard any pre-existing signatures in the image; none are kept with images
    #[arg(long, hide = true)]
    remove_signatures: bool,
    #[arg(long, hide = true, value_name = "KEY")]
    encryption_key: Vec<String>,
    #[arg(long, hide = true, value_name = "LAYER")]
    encrypt_layer: Vec<i32>,
    #[arg(long, hide = true, value_name = "KEY")]
    sign_by: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    sign_by_sigstore: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    sign_by_sigstore_private_key: Option<String>,
    #[arg(long, hide = true, value_name = "FINGERPRINT")]
    sign_by_sq_fingerprint: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    sign_passphrase_file: Option<String>,
}

impl Refused {
    /// Refuse what was asked for.
    pub fn check(&self) -> Result<()> {
        let Refused {
            disable_content_trust: _,
            remove_signatures: _,
            encryption_key,
            encrypt_layer,
            sign_by,
            sign_by_sigstore,
            sign_by_sigstore_private_key,
            sign_by_sq_fingerprint,
            sign_passphrase_file,
        } = self;
        let encrypts = !encryption_key.is_empty() || !encrypt_layer.is_empty();
        anyhow::ensure!(!encrypts, "--encryption-key: encrypted images are not supported");
        let signs =
            [sign_by, sign_by_sigstore, sign_by_sigstore_private_key, sign_by_sq_fingerprint, sign_passphrase_file];
        if signs.iter().any(|option| option.is_some()) {
            return Err(crate::failure::Failure::new(crate::failure::Kind::Engine, "signing images is not supported")
                .hint("sign after the push: `cosign sign NAME@DIGEST` with the digest of --digestfile")
                .into());
        }
        Ok(())
    }
}

/// Send it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    args.refused.check()?;
    let progress = Progress::new(args.quiet);
    let how = How { conversion: args.change.conversion(), all: args.all_platforms, platform: None };
    let digest = copy::push(engine, &args.image, args.destination.as_deref(), args.registry.access()?, how, &progress)?;
    if let Some(path) = &args.digestfile {
        std::fs::write(path, digest.as_str()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
