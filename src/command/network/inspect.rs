//! `coracle network inspect`.

use super::document;
use crate::command::{self, present};
use crate::engine::{Engine, network};
use crate::failure::{self, Kind};
use anyhow::Result;
use std::process::ExitCode;

/// Display the configuration of networks
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Change the output to JSON or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Print what is found, then say what is not.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let mut documents = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for wanted in &args.networks {
        match network::find(engine, wanted) {
            Ok(record) => documents.push(document(&record, &network::members(engine, &record)?)?),
            Err(error) if failure::kind_of(&error) == Kind::Missing => code = command::report(&error),
            Err(error) => return Err(error),
        }
    }
    present::documents(args.format.as_deref(), documents)?;
    Ok(code)
}
