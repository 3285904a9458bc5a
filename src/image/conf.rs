//! `registries.conf`: which registries a short name is looked for in, where a name really leads, mirrors, what is blocked.
//!
//! Format: containers-registries.conf(5), version 2 with drop-ins; version 1 is read too. Names come in as
//! [`Reference`]s, places to ask go out as [`Endpoint`]s, in order. No network here.

use crate::failure::{Explain, Failure, Kind};
use crate::host;
use crate::image::reference::Reference;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A place an image may be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Registry and repository as they are asked for; tag and digest as wanted.
    pub reference: Reference,
    /// Plain http and unknown certificates are allowed.
    pub insecure: bool,
    /// It is a mirror: its failure is no failure yet.
    pub mirror: bool,
}

/// The configuration, all files merged.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    search: Option<Vec<String>>,
    enforce_short_names: bool,
    /// `credential-helpers`.
    pub credential_helpers: Vec<String>,
    registries: Vec<Entry>,
    aliases: BTreeMap<String, String>,
    /// Which file said so, for messages.
    origin: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    credential_helpers: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Entry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    registries: Option<VersionOne>,
}

/// Version 1 of the format.
#[derive(Debug, Deserialize)]
struct VersionOne {
    #[serde(default)]
    search: ListOne,
    #[serde(default)]
    insecure: ListOne,
    #[serde(default)]
    block: ListOne,
}

#[derive(Debug, Default, Deserialize)]
struct ListOne {
    #[serde(default)]
    registries: Vec<String>,
}

impl Registries {
    /// Read the user's and the system's files.
    pub fn load() -> Result<Registries> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        let user = user.map(|user| user.join("containers"));
        let named = variable("CONTAINERS_REGISTRIES_CONF").or_else(|| variable("REGISTRIES_CONFIG_PATH"));
        let main = match named {
            Some(path) => path,
            None => user
                .iter()
                .map(|user| user.join("registries.conf"))
                .chain(["/etc/containers/registries.conf".into(), "/usr/share/containers/registries.conf".into()])
                .find(|path| path.is_file())
                .unwrap_or_else(|| "/etc/containers/registries.conf".into()),
        };
        let mut found = Registries { origin: main.clone(), ..Registries::default() };
        found.merge_file(&main)?;
        let mut folders = vec![PathBuf::from("/etc/containers/registries.conf.d")];
        folders.extend(user.iter().map(|user| user.join("registries.conf.d")));
        for folder in folders {
            for path in host::conf::drop_ins(&folder)? {
                found.merge_file(&path)?;
            }
        }
        // Where podman keeps the answers of its prompt.
        if let Some(user) = user {
            found.merge_file(&user.join("short-name-aliases.conf"))?;
        }
        Ok(found)
    }

    fn merge_file(&mut self, path: &Path) -> Result<()> {
        match std::fs::read_to_string(path) {
            Ok(text) => self.merge(&text).with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Merge one file's text over what is there.
    fn merge(&mut self, text: &str) -> Result<()> {
        let document: Document = toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
        if let Some(search) = document.unqualified_search_registries {
            self.search = Some(search);
        }
        if let Some(mode) = document.short_name_mode {
            self.enforce_short_names = match mode.as_str() {
                "enforcing" => true,
                "permissive" | "disabled" => false,
                other => bail!("invalid short-name-mode: `{other}`"),
            };
        }
        if let Some(helpers) = document.credential_helpers {
            self.credential_helpers = helpers;
        }
        if let Some(old) = document.registries {
            let entry = |location: String, insecure, blocked| Entry {
                prefix: None,
                location,
                insecure,
                blocked,
                mirror_by_digest_only: false,
                mirror: Vec::new(),
            };
            if !old.search.registries.is_empty() {
                self.search = Some(old.search.registries);
            }
            self.registries.extend(old.insecure.registries.into_iter().map(|location| entry(location, true, false)));
            self.registries.extend(old.block.registries.into_iter().map(|location| entry(location, false, true)));
        }
        for entry in document.registry {
            entry.check()?;
            self.registries.retain(|other| other.prefix() != entry.prefix());
            self.registries.push(entry);
        }
        for (alias, value) in document.aliases {
            // An empty value takes an alias of an earlier file away.
            if value.is_empty() {
                self.aliases.remove(&alias);
            } else {
                self.aliases.insert(alias, value);
            }
        }
        Ok(())
    }

    /// The full names that what was typed can stand for, best first.
    ///
    /// # Errors
    /// No name at all, or a short one with nowhere to look for it.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>> {
        let parsed = Reference::parse(text)?;
        if Reference::is_qualified(text) {
            return Ok(vec![parsed.or_latest()]);
        }
        // The short name without tag and digest, as it was typed.
        let end = text.find('@').unwrap_or(text.len());
        let short = text[..end].rsplit_once(':').map_or(&text[..end], |(name, _)| name);
        if let Some(full) = self.aliases.get(short) {
            let full = Reference::parse(full).with_context(|| format!("read the alias `{short}`"))?;
            return Ok(vec![Reference { tag: parsed.tag, digest: parsed.digest, ..full }.or_latest()]);
        }
        let default = [crate::image::reference::DEFAULT_REGISTRY.to_owned()];
        let search = self.search.as_deref().unwrap_or(&default);
        if search.is_empty() {
            let message = format!(
                "short-name \"{text}\" did not resolve to an alias and no unqualified-search registries are defined in \
                 \"{}\"",
                self.origin.display()
            );
            return Err(Failure::new(Kind::Engine, message).hint("name the registry: docker.io/library/NAME").into());
        }
        if self.enforce_short_names && search.len() > 1 {
            let message = format!("short-name resolution enforced: \"{text}\" may come from {}", search.join(", "));
            return Err(Failure::new(Kind::Engine, message)
                .hint(format!("name the registry, or add an alias for `{short}` to registries.conf"))
                .into());
        }
        search.iter().map(|registry| Ok(Reference::parse(&format!("{registry}/{text}"))?.or_latest())).collect()
    }

    /// Where to ask for an image, in order: its mirrors, then its own place.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let Some(entry) = self.entry(reference)? else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false, mirror: false }]);
        };
        if entry.blocked {
            let message = format!("registry {} is blocked in {}", reference.registry, self.origin.display());
            return Err(anyhow::anyhow!("{message}")).hint("take `blocked = true` off that registry's entry");
        }
        let by_digest = reference.digest.is_some();
        let mut found = Vec::new();
        for mirror in &entry.mirror {
            let serves = match mirror.pull_from_mirror {
                PullFrom::All => by_digest || !entry.mirror_by_digest_only,
                PullFrom::DigestOnly => by_digest,
                PullFrom::TagOnly => !by_digest,
            };
            if serves {
                let moved = entry.rewrite(reference, &mirror.location)?;
                found.push(Endpoint { reference: moved, insecure: mirror.insecure, mirror: true });
            }
        }
        let own =
            if entry.location.is_empty() { reference.clone() } else { entry.rewrite(reference, &entry.location)? };
        found.push(Endpoint { reference: own, insecure: entry.insecure, mirror: false });
        Ok(found)
    }

    /// Whether plain http is allowed for a registry (`login`, `push`, `search`).
    pub fn is_insecure(&self, registry: &str) -> bool {
        let matching = self.registries.iter().filter(|entry| match_length(entry.prefix(), registry).is_some());
        matching.max_by_key(|entry| entry.prefix().len()).is_some_and(|entry| entry.insecure)
    }

    /// The registries to search.
    pub fn search_list(&self) -> Vec<String> {
        self.search.clone().unwrap_or_else(|| vec![crate::image::reference::DEFAULT_REGISTRY.to_owned()])
    }

    /// The entry with the longest matching prefix.
    fn entry(&self, reference: &Reference) -> Result<Option<&Entry>> {
        let text = reference.to_string();
        let found = self.registries.iter().filter_map(|entry| Some((match_length(entry.prefix(), &text)?, entry)));
        Ok(found.max_by_key(|(_, entry)| entry.prefix().len()).map(|(_, entry)| entry))
    }
}

