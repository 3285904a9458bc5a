//! `coracle network create`.

use crate::command::present;
use crate::engine::{Engine, network, speaks_as_podman};
use crate::failure::{Failure, Kind};
use crate::model::subnet::Subnet;
use crate::network::create::Wish;
use crate::state::network::{Driver, Ipam, Pool, StaticRoute};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;

/// Create a network
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Driver of the network: bridge, macvlan or ipvlan
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Subnet in CIDR format (can be repeated)
    #[arg(long, value_name = "IP/PREFIX")]
    subnet: Vec<String>,
    /// Gateway of the subnet at the same place
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// Containers get their addresses from this range, `FIRST-LAST` or CIDR
    #[arg(long, value_name = "RANGE")]
    ip_range: Vec<String>,
    /// Static route inside containers: DESTINATION,GATEWAY[,METRIC]
    #[arg(long, value_name = "ROUTE")]
    route: Vec<String>,
    /// Enable IPv6: a subnet of each family
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL")]
    ipv6: bool,
    /// No way to or from outside
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL")]
    internal: bool,
    /// Containers do not find each other by name
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL")]
    disable_dns: bool,
    /// DNS servers to ask about all that is no container's name
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns: Vec<IpAddr>,
    /// Succeed if a network of this name is there already
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL")]
    ignore: bool,
    /// Name of the bridge, or the parent of a macvlan or ipvlan
    #[arg(long, value_name = "NAME")]
    interface_name: Option<String>,
    /// Where addresses come from: host-local or none
    #[arg(long, value_name = "DRIVER")]
    ipam_driver: Option<String>,
    /// Label, KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Option of the driver, KEY=VALUE: mtu, vlan, isolate, mode, parent, metric, no_default_route, com.docker.network.…
    #[arg(short, long, value_name = "OPTION")]
    opt: Vec<String>,
    /// Name of the network
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Make it and print its name.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let ignore = args.ignore;
    if args.name.is_none() && ignore {
        bail!("--ignore needs the name of a network");
    }
    let name = args.name.clone();
    let record = network::create(engine, args.into_wish()?, ignore).map_err(|error| in_podmans_words(error, name))?;
    present::line(&record.name)?;
    Ok(ExitCode::SUCCESS)
}

/// Who calls us `podman` looks for its words.
fn in_podmans_words(error: anyhow::Error, name: Option<String>) -> anyhow::Error {
    match name {
        Some(name) if speaks_as_podman() && error.to_string().ends_with("network already exists") => {
            Failure::new(Kind::Engine, format!("netavark: network already exists {name}")).into()
        }
        _ => error,
    }
}

impl Args {
    fn into_wish(self) -> Result<Wish> {
        let Args {
            driver,
            subnet,
            gateway,
            ip_range,
            route,
            ipv6,
            internal,
            disable_dns,
            dns,
            ignore: _,
            interface_name,
            ipam_driver,
            label,
            opt,
            name,
        } = self;
        Ok(Wish {
            name,
            driver: match driver.as_str() {
                "bridge" => Driver::Bridge,
                "macvlan" => Driver::Macvlan,
                "ipvlan" => Driver::Ipvlan,
                _ => bail!("unsupported driver {driver}: invalid argument"),
            },
            subnets: pools(&subnet, &gateway, &ip_range)?,
            routes: route.iter().map(|text| parse_route(text)).collect::<Result<_>>()?,
            ipv6,
            internal,
            disable_dns,
            dns_servers: dns,
            labels: pairs(&label, false)?,
            options: pairs(&opt, true)?,
            ipam: match ipam_driver.as_deref() {
                None => None,
                Some("host-local") => Some(Ipam::HostLocal),
                Some("none") => Some(Ipam::None),
                Some("dhcp") => {
                    return Err(Failure::new(Kind::Engine, "ipam driver dhcp is not had")
                        .hint(
                            "use host-local with a range that the DHCP server leaves out, or none and a client inside",
                        )
                        .into());
                }
                Some(other) => bail!("unsupported ipam driver \"{other}\": invalid argument"),
            },
            interface: interface_name,
        })
    }
}

