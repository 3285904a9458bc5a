//! `coracle push`.

use super::flag::registry::Registry;
use super::present::progress::Progress;
use crate::engine::Engine;
use crate::engine::copy::{self, How};
use crate::failure::{Failure, Kind};
use crate::image::access::Access;
use crate::image::copy::{Conversion, Format};
use crate::image::signature::Signer;
use crate::model::digest::Digest;
use crate::storage::compress::Compression;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Push an image to a specified destination
///
/// What the registry has is not sent. An image that was pulled is pushed as it came, so its digest stays.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The whole index the image was chosen from (`pull --all-platforms` fetches all of it)
    #[arg(long)]
    all_platforms: bool,
    #[command(flatten)]
    sending: Sending,
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

// What is signed and encrypted on the way.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Protection {
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
    /// Sign the image with this private key: ECDSA on P-256, PKCS #8, not encrypted
    #[arg(long, value_name = "FILE")]
    sign_by_sigstore_private_key: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "FINGERPRINT")]
    sign_by_sq_fingerprint: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    sign_passphrase_file: Option<String>,
}

impl Protection {
    /// Who signs. What is known but not done here is refused by name.
    pub fn signer(&self) -> Result<Option<Arc<Signer>>> {
        let Protection {
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
        ensure!(!encrypts, "--encryption-key: encrypted images are not supported");
        for (option, wanted) in [
            ("--sign-by", sign_by),
            ("--sign-by-sigstore", sign_by_sigstore),
            ("--sign-by-sq-fingerprint", sign_by_sq_fingerprint),
            ("--sign-passphrase-file", sign_passphrase_file),
        ] {
            if wanted.is_some() {
                return Err(Failure::new(
                    Kind::Engine,
                    format!("{option}: signing images in this way is not supported"),
                )
                .hint("--sign-by-sigstore-private-key FILE signs with a key that is not encrypted")
                .into());
            }
        }
        sign_by_sigstore_private_key.as_deref().map(|path| Signer::open(path).map(Arc::new)).transpose()
    }
}

// What pushes of images and of lists have in common.
#[derive(clap::Args, Debug)]
pub struct Sending {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    delivery: Delivery,
}

// What all pushes have in common, those of artifacts too.
#[derive(clap::Args, Debug)]
pub struct Delivery {
    /// Write the digest of what was pushed to the specified file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Don't output progress information
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    registry: Registry,
}

impl Sending {
    /// Send as these options say. `push` returns the digest of what is there now.
    pub fn send(&self, all: bool, push: impl FnOnce(Access, How, &Progress) -> Result<Digest>) -> Result<()> {
        let conversion = self.change.conversion();
        self.delivery
            .deliver(|access, signer, progress| push(access, How { conversion, all, platform: None, signer }, progress))
    }
}

impl Delivery {
    /// Send as these options say, and write down the digest that `push` returns.
    pub fn deliver(&self, push: impl FnOnce(Access, Option<Arc<Signer>>, &Progress) -> Result<Digest>) -> Result<()> {
        let signer = self.protection.signer()?;
        let digest = push(self.registry.access()?, signer, &Progress::new(self.quiet))?;
        match &self.digestfile {
            Some(path) => std::fs::write(path, digest.as_str()).with_context(|| format!("write {}", path.display())),
            None => Ok(()),
        }
    }
}

/// Send it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let Args { all_platforms, sending, compress: _, image, destination } = args;
    sending.send(all_platforms, |access, how, progress| {
        copy::push(engine, &image, destination.as_deref(), access, how, progress)
    })?;
    Ok(ExitCode::SUCCESS)
}
