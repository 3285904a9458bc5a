//! The half of an attack that runs in the container: `selftest-inside NAME`. Never does harm where it succeeds: files
//! are opened and not written, calls are made with arguments that change nothing.

use crate::sys::{fork, probe};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The word on the command line.
pub const WORD: &str = "selftest-inside";
/// Exit codes; all others mean that the attempt was not made.
pub const STOPPED: u8 = 10;
/// See [`STOPPED`].
pub const SUCCEEDED: u8 = 11;

/// How it went, in words.
enum Outcome {
    Stopped(String),
    Succeeded(String),
}
use Outcome::{Stopped, Succeeded};

/// Make the attempt, tell of it, and give the exit code.
pub fn run(words: &[OsString]) -> u8 {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (name, rest) = match words.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => return 2,
    };
    let first = rest.first().map(String::as_str).unwrap_or_default();
    let outcome = match name {
        "write" => open_all(rest, true),
        "read" => open_all(rest, false),
        "hidden" => hidden(rest),
        "executable" => executable(),
        "reopen" => reopen(first),
        "descriptors" => descriptors(),
        "inheritable" => status_is("CapInh", "0000000000000000"),
        "user" => status_is("Uid", first),
        "groups" => groups(first),
        "environment" => environment(first),
        "path" => reach(first),
        "terminal" => judge(File::open("/dev/tty").map(drop), "the caller's terminal is open"),
        "crypto" => judge(
            socket(AddressFamily::Alg, SockType::SeqPacket, SockFlag::empty(), None).map(drop).map_err(Into::into),
            "a socket of AF_ALG was made",
        ),
        "mount" => mount(),
        "namespace" => judge(in_child(|| nix::sched::unshare(CloneFlags::CLONE_NEWUSER)), "a user namespace was made"),
        "release-agent" => release_agent(),
        "cgroup" => make_cgroup(),
        "disk" => disk(),
        "handle" => refused(libc::SYS_open_by_handle_at, "files are opened by handle"),
        "module" => refused(libc::SYS_init_module, "kernel modules are loaded"),
        "kexec" => refused(libc::SYS_kexec_load, "another kernel is loaded"),
        "bpf" => refused(libc::SYS_bpf, "programs are loaded into the kernel"),
        "abstract" => abstract_sockets(),
        "nothing" => Stopped("the host is untouched".into()),
        _ => return 2,
    };
    let (code, text) = match outcome {
        Stopped(text) => (STOPPED, text),
        Succeeded(text) => (SUCCEEDED, text),
    };
    // Where nobody listens the code still tells.
    let _ = crate::command::present::line(text);
    code
}

fn judge(result: std::io::Result<()>, harm: &str) -> Outcome {
    match result {
        Ok(()) => Succeeded(harm.to_owned()),
        Err(error) => Stopped(nix::Error::try_from(error).map_or("refused", |errno| errno.desc()).to_lowercase()),
    }
}

fn in_child(attempt: impl FnOnce() -> nix::Result<()>) -> std::io::Result<()> {
    let child = fork::in_child(|| i32::from(attempt().is_err()))?;
    match nix::sys::wait::waitpid(child, None)? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        _ => Err(nix::Error::EPERM.into()),
    }
}

/// Files of the kernel that no container may open so.
fn open_all(paths: &[String], writes: bool) -> Outcome {
    let mut why = String::from("none is there");
    for path in paths {
        let opened = if writes { OpenOptions::new().write(true).open(path) } else { File::open(path) };
        match opened {
            Ok(file) if writes || has_bytes(&file) => return Succeeded(format!("{path} is open")),
            Ok(_) => why = "empty".to_owned(),
            Err(error) => {
                if let Stopped(text) = judge(Err(error), "") {
                    why = text;
                }
            }
        }
    }
    Stopped(why)
}

fn has_bytes(mut file: &File) -> bool {
    std::io::Read::read(&mut file, &mut [0; 1]).is_ok_and(|length| length > 0)
}

/// Directories and files that must look empty.
fn hidden(paths: &[String]) -> Outcome {
    for path in paths {
        let has_entries = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if has_entries || File::open(path).is_ok_and(|file| has_bytes(&file)) {
            return Succeeded(format!("{path} shows something"));
        }
    }
    Stopped("all are empty".into())
}

/// The runtime's own binary, which this process was started from, is kept in a descriptor past the next execve, after
/// which nobody executes it any more and it could be written.
fn executable() -> Outcome {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/proc/self/exe");
    let Ok(file) = opened else { return Stopped("it cannot even be looked at".into()) };
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    crate::sys::fd::keep_on_exec(number);
    let error = Command::new("/selftest").args([WORD, "reopen", &number.to_string()]).exec();
    Stopped(error.to_string())
}

