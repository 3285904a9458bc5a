//! Known attacks on networks and ports, each named after its number.

use super::{fetch, on_host, serve};
use crate::support::Env;
use crate::support::coracle::{as_root, as_user, network_namespace};
use crate::support::need::need;
use crate::support::until;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// Another machine, 198.51.100.2, on a cable to the host, 198.51.100.1. It sends packets for 127.0.0.1 there too.
struct Neighbour {
    namespace: OwnedFd,
    holder: Child,
}

impl Neighbour {
    fn of(env: &Env) -> Neighbour {
        let namespace = network_namespace();
        // `ip` knows namespaces by a process in them.
        let holder = on_host(&namespace, || Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap());
        let pid = holder.id();
        let ip = |namespace: &OwnedFd, lines: Vec<String>| {
            on_host(namespace, move || {
                for line in lines {
                    let status = Command::new("ip").args(line.split(' ')).status().expect("run ip");
                    assert!(status.success(), "ip {line}");
                }
            });
        };
        let lines = |list: &[&str]| list.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let cable = format!("link add lan0 type veth peer name lan1 netns {pid}");
        ip(
            env.network(),
            [cable].into_iter().chain(lines(&["addr add 198.51.100.1/24 dev lan0", "link set lan0 up"])).collect(),
        );
        ip(&namespace, lines(&["addr add 198.51.100.2/24 dev lan1", "link set lan1 up", "link set lo down"]));
        on_host(&namespace, || std::fs::write("/proc/sys/net/ipv4/conf/lan1/route_localnet", "1").unwrap());
        ip(&namespace, lines(&["route add 127.0.0.1/32 via 198.51.100.1"]));
        Neighbour { namespace, holder }
    }

