//! The attacks as a table, and the range they are tried on.

use super::inside;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// One attempt.
pub struct Attack {
    pub name: &'static str,
    /// The vulnerabilities that were this, the best known first.
    pub cve: &'static str,
    /// What is prepared on the host.
    image: Image,
    /// Options of `run`; `CANARY` stands for the directory that must stay empty, `DATA` for a volume.
    options: &'static [&'static str],
    /// The words inside; empty: the image alone is the attack, and that it starts is no harm.
    inside: &'static [&'static str],
}

/// The root file system of an attempt.
enum Image {
    /// The one that is built in.
    Hello,
    /// One with this symbolic link in it: (path, target).
    Link(&'static str, &'static str),
    /// One with this /etc/passwd.
    Passwd(&'static str),
    /// One that a file is copied into while it is stopped: the link is on the way.
    Copy(&'static str, &'static str),
}

/// What became of an attempt.
pub enum Verdict {
    Stopped(String),
    Succeeded(String),
    NotTried(String),
}

const fn inside(name: &'static str, cve: &'static str, words: &'static [&'static str]) -> Attack {
    Attack { name, cve, image: Image::Hello, options: &[], inside: words }
}

const fn with(attack: Attack, options: &'static [&'static str]) -> Attack {
    Attack { name: attack.name, cve: attack.cve, image: Image::Hello, options, inside: attack.inside }
}

const fn link(
    name: &'static str,
    cve: &'static str,
    path: &'static str,
    to: &'static str,
    options: &'static [&'static str],
) -> Attack {
    Attack { name, cve, image: Image::Link(path, to), options, inside: &["nothing"] }
}

/// All of them.
pub const ATTACKS: &[Attack] = &[
    inside("overwrite the runtime through /proc/self/exe", "CVE-2019-5736", &["executable"]),
    inside("use a descriptor that the runtime left open", "CVE-2024-21626, CVE-2016-9962", &["descriptors"]),
    with(
        inside("work in a directory of the host (descriptor 7)", "CVE-2024-21626", &["path", "CANARY/file"]),
        &["-w", "/proc/self/fd/7"],
    ),
    with(
        inside("work in a directory of the host (descriptor 9)", "CVE-2024-21626", &["path", "CANARY/file"]),
        &["-w", "/proc/self/fd/9"],
    ),
    inside("crash or reboot the host by /proc/sysrq-trigger", "CVE-2025-52881", &["write", "/proc/sysrq-trigger"]),
    inside("run a program on the host by core_pattern", "CVE-2025-31133", &["write", "/proc/sys/kernel/core_pattern"]),
    inside(
        "read the host's memory and keys",
        "CVE-2018-10892",
        &["read", "/proc/kcore", "/proc/keys", "/proc/timer_list"],
    ),
    inside(
        "drive the host's hardware by /proc",
        "CVE-2017-16539",
        &["hidden", "/proc/acpi", "/proc/scsi", "/sys/firmware"],
    ),
    inside("open a disk or the memory by a node of one's own", "", &["disk"]),
    inside("open files by handle", "CVE-2014-3519", &["handle"]),
    inside("load a module", "", &["module"]),
    inside("load another kernel", "", &["kexec"]),
    inside("load a program into the kernel", "CVE-2021-3490", &["bpf"]),
    inside("write the page cache by AF_ALG", "CVE-2026-31431", &["crypto"]),
    inside("make a user namespace", "CVE-2022-0185", &["namespace"]),
    inside("mount over /proc", "CVE-2023-27561", &["mount"]),
    inside("run a program on the host by release_agent", "CVE-2022-0492", &["release-agent"]),
    inside("make cgroups of one's own", "CVE-2023-25809", &["cgroup"]),
    inside("gain capabilities by inheritance", "CVE-2022-29162, CVE-2022-27651", &["inheritable"]),
    inside("read the environment of the host", "CVE-2026-57231, CVE-2021-3602", &["environment", "selftest-secret"]),
    inside("type into the caller's terminal", "CVE-2017-5226", &["terminal"]),
    with(
        inside("use groups that the user does not have", "CVE-2022-2990, CVE-2022-36109", &["groups", "1"]),
        &["-u", "1:1"],
    ),
    with(inside("speak to the engine by an abstract socket", "CVE-2020-15257", &["abstract"]), &["--network", "host"]),
    link("make devices where /dev leads", "CVE-2026-41579, CVE-2026-47766", "dev", "CANARY", &[]),
    link(
        "mount a volume through a link",
        "CVE-2021-30465",
        "up",
        "../../../../../../../..CANARY",
        &["-v", "DATA:/up/made"],
    ),
    link("make the working directory through a link", "CVE-2026-55686", "wd", "CANARY", &["-w", "/wd/made"]),
    link("make a tmpfs through a link", "CVE-2024-45310", "tm", "CANARY", &["--tmpfs", "/tm/made"]),
    link("mount a volume inside procfs", "CVE-2019-16884", "innocent", "/proc/self/attr", &["-v", "DATA:/innocent"]),
    link("have a link masked in place of a path", "CVE-2025-31133", "dev/null", "CANARY", &[]),
    Attack {
        name: "be root by a numeric user name",
        cve: "CVE-2016-3697",
        image: Image::Passwd("root:x:0:0::/:\n1:x:0:0::/:\n"),
        options: &["-u", "1"],
        inside: &["user", "1"],
    },
    with(
        inside("set a sysctl of the host beside one's own", "CVE-2022-0811", &["nothing"]),
        &["--sysctl", "kernel.shm_rmid_forced=1+kernel.core_pattern=|/selftest"],
    ),
    Attack {
        name: "have a copied file land on the host",
        cve: "CVE-2018-15664, CVE-2019-10152",
        image: Image::Copy("evil", "CANARY"),
        options: &[],
        inside: &["nothing"],
    },
];

