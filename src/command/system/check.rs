//! `coracle system check`.

use crate::command::present;
use crate::engine::Engine;
use crate::engine::check::{self, CheckWish};
use crate::image::access::parse_delay;
use anyhow::Result;
use std::process::ExitCode;

/// Perform consistency checks on image and container storage
///
/// Reads every layer and blob and names each file that is not as it was stored. With --repair a damaged layer is unpacked
/// again from what was downloaded, or fetched again by its digest.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove damaged images that cannot be repaired, with the containers that use them
    #[arg(short, long)]
    force: bool,
    /// Layers that nobody needs are wrong too when they are older than this (e.g. 24h)
    #[arg(short, long, value_name = "DURATION")]
    max: Option<String>,
    /// Skip what needs to read file contents
    #[arg(short, long)]
    quick: bool,
    /// Repair what can be repaired
    #[arg(short, long)]
    repair: bool,
}

/// Check; exit code 125 if something is wrong and stays so.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let unused_max = args.max.as_deref().map(parse_delay).transpose()?;
    let wish = CheckWish { quick: args.quick, repair: args.repair || args.force, force: args.force, unused_max };
    let troubles = check::check(engine, wish)?;
    for trouble in &troubles {
        let mended = if trouble.mended { " (repaired)" } else { "" };
        present::line(format!("{}{mended}", trouble.what))?;
    }
    let left = troubles.iter().filter(|trouble| !trouble.mended).count();
    if left == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let error = crate::failure::Failure::new(
        crate::failure::Kind::Engine,
        format!("damage detected in local storage: {left} findings"),
    );
    Err(error
        .hint(if wish.repair {
            "pull these images again, or remove them with --force"
        } else {
            "mend it with --repair"
        })
        .into())
}
