//! The walk: the supervisor is killed at the first point of its way, then at the second, and so on, through attach, live
//! changes and detach. Whatever was half done then, the next command removes the container and nothing of it is left.

use super::on_host;
use crate::support::Env;
use crate::support::coracle::both;
use crate::support::need::need;
use crate::support::until;
use std::process::Command;

/// What of containers is still there: links, rules, leases, members.
fn remains(env: &Env) -> Vec<String> {
    let mut found = Vec::new();
    for (directory, kind) in [(env.data(), "leases"), (env.runroot(), "members")] {
        for network in std::fs::read_dir(directory.join("networks")).into_iter().flatten().flatten() {
            for entry in std::fs::read_dir(network.path().join(kind)).into_iter().flatten().flatten() {
                found.push(entry.path().display().to_string());
            }
        }
    }
    if !env.is_root() {
        found.extend(crate::network::user::forwarders(env).iter().map(|pid| format!("forwarder {pid}")));
        return found;
    }
    let output = |program: &'static str, words: &'static [&'static str]| {
        on_host(env.network(), move || Command::new(program).args(words).output().expect("run a program"))
    };
    let links = String::from_utf8(output("ip", &["-o", "link"]).stdout).unwrap();
    found.extend(links.lines().filter(|line| line.contains(": veth")).map(str::to_owned));
    let rules = String::from_utf8(output("nft", &["list", "ruleset"]).stdout).unwrap();
    found.extend(rules.lines().filter(|line| line.contains("18080")).map(str::to_owned));
    found
}

both! {
    fn killed_at_every_step(env: Env) {
        need!(root, program("ip"), program("nft"));
        let env = if env.is_root() { env } else { env.in_network(crate::network::user::host()) };
        let image = env.busybox();
        for name in ["a", "b"] {
            let _ = env.coracle(["network", "create", name]).ok();
        }
        let mut number = 1;
        loop {
            let options = ["--network", "a", "-p", "18080-18082:80-82", "--cgroups", "disabled"];
            let words = ["create", "--name", "c"].into_iter().chain(options).chain([image, "sleep", "1000"]);
            let _ = env.coracle(words).succeeded();
            let start = env.command(["start", "c"]).env("CORACLE_FAULT", format!("kill@{number}")).run();
            let mut good = start.code() == 0;
            for words in [
                &["network", "connect", "b", "c"][..],
                &["port", "add", "c", "18083:83/udp"],
                &["port", "rm", "c", "18083:83/udp"],
                &["network", "disconnect", "a", "c"],
                &["stop", "--time", "0", "c"],
            ] {
                good = good && env.coracle(words).code() == 0;
            }
            let _ = env.coracle(["rm", "--force", "--time", "0", "c"]).succeeded();
            // The kernel takes a moment to remove the links of a namespace that nobody uses any more.
            until(&format!("nothing is left after point {number}"), || remains(&env).is_empty().then_some(()));
            if good {
                break;
            }
            number += 1;
            assert!(number < 400, "the walk does not end");
        }
        assert!(number > 12, "only {number} points");
    }
}
