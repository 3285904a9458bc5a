//! AppArmor.

use super::run;
use crate::support::coracle::{as_root, as_user};
use crate::support::need::need;

const LABEL: [&str; 2] = ["cat", "/proc/self/attr/current"];

as_root! {
    fn the_default_profile_is_loaded_and_enforced(env: Env) {
        need!(systemd, path("/sys/kernel/security/apparmor"));
        assert_eq!(run(&env, &["--rm"], &LABEL).succeeded(), "coracle-default (enforce)");
        let mount = run(&env, &["--rm", "--cap-add", "SYS_ADMIN"], &["mount", "-t", "tmpfs", "none", "/mnt"]);
        assert!(mount.code() != 0, "{mount}");
        let _ = run(&env, &["-d", "--name", "c"], &["sleep", "1000"]).succeeded();
        assert_eq!(env.coracle(["exec", "c"].iter().chain(&LABEL)).succeeded(), "coracle-default (enforce)");
    }

    fn none_where_none_is_wanted(env: Env) {
        need!(systemd, path("/sys/kernel/security/apparmor"));
        assert_eq!(run(&env, &["--rm", "--security-opt", "apparmor=unconfined"], &LABEL).succeeded(), "unconfined");
        assert_eq!(run(&env, &["--rm", "--privileged"], &LABEL).succeeded(), "unconfined");
    }

    fn a_profile_that_is_not_there(env: Env) {
        need!(systemd, path("/sys/kernel/security/apparmor"));
        let told = run(&env, &["--rm", "--security-opt", "apparmor=no-such"], &["true"]);
        assert!(told.code() != 0 && told.stderr().contains("no-such"), "{told}");
    }
}

as_user! {
    fn a_user_has_no_profile_of_his_own(env: Env) {
        need!(systemd, path("/sys/kernel/security/apparmor"));
        assert_eq!(run(&env, &["--rm"], &LABEL).succeeded(), "unconfined");
    }
}
