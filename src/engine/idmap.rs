//! Which ids a container has: `--userns` turned into maps, once, at create.
//!
//! `outside` of the maps is as the engine's own namespace numbers ids: for a user 0 is the user and 1 on are their
//! subordinate ids; for root they are the machine's.

use crate::bundle::user;
use crate::engine::{Engine, rootfs};
use crate::failure::{Failure, Kind};
use crate::host::userns;
use crate::model::container::ContainerSpec;
use crate::model::user::{IdMaps, IdRange, NameOrId, UserNamespace, UserRef};
use crate::state::container::{self, ContainerRecord};
use crate::storage::layer;
use crate::supervisor::acquire;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::fd::AsFd;

/// podman's smallest automatic range.
const AUTO_MINIMUM: u32 = 1024;

/// podman's largest, if nobody asks for more.
const AUTO_MAXIMUM: u32 = 65_536;

/// An id that is in every image and needs no place.
const NOBODY: u32 = 65_534;

/// Containers whose ranges were chosen for them have none in common: held from the choice until the record is there.
pub type Reservation = Option<Flock<File>>;

/// Choose, and set the default user that goes with keep-id. `layers` are the image's, lowest first.
pub fn choose(engine: &Engine, spec: &mut ContainerSpec, layers: &[String]) -> Result<(IdMaps, Reservation)> {
    let reservation = match spec.userns {
        UserNamespace::Auto { .. } => Some(reserve(engine)?),
        _ => None,
    };
    let own = &engine.privilege.maps;
    let IdMaps { uid, gid } = maps(engine, spec, layers)?;
    Ok((IdMaps { uid: along(&uid, &own.uid), gid: along(&gid, &own.gid) }, reservation))
}

/// The same map in ranges of which each lies in one range of ours: the kernel takes no others.
fn along(map: &[IdRange], own: &[IdRange]) -> Vec<IdRange> {
    if own.is_empty() {
        return map.to_vec();
    }
    let mut parts = Vec::new();
    for range in map {
        for own in own {
            let first = range.outside.max(own.inside);
            let end = (range.outside + range.size).min(own.inside + own.size);
            if first < end {
                let inside = range.inside + (first - range.outside);
                parts.push(IdRange { inside, outside: first, size: end - first });
            }
        }
    }
    parts
}

fn reserve(engine: &Engine) -> Result<Flock<File>> {
    let path = engine.layout.containers();
    let context = || format!("lock {}", path.display());
    let directory = File::open(&path).with_context(context)?;
    Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| error).with_context(context)
}

fn maps(engine: &Engine, spec: &mut ContainerSpec, layers: &[String]) -> Result<IdMaps> {
    let caller = engine.privilege.caller;
    match spec.userns.clone() {
        UserNamespace::Host => Ok(IdMaps::default()),
        UserNamespace::Path(path) => of_namespace(&path),
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
                // Root has its ids in any case.
                return Ok(IdMaps::default());
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
                return Err(Failure::new(Kind::Engine, "nomap is only supported in rootless mode").into());
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
        UserNamespace::Auto { size, uid, gid } => {
            let size = match size {
                Some(size) => size,
                None => needed(engine, spec, layers)?,
            };
            automatic(engine, size, uid, gid)
        }
    }
}

