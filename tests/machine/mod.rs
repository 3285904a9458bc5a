//! What needs a host with systemd and pure cgroup v2: `tests/run` runs these in the machine of `tests/vm`, as root there
//! with `coracle-test` as the ordinary user. Elsewhere each is a loud skip.

mod confine;
mod limit;
mod scope;

use crate::support::coracle::ordinary_user;
use crate::support::{Env, Output};
use std::path::PathBuf;

/// The environment, told where the ordinary user's own bus is: a test's XDG_RUNTIME_DIR is not systemd's.
fn with_bus(env: Env) -> Env {
    if env.is_root() {
        return env;
    }
    let uid = ordinary_user().map_or(0, |user| user.uid);
    env.variable("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/run/user/{uid}/bus"))
}

/// `run --network none` with these options, the busybox image and these words.
fn run(env: &Env, options: &[&str], words: &[&str]) -> Output {
    let image = env.busybox();
    env.coracle(["run", "--network", "none"].iter().chain(options).chain(&[image]).chain(words))
}

/// Where the cgroup of a running container is.
fn cgroup(env: &Env, name: &str) -> PathBuf {
    let path = env.coracle(["inspect", "--format", "{{.State.CgroupPath}}", name]).ok();
    PathBuf::from(format!("/sys/fs/cgroup{path}"))
}

/// A control file's text in the cgroup of a running container.
fn control(env: &Env, name: &str, file: &str) -> String {
    let path = cgroup(env, name).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text.trim().to_owned()
}
