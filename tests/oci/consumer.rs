//! The programs that drive a runtime, with ours in its place: podman, dockerd, containerd.
//!
//! Each has all its files, its socket and its network in the test's own directory and namespace.

use super::bundle::Bundle;
use crate::support::command::{Output, Running};
use crate::support::coracle::{Env, as_root};
use crate::support::need::need;
use crate::support::{until, within};
use std::time::Duration;

/// How long a daemon may take to answer, or to go away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Our binary under the name that makes it a runtime.
fn runtime(env: &Env) -> String {
    let link = env.path("coracle-oci");
    std::os::unix::fs::symlink(crate::support::coracle::binary(), &link).unwrap();
    link.display().to_string()
}

/// A daemon that is asked to end, and waited for, when it is dropped.
struct Daemon(Running);

impl Daemon {
    /// Start it and wait until `probe` succeeds; else what it has said, for the skip.
    fn start(mut daemon: Running, probe: impl Fn() -> Output) -> Result<Daemon, String> {
        let answers = within(PATIENCE, || match probe().code() {
            0 => Some(true),
            _ => (!daemon.runs()).then_some(false),
        });
        let daemon = Daemon(daemon);
        match answers {
            Some(true) => Ok(daemon),
            _ => Err(daemon.0.stderr().lines().last().unwrap_or("no word").to_owned()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.0.runs() {
            self.0.signal(nix::sys::signal::Signal::SIGTERM);
        }
        // One that does not end is found by the check of what is left behind.
        let _ = within(PATIENCE, || (!self.0.runs()).then_some(()));
    }
}

as_root! {
    fn podman(env) {
        need!(program("podman"));
        let bundle = Bundle::new(&env);
        let storage = env.base().join("pod");
        let link = runtime(&env);
        env.write("containers.conf", "[engine]\nevents_logger=\"none\"\n[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\n");
        let podman = |words: &[&str]| {
            let mut all = vec!["podman".to_owned(), "--storage-driver=vfs".into(), "--cgroup-manager=cgroupfs".into()];
            all.push(format!("--root={}", storage.join("root").display()));
            all.push(format!("--runroot={}", storage.join("run").display()));
            all.push(format!("--runtime={link}"));
            all.extend(words.iter().map(|word| (*word).to_owned()));
            env.other(all).env("CONTAINERS_CONF", env.path("containers.conf")).run()
        };
        let rootfs = bundle.rootfs("");
        let rootfs = rootfs.to_str().unwrap();
        let run = podman(&["run", "--rm", "--network=none", "--rootfs", rootfs, "sh", "-c", "hostname; exit 3"]);
        assert_eq!(run.code(), 3, "{run}");
        let missing = podman(&["run", "--rm", "--network=none", "--rootfs", rootfs, "nosuch"]);
        assert_eq!(missing.code(), 127, "{missing}");
        let forbidden = podman(&["run", "--rm", "--network=none", "--rootfs", rootfs, "/etc"]);
        assert_eq!(forbidden.code(), 126, "{forbidden}");
        podman(&["run", "-d", "--name=a", "--network=none", "--rootfs", rootfs, "sleep", "1000"]).succeeded();
        assert_eq!(podman(&["exec", "a", "sh", "-c", "echo $$; exit 4"]).code(), 4);
        assert_eq!(podman(&["exec", "-t", "a", "tty"]).succeeded().trim(), "/dev/pts/0");
        podman(&["pause", "a"]).succeeded();
        podman(&["unpause", "a"]).succeeded();
        assert!(podman(&["top", "a"]).succeeded().contains("sleep 1000"));
        podman(&["stop", "-t", "0", "a"]).succeeded();
        podman(&["rm", "a"]).succeeded();
    }

    fn docker(env) {
        need!(program("dockerd"), program("docker"), program("containerd"), cgroups);
        let bundle = Bundle::new(&env);
        let link = runtime(&env);
        let at = |name: &str| env.base().join("dk").join(name).display().to_string();
        let socket = format!("unix://{}", at("s"));
        env.write("daemon.json", "{}");
        let mut words: Vec<String> = ["dockerd", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
            "--ip-masq=false", "--bridge=none", "--storage-driver=vfs"].map(str::to_owned).to_vec();
        words.push(format!("--config-file={}", env.path("daemon.json").display()));
        words.push(format!("--data-root={}", at("data")));
        words.push(format!("--exec-root={}", at("x")));
        words.push(format!("--pidfile={}", at("pid")));
        words.push(format!("--host={socket}"));
        words.push(format!("--add-runtime=coracle={link}"));
        words.push("--exec-opt=native.cgroupdriver=cgroupfs".to_owned());
        let docker = |words: &[&str]| {
            env.other([&["docker"], words].concat()).env("DOCKER_HOST", &socket).run()
        };
        let daemon = Daemon::start(env.other(words).limit(2 * PATIENCE).spawn(), || docker(&["version"]));
        // It can run nowhere but where it may make cgroups, mounts and a socket.
        let daemon = match daemon {
            Ok(daemon) => daemon,
            Err(why) => return crate::support::need::skip(&format!("program: dockerd does not start here: {why}")),
        };
        let rootfs = bundle.rootfs("").display().to_string();
        env.other(["tar", "-C", &rootfs, "-cf", "b.tar", "."]).run().succeeded();
        docker(&["import", "b.tar", "bb"]).succeeded();
        let base = ["run", "--runtime=coracle", "--network=none"];
        let run = |words: &[&str]| docker(&[&base, words].concat());

        let script = "hostname; id -u; cat /x/memory.limit_in_bytes 2>/dev/null; touch /new; exit 3";
        let output = run(&["--rm", "--hostname=h", "--user=1000:7", "--read-only", "--memory=64m", "bb", "sh", "-c", script]);
        assert_eq!((output.code(), output.stdout().as_str()), (3, "h\n1000\n"), "{output}");
        assert!(output.stderr().contains("Read-only file system"), "{output}");
        assert_eq!(run(&["--rm", "bb", "nosuch"]).code(), 127);
        assert_eq!(run(&["--rm", "bb", "/etc"]).code(), 126);
        assert_eq!(run(&["--rm", "--cap-drop=all", "bb", "grep", "CapEff", "/proc/self/status"]).succeeded(), "CapEff:\t0000000000000000");
        assert_eq!(run(&["--rm", "-t", "bb", "tty"]).succeeded().trim(), "/dev/pts/0");

        let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
        run(&["-d", "--name=web", "--memory=64m", "bb", "sh", "-c", script]).succeeded();
        until("its log", || (docker(&["logs", "web"]).stdout() == "ready\n").then_some(()));
        assert_eq!(docker(&["exec", "-w", "/tmp", "-e", "A=b", "-u", "7", "web", "sh", "-c", "pwd; echo $A; id -u; exit 4"]).code(), 4);
        assert_eq!(docker(&["exec", "-t", "web", "tty"]).succeeded().trim(), "/dev/pts/0");
        docker(&["pause", "web"]).succeeded();
        assert!(docker(&["ps", "--format={{.Status}}"]).succeeded().contains("Paused"));
        docker(&["unpause", "web"]).succeeded();
        docker(&["update", "--memory=100m", "--memory-swap=100m", "web"]).succeeded();
        assert!(docker(&["stats", "--no-stream", "web"]).succeeded().contains("100MiB"));
        assert!(docker(&["top", "web"]).succeeded().contains("echo ready"));
        docker(&["stop", "-t", "30", "web"]).succeeded();
        assert_eq!(docker(&["inspect", "-f", "{{.State.ExitCode}}", "web"]).succeeded(), "5");
        docker(&["start", "web"]).succeeded();
        docker(&["restart", "-t", "0", "web"]).succeeded();
        docker(&["kill", "web"]).succeeded();
        assert_eq!(docker(&["wait", "web"]).succeeded(), "137");
        docker(&["rm", "-f", "web"]).succeeded();
        drop(daemon);
    }

    fn containerd(env) {
        need!(program("containerd"), program("ctr"), cgroups);
        let link = runtime(&env);
        let at = |name: &str| env.base().join("cd").join(name).display().to_string();
        let socket = at("s");
        // No plugin of Kubernetes, and none of file systems that nobody has here.
        env.write("config.toml", "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
        let config = env.path("config.toml").display().to_string();
        let words = ["containerd", "--config", &config, "--root", &at("root"), "--state", &at("x"), "--address", &socket];
        let daemon = env.other(words).limit(2 * PATIENCE).spawn();
        let ctr = |words: &[&str]| env.other([&["ctr", "--address", &socket], words].concat()).run();
        let daemon = match Daemon::start(daemon, || ctr(&["version"])) {
            Ok(daemon) => daemon,
            Err(why) => return crate::support::need::skip(&format!("program: containerd does not start here: {why}")),
        };
        let bundle = Bundle::new(&env);
        let rootfs = bundle.rootfs("").display().to_string();
        let run = |words: &[&str]| ctr(&[&["run", "--runc-binary", &link, "--rootfs"], words].concat());

        let output = run(&["--rm", "--env", "A=b", &rootfs, "a", "sh", "-c", "echo $A; exit 3"]);
        assert_eq!((output.code(), output.stdout().as_str()), (3, "b\n"), "{output}");
        let missing = run(&["--rm", &rootfs, "b", "nosuch"]);
        assert!(missing.code() != 0 && missing.stderr().contains("executable file not found"), "{missing}");
        run(&["-d", "--memory-limit", "67108864", &rootfs, "c", "sleep", "1000"]).succeeded();
        assert_eq!(ctr(&["task", "exec", "--exec-id", "e", "--cwd", "/tmp", "c", "pwd"]).succeeded(), "/tmp");
        ctr(&["task", "pause", "c"]).succeeded();
        assert!(ctr(&["task", "ls"]).succeeded().contains("PAUSED"));
        ctr(&["task", "resume", "c"]).succeeded();
        ctr(&["task", "ps", "c"]).succeeded();
        assert!(ctr(&["task", "metrics", "c"]).succeeded().contains("memory"));
        ctr(&["task", "kill", "--signal", "SIGKILL", "c"]).succeeded();
        until("its end", || ctr(&["task", "ls"]).succeeded().contains("STOPPED").then_some(()));
        let _ = ctr(&["task", "delete", "c"]);
        ctr(&["container", "delete", "c"]).succeeded();
        drop(daemon);
    }
}
