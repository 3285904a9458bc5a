//! `coracle save`.

use crate::engine::{Engine, archive};
use crate::failure::{Failure, Kind};
use crate::image::archive::save::{Format, Options};
use anyhow::{Result, bail};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Save image(s) to an archive
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Compress layers when saving to a directory with docker-dir (default is the compression they came with)
    #[arg(long)]
    compress: bool,
    /// What to write: docker-archive, oci-archive, oci-dir or docker-dir
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: String,
    /// Interpret additional arguments as images not tags and create a multi-image-archive
    #[arg(short, long)]
    multi_image_archive: bool,
    /// Write to a specified file (default: stdout, which must be redirected)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Suppress the output
    #[arg(short, long)]
    quiet: bool,
    /// Accept uncompressed layers when copying OCI images
    #[arg(long)]
    uncompressed: bool,
    /// The image, and its names in the archive (with -m: more images)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Save them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let format = match args.format.as_str() {
        "docker-archive" => Format::DockerArchive,
        "oci-archive" => Format::OciArchive,
        "oci-dir" => Format::OciDirectory,
        "docker-dir" => Format::DockerDirectory,
        other => bail!("{other} is not supported: choose docker-archive, oci-archive, oci-dir or docker-dir"),
    };
    if args.compress && format != Format::DockerDirectory {
        bail!("--compress can only be set when --format is 'docker-dir'");
    }
    if args.output.is_none()
        && matches!(format, Format::DockerArchive | Format::OciArchive)
        && std::io::stdout().is_terminal()
    {
        return Err(Failure::new(Kind::Engine, "refusing to save to terminal. Use -o flag or redirect").into());
    }
    if args.multi_image_archive && format != Format::DockerArchive {
        bail!("multi-image archives are only supported in the docker-archive format");
    }
    let wish = archive::SaveWish {
        images: args.images,
        several: args.multi_image_archive,
        format,
        options: Options { compress: args.compress, uncompressed: args.uncompressed },
        output: args.output,
    };
    archive::save(engine, wish)?;
    Ok(ExitCode::SUCCESS)
}
