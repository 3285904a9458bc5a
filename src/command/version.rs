//! `coracle version`.

use super::present;
use crate::engine::{Engine, info};
use anyhow::Result;
use serde_json::json;
use std::process::ExitCode;

/// Display the version of coracle
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output to JSON or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Print it.
pub fn run(args: Args, _engine: &Engine) -> Result<ExitCode> {
    let client = info::version();
    let Some(format) = args.format else {
        let line = |label: &str, field: &str| format!("{label:<14}{}\n", client[field].as_str().unwrap_or_default());
        let text = line("Client:", "Name")
            + &line("Version:", "Version")
            + &line("API Version:", "APIVersion")
            + &line("OS/Arch:", "OsArch");
        present::text(&text)?;
        return Ok(ExitCode::SUCCESS);
    };
    // There is no server: what asks for one (docker's scripts do) is answered by the client.
    let document = match format.trim() {
        "json" => json!({ "Client": client }),
        _ => json!({ "Client": client, "Server": client }),
    };
    present::document(&format, &document)?;
    Ok(ExitCode::SUCCESS)
}