/// The maps of a namespace that is joined, seen from here, if the path says whose it is.
fn of_namespace(path: &str) -> Result<IdMaps> {
    let link = |path: &str| std::fs::read_link(path).ok();
    let of_process = path.strip_suffix("/ns/user").filter(|process| process.starts_with("/proc/"));
    match of_process {
        Some(process) if link(path) != link("/proc/self/ns/user") => Ok(userns::maps_of(process)),
        _ => Ok(IdMaps::default()),
    }
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

/// How many ids the image's accounts and the container's user need, as podman counts them.
fn needed(engine: &Engine, spec: &ContainerSpec, layers: &[String]) -> Result<u32> {
    let lower = layers.iter().rev().map(|hex| layer::diff_path(&engine.layout, hex)).collect();
    let (mut passwd, mut group) = (String::new(), String::new());
    if let Some(root) = rootfs::image_root(engine, lower)? {
        passwd = acquire::read_inside(root.as_fd(), "etc/passwd")?;
        group = acquire::read_inside(root.as_fd(), "etc/group")?;
    }
    let ids = user::accounts(&passwd).flat_map(|account| [account.uid, account.gid]);
    let ids = ids.chain(user::groups(&group).map(|group| group.gid)).filter(|id| *id != NOBODY);
    let highest = ids.max().unwrap_or(0).min(AUTO_MAXIMUM - 1);
    let asked = |half: Option<&NameOrId>| if let Some(NameOrId::Id(id)) = half { *id } else { 0 };
    let user = spec.process.user.as_ref();
    let (uid, gid) = user.map_or((0, 0), |user| (asked(user.user.as_ref()), asked(user.group.as_ref())));
    Ok((highest.max(uid).max(gid) + 1).max(AUTO_MINIMUM))
}

/// A range that no other container has: for root of those of the user `containers` in /etc/subuid, for a user of theirs.
fn automatic(engine: &Engine, size: u32, uid: Vec<IdRange>, gid: Vec<IdRange>) -> Result<IdMaps> {
    let others = others(engine)?;
    let free = |file: &str, own: &[IdRange], fixed: &[IdRange], pick: fn(&IdMaps) -> &Vec<IdRange>| -> Result<u32> {
        let pool: Vec<(u32, u32)> = if engine.privilege.rootless {
            let all: u32 = own.iter().map(|range| range.size).sum();
            vec![(1, all.saturating_sub(1))]
        } else {
            userns::parse_subordinate(&std::fs::read_to_string(file).unwrap_or_default(), Some("containers"), u32::MAX)
        };
        if pool.is_empty() {
            let what = format!("--userns auto: no subordinate ids for user \"containers\" in {file}");
            let hint = format!("echo containers:2147483647:2147483648 >> {file}");
            return Err(Failure::new(Kind::Engine, what).hint(hint).into());
        }
        let used = |chosen: bool| -> Vec<IdRange> {
            let others = others.iter().filter(|(auto, _)| *auto || !chosen).flat_map(|(_, maps)| pick(maps).clone());
            others.chain(fixed.iter().copied()).collect()
        };
        // A container that asked for its range may have all there are: then only those chosen here are kept apart.
        first_free(&pool, &used(false), size).or_else(|| first_free(&pool, &used(true), size)).ok_or_else(|| {
            let all: u32 = pool.iter().map(|(_, count)| count).sum();
            Failure::new(Kind::Engine, format!("--userns auto: no free range of {size} ids among the {all} of {file}"))
                .hint(format!("enlarge the range in {file}, remove containers, or use --userns auto:size=N"))
                .into()
        })
    };
    let first_uid = free("/etc/subuid", &engine.privilege.maps.uid, &uid, |maps| &maps.uid)?;
    let first_gid = free("/etc/subgid", &engine.privilege.maps.gid, &gid, |maps| &maps.gid)?;
    Ok(IdMaps { uid: around(&uid, first_uid, size), gid: around(&gid, first_gid, size) })
}

/// The maps of all containers there are, and whether they were chosen here.
fn others(engine: &Engine) -> Result<Vec<(bool, IdMaps)>> {
    let ids = container::list(&engine.layout)?;
    let records = ids.iter().filter_map(|id| ContainerRecord::load(&engine.layout, id).ok());
    Ok(records.map(|record| (matches!(record.spec.userns, UserNamespace::Auto { .. }), record.id_maps)).collect())
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
    fn ranges_lie_in_one_of_ours() {
        let own = [range(0, 1000, 1), range(1, 100_000, 10), range(11, 300_000, 10)];
        assert_eq!(along(&[range(0, 0, 15)], &own), [range(0, 0, 1), range(1, 1, 10), range(11, 11, 4)]);
        assert_eq!(along(&[range(5, 2, 3)], &own), [range(5, 2, 3)]);
        assert_eq!(along(&[range(5, 2, 3)], &[]), [range(5, 2, 3)]);
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
