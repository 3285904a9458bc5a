//! Which ids a container has: `--userns` turned into maps, once, at create.
//!
//! `outside` of the maps is as the engine's own namespace numbers ids: for a user 0 is the user and 1 on are their
//! subordinate ids; for root they are the machine's.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::host::userns;
use crate::model::container::ContainerSpec;
use crate::model::user::{IdMaps, IdRange, NameOrId, UserNamespace, UserRef};
use crate::state::container::{self, ContainerRecord};
use anyhow::Result;

/// podman's smallest automatic range.
const AUTO_MINIMUM: u32 = 1024;

/// Choose, and set the default user that goes with keep-id.
pub fn choose(engine: &Engine, spec: &mut ContainerSpec) -> Result<IdMaps> {
    let caller = engine.privilege.caller;
    match spec.userns.clone() {
        UserNamespace::Host | UserNamespace::Path(_) => Ok(IdMaps::default()),
        UserNamespace::Container(id) => {
            Ok(ContainerRecord::load(&engine.layout, &crate::model::id::Id::parse(&id)?)?.id_maps)
        }
        UserNamespace::Mapped(maps) => {
            check(&maps.uid, engine)?;
            check(&maps.gid, engine)?;
            Ok(maps)
        }
        UserNamespace::KeepId { uid, gid, size } => {
            let kept = (uid.unwrap_or(caller.uid), gid.unwrap_or(caller.gid));
            if !engine.privilege.rootless {
                return Err(refused("keep-id"));
            }
            if spec.process.user.is_none() {
                let (user, group) = kept;
                spec.process.user = Some(UserRef { user: Some(NameOrId::Id(user)), group: Some(NameOrId::Id(group)) });
            }
            let (uids, gids) = available(engine);
            Ok(IdMaps { uid: keep(kept.0, size.unwrap_or(uids), uids), gid: keep(kept.1, size.unwrap_or(gids), gids) })
        }
        UserNamespace::NoMap => {
            if !engine.privilege.rootless {
                return Err(refused("nomap"));
            }
            let (uids, gids) = available(engine);
            if uids < 2 || gids < 2 {
                return Err(Failure::new(Kind::Engine, "--userns nomap: there are no subordinate ids to map")
                    .hint("give the user a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER")
                    .into());
            }
            let map = |size: u32| vec![IdRange { inside: 0, outside: 1, size: size - 1 }];
            Ok(IdMaps { uid: map(uids), gid: map(gids) })
        }
        UserNamespace::Auto { size, uid, gid } => automatic(engine, spec, size, uid, gid),
    }
}

/// Who is root inside, as the engine numbers ids; `None` without maps.
pub fn root_of(maps: &IdMaps) -> Option<(u32, u32)> {
    let outside = |ranges: &[IdRange]| ranges.iter().find(|range| range.inside == 0).map(|range| range.outside);
    Some((outside(&maps.uid)?, outside(&maps.gid)?))
}

fn refused(mode: &str) -> anyhow::Error {
    Failure::new(Kind::Engine, format!("--userns {mode} is for ordinary users: root keeps its ids with --userns host"))
        .into()
}

/// How many ids the engine's namespace has from 0 on.
fn available(engine: &Engine) -> (u32, u32) {
    let sum = |ranges: &[IdRange]| ranges.iter().map(|range| range.size).sum();
    (sum(&engine.privilege.maps.uid), sum(&engine.privilege.maps.gid))
}

/// `kept` inside is 0 outside; the ids below and above it are the subordinate ones in order.
fn keep(kept: u32, size: u32, available: u32) -> Vec<IdRange> {
    let below = kept.min(available.saturating_sub(1)).min(size);
    let above = available.saturating_sub(1).saturating_sub(below).min(size.saturating_sub(below).saturating_sub(1));
    let ranges = [
        IdRange { inside: 0, outside: 1, size: below },
        IdRange { inside: kept, outside: 0, size: 1 },
        IdRange { inside: kept + 1, outside: below + 1, size: above },
    ];
    ranges.into_iter().filter(|range| range.size > 0).collect()
}

/// A map as the kernel takes it: not empty, no overlap, within what is ours.
fn check(map: &[IdRange], engine: &Engine) -> Result<()> {
    let bad =
        |why: String| -> anyhow::Error { Failure::new(Kind::Engine, format!("user namespace map: {why}")).into() };
    if map.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    let (uids, gids) = available(engine);
    let limit = if engine.privilege.rootless { uids.max(gids) } else { u32::MAX };
    for (index, range) in map.iter().enumerate() {
        let outside_end = range.outside.checked_add(range.size);
        if range.size == 0
            || range.inside.checked_add(range.size).is_none()
            || outside_end.is_none_or(|end| end > limit)
        {
            return Err(bad(format!(
                "{}:{}:{} is outside of the {limit} ids there are",
                range.inside, range.outside, range.size
            )));
        }
        let overlaps = |one: u32, other: u32, size: u32| {
            one < other.saturating_add(size) && other < one.saturating_add(range.size)
        };
        if map[..index].iter().any(|known| {
            overlaps(range.inside, known.inside, known.size) || overlaps(range.outside, known.outside, known.size)
        }) {
            return Err(bad("two of its ranges overlap".to_owned()));
        }
    }
    Ok(())
}

