//! The grammar of `--userns`, `--uidmap` and `--gidmap`.

use super::{Surroundings, csv};
use crate::host::userns::parse_subordinate;
use crate::model::container::ContainerSpec;
use crate::model::user::{IdMaps, IdRange, UserNamespace};
use anyhow::{Context, Result, anyhow, bail, ensure};

// The user namespace. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Userns {
    /// User namespace: host, keep-id[:OPTIONS], auto[:OPTIONS], nomap, private, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// UID map of a new user namespace: CONTAINER:HOST[:SIZE]
    #[arg(long, value_name = "MAP")]
    pub uidmap: Vec<String>,
    /// GID map of a new user namespace: CONTAINER:HOST[:SIZE]
    #[arg(long, value_name = "MAP")]
    pub gidmap: Vec<String>,
    /// Map the ids that /etc/subuid gives to this name
    #[arg(long, value_name = "NAME")]
    pub subuidname: Option<String>,
    /// Map the ids that /etc/subgid gives to this name
    #[arg(long, value_name = "NAME")]
    pub subgidname: Option<String>,
}

impl Userns {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
        let uid = csv(&self.uidmap)?;
        let gid = csv(&self.gidmap)?;
        if uid.is_empty() && gid.is_empty() && self.subuidname.is_none() && self.subgidname.is_none() {
            let typed = self.userns.as_deref().or_else(|| around.variable("PODMAN_USERNS"));
            spec.userns = mode(typed.unwrap_or(""), &around.id_maps)?;
            return Ok(());
        }
        ensure!(
            self.userns.is_none(),
            "--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive"
        );
        spec.userns = if self.subuidname.is_some() || self.subgidname.is_some() {
            ensure!(
                uid.is_empty() && gid.is_empty(),
                "--uidmap/--gidmap and --subuidname/--subgidname are mutually exclusive"
            );
            let user = self.subuidname.as_deref().or(self.subgidname.as_deref()).unwrap_or_default();
            let group = self.subgidname.as_deref().unwrap_or(user);
            UserNamespace::Mapped(IdMaps { uid: named("/etc/subuid", user)?, gid: named("/etc/subgid", group)? })
        } else {
            // With one of the two the other is the same.
            let (uid_words, gid_words) =
                (if uid.is_empty() { &gid } else { &uid }, if gid.is_empty() { &uid } else { &gid });
            UserNamespace::Mapped(IdMaps {
                uid: map(uid_words, &around.id_maps.uid).context("parse --uidmap")?,
                gid: map(gid_words, &around.id_maps.gid).context("parse --gidmap")?,
            })
        };
        Ok(())
    }
}

/// `--userns`; `own` are the maps of the user namespace we work in.
pub fn mode(text: &str, own: &IdMaps) -> Result<UserNamespace> {
    let (mode, options) = match text.split_once(':') {
        Some((mode, options)) => (mode, Some(options)),
        None => (text, None),
    };
    Ok(match (mode, options) {
        ("" | "host", None) => UserNamespace::Host,
        ("nomap", None) => UserNamespace::NoMap,
        ("private", None) => bail!("must provide at least one UID or GID mapping to configure a user namespace"),
        ("keep-id", options) => keep_id(options.unwrap_or_default())?,
        ("auto", options) => auto(options.unwrap_or_default(), own)?,
        ("container", Some(name)) if !name.is_empty() => UserNamespace::Container(name.to_owned()),
        ("ns", Some(path)) if path.starts_with('/') => UserNamespace::Path(path.to_owned()),
        ("container" | "ns", _) => bail!("namespace mode {mode} requires a value"),
        _ => bail!("unrecognized namespace mode {text} passed"),
    })
}

fn options(text: &str) -> impl Iterator<Item = Result<(&str, &str)>> {
    text.split(',')
        .filter(|option| !option.is_empty())
        .map(|option| option.split_once('=').ok_or_else(|| anyhow!("invalid option specified: {option:?}")))
}

