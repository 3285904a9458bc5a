//! Published ports: added and withdrawn while the container runs, on every address of the host, by hand where rules cannot.

use super::{fetch, get, serve};
use crate::support::Env;
use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use crate::support::until;

/// A network that plays the host, where this test needs one.
fn at_home(env: Env) -> Env {
    if env.is_root() { env } else { env.in_network(super::user::host()) }
}

/// Whether a page can be had from there at once.
fn answers(env: &Env, url: &str) -> bool {
    env.other(["curl", "--silent", "--fail", "--max-time", "10", url]).run().code() == 0
}

both! {
    fn come_and_go_while_it_runs(env: Env) {
        need!(root, program("curl"), program("ip"));
        let env = at_home(env);
        serve(&env, "web", &["-p", "18080:80"]);
        assert_eq!(env.coracle(["port", "add", "web", "127.0.0.1:18081:80"]).ok(), "80/tcp -> 127.0.0.1:18081");
        assert!(fetch(&env, "http://127.0.0.1:18081/hosts").contains("web"));
        assert_eq!(env.coracle(["port", "web"]).ok(), "80/tcp -> 0.0.0.0:18080\n80/tcp -> 127.0.0.1:18081");
        let shown = env.coracle(["ps", "--format", "{{.Ports}}"]).ok();
        assert_eq!(shown, "0.0.0.0:18080->80/tcp, 127.0.0.1:18081->80/tcp");
        let said = env.coracle(["port", "add", "web", "18080:81"]).fails(125);
        assert!(said.contains("address already in use by coracle: web"), "{said}");
        let said = env.coracle(["port", "rm", "web", "18082:80"]).fails(125);
        assert!(said.contains("does not publish that port"), "{said}");
        assert_eq!(env.coracle(["port", "rm", "web", "18080:80"]).ok(), "");
        assert!(!answers(&env, "http://127.0.0.1:18080/hosts"));
        // From now on with each start.
        let _ = env.coracle(["restart", "--time", "0", "web"]).ok();
        assert!(fetch(&env, "http://127.0.0.1:18081/hosts").contains("web"));
        assert_eq!(env.coracle(["port", "web"]).ok(), "80/tcp -> 127.0.0.1:18081");
        let _ = env.coracle(["stop", "--time", "0", "web"]).ok();
        assert_eq!(env.coracle(["port", "add", "web", "18083:80"]).ok(), "80/tcp -> 0.0.0.0:18083");
        let _ = env.coracle(["start", "web"]).ok();
        assert!(fetch(&env, "http://127.0.0.1:18083/hosts").contains("web"));
        let free = env.coracle(["port", "add", "web", "80"]).ok();
        let port = free.rsplit(':').next().unwrap().to_owned();
        assert!(fetch(&env, &format!("http://127.0.0.1:{port}/hosts")).contains("web"));
        assert_eq!(env.coracle(["port", "rm", "web", &format!("{port}:80")]).ok(), "");
        assert!(!answers(&env, &format!("http://127.0.0.1:{port}/hosts")));
    }

    fn need_a_network_that_publishes(env: Env) {
        let image = env.busybox();
        for (mode, hint) in [("none", "only containers with a network of their own"), ("host", "listens on the host itself")] {
            let _ = env.coracle(["create", "--network", mode, "--name", mode, image]).succeeded();
            let said = env.coracle(["port", "add", mode, "80:80"]).fails(125);
            assert!(said.contains(hint), "{said}");
        }
        let said = env.coracle(["port", "add", "nobody", "80:80"]).fails(125);
        assert!(said.contains("no such container"), "{said}");
        let said = env.coracle(["port", "add", "none", "80:80:80:80"]).fails(125);
        assert!(said.contains("invalid port format"), "{said}");
    }

    /// Also where the container has no IPv6, and by `::1`, which no rule can translate.
    fn on_both_loopback_addresses(env: Env) {
        need!(root, program("curl"), program("ip"));
        let env = at_home(env);
        serve(&env, "web", &["-p", "18080:80", "-p", "[::1]:18081:80"]);
        let _ = env.coracle(["network", "create", "--ipv6", "dual"]).ok();
        serve(&env, "two", &["--network", "dual", "-p", "18082:80"]);
        for place in ["127.0.0.1:18080", "[::1]:18080", "[::1]:18081", "127.0.0.1:18082", "[::1]:18082"] {
            let page = fetch(&env, &format!("http://{place}/hosts"));
            assert!(page.contains(if place.ends_with('2') { "two" } else { "web" }), "{place}: {page}");
        }
        assert!(!answers(&env, "http://127.0.0.1:18081/hosts"));
    }

    fn follow_to_the_network_that_is_there(env: Env) {
        need!(root, program("curl"), program("ip"));
        let env = at_home(env);
        let _ = env.coracle(["network", "create", "a"]).ok();
        serve(&env, "web", &["--network", "a", "-p", "18080:80"]);
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("web"));
        let _ = env.coracle(["network", "disconnect", "a", "web"]).ok();
        assert!(!answers(&env, "http://127.0.0.1:18080/hosts"));
        let _ = env.coracle(["network", "connect", "a", "web"]).ok();
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("web"));
    }
}

