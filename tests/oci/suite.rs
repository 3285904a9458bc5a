//! What the suites of runc and crun assert of a runtime, and nothing else here does.

use super::bundle::Bundle;
use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use serde_json::json;

both! {
    /// runc, capabilities.bats; the specification: "MUST be logged as a warning", not an error.
    fn what_nobody_can_grant_is_a_warning(env) {
        let bundle = Bundle::new(&env).args(&["grep", "CapAmb", "/proc/self/status"])
            .set("/process/capabilities", "bounding", json!(["CAP_KILL", "CAP_FLY"]))
            .set("/process/capabilities", "permitted", json!(["CAP_KILL"]))
            .set("/process/capabilities", "effective", json!(["CAP_KILL"]))
            .set("/process/capabilities", "inheritable", json!(["CAP_KILL"]))
            .set("/process/capabilities", "ambient", json!(["CAP_KILL", "CAP_CHOWN"]));
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("run")]);
        assert_eq!(output.succeeded(), "CapAmb:\t0000000000000020");
        assert!(output.stderr().contains("ignoring unknown or unavailable capabilities: [CAP_FLY]"), "{output}");
        assert!(output.stderr().contains("can't raise ambient capability CAP_CHOWN: "), "{output}");
    }

    /// runc, create.bats: of its creator and of the creator's caller a process that waits keeps nothing.
    fn a_created_process_keeps_nothing_open(env) {
        // It hides itself from its own user.
        need!(root);
        let bundle = Bundle::new(&env).script("true");
        let id = bundle.id("a");
        bundle.write();
        let line = bundle.line(&["create", "--bundle", "b", "--pid-file", "pid", &id]);
        env.other(["sh", "-c", &format!("exec 8</etc/passwd; {line} </dev/null >stdout 2>stderr")]).run().succeeded();
        let listed = std::fs::read_dir(format!("/proc/{}/fd", bundle.pid())).unwrap();
        for entry in listed.flatten() {
            let name: u32 = entry.file_name().to_string_lossy().parse().unwrap();
            let target = std::fs::read_link(entry.path()).unwrap();
            let is_own = ["socket:", "anon_inode:[signalfd]"].iter().any(|own| target.to_string_lossy().starts_with(own));
            assert!(name < 3 || is_own, "{name} is {}", target.display());
        }
        bundle.ok(&["start", &id]);
    }

    /// runc, pidfd-socket.bats: the first process of a pid namespace hears what it handles, and no more.
    fn a_created_container_ends_at_a_signal(env) {
        let bundle = Bundle::new(&env).script("true");
        let id = bundle.id("a");
        assert_eq!(bundle.detached(&["create", "--bundle", "b", &id]).code(), 0);
        bundle.ok(&["kill", &id, "TERM"]);
        crate::support::until("its end", || (bundle.status(&id) == "stopped").then_some(()));
        bundle.ok(&["delete", &id]);
    }

    /// runc, env.bats and tty.bats.
    fn a_process_document_may_leave_the_user_out(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        env.write("process.json", json!({"args": ["sh", "-c", "id -u; echo $HOME"], "cwd": "/", "env": ["PATH=/bin"]}).to_string());
        assert_eq!(bundle.ok(&["exec", "--process", "process.json", &id]), "0\n/root\n");
    }

    /// runc, mounts.bats.
    fn a_tmpfs_without_a_mode_has_that_of_its_directory(env) {
        let tmpfs = |target: &str, options: &[&str]| json!({"type": "tmpfs", "source": "tmpfs", "destination": target, "options": options});
        let bundle = Bundle::new(&env)
            .mount(tmpfs("/kept", &[])).mount(tmpfs("/named", &["mode=700"])).mount(tmpfs("/new", &[]))
            .script("stat -c %a /kept /named /new");
        let kept = env.directory("b/rootfs/kept");
        std::fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o710)).unwrap();
        assert_eq!(bundle.run(), "710\n700\n1777\n");
    }

    /// runc, mounts.bats and mask.bats.
    fn a_read_only_dev_is_closed_last_and_a_path_is_masked_once(env) {
        let mut bundle = Bundle::new(&env)
            .script("touch /dev/new 2>/dev/null || echo closed; ls /dev/pts/ptmx /dev/null; grep -c ' /hidden ' /proc/self/mountinfo")
            .set("/linux", "maskedPaths", json!(["/hidden", "/hidden"]));
        env.directory("b/rootfs/hidden");
        for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push(json!("ro"));
            }
        }
        assert_eq!(bundle.run(), "closed\n/dev/null\n/dev/pts/ptmx\n1\n");
    }

    /// runc, debug.bats and help.bats; crun, test_start.py.
    fn help_and_debugging_are_where_programs_look_for_them(env) {
        let bundle = Bundle::new(&env).script("true");
        let said = bundle.ok(&["delete", "--help"]);
        assert!(said.starts_with("NAME:\n   coracle oci delete - ") && said.contains("Usage: coracle oci [OPTION...] delete CONTAINER"), "{said}");
        let refused = bundle.oci(&["checkpoint", "a"]);
        assert!(refused.code() == 1 && refused.stderr().contains("CRIU"), "{refused}");
        let output = env.bare(["oci", "--debug", "--root", bundle.root().to_str().unwrap(), "run", "--bundle", "b", &bundle.id("a")]);
        bundle.write();
        assert!(output.run().stderr().contains("level=debug msg=\"child: "));
    }

    /// runc, timens.bats.
    fn time_offsets_beside_a_user_namespace(env) {
        need!(path("/proc/self/ns/time"));
        let mut bundle = Bundle::new(&env).args(&["cat", "/proc/self/timens_offsets"])
            .set("/linux", "timeOffsets", json!({"monotonic": {"secs": 7881, "nanosecs": 2718281}}));
        let kinds = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        kinds.push(json!({"type": "time"}));
        if env.is_root() {
            kinds.push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
            bundle.spec["linux"]["uidMappings"] = map.clone();
            bundle.spec["linux"]["gidMappings"] = map;
        }
        let said = bundle.run();
        assert!(said.split_whitespace().eq(["monotonic", "7881", "2718281", "boottime", "0", "0"]), "{said}");
    }

    /// runc, pidfd-socket.bats.
    fn a_pidfd_is_sent_to_the_socket(env) {
        need!(program("python3"));
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let listener = "import socket,signal,os\ns=socket.socket(socket.AF_UNIX)\ns.bind('sock')\ns.listen(1)\nprint('ready',flush=True)\n\
            c,_=s.accept()\n_,fds,_,_=socket.recv_fds(c,64,1)\ninput()\nsignal.pidfd_send_signal(fds[0],signal.SIGKILL)\nprint('sent')\n";
        let mut listening = env.other(["python3", "-c", listener]).stdin_open().spawn();
        listening.until_stdout("ready");
        let id = bundle.id("a");
        let output = bundle.detached(&["run", "--detach", "--bundle", "b", "--pidfd-socket", "sock", &id]);
        assert_eq!(output.code(), 0, "{output}{}", bundle.read("stderr"));
        listening.write("\n");
        assert!(listening.wait().succeeded().contains("sent"));
        crate::support::until("its end", || (bundle.status(&id) == "stopped").then_some(()));
    }
}

