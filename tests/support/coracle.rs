//! `Env`: a store, a home and a network of one test's own, as root or as an ordinary user.
//!
//! Invariant: when an `Env` goes, nothing that it made is left on the machine; if something is, the test fails and
//! names it (`leak.rs`).

use super::command::{Command, Output, PATH, Surroundings};
use super::image::Image;
use super::{leak, need};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// The ordinary user that `tests/run` makes.
pub(crate) const USER: &str = "coracle-test";

/// Make one test of a body that takes an `Env`, as root and as an ordinary user.
macro_rules! both {
    ($($(#[$attribute:meta])* fn $name:ident($env:ident $(: Env)?) $body:block)+) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;
            fn body($env: $crate::support::Env) $body
            $(#[$attribute])*
            #[test]
            fn root() {
                if let Some(env) = $crate::support::Env::root() { body(env) }
            }
            $(#[$attribute])*
            #[test]
            fn user() {
                if let Some(env) = $crate::support::Env::user() { body(env) }
            }
        })+
    };
}
pub(crate) use both;

/// The same as root only.
macro_rules! as_root {
    ($($(#[$attribute:meta])* fn $name:ident($env:ident $(: Env)?) $body:block)+) => {
        $($(#[$attribute])* #[test] fn $name() {
            fn body($env: $crate::support::Env) $body
            if let Some(env) = $crate::support::Env::root() { body(env) }
        })+
    };
}
pub(crate) use as_root;

/// The same as the ordinary user only.
macro_rules! as_user {
    ($($(#[$attribute:meta])* fn $name:ident($env:ident $(: Env)?) $body:block)+) => {
        $($(#[$attribute])* #[test] fn $name() {
            fn body($env: $crate::support::Env) $body
            if let Some(env) = $crate::support::Env::user() { body(env) }
        })+
    };
}
pub(crate) use as_user;

/// Who an ordinary user is.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user of `tests/run` if the tests run as root, else whoever runs them.
pub(crate) fn ordinary_user() -> Option<User> {
    let me = nix::unistd::geteuid();
    // Read here: the C library's own look-up loads libraries, which a static program cannot.
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let wanted = if me.is_root() { name == USER } else { uid == me.as_raw() };
        wanted.then(|| User { name: name.to_owned(), uid, gid })
    })
}

/// The binary under test, where every user can execute it.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CORACLE_BIN") {
        Some(path) => path.into(),
        None => reachable(Path::new(env!("CARGO_BIN_EXE_coracle"))),
    })
}

/// A copy that other users can reach; a checkout under a home often is not.
fn reachable(built: &Path) -> PathBuf {
    if !nix::unistd::geteuid().is_root() {
        return built.to_owned();
    }
    let metadata = fs::metadata(built).expect("the binary is built");
    let stamp = format!("{}.{}.{}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
    // One directory for each checkout: another one's tests may be running.
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(built, &mut hasher);
    let checkout = format!("coracle-test-bin-{:x}", std::hash::Hasher::finish(&hasher));
    let directory = std::env::temp_dir().join(checkout);
    let path = directory.join(stamp).join("coracle");
    if !path.exists() {
        // One build's copy is enough; processes that run an older one keep it open.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory for the binary");
        let staging = path.with_extension(std::process::id().to_string());
        fs::copy(built, &staging).expect("copy the binary");
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o755)).expect("make the copy executable");
        fs::rename(&staging, &path).expect("put the copy in place");
    }
    path
}

/// One test's surroundings.
pub(crate) struct Env {
    base: PathBuf,
    user: Option<User>,
    surroundings: Surroundings,
}

impl Env {
    /// As root; `None` (and a loud skip) if the tests are not.
    pub(crate) fn root() -> Option<Env> {
        match need::root() {
            Ok(()) => Some(Env::new(None)),
            Err(reason) => {
                need::skip(&reason);
                None
            }
        }
    }

    /// As an ordinary user; `None` (and a loud skip) if there is none.
    pub(crate) fn user() -> Option<Env> {
        match need::user() {
            Ok(()) => Some(Env::new(ordinary_user())),
            Err(reason) => {
                need::skip(&reason);
                None
            }
        }
    }

    fn new(user: Option<User>) -> Env {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        // Short: the path of a socket has 107 bytes.
        let base = std::env::temp_dir().join(format!("ct{}.{number}", std::process::id()));
        for (name, mode) in [("", 0o755), ("home", 0o755), ("xdg", 0o700), ("work", 0o755)] {
            let path = base.join(name);
            fs::create_dir(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
            if let Some(user) = &user {
                chown(&path, Some(user.uid), Some(user.gid)).expect("give a directory to the user");
            }
        }
        let is_root = nix::unistd::geteuid().is_root();
        let variables = [
            ("CORACLE_TEST_ENV", base.clone().into_os_string()),
            ("CORACLE_TEST_RUN", std::env::var_os("CORACLE_TEST_RUN").unwrap_or_default()),
            ("HOME", base.join("home").into()),
            ("XDG_RUNTIME_DIR", base.join("xdg").into()),
            ("PATH", PATH.into()),
            ("COLUMNS", "100".into()),
            ("LANG", "C.UTF-8".into()),
            ("TERM", "xterm".into()),
            ("TZ", "UTC".into()),
            ("RUST_BACKTRACE", "0".into()),
        ];
        let surroundings = Surroundings {
            user: user.as_ref().filter(|_| is_root).map(|user| (user.uid, user.gid)),
            // Root's default network is a bridge: it must not appear among the machine's own interfaces.
            network: user.is_none().then(|| Arc::new(network_namespace())),
            variables: variables.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            directory: base.join("work"),
        };
        Env { base, user, surroundings }
    }

    /// Use the machine's network instead of an empty one of our own: for a registry on the tests' loopback.
    pub(crate) fn host_network(mut self) -> Env {
        self.surroundings.network = None;
        self
    }

    /// Use this network namespace.
    pub(crate) fn in_network(mut self, namespace: OwnedFd) -> Env {
        self.surroundings.network = Some(Arc::new(namespace));
        self
    }

    /// The network namespace of the commands, where it is not the machine's.
    pub(crate) fn network(&self) -> &OwnedFd {
        self.surroundings.network.as_ref().expect("a network of its own")
    }

    /// One more variable for every command.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Env {
        self.surroundings.variables.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn is_root(&self) -> bool {
        self.user.is_none()
    }

    /// Id and group of who runs the commands.
    pub(crate) fn ids(&self) -> (u32, u32) {
        self.user.as_ref().map_or((0, 0), |user| (user.uid, user.gid))
    }

    /// The directory that holds everything of this test.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.base.join("d")
    }

