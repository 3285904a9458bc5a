//! The crash walk (STYLE.md 2.4) over the verbs that change the store, and stores that are full or damaged.
//!
//! A debug build numbers each write, rename, lock and sync point. A verb is ended by SIGKILL at the n-th, or the disk fails
//! there; afterwards ordinary commands work, `system check` finds nothing, `system df` agrees with `du`, and nothing is
//! left behind. A run takes some of the points; `CORACLE_CRASH_WALK=all` takes each with each kind of end.

use crate::support::Env;
use crate::support::coracle::{as_root, both};
use crate::support::image::{BUSYBOX, Image, Layer};
use crate::support::registry::noise;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const KINDS: [&str; 3] = ["kill", "EIO", "ENOSPC"];
/// Points of a walk that is not whole.
const SAMPLE: usize = 6;

/// A verb to end, and what must be there first.
struct Walk<'a> {
    before: &'a [&'a [&'a str]],
    verb: &'a [&'a str],
}

/// Big enough that one hundredth of it is more than the directories of an empty store.
fn image() -> Image {
    Image::new("localhost/walk:1").layer(Layer::new().file("big", 0o644, noise("walk", 6 << 20)))
}

/// The numbers to walk, with their kinds.
fn points(count: usize) -> Vec<(usize, &'static str)> {
    if std::env::var("CORACLE_CRASH_WALK").is_ok_and(|wish| wish == "all") {
        return (1..=count).flat_map(|number| KINDS.map(|kind| (number, kind))).collect();
    }
    let some: BTreeSet<usize> = (0..SAMPLE.min(count)).map(|index| 1 + index * count / SAMPLE.min(count)).collect();
    some.into_iter().enumerate().map(|(index, number)| (number, KINDS[index % KINDS.len()])).collect()
}

fn clear(env: &Env) {
    let _ = env.coracle(["rm", "-a", "-f", "-t", "0"]).code();
    let _ = env.coracle(["volume", "rm", "-a", "-f"]).code();
}

/// Bytes on disk, as `du` counts them.
fn du(env: &Env) -> u64 {
    let data = env.data();
    let command =
        if env.is_root() { env.other(["du", "-s", "-B1"]) } else { env.command(["unshare", "du", "-s", "-B1"]) };
    let text = command.arg(&data).run().ok();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of du")
}

/// Ordinary commands work and tell the truth.
#[track_caller]
fn assert_in_order(env: &Env, fault: &str) {
    for words in [&["ps", "-a"][..], &["images", "-a"], &["volume", "ls"], &["network", "ls"]] {
        assert_eq!(env.coracle(words).code(), 0, "{fault}: {words:?}");
    }
    let output = env.coracle(["system", "check", "--quick"]);
    assert!(output.code() == 0 && output.stdout().is_empty(), "{fault}: {output}");
    let shares = env.coracle(["system", "df", "--format", "json"]).json();
    let sum: u64 = shares.as_array().expect("a list").iter().filter_map(|share| share["RawSize"].as_u64()).sum();
    let wanted = du(env);
    // The directories of an empty store belong to none of the three.
    assert!(sum.abs_diff(wanted) <= wanted / 100 + (128 << 10), "{fault}: df says {sum}, du {wanted}");
}

#[track_caller]
fn walk(env: &Env, walk: &Walk<'_>) {
    env.load(&image());
    let list = env.path("points");
    let mut count = 0;
    for (step, counted) in [(0, true), (1, false)] {
        if step == 1 && count == 0 {
            // A release build has no such points.
            return;
        }
        let points = if counted { vec![(0, "none")] } else { points(count) };
        for (number, kind) in points {
            for words in walk.before {
                let _ = env.coracle(*words).ok();
            }
            let fault = format!("{kind}@{number} of {count} in {}", walk.verb.join(" "));
            let command = env.command(walk.verb);
            let ended = if counted {
                command.env("CORACLE_FAULT_COUNT", &list).run()
            } else {
                command.env("CORACLE_FAULT", format!("{kind}@{number}")).run()
            };
            if counted {
                assert_eq!(ended.code(), 0, "{ended}");
                let text = std::fs::read_to_string(&list).unwrap_or_default();
                let numbers = text.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok());
                count = numbers.max().unwrap_or(0);
            } else if kind != "kill" {
                let said = ended.stderr();
                assert!(ended.code() == 0 || said.contains("coracle: "), "{fault}: it fails without a word\n{ended}");
            }
            assert_in_order(env, &fault);
            clear(env);
            assert_eq!(env.coracle(["ps", "-aq"]).ok(), "", "{fault}: containers that do not go");
            assert_eq!(env.coracle(["volume", "ls", "-q"]).ok(), "", "{fault}: volumes that do not go");
            env.load(&image());
        }
    }
    let _ = env.coracle(["system", "prune", "-a", "-f", "--volumes"]).succeeded();
    for directory in ["containers", "names", "volumes", "layers-v1", "blobs/sha256", "images", "tags", "tmp"] {
        let entries = std::fs::read_dir(env.data().join(directory)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // A container in the making bears no lock: what is there of one is swept after a minute.
        let left: Vec<String> = names.filter(|name| !name.starts_with("container.")).collect();
        assert!(left.is_empty(), "{}: something is left in {directory}: {left:?}", walk.verb.join(" "));
    }
}