impl Entry {
    fn prefix(&self) -> &str {
        self.prefix.as_deref().filter(|prefix| !prefix.is_empty()).unwrap_or(&self.location)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.prefix().is_empty(), "a [[registry]] has neither `prefix` nor `location`");
        let wildcard = self.prefix().starts_with("*.");
        ensure!(wildcard || !self.location.is_empty(), "[[registry]] {}: `location` is missing", self.prefix());
        for location in self.mirror.iter().map(|mirror| &mirror.location).chain([&self.location]) {
            ensure!(!location.contains("://"), "`{location}`: a location is HOST[:PORT][/PATH], without a scheme");
        }
        Ok(())
    }

    fn rewrite(&self, reference: &Reference, location: &str) -> Result<Reference> {
        let text = reference.to_string();
        let length = match_length(self.prefix(), &text).unwrap_or(0);
        let moved = format!("{location}{}", &text[length..]);
        Reference::parse(&moved).with_context(|| format!("rewrite {text} for `{location}`"))
    }
}

/// How much of a full name a prefix covers; `None` if it does not match. A match ends where a part of the name ends.
fn match_length(prefix: &str, text: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = text.split('/').next().unwrap_or(text);
        let bare = host.split(':').next().unwrap_or(host);
        let inside = bare.len() > domain.len() && bare.ends_with(domain);
        return inside.then_some(bare.len());
    }
    let rest = text.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

/// What of containers.conf(5) concerns images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EngineConf {
    /// How often a pull or push is tried again.
    pub retry: Option<u32>,
    /// The pause between: `5s`.
    pub retry_delay: Option<String>,
    /// How many blobs at once; 0: our own choice.
    pub image_parallel_copies: Option<usize>,
    /// `gzip` or `zstd`, for `push`.
    pub compression_format: Option<String>,
}

impl EngineConf {
    /// Read the system's and the user's containers.conf, the later over the earlier.
    pub fn load() -> Result<EngineConf> {
        let mut found = EngineConf::default();
        for (path, text) in host::conf::read()? {
            found.merge(&text).with_context(|| format!("read {}", path.display()))?;
        }
        Ok(found)
    }

