//! Docker's profile format (`--security-opt seccomp=FILE`): OCI's, with conditions on capabilities, machine and kernel.
//!
//! Read field by field so that an error names the place in the document: `syscalls[3].action: …`. A field that is not
//! known is passed over, as in Docker and podman: profiles carry comments.
#![forbid(unsafe_code)]

use super::companions;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;

/// What the conditions of a profile ask about.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// What the container's processes can have at most.
    pub capabilities: &'a Capabilities,
    /// Major and minor version.
    pub kernel: (u32, u32),
}

/// The machine in Docker's words, and OCI's.
#[cfg(not(target_arch = "aarch64"))]
const NATIVE: (&str, Arch) = ("amd64", Arch::ScmpArchX86_64);
/// The machine in Docker's words, and OCI's.
#[cfg(target_arch = "aarch64")]
const NATIVE: (&str, Arch) = ("arm64", Arch::ScmpArchAarch64);

/// The running kernel's version, for [`Host`].
pub fn running_kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().ok();
    let release = release.as_ref().and_then(|names| names.release().to_str()).unwrap_or_default();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The OCI profile that this document means on this host.
pub fn parse(json: &str, host: Host) -> Result<LinuxSeccomp> {
    let document: Value = serde_json::from_str(json).context("not JSON")?;
    let root = Place { value: &document, path: String::new() };
    if !document.is_object() {
        bail!("the document is not an object");
    }
    let mut profile = LinuxSeccomp::default();
    let default: LinuxSeccompAction = root.field("defaultAction").required()?.word("action")?;
    profile.set_default_action(default);
    profile.set_default_errno_ret(root.field("defaultErrnoRet").number()?.map(|number| number as u32));
    if let Some(name) = root.field("defaultErrno").text()? {
        profile.set_default_errno_ret(Some(errno(name, &root.field("defaultErrno").path)?));
    }
    profile.set_architectures(architectures(&root)?);
    let flags = root.field("flags");
    if let Some(items) = flags.items()? {
        let flags: Result<Vec<LinuxSeccompFilterFlag>> = items.iter().map(|item| item.word("flag")).collect();
        profile.set_flags(Some(flags?));
    }
    profile.set_listener_path(root.field("listenerPath").text()?.filter(|path| !path.is_empty()).map(PathBuf::from));
    let metadata = root.field("listenerMetadata").text()?.filter(|text| !text.is_empty());
    profile.set_listener_metadata(metadata.map(str::to_owned));
    let mut calls = Vec::new();
    for entry in root.field("syscalls").items()?.unwrap_or_default() {
        calls.extend(call(&entry, host)?);
    }
    profile.set_syscalls(Some(calls));
    Ok(profile)
}

fn architectures(root: &Place) -> Result<Option<Vec<Arch>>> {
    let (listed, map) = (root.field("architectures"), root.field("archMap"));
    let list: Vec<Arch> =
        listed.items()?.unwrap_or_default().iter().map(|item| item.word("architecture")).collect::<Result<_>>()?;
    let entries = map.items()?.unwrap_or_default();
    if !list.is_empty() && !entries.is_empty() {
        bail!("{}: give this or architectures, not both", map.path);
    }
    if !list.is_empty() {
        return Ok(Some(list));
    }
    let mut architectures = Vec::new();
    for entry in &entries {
        let architecture: Arch = entry.field("architecture").required()?.word("architecture")?;
        let parts = entry.field("subArchitectures").items()?.unwrap_or_default();
        let parts: Vec<Arch> = parts.iter().map(|item| item.word("architecture")).collect::<Result<_>>()?;
        if architecture == NATIVE.1 {
            architectures.push(architecture);
            architectures.extend(parts);
        }
    }
    // A profile that names none is meant for the machine as a whole.
    if architectures.is_empty() && entries.is_empty() {
        architectures.push(NATIVE.1);
        architectures.extend(companions(NATIVE.1));
    }
    Ok(Some(architectures))
}

