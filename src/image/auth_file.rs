//! Where credentials are kept: podman's `auth.json`, docker's `config.json`, credential helpers.
//!
//! Format: containers-auth.json(5). Both files are read; podman's is written, or the one that is named. Fields we do not
//! know are kept when a file is written again.

use crate::image::auth::Credentials;
use crate::state::file::{self, Durability};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct AuthFiles {
    named: Option<PathBuf>,
    helpers: Vec<String>,
    user: u32,
}

/// Whether what was removed was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It was.
    Yes,
    /// There was nothing.
    NotThere,
    /// It is in docker's file, which is not ours to change unasked.
    InDockers,
}

impl AuthFiles {
    /// `--authfile`, else `REGISTRY_AUTH_FILE`, else the usual places. `helpers` are those of `registries.conf`; `user`
    /// is the caller's uid outside of any namespace of ours.
    pub fn new(authfile: Option<&Path>, helpers: Vec<String>, user: u32) -> AuthFiles {
        let variable = std::env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
        AuthFiles { named: authfile.map(Path::to_owned).or(variable), helpers, user }
    }

    /// What is known for `registry[/repository]`, the most exact entry of the first file that has one.
    pub fn find(&self, key: &str) -> Result<Option<Credentials>> {
        let keys = keys(key);
        for helper in self.helpers.iter().filter(|helper| *helper != "containers-auth.json") {
            if let Some(found) = helper_get(helper, registry_of(key))? {
                return Ok(Some(found));
            }
        }
        for path in self.readable() {
            let document = read(&path)?;
            if let Some(helper) = helper_of(&document, registry_of(key))
                && let Some(found) = helper_get(&helper, registry_of(key))?
            {
                return Ok(Some(found));
            }
            for wanted in &keys {
                if let Some(found) = entry(&document, wanted).with_context(|| format!("read {}", path.display()))? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Keep credentials for `registry[/repository]`.
    ///
    /// # Returns
    /// Where they are now: a path, or the helper's name.
    pub fn store(&self, key: &str, user: &str, password: &str) -> Result<String> {
        let path = self.writable()?;
        let mut document = if path.exists() { read(&path)? } else { Map::new() };
        if let Some(helper) = helper_of(&document, registry_of(key)) {
            let request = serde_json::json!({"ServerURL": key, "Username": user, "Secret": password});
            run_helper(&helper, "store", request.to_string().as_bytes())?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        let auths =
            auths.as_object_mut().with_context(|| format!("read {}: `auths` is not an object", path.display()))?;
        auths.retain(|name, _| normal(name) != key);
        auths.insert(key.to_owned(), serde_json::json!({"auth": STANDARD.encode(format!("{user}:{password}"))}));
        write(&path, &document)?;
        Ok(path.display().to_string())
    }

    /// Forget the credentials for `registry[/repository]`.
    pub fn remove(&self, key: &str) -> Result<Removed> {
        let path = self.writable()?;
        let mut document = if path.exists() { read(&path)? } else { Map::new() };
        if let Some(helper) = helper_of(&document, registry_of(key)) {
            run_helper(&helper, "erase", key.as_bytes())?;
            return Ok(Removed::Yes);
        }
        let mut removed = false;
        if let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) {
            let before = auths.len();
            auths.retain(|name, _| normal(name) != key);
            removed = auths.len() != before;
        }
        if removed {
            write(&path, &document)?;
            return Ok(Removed::Yes);
        }
        Ok(if self.named.is_none() && self.find(key)?.is_some() { Removed::InDockers } else { Removed::NotThere })
    }

    /// Forget all.
    pub fn remove_all(&self) -> Result<()> {
        let path = self.writable()?;
        if path.exists() {
            let mut document = read(&path)?;
            document.remove("credHelpers");
            document.insert("auths".to_owned(), Value::Object(Map::new()));
            write(&path, &document)?;
        }
        Ok(())
    }

    fn readable(&self) -> Vec<PathBuf> {
        let paths = match &self.named {
            Some(path) => vec![path.clone()],
            None => default_paths(self.user),
        };
        paths.into_iter().filter(|path| path.exists()).collect()
    }

    fn writable(&self) -> Result<PathBuf> {
        match &self.named {
            Some(path) => Ok(path.clone()),
            None => default_paths(self.user)
                .into_iter()
                .next()
                .context("find a place for auth.json: set HOME or --authfile"),
        }
    }
}

/// podman's own first; that one is written.
fn default_paths(user: u32) -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HOME");
    let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| {
        if user == 0 { PathBuf::from("/run/containers/0") } else { PathBuf::from(format!("/run/user/{user}")) }
    });
    let own = if runtime.starts_with("/run/containers") {
        runtime.join("auth.json")
    } else {
        runtime.join("containers/auth.json")
    };
    let config = variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = variable("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    [
        Some(own),
        config.map(|config| config.join("containers/auth.json")),
        docker.map(|docker| docker.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, document: &Map<String, Value>) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .with_context(|| format!("make {}", parent.display()))?;
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(document, &mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    // A link stays a link: what it leads to is replaced.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    file::replace(&target, &text, Durability::Volatile).with_context(|| format!("write {}", path.display()))
}

/// The keys to look for, the most exact first: `a/b/c`, `a/b`, `a`.
fn keys(key: &str) -> Vec<String> {
    let mut found = vec![key.to_owned()];
    let mut rest = key;
    while let Some((parent, _)) = rest.rsplit_once('/') {
        found.push(parent.to_owned());
        rest = parent;
    }
    found
}

fn registry_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// A key as we compare it: docker writes URLs, and `docker.io` in its own way.
pub fn normal(key: &str) -> String {
    let (key, was_url) = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => (rest, true),
        None => (key, false),
    };
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    // A URL's path is that of the API, not of a repository.
    if was_url || path.is_empty() || path == "v1/" || path == "v2/" {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

fn entry(document: &Map<String, Value>, wanted: &str) -> Result<Option<Credentials>> {
    let Some(auths) = document.get("auths").and_then(Value::as_object) else { return Ok(None) };
    let exact = auths.get(wanted);
    let found = exact.or_else(|| auths.iter().find(|(name, _)| normal(name) == wanted).map(|(_, value)| value));
    let Some(found) = found else { return Ok(None) };
    let text = |key: &str| found.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Identity(token.to_owned())));
    }
    let Some(auth) = text("auth") else {
        let (Some(user), Some(password)) = (text("username"), text("password")) else { return Ok(None) };
        return Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }));
    };
    let decoded = STANDARD.decode(auth).with_context(|| format!("the entry of {wanted} is not base64"))?;
    let decoded = String::from_utf8(decoded).with_context(|| format!("the entry of {wanted} is not text"))?;
    let (user, password) =
        decoded.split_once(':').with_context(|| format!("the entry of {wanted} is not USER:PASSWORD"))?;
    // docker pads with zero bytes.
    let password = password.trim_end_matches('\0');
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
}