as_root! {
    /// runc, cgroups.bats: whoever is in the group would share the container's limits, and its end.
    fn a_cgroup_that_others_use_is_refused(env) {
        need!(cgroups);
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let path = format!("/coracle/{}", bundle.id("shared"));
        let bundle = bundle.set("/linux", "cgroupsPath", json!(path));
        let (a, b) = (bundle.id("a"), bundle.id("b"));
        bundle.sleeping(&a);
        let output = bundle.oci(&["create", "--bundle", "b", &b]);
        assert!(output.stderr().contains("container's cgroup is not empty: 1 process(es) found"), "{output}");
        assert_eq!(bundle.status(&a), "running");
        bundle.ok(&["pause", &a]);
        let output = bundle.oci(&["create", "--bundle", "b", &b]);
        assert!(output.stderr().contains("container's cgroup unexpectedly frozen"), "{output}");
        assert_eq!(bundle.status(&a), "paused");
    }

    /// runc, cpu_affinity.bats: who calls the runtime may be bound to one processor.
    fn every_processor_is_allowed(env) {
        need!(program("taskset"));
        let bundle = Bundle::new(&env).args(&["grep", "Cpus_allowed_list", "/proc/self/status"]);
        let free = bundle.run();
        bundle.write();
        let line = bundle.line(&["run", "--bundle", "b", &bundle.id("bound")]);
        let bound = env.other(["sh", "-c", &format!("taskset -c 0 {line}")]).run();
        assert_eq!(bound.succeeded(), free.trim_end());
    }

    /// runc, kill.bats: without a pid namespace of its own the first process leaves the others behind.
    fn kill_reaches_those_who_outlive_the_first_process(env) {
        need!(cgroups);
        let mut bundle = Bundle::new(&env).script("sleep 1000 & sleep 1000; true");
        bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        let id = bundle.id("a");
        bundle.sleeping(&id);
        let pids = |bundle: &Bundle<'_>| bundle.oci(&["ps", "--format", "json", &id]).json().as_array().unwrap().len();
        crate::support::until("both", || (pids(&bundle) == 3).then_some(()));
        env.other(["kill", "-9", &bundle.pid()]).run().succeeded();
        crate::support::until("its end", || (bundle.status(&id) == "stopped").then_some(()));
        bundle.ok(&["kill", &id, "KILL"]);
        crate::support::until("their end", || (pids(&bundle) == 0).then_some(()));
    }
}

