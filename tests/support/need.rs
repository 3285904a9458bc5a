//! What a test needs of the machine, and the loud skip where the machine has it not.
//!
//! A skipped test is counted: a line goes to standard error and to the file that `CORACLE_SKIPS` names. With `CI=true`
//! a reason that does not begin with a line of `tests/allowed-skips.txt` fails the test instead.

use std::io::Write;
use std::path::Path;

/// `need!(root, cgroup2, program("curl"))`: go on, or leave the test.
macro_rules! need {
    ($($name:ident $(($argument:expr))?),+ $(,)?) => {
        $(
            if let Err(reason) = $crate::support::need::$name($($argument)?) {
                $crate::support::need::skip(&reason);
                return;
            }
        )+
    };
}
pub(crate) use need;

/// Say that the running test is skipped.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(file) = std::env::var_os("CORACLE_SKIPS") {
        let line = format!("{test}\t{reason}\n");
        let written = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        written.and_then(|mut file| file.write_all(line.as_bytes())).expect("count the skip");
    }
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        let allowed = include_str!("../allowed-skips.txt");
        let mut allowed = allowed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert!(
            allowed.any(|line| reason.starts_with(line)),
            "skipped for a reason that tests/allowed-skips.txt does not allow: {reason}"
        );
    }
}

type Need = Result<(), String>;

fn check(holds: bool, reason: &str) -> Need {
    if holds { Ok(()) } else { Err(reason.to_owned()) }
}

/// The test itself runs as root.
pub(crate) fn root() -> Need {
    check(nix::unistd::geteuid().is_root(), "root: the tests do not run as root")
}

/// There is an ordinary user to be: the one of `tests/run`, or whoever runs the tests.
pub(crate) fn user() -> Need {
    if super::coracle::ordinary_user().is_none() {
        return Err(format!("user: there is no user `{}`; tests/run makes it", super::coracle::USER));
    }
    user_namespaces()
}

/// An ordinary user may make user namespaces.
pub(crate) fn user_namespaces() -> Need {
    let zero = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    let one = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let forbidden = zero("/proc/sys/user/max_user_namespaces")
        || zero("/proc/sys/kernel/unprivileged_userns_clone")
        || one("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    check(!forbidden, "user_namespaces: this kernel forbids them to ordinary users")
}

/// The ordinary user has subordinate ids and the helpers to use them.
pub(crate) fn subordinate_ids() -> Need {
    program("newuidmap")?;
    let name = super::coracle::ordinary_user().map(|user| user.name).unwrap_or_default();
    let listed = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line.starts_with(&format!("{name}:"))))
    };
    check(listed("/etc/subuid") && listed("/etc/subgid"), "subordinate_ids: the user has none")
}

/// All controllers are on the unified hierarchy.
pub(crate) fn cgroup2() -> Need {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    check(controllers.contains("memory"), "cgroup2: the controllers are not on cgroup v2")
}

/// Limits can be set at all: cgroup v2, or v1 hierarchies that can be written.
pub(crate) fn cgroups() -> Need {
    check(
        cgroup2().is_ok() || Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists(),
        "cgroups: no memory controller is mounted",
    )
}

/// systemd is this machine's init.
pub(crate) fn systemd() -> Need {
    check(Path::new("/run/systemd/system").exists(), "systemd: it is not running here")
}

/// This program is installed.
pub(crate) fn program(name: &str) -> Need {
    let found = super::command::PATH.split(':').any(|directory| Path::new(directory).join(name).exists());
    check(found, &format!("program: `{name}` is not installed"))
}

/// This file or directory is there.
pub(crate) fn path(path: &str) -> Need {
    check(Path::new(path).exists(), &format!("path: `{path}` is not there"))
}

/// The kernel can make links of this kind.
pub(crate) fn kernel_link(kind: &'static str) -> Need {
    program("ip")?;
    let made = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
        let ip = |line: &str| std::process::Command::new("ip").args(line.split(' ')).output();
        let _ = ip("link add below type veth peer name other");
        let output = ip(&format!("link add link below name above type {kind}")).map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    let result: Result<(), String> = made.join().expect("a thread");
    result.map_err(|error| format!("kernel: no links of kind {kind}: {}", error.trim()))
}

/// Debian's package archive can be reached, or its root file system was built before.
pub(crate) fn debian() -> Need {
    super::image::debian_rootfs().map(|_| ())
}
