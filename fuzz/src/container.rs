//! The parsers of a container: its specification, mount options, users and filters.

use crate::bundle::{seccomp as profile, user as accounts};
use crate::model::user::UserRef;
use crate::runtime::plan::{PlanOptions, plan as make_plan};
use crate::runtime::{lifecycle, seccomp as filter};
use oci_spec::runtime::{Capabilities, Spec};
use serde_json::{Value, json};

/// The longest filter that the kernel takes (BPF_MAXINSNS).
const FILTER_MAX: usize = 4096;

fn options() -> PlanOptions {
    PlanOptions { id: "web".into(), bundle: "/bundle".into(), ..PlanOptions::default() }
}

/// A specification: a plan that can be told, or a refusal that says something.
pub fn plan(data: &[u8]) {
    let text = lifecycle::with_known_names(data);
    let Ok(spec) = serde_json::from_slice::<Spec>(&text) else { return };
    match make_plan(&spec, options()) {
        Ok(plan) => assert!(plan.to_string().contains("child: execute the command")),
        Err(error) => assert!(!format!("{error:#}").is_empty()),
    }
}

/// The options of a mount, one a line; type, source and target are the first three.
pub fn mount(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let [kind, source, target] = [lines.next(), lines.next(), lines.next()].map(Option::unwrap_or_default);
    let mount = json!({"type": kind, "source": source, "destination": target, "options": lines.collect::<Vec<_>>()});
    let document: Value = json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [mount],
        "linux": {"namespaces": [{"type": "mount"}]},
    });
    let Ok(spec) = serde_json::from_value::<Spec>(document) else { return };
    let Ok(plan) = make_plan(&spec, options()) else { return };
    let told = plan.to_string();
    let inside = |line: &&str| line.starts_with("child: ") && line.contains(" on /proc/");
    let covers = told.lines().find(inside).filter(|_| target.starts_with("/proc/self") && !target.contains("//"));
    assert!(covers.is_none(), "{told}");
}

/// A user, passwd and group, with a zero byte between them. A number is that number, whatever the files say.
pub fn user(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0');
    let [wanted, passwd, group] = [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default);
    let Ok(parsed) = UserRef::parse(wanted) else { return };
    let Ok(resolved) = accounts::resolve(Some(&parsed), &[], passwd, group) else { return };
    if let Ok(number) = wanted.parse::<u32>() {
        assert_eq!(resolved.uid, number, "{text:?}");
    }
    assert!(resolved.groups.is_sorted() && resolved.groups.windows(2).all(|pair| pair[0] != pair[1]), "{text:?}");
}

/// A profile: a filter that the kernel would take, or a refusal.
pub fn seccomp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let capabilities = Capabilities::new();
    let host = profile::Host { capabilities: &capabilities, kernel: (6, 1) };
    let Ok(parsed) = profile::parse(text, host) else { return };
    if let Ok(program) = filter::compile(&parsed) {
        assert!(program.instructions.len() <= FILTER_MAX);
    }
}
