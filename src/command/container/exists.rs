//! `coracle container exists`.

use crate::engine::Engine;
use crate::state::container;
use anyhow::Result;
use std::process::ExitCode;

/// Check if a container exists in the store
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Look among containers of the storage that are not ours too (there are none)
    #[arg(long)]
    external: bool,
    /// Name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// 0 when it exists, 1 when not; nothing is printed.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let found = container::find(&engine.layout, &args.container)?;
    Ok(if found.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
