//! Drivers and their options, as the kernel has them in the end.

use super::{get, on_host, serve};
use crate::support::Env;
use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use std::process::Command;

/// A cable whose far end, 10.77.0.1, is no container's: parents of macvlans are one end of it.
fn cable(env: &Env) {
    on_host(env.network(), || {
        for line in [
            "link add parent0 type veth peer name far0",
            "link set parent0 up",
            "addr add 10.77.0.1/24 dev far0",
            "link set far0 up",
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().expect("run ip");
            assert!(status.success(), "ip {line}");
        }
    });
}

fn inside(env: &Env, network: &str, script: &str) -> String {
    env.coracle(["run", "--rm", "--network", network, env.busybox(), "sh", "-c", script]).ok()
}

as_root! {
    fn a_macvlan_is_on_its_parents_wire(env: Env) {
        need!(program("ip"), kernel_link("macvlan"));
        cable(&env);
        for mode in ["bridge", "vepa", "private", "passthru"] {
            let options = ["--driver", "macvlan", "--opt", "parent=parent0", "--opt", &format!("mode={mode}")].map(str::to_owned);
            let subnet = ["--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "m"].map(str::to_owned);
            let _ = env.coracle(["network".to_owned(), "create".to_owned()].into_iter().chain(options).chain(subnet)).ok();
            let routes = inside(&env, "m", "ip route");
            assert!(routes.contains("default via 10.77.0.1 dev eth0"), "{mode}: {routes}");
            assert_eq!(env.coracle(["network", "rm", "m"]).ok(), "m");
        }
        // Without a mode it is a bridge; without addresses of ours there are none.
        let words = ["network", "create", "--driver", "macvlan", "--opt", "parent=parent0", "--ipam-driver", "none", "bare"];
        let _ = env.coracle(words).ok();
        assert!(!inside(&env, "bare", "ip addr show eth0").contains("inet "));
        let _ = env.coracle(["network", "create", "--driver", "macvlan", "--opt", "parent=parent0", "--subnet", "10.77.0.0/24", "m"]).ok();
        let found = inside(&env, "m:ip=10.77.0.9,mac=02:11:22:33:44:55,interface_name=wire", "ip addr show wire");
        assert!(found.contains("10.77.0.9/24") && found.contains("02:11:22:33:44:55"), "{found}");
        let said = env.coracle(["run", "--rm", "--network", "m", "-p", "80:80", env.busybox(), "true"]).fails(126);
        assert!(said.contains("none of the container's networks can be reached from outside"), "{said}");
    }

    fn addresses_by_dhcp_are_refused(env: Env) {
        need!(program("ip"));
        cable(&env);
        let create = |words: &[&str]| env.coracle(["network", "create", "--driver", "macvlan", "-o", "parent=parent0"].iter().chain(words)).fails(125);
        assert!(create(&["--ipam-driver", "dhcp", "m"]).contains("ipam driver dhcp is not had"));
        assert!(create(&["m"]).contains("macvlan network m without --subnet"));
    }

    fn a_bridge_of_somebody_else(env: Env) {
        need!(program("ip"));
        let said = {
            let _ = env.coracle(["network", "create", "-o", "mode=unmanaged", "--interface-name", "theirs0", "--subnet", "10.78.0.0/24", "--gateway", "10.78.0.1", "u"]).ok();
            env.coracle(["run", "--rm", "--network", "u", env.busybox(), "true"]).fails(126)
        };
        assert!(said.contains("there is no bridge theirs0"), "{said}");
        on_host(env.network(), || {
            for line in ["link add theirs0 type bridge", "addr add 10.78.0.1/24 dev theirs0", "link set theirs0 up"] {
                assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
            }
        });
        serve(&env, "web", &["--network", "u"]);
        let line = format!("for i in 1 2 3 4 5 6 7 8 9; do {} && exit; sleep 1; done", get("web", 80));
        assert!(inside(&env, "u", &line).contains("web"));
        let _ = env.coracle(["rm", "--force", "--time", "0", "web"]).succeeded();
        let _ = env.coracle(["network", "rm", "u"]).ok();
        assert!(env.other(["ip", "link", "show", "theirs0"]).run().code() == 0, "the bridge is not ours to remove");
    }
}

both! {
    fn what_a_bridge_gives_its_containers(env: Env) {
        need!(root, program("ip"));
        let env = if env.is_root() { env } else { env.in_network(crate::network::user::host()) };
        let words = [
            "network", "create", "--subnet", "10.5.0.0/24", "--ip-range", "10.5.0.128/26", "--subnet", "fd00:5::/64",
            "--route", "10.200.0.0/16,10.5.0.9,50", "--opt", "mtu=1400", "--opt", "metric=77", "n",
        ];
        let _ = env.coracle(words).ok();
        let found = inside(&env, "n", "ip addr show eth0; ip route; ip -6 route");
        for expected in [
            "mtu 1400",
            "10.5.0.129/24",
            "default via 10.5.0.1 dev eth0  metric 77",
            "10.200.0.0/16 via 10.5.0.9 dev eth0  metric 50",
            "default via fd00:5::1 dev eth0  metric 77",
        ] {
            assert!(found.contains(expected), "{expected}: {found}");
        }
        let found = inside(&env, "n:ip=10.5.0.7,ip6=fd00:5::7,mac=02:aa:bb:cc:dd:ee", "ip addr show eth0");
        for expected in ["10.5.0.7/24", "fd00:5::7/64", "02:aa:bb:cc:dd:ee"] {
            assert!(found.contains(expected), "{expected}: {found}");
        }
        let _ = env.coracle(["network", "create", "--opt", "no_default_route=true", "lost"]).ok();
        assert!(!inside(&env, "lost", "ip route").contains("default"));
    }

    fn containers_of_their_own_on_one_bridge(env: Env) {
        need!(root, program("ip"));
        let env = if env.is_root() { env } else { env.in_network(crate::network::user::host()) };
        let _ = env.coracle(["network", "create", "--opt", "com.docker.network.bridge.enable_icc=false", "n"]).ok();
        serve(&env, "web", &["--network", "n"]);
        let line = get("web", 80);
        let output = env.coracle(["run", "--rm", "--network", "n", env.busybox(), "sh", "-c", &line]);
        assert_eq!(output.stdout(), "");
    }
}
