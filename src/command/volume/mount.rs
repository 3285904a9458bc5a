//! `coracle volume mount`.

use crate::command::present;
use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::storage::volume::Volume;
use anyhow::Result;
use std::process::ExitCode;

/// Print where the files of a volume are
///
/// A volume that is a directory of the store is always there; one that stands for a file system or another directory is
/// mounted in containers only.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// Print it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let volume = Volume::find(&engine.layout, &args.volume)?;
    if !volume.is_plain() {
        return Err(Failure::new(Kind::Engine, format!("volume {} is mounted in containers only", volume.name))
            .hint("use a container to see its files: coracle run --rm -v VOLUME:/v IMAGE ls /v")
            .into());
    }
    present::line(Volume::data(&engine.layout, &volume.name).display())?;
    Ok(ExitCode::SUCCESS)
}