    /// A page, if it can be had within some seconds.
    fn page(&self, url: &str, seconds: &str) -> Option<String> {
        let words: Vec<String> = ["--silent", "--fail", "--max-time", seconds, url].map(str::to_owned).to_vec();
        let output = on_host(&self.namespace, move || Command::new("curl").args(words).output().expect("run curl"));
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A server that tells its log who called.
fn serve_and_tell(env: &Env, name: &str, options: &[&str]) {
    let image = env.busybox();
    let words = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
    let _ = env.coracle(words.chain([image, "httpd", "-f", "-v", "-p", "80", "-h", "/etc"])).succeeded();
}

fn callers(env: &Env, name: &str) -> String {
    let output = env.coracle(["logs", name]);
    format!("{}{}", output.stdout(), output.stderr())
}

as_root! {
    /// What is published on the loopback address is nobody else's, neighbour or container.
    fn cve_2020_8558_published_on_loopback(env: Env) {
        need!(program("curl"), program("ip"));
        let neighbour = Neighbour::of(&env);
        serve(&env, "web", &["-p", "127.0.0.1:18080:80", "-p", "18081:80"]);
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("web"));
        until("the neighbour sees what is published for all", || neighbour.page("http://198.51.100.1:18081/hosts", "5"));
        for url in ["http://198.51.100.1:18080/hosts", "http://127.0.0.1:18080/hosts", "http://127.0.0.1:18081/hosts"] {
            assert_eq!(neighbour.page(url, "2"), None, "{url}");
        }
        // A container that may change its own routes sends packets for 127.0.0.1 to the host.
        let gateway = env.coracle(["inspect", "web", "--format", "{{.NetworkSettings.Gateway}}"]).ok();
        let script = format!(
            "ip addr flush dev lo && ip route add 127.0.0.1 via {gateway} && printf 'GET /hosts HTTP/1.0\\r\\n\\r\\n' | nc -w 2 127.0.0.1 18080"
        );
        let options = ["--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.conf.all.route_localnet=1"];
        let words = ["run", "--rm"].into_iter().chain(options).chain([env.busybox(), "sh", "-c", &script]);
        let output = env.coracle(words);
        assert!(!output.stdout().contains("web"), "{output}");
    }

    /// The client's address is kept, also for a container's neighbours.
    fn cve_2021_20199_the_clients_address(env: Env) {
        need!(program("curl"), program("ip"));
        let neighbour = Neighbour::of(&env);
        serve_and_tell(&env, "web", &["-p", "18080:80"]);
        until("the neighbour has the page", || neighbour.page("http://198.51.100.1:18080/hosts", "5"));
        until("the server saw it", || callers(&env, "web").contains("198.51.100.2").then_some(()));
        assert!(!callers(&env, "web").contains("127.0.0.1"));
    }

    /// A container that plays router changes nothing on the host: it takes no advertisement from a bridge, and its ends of
    /// the containers' links speak no IPv6 at all.
    fn cve_2020_13401_router_advertisements(env: Env) {
        need!(program("ip"));
        let _ = env.coracle(["network", "create", "--ipv6", "--interface-name", "six0", "six"]).ok();
        serve(&env, "web", &["--network", "six"]);
        let value = |link: &str| {
            let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
            on_host(env.network(), move || std::fs::read_to_string(path).unwrap()).trim().to_owned()
        };
        assert_eq!(value("six0"), "0");
        assert_eq!(env.coracle(["exec", "web", "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]).ok(), "0");
        let addresses = env.other(["ip", "-6", "-o", "addr"]).run().ok();
        assert!(!addresses.contains("veth"), "{addresses}");
    }

    /// Who asked for no IPv6 has none, not even an address of the link.
    fn no_ipv6_by_accident(env: Env) {
        need!(program("ip"));
        let found = env.coracle(["run", "--rm", env.busybox(), "sh", "-c", "cat /proc/net/if_inet6"]).ok();
        assert!(found.lines().all(|line| line.ends_with(" lo")), "{found}");
        let on_bridge = env.other(["ip", "-6", "-o", "addr"]).run().ok();
        assert!(on_bridge.lines().all(|line| line.contains(": lo ")), "{on_bridge}");
    }

    /// A supervisor of a container on the host's network listens on no abstract socket, which that container could reach.
    fn cve_2020_15257_abstract_sockets(env: Env) {
        let image = env.busybox();
        let _ = env.coracle(["run", "-d", "--network", "host", "--name", "c", image, "sleep", "1000"]).succeeded();
        let sockets = on_host(env.network(), || std::fs::read_to_string("/proc/thread-self/net/unix").unwrap());
        assert!(!sockets.contains(" @"), "{sockets}");
        assert!(!env.coracle(["exec", "c", "cat", "/proc/net/unix"]).ok().contains(" @"));
    }

    /// Isolated networks hear nothing of each other: not by the address, not by the gateway's, not by a port of the other.
    fn isolated_networks_and_their_gateways(env: Env) {
        for name in ["a", "b"] {
            let _ = env.coracle(["network", "create", "--opt", "isolate=strict", name]).ok();
        }
        serve(&env, "web", &["--network", "a"]);
        let address = env.coracle(["inspect", "web", "--format", "{{.NetworkSettings.IPAddress}}"]).ok();
        let gateway = env.coracle(["inspect", "web", "--format", "{{.NetworkSettings.Gateway}}"]).ok();
        for host in [address, gateway] {
            let line = super::get(&host, 80);
            let output = env.coracle(["run", "--rm", "--network", "b", env.busybox(), "sh", "-c", &line]);
            assert_eq!(output.stdout(), "", "{host}");
        }
    }
}

as_user! {
    /// As an ordinary user too: what comes by a published port comes from its client, not from 127.0.0.1.
    fn cve_2021_20199_the_clients_address_without_root(env: Env) {
        need!(root, program("curl"), program("ip"));
        let env = env.in_network(super::user::host());
        serve_and_tell(&env, "web", &["-p", "18080:80"]);
        assert!(fetch(&env, &format!("http://{}:18080/hosts", super::user::HOST)).contains("web"));
        until("the server saw it", || callers(&env, "web").contains(super::user::HOST).then_some(()));
        assert!(!callers(&env, "web").contains("127.0.0.1"));
    }
}
