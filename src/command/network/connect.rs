//! `coracle network connect`.

use crate::command::flag::network::mac;
use crate::engine::{Engine, network};
use crate::model::network::Endpoint;
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

/// Connect a container to a network
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// A further name of the container on this network
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    alias: Vec<String>,
    /// Its IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// Its IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// Its MAC address
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Network, by name or id
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Container, by name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Do it, silently.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let addresses = args.ip.map(IpAddr::V4).into_iter().chain(args.ip6.map(IpAddr::V6)).collect();
    let endpoint = Endpoint {
        network: String::new(),
        addresses,
        mac: args.mac_address.as_deref().map(mac).transpose()?,
        aliases: args.alias,
        interface: None,
    };
    network::connect(engine, &args.network, &args.container, endpoint)?;
    Ok(ExitCode::SUCCESS)
}
