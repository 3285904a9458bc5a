//! What shells are told that could stand next, by `__completeNoDesc` as podman's own scripts ask, and that every field
//! of a template that is offered can be rendered.

use crate::support::Env;
use crate::support::coracle::both;

/// Candidates, and the directive.
fn ask(env: &Env, words: &[&str]) -> (Vec<String>, String) {
    let base = ["__completeNoDesc"];
    let output = env.coracle(base.iter().chain(words));
    let text = output.succeeded();
    let (candidates, _) = text.rsplit_once(':').unwrap_or_else(|| panic!("{output}"));
    let directive = output.stderr().trim().trim_start_matches("Completion ended with directive: ").to_owned();
    (candidates.lines().map(str::to_owned).collect(), directive)
}

both! {
    fn names_and_directives(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "web", "--network", "none", image, "true"]).ok();
        env.coracle(["volume", "create", "data"]).ok();
        env.coracle(["tag", image, "localhost/mine:1"]).ok();
        let id = env.coracle(["images", "-q", "mine"]).ok();
        let check = |words: &[&str], wanted: &[&str], directive: &str| {
            let (found, said) = ask(&env, words);
            for name in wanted {
                assert!(found.iter().any(|candidate| candidate == name), "{words:?}: {name} is not in {found:?}");
            }
            assert_eq!(said, format!("ShellCompDirective{directive}"), "{words:?}");
        };
        check(&["rm", ""], &["web"], "NoFileComp");
        check(&["container", "logs", "w"], &["web"], "NoFileComp");
        check(&["volume", "rm", ""], &["data"], "NoFileComp");
        check(&["rmi", ""], &["localhost/mine:1", "mine:1"], "NoFileComp");
        check(&["rmi", &id[..3]], &[&id], "NoFileComp");
        check(&["inspect", ""], &["web", "data", "mine:1"], "NoFileComp");
        check(&["cp", ""], &["web:"], "NoSpace");
        check(&["run", image, ""], &[], "Default");
        check(&["import", ""], &[], "Default");
        check(&["version", ""], &[], "NoFileComp");
        check(&["run", "--sysctl", "net.ipv4.ip_def"], &["net.ipv4.ip_default_ttl"], "NoFileComp");
        check(&["network", "create", "--interface-name", "l"], &["lo"], "NoFileComp");
        check(&["inspect", "web", "-f", "{{.State.Pi"], &["{{.State.Pid}}"], "NoFileComp");
        check(&["inspect", "mine:1", "--format", "{{.Dig"], &["{{.Digest}}"], "NoFileComp");
        assert_eq!(ask(&env, &["version", ""]).0, Vec::<String>::new());
        env.coracle(["rm", "web"]).ok();
        env.coracle(["volume", "rm", "data"]).ok();
    }

    fn every_field_renders(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "web", "--network", "none", "--stop-timeout", "0", "-v", "data:/d", image, "sleep", "1000"]).ok();
        let stats = env.coracle(["stats", "--no-stream", "web"]);
        let can_stat = stats.code() == 0;
        for (verb, arguments) in [
            ("ps", vec![]),
            ("images", vec![]),
            ("history", vec![image]),
            ("volume ls", vec![]),
            ("volume inspect", vec!["data"]),
            ("network ls", vec![]),
            ("network inspect", vec!["coracle"]),
            ("system df", vec![]),
            ("events", vec!["--stream=false", "--filter", "container=web"]),
            ("stats", vec!["--no-stream", "web"]),
            ("info", vec![]),
            ("container inspect", vec!["web"]),
            ("image inspect", vec![image]),
        ] {
            if verb == "stats" && !can_stat {
                continue;
            }
            let verb: Vec<&str> = verb.split(' ').collect();
            let question: Vec<&str> = verb.iter().copied().chain(["--format", "{{."]).collect();
            let (candidates, _) = ask(&env, &question);
            assert!(candidates.len() > 1, "{verb:?}: {candidates:?}");
            let fields = candidates.iter().filter(|candidate| candidate.ends_with("}}"));
            let all: String = fields.map(|field| format!("{field};")).collect();
            let words = verb.iter().copied().chain(["--format", &all]).chain(arguments.iter().copied());
            let shown = env.coracle(words.collect::<Vec<_>>()).ok();
            assert!(!shown.is_empty(), "{verb:?}");
            // A template of nothing shows nothing.
            let blank = verb.iter().copied().chain(["--format", "{{\"\\n\"}}"]).chain(arguments.iter().copied());
            assert_eq!(env.coracle(blank.collect::<Vec<_>>()).ok().trim(), "", "{verb:?}");
        }
        env.coracle(["rm", "-f", "web"]).ok();
        env.coracle(["volume", "rm", "data"]).ok();
    }
}
