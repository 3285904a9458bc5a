//! AppArmor's default profile for containers: loaded into the kernel once a boot, by `apparmor_parser`.
//!
//! The kernel takes compiled policy only, and the compiler is AppArmor's own program; a host with AppArmor has it. The
//! profile includes nothing, so that it does not depend on the distribution's files.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The name under which it is loaded.
pub const DEFAULT_PROFILE: &str = "coracle-default";

/// A container may do what its namespaces and capabilities allow, but not mount, not trace what is not its own, not
/// open the kernel's cryptography sockets (CVE-2026-31431, also by the 32-bit calls that no seccomp filter can follow),
/// and not write to what of /proc and /sys is the host's.
const PROFILE: &str = r#"
profile coracle-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  unix,
  dbus,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=coracle-default,
  ptrace (trace, read, tracedby, readby) peer=coracle-default,

  deny network alg,
  deny mount,
  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
"#;

/// Whether the kernel has AppArmor and it is on.
pub fn is_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// The kernel's list of loaded profiles; absent inside most containers, where nothing could be loaded either.
const LOADED: &str = "/sys/kernel/security/apparmor/policy/profiles";

/// Makes sure that the default profile is loaded and gives its name; `None` where the host has no AppArmor or no
/// compiler for its policy, as podman has it. For root of the host only.
pub fn default_profile() -> Result<Option<&'static str>> {
    if !is_enabled() || !Path::new(LOADED).is_dir() {
        return Ok(None);
    }
    if !is_loaded(DEFAULT_PROFILE) {
        let Some(parser) =
            ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].iter().find(|path| Path::new(path).exists())
        else {
            return Ok(None);
        };
        load(parser).context("load the AppArmor profile coracle-default")?;
    }
    Ok(Some(DEFAULT_PROFILE))
}

/// Directories of the kernel's policy tree are named after the profile, a dot and a number.
fn is_loaded(profile: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(LOADED) else { return false };
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| name.rsplit_once('.').is_some_and(|(name, _)| name == profile))
}

fn load(parser: &str) -> Result<()> {
    // Replace rather than add: two containers may start at once.
    let mut child = Command::new(parser)
        .args(["--skip-cache", "--replace"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {parser}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(PROFILE.as_bytes()).with_context(|| format!("write to {parser}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {parser}"))?;
    if !output.status.success() {
        bail!("{parser}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
