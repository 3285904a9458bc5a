//! Names: what the server in each container answers and asks, tried with dig; and for the host, `system dns`.

use super::{on_host, serve};
use crate::support::Env;
use crate::support::coracle::as_root;
use crate::support::need::need;
use crate::support::until;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `dig` inside a container's network, where its resolver is.
fn dig(env: &Env, container: &str, words: &[&str]) -> String {
    let pid = env.coracle(["inspect", container, "--format", "{{.State.Pid}}"]).ok();
    let net = format!("--net=/proc/{pid}/ns/net");
    let fixed = ["nsenter", &net, "dig", "@127.0.0.11", "+tries=2", "+time=10"];
    env.other(fixed.iter().chain(words)).run().ok()
}

fn short(env: &Env, container: &str, words: &[&str]) -> String {
    dig(env, container, &[&["+short"], words].concat())
}

/// A name server on the host's loopback: `A 192.0.2.80` for everything, long answers only over TCP. Counts questions.
fn upstream(env: &Env) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (udp, tcp) = on_host(env.network(), || {
        (UdpSocket::bind("127.0.0.1:53").unwrap(), TcpListener::bind("127.0.0.1:53").unwrap())
    });
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = udp.send_to(&answer(&buffer[..length], false), from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                let message = answer(&query, true);
                stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&message).unwrap();
            }
        }
    });
    asked
}

fn answer(query: &[u8], tcp: bool) -> Vec<u8> {
    let mut end = 12;
    while query[end] != 0 {
        end += usize::from(query[end]) + 1;
    }
    let question = &query[12..end + 5];
    let is_long = question.windows(4).any(|part| part == b"\x04long" || part == b"long");
    let count: u8 = if is_long && tcp { 200 } else { 1 };
    let mut message = query[..2].to_vec();
    message.extend([0x81 | if is_long && !tcp { 2 } else { 0 }, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    message.extend(question);
    for last in 0..count {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80u8.wrapping_add(last)]);
    }
    message
}

