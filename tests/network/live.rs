//! Joining and leaving networks while a container runs.

use super::{fetch, get, serve};
use crate::support::coracle::as_root;
use crate::support::need::need;

as_root! {
    fn join_and_leave(env: Env) {
        need!(program("curl"));
        for (name, subnet) in [("a", "10.5.0.0/24"), ("b", "10.6.0.0/24")] {
            let _ = env.coracle(["network", "create", "--subnet", subnet, name]).ok();
        }
        serve(&env, "web", &["--network", "a", "-p", "18080:80"]);
        let _ = env.coracle(["run", "-d", "--network", "b", "--name", "db", env.busybox(), "sleep", "1000"]).succeeded();
        let inside = |words: &[&str]| env.coracle(["exec", "db"].iter().chain(words));
        assert!(!inside(&["nslookup", "web"]).stdout().contains("10.5.0."));
        let _ = env.coracle(["network", "connect", "--alias", "store", "--ip", "10.5.0.77", "a", "db"]).ok();
        assert!(inside(&["ip", "addr"]).ok().contains("10.5.0.77/24"));
        assert!(inside(&["cat", "/etc/hosts"]).ok().contains("10.5.0.77\t"));
        assert!(inside(&["sh", "-c", &get("web", 80)]).ok().contains("web"));
        assert!(env.coracle(["exec", "web", "nslookup", "store"]).stdout().contains("10.5.0.77"));
        let said = env.coracle(["network", "connect", "a", "db"]).fails(125);
        assert!(said.contains("network is already connected"), "{said}");
        // The port follows to the network that is left.
        let _ = env.coracle(["network", "connect", "b", "web"]).ok();
        let _ = env.coracle(["network", "disconnect", "a", "web"]).ok();
        assert!(fetch(&env, "http://127.0.0.1:18080/hosts").contains("10.6.0."));
        assert!(env.coracle(["exec", "web", "ip", "route"]).ok().contains("default via 10.6.0.1"));
        let said = env.coracle(["network", "disconnect", "a", "web"]).fails(125);
        assert!(said.contains("network is not connected"), "{said}");
    }

    fn only_networks_can_be_joined(env: Env) {
        let _ = env.coracle(["network", "create", "a"]).ok();
        let _ = env.coracle(["create", "--network", "none", "--name", "c", env.busybox()]).succeeded();
        let said = env.coracle(["network", "connect", "a", "c"]).fails(125);
        assert!(said.contains("\"none\" is not supported: invalid network mode"), "{said}");
    }
}
