//! `coracle image trust set`.

use crate::engine::Engine;
use crate::image::policy::edit::{self, Change};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Set default trust policy or a new trust policy for a registry
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Path of installed public key(s) to trust for TARGET, absolute path to keys is added to policy.json
    #[arg(short = 'f', long, value_name = "KEYFILE")]
    pubkeysfile: Vec<PathBuf>,
    /// Trust type: signedBy, sigstoreSigned, accept or reject
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "signedBy")]
    kind: String,
    /// The policy to change instead of the system's or the user's own
    #[arg(long, hide = true, value_name = "FILE")]
    policypath: Option<PathBuf>,
    /// A registry, a repository, an image; or default
    #[arg(value_name = "REGISTRY")]
    scope: String,
}

/// Write it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let absolute = |path: &PathBuf| {
        let path = std::fs::canonicalize(path).with_context(|| format!("find {}", path.display()))?;
        Ok(Path::to_string_lossy(&path).into_owned())
    };
    let keys = args.pubkeysfile.iter().map(absolute).collect::<Result<_>>()?;
    let change = Change { scope: args.scope, kind: args.kind, keys, path: args.policypath };
    edit::set(&change, engine.privilege.caller.uid == 0)?;
    Ok(ExitCode::SUCCESS)
}
