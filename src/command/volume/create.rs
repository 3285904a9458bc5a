//! `coracle volume create`.

use crate::command::present;
use crate::engine::{Engine, volume};
use crate::storage::volume::Wish;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Create a new volume
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Specify the volume driver name; `local` is the only one
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Set the GID of the volume owner
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// Do not fail if the volume already exists
    #[arg(long)]
    ignore: bool,
    /// Set metadata for a volume: KEY[=VALUE]
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<String>,
    /// Set driver specific options: type=, device= and o=
    #[arg(short, long, value_name = "OPTION")]
    opt: Vec<String>,
    /// Set the UID of the volume owner
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Its name; absent: 64 random digits
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Create it; its name goes to standard output.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.driver != "local" {
        bail!("volume driver {:?} is not supported: plugins need a daemon, `local` is the only driver", args.driver);
    }
    let labels = args.label.iter().map(|label| pair(label)).collect();
    let options: BTreeMap<String, String> = args
        .opt
        .iter()
        .map(|text| text.split_once('=').with_context(|| format!("invalid option {text:?}: write it as KEY=VALUE")))
        .map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Result<_>>()?;
    let wish = Wish { labels, options, anonymous: args.name.is_none(), uid: args.uid, gid: args.gid };
    present::line(volume::create(engine, args.name.as_deref(), wish, args.ignore)?)?;
    Ok(ExitCode::SUCCESS)
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}
