//! Bridges as root: names, published ports, what is kept apart, and what another firewall does to us.

use super::{fetch, get, serve};
use crate::support::coracle::as_root;
use crate::support::need::need;

as_root! {
    fn names_and_published_ports(env: Env) {
        need!(program("curl"));
        let _ = env.coracle(["network", "create", "n"]).ok();
        serve(&env, "web", &["--network", "n", "--network-alias", "www", "-p", "18080:80"]);
        let page = fetch(&env, "http://127.0.0.1:18080/hosts");
        assert!(page.contains("web"), "{page}");
        // From another container: by name and alias, and by the host's address.
        let gateway = env.coracle(["network", "inspect", "n", "--format", "{{(index .Subnets 0).Gateway}}"]).ok();
        for line in [get("web", 80), get("www", 80), get(&gateway, 18080)] {
            let got = env.coracle(["run", "--rm", "--network", "n", env.busybox(), "sh", "-c", &line]).ok();
            assert!(got.contains("web"), "{line}: {got}");
        }
        // From itself, by the host's address.
        assert!(env.coracle(["exec", "web", "sh", "-c", &get(&gateway, 18080)]).ok().contains("web"));
        let said = env.coracle(["run", "--rm", "-p", "18080:80", env.busybox(), "true"]).fails(126);
        assert!(said.contains("address already in use by coracle: web"), "{said}");
    }

    /// CVE-2024-29018: an internal network's questions stay inside.
    fn an_internal_network_lets_nothing_out(env: Env) {
        let _ = env.coracle(["network", "create", "--internal", "inside"]).ok();
        let script = "ip route; nslookup example.org";
        let output = env.coracle(["run", "--rm", "--network", "inside", env.busybox(), "sh", "-c", script]);
        assert!(!output.stdout().contains("default"), "{output}");
        assert!(format!("{output}").contains("NXDOMAIN"), "{output}");
    }

    fn isolated_networks_do_not_reach_each_other(env: Env) {
        for name in ["a", "b"] {
            let _ = env.coracle(["network", "create", "--opt", "isolate=true", name]).ok();
        }
        let _ = env.coracle(["network", "create", "c"]).ok();
        serve(&env, "web", &["--network", "a", "-p", "18080:80"]);
        let _ = fetch(&env, "http://127.0.0.1:18080/hosts");
        let address = env.coracle(["inspect", "web", "--format", "{{.NetworkSettings.Networks.a.IPAddress}}"]).ok();
        let line = get(&address, 80);
        let page = |network: &str| {
            env.coracle(["run", "--rm", "--network", network, env.busybox(), "sh", "-c", &line]).stdout()
        };
        assert!(page("a").contains("web") && page("c").contains("web"));
        assert_eq!(page("b"), "");
    }

    /// CVE-2020-8558: a container must not reach what listens on the host's loopback.
    fn the_hosts_loopback_is_out_of_reach(env: Env) {
        need!(program("nft"), program("ip"));
        let image = env.busybox();
        let _ = env.coracle(["run", "--rm", image, "true"]).ok();
        let rules = env.other(["nft", "list", "ruleset"]).run().ok();
        assert!(rules.contains("iifname @bridges ip daddr 127.0.0.0/8 drop"), "{rules}");
        assert!(rules.contains("iifname @bridges ip saddr 127.0.0.0/8 drop"), "{rules}");
    }

    fn rules_that_were_flushed_come_back(env: Env) {
        need!(program("nft"), program("curl"));
        serve(&env, "web", &["-p", "18080:80"]);
        let _ = fetch(&env, "http://127.0.0.1:18080/hosts");
        let id = env.coracle(["inspect", "web", "--format", "{{.Id}}"]).ok();
        let rules = || env.other(["nft", "list", "ruleset"]).run().ok();
        let flush = || env.other(["nft", "flush", "ruleset"]).run().ok();
        let _ = flush();
        assert!(!rules().contains("18080"));
        assert_eq!(env.coracle(["network", "reload", "--all"]).ok(), id);
        assert!(rules().contains("18080"), "{}", rules());
        let _ = fetch(&env, "http://127.0.0.1:18080/hosts");
        // A start does the same, for all that run.
        let _ = flush();
        let _ = env.coracle(["run", "--rm", env.busybox(), "true"]).ok();
        assert!(rules().contains("18080"), "{}", rules());
        let _ = fetch(&env, "http://127.0.0.1:18080/hosts");
    }

    fn a_killed_supervisor_leaves_nothing(env: Env) {
        need!(program("nft"));
        serve(&env, "web", &["-p", "18080:80"]);
        let lease = || std::fs::read_dir(env.data().join("networks/coracle/leases")).unwrap().count();
        assert_eq!(lease(), 1);
        let status = env.runroot().join("containers");
        let directory = std::fs::read_dir(status).unwrap().next().unwrap().unwrap().path();
        let status: serde_json::Value =
            serde_json::from_slice(&std::fs::read(directory.join("status.json")).unwrap()).unwrap();
        let pid = nix::unistd::Pid::from_raw(status["supervisor_pid"].as_i64().unwrap() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let _ = env.coracle(["rm", "--force", "web"]).succeeded();
        assert_eq!(lease(), 0);
        assert!(!env.other(["nft", "list", "ruleset"]).run().ok().contains("18080"));
    }

    fn both_families(env: Env) {
        need!(program("curl"));
        let _ = env.coracle(["network", "create", "--ipv6", "dual"]).ok();
        serve(&env, "web", &["--network", "dual", "-p", "18080:80"]);
        let gateways = env.coracle(["network", "inspect", "dual", "--format", "{{range .Subnets}}{{.Gateway}} {{end}}"]).ok();
        for gateway in gateways.split_whitespace() {
            let host = if gateway.contains(':') { format!("[{gateway}]") } else { gateway.to_owned() };
            assert!(fetch(&env, &format!("http://{host}:18080/hosts")).contains("web"), "{gateway}");
        }
    }
}
