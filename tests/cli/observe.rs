//! `run`, `ps`, `inspect` and the other verbs that look at containers.

use crate::support::coracle::{as_root, both};
use crate::support::{Env, until};
use serde_json::{Value, json};

/// A container of busybox that waits to be stopped.
fn sleeper(env: &Env, name: &str, more: &[&str]) -> String {
    let image = env.busybox();
    let mut words = vec!["run", "-d", "--name", name, "--network", "none", "--stop-timeout", "0"];
    words.extend(more);
    words.extend([image, "sleep", "1000"]);
    env.coracle(words).ok()
}

/// The one document of `inspect`.
fn inspect(env: &Env, name: &str) -> Value {
    env.coracle(["inspect", name]).json()[0].take()
}

both! {
    fn exit_codes(env: Env) {
        let image = env.busybox();
        let run = |words: &[&str]| {
            let base = ["run", "--rm", "--network", "none", image];
            env.coracle(base.iter().chain(words))
        };
        assert_eq!(run(&["sh", "-c", "echo out; echo err >&2; exit 7"]).code(), 7);
        assert!(run(&["nosuch"]).fails(127).contains("executable file not found"));
        assert!(run(&["/etc"]).fails(126).contains("/etc"));
        // A first process is deaf to signals of its own; with an init before it, it is not the first.
        assert_eq!(env.coracle(["run", "--rm", "--init", "--network", "none", image, "sh", "-c", "kill -9 $$"]).code(), 137);
        assert!(env.coracle(["run", "--rm", "--bogus", image, "true"]).fails(125).contains("unknown flag: --bogus"));
        assert!(env.coracle(["run", "-h"]).fails(125).contains("flag needs an argument"));
        // A container that never ran goes with --rm, too.
        assert_eq!(env.coracle(["ps", "-aq"]).ok(), "");
    }

    fn output_and_input(env: Env) {
        let image = env.busybox();
        let output = env.coracle(["run", "--rm", "--network", "none", image, "sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((output.stdout().as_str(), output.stderr().as_str()), ("out\n", "err\n"));
        let cat = env.command(["run", "--rm", "-i", "--network", "none", image, "cat"]).stdin("typed\n").run();
        assert_eq!(cat.ok(), "typed");
        let only = env.coracle(["run", "--rm", "-a", "stdout", "--network", "none", image, "sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((only.stdout().as_str(), only.stderr().as_str()), ("out\n", ""));
    }

    fn what_the_process_sees(env: Env) {
        let image = env.busybox();
        let script = "echo $A; pwd; id -u; id -g; umask; hostname; echo $0 $1";
        let output = env.coracle([
            "run", "--rm", "--network", "none", "-e", "A=b", "-w", "/tmp", "-u", "5:6", "--umask", "0027",
            "-h", "inside", "--entrypoint", "[\"sh\",\"-c\"]", image, script, "zero", "one",
        ]);
        assert_eq!(output.ok(), "b\n/tmp\n5\n6\n0027\ninside\nzero one");
    }

    fn mounts_and_files(env: Env) {
        let image = env.busybox();
        let file = env.write("shared/file", "from the host\n");
        let shared = file.parent().unwrap().display().to_string();
        let volume = format!("{shared}:/mnt:ro");
        let script = "cat /mnt/file; touch /mnt/x 2>/dev/null || echo read-only; stat -f -c %T /scratch; echo v > /data/v";
        let output = env.coracle([
            "run", "--rm", "--network", "none", "-v", &volume, "--tmpfs", "/scratch", "-v", "data:/data", image, "sh", "-c", script,
        ]);
        assert_eq!(output.ok(), "from the host\nread-only\ntmpfs");
        let again = env.coracle(["run", "--rm", "--network", "none", "-v", "data:/d", image, "cat", "/d/v"]);
        assert_eq!(again.ok(), "v");
        assert!(env.coracle(["run", "--rm", "--network", "none", "-v", "/no/such/place:/x", image, "true"])
            .fails(125).contains("/no/such/place"));
    }

    fn cidfile(env: Env) {
        let image = env.busybox();
        let file = env.path("cid").display().to_string();
        let id = env.coracle(["create", "--cidfile", &file, image, "true"]).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
        // It is written over, and goes with the container.
        let second = env.coracle(["create", "--cidfile", &file, image, "true"]).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), second);
        env.coracle(["rm", &second]).ok();
        assert!(!std::path::Path::new(&file).exists());
        env.coracle(["rm", &id]).ok();
    }

    fn listed(env: Env) {
        let image = env.busybox();
        let id = sleeper(&env, "runs", &["-l", "team=one"]);
        env.coracle(["create", "--name", "made", "-p", "8080:80", image, "echo", "a", "long", "command", "line"]).ok();
        assert_eq!(env.coracle(["ps", "-q", "--no-trunc"]).ok(), id);
        assert_eq!(
            env.coracle(["ps", "-a", "--sort", "names", "--format", "{{.Names}} {{.State}} {{.Ports}} {{.Command}}"]).ok(),
            "made created 0.0.0.0:8080->80/tcp echo a long comma...\nruns running  sleep 1000"
        );
        let names = |words: &[&str]| {
            let base = ["ps", "-a", "--format", "{{.Names}}"];
            env.coracle(base.iter().chain(words)).ok()
        };
        assert_eq!(names(&["--filter", "label=team"]), "runs");
        assert_eq!(names(&["--filter", "status=created"]), "made");
        assert_eq!(names(&["--filter", "name=^ma", "--filter", "status=running"]), "");
        assert_eq!(names(&["--filter", &format!("id={}", &id[..6])]), "runs");
        assert_eq!(names(&["-n", "1"]), "made");
        assert_eq!(names(&["--filter", "before=made"]), "runs");
        assert!(env.coracle(["ps", "--filter", "x=y"]).fails(125).contains("x is an invalid filter"));
        assert!(env.coracle(["ps", "--filter", "status=bogus"]).fails(125).contains("bogus"));
        assert!(env.coracle(["ps", "-q", "--size"]).fails(125).contains("quiet conflicts"));
        assert_eq!(env.coracle(["ps", "--format", "{{.Label \"team\"}}{{.Label \"none\"}}"]).ok(), "one");
        let json = env.coracle(["ps", "--format", "json"]).json();
        assert_eq!(json[0]["Names"], json!(["runs"]));
        assert_eq!(json[0]["Labels"], json!({"team": "one"}));
        assert!(json[0]["Pid"].as_i64().unwrap() > 0);
        env.coracle(["rm", "-f", "runs", "made"]).ok();
    }

    fn documents(env: Env) {
        let image = env.busybox();
        env.coracle([
            "create", "--name", "c", "-e", "A=b", "-v", "data:/data", "--restart", "on-failure:3", "--cap-add", "net_admin",
            "--network", "none", "--stop-signal", "INT", "-l", "a=b", image, "echo", "x",
        ]).ok();
        let document = inspect(&env, "c");
        assert_eq!(document["Name"], "c");
        assert_eq!(document["State"]["Status"], "created");
        assert_eq!(document["Config"]["Cmd"], json!(["echo", "x"]));
        assert_eq!(document["Config"]["StopSignal"], "SIGINT");
        assert_eq!(document["HostConfig"]["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 3}));
        assert_eq!(document["HostConfig"]["NetworkMode"], "none");
        assert_eq!(document["Mounts"][0]["Name"], "data");
        assert_eq!(document["Mounts"][0]["Destination"], "/data");
        assert!(document["EffectiveCaps"].as_array().unwrap().contains(&json!("CAP_NET_ADMIN")));
        let template = "{{.Config.Labels.a}} {{range .Config.Env}}{{println .}}{{end}}";
        assert!(env.coracle(["inspect", "--format", template, "c"]).ok().starts_with("b "));
        assert_eq!(env.coracle(["inspect", "--type", "volume", "-f", "{{.Name}}", "data"]).ok(), "data");
        assert_eq!(env.coracle(["inspect", "-f", "{{.Id}}", image]).ok().len(), 64);
        let missing = env.coracle(["inspect", "c", "nope"]);
        assert!(missing.fails(125).contains("no such object: \"nope\""));
        assert_eq!(serde_json::from_str::<Value>(&missing.stdout()).unwrap().as_array().unwrap().len(), 1);
        assert!(env.coracle(["container", "inspect", "nope"]).fails(125).contains("no such container"));
        assert!(env.coracle(["inspect", "--type", "bogus", "c"]).fails(125).contains("invalid type"));
        env.coracle(["rm", "-v", "c"]).ok();
    }

    fn renamed(env: Env) {
        let image = env.busybox();
        let id = env.coracle(["create", "--name", "one", image, "true"]).ok();
        env.coracle(["create", "--name", "two", image, "true"]).ok();
        assert!(env.coracle(["rename", "one", "two"]).fails(125).contains("name \"two\" is in use"));
        env.coracle(["rename", "one", "three"]).ok();
        assert_eq!(env.coracle(["inspect", "-f", "{{.Id}} {{.Name}}", "three"]).ok(), format!("{id} three"));
        assert_eq!(env.coracle(["container", "exists", "one"]).code(), 1);
        // The old name is free.
        env.coracle(["create", "--name", "one", image, "true"]).ok();
        assert!(env.coracle(["rename", "three", "a/b"]).fails(125).contains("names must match"));
        env.coracle(["rm", "one", "two", "three"]).ok();
    }

    fn pruned(env: Env) {
        let image = env.busybox();
        let runs = sleeper(&env, "runs", &[]);
        let made = env.coracle(["create", "-l", "keep", image, "true"]).ok();
        let other = env.coracle(["create", image, "true"]).ok();
        assert_eq!(env.coracle(["container", "prune", "-f", "--filter", "label!=keep"]).ok(), other);
        assert_eq!(env.command(["container", "prune"]).stdin("y\n").run().stdout().trim(), made);
        assert_eq!(env.coracle(["ps", "-aq", "--no-trunc"]).ok(), runs);
        env.coracle(["rm", "-f", "runs"]).ok();
    }

    fn processes(env: Env) {
        sleeper(&env, "c", &[]);
        let top = env.coracle(["top", "c", "user", "pid", "ppid", "args"]).ok();
        let lines: Vec<Vec<&str>> = top.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["USER", "PID", "PPID", "COMMAND"], vec!["root", "1", "0", "sleep", "1000"]]);
        assert!(env.coracle(["top", "c", "-eo", "pid,comm"]).ok().contains("sleep"));
        assert!(env.coracle(["top", "c", "nosuch"]).fails(125).contains("unknown descriptor"));
        let _ = env.coracle(["stop", "-t", "0", "c"]).succeeded();
        assert!(env.coracle(["top", "c"]).fails(125).contains("running containers"));
        env.coracle(["rm", "c"]).ok();
    }

    fn events_of_a_life(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "--rm", "--name", "c", "-l", "a=b", "--network", "none", image, "sh", "-c", "exit 3"]).fails(3);
        let statuses = env.coracle(["events", "--stream=false", "--filter", "container=c", "--format", "{{.Status}}"]).ok();
        assert_eq!(statuses, "create\nstart\ndied\nremove");
        let died = env.coracle(["events", "--stream=false", "--filter", "event=die", "--format", "json"]).json();
        assert_eq!((&died["ContainerExitCode"], &died["Name"], &died["Attributes"]["a"]), (&json!(3), &json!("c"), &json!("b")));
        assert!(env.coracle(["events", "--stream=false", "--filter", "bogus=1"]).fails(125).contains("bogus"));
    }

    fn events_as_they_happen(env: Env) {
        let image = env.busybox();
        let id = env.coracle(["create", "--name", "c", image, "true"]).ok();
        let events = env.command(["events", "--since", "1m", "--filter", "container=c", "--format", "{{.Status}} {{.ID}}"]).spawn();
        // Once the past is told, it watches.
        events.until_stdout(&format!("create {id}"));
        env.coracle(["rename", "c", "d"]).ok();
        env.coracle(["rename", "d", "c"]).ok();
        events.until_stdout(&format!("rename {id}"));
        events.signal(nix::sys::signal::Signal::SIGTERM);
        let _ = events.wait();
        env.coracle(["rm", "c"]).ok();
    }

    fn of_the_machine(env: Env) {
        let info = env.coracle(["info", "--format", "json"]).json();
        assert_eq!(info["store"]["graphDriverName"], "overlay");
        assert_eq!(info["host"]["security"]["rootless"], json!(!env.is_root()));
        assert_eq!(env.coracle(["info", "-f", "{{.Host.OCIRuntime.Name}}"]).ok(), "coracle");
        assert!(env.coracle(["info"]).ok().starts_with("host:\n  arch: "));
        let version = env.coracle(["version", "-f", "{{.Client.Version}} {{.Server.Version}}"]).ok();
        assert_eq!(version, format!("{0} {0}", env!("CARGO_PKG_VERSION")));
    }

    fn ports(env: Env) {
        let image = env.busybox();
        env.coracle(["create", "--name", "c", "-p", "8080:80", "-p", "127.0.0.1:5300:53/udp", image, "true"]).ok();
        assert_eq!(env.coracle(["port", "c"]).ok(), "80/tcp -> 0.0.0.0:8080\n53/udp -> 127.0.0.1:5300");
        assert!(env.coracle(["port", "c", "80"]).fails(125).contains("not running"));
        assert!(env.coracle(["port", "nope"]).fails(125).contains("no such container"));
        env.coracle(["rm", "c"]).ok();
    }
}

