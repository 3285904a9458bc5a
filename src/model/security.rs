//! Privileges and confinement that were asked for.

use serde::{Deserialize, Serialize};

/// Everything of `--privileged`, `--cap-*` and `--security-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `--privileged`.
    pub privileged: bool,
    /// `default_capabilities` of containers.conf, upper case with `CAP_`; absent: ours.
    pub cap_default: Option<Vec<String>>,
    /// `--cap-add`, upper case with `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`, upper case with `CAP_`, or `ALL`.
    pub cap_drop: Vec<String>,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=`.
    pub seccomp: Seccomp,
    /// `apparmor=`: a profile's name, `unconfined`, or absent: the default where the host has AppArmor.
    pub apparmor: Option<String>,
    /// `label=…` parts (`disable`, `type:…`), in order.
    pub label: Vec<String>,
    /// `mask=`: further masked paths.
    pub mask: Vec<String>,
    /// `unmask=`: paths (globs) that are not masked; `ALL` for all.
    pub unmask: Vec<String>,
    /// `proc-opts=`.
    pub proc_options: Vec<String>,
    /// `--sysctl`.
    pub sysctl: Vec<(String, String)>,
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The built-in profile (none when privileged).
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The profile in this file, absolute path; its text is kept so that a restart does not depend on the file.
    File {
        /// Where it came from.
        path: String,
        /// Docker's profile JSON.
        json: String,
    },
}
