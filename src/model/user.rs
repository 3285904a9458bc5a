//! Who runs inside, and how ids are mapped.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// One half of `--user`: a number or a name to be looked up in the image's own passwd or group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameOrId {
    /// A number below 2^31 (CVE-2016-3697: `1000` is never looked up as a name).
    Id(u32),
    /// A name.
    Name(String),
}

/// `--user USER[:GROUP]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRef {
    /// The user; absent in `:GROUP`.
    pub user: Option<NameOrId>,
    /// The group; absent: the user's own and its supplementary groups.
    pub group: Option<NameOrId>,
}

impl UserRef {
    /// Parse `USER`, `USER:GROUP` or `:GROUP`. Numbers that do not fit and texts that begin with a digit or sign but are
    /// no number are refused, never taken for root (CVE-2026-30892).
    pub fn parse(text: &str) -> Result<UserRef> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let half = |half: &str| -> Result<Option<NameOrId>> {
            if half.is_empty() { Ok(None) } else { NameOrId::parse(half).map(Some) }
        };
        Ok(UserRef { user: half(user)?, group: group.map(half).transpose()?.flatten() })
    }
}

impl NameOrId {
    /// A text of digits only is a number, else a name.
    pub fn parse(text: &str) -> Result<NameOrId> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return match text.parse::<u32>() {
                Ok(id) if id <= i32::MAX as u32 => Ok(NameOrId::Id(id)),
                _ => bail!("`{text}`: uids and gids must be in range 0-2147483647"),
            };
        }
        if text.is_empty() || text.starts_with(['-', '+']) || text.contains([':', '\n', '\0', '/']) {
            bail!("`{text}` is no user or group name");
        }
        Ok(NameOrId::Name(text.to_owned()))
    }
}

/// One line of a uid or gid map: `size` ids from `inside` on are `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside the container.
    pub inside: u32,
    /// First id outside. In a record: as the store's own user namespace numbers it (rootless: 0 is the user).
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// Both maps. Empty: the container shares the caller's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// User ids.
    pub uid: Vec<IdRange>,
    /// Group ids.
    pub gid: Vec<IdRange>,
}

/// An id of the container as its engine numbers it; without a map it is the same. `None`: the map has no place for it.
pub fn outside(map: &[IdRange], id: u32) -> Option<u32> {
    if map.is_empty() {
        return Some(id);
    }
    let range = map.iter().find(|range| id >= range.inside && id - range.inside < range.size)?;
    Some(range.outside + (id - range.inside))
}

/// `--userns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// That of the engine: root's own, or for a user the one with their subordinate ids.
    #[default]
    Host,
    /// The caller keeps their ids: `keep-id[:uid=,gid=,size=]`.
    KeepId {
        /// Uid inside; absent: the caller's own number.
        uid: Option<u32>,
        /// Gid inside; absent: the caller's own number.
        gid: Option<u32>,
        /// How many ids; absent: all that there are.
        size: Option<u32>,
    },
    /// A free range of its own: `auto[:size=,uidmapping=,gidmapping=]`.
    Auto {
        /// How many ids; absent: what image and user need, at least 1024.
        size: Option<u32>,
        /// Fixed parts of the map.
        uid: Vec<IdRange>,
        /// Fixed parts of the map.
        gid: Vec<IdRange>,
    },
    /// The caller is not mapped at all.
    NoMap,
    /// `--uidmap`/`--gidmap` as given, or those of `--subuidname`.
    Mapped(IdMaps),
    /// Join another container's.
    Container(String),
    /// Join the one at this path.
    Path(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_forms() {
        let id = |id| Some(NameOrId::Id(id));
        let name = |name: &str| Some(NameOrId::Name(name.to_owned()));
        for (text, user, group) in [
            ("0", id(0), None),
            ("1000:100", id(1000), id(100)),
            ("web", name("web"), None),
            ("web:staff", name("web"), name("staff")),
            (":5", None, id(5)),
            ("1000abc", name("1000abc"), None),
            ("0x0", name("0x0"), None),
        ] {
            assert_eq!(UserRef::parse(text).unwrap(), UserRef { user, group }, "{text}");
        }
        for text in ["-1", "4294967296", "2147483648", "a:-1", "+1", "a:b:c"] {
            assert!(UserRef::parse(text).is_err(), "{text}");
        }
    }
}
