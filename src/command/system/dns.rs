//! `coracle system dns`.

use crate::command::present;
use crate::engine::Engine;
use crate::engine::dns::{self, Place};
use crate::network::names::zone::DOMAIN;
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

/// Answer the host's questions about containers' names
///
/// While this runs, `NAME.coracle.internal` is the address of the running container of that name (or alias, or short
/// id), `NAME.NETWORK.coracle.internal` its address on one network, and an address has its container's name. It prints
/// how the host's resolver is told of it; nothing is changed by itself, and nothing runs when this has ended. Questions
/// about other names are refused, so that the resolver asks its other servers.
///
/// An ordinary user's containers are on networks which the host has no way to: the answers are of use to who joins those
/// networks, and published ports are reached at 127.0.0.1.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Where to listen: ADDRESS[:PORT]; without it, as root at the default network's gateway, else at 127.0.0.1:5354
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Option<SocketAddr>,
}

fn address(text: &str) -> Result<SocketAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, 53)),
        Err(_) => text.parse().with_context(|| format!("`{text}` is no address")),
    }
}

/// Serve until interrupted.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let place = dns::place(engine, args.listen)?;
    dns::serve(engine, place.address, || present::text(&wiring(&place)))?;
    Ok(ExitCode::SUCCESS)
}

/// How systemd-resolved is told.
fn wiring(place: &Place) -> String {
    let address = match place.address.port() {
        53 => place.address.ip().to_string(),
        _ => place.address.to_string(),
    };
    let listening = format!("Answering for {DOMAIN} at {address}; to tell systemd-resolved, as root:\n");
    match &place.link {
        Some(link) => format!("{listening}  resolvectl dns {link} {address}\n  resolvectl domain {link} '~{DOMAIN}'\n"),
        None => format!(
            "{listening}  mkdir -p /etc/systemd/resolved.conf.d\n  printf '[Resolve]\\nDNS={address}\\nDomains=~{DOMAIN}\\n' \
             >/etc/systemd/resolved.conf.d/coracle.conf\n  systemctl reload-or-restart systemd-resolved\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_told() {
        assert_eq!(address("10.0.0.1").unwrap().port(), 53);
        assert!(address("here").is_err());
        let place = Place { address: address("10.0.0.1").unwrap(), link: Some("coracle0".to_owned()) };
        assert!(
            wiring(&place)
                .ends_with("resolvectl dns coracle0 10.0.0.1\n  resolvectl domain coracle0 '~coracle.internal'\n")
        );
        let place = Place { address: address("127.0.0.1:5354").unwrap(), link: None };
        assert!(wiring(&place).contains("DNS=127.0.0.1:5354\\n"));
    }
}
