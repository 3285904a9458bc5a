//! Other tools' firewalls beside ours: what they drop of what is forwarded must not hit containers.

use super::{get, serve};
use crate::support::Env;
use crate::support::coracle::as_root;
use crate::support::need::need;
use crate::support::until;

/// Two networks, and a page of the one asked for from the other: its packets are forwarded by the host.
fn from_another_network(env: &Env) -> String {
    let address = env.coracle(["inspect", "web", "--format", "{{.NetworkSettings.Networks.a.IPAddress}}"]).ok();
    let line = get(&address, 80);
    env.coracle(["run", "--rm", "--network", "b", env.busybox(), "sh", "-c", &line]).stdout()
}

/// The same until it comes: the server may still be starting.
#[track_caller]
fn arrives(env: &Env) {
    until("the page comes", || from_another_network(env).contains("web").then_some(()));
}

fn nft(env: &Env, text: &str) -> String {
    env.other(["nft", text]).run().ok()
}

/// As iptables-nft makes the chain that ufw and Docker use, with a policy that drops.
const DOCKER: &str = "add table ip filter; \
    add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }; \
    add chain ip filter DOCKER-USER; \
    add chain ip filter DOCKER-FORWARD; \
    add rule ip filter FORWARD counter jump DOCKER-USER; \
    add rule ip filter FORWARD counter jump DOCKER-FORWARD";

as_root! {
    fn dockers_and_ufws_policy_of_drop(env: Env) {
        need!(program("nft"));
        let _ = nft(&env, DOCKER);
        for name in ["a", "b"] {
            let _ = env.coracle(["network", "create", name]).ok();
        }
        serve(&env, "web", &["--network", "a"]);
        arrives(&env);
        // Ours come behind Docker's chain for users, whose rules hold.
        let forward = nft(&env, "list chain ip filter FORWARD");
        let order: Vec<usize> = ["DOCKER-USER", "coracle network on", "DOCKER-FORWARD"]
            .into_iter()
            .map(|word| forward.find(word).unwrap_or_else(|| panic!("{word}: {forward}")))
            .collect();
        assert!(order.is_sorted(), "{forward}");
        let _ = nft(&env, "add rule ip filter DOCKER-USER drop");
        assert_eq!(from_another_network(&env), "");
        let _ = nft(&env, "flush chain ip filter DOCKER-USER");
        // A reload of the other firewall takes ours away; each start puts them back, once.
        let _ = nft(&env, "flush chain ip filter FORWARD");
        arrives(&env);
        let count = |text: &str| text.matches("coracle network on").count();
        let before = count(&nft(&env, "list chain ip filter FORWARD"));
        arrives(&env);
        assert_eq!(count(&nft(&env, "list chain ip filter FORWARD")), before);
        // The rules go with the network.
        let _ = env.coracle(["rm", "--force", "--time", "0", "web"]).succeeded();
        let _ = env.coracle(["network", "rm", "a", "b"]).ok();
        assert_eq!(count(&nft(&env, "list chain ip filter FORWARD")), 0);
    }

    /// As firewalld makes its chain: accept by policy, and a last rule that rejects.
    fn firewallds_last_rule(env: Env) {
        need!(program("nft"));
        let _ = nft(&env, "add table inet firewalld; \
            add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; }; \
            add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited");
        for name in ["a", "b"] {
            let _ = env.coracle(["network", "create", name]).ok();
        }
        serve(&env, "web", &["--network", "a"]);
        arrives(&env);
        let _ = nft(&env, "flush chain inet firewalld filter_FORWARD; add rule inet firewalld filter_FORWARD drop");
        let _ = env.coracle(["network", "reload", "--all"]).ok();
        arrives(&env);
    }

    /// Somebody's own rules are nobody else's business.
    fn a_chain_of_ones_own_is_left_alone(env: Env) {
        need!(program("nft"));
        let _ = nft(&env, "add table inet mine; add chain inet mine forward { type filter hook forward priority 0; policy drop; }");
        for name in ["a", "b"] {
            let _ = env.coracle(["network", "create", name]).ok();
        }
        serve(&env, "web", &["--network", "a"]);
        assert_eq!(from_another_network(&env), "");
        assert!(!nft(&env, "list table inet mine").contains("coracle"));
    }

    fn iptables_reads_our_rules(env: Env) {
        need!(program("iptables-nft"), program("nft"));
        let _ = env.other(["iptables-nft", "-P", "FORWARD", "DROP"]).run().ok();
        let _ = env.coracle(["run", "--rm", env.busybox(), "true"]).ok();
        let rules = env.other(["iptables-nft", "-S", "FORWARD"]).run().ok();
        assert_eq!(rules.matches("--comment \"coracle network on ").count(), 2, "{rules}");
    }
}
