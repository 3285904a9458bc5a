//! create, start, state, kill, delete and their kin: what each leaves for the next.

use super::bundle::Bundle;
use crate::support::coracle::both;
use crate::support::until;
use serde_json::json;

both! {
    fn run_prints_and_gives_the_exit_code(env) {
        let bundle = Bundle::new(&env).script("echo out; echo err >&2; exit 7");
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
        assert_eq!((output.code(), output.stdout().as_str(), output.stderr().as_str()), (7, "out\n", "err\n"));
        assert!(!bundle.root().join(bundle.id("a")).exists());
    }

    fn a_signal_is_128_and_more(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        // The first process of a pid namespace cannot kill itself; a second one can.
        let output = bundle.oci(&["exec", &id, "sh", "-c", "kill -TERM $$"]);
        assert_eq!(output.code(), 143, "{output}");
    }

    fn each_step_of_a_life_has_its_status(env) {
        let bundle = Bundle::new(&env).script("echo started; exec sleep 1000");
        let id = bundle.id("a");
        let created = bundle.detached(&["create", "--bundle", "b", "--pid-file", "pid", &id]);
        assert_eq!(created.code(), 0, "{}", bundle.read("stderr"));
        let state = bundle.oci(&["state", &id]).json();
        assert_eq!((&state["status"], &state["id"]), (&json!("created"), &json!(id)));
        assert_eq!(state["pid"].to_string(), bundle.pid());
        assert_eq!(bundle.read("stdout"), "");

        bundle.ok(&["start", &id]);
        assert_eq!(bundle.status(&id), "running");
        until("the command's output", || (bundle.read("stdout") == "started\n").then_some(()));
        assert!(bundle.oci(&["start", &id]).stderr().contains("already running"));
        let deleted = bundle.oci(&["delete", &id]);
        assert!(deleted.code() == 1 && deleted.stderr().contains("not stopped: running"), "{deleted}");

        bundle.ok(&["kill", &id, "KILL"]);
        until("the end", || (bundle.status(&id) == "stopped").then_some(()));
        assert_eq!(bundle.oci(&["state", &id]).json()["pid"], json!(0));
        assert!(bundle.oci(&["kill", &id, "TERM"]).stderr().contains("container not running"));
        bundle.ok(&["delete", &id]);
        assert!(bundle.oci(&["state", &id]).stderr().contains("does not exist"));
        assert!(!bundle.root().join(&id).exists());
    }

    fn options_may_stand_before_and_after_the_id(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        let output = bundle.detached(&["create", &id, "--bundle", "b", "--pid-file", "pid"]);
        assert_eq!(output.code(), 0, "{}", bundle.read("stderr"));
        bundle.ok(&["delete", &id, "--force"]);
        assert_eq!(bundle.status(&id), "");
    }

    fn an_id_is_taken_once(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        let second = bundle.oci(&["run", "--bundle", "b", &id]);
        assert!(second.code() != 0 && second.stderr().contains("exists already"), "{second}");
        assert_eq!(bundle.status(&id), "running");
        bundle.ok(&["delete", "--force", &id]);
        bundle.ok(&["delete", "--force", &id]);
        assert!(bundle.oci(&["delete", &id]).code() != 0);
    }

    fn list_shows_all_in_three_forms(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        // A directory that is named and is not there is a mistake.
        assert!(bundle.oci(&["list"]).stderr().contains("No such file or directory"));
        env.other(["mkdir", "-p", bundle.root().to_str().unwrap()]).run().succeeded();
        assert!(bundle.ok(&["list"]).starts_with("ID "));
        assert_eq!(bundle.oci(&["list", "--format", "json"]).json(), json!([]));
        let id = bundle.id("a");
        bundle.sleeping(&id);
        assert_eq!(bundle.ok(&["list", "-q"]), format!("{id}\n"));
        let list = bundle.oci(&["list", "-f", "json"]).json();
        assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(id), &json!("running")));
        assert!(bundle.ok(&["list"]).lines().any(|line| line.starts_with(&id) && line.contains("running")));
    }

    fn a_command_that_is_not_there_fails_at_create(env) {
        let bundle = Bundle::new(&env).args(&["nosuch"]);
        assert_eq!(bundle.run_fails(), "exec: \"nosuch\": executable file not found in $PATH\n");
        let bundle = bundle.args(&["/nosuch"]);
        assert_eq!(bundle.run_fails(), "exec: \"/nosuch\": stat /nosuch: no such file or directory\n");
        let bundle = bundle.args(&["/etc"]);
        assert_eq!(bundle.run_fails(), "exec: \"/etc\": permission denied\n");
    }

    fn what_execve_refuses_is_told_by_start(env) {
        let bundle = Bundle::new(&env).args(&["/bad"]);
        let path = env.write("b/rootfs/bad", "#!/no/such/interpreter\n");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let id = bundle.id("a");
        assert_eq!(bundle.detached(&["create", "--bundle", "b", &id]).code(), 0, "{}", bundle.read("stderr"));
        let output = bundle.oci(&["start", &id]);
        assert!(output.code() != 0 && output.stderr().contains("no such file or directory"), "{output}");
        until("the end", || (bundle.status(&id) == "stopped").then_some(()));
    }

    fn errors_go_to_the_log_as_shims_read_them(env) {
        let bundle = Bundle::new(&env).args(&["nosuch"]);
        let output = bundle.oci(&["--log", "log.json", "--log-format", "json", "run", "--bundle", "b", &bundle.id("a")]);
        assert_eq!(output.code(), 1);
        let log = bundle.read("log.json");
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], json!("error"));
        assert_eq!(line["msg"], json!("exec: \"nosuch\": executable file not found in $PATH"));
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    fn hooks_run_in_order_with_the_state_on_stdin(env) {
        let log = env.write("hooks", "");
        let hook = |stage: &str| json!([{
            "path": "/bin/sh",
            "args": ["sh", "-c", format!("read -r state; echo {stage} \"$state\" >> {}", log.display())],
            "env": ["PATH=/usr/bin:/bin"],
        }]);
        let bundle = Bundle::new(&env).script("true").set("", "hooks", json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "poststart": hook("poststart"), "poststop": hook("poststop"),
        }));
        bundle.run();
        let said = bundle.read("hooks");
        let stages: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(stages, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"], "{said}");
        let states: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()).collect();
        let status = |index: usize| states[index]["status"].as_str().unwrap_or_default().to_owned();
        assert_eq!([status(0), status(3), status(4)], ["creating", "running", "stopped"]);
        assert!(states.iter().all(|state| state["id"] == json!(bundle.id("run"))), "{said}");
    }

    fn a_hook_that_fails_leaves_nothing_behind(env) {
        for stage in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            let bundle = Bundle::new(&env).script("exec sleep 1000").set("", "hooks", json!({
                stage: [{"path": if stage == "startContainer" { "/bin/grep" } else { "/bin/false" }}],
            }));
            let said = bundle.run_fails();
            assert!(said.contains(&format!("error running {stage} hook #0: ")), "{stage}: {said}");
        }
    }

    fn a_half_made_container_can_always_be_removed(env) {
        let bundle = Bundle::new(&env);
        let id = bundle.id("a");
        env.other(["mkdir", "-p", bundle.root().to_str().unwrap()]).run().succeeded();
        let directory = bundle.root().join(&id);
        std::fs::create_dir_all(&directory).unwrap();
        let (uid, gid) = env.ids();
        for path in [bundle.root(), directory.clone()] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
        assert!(bundle.oci(&["state", &id]).stderr().contains("does not exist"));
        bundle.ok(&["delete", &id]);
        assert!(!directory.exists());
    }

    fn a_state_of_a_newer_version_is_refused(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        let path = bundle.root().join(&id).join("state.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"version\":1", "\"version\":99")).unwrap();
        let output = bundle.oci(&["state", &id]);
        assert!(output.code() != 0 && output.stderr().contains("newer version, 99"), "{output}");
        std::fs::write(&path, text).unwrap();
    }
}
