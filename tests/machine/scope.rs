//! systemd: scopes of the system's and of the user's manager, and units that hold their containers themselves.

use super::{cgroup, control, run, with_bus};
use crate::support::coracle::{as_root, as_user, ordinary_user};
use crate::support::need::need;
use crate::support::{Env, until};

/// `systemd-run` in the manager of whoever the environment is, waiting for a delegated unit.
fn in_unit(env: &Env, unit: &[&str], words: &[&str]) -> crate::support::Command {
    let mut argv: Vec<String> = vec!["systemd-run".into(), "--quiet".into(), "--collect".into()];
    if !env.is_root() {
        argv.push("--user".into());
    }
    argv.extend(["--property=Delegate=yes", "--property=TimeoutStopSec=20"].map(str::to_owned));
    argv.extend(unit.iter().map(|word| word.to_string()));
    argv.push("--".into());
    argv.push(crate::support::coracle::binary().to_string_lossy().into_owned());
    let stores = [("--root", env.data()), ("--runroot", env.runroot())];
    argv.extend(stores.iter().flat_map(|(flag, path)| [flag.to_string(), path.display().to_string()]));
    argv.extend(words.iter().map(|word| word.to_string()));
    let command = env.other(argv);
    match ordinary_user().filter(|_| !env.is_root()) {
        Some(user) => command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", user.uid)),
        None => command,
    }
}

fn split(env: Env) {
    let image = env.busybox();
    let words = ["run", "--rm", "--network", "none", "--cgroups", "split", "--memory", "48m", image];
    let words: Vec<&str> = words.into_iter().chain(["cat", "/sys/fs/cgroup/memory.max"]).collect();
    assert_eq!(in_unit(&env, &["--pipe", "--wait"], &words).run().succeeded(), "50331648");
}

fn stopping_the_unit_stops_the_container(env: Env) {
    let unit = format!("ct-{}-{}.service", std::process::id(), if env.is_root() { "root" } else { "user" });
    let image = env.busybox();
    let words = ["run", "--name", "c", "--network", "none", "--cgroups", "split", image, "sleep", "1000"];
    let _ = in_unit(&env, &["--unit", &unit], &words).run().succeeded();
    until("the container runs", || {
        (env.coracle(["ps", "--format", "{{.Names}}"]).stdout().trim() == "c").then_some(())
    });
    let path = cgroup(&env, "c");
    assert!(path.to_string_lossy().contains(&unit), "{}", path.display());
    let mut stop = vec!["systemctl"];
    if !env.is_root() {
        stop.push("--user");
    }
    stop.extend(["stop", &unit]);
    let mut command = env.other(stop);
    if let Some(user) = ordinary_user().filter(|_| !env.is_root()) {
        command = command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", user.uid));
    }
    let _ = command.run().succeeded();
    until("the container has gone with its unit", || {
        let listed = env.coracle(["ps", "--format", "{{.Names}}"]).stdout();
        (listed.trim().is_empty() && !path.exists()).then_some(())
    });
}

as_root! {
    fn a_scope_of_the_system(env: Env) {
        need!(cgroup2, systemd);
        let options = ["-d", "--name", "c", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "33"];
        let image = env.busybox();
        let words = ["--cgroup-manager", "systemd", "run", "--network", "none"];
        let words = words.iter().chain(&options).chain([&image, &"sleep", &"1000"]);
        let id = env.coracle(words).succeeded();
        let unit = format!("coracle-{id}.scope");
        let properties = ["MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "Delegate", "Slice"];
        let show = ["systemctl", "show", "--property", &properties.join(","), &unit];
        let mut shown: Vec<String> = env.other(show).run().succeeded().lines().map(str::to_owned).collect();
        shown.sort();
        let expected =
            ["CPUQuotaPerSecUSec=500ms", "Delegate=yes", "MemoryMax=67108864", "Slice=machine.slice", "TasksMax=33"];
        assert_eq!(shown, expected);
        // systemd applies its own idea of the limits again: it must be ours.
        let _ = env.other(["systemctl", "daemon-reload"]).run().succeeded();
        assert_eq!(control(&env, "c", "memory.max"), "67108864");
        let _ = env.coracle(["rm", "-f", "--time", "0", "c"]).succeeded();
        until("the scope is gone", || {
            let state = env.other(["systemctl", "show", "--property", "ActiveState", &unit]).run();
            (state.stdout().trim() == "ActiveState=inactive").then_some(())
        });
    }

    fn a_service_holds_its_container(env: Env) {
        need!(cgroup2, systemd);
        split(env);
    }

    fn a_service_takes_its_container_along(env: Env) {
        need!(cgroup2, systemd);
        stopping_the_unit_stops_the_container(env);
    }
}

as_user! {
    /// The test runs in a service of the system's, as a login session is: not the user's own.
    fn a_scope_of_the_user_where_the_session_is_not_his(env: Env) {
        need!(cgroup2, systemd);
        let env = with_bus(env);
        let _ = run(&env, &["-d", "--name", "c", "--memory", "64m"], &["sleep", "1000"]).succeeded();
        let path = cgroup(&env, "c");
        let uid = ordinary_user().map_or(0, |user| user.uid);
        let shown = path.to_string_lossy().into_owned();
        assert!(shown.contains(&format!("user@{uid}.service")) && shown.ends_with(".scope"), "{shown}");
        assert_eq!(control(&env, "c", "memory.max"), "67108864");
        // Only systemd may move a process in from here.
        assert_eq!(env.coracle(["exec", "c", "cat", "/proc/self/cgroup"]).succeeded(), "0::/");
    }

    fn a_users_service_holds_its_container(env: Env) {
        need!(cgroup2, systemd);
        split(with_bus(env));
    }

    fn a_users_service_takes_its_container_along(env: Env) {
        need!(cgroup2, systemd);
        stopping_the_unit_stops_the_container(with_bus(env));
    }
}

as_root! {
    /// As in a privileged container of Docker's: the tree's root is a group with processes, which hands nothing down.
    fn limits_inside_another_container(env: Env) {
        need!(cgroup2, systemd);
        let image = env.busybox();
        let coracle = crate::support::coracle::binary().display().to_string();
        let stores = format!("--root {} --runroot {}", env.data().display(), env.runroot().display());
        let script = format!(
            "umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
             {coracle} {stores} run --rm --network none --memory 48m {image} cat /sys/fs/cgroup/memory.max && \
             {coracle} {stores} run --rm --network none {image} cat /sys/fs/cgroup/pids.max"
        );
        let inside = ["unshare", "--cgroup", "--mount", "--fork", "sh", "-c", &script];
        let unit = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait", "--property=Delegate=yes", "--"];
        assert_eq!(env.other(unit.iter().chain(&inside)).run().succeeded(), "50331648\n2048");
    }
}
