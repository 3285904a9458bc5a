//! A container's life from `create` to `rm`, as `ps` and `inspect` tell it.

use crate::support::coracle::both;
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
}
