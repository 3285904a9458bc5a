//! `network create`, `ls`, `inspect`, `exists`, `rm`, `prune`, `update`: what they say and refuse.

use crate::support::coracle::both;

both! {
    fn a_network_from_create_to_rm(env: Env) {
        assert_eq!(env.coracle(["network", "create", "--subnet", "10.5.0.0/24", "--label", "a=b", "n1"]).ok(), "n1");
        let _ = env.coracle(["network", "exists", "n1"]).ok();
        let _ = env.coracle(["network", "exists", "n2"]).fails(1);
        let shown = &env.coracle(["network", "inspect", "n1"]).json()[0];
        assert_eq!(shown["subnets"], serde_json::json!([{ "subnet": "10.5.0.0/24", "gateway": "10.5.0.1" }]));
        assert_eq!((&shown["driver"], &shown["labels"]["a"]), (&"bridge".into(), &"b".into()));
        assert_eq!(env.coracle(["network", "ls", "--quiet"]).ok(), "coracle\nn1");
        assert_eq!(env.coracle(["network", "ls", "--format", "{{.Name}}", "--filter", "label=a=b"]).ok(), "n1");
        assert_eq!(env.coracle(["network", "update", "--dns-add", "10.9.9.9", "n1"]).ok(), "n1");
        assert_eq!(env.coracle(["network", "inspect", "n1", "--format", "{{.NetworkDNSServers}}"]).ok(), "[10.9.9.9]");
        assert_eq!(env.coracle(["network", "rm", "n1"]).ok(), "n1");
        let _ = env.coracle(["network", "rm", "n1"]).fails(1);
        let _ = env.coracle(["network", "rm", "--force", "n1"]).ok();
    }

    fn the_default_network_has_three_names_and_stays(env: Env) {
        for name in ["coracle", "podman", "bridge"] {
            assert_eq!(env.coracle(["network", "inspect", name, "--format", "{{.Name}}"]).ok(), "coracle");
        }
        let said = env.coracle(["network", "rm", "podman"]).fails(125);
        assert_eq!(said, "coracle: default network coracle cannot be removed");
    }

    fn wrong_wishes_are_refused_before_anything_is_made(env: Env) {
        let _ = env.coracle(["network", "create", "--subnet", "10.5.0.0/24", "n1"]).ok();
        for (words, expected) in [
            (&["n1"][..], "network name n1 already used: network already exists"),
            (&["--subnet", "10.5.0.128/25", "n2"], "network n1 has it"),
            (&["--gateway", "10.1.1.1", "n2"], "cannot set gateway without subnet"),
            (&["--subnet", "10.6.0.0/24", "--gateway", "10.7.0.1", "n2"], "gateway 10.7.0.1 not in subnet 10.6.0.0/24"),
            (&["--subnet", "10.6.0.0/24", "--ip-range", "10.7.0.0/28", "n2"], "not in subnet 10.6.0.0/24"),
            (&["--driver", "carrier-pigeon", "n2"], "unsupported driver carrier-pigeon"),
            (&["--opt", "colour=red", "n2"], "unsupported bridge network option colour"),
            (&["--opt", "mtu=tall", "n2"], "`tall` is not a number"),
            (&["host"], "conflicts with a valid network mode"),
            (&["--driver", "macvlan", "--opt", "parent=nolink0", "--subnet", "10.6.0.0/24", "n2"], "does not exist"),
        ] {
            let said = env.coracle(["network", "create"].iter().chain(words)).fails(125);
            assert!(said.contains(expected), "{words:?}: {said}");
        }
        assert_eq!(env.coracle(["network", "ls", "--quiet"]).ok(), "coracle\nn1");
    }

    fn prune_spares_what_is_used(env: Env) {
        let image = env.busybox();
        for name in ["used", "unused"] {
            let _ = env.coracle(["network", "create", name]).ok();
        }
        let _ = env.coracle(["create", "--network", "used", "--name", "c", image]).succeeded();
        assert_eq!(env.coracle(["network", "prune", "--force"]).ok(), "Deleted Networks\nunused");
        let said = env.coracle(["network", "rm", "used"]).fails(2);
        assert!(said.contains("\"used\" has associated containers with it"), "{said}");
        assert_eq!(env.coracle(["network", "rm", "--force", "--time", "0", "used"]).ok(), "used");
        assert_eq!(env.coracle(["ps", "--all", "--quiet"]).ok(), "");
    }
}
