//! Signals, ends, and what is left when somebody is killed in between.

use crate::support::coracle::both;
use crate::support::{Env, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn word(env: &Env, name: &str, template: &str) -> String {
    env.coracle(["inspect", "-f", template, name]).ok()
}

fn number(env: &Env, name: &str, template: &str) -> Pid {
    Pid::from_raw(word(env, name, template).parse().expect("a number"))
}

both! {
    fn a_clean_slate_inside(env: Env) {
        let image = env.busybox();
        let status = env.coracle(["run", "--rm", "--network", "none", image, "cat", "/proc/self/status"]).ok();
        for line in ["SigBlk:\t0000000000000000", "SigCgt:\t0000000000000000"] {
            assert!(status.contains(line), "{status}");
        }
        // Nothing is ignored but what the caller had ignored; SIGPIPE, which Rust programs ignore, is not.
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("a mask");
        let ignored = u64::from_str_radix(ignored, 16).expect("a mask");
        assert_eq!(ignored & 1 << (libc::SIGPIPE - 1), 0, "{status}");
    }

    fn nothing_is_lost_at_the_end(env: Env) {
        let image = env.busybox();
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf end";
        let output = env.coracle(["run", "--name", "web", "--network", "none", image, "sh", "-c", script]).stdout();
        let expected: String = (0..2000).map(|number| format!("line {number}\n")).chain(["end".to_owned()]).collect();
        assert_eq!(output, expected);
        assert_eq!(env.coracle(["logs", "web"]).stdout(), expected);
    }

    fn a_broken_pipe_ends_a_container_that_goes(env: Env) {
        let image = env.busybox();
        let binary = env.command(["run", "--rm", "--network", "none", image, "yes"]).std();
        let mut words = vec!["sh".to_owned(), "-c".to_owned(), "\"$0\" \"$@\" | head -n 2; echo done".to_owned()];
        words.push(binary.get_program().to_string_lossy().into_owned());
        words.extend(binary.get_args().map(|word| word.to_string_lossy().into_owned()));
        assert_eq!(env.other(words).run().stdout(), "y\ny\ndone\n");
        until("the end of the container", || env.coracle(["ps", "-aq"]).ok().is_empty().then_some(()));
    }

    fn waited_for_and_gone(env: Env) {
        let image = env.busybox();
        for _ in 0..5 {
            env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sh", "-c", "exit 7"]).ok();
            assert_eq!(env.coracle(["wait", "web"]).ok(), "7");
            assert_eq!(word(&env, "web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
            assert_eq!(env.coracle(["rm", "web"]).ok(), "web");
        }
    }

    fn a_killed_supervisor_leaves_nothing(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sleep", "1000"]).ok();
        let process = number(&env, "web", "{{.State.Pid}}");
        kill(number(&env, "web", "{{.State.ConmonPid}}"), Signal::SIGKILL).expect("kill the supervisor");
        until("the end of the container", || kill(process, None).is_err().then_some(()));
        assert_eq!(word(&env, "web", "{{.State.Status}} {{.State.ExitCode}}"), "exited -1");
        assert_eq!(env.coracle(["start", "web"]).ok(), "web");
        assert_eq!(word(&env, "web", "{{.State.Status}}"), "running");
        kill(number(&env, "web", "{{.State.ConmonPid}}"), Signal::SIGKILL).expect("kill the supervisor");
        assert_eq!(env.coracle(["rm", "-f", "-t", "0", "web"]).ok(), "web");
    }

    fn a_supervisor_that_is_asked_stops_its_container(env: Env) {
        let image = env.busybox();
        let script = "trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done";
        env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sh", "-c", script]).ok();
        until("the container's trap", || env.coracle(["logs", "web"]).stdout().contains("ready").then_some(()));
        kill(number(&env, "web", "{{.State.ConmonPid}}"), Signal::SIGTERM).expect("ask the supervisor");
        assert_eq!(env.coracle(["wait", "web"]).ok(), "8");
    }

    fn frozen_and_thawed(env: Env) {
        if !env.is_root() {
            return;
        }
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sleep", "1000"]).ok();
        assert_eq!(env.coracle(["pause", "web"]).ok(), "web");
        assert_eq!(word(&env, "web", "{{.State.Status}}"), "paused");
        assert!(env.coracle(["pause", "web"]).fails(125).contains("already paused"));
        assert!(env.coracle(["exec", "web", "true"]).fails(125).contains("paused"));
        assert_eq!(env.coracle(["unpause", "web"]).ok(), "web");
        assert_eq!(env.coracle(["exec", "web", "echo", "awake"]).ok(), "awake");
        // A frozen one can be stopped all the same.
        env.coracle(["pause", "web"]).ok();
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
    }

    fn killed_after_its_time(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sleep", "1000"]).ok();
        let output = env.coracle(["stop", "-t", "1", "web"]);
        assert!(output.stderr().contains("StopSignal SIGTERM failed to stop container web in 1 seconds, resorting to SIGKILL"));
        assert_eq!(word(&env, "web", "{{.State.ExitCode}}"), "137");
        assert_eq!(env.coracle(["run", "--rm", "--network", "none", "--timeout", "1", image, "sleep", "1000"]).code(), 255);
    }

    fn started_again_by_its_policy(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "web", "--network", "none", "--restart", "on-failure:2", image, "sh", "-c", "echo try; exit 3"]).ok();
        until("the last try", || {
            let seen = word(&env, "web", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}");
            (seen == "exited 3 2").then_some(())
        });
        assert_eq!(env.coracle(["logs", "web"]).ok(), "try\ntry\ntry");
        let script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done";
        env.coracle(["run", "-d", "--name", "always", "--network", "none", "--restart", "always", image, "sh", "-c", script]).ok();
        until("the container's trap", || env.coracle(["logs", "always"]).stdout().contains("ready").then_some(()));
        // Who is stopped by hand stays so.
        assert_eq!(env.coracle(["kill", "-s", "TERM", "always"]).ok(), "always");
        assert_eq!(env.coracle(["wait", "always"]).ok(), "4");
        assert_eq!(word(&env, "always", "{{.State.Status}}"), "exited");
    }

    fn made_ready_first(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "web", "--network", "none", image, "echo", "started"]).ok();
        assert_eq!(env.coracle(["init", "web"]).ok(), "web");
        assert_eq!(word(&env, "web", "{{.State.Status}}"), "initialized");
        assert_eq!(env.coracle(["start", "-a", "web"]).ok(), "started");
    }

    fn followed_over_rotations_to_the_end(env: Env) {
        let image = env.busybox();
        let script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done";
        let options = ["--log-opt", "max-size=20kb", "--log-opt", "max-file=10"];
        let words = ["create", "--name", "web", "--network", "none"].iter().copied().chain(options);
        env.coracle(words.chain([image, "sh", "-c", script])).ok();
        env.coracle(["start", "web"]).ok();
        let expected: String = (0..500).map(|number| format!("line {number}\n")).collect();
        assert_eq!(env.coracle(["logs", "-f", "web"]).stdout(), expected);
        assert_eq!(env.coracle(["logs", "--tail", "2", "web"]).ok(), "line 498\nline 499");
        assert_eq!(env.coracle(["logs", "--since", "-1h", "web"]).ok(), "");
        assert_eq!(env.coracle(["logs", "--until", "1000", "web"]).ok(), "");
        env.coracle(["start", "-a", "web"]).ok();
        assert_eq!(env.coracle(["logs", "web"]).stdout(), format!("{expected}{expected}"));
    }

    fn health_is_checked_from_within(env: Env) {
        let image = env.busybox();
        let options = ["run", "-d", "--name", "web", "--network", "none", "--health-cmd", "echo looking; test -e /good"];
        let more = ["--health-interval", "200ms", "--health-retries", "2", image, "sleep", "1000"];
        env.coracle(options.iter().chain(&more)).ok();
        let health = |wanted: &str| {
            until(wanted, || (word(&env, "web", "{{.State.Health.Status}}") == wanted).then_some(()));
        };
        health("unhealthy");
        assert_eq!(env.coracle(["healthcheck", "run", "web"]).code(), 1);
        env.coracle(["exec", "web", "touch", "/good"]).ok();
        health("healthy");
        assert_eq!(env.coracle(["healthcheck", "run", "web"]).ok(), "");
        assert_eq!(word(&env, "web", "{{(index .State.Health.Log 0).Output}}").trim(), "looking");
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
        env.coracle(["run", "-d", "--name", "bad", "--network", "none", "--health-cmd", "false", "--health-interval", "100ms",
            "--health-retries", "1", "--health-on-failure", "kill", image, "sleep", "1000"]).ok();
        assert_eq!(env.coracle(["wait", "bad"]).ok(), "137");
        assert!(env.coracle(["healthcheck", "run", "bad"]).fails(125).contains("not running"));
    }

    fn the_service_manager_is_told(env: Env) {
        let image = env.busybox();
        let path = env.path("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("listen as a service manager");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("let the user in");
        let words = ["run", "-d", "--name", "web", "--network", "none", "--sdnotify", "conmon", image, "sleep", "1000"];
        env.command(words).env("NOTIFY_SOCKET", &path).run().ok();
        manager.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("set a deadline");
        let mut message = [0; 256];
        let length = manager.recv(&mut message).expect("a message");
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        assert_eq!(text, format!("MAINPID={}\nREADY=1", word(&env, "web", "{{.State.ConmonPid}}")));
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
    }
}
