//! `coracle rmi`.

use super::present;
use crate::engine::{Engine, image};
use crate::failure::{self, Failure, Kind};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Remove one or more images from local storage
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove all images
    #[arg(short, long)]
    all: bool,
    /// Force removal of the image: containers that use it are removed too
    #[arg(short, long)]
    force: bool,
    /// Ignore errors if a specified image does not exist
    #[arg(short, long)]
    ignore: bool,
    /// Do not remove dangling images it was built on
    #[arg(long)]
    no_prune: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Remove each; the exit code is that of the worst failure.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.all && !args.images.is_empty() {
        bail!("when using the --all switch, you may not pass any images names or IDs");
    }
    if !args.all && args.images.is_empty() {
        bail!("image name or ID must be specified");
    }
    let removal = image::Removal { force: args.force, keep_parents: args.no_prune };
    let wanted = if args.all { all(engine)? } else { args.images.clone() };
    let mut failures: Vec<anyhow::Error> = Vec::new();
    for name in &wanted {
        // With --all an image goes with all its names.
        let removal = image::Removal { force: removal.force || args.all && !is_used(engine, name)?, ..removal };
        match image::remove(engine, name, removal) {
            Ok(removed) => {
                for name in removed.untagged {
                    present::line(&format!("Untagged: {name}"))?;
                }
                for id in removed.deleted {
                    present::line(&format!("Deleted: {id}"))?;
                }
            }
            // Gone with another one.
            Err(error) if failure::kind_of(&error) == Kind::Missing && (args.ignore || args.force || args.all) => {}
            Err(error) => failures.push(error),
        }
    }
    outcome(failures)
}

fn all(engine: &Engine) -> Result<Vec<String>> {
    let images = image::list(engine, &image::Filters::default(), true)?;
    Ok(images.iter().map(|image| image.record.id.hex().to_owned()).collect())
}

fn is_used(engine: &Engine, id: &str) -> Result<bool> {
    Ok(image::used_by(&engine.layout)?.contains_key(id))
}

/// One failure as it is; of several all are told, and the code is podman's: 125 for anything, else 2 for "in use", else 1.
pub(super) fn outcome(mut failures: Vec<anyhow::Error>) -> Result<ExitCode> {
    match failures.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(failures.remove(0)),
        count => {
            let kinds: Vec<Kind> = failures.iter().map(failure::kind_of).collect();
            let kind = if kinds.contains(&Kind::Engine) {
                Kind::Engine
            } else if kinds.contains(&Kind::InUse) {
                Kind::InUse
            } else {
                Kind::Missing
            };
            let told: Vec<String> =
                failures.iter().map(|error| format!("\n\t* {}", failure::message_of(error))).collect();
            Err(Failure::new(kind, format!("{count} errors occurred:{}", told.concat())).into())
        }
    }
}
