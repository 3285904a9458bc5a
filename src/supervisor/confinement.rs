//! What the host's security modules add: an AppArmor profile, an SELinux label.
//!
//! What was asked for and cannot be is an error; what nobody asked for is left out where the host has no such module.

use crate::failure::{Explain, Failure, Kind};
use crate::host::apparmor as host_apparmor;
use crate::model::security::Security;
use crate::runtime::label;
use anyhow::Result;

/// The profile to apply, where the host has AppArmor.
pub(super) fn apparmor(security: &Security, rootless: bool) -> Result<Option<String>> {
    match security.apparmor.as_deref() {
        // A user can load no policy, and the machine's own does not know of containers of users.
        None if security.privileged || rootless => Ok(None),
        None => {
            let profile = host_apparmor::default_profile()
                .hint("see `journalctl -k | grep apparmor`, or run without it: `--security-opt apparmor=unconfined`")?;
            Ok(profile.map(str::to_owned))
        }
        Some("unconfined" | "") => Ok(None),
        Some(profile) if label::has_apparmor() => Ok(Some(profile.to_owned())),
        Some(profile) => Err(Failure::new(
            Kind::Engine,
            format!("profile {profile:?} specified but AppArmor is disabled on the host"),
        )
        .hint("leave --security-opt apparmor=… away, or boot with AppArmor (apparmor=1 security=apparmor)")
        .into()),
    }
}

/// The label made of `label=user:…,role:…,type:…,level:…`, where the host has SELinux.
pub(super) fn selinux(security: &Security) -> Result<Option<String>> {
    let parts: Vec<(&str, &str)> = security.label.iter().filter_map(|part| part.split_once(':')).collect();
    let disabled = security.label.iter().any(|part| part == "disable");
    if parts.is_empty() || disabled {
        return Ok(None);
    }
    if !label::has_selinux() {
        return Err(Failure::new(
            Kind::Engine,
            format!("label={} was asked for, but SELinux is disabled on the host", security.label[0]),
        )
        .hint("leave --security-opt label=… away")
        .into());
    }
    let part = |name: &str, default: &str| -> String {
        parts.iter().rev().find(|(known, _)| *known == name).map_or(default, |(_, value)| value).to_owned()
    };
    Ok(Some(format!(
        "{}:{}:{}:{}",
        part("user", "system_u"),
        part("role", "system_r"),
        part("type", "container_t"),
        part("level", "s0")
    )))
}
