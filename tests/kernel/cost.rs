//! What a container costs: system calls on the way to its program, memory, copies of the binary. Counts, never times.

use crate::support::coracle::{as_root, as_user};
use crate::support::image::BUSYBOX;
use crate::support::need::{self, need};
use crate::support::until;
use std::collections::HashMap;
use std::fs;

/// From the child's birth to the container's program, its own system calls (the release build makes 540).
const CHILD_MAX: usize = 620;
/// All processes of `run --rm` together, to the very end (1370).
const ALL_MAX: usize = 1600;

/// The system calls of each process in a trace of strace.
fn calls(trace: &str) -> HashMap<&str, Vec<&str>> {
    let mut calls: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        // The second half of a call, news of the process; and what a debug build asks for before each close.
        let counts = !call.starts_with("<...") && !call.starts_with("+++") && !call.starts_with("---");
        if counts && !call.contains(", F_GETFD") {
            calls.entry(pid).or_default().push(call);
        }
    }
    calls
}

as_root! {
    fn system_calls_from_clone_to_exec(env: Env) {
        need!(program("strace"));
        if env.other(["strace", "-f", "-o", "/dev/null", "true"]).run().code() != 0 {
            need::skip("program: strace cannot trace here");
            return;
        }
        let image = env.busybox();
        let (path, trace) = (env.path("trace"), env.path("trace").into_os_string().into_string().expect("UTF-8"));
        let binary = crate::support::coracle::binary().to_str().expect("UTF-8");
        let (data, run) = (env.data(), env.runroot());
        let (data, run) = (data.to_str().expect("UTF-8"), run.to_str().expect("UTF-8"));
        let words = ["run", "--rm", "--network", "none", image, "/bin/true"];
        let traced = ["strace", "-f", "-o", &trace, binary, "--root", data, "--runroot", run];
        let _ = env.other(traced.into_iter().chain(words)).run().succeeded();
        let text = fs::read_to_string(path).expect("strace writes its file");
        let calls = calls(&text);
        let child = calls.values().find_map(|list| {
            let end = list.iter().position(|call| call.starts_with("execve(\"/bin/true\""))?;
            Some(end)
        });
        let child = child.expect("a process that executes /bin/true");
        let all: usize = calls.values().map(Vec::len).sum();
        eprintln!("system calls: {child} from clone to exec, {all} in all");
        assert!(child <= CHILD_MAX, "{child} system calls from clone to exec");
        assert!(all <= ALL_MAX, "{all} system calls for one `run --rm`");
    }

    fn a_container_starts_under_half_a_megabyte(env: Env) {
        // What cgroup v2 charges to a group before its program starts has not been measured.
        need!(path("/sys/fs/cgroup/memory"));
        let image = env.busybox();
        let _ = env.coracle(["run", "--rm", "--network", "none", "--memory", "512k", image, "true"]).succeeded();
    }
}

as_user! {
    fn the_binary_is_protected_without_a_copy(env: Env) {
        // A binary of the user's own: whoever breaks out of the container has the right to write to it.
        let own = env.write("coracle", fs::read(crate::support::coracle::binary()).expect("read the binary"));
        fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set a mode");
        let own = own.to_str().expect("UTF-8");
        let (data, run) = (env.data(), env.runroot());
        let (data, run) = (data.to_str().expect("UTF-8"), run.to_str().expect("UTF-8"));
        env.busybox();
        let words = ["run", "-d", "--name", "idle", "--network", "none", BUSYBOX, "sleep", "1000"];
        let _ = env.other([own, "--root", data, "--runroot", run].into_iter().chain(words)).run().succeeded();
        let pid = env.coracle(["inspect", "--format", "{{.State.ConmonPid}}", "idle"]).ok();
        let link = format!("/proc/{pid}/exe");
        let target = fs::read_link(&link).expect("a supervisor");
        assert!(!target.to_string_lossy().contains("memfd"), "{target:?}: a copy for each container");
        // Held while nobody executes it any more, as the attack does (CVE-2019-5736).
        let held = nix::fcntl::open(link.as_str(), nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty());
        let held = held.expect("hold the binary");
        let _ = env.coracle(["rm", "-f", "-t", "0", "idle"]).succeeded();
        until("the supervisor's end", || (!fs::exists(&link).unwrap_or(true)).then_some(()));
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
        let error = fs::File::options().write(true).open(again).expect_err("the binary can be written to");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    }
}
