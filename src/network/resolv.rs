//! The texts of /etc/hosts and /etc/resolv.conf inside a container. Pure.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Names under which a container finds the host: podman's and docker's.
pub const HOST_NAMES: [&str; 2] = ["host.containers.internal", "host.docker.internal"];

/// What goes into /etc/hosts.
#[derive(Clone, Debug, Default)]
pub struct Hosts<'a> {
    /// What it is based on: the host's file, the image's, or nothing.
    pub base: &'a str,
    /// `--add-host`, resolved.
    pub extra: &'a [(String, IpAddr)],
    /// The container's own addresses and names.
    pub own: &'a [(IpAddr, Vec<String>)],
    /// Where the host is.
    pub host: Option<IpAddr>,
}

/// The text of /etc/hosts: the first line that has a name wins, so what was asked for comes first.
pub fn hosts(hosts: &Hosts<'_>) -> String {
    let mut text = String::new();
    let mut known: Vec<&str> = Vec::new();
    let mut based: Vec<&str> = Vec::new();
    for (name, address) in hosts.extra {
        known.push(name);
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let mut localhost = [false; 2];
    for line in hosts.base.lines() {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        let names: Vec<&str> = words.filter(|name| !known.contains(name) && !HOST_NAMES.contains(name)).collect();
        let Some(address) = address.filter(|_| !names.is_empty()) else { continue };
        if names.contains(&"localhost") {
            localhost[usize::from(address.is_ipv6())] = true;
        }
        text.push_str(&format!("{address}\t{}\n", names.join(" ")));
        based.extend(names);
    }
    for (there, address) in localhost.into_iter().zip(["127.0.0.1", "::1"]) {
        if !there && !known.contains(&"localhost") {
            text.push_str(&format!("{address}\tlocalhost\n"));
        }
    }
    let host_names: Vec<&str> = HOST_NAMES.into_iter().filter(|name| !known.contains(name)).collect();
    if let Some(host) = hosts.host.filter(|_| !host_names.is_empty()) {
        text.push_str(&format!("{host}\t{}\n", host_names.join(" ")));
    }
    for (address, names) in hosts.own {
        let is_new = |name: &&str| !known.contains(name) && !based.contains(name);
        let names: Vec<&str> = names.iter().map(String::as_str).filter(is_new).collect();
        if !names.is_empty() {
            text.push_str(&format!("{address}\t{}\n", names.join(" ")));
        }
    }
    text
}

/// The text of /etc/hosts with the container's own lines exchanged; what others wrote into it stays.
pub fn exchange(text: &str, old: &[(IpAddr, Vec<String>)], new: &[(IpAddr, Vec<String>)]) -> String {
    let line = |(address, names): &(IpAddr, Vec<String>)| format!("{address}\t{}\n", names.join(" "));
    let old: Vec<String> = old.iter().map(line).collect();
    let mut kept: String = text.split_inclusive('\n').filter(|one| !old.iter().any(|line| line == one)).collect();
    if !kept.is_empty() && !kept.ends_with('\n') {
        kept.push('\n');
    }
    kept.extend(new.iter().map(line));
    kept
}

/// What goes into /etc/resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// Who is asked.
    pub servers: Vec<String>,
    /// Suffixes that are tried.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// Read a resolv.conf.
pub fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
            // The last of these lines counts.
            Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
            Some("options") => resolver.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    resolver
}

/// The text of /etc/resolv.conf.
pub fn format(resolver: &Resolver) -> String {
    let mut text = String::new();
    // `--dns-search .` means none.
    if !resolver.search.is_empty() && resolver.search != ["."] {
        text.push_str(&format!("search {}\n", resolver.search.join(" ")));
    }
    for server in &resolver.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

/// Whether a server can be reached from another network namespace.
pub fn is_reachable(server: &str) -> bool {
    let address = server.split('%').next().unwrap_or(server);
    !server.contains('%') && address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file() {
        let own = [(IpAddr::from([10, 0, 0, 2]), vec!["web".to_owned(), "0123456789ab".to_owned()])];
        let extra = [("db".to_owned(), IpAddr::from([10, 9, 9, 9]))];
        let named = hosts(&Hosts { base: "10.1.1.1 web 0123456789ab", own: &own, ..Hosts::default() });
        assert_eq!(named, "10.1.1.1\tweb 0123456789ab\n127.0.0.1\tlocalhost\n::1\tlocalhost\n");
        let base = "# c\n127.0.0.1 localhost\n127.0.1.1\tbox db # x\n10.1.1.1 host.docker.internal\nbroken\n";
        let text = hosts(&Hosts { base, extra: &extra, own: &own, host: Some(IpAddr::from([10, 0, 0, 1])) });
        assert_eq!(
            text,
            "10.9.9.9\tdb\n127.0.0.1\tlocalhost\n127.0.1.1\tbox\n::1\tlocalhost\n10.0.0.1\thost.containers.internal host.docker.internal\n10.0.0.2\tweb 0123456789ab\n"
        );
        assert_eq!(hosts(&Hosts::default()), "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
    }

    #[test]
    fn own_lines_are_exchanged() {
        let names = vec!["web".to_owned()];
        let old = [(IpAddr::from([10, 0, 0, 2]), names.clone())];
        let new = [(IpAddr::from([10, 0, 0, 2]), names.clone()), (IpAddr::from([10, 1, 0, 2]), names)];
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n10.9.9.9 mine";
        let expected = "127.0.0.1\tlocalhost\n10.9.9.9 mine\n10.0.0.2\tweb\n10.1.0.2\tweb\n";
        assert_eq!(exchange(text, &old, &new), expected);
    }

    #[test]
    fn resolv_conf() {
        let text = "nameserver 1.1.1.1\nsearch a b\ndomain c\noptions ndots:2 edns0\n; x\nnameserver\n";
        let parsed = parse(text);
        assert_eq!(format(&parsed), "search c\nnameserver 1.1.1.1\noptions ndots:2 edns0\n");
        assert_eq!(format(&Resolver { search: vec![".".to_owned()], ..Resolver::default() }), "");
        assert!(is_reachable("1.1.1.1") && !is_reachable("127.0.0.53") && !is_reachable("fe80::1%eth0"));
    }
}
