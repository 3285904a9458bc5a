//! What each step is called, in goldens and in errors: a verb and its object.

use super::{Place, Step};
use std::ffi::CStr;
use std::fmt;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &CStr| bytes.to_string_lossy().into_owned();
        match self {
            Step::Say(word) => write!(f, "say {word:?}"),
            Step::Hear(word) => write!(f, "wait for {word:?}"),
            Step::Door => write!(f, "wait at the door for Start"),
            Step::EnterCgroups => write!(f, "enter the cgroups"),
            Step::Reveal => write!(f, "show itself to its user"),
            Step::Conceal => write!(f, "hide from tracers"),
            Step::NewSession => write!(f, "make a session"),
            Step::Unshare(kinds) => write!(f, "make namespaces {kinds:#x}"),
            Step::BecomeRoot { uid, gid } => write!(f, "become user {uid}:{gid} of the user namespace"),
            Step::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Step::Keyring(name) => write!(f, "make session keyring {}", text(name)),
            Step::Personality(persona) => write!(f, "set personality {persona:#x}"),
            Step::MemoryPolicy { mode, nodes } => write!(f, "set memory policy {mode:#x} nodes {nodes:x?}"),
            Step::IoPriority { class, level } => write!(f, "set io priority class {class} level {level}"),
            Step::Scheduler(s) => {
                write!(f, "set scheduler policy {} nice {} priority {}", s.policy, s.nice, s.priority)
            }
            Step::Affinity(mask) if mask.iter().all(|word| *word == u64::MAX) => write!(f, "allow every processor"),
            Step::Affinity(mask) => write!(f, "set cpu affinity {mask:x?}"),
            Step::Label(label) => label.fmt(f),
            Step::Join { name, place: Place::Path(path), .. } => write!(f, "join {name} namespace {}", text(path)),
            Step::Join { name, place: Place::Fd(_), .. } => write!(f, "join {name} namespace by descriptor"),
            Step::JoinProcess { kinds, .. } => write!(f, "join the container's namespaces {kinds:#x}"),
            Step::NewCgroupNamespace => write!(f, "make cgroup namespace"),
            Step::OpenTimeOffsets => write!(f, "open the offsets of time"),
            Step::NewTimeNamespace(offsets) => {
                write!(f, "make time namespace {}", String::from_utf8_lossy(offsets).trim().replace('\n', ", "))
            }
            Step::LoopbackUp => write!(f, "raise the loopback interface"),
            Step::HostName(name) => write!(f, "set host name {}", text(name)),
            Step::DomainName(name) => write!(f, "set domain name {}", text(name)),
            Step::Propagation { flags, recursive } => {
                write!(f, "make the host's mounts {}{}", recursion(*recursive), propagation_name(*flags))
            }
            Step::AttachRoot { path, prepared: false, .. } => write!(f, "attach root file system {}", text(path)),
            Step::AttachRoot { .. } => write!(f, "attach the prepared root file system"),
            Step::RootPropagation { flags, recursive } => {
                write!(f, "make the root file system {}{}", recursion(*recursive), propagation_name(*flags))
            }
            Step::Mount(mount) => mount.fmt(f),
            Step::Device(d) => write!(
                f,
                "make device {} {:o} {}:{} owner {}:{}",
                text(&d.path),
                d.kind | d.mode,
                d.major,
                d.minor,
                d.uid,
                d.gid
            ),
            Step::Link { target, path } => write!(f, "link {} to {}", text(path), text(target)),
            Step::Console { .. } => write!(f, "open the console"),
            Step::MakeWorkDir(path) => write!(f, "make working directory {}", text(path)),
            Step::Mask(path) => write!(f, "mask {}", text(path)),
            Step::ReadOnly(path) => write!(f, "make {} read-only", text(path)),
            Step::ReadOnlyRoot => write!(f, "make the root file system read-only"),
            Step::Sysctl { path, value } => write!(f, "set {} to {}", text(path), text(value)),
            Step::Hook(hook) => hook.fmt(f),
            Step::PivotRoot => write!(f, "change root (pivot_root)"),
            Step::MoveRoot => write!(f, "change root (move)"),
            Step::Terminal { rows, columns, owner } => write!(f, "take the terminal {columns}x{rows} for user {owner}"),
            Step::Stdio { uid, gid } => write!(f, "set stdio, for user {uid}:{gid}"),
            Step::CloseOnExec { first } => write!(f, "close descriptors from {first} on exec"),
            Step::WorkDir { path, .. } => write!(f, "chdir to {}", text(path)),
            Step::Limit(limit) => write!(f, "set {limit}"),
            Step::Bounding(dropped) => write!(f, "drop bounding capabilities {dropped:?}"),
            Step::Groups(groups) => write!(f, "set groups {groups:?}"),
            Step::User { uid, gid } => write!(f, "become user {uid}:{gid}"),
            Step::Capabilities(s) => write!(
                f,
                "set capabilities effective {:#x} permitted {:#x} inheritable {:#x}",
                s.effective, s.permitted, s.inheritable
            ),
            Step::Ambient(raised) => write!(f, "set ambient capabilities {raised:?}"),
            Step::NoNewPrivileges => write!(f, "set no_new_privs"),
            Step::Filter(filter) => {
                let count = filter.instructions.len();
                write!(f, "install seccomp filter of {count} instructions, flags {:#x}", filter.flags)
            }
            Step::Home => write!(f, "set HOME"),
            Step::FindCommand => write!(f, "find the command"),
            Step::DieWithParent => write!(f, "bind life to the parent's"),
            Step::Execute => write!(f, "execute the command"),
        }
    }
}

fn recursion(recursive: bool) -> &'static str {
    if recursive { "r" } else { "" }
}

/// The word for an MS_* propagation flag.
pub fn propagation_name(flags: u64) -> &'static str {
    match flags {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_UNBINDABLE => "unbindable",
        _ => "private",
    }
}