as_root! {
    fn records_of_containers(env: Env) {
        need!(program("dig"), program("nsenter"));
        let _ = env.coracle(["network", "create", "--subnet", "10.5.0.0/24", "--subnet", "fd00:5::/64", "a"]).ok();
        let _ = env.coracle(["network", "create", "--subnet", "10.6.0.0/24", "b"]).ok();
        let fixed = ["--network", "a:ip=10.5.0.7,ip6=fd00:5::7,alias=www", "--network", "b:ip=10.6.0.7,alias=store"];
        serve(&env, "web", &fixed);
        let id = env.coracle(["inspect", "web", "--format", "{{.Id}}"]).ok();
        serve(&env, "one", &["--network", "a"]);
        serve(&env, "two", &["--network", "b"]);
        for (name, kind, expected) in [
            ("web", "A", "10.5.0.7"),
            ("WEB", "A", "10.5.0.7"),
            ("web", "AAAA", "fd00:5::7"),
            ("www", "A", "10.5.0.7"),
            (&id[..12], "A", "10.5.0.7"),
            ("web.coracle.internal", "A", "10.5.0.7"),
            ("web.dns.podman", "A", "10.5.0.7"),
            ("web", "MX", ""),
        ] {
            assert_eq!(short(&env, "one", &[name, kind]), expected, "{name} {kind}");
            assert_eq!(short(&env, "one", &["+tcp", name, kind]), expected, "{name} {kind} by TCP");
        }
        assert_eq!(short(&env, "one", &["-x", "10.5.0.7"]), "web.");
        assert_eq!(short(&env, "one", &["-x", "fd00:5::7"]), "web.");
        // An alias is one network's.
        assert_eq!(short(&env, "two", &["store", "A"]), "10.6.0.7");
        assert_eq!(short(&env, "two", &["web", "A"]), "10.6.0.7");
        let said = dig(&env, "two", &["www.coracle.internal", "A"]);
        assert!(said.contains("NXDOMAIN"), "{said}");
        let said = dig(&env, "one", &["web", "A"]);
        assert!(said.contains("flags: qr aa rd ra") && said.contains("udp: 1232"), "{said}");
        let said = dig(&env, "one", &["+noedns", "web", "A"]);
        assert!(said.contains("NOERROR") && !said.contains("OPT PSEUDOSECTION"), "{said}");
        // Who is gone has no name.
        let _ = env.coracle(["rm", "--force", "--time", "0", "web"]).succeeded();
        assert!(dig(&env, "one", &["web.coracle.internal", "A"]).contains("NXDOMAIN"));
    }

    fn foreign_names_and_long_answers(env: Env) {
        need!(program("dig"), program("nsenter"));
        let asked = upstream(&env);
        let _ = env.coracle(["network", "create", "--dns", "127.0.0.1", "a"]).ok();
        serve(&env, "one", &["--network", "a"]);
        assert_eq!(short(&env, "one", &["example.org", "A"]), "192.0.2.80");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // Too long for UDP: the truncated answer is passed on, and dig asks again by TCP.
        let long = short(&env, "one", &["long.example.org", "A"]);
        assert_eq!(long.lines().count(), 200);
        let cut = dig(&env, "one", &["+ignore", "long.example.org", "A"]);
        assert!(cut.contains("flags: qr tc rd ra"), "{cut}");
        // Local names are nobody else's business.
        let before = asked.load(Ordering::SeqCst);
        assert_eq!(short(&env, "one", &["one", "MX"]), "");
        assert!(dig(&env, "one", &["nobody.coracle.internal"]).contains("NXDOMAIN"));
        assert_eq!(asked.load(Ordering::SeqCst), before);
    }

    fn other_servers_while_it_runs(env: Env) {
        need!(program("dig"), program("nsenter"));
        let _asked = upstream(&env);
        // Nobody listens there: each question is refused at once.
        let _ = env.coracle(["network", "create", "--dns", "127.0.0.2", "a"]).ok();
        serve(&env, "one", &["--network", "a"]);
        assert!(dig(&env, "one", &["example.org"]).contains("SERVFAIL"));
        let _ = env.coracle(["network", "update", "--dns-drop", "127.0.0.2", "--dns-add", "127.0.0.1", "a"]).ok();
        assert_eq!(short(&env, "one", &["example.org", "A"]), "192.0.2.80");
    }

    /// CVE-2024-29018: no question of an internal network leaves the host, whoever it names.
    fn cve_2024_29018_internal_networks_ask_nobody(env: Env) {
        need!(program("dig"), program("nsenter"));
        let asked = upstream(&env);
        let _ = env.coracle(["network", "create", "--internal", "--dns", "127.0.0.1", "inside"]).ok();
        serve(&env, "one", &["--network", "inside"]);
        serve(&env, "web", &["--network", "inside", "--dns", "127.0.0.1"]);
        assert_ne!(short(&env, "one", &["web", "A"]), "");
        for container in ["one", "web"] {
            for words in [&["example.org"][..], &["+tcp", "example.org"], &["-x", "192.0.2.80"]] {
                assert!(dig(&env, container, words).contains("NXDOMAIN"), "{container} {words:?}");
            }
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    fn the_host_asks_for_containers(env: Env) {
        need!(program("dig"));
        let _ = env.coracle(["network", "create", "--subnet", "10.5.0.0/24", "a"]).ok();
        serve(&env, "web", &["--network", "a:ip=10.5.0.7"]);
        let server = env.command(["system", "dns", "--listen", "127.0.0.1:5354"]).spawn();
        let ask = |words: &[&str]| {
            let fixed = ["dig", "@127.0.0.1", "-p", "5354", "+tries=1", "+time=5"];
            env.other(fixed.iter().chain(words)).run()
        };
        until("it answers", || (ask(&["web.coracle.internal"]).code() == 0).then_some(()));
        assert_eq!(ask(&["+short", "web.coracle.internal"]).ok(), "10.5.0.7");
        assert_eq!(ask(&["+short", "web.a.coracle.internal"]).ok(), "10.5.0.7");
        assert_eq!(ask(&["+short", "+tcp", "-x", "10.5.0.7"]).ok(), "web.");
        assert!(ask(&["nobody.coracle.internal"]).ok().contains("NXDOMAIN"));
        assert!(ask(&["example.org"]).ok().contains("REFUSED"));
        // Networks and containers that come later are known too.
        let _ = env.coracle(["network", "create", "--subnet", "10.6.0.0/24", "b"]).ok();
        serve(&env, "db", &["--network", "b:ip=10.6.0.7"]);
        assert_eq!(ask(&["+short", "db.coracle.internal"]).ok(), "10.6.0.7");
        assert!(server.stdout().contains("DNS=127.0.0.1:5354"));
        server.signal(nix::sys::signal::Signal::SIGTERM);
        let _ = server.wait();
    }
}
