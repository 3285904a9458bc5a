//! `image trust`: policy.json as a list, and changes of it.
//!
//! A change keeps whatever else the file says; what comes out must be a policy.

use crate::image::policy::{Policy, SYSTEM, default_path};
use crate::state::file::{self, Durability};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One line of `image trust show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `all`, `repository` for registries, else the transport's name.
    pub transport: String,
    /// The scope.
    pub name: String,
    /// The same, `default` for what has no rule of its own.
    pub repository: String,
    /// `accept`, `reject`, `signed`, `sigstoreSigned`.
    pub kind: String,
    /// Whose keys: always `N/A`, for what a GPG key is called stands in the key.
    pub identity: String,
    /// Files of keys.
    pub keys: Vec<String>,
}

/// The policy's text.
pub fn raw(named: Option<&Path>) -> Result<String> {
    let path = named.map(Path::to_owned).unwrap_or_else(default_path);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// All rules, the default first.
pub fn lines(named: Option<&Path>) -> Result<Vec<Line>> {
    let path = named.map(Path::to_owned).unwrap_or_else(default_path);
    let text = raw(named)?;
    Policy::parse(text.as_bytes(), &path)?;
    let document: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    of_requirements(&document["default"], ("all", "* default", "default"), &mut found);
    for (transport, scopes) in document["transports"].as_object().into_iter().flatten() {
        let shown = if transport == "docker" { "repository" } else { transport };
        for (scope, requirements) in scopes.as_object().into_iter().flatten() {
            of_requirements(requirements, (shown, scope, scope), &mut found);
        }
    }
    Ok(found)
}

fn of_requirements(requirements: &Value, (transport, name, repository): (&str, &str, &str), found: &mut Vec<Line>) {
    for requirement in requirements.as_array().into_iter().flatten() {
        let kind = match requirement["type"].as_str().unwrap_or_default() {
            "insecureAcceptAnything" => "accept",
            "signedBy" => "signed",
            other => other,
        };
        let paths = requirement["keyPaths"].as_array().into_iter().flatten().chain([&requirement["keyPath"]]);
        let keys: Vec<String> = paths.filter_map(Value::as_str).map(str::to_owned).collect();
        let signed = !matches!(kind, "accept" | "reject");
        found.push(Line {
            transport: transport.to_owned(),
            name: name.to_owned(),
            repository: repository.to_owned(),
            kind: kind.to_owned(),
            identity: if signed { "N/A".to_owned() } else { String::new() },
            keys,
        });
    }
}

/// What a scope is to require.
#[derive(Clone, Debug)]
pub struct Change {
    /// A registry, a repository, a name; or `default`.
    pub scope: String,
    /// `accept`, `reject`, `signedBy`, `sigstoreSigned`.
    pub kind: String,
    /// Files of public keys.
    pub keys: Vec<String>,
    /// The file; absent: the system's, an ordinary user's own.
    pub path: Option<PathBuf>,
}

/// Put a rule in the place of those that the scope has.
pub fn set(change: &Change, is_root: bool) -> Result<()> {
    let requirement = |key: Option<&String>| match (change.kind.as_str(), key) {
        ("accept", _) => json!({"type": "insecureAcceptAnything"}),
        ("signedBy", key) => json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}),
        ("sigstoreSigned", key) => json!({"type": "sigstoreSigned", "keyPath": key}),
        (kind, _) => json!({"type": kind}),
    };
    let signed = matches!(change.kind.as_str(), "signedBy" | "sigstoreSigned");
    ensure!(
        signed || matches!(change.kind.as_str(), "accept" | "reject"),
        "invalid choice: {} (choose from \"accept\", \"reject\", \"signedBy\", \"sigstoreSigned\")",
        change.kind
    );
    ensure!(
        !signed || !change.keys.is_empty(),
        "at least one public key must be defined for type '{}': --pubkeysfile",
        change.kind
    );
    let requirements: Vec<Value> =
        if signed { change.keys.iter().map(|key| requirement(Some(key))).collect() } else { vec![requirement(None)] };
    let (source, target) = match &change.path {
        Some(path) => (path.clone(), path.clone()),
        None if is_root => (SYSTEM.into(), SYSTEM.into()),
        None => (default_path(), own_path()?),
    };
    let mut document: Value = match std::fs::read(&source) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("read {}", source.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({"default": [{"type": "insecureAcceptAnything"}]})
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", source.display())),
    };
    place(&mut document, &change.scope, requirements)?;
    let text = serde_json::to_string_pretty(&document)? + "\n";
    Policy::parse(text.as_bytes(), &target)?;
    let what = || format!("write {}", target.display());
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(what)?;
    }
    file::replace(&target, text.as_bytes(), Durability::Durable).with_context(what)?;
    // Every user's tools read it.
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).with_context(what)
}

fn place(document: &mut Value, scope: &str, requirements: Vec<Value>) -> Result<()> {
    let Some(document) = document.as_object_mut() else { bail!("the policy is not a JSON object") };
    if scope == "default" {
        document.insert("default".to_owned(), Value::Array(requirements));
        return Ok(());
    }
    ensure!(
        !scope.is_empty() && !scope.contains("://") && !scope.contains(char::is_whitespace),
        "invalid registry `{scope}`: HOST[:PORT][/NAME]"
    );
    let transports = document.entry("transports").or_insert_with(|| Value::Object(Map::new()));
    let transports = transports.as_object_mut().context("`transports` of the policy is not an object")?;
    let scopes = transports.entry("docker").or_insert_with(|| Value::Object(Map::new()));
    let scopes = scopes.as_object_mut().context("`docker` of the policy is not an object")?;
    scopes.insert(scope.to_owned(), Value::Array(requirements));
    Ok(())
}

fn own_path() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    Ok(folder.context("there is no home: name the file with --policypath")?.join("containers/policy.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_the_rest() {
        let mut document = json!({"default": [{"type": "reject"}], "transports": {"oci": {"": []}}, "more": 1});
        place(&mut document, "r.test", vec![json!({"type": "x"})]).unwrap();
        place(&mut document, "default", vec![json!({"type": "y"})]).unwrap();
        let expected = json!({"default": [{"type": "y"}], "more": 1,
            "transports": {"oci": {"": []}, "docker": {"r.test": [{"type": "x"}]}}});
        assert_eq!(document, expected);
        assert!(place(&mut document, "https://x", Vec::new()).is_err());
    }
}