as_root! {
    fn limits_are_set_and_updated(env: Env) {
        crate::support::need::need!(cgroups);
        sleeper(&env, "c", &["-m", "64m", "--pids-limit", "50"]);
        let stats = env.coracle(["stats", "--no-stream", "--format", "json"]).json();
        assert_eq!(stats[0]["name"], "c");
        assert!(stats[0]["mem_usage"].as_str().unwrap().ends_with("/ 67.1MB"), "{stats}");
        env.coracle(["update", "-m", "32m", "--restart", "on-failure:2", "c"]).ok();
        let document = inspect(&env, "c");
        assert_eq!(document["HostConfig"]["Memory"], json!(32 << 20));
        assert_eq!(document["HostConfig"]["PidsLimit"], json!(50));
        assert_eq!(document["HostConfig"]["RestartPolicy"]["Name"], "on-failure");
        let usage = env.coracle(["stats", "--no-stream", "--format", "{{.MemUsage}}", "c"]).ok();
        assert!(usage.ends_with("/ 33.6MB"), "{usage}");
        assert!(env.coracle(["update", "--cpus", "1", "--cpu-quota", "5", "c"]).fails(125).contains("cannot be set together"));
        env.coracle(["rm", "-f", "c"]).ok();
    }

    fn a_new_policy_holds_for_the_life_that_runs(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "c", "--network", "none", "-v", "gate:/gate", image,
            "sh", "-c", "while [ ! -e /gate/open ]; do sleep 0.1; done; rm /gate/open; exit 1"]).ok();
        env.coracle(["update", "--restart", "on-failure:1", "c"]).ok();
        env.coracle(["run", "--rm", "--network", "none", "-v", "gate:/gate", image, "touch", "/gate/open"]).ok();
        until("the restart", || {
            let document = inspect(&env, "c");
            (document["RestartCount"] == json!(1) && document["State"]["Status"] == "running").then_some(())
        });
        env.coracle(["rm", "-f", "-t", "0", "c"]).ok();
    }
}
