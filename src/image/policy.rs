//! `policy.json`: which images may come in at all.
//!
//! Format: containers-policy.json(5). `insecureAcceptAnything` and `reject` are decided here. `sigstoreSigned` of an image
//! in a registry comes out as a [`Demand`] that the image itself must meet (`signature`); a signature that cannot be
//! checked (GPG's, or one of another transport) is a refusal that says so, never a silent accept.

pub mod edit;

use crate::failure::Explain;
use crate::image::reference::Reference;
use crate::image::signature::{Demand, Rule};
use anyhow::{Context, Result, anyhow};
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
#[serde(tag = "type")]
enum Requirement {
    #[serde(rename = "insecureAcceptAnything")]
    Accept,
    #[serde(rename = "reject")]
    Reject,
    #[serde(rename = "sigstoreSigned")]
    Sigstore(Box<Rule>),
    #[serde(rename = "signedBy")]
    Gpg,
    #[serde(rename = "signedBaseLayer")]
    BaseLayer,
}

impl Policy {
    /// The user's file, else the system's; or the one that is named.
    pub fn load(named: Option<&Path>) -> Result<Policy> {
        let path = named.map(Path::to_owned).unwrap_or_else(default_path);
        match std::fs::read(&path) {
            Ok(text) => Policy::parse(&text, &path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Policy { default: vec![Requirement::Accept], ..Policy::default() })
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn parse(text: &[u8], path: &Path) -> Result<Policy> {
        let mut policy: Policy = serde_json::from_slice(text).with_context(|| format!("read {}", path.display()))?;
        policy.path = path.to_owned();
        for requirement in policy.transports.values().flat_map(BTreeMap::values).chain([&policy.default]).flatten() {
            if let Requirement::Sigstore(rule) = requirement {
                rule.check().with_context(|| format!("read {}", path.display()))?;
            }
        }
        Ok(policy)
    }

    /// What an image of a registry must prove before it may come in.
    pub fn check_registry(&self, reference: &Reference) -> Result<Demand> {
        let shown = format!("docker://{reference}");
        let (rules, scope) = self.check("docker", &registry_scopes(reference), &shown)?;
        let origin = format!("{} under `{scope}`", self.path.display());
        Ok(Demand { name: reference.clone(), rules, origin })
    }

    /// Whether an image of another transport (`oci`, `docker-archive`, `dir`, …) may come in.
    pub fn check_path(&self, transport: &str, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).with_context(|| format!("read {}", path.display()))?;
        let scopes: Vec<String> =
            path.ancestors().filter(|part| *part != Path::new("/")).map(|part| part.display().to_string()).collect();
        let shown = format!("{transport}:{}", path.display());
        let (rules, scope) = self.check(transport, &scopes, &shown)?;
        if rules.is_empty() {
            return Ok(());
        }
        self.refuse(&scope, format!("the policy asks for a signature of {shown}, which only images in registries have"))
    }

    /// The signatures that are wanted, and the scope whose rule wants them.
    fn check(&self, transport: &str, scopes: &[String], shown: &str) -> Result<(Vec<Rule>, String)> {
        let (requirements, scope) = self.requirements(transport, scopes);
        if requirements.is_empty() {
            return self.refuse(scope, format!("the policy has no requirement for {shown}"));
        }
        let mut rules = Vec::new();
        for requirement in requirements {
            match requirement {
                Requirement::Accept => {}
                Requirement::Reject => {
                    return self.refuse(scope, format!("Running image {shown} is rejected by policy."));
                }
                Requirement::Sigstore(rule) => rules.push((**rule).clone()),
                Requirement::Gpg | Requirement::BaseLayer => {
                    return self.refuse(
                        scope,
                        format!("the policy asks for a GPG signature of {shown}, which coracle cannot check"),
                    );
                }
            }
        }
        Ok((rules, scope.to_owned()))
    }

    fn refuse<T>(&self, scope: &str, why: String) -> Result<T> {
        Err(anyhow!("Source image rejected: {why}"))
            .hint(format!("the rule for `{scope}` is in {}", self.path.display()))
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

/// The user's policy if there is one, else the system's.
pub fn default_path() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let user = user.map(|folder| folder.join("containers/policy.json")).filter(|path| path.exists());
    user.unwrap_or_else(|| PathBuf::from(SYSTEM))
}

/// The system's policy.
pub const SYSTEM: &str = "/etc/containers/policy.json";

/// From the exact name over its folders and the host to wildcards of the host.
pub fn registry_scopes(reference: &Reference) -> Vec<String> {
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
                "r.test/key": [{"type": "sigstoreSigned", "keyPath": "/key", "signedIdentity": {"type": "matchExact"}}],
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
            let found = policy
                .check_registry(&Reference::parse(name).unwrap())
                .map(|demand| demand.is_empty())
                .map_err(|error| format!("{error:#}"));
            match expected {
                None => assert_eq!(found, Ok(true), "{name}"),
                Some(text) => assert!(found.unwrap_err().contains(text), "{name}"),
            }
        }
        assert!(!policy.check_registry(&Reference::parse("r.test/key:1").unwrap()).unwrap().is_empty());
        assert!(policy.check_path("oci", Path::new("/x/y")).is_ok());
        assert!(policy.check_path("dir", Path::new("/x/y")).is_err());
        for bad in [
            r#"{"default": [{"type": "perhaps"}]}"#,
            r#"{"default": [{"type": "sigstoreSigned"}]}"#,
            r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/x", "keyDat": "eA=="}]}"#,
        ] {
            assert!(Policy::parse(bad.as_bytes(), Path::new("/p")).is_err(), "{bad}");
        }
    }
}