fn keep_id(text: &str) -> Result<UserNamespace> {
    let (mut uid, mut gid, mut size) = (None, None, None);
    for option in options(text) {
        let (key, value) = option?;
        let number = || value.parse::<u32>().with_context(|| format!("--userns keep-id: {key}={value}"));
        match key {
            "uid" => uid = Some(number()?),
            "gid" => gid = Some(number()?),
            "size" => size = Some(number()?),
            _ => bail!("unknown option specified: {key:?}"),
        }
    }
    Ok(UserNamespace::KeepId { uid, gid, size })
}

fn auto(text: &str, own: &IdMaps) -> Result<UserNamespace> {
    let (mut size, mut uid, mut gid) = (None, Vec::new(), Vec::new());
    for option in options(text) {
        let (key, value) = option?;
        match key {
            "size" => {
                let number: u32 = value.parse().with_context(|| format!("--userns auto: size={value}"))?;
                ensure!(number > 0, "--userns auto: size must not be 0");
                size = Some(number);
            }
            "uidmapping" => uid.push(fixed(value, &own.uid)?),
            "gidmapping" => gid.push(fixed(value, &own.gid)?),
            _ => bail!("unknown option specified: {key:?}"),
        }
    }
    Ok(UserNamespace::Auto { size, uid, gid })
}

/// How a map line is meant: `+` adds to the map there would be without it, `@` names ids of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Manner {
    add: bool,
    host: bool,
}

