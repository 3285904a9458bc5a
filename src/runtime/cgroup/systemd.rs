//! The systemd manager: a transient scope for a container, made around its first process.
//!
//! Limits are told to systemd, so that it does not undo them, and written into the files as well (mod.rs), which
//! settles what systemd has no property for. The scope is delegated: below it the tree is the container's.
#![forbid(unsafe_code)]

use super::limit::{swap_v2, weight_of_shares};
use super::place::ROOT;
use super::{Request, Saved};
use crate::host::systemd::{self, Manager, Property, Value};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A scope and whose manager holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Such as `coracle-ID.scope`.
    pub unit: String,
    /// The slice it stands in.
    pub slice: String,
    /// The user's id on the host; absent: the system's manager.
    pub user: Option<u32>,
}

/// What the scope of this request is called: OCI's `slice:prefix:name`, `NAME.slice/name`, or by default.
pub(super) fn scope(request: &Request) -> Result<Scope> {
    let user = request.rootless.then(host_uid).transpose()?;
    let default_slice = if request.rootless { "user.slice" } else { "machine.slice" };
    let text = request.path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let (slice, prefix, name) = if text.is_empty() {
        (default_slice.to_owned(), "coracle".to_owned(), request.id.to_owned())
    } else if let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] {
        (if slice.is_empty() { default_slice } else { slice }.to_owned(), prefix.to_owned(), name.to_owned())
    } else {
        let path = Path::new(&text);
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        match (part(path.parent().and_then(Path::file_name)), part(path.file_name())) {
            (Some(slice), Some(name)) if slice.ends_with(".slice") => (slice, "coracle".to_owned(), name),
            _ => bail!("cgroup path `{text}` is not of the form slice:prefix:name, which the systemd manager needs"),
        }
    };
    if !slice.ends_with(".slice") || slice.contains('/') {
        bail!("cgroup path `{text}`: `{slice}` is not the name of a systemd slice");
    }
    let stem = if prefix.is_empty() { name } else { format!("{prefix}-{name}") };
    if stem.is_empty() || !stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)) {
        bail!("cgroup path `{text}`: `{stem}.scope` is not the name of a systemd unit");
    }
    Ok(Scope { unit: format!("{stem}.scope"), slice, user })
}

/// Our id as the host knows it; inside a user namespace we may be 0.
pub(super) fn host_uid() -> Result<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").context("read /proc/self/uid_map")?;
    let own = nix::unistd::geteuid().as_raw();
    outside(&map, own).with_context(|| format!("find user id {own} in /proc/self/uid_map"))
}

fn outside(map: &str, inside: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (first, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = inside.checked_sub(first).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Where systemd will put it.
pub(super) fn expected_path(scope: &Scope) -> PathBuf {
    let mut path = PathBuf::from(ROOT);
    if let Some(user) = scope.user {
        path.extend(["user.slice".to_owned(), format!("user-{user}.slice"), format!("user@{user}.service")]);
    }
    path.extend(slice_path(&scope.slice));
    path.join(&scope.unit)
}

/// `a-b.slice` stands in `a.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> Vec<String> {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let mut path = Vec::new();
    for (position, letter) in stem.char_indices() {
        if letter == '-' && position > 0 {
            path.push(format!("{}.slice", &stem[..position]));
        }
    }
    if stem != "-" {
        path.push(slice.to_owned());
    }
    path
}

/// Starts the scope around a process and says where it is.
pub(super) fn start(scope: &Scope, id: &str, pid: i32, resources: Option<&LinuxResources>) -> Result<PathBuf> {
    let pid_number = u32::try_from(pid).context("a process id is positive")?;
    let mut list = vec![
        Property::new("Description", Value::Text(format!("coracle container {id}"))),
        Property::new("Slice", Value::Text(scope.slice.clone())),
        Property::new("DefaultDependencies", Value::Truth(false)),
        Property::new("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        Property::new("Delegate", Value::Truth(true)),
        Property::new("PIDs", Value::Pids(vec![pid_number])),
    ];
    for accounting in ["CPUAccounting", "IOAccounting", "MemoryAccounting", "TasksAccounting"] {
        list.push(Property::new(accounting, Value::Truth(true)));
    }
    list.extend(properties(resources)?);
    Manager::connect(scope.user)?.start_transient(&scope.unit, &list)?;
    path_of_process(pid)
}

fn path_of_process(pid: i32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    // On hybrid hosts systemd keeps its tree under its own name.
    let line = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
    let line = line.or_else(|| text.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path)));
    let path = line.with_context(|| format!("find the cgroup of process {pid}"))?;
    Ok(PathBuf::from(path.trim_start_matches('/')))
}

/// Tells systemd of new limits.
pub(super) fn update(scope: &Scope, resources: &LinuxResources) -> Result<()> {
    let list = properties(Some(resources))?;
    if list.is_empty() {
        return Ok(());
    }
    Manager::connect(scope.user)?.set(&scope.unit, &list)
}

/// Moves a process in where the caller may not do so by hand.
pub(super) fn attach(scope: &Scope, pid: i32) -> Result<()> {
    Manager::connect(scope.user)?.attach(&scope.unit, u32::try_from(pid).context("a process id is positive")?)
}

/// Has systemd forget the scope, so that its name is free.
pub(super) fn stop(scope: &Scope) -> Result<()> {
    Manager::connect(scope.user)?.stop(&scope.unit)
}