/// The subnets, each with the gateway and the range at the same place.
fn pools(subnets: &[String], gateways: &[String], ranges: &[String]) -> Result<Vec<Pool>> {
    if subnets.is_empty() {
        ensure!(gateways.is_empty(), "cannot set gateway without subnet");
        ensure!(ranges.is_empty(), "cannot set range without subnet");
    }
    ensure!(gateways.len() <= subnets.len(), "cannot set more gateways than subnets");
    ensure!(ranges.len() <= subnets.len(), "cannot set more ranges than subnets");
    let mut pools = Vec::new();
    for (index, subnet) in subnets.iter().enumerate() {
        let parse = |text: &String| text.parse::<IpAddr>().with_context(|| format!("gateway {text} is no address"));
        pools.push(Pool {
            subnet: subnet.parse()?,
            gateway: gateways.get(index).map(parse).transpose()?,
            range: ranges.get(index).map(|text| parse_range(text)).transpose()?,
        });
    }
    Ok(pools)
}

/// `FIRST-LAST`, or a subnet all of whose addresses may be given.
fn parse_range(text: &str) -> Result<(IpAddr, IpAddr)> {
    if let Some((first, last)) = text.split_once('-') {
        let parse = |text: &str| text.parse::<IpAddr>().with_context(|| format!("range end {text} is no address"));
        let (first, last) = (parse(first)?, parse(last)?);
        ensure!(first.is_ipv4() == last.is_ipv4(), "range {text}: of two address families");
        return Ok((first, last));
    }
    let subnet: Subnet = text.parse()?;
    Ok((subnet.first_host(), subnet.last_host()))
}

fn parse_route(text: &str) -> Result<StaticRoute> {
    let parts: Vec<&str> = text.split(',').collect();
    let (destination, gateway, metric) = match parts[..] {
        [destination, gateway] => (destination, gateway, None),
        [destination, gateway, metric] => (destination, gateway, Some(metric)),
        _ => bail!("invalid route: {text}\nFormat: --route <destination in CIDR>,<gateway>,<metric (optional)>"),
    };
    let metric = metric.map(|metric| metric.parse().with_context(|| format!("invalid route metric {metric}")));
    Ok(StaticRoute {
        destination: destination.parse().with_context(|| format!("invalid route destination {destination}"))?,
        gateway: gateway.parse().with_context(|| format!("invalid route gateway {gateway}"))?,
        metric: metric.transpose()?,
    })
}

/// `KEY=VALUE`; `strict`: the `=` must be there.
fn pairs(words: &[String], strict: bool) -> Result<BTreeMap<String, String>> {
    let pair = |word: &String| {
        let (key, value) = match word.split_once('=') {
            Some(pair) => pair,
            None if strict => bail!("invalid option \"{word}\": write it as KEY=VALUE"),
            None => (word.as_str(), ""),
        };
        ensure!(!key.is_empty(), "\"{word}\" has no key before the `=`");
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        format!("{:?}", result.map_err(|error| error.to_string()))
    }

    #[test]
    fn ranges() {
        assert_eq!(text(parse_range("10.1.0.16/28")), "Ok((10.1.0.17, 10.1.0.30))");
        assert_eq!(text(parse_range("10.1.0.5-10.1.0.9")), "Ok((10.1.0.5, 10.1.0.9))");
        assert!(parse_range("10.1.0.5-::1").is_err());
        assert!(parse_range("x").is_err());
    }

    #[test]
    fn routes() {
        assert!(parse_route("10.0.0.0/8,10.1.0.1,100").unwrap().metric == Some(100));
        for wrong in ["", "10.0.0.0/8", "10.0.0.0,10.1.0.1", "10.0.0.0/8,x", "10.0.0.0/8,10.1.0.1,x", "a,b,c,d"] {
            assert!(parse_route(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_belongs_to_a_subnet_needs_one() {
        let one = ["10.1.0.1".to_owned()];
        assert_eq!(text(pools(&[], &one, &[])), "Err(\"cannot set gateway without subnet\")");
        assert_eq!(text(pools(&[], &[], &one)), "Err(\"cannot set range without subnet\")");
    }
}
