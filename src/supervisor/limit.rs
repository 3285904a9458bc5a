//! How far limits of processes can go here: the hard limits of this process, and whether it may raise them.

use crate::host::userns::Privilege;
use crate::model::resource::Ulimit;
use nix::sys::resource::{Resource, getrlimit};
use std::collections::BTreeMap;

/// Whether limits may be raised above the hard ones.
pub(super) fn may_raise(privilege: &Privilege, capabilities: u64) -> bool {
    !privilege.rootless && capabilities & (1 << caps::Capability::CAP_SYS_RESOURCE.index()) != 0
}

/// The hard limits of what was asked for and of what has defaults, by name.
pub(super) fn hard_limits(asked: &[Ulimit]) -> BTreeMap<String, u64> {
    let names = asked.iter().map(|limit| limit.name.as_str()).chain(["nofile", "nproc"]);
    let known = names.filter_map(|name| Some((name.to_owned(), getrlimit(resource(name)?).ok()?.1)));
    known.collect()
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}
