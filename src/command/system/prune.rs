//! `coracle system prune`.

use crate::command::present::{self, confirm, human};
use crate::engine::Engine;
use crate::engine::disk::{self, PruneWish};
use anyhow::Result;
use std::process::ExitCode;

/// Remove unused data
///
/// Stopped containers, unused networks, dangling images (with --all: all images no container uses) and with --volumes unused
/// volumes; also what commands that were killed have left.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all unused images, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Accepted; there is no build cache beside the images
    #[arg(long, hide = true)]
    build: bool,
    /// Accepted; nothing is used by others than the containers here
    #[arg(long, hide = true)]
    external: bool,
    /// Provide filter values (e.g. 'label=<key>=<value>')
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune volumes too
    #[arg(long)]
    volumes: bool,
}

/// Remove it and say what went.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if !args.force && !confirm(&warning(&args))? {
        return Ok(ExitCode::SUCCESS);
    }
    let wish = PruneWish { all: args.all, volumes: args.volumes, filters: args.filter };
    let pruned = disk::prune(engine, &wish)?;
    let mut text = String::new();
    let parts = [
        ("Containers", &pruned.containers),
        ("Networks", &pruned.networks),
        ("Images", &pruned.images),
        ("Volumes", &pruned.volumes),
    ];
    for (title, names) in parts.iter().filter(|(_, names)| !names.is_empty()) {
        text.push_str(&format!("Deleted {title}\n{}\n", names.join("\n")));
    }
    text.push_str(&format!("Total reclaimed space: {}\n", human::compact_size(pruned.freed)));
    present::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn warning(args: &Args) -> String {
    let mut text = String::from(
        "WARNING! This command removes:\n\t- all stopped containers\n\t- all networks not used by at least one container\n",
    );
    if args.volumes {
        text.push_str("\t- all volumes not used by at least one container\n");
    }
    text.push_str(if args.all {
        "\t- all images without at least one container associated with them\n"
    } else {
        "\t- all dangling images\n"
    });
    text
}
