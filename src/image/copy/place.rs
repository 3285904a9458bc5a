//! `TRANSPORT:WHERE`, as containers-transports(5) writes it.

use crate::failure::{Failure, Kind};
use anyhow::{Result, bail, ensure};
use std::path::PathBuf;

/// Where an image is or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `docker://NAME`.
    Registry(String),
    /// `oci:PATH[:NAME]`.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:PATH[:NAME]`.
    LayoutArchive(PathBuf, Option<String>),
    /// `docker-archive:PATH[:NAME]`, or `docker-archive:PATH:@N`.
    DockerArchive(PathBuf, Option<String>),
    /// `dir:PATH`.
    Directory(PathBuf),
    /// `containers-storage:NAME`.
    Store(String),
}

impl Place {
    /// Parse; `None`: the text names no transport.
    pub fn parse(text: &str) -> Result<Option<Place>> {
        let Some((transport, rest)) = text.split_once(':') else { return Ok(None) };
        let place = match transport {
            "docker" => match rest.strip_prefix("//") {
                Some("") => bail!("`{text}` names nothing after its transport"),
                Some(name) => Place::Registry(name.to_owned()),
                // `docker:TAG` is an image called docker.
                None => return Ok(None),
            },
            "oci" => with_name(rest, Place::Layout),
            "oci-archive" => with_name(rest, Place::LayoutArchive),
            "docker-archive" => with_name(rest, Place::DockerArchive),
            "dir" => Place::Directory(PathBuf::from(rest)),
            "containers-storage" => {
                if rest.starts_with('[') {
                    return Err(Failure::new(Kind::Engine, format!("`{text}`: the store is named with --root"))
                        .hint("coracle --root DIR copy … containers-storage:NAME")
                        .into());
                }
                Place::Store(rest.to_owned())
            }
            "docker-daemon" | "ostree" | "sif" | "atomic" | "tarball" => {
                return Err(Failure::new(Kind::Engine, format!("transport `{transport}:` is not supported"))
                    .hint("`docker save` and docker-archive: lead the same way")
                    .into());
            }
            _ => return Ok(None),
        };
        ensure!(!rest.is_empty(), "`{text}` names nothing after its transport");
        Ok(Some(place))
    }

    /// Parse what must have a transport.
    pub fn require(text: &str) -> Result<Place> {
        match Place::parse(text)? {
            Some(place) => Ok(place),
            None => bail!(
                "Invalid image name \"{text}\", expected colon-separated transport:reference (docker://, oci:, \
                 oci-archive:, docker-archive:, dir:, containers-storage:)"
            ),
        }
    }
}

fn with_name(rest: &str, place: fn(PathBuf, Option<String>) -> Place) -> Place {
    match rest.split_once(':') {
        Some((path, name)) => place(PathBuf::from(path), Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => place(PathBuf::from(rest), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports() {
        let name = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            ("docker://a/b:c", Some(Place::Registry("a/b:c".into()))),
            ("oci:/x/y", Some(Place::Layout("/x/y".into(), None))),
            ("oci:/x/y:r.test/z:1", Some(Place::Layout("/x/y".into(), name("r.test/z:1")))),
            ("oci-archive:x.tar:", Some(Place::LayoutArchive("x.tar".into(), None))),
            ("docker-archive:x.tar:a:1", Some(Place::DockerArchive("x.tar".into(), name("a:1")))),
            ("dir:/x:y", Some(Place::Directory("/x:y".into()))),
            ("containers-storage:a:b", Some(Place::Store("a:b".into()))),
            ("docker:1", None),
            ("alpine", None),
            ("r.test:5000/x", None),
        ] {
            assert_eq!(Place::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["docker://", "oci:", "docker-daemon:x", "containers-storage:[overlay@/x]y"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
