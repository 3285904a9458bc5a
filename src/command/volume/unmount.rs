//! `coracle volume unmount`.

use crate::command::present;
use crate::engine::Engine;
use crate::storage::volume::Volume;
use anyhow::Result;
use std::process::ExitCode;

/// Undo `volume mount`
///
/// There is nothing to undo: a volume's files are where they are.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// Check that there is such a volume.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let volume = Volume::find(&engine.layout, &args.volume)?;
    present::line(volume.name)?;
    Ok(ExitCode::SUCCESS)
}
