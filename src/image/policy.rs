//! `policy.json`: which images may come in at all.
//!
//! Format: containers-policy.json(5). `insecureAcceptAnything` and `reject` are decided here; a rule that wants a
//! signature is a refusal that says so, never a silent accept.

use crate::failure::Explain;
use crate::image::reference::Reference;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The policy. Without a file everything is accepted, as with docker.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Policy {
    #[serde(default)]
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Requirement {
    r#type: String,
}

impl Policy {
    /// The user's file, else the system's; or the one that is named.
    pub fn load(named: Option<&Path>) -> Result<Policy> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = match named {
            Some(path) => Some(path.to_owned()),
            None => variable("XDG_CONFIG_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".config")))
                .into_iter()
                .chain([PathBuf::from("/etc")])
                .map(|folder| folder.join("containers/policy.json"))
                .find(|path| path.exists()),
        };
        let Some(path) = path else {
            return Ok(Policy {
                default: vec![Requirement { r#type: "insecureAcceptAnything".into() }],
                ..Policy::default()
            });
        };
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Policy::parse(&text, &path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Policy> {
        let mut policy: Policy = serde_json::from_slice(text).with_context(|| format!("read {}", path.display()))?;
        policy.path = path.to_owned();
        let all = policy.transports.values().flat_map(BTreeMap::values).chain([&policy.default]).flatten();
        for requirement in all {
            let known = ["insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned", "signedBaseLayer"];
            if !known.contains(&requirement.r#type.as_str()) {
                bail!("read {}: unknown requirement `{}`", path.display(), requirement.r#type);
            }
        }
        Ok(policy)
    }

    /// Whether an image of a registry may come in.
    pub fn check_registry(&self, reference: &Reference) -> Result<()> {
        let shown = format!("docker://{reference}");
        self.check("docker", &registry_scopes(reference), &shown)
    }

    /// Whether an image of another transport (`oci`, `docker-archive`, `dir`, …) may come in.
    pub fn check_path(&self, transport: &str, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).with_context(|| format!("read {}", path.display()))?;
        let scopes: Vec<String> =
            path.ancestors().filter(|part| *part != Path::new("/")).map(|part| part.display().to_string()).collect();
        self.check(transport, &scopes, &format!("{transport}:{}", path.display()))
    }

    fn check(&self, transport: &str, scopes: &[String], shown: &str) -> Result<()> {
        let (requirements, scope) = self.requirements(transport, scopes);
        let refuse = |why: String| {
            Err(anyhow!("Source image rejected: {why}"))
                .hint(format!("the rule for `{scope}` is in {}", self.path.display()))
        };
        if requirements.is_empty() {
            return refuse(format!("the policy has no requirement for {shown}"));
        }
        for requirement in requirements {
            match requirement.r#type.as_str() {
                "insecureAcceptAnything" => {}
                "reject" => return refuse(format!("Running image {shown} is rejected by policy.")),
                other => {
                    return refuse(format!(
                        "the policy asks for a signature of {shown} (`{other}`), which coracle cannot check"
                    ));
                }
            }
        }
        Ok(())
    }

    fn requirements<'a>(&'a self, transport: &'a str, scopes: &'a [String]) -> (&'a [Requirement], &'a str) {
        if let Some(rules) = self.transports.get(transport) {
            for scope in scopes {
                if let Some(found) = rules.get(scope) {
                    return (found, scope);
                }
            }
            if let Some(found) = rules.get("") {
                return (found, transport);
            }
        }
        (&self.default, "default")
    }
}

/// From the exact name over its folders and the host to wildcards of the host.
fn registry_scopes(reference: &Reference) -> Vec<String> {
    let mut scopes = vec![reference.to_string()];
    let name = reference.name();
    let mut rest = name.as_str();
    scopes.push(rest.to_owned());
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_owned());
        rest = parent;
    }
    let mut host = rest.split(':').next().unwrap_or(rest);
    while let Some((_, parent)) = host.split_once('.') {
        scopes.push(format!("*.{parent}"));
        host = parent;
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let text = br#"{"default": [{"type": "reject"}], "transports": {
            "docker": {"r.test": [{"type": "insecureAcceptAnything"}], "r.test/bad": [{"type": "reject"}],
                "r.test/a/signed": [{"type": "signedBy", "keyType": "GPGKeys"}],
                "*.wild.test": [{"type": "insecureAcceptAnything"}], "r.test/none": []},
            "oci": {"": [{"type": "insecureAcceptAnything"}]}}}"#;
        let policy = Policy::parse(text, Path::new("/p")).unwrap();
        for (name, expected) in [
            ("r.test/x:1", None),
            ("r.test/bad:1", Some("rejected by policy")),
            ("r.test/bad/x:1", Some("rejected by policy")),
            ("r.test/a/signed", Some("cannot check")),
            ("r.test/none", Some("no requirement")),
            ("a.b.wild.test/x", None),
            ("wild.test/x", Some("rejected")),
            ("docker.io/library/x", Some("rejected")),
        ] {
            let found = policy.check_registry(&Reference::parse(name).unwrap()).map_err(|error| format!("{error:#}"));
            match expected {
                None => assert!(found.is_ok(), "{name}: {found:?}"),
                Some(text) => assert!(found.unwrap_err().contains(text), "{name}"),
            }
        }
        assert!(policy.check_path("oci", Path::new("/x/y")).is_ok());
        assert!(policy.check_path("dir", Path::new("/x/y")).is_err());
        assert!(Policy::parse(br#"{"default": [{"type": "perhaps"}]}"#, Path::new("/p")).is_err());
    }
}