    pub(crate) fn runroot(&self) -> PathBuf {
        self.base.join("r")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.base.join("home")
    }

    /// A path in the directory where commands start.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.base.join("work").join(name)
    }

    /// Write a file there, for the user.
    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            self.directory_at(parent);
        }
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        self.give(&path);
        path
    }

    /// Make a directory there, for the user.
    pub(crate) fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        self.directory_at(&path);
        path
    }

    fn directory_at(&self, path: &Path) {
        if !path.exists() {
            if let Some(parent) = path.parent() {
                self.directory_at(parent);
            }
            fs::create_dir(path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
            self.give(path);
        }
    }

    fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.surroundings.user {
            chown(path, Some(uid), Some(gid)).expect("give a file to the user");
        }
    }

    /// `coracle` with this store and these words.
    pub(crate) fn command<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let mut argv: Vec<OsString> =
            vec![binary().into(), "--root".into(), self.data().into(), "--runroot".into(), self.runroot().into()];
        argv.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        Command::new(self.surroundings.clone(), argv)
    }

    /// `coracle` with exactly these words.
    pub(crate) fn bare<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        Command::new(self.surroundings.clone(), std::iter::once(binary().into()).chain(words).collect())
    }

    /// Another program, as the same user in the same network.
    pub(crate) fn other<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let argv = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Command::new(self.surroundings.clone(), argv)
    }

    /// Run `coracle` with these words to its end.
    #[track_caller]
    pub(crate) fn coracle<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Output {
        self.command(words).run()
    }

    /// Both streams and the exit code of `coracle` with these words, made comparable.
    #[track_caller]
    pub(crate) fn transcript<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> String {
        self.coracle(words).transcript(&self.base.to_string_lossy())
    }

    /// Put an image into the store.
    #[track_caller]
    pub(crate) fn load(&self, image: &Image) {
        let _ = self.command(["load", "--quiet"]).stdin(image.docker_archive()).run().succeeded();
    }

    /// Put the busybox image into the store; its name.
    #[track_caller]
    pub(crate) fn busybox(&self) -> &'static str {
        self.load(&Image::busybox());
        super::image::BUSYBOX
    }

    /// What of this test is still on the machine.
    pub(crate) fn leaks(&self) -> Vec<String> {
        leak::find(&leak::Traces { base: &self.base, data: &self.data(), runroot: &self.runroot() })
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        let has_containers = fs::read_dir(self.data().join("containers")).is_ok_and(|mut list| list.next().is_some());
        let has_pods = fs::read_dir(self.data().join("pods")).is_ok_and(|mut list| list.next().is_some());
        let traces = leak::ids(&self.data(), &self.runroot());
        let mut removal = String::new();
        for words in [&["pod", "rm", "--all", "--force", "--time", "0"][..], &["rm", "--all", "--force", "--time", "0"]]
        {
            if (words[0] == "pod" && has_pods) || (words[0] == "rm" && has_containers) {
                // Caught: a second panic while the first unwinds would end the whole test run.
                let removed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.coracle(words)));
                if let Ok(output) = removed
                    && output.code() != 0
                {
                    removal.push_str(&format!("{output}\n"));
                }
            }
        }
        let leaks =
            leak::settle(&leak::Traces { base: &self.base, data: &self.data(), runroot: &self.runroot() }, &traces);
        leak::clean(&self.base);
        if self.surroundings.user.is_none() && !self.is_root() {
            // Files of subordinate ids can be removed from inside the user's namespace only.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.command([OsStr::new("unshare"), "rm".as_ref(), "-rf".as_ref(), self.data().as_os_str()]).run()
            }));
        }
        let _ = fs::remove_dir_all(&self.base);
        if !std::thread::panicking() {
            assert!(removal.is_empty(), "the containers of this test could not be removed\n{removal}");
            assert!(leaks.is_empty(), "left behind by this test:\n  {}", leaks.join("\n  "));
        }
    }
}

/// An empty network namespace with its loopback up. The descriptor alone keeps it.
pub(crate) fn network_namespace() -> OwnedFd {
    let made = std::thread::spawn(|| -> std::io::Result<OwnedFd> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        let status = std::process::Command::new("ip").env("PATH", PATH).args(["link", "set", "lo", "up"]).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(std::io::Error::other("`ip link set lo up` (package iproute2)"));
        }
        Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
    });
    made.join().expect("a thread").expect("make a network namespace")
}