fn helper_of(document: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = document.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
        helpers.iter().find(|(name, _)| normal(name) == registry).and_then(|(_, helper)| helper.as_str())
    });
    own.or_else(|| document.get("credsStore").and_then(Value::as_str))
        .filter(|helper| !helper.is_empty())
        .map(str::to_owned)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

fn helper_get(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let names: &[&str] =
        if registry == "docker.io" { &["https://index.docker.io/v1/", "docker.io"] } else { &[registry] };
    for name in names {
        if let Some(answer) = run_helper(helper, "get", name.as_bytes())? {
            let answer: HelperAnswer = serde_json::from_slice(&answer)
                .with_context(|| format!("read the answer of docker-credential-{helper}"))?;
            return Ok(Some(match answer.username.as_str() {
                "<token>" => Credentials::Identity(answer.secret),
                "" => return Ok(None),
                _ => Credentials::Password { user: answer.username, password: answer.secret },
            }));
        }
    }
    Ok(None)
}

/// Run `docker-credential-HELPER VERB`. `None`: it has none.
fn run_helper(helper: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
    // The name comes from a file that others may have written: it is a name, not a path.
    let plain = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    ensure!(plain, "`{helper}` is not the name of a credential helper");
    let program = format!("docker-credential-{helper}");
    let what = || format!("run {program} {verb}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended without reading; its exit code says more.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().with_context(what)?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if said.contains("credentials not found") || said.contains("no credentials") {
        return Ok(None);
    }
    let said = if said.is_empty() { String::from_utf8_lossy(&output.stderr).trim().to_owned() } else { said };
    bail!("{}: {}", what(), if said.is_empty() { output.status.to_string() } else { said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn most_exact_entry_wins() {
        let document = document(
            r#"{"auths": {"r.test": {"auth": "YTox"}, "r.test/x/y": {"auth": "YjoyOjM="},
                "https://index.docker.io/v1/": {"auth": "YzozAA=="}, "t.test": {"identitytoken": "T"}, "e.test": {}}}"#,
        );
        let find = |key: &str| keys(key).iter().find_map(|key| entry(&document, key).unwrap());
        let password = |user: &str, password: &str| {
            Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
        };
        assert!(find("r.test/x/z") == password("a", "1"));
        assert!(find("r.test/x/y/w") == password("b", "2:3"));
        assert!(find("docker.io/library/alpine") == password("c", "3"));
        assert!(find("t.test/a") == Some(Credentials::Identity("T".into())));
        assert!(find("e.test/a").is_none() && find("r.test:5000/a").is_none() && find("other.test").is_none());
    }

    #[test]
    fn stores_and_removes() {
        let directory = std::env::temp_dir().join(format!("coracle-auth-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("sub/auth.json");
        let files = AuthFiles { named: Some(path.clone()), ..AuthFiles::default() };
        files.store("r.test", "u", "p").unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replacen('{', "{\"other\": 1,", 1)).unwrap();
        files.store("r.test/x", "v", "q").unwrap();
        assert_eq!(read(&path).unwrap()["other"], 1);
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777, 0o600);
        assert!(files.find("r.test/x").unwrap().is_some());
        assert_eq!(files.remove("r.test").unwrap(), Removed::Yes);
        assert_eq!(files.remove("r.test").unwrap(), Removed::NotThere);
        files.remove_all().unwrap();
        assert!(files.find("r.test/x").unwrap().is_none());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn helpers_are_names_not_paths() {
        let helpers = document(r#"{"credHelpers": {"r.test": "x"}, "credsStore": "y"}"#);
        assert_eq!(helper_of(&helpers, "r.test").as_deref(), Some("x"));
        assert_eq!(helper_of(&helpers, "s.test").as_deref(), Some("y"));
        assert!(run_helper("../../evil", "get", b"").is_err());
    }
}