/// A range that no other container has: for root of those of the user `containers` in /etc/subuid, for a user of theirs.
fn automatic(
    engine: &Engine,
    spec: &ContainerSpec,
    size: Option<u32>,
    uid: Vec<IdRange>,
    gid: Vec<IdRange>,
) -> Result<IdMaps> {
    let wanted = match (&spec.process.user, size) {
        (_, Some(size)) => size,
        (Some(UserRef { user: Some(NameOrId::Id(id)), .. }), None) => (id + 1).max(AUTO_MINIMUM),
        // A user known by name only has an id below 65536 in every image that follows the usual conventions.
        (Some(UserRef { user: Some(NameOrId::Name(_)), .. }), None) => 65_536,
        _ => AUTO_MINIMUM,
    };
    let free_of = |file: &str, maps: &[IdRange], used: Vec<IdRange>| -> Result<u32> {
        let pool: Vec<(u32, u32)> = if engine.privilege.rootless {
            let size: u32 = maps.iter().map(|range| range.size).sum();
            vec![(1, size.saturating_sub(1))]
        } else {
            userns::parse_subordinate(&std::fs::read_to_string(file).unwrap_or_default(), Some("containers"), u32::MAX)
        };
        first_free(&pool, &used, wanted).ok_or_else(|| {
            Failure::new(Kind::Engine, format!("--userns auto: no free range of {wanted} ids"))
                .hint(if engine.privilege.rootless {
                    "give this user a larger range in /etc/subuid and /etc/subgid, or use --userns auto:size=N"
                        .to_owned()
                } else {
                    format!("give the user `containers` a range in {file}: containers:2147483647:2147483648")
                })
                .into()
        })
    };
    let others = others(engine)?;
    let used = |pick: fn(&IdMaps) -> &Vec<IdRange>| others.iter().flat_map(|maps| pick(maps).clone()).collect();
    let first_uid = free_of("/etc/subuid", &engine.privilege.maps.uid, used(|maps| &maps.uid))?;
    let first_gid = free_of("/etc/subgid", &engine.privilege.maps.gid, used(|maps| &maps.gid))?;
    Ok(IdMaps { uid: around(&uid, first_uid, wanted), gid: around(&gid, first_gid, wanted) })
}

/// The maps of all containers there are.
fn others(engine: &Engine) -> Result<Vec<IdMaps>> {
    let ids = container::list(&engine.layout)?;
    let records = ids.iter().filter_map(|id| ContainerRecord::load(&engine.layout, id).ok());
    Ok(records.map(|record| record.id_maps).collect())
}

/// The first `size` ids of the pool that nobody uses.
fn first_free(pool: &[(u32, u32)], used: &[IdRange], size: u32) -> Option<u32> {
    for (first, count) in pool {
        let end = first.checked_add(*count)?;
        let mut candidate = *first;
        while candidate.checked_add(size).is_some_and(|last| last <= end) {
            let clash = used
                .iter()
                .find(|range| range.outside < candidate + size && candidate < range.outside.saturating_add(range.size));
            match clash {
                None => return Some(candidate),
                Some(range) => candidate = range.outside.saturating_add(range.size),
            }
        }
    }
    None
}

/// The fixed parts as they are, the rest of `size` ids from the chosen range.
fn around(fixed: &[IdRange], first: u32, size: u32) -> Vec<IdRange> {
    let mut map: Vec<IdRange> = fixed.to_vec();
    let mut sorted = fixed.to_vec();
    sorted.sort_by_key(|range| range.inside);
    let (mut inside, mut outside) = (0, first);
    for range in &sorted {
        if range.inside > inside && inside < size {
            let gap = (range.inside - inside).min(size - inside);
            map.push(IdRange { inside, outside, size: gap });
            outside += gap;
        }
        inside = inside.max(range.inside.saturating_add(range.size));
    }
    if inside < size {
        map.push(IdRange { inside, outside, size: size - inside });
    }
    map.sort_by_key(|range| range.inside);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, size: u32) -> IdRange {
        IdRange { inside, outside, size }
    }

    #[test]
    fn keep_id() {
        assert_eq!(keep(1000, 65_537, 65_537), [range(0, 1, 1000), range(1000, 0, 1), range(1001, 1001, 64_536)]);
        assert_eq!(keep(0, 65_537, 65_537), [range(0, 0, 1), range(1, 1, 65_536)]);
        assert_eq!(keep(1000, 1, 1), [range(1000, 0, 1)]);
    }

    #[test]
    fn free_ranges_never_overlap() {
        let mut used = Vec::new();
        for _ in 0..10 {
            let first = first_free(&[(1000, 5000), (10_000, 6000)], &used, 1024).unwrap();
            assert!(used.iter().all(|known: &IdRange| first >= known.outside + 1024 || first + 1024 <= known.outside));
            used.push(range(0, first, 1024));
            if used.len() == 9 {
                break;
            }
        }
        assert_eq!(first_free(&[(1000, 5000), (10_000, 6000)], &used, 1024), None);
    }

    #[test]
    fn fixed_parts() {
        assert_eq!(around(&[range(10, 0, 1)], 100, 20), [range(0, 100, 10), range(10, 0, 1), range(11, 110, 9)]);
    }
}
