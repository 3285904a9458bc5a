//! Where cgroups are on this host, and where a new one goes. Reads, never writes.
//!
//! The tree is looked for at /sys/fs/cgroup, where every distribution has it; there is no search of mountinfo, which
//! may be long on a host with many containers.
#![forbid(unsafe_code)]

use super::Request;
use anyhow::{Context, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Where the hierarchies are mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// The parent of our cgroups when no path is asked for.
const PARENT: &str = "coracle";

/// What kind of host this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Version 2 only; its root.
    Unified(PathBuf),
    /// Controllers on version 1; on hybrid hosts there is a version 2 tree without controllers too.
    Legacy {
        /// Root of the version 2 tree.
        unified: Option<PathBuf>,
    },
    /// None mounted.
    Absent,
}

impl Layout {
    pub(super) fn detect() -> Layout {
        let is_v2 = |path: &Path| statfs(path).is_ok_and(|status| status.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let root = PathBuf::from(ROOT);
        if is_v2(&root) {
            return Layout::Unified(root);
        }
        let unified = root.join("unified");
        let unified = is_v2(&unified).then_some(unified);
        let any = ["memory", "devices", "pids", "cpu", "freezer"].iter().any(|name| root.join(name).is_dir());
        if any || unified.is_some() { Layout::Legacy { unified } } else { Layout::Absent }
    }
}

/// Where a version 1 controller would be mounted.
pub(super) fn legacy_root(controller: &str) -> PathBuf {
    Path::new(ROOT).join(controller)
}

/// A version 1 tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Its controllers; or one name in the form `name=systemd`.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) root: PathBuf,
    /// The caller's group in it.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// The version 1 trees that are mounted.
pub(super) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    Ok(text.lines().filter_map(hierarchy).filter(|hierarchy| hierarchy.root.is_dir()).collect())
}

/// `5:cpu,cpuacct:/path`; trees of several controllers are mounted under the joined name or under the first.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let mut fields = line.splitn(3, ':');
    let (_, names, own) = (fields.next()?, fields.next()?, fields.next()?);
    let controllers: Vec<String> = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let first = controllers.first()?;
    let joined = legacy_root(names.strip_prefix("name=").unwrap_or(names));
    let root = if controllers.len() == 1 || joined.is_dir() { joined } else { legacy_root(first) };
    Some(Hierarchy { root, own: PathBuf::from(own), controllers })
}

/// The version 1 controllers that are mounted.
pub(super) fn legacy_controllers() -> BTreeSet<String> {
    let all = hierarchies().unwrap_or_default();
    all.into_iter().flat_map(|hierarchy| hierarchy.controllers).filter(|name| !name.contains('=')).collect()
}

/// Where the caller's processes go in a version 1 tree in which the container has no group of its own: not the host's
/// root, whose release_agent and limits a container that may mount the tree would see (CVE-2022-0492).
pub(super) fn shared(hierarchy: &Hierarchy) -> PathBuf {
    hierarchy.root.join(PARENT)
}

/// The path of the new group below a hierarchy's root. `own` gives the caller's, for relative paths as in runc.
pub(super) fn path(request: &Request, own: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let joined = match request.path {
        Some(path) if path.as_os_str().is_empty() => return path_default(request, own),
        None => return path_default(request, own),
        Some(path) if path.is_absolute() => path.to_path_buf(),
        // The caller's own group holds processes, so no controller could be enabled below it: beside it, as runc does.
        Some(path) => own()?.parent().unwrap_or(Path::new("/")).join(path),
    };
    inside(&joined)
}

fn path_default(request: &Request, own: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    if request.rootless {
        let name = format!("{PARENT}-{}", request.id);
        return inside(&own()?.parent().unwrap_or(Path::new("/")).join(name));
    }
    Ok(Path::new(PARENT).join(request.id))
}

/// The path without its leading slash and without ways out of the tree.
fn inside(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => bail!("cgroup path `{}` contains `..`", path.display()),
            Component::Normal(part) => clean.push(part),
        }
    }
    if clean.as_os_str().is_empty() {
        bail!("cgroup path `{}` is the root of the hierarchy, which cannot be limited", path.display());
    }
    Ok(clean)
}

/// The caller's group in version 2.
pub(super) fn own_path() -> Result<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    line.map(PathBuf::from).context("find a cgroup v2 entry in /proc/self/cgroup")
}

#[cfg(test)]
mod tests {
    use super::super::Manager;
    use super::*;

    fn check(path: Option<&str>, rootless: bool, expected: &str) {
        let path = path.map(Path::new);
        let manager = Manager::Cgroupfs;
        let request = Request { id: "c1", path, resources: None, manager, rootless, everywhere: false };
        let found = path_or_error(&request);
        assert_eq!(found, expected, "{path:?}");
    }

    fn path_or_error(request: &Request) -> String {
        match path(request, || Ok(PathBuf::from("/user.slice/run.scope"))) {
            Ok(path) => path.display().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_group_stays_inside_the_tree() {
        check(None, false, "coracle/c1");
        check(Some(""), false, "coracle/c1");
        check(None, true, "user.slice/coracle-c1");
        check(Some("/pods/x"), false, "pods/x");
        check(Some("x/y"), false, "user.slice/x/y");
        check(Some("/a/../../etc"), false, "cgroup path `/a/../../etc` contains `..`");
        check(Some("/"), false, "cgroup path `/` is the root of the hierarchy, which cannot be limited");
    }

    #[test]
    fn trees_of_version_1() {
        let names = |line: &str| {
            let hierarchy = hierarchy(line)?;
            Some(format!("{:?} {} {}", hierarchy.controllers, hierarchy.root.display(), hierarchy.own.display()))
        };
        assert_eq!(names("4:memory:/m:x").unwrap(), r#"["memory"] /sys/fs/cgroup/memory /m:x"#);
        assert_eq!(names("1:name=systemd:/s").unwrap(), r#"["name=systemd"] /sys/fs/cgroup/systemd /s"#);
        assert_eq!(names("0::/u"), None);
    }
}