/// `[+]CONTAINER:[@]HOST[:SIZE]`.
fn triple(text: &str) -> Result<(Manner, IdRange)> {
    let wrong = || anyhow!("initializing ID mappings: {text:?}: write it as CONTAINER:HOST:SIZE");
    let mut manner = Manner::default();
    let mut rest = text;
    // `u` and `g` say whom the line is for; each list is ours alone already.
    while let Some(first) = rest.chars().next().filter(|first| !first.is_ascii_digit()) {
        match first {
            '+' => manner.add = true,
            'u' | 'g' => {}
            _ => return Err(wrong()),
        }
        rest = &rest[1..];
    }
    let mut parts = rest.split(':');
    let inside = parts.next().unwrap_or_default();
    let outside = parts.next().unwrap_or(inside);
    let size = parts.next().unwrap_or("1");
    if parts.next().is_some() {
        return Err(wrong());
    }
    let outside = match outside.strip_prefix('@') {
        Some(outside) => {
            manner.host = true;
            outside
        }
        None => outside,
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let range = IdRange { inside: number(inside)?, outside: number(outside)?, size: number(size)? };
    let fits = |first: u32| first.checked_add(range.size).is_some();
    ensure!(range.size > 0 && fits(range.inside) && fits(range.outside), wrong());
    Ok((manner, range))
}

/// A line that stands for itself, in the numbers of the user namespace we work in.
fn fixed(word: &str, own: &[IdRange]) -> Result<IdRange> {
    let (manner, mut range) = triple(word)?;
    if manner.host && !own.is_empty() {
        range.outside = to_own(&range, own)
            .with_context(|| format!("{word:?}: the host's ids are not among those mapped for this user"))?;
    }
    Ok(range)
}

/// All lines of one map, in the numbers of the user namespace we work in.
fn map(words: &[String], own: &[IdRange]) -> Result<Vec<IdRange>> {
    let mut ranges: Vec<IdRange> = Vec::new();
    let mut extend = false;
    for word in words {
        extend |= triple(word)?.0.add;
        ranges.push(fixed(word, own)?);
    }
    if extend {
        let base = if own.is_empty() { vec![IdRange { inside: 0, outside: 0, size: u32::MAX }] } else { own.to_vec() };
        let identity = base.iter().map(|range| IdRange { outside: range.inside, ..*range });
        let rest: Vec<IdRange> = identity.flat_map(|range| without(range, &ranges)).collect();
        ranges.extend(rest);
    }
    ranges.sort_by_key(|range| range.inside);
    for pair in ranges.windows(2) {
        ensure!(
            pair[0].inside + pair[0].size <= pair[1].inside,
            "ids {} and following are mapped twice",
            pair[1].inside
        );
    }
    Ok(ranges)
}

fn to_own(range: &IdRange, own: &[IdRange]) -> Option<u32> {
    own.iter().find_map(|own| {
        let offset = range.outside.checked_sub(own.outside)?;
        (offset.checked_add(range.size)? <= own.size).then(|| own.inside + offset)
    })
}

/// What is left of an identity range when others have taken ids of it, inside or outside.
fn without(range: IdRange, taken: &[IdRange]) -> Vec<IdRange> {
    let mut left = vec![range];
    let cuts = taken.iter().flat_map(|taken| [(taken.inside, taken.size), (taken.outside, taken.size)]);
    for (first, size) in cuts {
        left = left
            .into_iter()
            .flat_map(|range| {
                let (begin, end) = (range.inside, range.inside + range.size);
                let (first, last) = (first.clamp(begin, end), (first + size).clamp(begin, end));
                [(begin, first), (last, end)]
                    .into_iter()
                    .filter(|(begin, end)| begin < end)
                    .map(|(begin, end)| IdRange { inside: begin, outside: begin, size: end - begin })
            })
            .collect();
    }
    left
}

/// The ranges of a name in /etc/subuid or /etc/subgid, mapped from 0 on.
fn named(file: &str, name: &str) -> Result<Vec<IdRange>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let mut inside = 0;
    let mut ranges = Vec::new();
    for (outside, size) in parse_subordinate(&text, Some(name), u32::MAX) {
        ranges.push(IdRange { inside, outside, size });
        inside += size;
    }
    ensure!(!ranges.is_empty(), "no ranges of {name:?} found in {file}");
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str], own: &[IdRange]) -> Result<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let ranges = map(&words, own)?;
        let lines = ranges.iter().map(|range| format!("{}:{}:{}", range.inside, range.outside, range.size));
        Ok(lines.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn maps() {
        assert_eq!(text(&["0:100000:65536"], &[]).unwrap(), "0:100000:65536");
        assert_eq!(text(&["5", "0:1:2"], &[]).unwrap(), "0:1:2 5:5:1");
        let own =
            [IdRange { inside: 0, outside: 1000, size: 1 }, IdRange { inside: 1, outside: 100_000, size: 65_536 }];
        assert_eq!(text(&["0:@100000:10"], &own).unwrap(), "0:1:10");
        assert_eq!(text(&["+100000:@100001:1"], &own).unwrap(), "0:0:1 1:1:1 3:3:65534 100000:2:1");
        for words in
            [&["a:0:1"][..], &["0:0:0"], &["0:1:2:3"], &["0:0:5", "3:9:1"], &["0:@5:1"], &["0:0:4294967295", "1:1:1"]]
        {
            assert!(text(words, &own).is_err(), "{words:?}");
        }
    }

    #[test]
    fn modes() {
        let mode = |text: &str| super::mode(text, &IdMaps::default());
        assert_eq!(mode("").unwrap(), UserNamespace::Host);
        assert_eq!(
            mode("keep-id:uid=1,gid=2,size=3").unwrap(),
            UserNamespace::KeepId { uid: Some(1), gid: Some(2), size: Some(3) }
        );
        assert_eq!(mode("auto").unwrap(), UserNamespace::Auto { size: None, uid: vec![], gid: vec![] });
        assert_eq!(
            mode("auto:size=10,uidmapping=0:1:2").unwrap(),
            UserNamespace::Auto { size: Some(10), uid: vec![IdRange { inside: 0, outside: 1, size: 2 }], gid: vec![] }
        );
        for text in ["x", "keep-id:x=1", "keep-id:uid=a", "auto:size=0", "container:", "ns:", "private", "host:1"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