as_root! {
    fn thousands_of_one_container(env: Env) {
        need!(program("nft"), program("curl"));
        let image = env.busybox();
        let options = ["-p", "20000-23999:20000-23999", "-p", "5000-5001:5000-5001/udp"];
        let words = ["run", "-d", "--name", "many"].into_iter().chain(options).chain([image, "sleep", "1000"]);
        let _ = env.coracle(words).succeeded();
        let count = || env.other(["nft", "list", "map", "inet", &super::table(&env), "any4"]).run().ok().matches(" : ").count();
        // One line says the type.
        assert_eq!(count(), 4002 + 1);
        for port in ["20000", "23999"] {
            let _ = env.coracle(["exec", "-d", "many", "httpd", "-f", "-p", port, "-h", "/etc"]).succeeded();
            assert!(fetch(&env, &format!("http://127.0.0.1:{port}/hosts")).contains("many"));
        }
        let _ = env.coracle(["rm", "--force", "--time", "0", "many"]).succeeded();
        assert_eq!(count(), 1);
    }

    /// A flow that began before its port was published would go astray for as long as the client keeps sending.
    fn a_flow_of_datagrams_finds_its_way_when_the_port_comes(env: Env) {
        let image = env.busybox();
        let _ = env.coracle(["run", "-d", "--name", "echo", image, "sleep", "1000"]).succeeded();
        let pid = env.coracle(["inspect", "echo", "--format", "{{.State.Pid}}"]).ok();
        let inside = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap().into();
        // Port 53 is the container's own to have.
        let server = super::on_host(&inside, || std::net::UdpSocket::bind("0.0.0.0:53").unwrap());
        drop(inside);
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..length], from);
            }
        });
        let gateway = env.coracle(["inspect", "echo", "--format", "{{.NetworkSettings.Gateway}}"]).ok();
        let socket = super::on_host(env.network(), || std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect((gateway.as_str(), 15353)).unwrap();
        // Nobody is there: the kernel remembers the flow all the same.
        let _ = socket.send(b"early");
        let _ = env.coracle(["port", "add", "echo", "15353:53/udp"]).ok();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        until("the answer comes", || {
            let mut buffer = [0; 16];
            let _ = socket.send(b"hello");
            socket.recv(&mut buffer).ok().filter(|length| &buffer[..*length] == b"hello").map(drop)
        });
    }

    /// `publish = "input"`: no rule translates, so what a host firewall drops on its way in is dropped.
    fn obey_the_firewall_where_the_user_says_so(env: Env) {
        need!(program("nft"), program("curl"));
        let conf = env.write("containers.conf", "[network]\npublish = \"input\"\n");
        let env = env.variable("CONTAINERS_CONF", conf);
        serve(&env, "web", &["-p", "18080:80"]);
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("web"));
        let rule = "add table ip wall; add chain ip wall in { type filter hook input priority 0; }; add rule ip wall in tcp dport 18080 drop";
        let _ = env.other(["nft", rule]).run().ok();
        let code = env.other(["curl", "--silent", "--max-time", "2", "http://127.0.0.1:18080/hosts"]).run().code();
        assert_ne!(code, 0);
    }

    fn the_kernel_without_a_rule_is_helped(env: Env) {
        need!(program("nft"), program("curl"));
        serve(&env, "web", &["-p", "18080:80"]);
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("web"));
        let _ = env.other(["nft", "flush", "ruleset"]).run().ok();
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("web"));
    }

    fn hairpin_by_both_families(env: Env) {
        let _ = env.coracle(["network", "create", "--ipv6", "dual"]).ok();
        serve(&env, "web", &["--network", "dual", "-p", "18080:80"]);
        let gateways = env.coracle(["network", "inspect", "dual", "--format", "{{range .Subnets}}{{.Gateway}} {{end}}"]).ok();
        for gateway in gateways.split_whitespace() {
            let line = format!("for i in 1 2 3 4 5 6 7 8 9; do {} && exit; sleep 1; done", get(gateway, 18080));
            assert!(env.coracle(["exec", "web", "sh", "-c", &line]).ok().contains("web"), "{gateway}");
        }
    }
}
