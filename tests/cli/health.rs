//! Health checks: what is told of them, while the container runs and when it has ended.

use crate::support::coracle::both;
use crate::support::{Env, until};

/// An idle container whose check is this script, run only when it is asked for.
fn checked(env: &Env, script: &str, options: &[&str]) {
    let image = env.busybox();
    let words =
        ["run", "-d", "--name", "web", "--network", "none", "--health-interval", "disable", "--health-retries", "1"];
    let rest = ["--health-cmd", script, image, "sleep", "1000"];
    env.coracle(words.iter().chain(options).chain(&rest)).ok();
}

fn health(env: &Env) -> String {
    env.coracle([
        "inspect",
        "--format",
        "{{.State.Status}} {{.State.Health.Status}} {{.State.Health.FailingStreak}}",
        "web",
    ])
    .ok()
}

both! {
    fn results_are_told(env: Env) {
        let directory = env.directory("results");
        checked(&env, "echo a word; test ! -e /bad", &["--health-log-destination", directory.to_str().unwrap()]);
        assert_eq!(env.coracle(["healthcheck", "run", "web"]).ok(), "");
        env.coracle(["exec", "web", "touch", "/bad"]).ok();
        let bad = env.coracle(["healthcheck", "run", "web"]);
        assert_eq!((bad.code(), bad.stdout(), bad.stderr()), (1, "unhealthy\n".to_owned(), String::new()));
        assert_eq!(health(&env), "running unhealthy 1");
        let events = ["events", "--stream=false", "--filter", "event=health_status", "--format", "{{.Name}} {{.HealthStatus}}"];
        assert_eq!(env.coracle(events).ok(), "web healthy\nweb unhealthy");
        let id = env.coracle(["inspect", "--format", "{{.Id}}", "web"]).ok();
        let kept = std::fs::read(directory.join(format!("{id}-healthcheck.log"))).expect("results in a file");
        let kept: serde_json::Value = serde_json::from_slice(&kept).expect("a document");
        assert_eq!((&kept["Status"], &kept["Log"][1]["Output"]), (&"unhealthy".into(), &"a word\n".into()));
        env.coracle(["stop", "-t", "0", "web"]).ok();
        assert_eq!(health(&env), "exited unhealthy 1");
        env.coracle(["rm", "web"]).ok();
    }

    fn results_among_the_events(env: Env) {
        checked(&env, "echo a word", &["--health-log-destination", "events_logger"]);
        env.coracle(["healthcheck", "run", "web"]).ok();
        let events = ["events", "--stream=false", "--filter", "event=health_status", "--format", "{{.HealthLog}}"];
        assert_eq!(env.coracle(events).ok(), "a word\n");
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
    }

    fn what_a_stop_cuts_short_has_not_failed(env: Env) {
        checked(&env, "touch /begun; sleep 1000", &["--health-on-failure", "restart"]);
        let check = env.command(["healthcheck", "run", "web"]).spawn();
        until("the check runs", || (env.coracle(["exec", "web", "test", "-e", "/begun"]).code() == 0).then_some(()));
        env.coracle(["stop", "-t", "0", "web"]).ok();
        let check = check.wait();
        assert_eq!((check.code(), check.stdout(), check.stderr()), (1, "stopped\n".to_owned(), String::new()));
        assert_eq!(health(&env), "exited stopped 0");
        env.coracle(["rm", "web"]).ok();
    }

    fn other_checks_while_it_runs(env: Env) {
        checked(&env, "false", &[]);
        assert_eq!(env.coracle(["healthcheck", "run", "web"]).code(), 1);
        env.coracle(["update", "--health-cmd", "true", "web"]).ok();
        env.coracle(["healthcheck", "run", "web"]).ok();
        assert_eq!(health(&env), "running healthy 0");
        env.coracle(["update", "--no-healthcheck", "web"]).ok();
        let refusal = env.coracle(["healthcheck", "run", "web"]).fails(125);
        assert!(refusal.contains("has no defined healthcheck"), "{refusal}");
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
    }

    fn without_a_check(env: Env) {
        let image = env.busybox();
        let refusal = env.coracle(["create", "--health-on-failure", "kill", "--network", "none", image]).fails(125);
        assert!(refusal.contains("cannot set on-failure action to kill without a health check"), "{refusal}");
        env.coracle(["create", "--name", "web", "--no-healthcheck", "--network", "none", image]).ok();
        assert_eq!(env.coracle(["inspect", "--format", "{{.Config.Healthcheck.Test}}", "web"]).ok(), "[NONE]");
    }
}
