//! `--opt` of a network: the keys that are known, checked when the network is created.

use crate::network::firewall::Isolation;
use crate::state::network::Driver;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The options of a network, meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest packet; 0: the kernel's or the parent's.
    pub mtu: u32,
    /// Which other networks can be reached.
    pub isolation: Isolation,
    /// `mode` of macvlan and ipvlan, as the kernel numbers it; for a bridge see `unmanaged`.
    pub link_mode: u32,
    /// `mode=unmanaged`: the bridge is somebody else's; no address, no rules.
    pub unmanaged: bool,
    /// The VLAN of the bridge's ports; 0: none.
    pub vlan: u16,
    /// Containers of this network do not reach each other.
    pub alone: bool,
    /// Others may come in without a published port.
    pub routed: bool,
    /// Addresses are translated on the way out.
    pub masquerade: bool,
    /// Containers get no default route.
    pub no_default_route: bool,
    /// Metric of the default route; 0: the kernel's.
    pub metric: u32,
    /// The address on which ports are published that name none.
    pub host_binding: Option<IpAddr>,
    /// The bridge's name (docker's key).
    pub bridge: Option<String>,
    /// The parent link of macvlan and ipvlan.
    pub parent: Option<String>,
}

/// Check and read the options of a network.
pub fn parse(driver: Driver, options: &BTreeMap<String, String>) -> Result<Options> {
    // MACVLAN_MODE_BRIDGE; ipvlan's first mode is 0.
    let link_mode = if driver == Driver::Macvlan { 4 } else { 0 };
    let mut parsed = Options { masquerade: true, link_mode, ..Options::default() };
    for (key, value) in options {
        one(driver, key, value, &mut parsed)?;
    }
    Ok(parsed)
}

fn one(driver: Driver, key: &str, value: &str, parsed: &mut Options) -> Result<()> {
    let boolean = || match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Ok(true),
        "false" | "f" | "0" => Ok(false),
        _ => bail!("option {key}: `{value}` is neither true nor false"),
    };
    let number = || value.parse::<u32>().with_context(|| format!("option {key}: `{value}` is not a number"));
    let bridge_only = || {
        ensure!(driver == Driver::Bridge, "option {key} is not for driver {}", driver.as_str());
        Ok(())
    };
    match key {
        "mtu" | "com.docker.network.driver.mtu" => {
            parsed.mtu = number()?;
            ensure!(parsed.mtu == 0 || (68..=65535).contains(&parsed.mtu), "option mtu: {value} is not in 68 to 65535");
        }
        "metric" => parsed.metric = number()?,
        "no_default_route" => parsed.no_default_route = boolean()?,
        "parent" => parsed.parent = Some(value.to_owned()),
        "vlan" => {
            bridge_only()?;
            let vlan = number()?;
            ensure!((1..=4094).contains(&vlan), "vlan ID {value} must be between 1 and 4094");
            parsed.vlan = vlan as u16;
        }
        "isolate" => {
            bridge_only()?;
            parsed.isolation = match value {
                "strict" => Isolation::Strict,
                "true" | "1" => Isolation::Isolated,
                "false" | "0" => Isolation::Open,
                _ => bail!("option isolate: `{value}` is none of true, false and strict"),
            };
        }
        "mode" | "ipvlan_mode" | "macvlan_mode" => mode(driver, value, parsed)?,
        "com.docker.network.bridge.name" => {
            bridge_only()?;
            check_link_name(value)?;
            parsed.bridge = Some(value.to_owned());
        }
        "com.docker.network.bridge.enable_ip_masquerade" => parsed.masquerade = boolean()?,
        "com.docker.network.bridge.enable_icc" => {
            bridge_only()?;
            parsed.alone = !boolean()?;
        }
        "com.docker.network.bridge.host_binding_ipv4" | "com.docker.network.bridge.host_binding_ipv6" => {
            parsed.host_binding =
                Some(value.parse().with_context(|| format!("option {key}: `{value}` is no address"))?);
        }
        "com.docker.network.bridge.gateway_mode_ipv4" | "com.docker.network.bridge.gateway_mode_ipv6" => match value {
            "nat" => {}
            "nat-unprotected" => parsed.routed = true,
            "routed" => (parsed.routed, parsed.masquerade) = (true, false),
            _ => bail!("option {key}: `{value}` is none of nat, nat-unprotected and routed"),
        },
        "com.docker.network.bridge.default_bridge" => {}
        _ => bail!("unsupported {} network option {key}", driver.as_str()),
    }
    Ok(())
}

fn mode(driver: Driver, value: &str, parsed: &mut Options) -> Result<()> {
    match (driver, value) {
        (Driver::Bridge, "managed") => {}
        (Driver::Bridge, "unmanaged") => parsed.unmanaged = true,
        // MACVLAN_MODE_*, IPVLAN_MODE_*
        (Driver::Macvlan, "private") => parsed.link_mode = 1,
        (Driver::Macvlan, "vepa") => parsed.link_mode = 2,
        (Driver::Macvlan, "bridge") => parsed.link_mode = 4,
        (Driver::Macvlan, "passthru") => parsed.link_mode = 8,
        (Driver::Ipvlan, "l2") => parsed.link_mode = 0,
        (Driver::Ipvlan, "l3") => parsed.link_mode = 1,
        (Driver::Ipvlan, "l3s") => parsed.link_mode = 2,
        _ => bail!("unknown {} mode \"{value}\"", driver.as_str()),
    }
    Ok(())
}

/// A name the kernel takes for a link.
pub fn check_link_name(name: &str) -> Result<()> {
    let good = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    ensure!(good, "`{name}` cannot be the name of a link: at most 15 characters without blanks, `/` and `:`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(driver: Driver, key: &str, value: &str) -> Result<Options> {
        parse(driver, &BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn known_and_unknown() {
        assert_eq!(check(Driver::Bridge, "mtu", "9000").unwrap().mtu, 9000);
        assert_eq!(check(Driver::Bridge, "isolate", "strict").unwrap().isolation, Isolation::Strict);
        assert_eq!(check(Driver::Bridge, "vlan", "4094").unwrap().vlan, 4094);
        assert!(check(Driver::Bridge, "com.docker.network.bridge.enable_icc", "false").unwrap().alone);
        assert_eq!(parse(Driver::Macvlan, &BTreeMap::new()).unwrap().link_mode, 4);
        assert!(check(Driver::Bridge, "no_default_route", "1").unwrap().no_default_route);
        assert_eq!(check(Driver::Macvlan, "mode", "passthru").unwrap().link_mode, 8);
        assert!(!check(Driver::Bridge, "com.docker.network.bridge.gateway_mode_ipv4", "routed").unwrap().masquerade);
        for (driver, key, value) in [
            (Driver::Bridge, "mtu", "abc"),
            (Driver::Bridge, "mtu", "12"),
            (Driver::Bridge, "vlan", "4095"),
            (Driver::Bridge, "no_default_route", "maybe"),
            (Driver::Bridge, "mode", "l3"),
            (Driver::Ipvlan, "mode", "bridge"),
            (Driver::Macvlan, "isolate", "true"),
            (Driver::Bridge, "colour", "red"),
            (Driver::Bridge, "com.docker.network.bridge.name", "a name"),
        ] {
            assert!(check(driver, key, value).is_err(), "{key}={value}");
        }
    }
}