/// Whether the manager that a request needs can be asked.
pub(super) fn is_there(rootless: bool) -> bool {
    match rootless.then(host_uid) {
        None => systemd::is_there(None),
        Some(Ok(user)) => systemd::is_there(Some(user)),
        Some(Err(_)) => false,
    }
}

/// The controllers that a scope of this caller would have.
pub(super) fn available(root: &Path, rootless: bool) -> std::collections::BTreeSet<String> {
    let manager = match rootless.then(host_uid) {
        Some(Ok(user)) => root.join(format!("user.slice/user-{user}.slice/user@{user}.service")),
        _ => root.to_path_buf(),
    };
    super::v2::controllers(&manager)
}

/// The saved state of a scope that will be started.
pub(super) fn prepare(scope: Scope, saved: &mut Saved) {
    saved.unified = Some(expected_path(&scope));
    saved.scope = Some(scope);
}

fn properties(resources: Option<&LinuxResources>) -> Result<Vec<Property>> {
    let mut list = Vec::new();
    let Some(resources) = resources else { return Ok(list) };
    if let Some(memory) = resources.memory() {
        memory_properties(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_properties(cpu, &mut list)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = u64::try_from(pids.limit()).ok().filter(|limit| *limit != 0).unwrap_or(u64::MAX);
        list.push(Property::new("TasksMax", Value::Number(limit)));
    }
    Ok(list)
}

fn bytes(value: i64) -> Value {
    Value::Number(u64::try_from(value).unwrap_or(u64::MAX))
}

fn memory_properties(memory: &LinuxMemory, list: &mut Vec<Property>) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        list.push(Property::new("MemoryMax", bytes(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        list.push(Property::new("MemoryLow", bytes(reservation)));
    }
    if let Some(swap) = swap_v2(memory.swap().filter(|swap| *swap != 0), limit)? {
        list.push(Property::new("MemorySwapMax", Value::Number(swap.parse().unwrap_or(u64::MAX))));
    }
    Ok(())
}

fn cpu_properties(cpu: &LinuxCpu, list: &mut Vec<Property>) -> Result<()> {
    match (cpu.idle(), cpu.shares()) {
        // systemd 252 writes cpu.idle for weight 0.
        (Some(1), _) => list.push(Property::new("CPUWeight", Value::Number(0))),
        (_, Some(shares @ 1..)) => list.push(Property::new("CPUWeight", Value::Number(weight_of_shares(shares)))),
        _ => {}
    }
    let (quota, period) = (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        let per_second = match quota.map(u64::try_from) {
            Some(Ok(quota)) => quota_per_second(quota, period.unwrap_or(100_000)),
            _ => u64::MAX,
        };
        list.push(Property::new("CPUQuotaPerSecUSec", Value::Number(per_second)));
        if let Some(period) = period {
            list.push(Property::new("CPUQuotaPeriodUSec", Value::Number(period)));
        }
    }
    for (text, name) in [(cpu.cpus(), "AllowedCPUs"), (cpu.mems(), "AllowedMemoryNodes")] {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            list.push(Property::new(name, Value::Bytes(bit_mask(text)?)));
        }
    }
    Ok(())
}

/// Microseconds a second, in whole percent upwards, as systemd counts them (runc rounds so too).
fn quota_per_second(quota: u64, period: u64) -> u64 {
    (quota.saturating_mul(1_000_000) / period).next_multiple_of(10_000)
}

/// `0-2,7` as bits.
fn bit_mask(text: &str) -> Result<Vec<u8>> {
    let mut mask = Vec::new();
    for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < 8192);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            bail!("`{text}` is not a list of numbers and ranges such as 0-2,7");
        };
        if first > last {
            bail!("`{text}`: the range {range} ends before it begins");
        }
        for bit in first..=last {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cgroup::Manager;

    fn check(path: &str, expected: &str) {
        let request = Request {
            id: "c1",
            path: Some(Path::new(path)),
            resources: None,
            manager: Manager::Systemd,
            rootless: false,
            everywhere: false,
        };
        let found = match scope(&request) {
            Ok(scope) => expected_path(&scope).display().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn names_and_places() {
        check("", "/sys/fs/cgroup/machine.slice/coracle-c1.scope");
        check("a-b.slice:x:y", "/sys/fs/cgroup/a.slice/a-b.slice/x-y.scope");
        check("-.slice::y", "/sys/fs/cgroup/y.scope");
        check(":cri:y", "/sys/fs/cgroup/machine.slice/cri-y.scope");
        check("/my.slice/c1", "/sys/fs/cgroup/my.slice/coracle-c1.scope");
        check("/a/b", "cgroup path `/a/b` is not of the form slice:prefix:name, which the systemd manager needs");
        check("a:b:c", "cgroup path `a:b:c`: `a` is not the name of a systemd slice");
        check("a.slice:b:c/d", "cgroup path `a.slice:b:c/d`: `b-c/d.scope` is not the name of a systemd unit");
    }

    #[test]
    fn masks_quotas_and_ids() {
        assert_eq!(bit_mask("0-2,9").unwrap(), [7, 2]);
        assert!(bit_mask("3-1").is_err());
        assert!(bit_mask("x").is_err());
        assert_eq!(quota_per_second(50_000, 100_000), 500_000);
        assert_eq!(quota_per_second(1, 3), 340_000);
        assert_eq!(outside("0 1000 1\n1 100000 65536\n", 0), Some(1000));
        assert_eq!(outside("0 1000 1\n1 100000 65536\n", 5), Some(100_004));
        assert_eq!(outside("0 1000 1\n", 5), None);
    }
}
