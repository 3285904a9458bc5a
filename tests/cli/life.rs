//! A container's life from `create` to `rm`, as `ps` and `inspect` tell it.

use crate::support::coracle::both;
use crate::support::need::need;
use crate::support::{Env, until};

fn idle(env: &Env, name: &str) {
    let image = env.busybox();
    let script = "trap 'exit 0' TERM; echo started; while :; do sleep 1; done";
    env.coracle(["run", "-d", "--name", name, "--network", "none", image, "sh", "-c", script]).ok();
    until("the container's first word", || env.coracle(["logs", name]).stdout().contains("started").then_some(()));
}

fn state(env: &Env, name: &str) -> String {
    env.coracle(["inspect", "--format", "{{.State.Status}}", name]).ok()
}

both! {
    fn created_started_stopped_removed(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "web", "--network", "none", image, "sleep", "1000"]).ok();
        assert_eq!(state(&env, "web"), "created");
        assert_eq!(env.coracle(["start", "web"]).ok(), "web");
        assert_eq!(state(&env, "web"), "running");
        assert_eq!(env.coracle(["ps", "--format", "{{.Names}} {{.State}}"]).ok(), "web running");
        let refusal = env.coracle(["rm", "web"]).fails(2);
        assert!(refusal.contains("as it is running"), "{refusal}");
        assert_eq!(env.coracle(["stop", "-t", "0", "web"]).ok(), "web");
        assert_eq!(state(&env, "web"), "exited");
        assert_eq!(env.coracle(["ps", "-q"]).ok(), "");
        assert_eq!(env.coracle(["ps", "-a", "--format", "{{.Names}}"]).ok(), "web");
        assert_eq!(env.coracle(["rm", "web"]).ok(), "web");
        assert_eq!(env.coracle(["ps", "-aq"]).ok(), "");
    }

    fn an_obedient_process_is_asked_first(env: Env) {
        idle(&env, "web");
        assert_eq!(env.coracle(["stop", "web"]).ok(), "web");
        assert_eq!(env.coracle(["inspect", "--format", "{{.State.ExitCode}}", "web"]).ok(), "0");
    }

    fn killed(env: Env) {
        idle(&env, "web");
        assert_eq!(env.coracle(["kill", "web"]).ok(), "web");
        assert_eq!(env.coracle(["wait", "web"]).ok(), "137");
        assert_eq!(env.coracle(["inspect", "--format", "{{.State.ExitCode}}", "web"]).ok(), "137");
    }

    fn restarted(env: Env) {
        idle(&env, "web");
        let pid = env.coracle(["inspect", "--format", "{{.State.Pid}}", "web"]).ok();
        assert_eq!(env.coracle(["restart", "-t", "0", "web"]).ok(), "web");
        assert_ne!(env.coracle(["inspect", "--format", "{{.State.Pid}}", "web"]).ok(), pid);
        assert_eq!(state(&env, "web"), "running");
    }

    fn renamed(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "old", "--network", "none", image]).ok();
        env.coracle(["rename", "old", "new"]).ok();
        assert_eq!(env.coracle(["ps", "-a", "--format", "{{.Names}}"]).ok(), "new");
        let _ = env.coracle(["inspect", "old"]).fails(125);
        let _ = env.coracle(["create", "--name", "old", "--network", "none", image]).ok();
    }

    fn exec_in_it(env: Env) {
        idle(&env, "web");
        assert_eq!(env.coracle(["exec", "web", "echo", "inside"]).ok(), "inside");
        assert_eq!(env.coracle(["exec", "web", "sh", "-c", "exit 6"]).code(), 6);
        assert_eq!(env.coracle(["exec", "-u", "user", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A"]).ok(),
            "1000\n/tmp\nb");
        assert_eq!(env.command(["exec", "-i", "web", "cat"]).stdin("typed").run().ok(), "typed");
        assert!(env.coracle(["exec", "web", "/no/such"]).fails(127).contains("/no/such"));
        let _ = env.coracle(["stop", "-t", "0", "web"]).ok();
        let refusal = env.coracle(["exec", "web", "true"]).fails(125);
        assert!(refusal.contains("can only create exec sessions on running containers"), "{refusal}");
    }

    fn exec_has_what_the_container_has(env: Env) {
        let image = env.busybox();
        let words = ["-dt", "--group-add", "7,8", "--network", "none", image, "sleep", "1000"];
        env.coracle(["run", "--name", "web"].iter().chain(&words)).ok();
        assert_eq!(env.coracle(["exec", "web", "sh", "-c", "echo $TERM"]).ok(), "xterm");
        assert_eq!(env.coracle(["exec", "-e", "TERM=vt100", "web", "sh", "-c", "echo $TERM"]).ok(), "vt100");
        let groups = env.coracle(["exec", "web", "grep", "-h", "^Groups:", "/proc/1/status", "/proc/self/status"]).ok();
        let lines: Vec<&str> = groups.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1] && lines[0].contains("7 8"), "{groups}");
        let of_user = env.coracle(["exec", "-u", "1000:1000", "web", "id", "-G"]).ok();
        assert_eq!(of_user, "1000 7 8");
        assert!(env.coracle(["exec", "-d", "web", "/no/such"]).fails(125).contains("/no/such"));
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
    }

    fn what_was_said_stays_in_the_log(env: Env) {
        let image = env.busybox();
        let script = "for i in 1 2 3; do echo line $i; done; echo wrong >&2";
        env.coracle(["run", "--name", "talk", "--network", "none", image, "sh", "-c", script]).succeeded();
        let output = env.coracle(["logs", "talk"]);
        assert_eq!((output.stdout(), output.stderr()), ("line 1\nline 2\nline 3\n".to_owned(), "wrong\n".to_owned()));
        assert_eq!(env.coracle(["logs", "--tail", "2", "talk"]).stdout(), "line 3\n");
    }

    fn names_of_nothing(env: Env) {
        for words in [&["start", "nobody"][..], &["stop", "nobody"], &["inspect", "nobody"], &["logs", "nobody"],
            &["kill", "nobody"], &["exec", "nobody", "true"], &["wait", "nobody"], &["pause", "nobody"]] {
            let refusal = env.coracle(words).fails(125);
            assert!(refusal.starts_with("coracle: ") && refusal.contains("nobody"), "{words:?}: {refusal}");
        }
        assert!(env.coracle(["rm", "nobody"]).fails(1).contains("nobody"));
        assert_eq!(env.coracle(["rm", "--ignore", "nobody"]).ok(), "");
        let exists = env.coracle(["container", "exists", "nobody"]);
        assert_eq!((exists.code(), exists.stderr()), (1, String::new()));
    }

    fn listed_in_every_form(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "one", "--label", "a=b", "--network", "none", image, "true"]).ok();
        env.coracle(["create", "--name", "two", "--network", "none", image, "true"]).ok();
        let table = env.transcript(["ps", "-a", "--filter", "name=one"]);
        assert_eq!(
            table,
            "CONTAINER ID  IMAGE                     COMMAND     CREATED                 STATUS      PORTS       NAMES\n\
             [ID]  localhost/busybox:latest  true        [AGO]  Created                 one\n"
        );
        assert_eq!(env.coracle(["ps", "-a", "--filter", "label=a=b", "--format", "{{.Names}}"]).ok(), "one");
        assert_eq!(env.coracle(["ps", "-a", "--filter", "status=running", "-q"]).ok(), "");
        assert_eq!(env.coracle(["ps", "-a", "--noheading", "--format", "table {{.Names}}", "--sort", "names"]).ok(), "one\ntwo");
        let json = env.coracle(["ps", "-a", "--format", "json"]).json();
        assert_eq!(json.as_array().map(Vec::len), Some(2));
        let refusal = env.coracle(["ps", "-a", "--format", "{{.Foo}}"]).fails(125);
        assert!(refusal.contains("can't evaluate field Foo"), "{refusal}");
    }

    fn a_start_that_failed_leaves_it_created(env: Env) {
        let image = env.busybox();
        let _ = env.coracle(["run", "--name", "web", "--network", "none", image, "/no/such"]).fails(127);
        assert_eq!(env.coracle(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web"]).ok(), "created 127");
        assert_eq!(env.coracle(["ps", "-a", "--format", "{{.State}} {{.Status}} {{.Exited}}"]).ok(), "created Created false");
        assert_eq!(env.coracle(["ps", "-aq", "--filter", "status=exited"]).ok(), "");
        let _ = env.coracle(["start", "-a", "web"]).fails(127);
        assert!(env.coracle(["start", "web"]).fails(125).contains("/no/such"));
        env.coracle(["rm", "web"]).ok();
    }

    fn chosen_by_filter_among_names(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "one", "--restart", "on-failure", "--network", "none", image, "true"]).ok();
        env.coracle(["create", "--name", "two", "--network", "none", image, "true"]).ok();
        assert_eq!(env.coracle(["start", "--filter", "restart-policy=on-failure", "one", "two"]).ok(), "one");
        assert_eq!(env.coracle(["start", "--filter", "restart-policy=no", "--all"]).ok().len(), 64);
        let refusal = env.coracle(["start", "--filter", "restart-policy=fake", "one"]).fails(125);
        assert_eq!(refusal, "coracle: fake invalid restart policy");
    }

    fn time_is_up(env: Env) {
        let image = env.busybox();
        let run = env.coracle(["run", "--name", "web", "--timeout", "1", "--network", "none", image, "sleep", "1000"]);
        assert_eq!((run.code(), run.stderr()), (255, String::new()));
        assert_eq!(env.coracle(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web"]).ok(), "exited -1");
    }

    fn what_it_says_to_the_service_manager_is_passed_on(env: Env) {
        need!(path("/usr/bin/python3"));
        use std::os::unix::fs::PermissionsExt;
        let socket = env.path("manager.sock");
        let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
        manager.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a time-out");
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).expect("a socket for all");
        let script = "import os, socket; speak = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
            speak.sendto(b'READY=1\\nMAINPID=1\\nSTATUS=fine', os.environ['NOTIFY_SOCKET'])";
        let words = ["run", "--rm", "--network", "none", "host", "/usr/bin/python3", "-c", script];
        env.command(words).env("NOTIFY_SOCKET", &socket).run().ok();
        let heard = || {
            let mut bytes = [0; 1000];
            let length = manager.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let first = heard();
        assert!(first.strip_prefix("MAINPID=").is_some_and(|pid| pid.parse::<u32>().is_ok_and(|pid| pid > 1)), "{first}");
        assert_eq!(heard(), "READY=1\nSTATUS=fine");
    }
}
