//! `signedIdentity`: which signed names are taken for the image that was asked for (containers-policy.json(5)).

use crate::image::reference::Reference;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Identity {
    /// The same name and tag.
    MatchExact,
    /// The same name and tag; asked for by digest, the same repository.
    #[default]
    MatchRepoDigestOrExact,
    /// The same repository, whatever the tag.
    MatchRepository,
    /// This very name, whatever was asked for.
    #[serde(rename_all = "camelCase")]
    ExactReference {
        /// The name.
        docker_reference: String,
    },
    /// This repository, whatever was asked for.
    #[serde(rename_all = "camelCase")]
    ExactRepository {
        /// The repository.
        docker_repository: String,
    },
    /// `matchRepoDigestOrExact` with another beginning of the name: for mirrors.
    #[serde(rename_all = "camelCase")]
    RemapIdentity {
        /// How the names here begin.
        prefix: String,
        /// How the signed names begin.
        signed_prefix: String,
    },
}

impl Identity {
    /// Whether the names in it are names.
    pub fn check(&self) -> Result<()> {
        match self {
            Identity::MatchExact | Identity::MatchRepoDigestOrExact | Identity::MatchRepository => Ok(()),
            Identity::ExactReference { docker_reference } => {
                let name = Reference::parse(docker_reference).context("read signedIdentity: dockerReference")?;
                ensure!(is_whole(&name), "signedIdentity: `{docker_reference}` has neither tag nor digest");
                Ok(())
            }
            Identity::ExactRepository { docker_repository } => {
                Reference::parse(docker_repository).context("read signedIdentity: dockerRepository").map(drop)
            }
            Identity::RemapIdentity { prefix, signed_prefix } => {
                let named = !prefix.is_empty() && !signed_prefix.is_empty();
                ensure!(named, "signedIdentity: remapIdentity needs prefix and signedPrefix");
                Ok(())
            }
        }
    }

    /// Whether a signature for `signed` is good for the image that was asked for as `wanted`.
    pub fn accepts(&self, wanted: &Reference, signed: &Reference) -> Result<bool> {
        Ok(match self {
            Identity::MatchExact => is_whole(wanted) && is_whole(signed) && wanted == signed,
            Identity::MatchRepoDigestOrExact => same_or_repository(wanted, signed),
            Identity::MatchRepository => wanted.name() == signed.name(),
            Identity::ExactReference { docker_reference } => {
                is_whole(signed) && Reference::parse(docker_reference)? == *signed
            }
            Identity::ExactRepository { docker_repository } => {
                Reference::parse(docker_repository)?.name() == signed.name()
            }
            Identity::RemapIdentity { prefix, signed_prefix } => {
                let text = wanted.to_string();
                // A prefix ends where a part of the name ends.
                let rest = text.strip_prefix(prefix.as_str()).filter(|rest| rest.starts_with(['/', ':', '@']));
                let moved = match rest {
                    Some(rest) => Reference::parse(&format!("{signed_prefix}{rest}"))
                        .with_context(|| format!("rename {text} for its signature"))?,
                    None => wanted.clone(),
                };
                same_or_repository(&moved, signed)
            }
        })
    }
}

fn is_whole(name: &Reference) -> bool {
    name.tag.is_some() || name.digest.is_some()
}

fn same_or_repository(wanted: &Reference, signed: &Reference) -> bool {
    // A digest names the content: the tag it was signed under says nothing more.
    let same = if wanted.digest.is_some() { wanted.name() == signed.name() } else { wanted == signed };
    is_whole(signed) && same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let digest = crate::model::digest::Digest::of(b"x");
        let by_digest = format!("r.test/a@{digest}");
        for (rule, wanted, signed, expected) in [
            (r#"{"type": "matchExact"}"#, "r.test/a:1", "r.test/a:1", true),
            (r#"{"type": "matchExact"}"#, "r.test/a:1", "r.test/a:2", false),
            (r#"{"type": "matchExact"}"#, "r.test/a:1", "r.test/a", false),
            (r#"{"type": "matchExact"}"#, &by_digest, "r.test/a:1", false),
            (r#"{"type": "matchRepoDigestOrExact"}"#, &by_digest, "r.test/a:1", true),
            (r#"{"type": "matchRepoDigestOrExact"}"#, &by_digest, "r.test/b:1", false),
            (r#"{"type": "matchRepoDigestOrExact"}"#, "r.test/a:1", "r.test/a:2", false),
            (r#"{"type": "matchRepository"}"#, "r.test/a:1", "r.test/a", true),
            (r#"{"type": "matchRepository"}"#, "r.test/a:1", "r.test/b:1", false),
            (r#"{"type": "exactReference", "dockerReference": "x.test/y:3"}"#, "r.test/a:1", "x.test/y:3", true),
            (r#"{"type": "exactReference", "dockerReference": "x.test/y:3"}"#, "r.test/a:1", "r.test/a:1", false),
            (r#"{"type": "exactRepository", "dockerRepository": "x.test/y"}"#, "r.test/a:1", "x.test/y:9", true),
            (
                r#"{"type": "remapIdentity", "prefix": "r.test", "signedPrefix": "x.test/m"}"#,
                "r.test/a:1",
                "x.test/m/a:1",
                true,
            ),
            (
                r#"{"type": "remapIdentity", "prefix": "r.te", "signedPrefix": "x.test"}"#,
                "r.test/a:1",
                "x.testst/a:1",
                false,
            ),
            (
                r#"{"type": "remapIdentity", "prefix": "q.test", "signedPrefix": "x.test"}"#,
                "r.test/a:1",
                "r.test/a:1",
                true,
            ),
        ] {
            let rule: Identity = serde_json::from_str(rule).unwrap();
            rule.check().unwrap();
            let (wanted, signed) = (Reference::parse(wanted).unwrap(), Reference::parse(signed).unwrap());
            assert_eq!(rule.accepts(&wanted, &signed).unwrap(), expected, "{rule:?} {wanted} {signed}");
        }
        for bad in [
            r#"{"type": "exactReference", "dockerReference": "x.test/y"}"#,
            r#"{"type": "exactRepository", "dockerRepository": "X"}"#,
            r#"{"type": "remapIdentity", "prefix": "", "signedPrefix": "x"}"#,
        ] {
            let rule = serde_json::from_str::<Identity>(bad).map_err(anyhow::Error::from);
            assert!(rule.and_then(|rule| rule.check()).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Identity>(r#"{"type": "perhaps"}"#).is_err());
    }
}
