//! A bundle of one test: busybox, a config.json to change, and the runtime with a state directory of the test's own.

use crate::support::{Env, Output};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// What busybox is called by in the tests.
const APPLETS: &[&str] = &[
    "cat", "chmod", "echo", "env", "grep", "head", "hostname", "id", "ip", "ls", "mkdir", "mount", "ps", "pwd",
    "readlink", "sh", "sleep", "sort", "stat", "stty", "test", "touch", "true", "tty", "umask", "wc",
];

pub(crate) struct Bundle<'a> {
    pub(crate) env: &'a Env,
    /// Written by [`Bundle::oci`] before each call.
    pub(crate) spec: Value,
}

impl<'a> Bundle<'a> {
    /// What `spec` writes, without a terminal, and a root file system.
    pub(crate) fn new(env: &'a Env) -> Bundle<'a> {
        for path in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            env.directory(format!("b/rootfs/{path}"));
        }
        let busybox = fs::read("/bin/busybox").expect("read /bin/busybox (package busybox-static)");
        let path = env.write("b/rootfs/bin/busybox", busybox);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set a mode");
        for applet in APPLETS {
            // A test may make several bundles, one after the other.
            let _ = std::os::unix::fs::symlink("busybox", env.path(format!("b/rootfs/bin/{applet}")));
        }
        env.write("b/rootfs/etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n");
        let mut bundle = Bundle { env, spec: json!({}) };
        let _ = fs::remove_file(env.path("b/config.json"));
        let mut words = vec!["spec", "--bundle", "b"];
        words.extend((!env.is_root()).then_some("--rootless"));
        let _ = bundle.command(&words).run().succeeded();
        let text = fs::read(env.path("b/config.json")).expect("spec writes config.json");
        bundle.spec = serde_json::from_slice(&text).expect("spec writes JSON");
        bundle.spec["process"]["terminal"] = json!(false);
        bundle.spec["root"]["readonly"] = json!(false);
        bundle
    }

    /// An id that no other test has: it names cgroups as well.
    pub(crate) fn id(&self, name: &str) -> String {
        let base = self.env.base().file_name().expect("a name").to_string_lossy().into_owned();
        format!("{base}-{name}")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.env.base().join("o")
    }

    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.env.path("b/rootfs").join(path)
    }

    /// The command of the container.
    pub(crate) fn args(mut self, args: &[&str]) -> Bundle<'a> {
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// The same as a script of the shell.
    pub(crate) fn script(self, script: &str) -> Bundle<'a> {
        self.args(&["/bin/sh", "-c", script])
    }

    /// One more mount.
    pub(crate) fn mount(mut self, mount: Value) -> Bundle<'a> {
        self.spec["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    /// Any field, by its JSON pointer's parent and name.
    pub(crate) fn set(mut self, parent: &str, name: &str, value: Value) -> Bundle<'a> {
        self.spec.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"))[name] = value;
        self
    }

    fn command(&self, words: &[&str]) -> crate::support::Command {
        let root = self.root();
        let mut all = vec!["oci", "--root", root.to_str().expect("UTF-8")];
        all.extend(words);
        self.env.bare(all)
    }

    pub(crate) fn write(&self) {
        self.env.write("b/config.json", self.spec.to_string());
    }

    /// The runtime with these words, to its end.
    pub(crate) fn oci(&self, words: &[&str]) -> Output {
        self.write();
        self.command(words).run()
    }

    /// The same where the container lives on and has the streams: they go to files.
    pub(crate) fn detached(&self, words: &[&str]) -> Output {
        self.write();
        let line = self.line(words);
        self.env.other(["sh", "-c", &format!("{line} </dev/null >stdout 2>stderr")]).run()
    }

    /// The runtime with these words, as a line of the shell.
    pub(crate) fn line(&self, words: &[&str]) -> String {
        let binary = crate::support::coracle::binary().display().to_string();
        let root = self.root().display().to_string();
        let mut all = vec![binary.as_str(), "oci", "--root", &root];
        all.extend(words);
        all.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
    }

    /// What the container (and the runtime) wrote.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.env.path(name)).unwrap_or_default()
    }

    /// The runtime with these words, which must succeed: all that it printed.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        all_of(&self.oci(words))
    }

    /// `run`: what it printed.
    #[track_caller]
    pub(crate) fn run(&self) -> String {
        self.ok(&["run", "--bundle", "b", &self.id("run")])
    }

    /// `run` must fail: what it said.
    #[track_caller]
    pub(crate) fn run_fails(&self) -> String {
        let id = self.id("run");
        let output = self.oci(&["run", "--bundle", "b", &id]);
        assert_ne!(output.code(), 0, "{output}");
        assert!(!self.root().join(&id).exists(), "something is left behind\n{output}");
        output.stderr()
    }

    /// The status of a container; empty where there is none.
    pub(crate) fn status(&self, id: &str) -> String {
        let output = self.oci(&["state", id]);
        if output.code() != 0 {
            return String::new();
        }
        output.json()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// `run --detach` of a container that sleeps.
    #[track_caller]
    pub(crate) fn sleeping(&self, id: &str) {
        let output = self.detached(&["run", "--detach", "--bundle", "b", "--pid-file", "pid", id]);
        assert_eq!(output.code(), 0, "{output}{}", self.read("stderr"));
    }

    pub(crate) fn pid(&self) -> String {
        self.read("pid")
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        let list = fs::read_dir(self.root()).into_iter().flatten().flatten();
        for entry in list {
            // Its own failure would hide the test's.
            let name = entry.file_name().to_string_lossy().into_owned();
            let _ = self.command(&["delete", "--force", &name]).run();
        }
    }
}

/// The whole output of a success, its last newline too.
#[track_caller]
pub(crate) fn all_of(output: &Output) -> String {
    assert_eq!(output.code(), 0, "{output}");
    output.stdout()
}
