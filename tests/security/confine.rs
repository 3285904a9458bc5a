//! What a process in a container may see and touch, and what a root file system may make of its start.

use crate::oci::bundle::Bundle;
use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use crate::support::pty::Terminal;
use serde_json::json;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

both! {
    /// A careless runtime leaves what drives hardware and shows keys in sight. Seen to fail with `maskedPaths` emptied.
    fn cve_2017_16539_cve_2018_10892_masked_paths(env) {
        let script = "for path in /proc/acpi /proc/scsi /sys/firmware; do ls -A $path 2>/dev/null; done; \
            for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do head -c1 $path 2>/dev/null; done; echo end";
        assert_eq!(Bundle::new(&env).script(script).run(), "end\n");
    }

    /// A careless runtime starts the process in the caller's session: it types into the caller's terminal by TIOCSTI,
    /// or reads what is typed there. Seen to fail with the step that makes a session taken out.
    fn cve_2017_5226_the_callers_terminal(env) {
        let bundle = Bundle::new(&env).script("(: </dev/tty) 2>/dev/null && echo reached || echo out of reach");
        bundle.write();
        let root = bundle.root().display().to_string();
        let terminal = Terminal::start(&env.bare(["oci", "--root", &root, "run", "--bundle", "b", &bundle.id("a")]));
        terminal.until("reach");
        assert!(terminal.screen().contains("out of reach"), "{}", terminal.screen());
    }

    /// A careless runtime mounts procfs where the image's link leads, and then writes labels and sysctls into files that
    /// the image made. Seen to fail with the strict lookup replaced by one that follows links.
    fn cve_2019_19921_cve_2023_27561_cve_2025_54867_proc_and_sys_are_links(env) {
        for name in ["proc", "sys"] {
            let bundle = Bundle::new(&env).script("true");
            let canary = env.directory("outside");
            std::fs::remove_dir(bundle.rootfs(name)).unwrap();
            symlink(&canary, bundle.rootfs(name)).unwrap();
            assert!(bundle.run_fails().contains("must be mounted on ordinary directory"));
            assert_eq!(std::fs::read_dir(canary).unwrap().count(), 0);
            std::fs::remove_file(bundle.rootfs(name)).unwrap();
        }
    }

    /// A careless parser takes what follows a `+` for another sysctl, and runs the image's program on the host.
    fn cve_2022_0811_a_second_sysctl_in_the_value(env) {
        let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
        let bundle = Bundle::new(&env).script("true")
            .set("/linux", "sysctl", json!({"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/bin/sh"}));
        assert!(bundle.run_fails().contains("shm_rmid_forced"));
        assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
        let bundle = Bundle::new(&env).script("true").set("/linux", "sysctl", json!({"kernel.core_pattern": "|/bin/sh"}));
        assert!(bundle.run_fails().contains("it would change the host"));
        assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    }

    /// A careless runtime leaves cgroups writable, and a process raises its own limits or freezes its neighbours.
    fn cve_2023_25809_cgroups_are_read_only(env) {
        let script = "for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $tree/made 2>/dev/null && echo $tree; done; \
            for file in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent; do (echo x >$file) 2>/dev/null && echo $file; done; echo end";
        assert_eq!(Bundle::new(&env).script(script).run(), "end\n");
    }

    /// A careless runtime looks a mount's target up by path, again and again, while another container swaps a link in:
    /// what it makes and mounts is then the host's. Seen to fail, in the first of the rounds, with the target opened by
    /// path on the host instead of below the root's descriptor.
    fn cve_2021_30465_cve_2024_45310_a_link_swapped_in_while_it_mounts(env) {
        let canary = env.directory("outside");
        let volume = env.directory("volume");
        let real = env.directory("volume/x");
        let link = volume.join("y");
        symlink(format!("../../../../../../../../..{}", canary.display()), &link).unwrap();
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "bind", "source": volume, "destination": "/volume", "options": ["bind"]}))
            .mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": "/volume/x/made", "options": []}))
            .script("true");
        let goes_on = Arc::new(AtomicBool::new(true));
        let swapper = {
            let goes_on = goes_on.clone();
            std::thread::spawn(move || {
                while goes_on.load(Ordering::SeqCst) {
                    let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    let _ = nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &real, nix::fcntl::AT_FDCWD, &link, exchange);
                }
            })
        };
        for number in 0..20 {
            // Whether it starts is a matter of luck; that nothing is made outside is not.
            let _ = bundle.oci(&["run", "--bundle", "b", &bundle.id(&number.to_string())]);
        }
        goes_on.store(false, Ordering::SeqCst);
        swapper.join().unwrap();
        assert_eq!(std::fs::read_dir(canary).unwrap().count(), 0);
    }

    /// A careless runtime binds the terminal over what the image calls /dev/console.
    fn cve_2025_52565_console_is_a_link(env) {
        let canary = env.write("canary", "alive");
        let mut bundle = Bundle::new(&env).script("test -c /dev/console && echo whole")
            .set("/process", "terminal", json!(true));
        // /dev as the image has it, with a devpts of the container's own.
        bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        symlink(format!("../../../../../../../..{}", canary.display()), bundle.rootfs("dev/console")).unwrap();
        let _ = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
        assert_eq!(std::fs::read_to_string(canary).unwrap(), "alive");
    }

    /// A careless runtime listens on an abstract socket, which whoever shares the network namespace can connect to.
    fn cve_2020_15257_no_abstract_sockets(env) {
        let mut bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        let (created, running) = (bundle.id("a"), bundle.id("b"));
        assert_eq!(bundle.detached(&["create", "--bundle", "b", &created]).code(), 0);
        bundle.sleeping(&running);
        let table = bundle.ok(&["exec", &running, "cat", "/proc/net/unix"]);
        let ours = table.lines().filter(|line| line.contains('@') && line.contains(&bundle.id("")));
        assert_eq!(ours.count(), 0, "{table}");
    }
}

as_root! {
    /// A careless runtime keeps the caller's groups, or gives the process none of those it should have: a file that
    /// denies something to a group is then open.
    fn cve_2022_2989_groups_are_those_of_the_spec(env) {
        need!(program("setpriv"));
        let bundle = Bundle::new(&env).args(&["id", "-G"]);
        bundle.write();
        let line = bundle.line(&["run", "--bundle", "b", &bundle.id("a")]);
        let output = env.other(["sh", "-c", &format!("setpriv --groups 4242,4243 {line}")]).run();
        assert_eq!(output.succeeded(), "0");
        let bundle = bundle.set("/process/user", "additionalGids", json!([7, 9]));
        assert_eq!(bundle.run(), "0 7 9\n");
        let id = bundle.id("b");
        let bundle = bundle.args(&["sleep", "1000"]);
        bundle.sleeping(&id);
        assert_eq!(bundle.ok(&["exec", "--user", "1:1", "--additional-gids", "5", &id, "id", "-G"]), "1 5 7 9\n");
    }
}