crate::support::coracle::as_user! {
    /// Nodes are the host's own, and only those of the number that is asked for.
    fn devices_that_the_host_has_not(env) {
        let device = |path: &str, minor: u32| json!([{"path": path, "type": "c", "major": 1, "minor": minor}]);
        let bundle = Bundle::new(&env).script("stat -c %t:%T /dev/full").set("/linux", "devices", device("/dev/full", 7));
        assert_eq!(bundle.run(), "1:7\n");
        for (path, minor) in [("/dev/nosuch", 5), ("/dev/full", 222)] {
            let bundle = Bundle::new(&env).script("true").set("/linux", "devices", device(path, minor));
            let said = bundle.run_fails();
            assert!(said.contains(&format!("the host has no {path} of number 1:{minor}")), "{said}");
        }
    }
}

both! {
    /// runc, create.bats: `exec` before `start`.
    fn exec_in_a_created_container(env) {
        let bundle = Bundle::new(&env).script("true");
        let id = bundle.id("a");
        assert_eq!(bundle.detached(&["create", "--bundle", "b", &id]).code(), 0);
        assert_eq!(bundle.ok(&["exec", &id, "echo", "early"]), "early\n");
        bundle.ok(&["start", &id]);
        crate::support::until("its end", || (bundle.status(&id) == "stopped").then_some(()));
        // runc, kill.bats: all of nobody.
        bundle.ok(&["kill", "--all", &id, "0"]);
        bundle.ok(&["delete", &id]);
    }

    /// runc, run.bats: sysctls of the uts namespace are not an ordinary user's to write.
    fn the_domain_name(env) {
        let bundle = Bundle::new(&env).args(&["cat", "/proc/sys/kernel/domainname"]).set("", "domainname", json!("example.org"));
        assert_eq!(bundle.run(), "example.org\n");
    }

    /// runc, mounts.bats: a destination that begins with the root's own path.
    fn destinations_with_the_roots_path(env) {
        let inside = env.path("b/rootfs/inside").display().to_string();
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": inside, "options": []}))
            .script("grep -c ' /inside ' /proc/self/mountinfo");
        assert_eq!(bundle.run(), "1\n");
    }
}

as_root! {
    /// runc, userns.bats: a pid namespace of one's own in a user namespace of another's.
    fn a_user_namespace_is_joined(env) {
        let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
        let owner = Bundle::new(&env).args(&["sleep", "1000"])
            .set("/linux", "uidMappings", map.clone()).set("/linux", "gidMappings", map);
        let mut owner = owner;
        owner.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        std::fs::set_permissions(env.base(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let target = owner.id("owner");
        owner.sleeping(&target);
        let pid = owner.pid();
        owner.spec["linux"].as_object_mut().unwrap().retain(|name, _| !name.ends_with("Mappings"));
        for namespace in owner.spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "user" {
                namespace["path"] = json!(format!("/proc/{pid}/ns/user"));
            }
        }
        let joined = owner.script("echo $$; cat /proc/self/uid_map");
        let said = joined.run();
        assert!(said.split_whitespace().eq(["1", "0", "100000", "65536"]), "{said}");
    }

    /// runc, update.bats: a parent that somebody made without a thought of its processors.
    fn an_empty_cpuset_above(env) {
        need!(path("/sys/fs/cgroup/cpuset/cpuset.cpus"));
        let bundle = Bundle::new(&env).script("true");
        let parent = format!("/sys/fs/cgroup/cpuset/{}", bundle.id("above"));
        std::fs::create_dir(&parent).unwrap();
        let above = bundle.id("above");
        let bundle = bundle.set("/linux", "cgroupsPath", json!(format!("/{above}/child")));
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("run")]);
        // The same path was made in the other trees.
        for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let _ = std::fs::remove_dir(tree.path().join(&above));
        }
        assert_eq!(output.code(), 0, "{output}");
    }
}
