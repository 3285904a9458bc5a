//! Names of images: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, parsed once, and how the store spells them as file names.
//!
//! Nothing here reads configuration or the store: search lists and aliases of `registries.conf` are `image::conf`'s, the
//! matching of a short name against what is there is `image::store`'s.

use crate::model::digest::Digest;
use anyhow::{Result, bail};
use std::fmt;

/// The registry a name without one belongs to.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The registry of images that were made here.
pub const LOCAL_REGISTRY: &str = "localhost";
/// The tag of a name without one.
pub const DEFAULT_TAG: &str = "latest";

/// Whether this is 64 lower-case hexadecimal digits.
pub fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A name with its registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and, if need be, port.
    pub registry: String,
    /// The repository, e.g. `library/alpine`.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parse as docker does: without a registry `docker.io`, and there without a folder `library/`. No tag is added.
    pub fn parse(text: &str) -> Result<Reference> {
        let (name, tag, digest) = split(text)?;
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        Reference::checked(text, registry, repository, tag, digest)
    }

    /// Parse a name that is to be given to an image made here (`tag`, `commit`, `build -t`, `load`): without a registry
    /// it is `localhost/NAME`, and without a tag `latest`.
    pub fn parse_local(text: &str) -> Result<Reference> {
        if Reference::is_qualified(text) {
            return Ok(Reference::parse(text)?.or_latest());
        }
        let (name, tag, digest) = split(text)?;
        Ok(Reference::checked(text, LOCAL_REGISTRY, name.to_owned(), tag, digest)?.or_latest())
    }

    /// Whether the text names a registry.
    pub fn is_qualified(text: &str) -> bool {
        text.split_once('/').is_some_and(|(first, _)| is_registry(first))
    }

    /// The names a text can stand for among the images that are here, best first.
    pub fn local_candidates(text: &str) -> Result<Vec<Reference>> {
        if Reference::is_qualified(text) {
            return Ok(vec![Reference::parse(text)?.or_latest()]);
        }
        Ok(vec![Reference::parse_local(text)?, Reference::parse(text)?.or_latest()])
    }

    /// With `latest` when there is neither tag nor digest.
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Registry and repository, `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at a digest, without a tag.
    pub fn at(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The file name in `tags/`: `/` becomes `+`, which no reference contains.
    pub fn escaped(&self) -> Result<String> {
        // A digest is more exact than a tag; podman too forgets the tag of NAME:TAG@DIGEST.
        let mut shown = self.clone();
        if shown.digest.is_some() {
            shown.tag = None;
        }
        let escaped = shown.to_string().replace('/', "+");
        if escaped.len() > 255 {
            bail!("{self}: the name is longer than 255 bytes");
        }
        Ok(escaped)
    }

    /// The reference a file name in `tags/` stands for.
    pub fn unescape(file_name: &str) -> Result<Reference> {
        let text = file_name.replace('+', "/");
        if !Reference::is_qualified(&text) {
            bail!("`{file_name}` is not the name of a tag");
        }
        Reference::parse(&text)
    }

    fn checked(
        text: &str,
        registry: &str,
        repository: String,
        tag: Option<String>,
        digest: Option<Digest>,
    ) -> Result<Reference> {
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            bail!("`{text}`: invalid reference format: repository name must be lowercase");
        }
        let named = repository.split('/').all(is_component) && registry.len() + repository.len() < 255;
        if !named || !is_host(registry) {
            bail!("`{text}`: invalid reference format");
        }
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// Name, tag and digest of a text.
fn split(text: &str) -> Result<(&str, Option<String>, Option<Digest>)> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
        None => (text, None),
    };
    let (name, tag) = match rest.rfind(':') {
        // A colon before the last slash belongs to the registry's port.
        Some(colon) if !rest[colon..].contains('/') => {
            let tag = &rest[colon + 1..];
            if !is_tag(tag) {
                bail!("`{text}`: invalid reference format");
            }
            (&rest[..colon], Some(tag.to_owned()))
        }
        _ => (rest, None),
    };
    if name.is_empty() || is_hex64(name) {
        bail!("`{text}`: invalid reference format");
    }
    Ok((name, tag, digest))
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == LOCAL_REGISTRY || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Whether this may be a tag.
pub fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && text.len() <= 128 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes
        .split(|byte| alphanumeric(*byte))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_as_docker_does() {
        let hex = "a".repeat(64);
        for (text, expected) in [
            ("alpine", "docker.io/library/alpine".to_owned()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
            ("me/tool", "docker.io/me/tool".to_owned()),
            ("docker.io/alpine", "docker.io/library/alpine".to_owned()),
            ("index.docker.io/a/b", "docker.io/a/b".to_owned()),
            ("localhost/x", "localhost/x".to_owned()),
            ("localhost:5000/x:y", "localhost:5000/x:y".to_owned()),
            ("[::1]:5000/x", "[::1]:5000/x".to_owned()),
            ("quay.io/a/b_c/d__e/f--g:T.1_x-", "quay.io/a/b_c/d__e/f--g:T.1_x-".to_owned()),
            (&format!("a:t@sha256:{hex}"), format!("docker.io/library/a:t@sha256:{hex}")),
        ] {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(parsed.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        let hex = "a".repeat(64);
        for text in [
            "",
            ":",
            "a:",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a:-t",
            "a:b/c:",
            "a b",
            "a\n",
            "..",
            "a/../b",
            "../a",
            "a.b/..",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a@",
            "a@sha256:xyz",
            &hex,
            "http://a/b",
            "a:t:u",
            "x.y:port/z",
            "a@sha256:../../x",
            "a+b",
            &format!("a:{}", "t".repeat(129)),
            &"a".repeat(256),
            &format!("a@sha256:{}", hex.to_uppercase()),
            &format!("a@sha512:{hex}{hex}"),
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn local_names() {
        assert_eq!(Reference::parse_local("x").unwrap().to_string(), "localhost/x:latest");
        assert_eq!(Reference::parse_local("quay.io/x").unwrap().to_string(), "quay.io/x:latest");
        let both = Reference::local_candidates("x:1").unwrap();
        assert_eq!(both[0].to_string(), "localhost/x:1");
        assert_eq!(both[1].to_string(), "docker.io/library/x:1");
    }

    #[test]
    fn file_names_round_trip() {
        for text in ["docker.io/library/a:b", "localhost:5000/x/y:latest", "localhost/x:latest"] {
            let reference = Reference::parse(text).unwrap();
            let escaped = reference.escaped().unwrap();
            assert!(!escaped.contains('/'));
            assert_eq!(Reference::unescape(&escaped).unwrap(), reference);
        }
        assert!(Reference::unescape("..").is_err());
        assert!(Reference::unescape("x").is_err());
    }
}
