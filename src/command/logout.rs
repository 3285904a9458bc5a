//! `coracle logout`.

use super::present;
use crate::engine::{Engine, login};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::ExitCode;

/// Log out of a container registry
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Remove the cached credentials for all registries in the auth file
    #[arg(short, long)]
    all: bool,
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Path of a Docker-compatible config file to update instead
    #[arg(long, value_name = "FILE")]
    compat_auth_file: Option<PathBuf>,
    /// The registry, HOST[:PORT][/NAMESPACE]; the first of the search list if it is not said
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Forget them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let authfile = super::login::one_of(args.authfile, args.compat_auth_file)?;
    if args.all {
        ensure!(args.registry.is_none(), "--all takes no arguments");
        login::log_out_everywhere(engine, authfile.as_deref())?;
        present::line("Removed login credentials for all registries")?;
    } else {
        present::line(login::log_out(engine, authfile.as_deref(), args.registry.as_deref())?)?;
    }
    Ok(ExitCode::SUCCESS)
}