/// A store, a canary and a copy of this program, all in a directory that goes away.
pub struct Range(PathBuf);

impl Drop for Range {
    fn drop(&mut self) {
        // What ids of a user namespace own is removed from inside of one.
        let _ = self.coracle(&["unshare", "rm", "-rf", &self.text("d"), &self.text("r")]).output();
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Range {
    /// Make it.
    pub fn new() -> Result<Range> {
        let path = std::env::temp_dir().join(format!("coracle-selftest-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let range = Range(path);
        for name in ["canary", "data"] {
            fs::create_dir(range.0.join(name))?;
        }
        fs::copy("/proc/self/exe", range.0.join("agent")).context("copy this program")?;
        fs::set_permissions(range.0.join("agent"), fs::Permissions::from_mode(0o755))?;
        Ok(range)
    }

    fn text(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// This program on the store of the range.
    fn coracle(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--root", &self.text("d"), "--runroot", &self.text("r")]).args(words);
        command.env("CORACLE_SELFTEST", "selftest-secret").stdin(Stdio::null());
        command
    }

    /// Make one attempt.
    pub fn attempt(&self, attack: &Attack) -> Verdict {
        self.try_attempt(attack).unwrap_or_else(|error| Verdict::NotTried(format!("{error:#}")))
    }

    fn try_attempt(&self, attack: &Attack) -> Result<Verdict> {
        let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap_or_default();
        if matches!(attack.inside, ["path", ..]) {
            fs::write(self.0.join("canary/file"), "")?;
        }
        let output = match attack.image {
            Image::Copy(..) => self.copy_in(attack)?,
            _ => self.run(attack)?,
        };
        let _ = fs::remove_file(self.0.join("canary/file"));
        if fs::read("/proc/sys/kernel/core_pattern").unwrap_or_default() != pattern {
            return Ok(Verdict::Succeeded("core_pattern of the host has changed".into()));
        }
        if let Some(made) = fs::read_dir(self.0.join("canary"))?.flatten().next() {
            let name = made.file_name().display().to_string();
            let path = made.path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            return Ok(Verdict::Succeeded(format!("{name:?} was made on the host")));
        }
        Ok(self.judge(attack, &output))
    }

    fn judge(&self, attack: &Attack, output: &Output) -> Verdict {
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().lines().next().unwrap_or_default().to_owned();
        match output.status.code() {
            Some(code) if code == i32::from(inside::STOPPED) => Verdict::Stopped(said(&output.stdout)),
            Some(code) if code == i32::from(inside::SUCCEEDED) => Verdict::Succeeded(said(&output.stdout)),
            // The engine refuses the image or the option: then nothing ran.
            _ if !matches!(attack.image, Image::Hello) || !attack.options.is_empty() => {
                Verdict::Stopped(format!("refused: {}", said(&output.stderr).trim_start_matches("coracle: ")))
            }
            _ => Verdict::NotTried(said(&output.stderr)),
        }
    }

    /// The words of `run` or `create` for this attack.
    fn words(&self, attack: &Attack, verb: &str) -> Result<Vec<OsString>> {
        let fill = |word: &str| word.replace("CANARY", &self.text("canary")).replace("DATA", &self.text("data"));
        let mut words: Vec<String> = vec![verb.into(), "--rm".into(), "-v".into()];
        words.push(format!("{}:/selftest:ro", self.text("agent")));
        if !attack.options.contains(&"--network") {
            words.extend(["--network", "none"].map(str::to_owned));
        }
        words.extend(attack.options.iter().map(|word| fill(word)));
        match attack.image {
            Image::Hello => words.push("hello".into()),
            _ => words.extend(["--rootfs".to_owned(), self.rootfs(attack)?.display().to_string()]),
        }
        // The program of the image would be too well-behaved: what the runtime itself is executes the first step.
        words.push(if attack.inside == ["executable"] { "/proc/self/exe" } else { "/selftest" }.into());
        words.push(inside::WORD.into());
        words.extend(attack.inside.iter().map(|word| fill(word)));
        Ok(words.into_iter().map(OsString::from).collect())
    }

    fn run(&self, attack: &Attack) -> Result<Output> {
        Ok(self.coracle(&self.words(attack, "run")?).output()?)
    }

    fn copy_in(&self, attack: &Attack) -> Result<Output> {
        let mut words = self.words(attack, "create")?;
        words.insert(1, "--name=selftest-copy".into());
        let created = self.coracle(&words).output()?;
        if !created.status.success() {
            return Ok(created);
        }
        let _ = self.coracle(&["cp", &self.text("agent"), "selftest-copy:/evil/agent"]).output()?;
        Ok(self.coracle(&["start", "--attach", "selftest-copy"]).output()?)
    }

    /// A root file system with what makes it hostile.
    fn rootfs(&self, attack: &Attack) -> Result<PathBuf> {
        let root = self.0.join("rootfs");
        let _ = fs::remove_dir_all(&root);
        for name in ["", "proc", "sys", "etc", "tmp"] {
            fs::create_dir(root.join(name))?;
        }
        match attack.image {
            Image::Hello => {}
            Image::Passwd(text) => fs::write(root.join("etc/passwd"), text)?,
            Image::Link(path, target) | Image::Copy(path, target) => {
                if let Some(parent) = Path::new(path).parent() {
                    fs::create_dir_all(root.join(parent))?;
                }
                symlink(target.replace("CANARY", &self.text("canary")), root.join(path))?;
            }
        }
        Ok(root)
    }
}
