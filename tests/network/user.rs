//! An ordinary user's networks: out to the world, in by published ports, and the process in between.

use super::{fetch, get, on_host, serve};
use crate::support::Env;
use crate::support::coracle::{as_user, network_namespace};
use crate::support::need::need;
use crate::support::until;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

/// The address of the user's host in these tests.
pub(super) const HOST: &str = "192.0.2.2";

/// A namespace that plays the host: an address, and a way out that leads nowhere.
pub(super) fn host() -> OwnedFd {
    let namespace = network_namespace();
    on_host(&namespace, || {
        for words in [
            "link add out0 type bridge",
            "addr add 192.0.2.2/24 dev out0",
            "link set out0 up",
            "route add default via 192.0.2.1",
        ] {
            let status = std::process::Command::new("ip").args(words.split(' ')).status().expect("run ip");
            assert!(status.success(), "ip {words}");
        }
    });
    namespace
}

/// The processes of this test's user that forward.
pub(super) fn forwarders(env: &Env) -> Vec<i32> {
    let runroot = env.runroot().to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            (line.starts_with("coracle: [forward]") && line.contains(&runroot)).then_some(pid)
        })
        .collect()
}

as_user! {
    fn in_by_a_published_port(env: Env) {
        need!(root, program("curl"), program("ip"));
        let env = env.in_network(host());
        serve(&env, "web", &["-p", "18080:80"]);
        for address in ["127.0.0.1", HOST] {
            assert!(fetch(&env, &format!("http://{address}:18080/hosts")).contains("web"), "{address}");
        }
    }

    fn out_and_the_refusal_is_a_refusal(env: Env) {
        need!(root, program("ip"));
        let namespace = host();
        let tcp = on_host(&namespace, || TcpListener::bind("192.0.2.2:0").unwrap());
        let env = env.in_network(namespace);
        let image = env.busybox();
        let open = tcp.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            use std::io::Write;
            tcp.accept().unwrap().0.write_all(b"hello").unwrap();
        });
        let get = |port: u16| {
            let port = port.to_string();
            env.coracle(["run", "--rm", image, "nc", "-w", "10", HOST, &port])
        };
        assert_eq!(get(open).ok(), "hello");
        server.join().unwrap();
        let refused = get(open);
        assert_ne!(refused.code(), 0);
        assert!(refused.stderr().contains("refused"), "{refused}");
    }

    fn one_process_for_all_that_ends_with_the_last(env: Env) {
        need!(root, program("ip"), program("curl"));
        let env = env.in_network(host());
        serve(&env, "one", &["-p", "18081:80"]);
        serve(&env, "two", &["-p", "18082:80"]);
        assert_eq!(forwarders(&env).len(), 1);
        let _ = env.coracle(["rm", "--force", "--time", "0", "one", "two"]).succeeded();
        until("the forwarder ends", || forwarders(&env).is_empty().then_some(()));
    }

    fn a_killed_forwarder_is_replaced(env: Env) {
        need!(root, program("ip"), program("curl"));
        let env = env.in_network(host());
        serve(&env, "one", &["-p", "18081:80"]);
        serve(&env, "two", &["-p", "18082:80"]);
        let old = forwarders(&env);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(old[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
        until("there is another forwarder", || matches!(forwarders(&env)[..], [new] if new != old[0]).then_some(()));
        for port in ["18081", "18082"] {
            assert!(!fetch(&env, &format!("http://127.0.0.1:{port}/hosts")).is_empty());
        }
    }

    fn networks_of_ones_own(env: Env) {
        need!(root, program("ip"));
        let env = env.in_network(host());
        let _ = env.coracle(["network", "create", "n"]).ok();
        serve(&env, "web", &["--network", "n"]);
        let words = ["run", "--rm", "--network", "n", env.busybox(), "sh", "-c"];
        let line = get("web", 80);
        let script = format!("for i in 1 2 3 4 5 6 7 8 9; do {line} && exit; sleep 1; done; exit 1");
        assert!(env.coracle(words.into_iter().chain([script.as_str()])).ok().contains("web"));
    }
}
