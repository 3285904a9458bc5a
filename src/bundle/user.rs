//! Who runs inside: `--user` looked up in the image's own passwd and group.
//!
//! Pure: the texts come in. They are the image's, so they are hostile: a line that does not parse is no line, a number
//! that does not fit is no number (and never becomes 0), and a numeric `--user` is never taken for a name (CVE-2016-3697).

use crate::failure::{Failure, Kind};
use crate::model::user::{NameOrId, UserRef};
use anyhow::Result;

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Uid inside.
    pub uid: u32,
    /// Gid inside.
    pub gid: u32,
    /// Supplementary groups, sorted, without repetition.
    pub groups: Vec<u32>,
    /// Home directory; `/` where unknown.
    pub home: String,
    /// The name, where passwd has one.
    pub name: Option<String>,
    /// The user has a line in passwd.
    pub known: bool,
    /// The group has a line in group.
    pub group_known: bool,
}

/// One line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// Name.
    pub name: &'a str,
    /// Uid.
    pub uid: u32,
    /// Gid.
    pub gid: u32,
    /// Home directory.
    pub home: &'a str,
}

/// One line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Name.
    pub name: &'a str,
    /// Gid.
    pub gid: u32,
    /// Names of members.
    pub members: Vec<&'a str>,
}

/// The lines of a passwd file that are lines of one.
pub fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, gid) = (*fields.first()?, number(fields.get(2)?)?, number(fields.get(3)?)?);
        let home = fields.get(5).copied().filter(|home| !home.is_empty()).unwrap_or("/");
        (!name.is_empty()).then_some(Account { name, uid, gid, home })
    })
}

/// The lines of a group file that are lines of one.
pub fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, gid) = (*fields.first()?, number(fields.get(2)?)?);
        let members = fields.get(3).map(|list| list.split(',').filter(|name| !name.is_empty()).collect());
        (!name.is_empty()).then_some(Group { name, gid, members: members.unwrap_or_default() })
    })
}

/// Digits only, and an id the kernel knows: 2^32 - 1 means "no change" to setuid(2), which would leave root.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// Look a user up.
///
/// # Errors
/// `unable to find user NAME: no matching entries in passwd file`, as podman and docker say it; exit code 125 at
/// create, 126 at exec is the caller's matter.
pub fn resolve(wanted: Option<&UserRef>, extra: &[String], passwd: &str, group: &str) -> Result<Resolved> {
    let user = wanted.and_then(|wanted| wanted.user.clone()).unwrap_or(NameOrId::Id(0));
    let account = match &user {
        NameOrId::Id(uid) => accounts(passwd).find(|account| account.uid == *uid),
        NameOrId::Name(name) => {
            let found = accounts(passwd).find(|account| account.name == name);
            Some(found.ok_or_else(|| unknown("user", name, "passwd"))?)
        }
    };
    let mut resolved = Resolved { home: "/".to_owned(), ..Resolved::default() };
    match (&account, &user) {
        (Some(account), _) => {
            resolved.uid = account.uid;
            resolved.gid = account.gid;
            resolved.home = account.home.to_owned();
            resolved.name = Some(account.name.to_owned());
            resolved.known = true;
        }
        (None, NameOrId::Id(uid)) => resolved.uid = *uid,
        (None, NameOrId::Name(_)) => {}
    }
    match wanted.and_then(|wanted| wanted.group.as_ref()) {
        Some(wanted) => resolved.gid = group_id(wanted, group)?,
        // Supplementary groups come with the user only where no group was named (docker, podman).
        None => {
            let name = account.as_ref().map(|account| account.name);
            resolved.groups = groups(group)
                .filter(|group| name.is_some_and(|name| group.members.contains(&name)))
                .map(|group| group.gid)
                .collect();
        }
    }
    for name in extra {
        resolved.groups.push(group_id(&NameOrId::parse(name)?, group)?);
    }
    resolved.groups.sort_unstable();
    resolved.groups.dedup();
    resolved.group_known = groups(group).any(|group| group.gid == resolved.gid);
    Ok(resolved)
}

fn group_id(wanted: &NameOrId, text: &str) -> Result<u32> {
    match wanted {
        NameOrId::Id(gid) => Ok(*gid),
        NameOrId::Name(name) => {
            let found = groups(text).find(|group| group.name == name).map(|group| group.gid);
            found.ok_or_else(|| unknown("group", name, "group"))
        }
    }
}

fn unknown(what: &str, name: &str, file: &str) -> anyhow::Error {
    Failure::new(Kind::Engine, format!("unable to find {what} {name}: no matching entries in {file} file")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:\nweb:x:33:33:web:/var/www:/bin/sh\n\
        big:x:4294967295:0::/:\nneg:x:-1:0::/:\nbad\nann:x:1000:1000::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:web,ann\nweb:x:33:\naudio:x:29:ann\n";

    fn check(user: Option<&str>, extra: &[&str], expected: (u32, u32, &[u32], &str)) {
        let user = user.map(|user| UserRef::parse(user).unwrap());
        let extra: Vec<String> = extra.iter().map(|name| (*name).to_owned()).collect();
        let resolved = resolve(user.as_ref(), &extra, PASSWD, GROUP).unwrap();
        assert_eq!((resolved.uid, resolved.gid, &resolved.groups[..], &resolved.home[..]), expected, "{user:?}");
    }

    #[test]
    fn forms() {
        check(None, &[], (0, 0, &[], "/root"));
        check(Some("web"), &[], (33, 33, &[50], "/var/www"));
        check(Some("web:staff"), &[], (33, 50, &[], "/var/www"));
        check(Some("ann"), &["web", "7"], (1000, 1000, &[7, 29, 33, 50], "/home/ann"));
        check(Some("4711"), &[], (4711, 0, &[], "/"));
        check(Some("4711:12"), &[], (4711, 12, &[], "/"));
        check(Some(":staff"), &[], (0, 50, &[], "/root"));
    }

    #[test]
    fn cve_2016_3697_a_number_is_no_name() {
        check(Some("1000"), &[], (1000, 1000, &[29, 50], "/home/ann"));
    }

    #[test]
    fn ids_that_mean_no_change_are_no_ids() {
        for name in ["big", "neg", "bad", "nobody"] {
            let user = UserRef::parse(name).unwrap();
            let error = resolve(Some(&user), &[], PASSWD, GROUP).unwrap_err();
            assert_eq!(error.to_string(), format!("unable to find user {name}: no matching entries in passwd file"));
        }
    }
}