fn call(entry: &Place, host: Host) -> Result<Option<LinuxSyscall>> {
    let (name, names) = (entry.field("name"), entry.field("names"));
    let mut list: Vec<String> = Vec::new();
    for item in names.items()?.unwrap_or_default() {
        list.push(item.required()?.text()?.unwrap_or_default().to_owned());
    }
    if let Some(name) = name.text()?.filter(|name| !name.is_empty()) {
        if !list.is_empty() {
            bail!("{}: give this or names, not both", entry.field("name").path);
        }
        list.push(name.to_owned());
    }
    if list.is_empty() {
        bail!("{}: no system call is named", names.path);
    }
    let mut call = LinuxSyscall::default();
    call.set_names(list).set_action(entry.field("action").required()?.word("action")?);
    call.set_errno_ret(entry.field("errnoRet").number()?.map(|number| number as u32));
    if let Some(name) = entry.field("errno").text()?.filter(|name| !name.is_empty()) {
        call.set_errno_ret(Some(errno(name, &entry.field("errno").path)?));
    }
    let args: Vec<LinuxSeccompArg> =
        entry.field("args").items()?.unwrap_or_default().iter().map(argument).collect::<Result<_>>()?;
    call.set_args((!args.is_empty()).then_some(args));
    // Conditions last: a mistake in a rule is told also where the rule does not apply.
    let applies = holds(&entry.field("includes"), host, true)? && !holds(&entry.field("excludes"), host, false)?;
    Ok(applies.then_some(call))
}

fn argument(place: &Place) -> Result<LinuxSeccompArg> {
    let index = place.field("index").number()?.unwrap_or(0);
    if index > 5 {
        bail!("{}: {index} is not one of 0 to 5", place.field("index").path);
    }
    let builder = LinuxSeccompArgBuilder::default()
        .index(index as usize)
        .value(place.field("value").number()?.unwrap_or(0))
        .value_two(place.field("valueTwo").number()?.unwrap_or(0))
        .op(place.field("op").required()?.word::<oci_spec::runtime::LinuxSeccompOperator>("operator")?);
    builder.build().with_context(|| place.path.clone())
}

/// Whether the condition is met: `every` part of it (includes), or any (excludes). An empty `excludes` excludes nothing.
fn holds(place: &Place, host: Host, every: bool) -> Result<bool> {
    let mut parts = Vec::new();
    for item in place.field("caps").items()?.unwrap_or_default() {
        let name = item.required()?.text()?.unwrap_or_default();
        let capability: Option<Capability> = name.strip_prefix("CAP_").unwrap_or(name).parse().ok();
        // One that is not known here is one the container has not.
        parts.push(capability.is_some_and(|capability| host.capabilities.contains(&capability)));
    }
    let arches = place.field("arches").items()?.unwrap_or_default();
    if !arches.is_empty() {
        let mut found = false;
        for item in &arches {
            found |= item.required()?.text()? == Some(NATIVE.0);
        }
        parts.push(found);
    }
    let kernel = place.field("minKernel");
    if let Some(text) = kernel.text()?.filter(|text| !text.is_empty()) {
        let version = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version: (u32, u32) = version.with_context(|| format!("{}: `{text}` is not like 4.8", kernel.path))?;
        parts.push(host.kernel >= version);
    }
    Ok(if every { parts.iter().all(|part| *part) } else { parts.iter().any(|part| *part) })
}

/// podman writes the error's name beside its number.
fn errno(name: &str, path: &str) -> Result<u32> {
    let found = (1..134).find(|number| format!("{:?}", nix::errno::Errno::from_raw(*number)) == name);
    match found {
        Some(number) => Ok(number as u32),
        None => bail!("{path}: unknown error `{name}`"),
    }
}

