//! Limits on cgroup v2, seen from inside the container and from the host.

use super::{cgroup, control, run, with_bus};
use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use crate::support::until;

/// Prints control files of the container's own cgroup, one a line.
const SHOW: &str = "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight";

both! {
    fn limits_are_seen_inside(env: Env) {
        need!(cgroup2, systemd);
        let env = with_bus(env);
        let options = [
            "--rm", "--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--pids-limit", "20",
            "--cpu-period", "200000", "--cpu-quota", "50000", "--cpu-shares", "512",
        ];
        let shown = run(&env, &options, &["sh", "-c", SHOW]).succeeded();
        assert_eq!(shown, "67108864\n33554432\n33554432\n20\n50000 200000\n59");
    }

    fn limits_change_while_it_runs(env: Env) {
        need!(cgroup2, systemd);
        let env = with_bus(env);
        let _ = run(&env, &["-d", "--name", "c", "--memory", "64m"], &["sleep", "1000"]).succeeded();
        let _ = env.coracle(["update", "--memory", "32m", "--pids-limit", "30", "c"]).succeeded();
        assert_eq!((control(&env, "c", "memory.max"), control(&env, "c", "pids.max")), ("33554432".into(), "30".into()));
        let path = cgroup(&env, "c");
        let _ = env.coracle(["rm", "-f", "--time", "0", "c"]).succeeded();
        until("the cgroup is gone", || (!path.exists()).then_some(()));
    }

    fn the_default_limit_of_processes_is_set(env: Env) {
        need!(cgroup2, systemd);
        let env = with_bus(env);
        assert_eq!(run(&env, &["--rm"], &["cat", "/sys/fs/cgroup/pids.max"]).succeeded(), "2048");
    }

    fn pause_freezes(env: Env) {
        need!(cgroup2, systemd);
        let env = with_bus(env);
        let _ = run(&env, &["-d", "--name", "c"], &["sleep", "1000"]).succeeded();
        let _ = env.coracle(["pause", "c"]).succeeded();
        assert!(control(&env, "c", "cgroup.events").contains("frozen 1"));
        let _ = env.coracle(["unpause", "c"]).succeeded();
        assert!(control(&env, "c", "cgroup.events").contains("frozen 0"));
    }

    fn who_takes_too_much_memory_is_killed_and_it_is_told(env: Env) {
        need!(cgroup2, systemd);
        let env = with_bus(env);
        let options = ["--name", "c", "--memory", "16m", "--memory-swap", "16m"];
        assert_eq!(run(&env, &options, &["tail", "/dev/zero"]).code(), 137);
        // A user's container is in a scope, which systemd may have taken away with its counters before they are read.
        if env.is_root() {
            assert_eq!(env.coracle(["inspect", "--format", "{{.State.OOMKilled}}", "c"]).ok(), "true");
        }
    }

    fn a_limit_that_cannot_be_set_is_an_error_that_names_the_controller(env: Env) {
        need!(cgroup2, systemd);
        let available = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        if available.contains("cpuset") {
            return crate::support::need::skip("kernel: it has cpusets, so there is nothing to refuse");
        }
        let env = with_bus(env);
        let told = run(&env, &["--rm", "--cpuset-cpus", "0"], &["true"]).fails(125);
        assert!(told.contains("cpuset") && told.contains("hint: "), "{told}");
    }
}

as_root! {
    fn devices_are_denied_but_those_allowed(env: Env) {
        need!(cgroup2, systemd);
        let words = ["sh", "-c", "mknod /dev/k c 1 11 && exec 3</dev/k"];
        let denied = run(&env, &["--rm", "--cap-add", "MKNOD"], &words);
        assert!(denied.code() != 0 && denied.stderr().contains("Operation not permitted"), "{denied}");
        let rule = ["--rm", "--cap-add", "MKNOD", "--device-cgroup-rule", "c 1:11 rm"];
        let _ = run(&env, &rule, &words).succeeded();
    }
}
