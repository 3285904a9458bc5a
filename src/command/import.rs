//! `coracle import`.

use super::present;
use crate::engine::{Engine, archive};
use crate::image::manifest::{Platform, normal_architecture};
use anyhow::Result;
use std::process::ExitCode;

/// Import a tarball and save it as a filesystem image
///
/// The archive may be plain or compressed by gzip, zstd, xz or bzip2; `-` reads it from standard input.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Set the architecture of the imported image
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Apply instruction to the created image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Set the OS of the imported image
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Suppress output
    #[arg(short, long)]
    quiet: bool,
    /// Set the variant of the imported image
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// The archive: a file, an URL, or `-`
    #[arg(value_name = "PATH")]
    path: String,
    /// Name of the image
    #[arg(value_name = "REFERENCE")]
    name: Option<String>,
}

/// Import it; its id goes to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let mut platform = Platform::host();
    if let Some(arch) = &args.arch {
        (platform.architecture, platform.variant) = normal_architecture(arch);
    }
    platform.os = args.os.unwrap_or(platform.os);
    platform.variant = args.variant.or(platform.variant);
    let wish =
        archive::ImportWish { path: args.path, name: args.name, changes: args.change, message: args.message, platform };
    let record = archive::import(engine, wish)?;
    present::line(record.id.as_str())?;
    Ok(ExitCode::SUCCESS)
}