both! {
    fn create_may_end_anywhere(env: Env) {
        walk(&env, &Walk { before: &[], verb: &["create", "-q", "--name", "c", "-v", "v:/v", "walk:1", "/x"] });
    }

    fn run_may_end_anywhere(env: Env) {
        let _ = env.busybox();
        walk(&env, &Walk { before: &[], verb: &["run", "--name", "c", "-v", "v:/v", BUSYBOX, "true"] });
    }

    fn rm_may_end_anywhere(env: Env) {
        let before: &[&[&str]] = &[&["create", "-q", "--name", "c", "-v", "/anonymous", "walk:1", "/x"]];
        walk(&env, &Walk { before, verb: &["rm", "-v", "c"] });
    }

    fn commit_may_end_anywhere(env: Env) {
        let before: &[&[&str]] = &[&["create", "-q", "--name", "c", "walk:1", "/x"]];
        walk(&env, &Walk { before, verb: &["commit", "-q", "c", "localhost/new:1"] });
    }

    fn volume_verbs_may_end_anywhere(env: Env) {
        walk(&env, &Walk { before: &[], verb: &["volume", "create", "--label", "a=b", "v"] });
        walk(&env, &Walk { before: &[&["volume", "create", "v"]], verb: &["volume", "rm", "v"] });
    }

    fn volume_import_may_end_anywhere(env: Env) {
        let archive = env.write("files.tar", Layer::new().file("a", 0o644, "a").tar());
        let before: &[&[&str]] = &[&["volume", "create", "v"]];
        walk(&env, &Walk { before, verb: &["volume", "import", "v", archive.to_str().expect("a path")] });
    }

    fn prune_and_tag_may_end_anywhere(env: Env) {
        let before: &[&[&str]] =
            &[&["create", "-q", "--name", "c", "walk:1", "/x"], &["volume", "create", "v"], &["tag", "walk:1", "other:1"]];
        walk(&env, &Walk { before, verb: &["system", "prune", "-a", "-f", "--volumes"] });
        walk(&env, &Walk { before: &[], verb: &["tag", "walk:1", "localhost/third:1"] });
    }
}

/// A file system of this size at the place of the store, gone with it.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn mount(path: &Path, megabytes: u64) -> Small<'_> {
        std::fs::create_dir_all(path).expect("make the store's directory");
        let options = format!("size={megabytes}m,mode=0700");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("small"), path, Some("tmpfs"), flags, Some(options.as_str())).expect("mount a tmpfs");
        Small(path)
    }

    /// Take all that is free.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).expect("make a file");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn relieve(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("remove a file");
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

