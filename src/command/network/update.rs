//! `coracle network update`.

use crate::command::present;
use crate::engine::{Engine, network};
use anyhow::Result;
use std::net::IpAddr;
use std::process::ExitCode;

/// Update a network's DNS servers
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Servers to ask as well
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns_add: Vec<IpAddr>,
    /// Servers not to ask any more
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns_drop: Vec<IpAddr>,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// Change it and print its name.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let record = network::find(engine, &args.network)?;
    let record = network::update(engine, &record, &args.dns_add, &args.dns_drop)?;
    present::line(&record.name)?;
    Ok(ExitCode::SUCCESS)
}
