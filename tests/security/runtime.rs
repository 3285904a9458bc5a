//! What images, volumes and processes inside have tried before. Each test says what a careless runtime does instead.

use crate::oci::bundle::Bundle;
use crate::support::coracle::{as_root, both};
use serde_json::json;
use std::os::unix::fs::symlink;

both! {
    /// A careless runtime makes the nodes and links where the link leads: on the host.
    fn cve_2026_41579_dev_is_a_link(env) {
        let bundle = Bundle::new(&env).script("true");
        let canary = env.directory("outside");
        std::fs::remove_dir(bundle.rootfs("dev")).unwrap();
        symlink(&canary, bundle.rootfs("dev")).unwrap();
        assert!(bundle.run_fails().contains("/dev"));
        assert_eq!(std::fs::read_dir(canary).unwrap().count(), 0);
    }

    /// A careless runtime follows a link of the root file system with the host's root in view.
    fn cve_2021_30465_mount_through_links(env) {
        let canary = env.directory("outside");
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": "/up/made", "options": []}))
            .script("grep -c ' /outside/made ' /proc/self/mountinfo");
        symlink("../../../../../../outside", bundle.rootfs("up")).unwrap();
        assert_eq!(bundle.run(), "1\n");
        assert_eq!(std::fs::read_dir(canary).unwrap().count(), 0);
    }

    /// A careless runtime mounts a volume where the image's link leads: into procfs, whose files then lie.
    fn cve_2019_16884_volume_inside_procfs(env) {
        let data = env.directory("data");
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "bind", "source": data, "destination": "/innocent", "options": ["bind"]}))
            .script("true");
        symlink("/proc/self/attr", bundle.rootfs("innocent")).unwrap();
        assert!(bundle.run_fails().contains("procfs"));
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "bind", "source": data, "destination": "/proc", "options": ["bind"]}))
            .script("true");
        assert!(bundle.run_fails().contains("only a procfs may be mounted on /proc"));
    }

    /// A careless runtime enters a directory of the host through a descriptor that it left open.
    fn cve_2024_21626_working_directory_in_a_descriptor(env) {
        let bundle = Bundle::new(&env).script("pwd");
        for number in 3..24 {
            let bundle = Bundle::new(&env).script("pwd").set("/process", "cwd", json!(format!("/proc/self/fd/{number}")));
            let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
            assert!(output.code() != 0 || output.stdout().starts_with("/proc/"), "{number}: {output}");
        }
        let bundle = bundle.args(&["sleep", "1000"]);
        let id = bundle.id("b");
        bundle.sleeping(&id);
        for number in 3..24 {
            let output = bundle.oci(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), &id, "pwd"]);
            // One of the container's own root is as good as `/`.
            assert!(output.code() != 0 || output.stdout() == "/\n", "{number}: {output}");
        }
    }

    /// A careless runtime binds what the image calls /dev/null over the path that is to be hidden.
    fn cve_2025_31133_null_device_of_the_image(env) {
        let bundle = Bundle::new(&env).script("wc -c < /proc/keys; stat -c %t:%T /proc/keys");
        let mut bundle = bundle;
        // No /dev of its own: the root file system's is used.
        bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| {
            !mount["destination"].as_str().unwrap().starts_with("/dev")
        });
        symlink("/proc/sys/kernel/core_pattern", bundle.rootfs("dev/null")).unwrap();
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
        assert!(output.code() != 0 || output.stdout() == "0\n1:3\n", "{output}");
    }

    /// A careless runtime takes the digits at the beginning, or asks the container's own passwd.
    fn cve_2026_30892_exec_user_is_a_number(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        for user in ["1000abc", "0x0", "-1", "4294967296", "4294967295", "", "root", "0:", ":0"] {
            let output = bundle.oci(&["exec", &format!("--user={user}"), &id, "id"]);
            assert!(output.code() != 0 && output.stdout().is_empty(), "{user:?}: {output}");
        }
    }

    /// A careless runtime leaves capabilities in the inheritable set, which a file's own then turn into permitted ones.
    fn cve_2022_29162_inheritable_capabilities(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        for words in [&["exec", id.as_str()][..], &["exec", "--cap", "CAP_KILL", id.as_str()]] {
            let output = bundle.oci(&[words, &["grep", "CapInh", "/proc/self/status"]].concat());
            assert_eq!(output.succeeded(), "CapInh:\t0000000000000000");
        }
    }

    /// A careless parser reads `a/../../x` as a name.
    fn ids_do_not_leave_the_directory(env) {
        let bundle = Bundle::new(&env).script("true");
        for id in ["../a", "a/b", ".", "..", "a b", "ä", ""] {
            for words in [&["run", "--bundle", "b", id][..], &["delete", "--force", id], &["state", id]] {
                assert!(bundle.oci(words).stderr().contains("invalid container ID format"), "{id:?}");
            }
        }
    }
}

as_root! {
    /// A careless runtime can be overwritten through /proc/PID/exe by root in the container.
    fn cve_2019_5736_the_binary_is_out_of_reach(env) {
        let bundle = Bundle::new(&env).script("true");
        let id = bundle.id("a");
        // A created container's process is still ours.
        assert_eq!(bundle.detached(&["create", "--bundle", "b", "--pid-file", "pid", &id]).code(), 0);
        let path = format!("/proc/{}/exe", bundle.pid());
        let flags = nix::sys::statvfs::fstatvfs(&std::fs::File::open(path).unwrap()).unwrap().flags();
        assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));

        // And as an interpreter, run by the kernel on behalf of the container.
        let bundle = bundle.args(&["/entry"]);
        let entry = env.write("b/rootfs/entry", "#!/proc/self/exe\n");
        std::fs::set_permissions(&entry, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let before = std::fs::read(crate::support::coracle::binary()).unwrap();
        let _ = bundle.oci(&["run", "--bundle", "b", &bundle.id("b")]);
        assert!(std::fs::read(crate::support::coracle::binary()).unwrap() == before);
    }

    /// A careless runtime is traced by root of a pid namespace that it joins, who then has its descriptors.
    fn cve_2016_9962_who_joins_is_not_traced(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        // In the pid namespace of all: the created process can be looked at from a container that shares it.
        assert_eq!(bundle.detached(&["create", "--bundle", "b", "--pid-file", "pid", &id]).code(), 0);
        let path = format!("/proc/{}/fd", bundle.pid());
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap());
        assert_eq!(owner, 0);
        let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
        assert!(status.contains("CapEff:\t0000000020000420"), "{status}");
    }
}