fn reopen(number: &str) -> Outcome {
    let path = format!("/proc/self/fd/{number}");
    match OpenOptions::new().write(true).open(&path) {
        Ok(_) => Succeeded("the runtime's binary is open for writing".into()),
        // The kernel looks at the mount only after it has seen that somebody executes it.
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && is_read_only(&path) => {
            Stopped("read-only mount".into())
        }
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
            Succeeded("the runtime's binary can be written once it is idle".into())
        }
        Err(error) => judge(Err(error), ""),
    }
}

fn is_read_only(path: &str) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs(path).is_ok_and(|status| status.flags().contains(FsFlags::ST_RDONLY))
}

fn descriptors() -> Outcome {
    let mut strange = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number: u32 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if number > 2 && !target.ends_with("fd") {
            strange.push(format!("{number} is {}", target.display()));
        }
    }
    if strange.is_empty() { Stopped("only 0, 1 and 2 are open".into()) } else { Succeeded(strange.join(", ")) }
}

fn status(field: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

fn status_is(field: &str, wanted: &str) -> Outcome {
    let value = status(field);
    if value.split(' ').all(|part| part == wanted) {
        Stopped(format!("{field} is {wanted}"))
    } else {
        Succeeded(format!("{field} is {value}"))
    }
}

/// A group more than the user's own takes away what a file denies to it.
fn groups(allowed: &str) -> Outcome {
    let groups = status("Groups");
    if groups.split(' ').all(|group| group.is_empty() || group == allowed) {
        Stopped(format!("groups: {groups:?}"))
    } else {
        Succeeded(format!("groups: {groups:?}"))
    }
}

fn environment(secret: &str) -> Outcome {
    match std::env::vars().find(|(name, value)| name.contains(secret) || value.contains(secret)) {
        Some((name, _)) => Succeeded(format!("{name} of the host is seen")),
        None => Stopped("nothing of the host's is seen".into()),
    }
}

/// A file of the host, from a working directory that may lie outside.
fn reach(path: &str) -> Outcome {
    let up = "../".repeat(24);
    match File::open(format!("{up}{}", path.trim_start_matches('/'))) {
        Ok(_) => Succeeded("a file of the host is open".into()),
        Err(error) => judge(Err(error), ""),
    }
}

fn mount() -> Outcome {
    let mounted = nix::mount::mount(Some("tmpfs"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>);
    judge(mounted.map_err(Into::into), "a file system was mounted")
}

fn release_agent() -> Outcome {
    let mounted = nix::mount::mount(Some("cgroup"), "/sys", Some("cgroup"), MsFlags::empty(), Some("memory"));
    if mounted.is_ok() {
        return Succeeded("a cgroup v1 hierarchy was mounted".into());
    }
    let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let agents: Vec<String> = trees.map(|tree| tree.path().join("release_agent").display().to_string()).collect();
    open_all(&agents, true)
}

fn make_cgroup() -> Outcome {
    let mut places = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    places.extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()));
    let made = places.iter().find(|place| {
        let path = place.join("selftest");
        fs::create_dir(&path).is_ok_and(|()| fs::remove_dir(&path).is_ok())
    });
    match made {
        Some(place) if place.join("cgroup.procs").exists() => {
            Succeeded(format!("a group was made in {}", place.display()))
        }
        _ => Stopped("no group can be made".into()),
    }
}

/// The memory of the machine, and its first disk, by nodes of one's own.
fn disk() -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    for (kind, major, minor) in [(SFlag::S_IFCHR, 1, 1), (SFlag::S_IFBLK, 8, 0), (SFlag::S_IFBLK, 254, 0)] {
        let _ = fs::remove_file("/node");
        if mknod("/node", kind, Mode::S_IRUSR, makedev(major, minor)).is_ok() && File::open("/node").is_ok() {
            return Succeeded(format!("device {major}:{minor} is open"));
        }
    }
    Stopped("no device can be opened".into())
}

fn refused(number: libc::c_long, harm: &str) -> Outcome {
    match probe::call(number, [0; 5]) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EACCES)) => {
            judge(Err(error), harm)
        }
        _ => Succeeded(harm.to_owned()),
    }
}

/// In the host's network namespace abstract sockets have no owner.
fn abstract_sockets() -> Outcome {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    match table.lines().find(|line| line.contains('@') && line.contains("coracle")) {
        Some(line) => Succeeded(format!("reachable: {}", line.split_whitespace().last().unwrap_or_default())),
        None => Stopped("there is none of ours".into()),
    }
}