as_root! {
    fn with_nothing_free_all_can_be_removed(env: Env) {
        let data = env.data();
        let small = Small::mount(&data, 32);
        let _ = env.busybox();
        env.load(&image());
        let _ = env.coracle(["volume", "create", "v"]).ok();
        for name in ["stopped", "removed", "forced"] {
            let _ = env.coracle(["run", "-d", "--name", name, BUSYBOX, "sleep", "1000"]).ok();
        }
        let _ = env.coracle(["create", "-q", "--name", "never", "-v", "v:/v", BUSYBOX, "true"]).ok();
        small.fill();
        let listed = env.coracle(["ps", "-a", "--format", "{{.Names}}"]).ok();
        assert_eq!(listed.lines().count(), 4, "{listed}");
        let _ = env.coracle(["images"]).ok();
        let text = env.coracle(["run", "--rm", BUSYBOX, "true"]).fails(125);
        assert!(text.to_lowercase().contains("no space left on device"), "{text}");
        for words in [
            &["stop", "-t", "0", "stopped", "removed"][..],
            &["rm", "removed"],
            &["rm", "-f", "-t", "0", "forced"],
            &["rm", "never"],
            &["volume", "rm", "v"],
            &["rmi", "walk:1"],
        ] {
            let output = env.coracle(words);
            assert_eq!(output.code(), 0, "{output}");
            if words[0] != "rmi" {
                // What was freed is taken again.
                small.relieve();
                small.fill();
            }
        }
        assert_eq!(env.coracle(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok(), "stopped exited");
        let _ = env.coracle(["system", "prune", "-a", "-f"]).succeeded();
        assert_eq!(env.coracle(["ps", "-aq"]).ok(), "");
        assert_eq!(env.coracle(["images", "-q"]).ok(), "");
        small.relieve();
        let _ = env.busybox();
        assert_eq!(env.coracle(["run", "--rm", BUSYBOX, "echo", "again"]).ok(), "again");
        assert_eq!(env.coracle(["system", "check"]).ok(), "");
    }
}

both! {
    fn what_is_damaged_is_named_and_the_rest_works(env: Env) {
        let _ = env.busybox();
        env.load(&image());
        for name in ["bad", "good"] {
            let _ = env.coracle(["create", "-q", "--name", name, BUSYBOX, "true"]).ok();
            let _ = env.coracle(["volume", "create", name]).ok();
        }
        let id = |name: &str| env.coracle(["inspect", "--format", "{{.Id}}", name]).ok();
        let bad = env.data().join("containers").join(id("bad")).join("config.json");
        let volume = env.data().join("volumes/bad/volume.json");
        let image_id = env.coracle(["image", "inspect", "--format", "{{.Id}}", "walk:1"]).ok();
        let image = env.data().join(format!("images/{image_id}.json"));
        for path in [&bad, &volume, &image] {
            std::fs::write(path, "{\"version\": 1, gar").unwrap();
        }
        for junk in ["containers/junk", "images/junk.json", "tags/junk%", "names/junk", "volumes/junk", "blobs/sha256/junk"] {
            std::fs::write(env.data().join(junk), "junk").unwrap();
        }
        let output = env.coracle(["ps", "-a", "--format", "{{.Names}}"]);
        assert!(output.code() == 0 && output.stdout().contains("good"), "{output}");
        let output = env.coracle(["images", "--format", "{{.Repository}}"]);
        assert!(output.code() == 0 && output.stdout().contains("localhost/busybox"), "{output}");
        let output = env.coracle(["volume", "ls", "-q"]);
        assert!(output.code() == 0 && output.stdout().contains("good"), "{output}");
        assert_eq!(env.coracle(["run", "--rm", "-v", "good:/v", BUSYBOX, "echo", "works"]).ok(), "works");
        for (words, path) in [
            (&["start", "bad"][..], &bad),
            (&["volume", "inspect", "bad"], &volume),
            (&["image", "inspect", &image_id], &image),
        ] {
            let output = env.coracle(words);
            assert_ne!(output.code(), 0, "{output}");
            assert!(output.stderr().contains(&*path.to_string_lossy()), "{output}");
        }
        let _ = env.coracle(["rm", "-f", "bad"]).succeeded();
        let _ = env.coracle(["rm", "good"]).ok();
    }
}

as_root! {
    fn a_store_that_cannot_be_written_can_be_read(env: Env) {
        let _ = env.busybox();
        let _ = env.coracle(["create", "-q", "--name", "c", BUSYBOX, "true"]).ok();
        let data = env.data();
        let flags = nix::mount::MsFlags::MS_BIND;
        let none = None::<&str>;
        nix::mount::mount(Some(&data), &data, none, flags, none).expect("bind the store");
        let _guard = Small(&data);
        let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(none, &data, none, flags, none).expect("make the store read-only");
        assert_eq!(env.coracle(["ps", "-a", "--format", "{{.Names}}"]).ok(), "c");
        assert_eq!(env.coracle(["images", "--format", "{{.Repository}}"]).ok(), "localhost/busybox");
        let found: Value = env.coracle(["inspect", "c"]).json();
        assert_eq!(found[0]["Name"], "c");
        for words in [&["rm", "c"][..], &["create", BUSYBOX, "true"], &["rmi", "-f", BUSYBOX], &["volume", "create", "v"]] {
            let text = env.coracle(words).fails(125);
            assert!(text.to_lowercase().contains("read-only file system"), "{words:?}: {text}");
            assert!(text.contains(&*data.to_string_lossy()), "{words:?}: the file is not named: {text}");
        }
    }
}