    fn merge(&mut self, text: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            engine: EngineConf,
        }
        let document: Document = toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
        let EngineConf { retry, retry_delay, image_parallel_copies, compression_format } = document.engine;
        self.retry = retry.or(self.retry);
        self.retry_delay = retry_delay.or(self.retry_delay.take());
        self.image_parallel_copies = image_parallel_copies.or(self.image_parallel_copies);
        self.compression_format = compression_format.or(self.compression_format.take());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Registries {
        let mut found = Registries::default();
        found.merge(text).unwrap();
        found
    }

    fn places(registries: &Registries, text: &str) -> Vec<String> {
        let reference = Reference::parse(text).unwrap();
        let endpoints = registries.endpoints(&reference).unwrap();
        let shown = |endpoint: Endpoint| {
            format!("{}{}", endpoint.reference, if endpoint.insecure { " (insecure)" } else { "" })
        };
        endpoints.into_iter().map(shown).collect()
    }

    #[test]
    fn short_names() {
        let names = |registries: &Registries, text: &str| -> Vec<String> {
            registries.candidates(text).unwrap().iter().map(ToString::to_string).collect()
        };
        let none = Registries::default();
        assert_eq!(names(&none, "alpine"), ["docker.io/library/alpine:latest"]);
        assert_eq!(names(&none, "r.test/x"), ["r.test/x:latest"]);
        let some = registries(
            "unqualified-search-registries = [\"r.test\", \"docker.io\"]\n[aliases]\nfedora = \"f.test/fedora\"\n\
             \"a/b\" = \"g.test/b\"",
        );
        assert_eq!(names(&some, "x:1"), ["r.test/x:1", "docker.io/library/x:1"]);
        assert_eq!(names(&some, "fedora:39"), ["f.test/fedora:39"]);
        assert_eq!(names(&some, "a/b"), ["g.test/b:latest"]);
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(names(&some, &format!("fedora@{digest}")), [format!("f.test/fedora@{digest}")]);
        assert!(registries("unqualified-search-registries = []").candidates("x").is_err());
        let strict =
            registries("unqualified-search-registries = [\"a.test\", \"b.test\"]\nshort-name-mode = \"enforcing\"");
        assert!(strict.candidates("x").is_err());
        assert!(strict.candidates("a.test/x").is_ok());
    }

    #[test]
    fn mirrors_prefixes_and_blocks() {
        let found = registries(
            r#"
            [[registry]]
            location = "r.test"
            insecure = true
            [[registry]]
            prefix = "r.test/team"
            location = "s.test:5000/moved"
            [[registry.mirror]]
            location = "m.test/all"
            insecure = true
            [[registry.mirror]]
            location = "d.test/digests"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "*.wild.test"
            blocked = true
            [[registry]]
            prefix = "*.same.test"
            insecure = true
            "#,
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(places(&found, "r.test/x:1"), ["r.test/x:1 (insecure)"]);
        assert_eq!(places(&found, "r.test/team/x:1"), ["m.test/all/x:1 (insecure)", "s.test:5000/moved/x:1"]);
        assert_eq!(places(&found, "r.test/teams/x:1"), ["r.test/teams/x:1 (insecure)"]);
        assert_eq!(places(&found, &format!("r.test/team/x@{digest}")).len(), 3);
        assert_eq!(places(&found, "q.test/x:1"), ["q.test/x:1"]);
        assert_eq!(places(&found, "a.same.test:5000/x:1"), ["a.same.test:5000/x:1 (insecure)"]);
        assert_eq!(places(&found, "wild.test/x:1"), ["wild.test/x:1"]);
        let error = found.endpoints(&Reference::parse("a.wild.test/x").unwrap()).unwrap_err();
        assert!(crate::failure::message_of(&error).contains("blocked"));
    }

    #[test]
    fn drop_ins_replace_by_prefix() {
        let mut found = registries("[[registry]]\nlocation = \"r.test\"\ninsecure = true");
        found.merge("[[registry]]\nlocation = \"r.test\"\nblocked = true\n[aliases]\nx = \"\"").unwrap();
        assert!(found.endpoints(&Reference::parse("r.test/x").unwrap()).is_err());
        assert!(found.merge("[[registry]]\nlocation = \"https://r.test\"").is_err());
        assert!(found.merge("[[registry]]\ninsecure = true").is_err());
        let old =
            registries("[registries.search]\nregistries = [\"a.test\"]\n[registries.block]\nregistries = [\"b.test\"]");
        assert_eq!(old.candidates("x").unwrap()[0].to_string(), "a.test/x:latest");
        assert!(old.endpoints(&Reference::parse("b.test/x").unwrap()).is_err());
    }

    #[test]
    fn engine_conf() {
        let mut found = EngineConf::default();
        found.merge("[engine]\nretry = 5\nretry_delay = \"2s\"\n[containers]\nx = 1").unwrap();
        found.merge("[engine]\nretry = 7").unwrap();
        assert_eq!((found.retry, found.retry_delay.as_deref()), (Some(7), Some("2s")));
    }
}