/// A value and where it stands.
struct Place<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Place<'a> {
    /// A field; `null` when absent.
    fn field(&self, name: &str) -> Place<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Place { value: self.value.get(name).unwrap_or(&Value::Null), path }
    }

    fn required(&self) -> Result<&Place<'a>> {
        match self.value {
            Value::Null => bail!("{}: missing", self.path),
            _ => Ok(self),
        }
    }

    fn wrong<T>(&self, expected: &str) -> Result<T> {
        bail!("{}: {} is not {expected}", self.path, self.value)
    }

    fn text(&self) -> Result<Option<&'a str>> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => self.wrong("a string"),
        }
    }

    fn number(&self) -> Result<Option<u64>> {
        match self.value {
            Value::Null => Ok(None),
            value => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => self.wrong("a number from 0"),
            },
        }
    }

    fn items(&self) -> Result<Option<Vec<Place<'a>>>> {
        match self.value {
            Value::Null => Ok(None),
            Value::Array(list) => Ok(Some(
                list.iter()
                    .enumerate()
                    .map(|(index, value)| Place { value, path: format!("{}[{index}]", self.path) })
                    .collect(),
            )),
            _ => self.wrong("a list"),
        }
    }

    /// One of OCI's words.
    fn word<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        match serde_json::from_value(self.value.clone()) {
            Ok(word) => Ok(word),
            Err(_) => self.wrong(&format!("a known {what}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, capabilities: &[Capability]) -> Result<LinuxSeccomp> {
        parse(json, Host { capabilities: &capabilities.iter().copied().collect(), kernel: (5, 15) })
    }

    fn refused(json: &str, expected: &str) {
        assert_eq!(check(json, &[]).expect_err(json).to_string(), expected, "{json}");
    }

    #[test]
    fn conditions() {
        let rule = |condition: &str| {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["x"],"action":"SCMP_ACT_ALLOW",{condition}}}]}}"#
            );
            let profile = check(&json, &[Capability::SysAdmin]).unwrap();
            !profile.syscalls().as_ref().unwrap().is_empty()
        };
        assert!(rule(r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#));
        assert!(!rule(r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_SYS_BOOT"]}"#));
        assert!(!rule(r#""excludes":{"caps":["CAP_SYS_BOOT","CAP_SYS_ADMIN"]}"#));
        assert!(rule(r#""excludes":{"caps":["CAP_SYS_BOOT"]},"comment":"x""#));
        assert!(rule(&format!(r#""includes":{{"arches":["s390","{}"]}}"#, NATIVE.0)));
        assert!(!rule(r#""includes":{"arches":["s390"]}"#));
        assert!(rule(r#""includes":{"minKernel":"4.8"}"#));
        assert!(!rule(r#""includes":{"minKernel":"6.1"}"#));
        assert!(rule(r#""excludes":{"minKernel":"6.1"},"includes":{}"#));
    }

    #[test]
    fn errors_name_the_place() {
        refused("[]", "the document is not an object");
        refused("{}", "defaultAction: missing");
        refused(r#"{"defaultAction":"SCMP_ACT_NO"}"#, r#"defaultAction: "SCMP_ACT_NO" is not a known action"#);
        let with = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{rest}}}"#);
        refused(&with(r#""architectures":["X"]"#), r#"architectures[0]: "X" is not a known architecture"#);
        refused(&with(r#""syscalls":[{"names":["a"]}]"#), "syscalls[0].action: missing");
        refused(&with(r#""syscalls":[{"action":"SCMP_ACT_ALLOW"}]"#), "syscalls[0].names: no system call is named");
        let args = r#""syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":9,"op":"SCMP_CMP_EQ"}]}]"#;
        refused(&with(args), "syscalls[0].args[0].index: 9 is not one of 0 to 5");
        let errno = r#""syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errno":"EWHAT"}]"#;
        refused(&with(errno), "syscalls[0].errno: unknown error `EWHAT`");
    }

    #[test]
    fn architectures_of_the_machine() {
        let profile = check(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, &[]).unwrap();
        let all = profile.architectures().clone().unwrap();
        assert_eq!(all[0], NATIVE.1);
        assert!(all.len() > 1);
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","archMap":
            [{"architecture":"SCMP_ARCH_S390X","subArchitectures":["SCMP_ARCH_S390"]}]}"#;
        let profile = check(json, &[]).unwrap();
        assert_eq!(profile.default_errno_ret(), Some(38));
        assert_eq!(profile.architectures().as_deref(), Some(&[][..]));
    }
}
