//! `--userns`, `--uidmap`: whose files are whose, inside, on the host and in what comes out of a container.

use crate::support::coracle::{as_root, as_user, both};
use crate::support::image::{Image, Layer};
use crate::support::{Env, Output};
use std::os::unix::fs::MetadataExt;

/// An image of two layers with files of several owners; the second hides some of the first.
fn owned_image(env: &Env) -> &'static str {
    let many = vec![b'x'; 100_000];
    let first = Layer::new()
        .directory("data", 0o755)
        .file("data/roots", 0o600, &many)
        .file("data/gone", 0o644, "below")
        .file("data/first", 0o644, &many)
        .hardlink("data/second", "data/first")
        .file("data/suid", 0o4755, &many)
        .owned(1000, 1000)
        .directory("data/users", 0o700)
        .file("data/users/file", 0o640, &many)
        .symlink("data/users/link", "file")
        .directory("data/old", 0o755)
        .file("data/old/below", 0o644, "below")
        .owned(5, 7)
        .file("data/others", 0o644, "small");
    let second = Layer::new()
        .whiteout("data/gone")
        .directory("data/old", 0o755)
        .opaque("data/old")
        .file("data/first", 0o644, "another")
        .owned(60_000, 60_000)
        .file("data/high", 0o644, "high");
    env.load(&Image::busybox().named("localhost/owned:latest").layer(first).layer(second));
    "localhost/owned:latest"
}

/// What is to be seen of it whatever the maps.
const SEEN: &str = "\
0 0 755 /
0 0 755 /bin/busybox
0 0 755 /data
0 0 600 /data/roots
1000 1000 700 /data/users
1000 1000 640 /data/users/file
1000 1000 777 /data/users/link
5 7 644 /data/others
0 0 4755 /data/suid
0 0 644 /etc/hosts
0 0 755 /dev";

/// `stat` of all in `SEEN`, and the contents.
const LOOK: &str = "stat -c '%u %g %a %n' / /bin/busybox /data /data/roots /data/users /data/users/file \
    /data/users/link /data/others /data/suid /etc/hosts /dev; \
    cat /data/roots /data/users/file /data/suid /data/second | tr -d x | wc -c; cat /data/first; echo; \
    ls /data/old /data/gone 2>&1; true";

const LOOKED: &str = "0\nanother\nls: /data/gone: No such file or directory\n/data/old:";

fn run(env: &Env, options: &[&str], words: &[&str]) -> Output {
    env.coracle(["run", "--rm", "--network", "none"].iter().chain(options).chain(words))
}

/// Copies of layers for maps that are in the store.
fn copies(env: &Env) -> usize {
    let layers = std::fs::read_dir(env.data().join("layers-v1")).expect("the store");
    let counts =
        layers.flatten().map(|layer| std::fs::read_dir(layer.path().join("mapped")).map_or(0, Iterator::count));
    counts.sum()
}

as_user! {
    fn owners_are_the_images_under_every_map(env) {
        let image = owned_image(&env);
        for userns in ["keep-id", "keep-id:uid=1000,gid=1000", "keep-id:uid=5,gid=7", "nomap", "auto:size=65000"] {
            let option = format!("--userns={userns}");
            assert_eq!(run(&env, &[&option, "-u", "0:0"], &[image, "sh", "-c", LOOK]).ok(), format!("{SEEN}\n{LOOKED}"), "{userns}");
        }
        let map = ["--uidmap", "0:1:2000", "--uidmap", "60000:3000:1", "-u", "0:0"];
        let seen = run(&env, &map, &[image, "sh", "-c", &format!("{LOOK}; stat -c %u:%g /data/high")]);
        assert_eq!(seen.ok(), format!("{SEEN}\n{LOOKED}\n60000:60000"));
        // An owner without a place is nobody's, not somebody's.
        let map = ["--userns=auto:size=2000", "-u", "0:0"];
        assert_eq!(run(&env, &map, &[image, "stat", "-c", "%u:%g", "/data/high"]).ok(), "65534:65534");
        // A map of all ids that leaves none for nobody.
        let (all, image_id) = ("100:0:65537", "the image has files of 0:0");
        let refusal = run(&env, &["--uidmap", all, "-u", "100:100"], &[image, "true"]).fails(125);
        assert!(refusal.contains(image_id), "{refusal}");
    }

    fn a_map_is_copied_once(env) {
        let image = owned_image(&env);
        run(&env, &["--userns=keep-id"], &[image, "true"]).ok();
        assert_eq!(copies(&env), 1);
        run(&env, &["--userns=keep-id"], &[image, "true"]).ok();
        assert_eq!(copies(&env), 1);
        // Ten at once that all need the same ones.
        let words = ["run", "--rm", "--network", "none", "--userns=nomap", image, "true"];
        let all: Vec<_> = (0..10).map(|_| env.command(words).spawn()).collect();
        all.into_iter().for_each(|one| { one.wait().ok(); });
        assert_eq!(copies(&env), 2);
        let _ = env.coracle(["create", "--name", "kept", "--userns=keep-id", image]).succeeded();
        let _ = env.coracle(["system", "prune", "-f"]).succeeded();
        assert_eq!(copies(&env), 0, "prune removes stopped containers, and copies nobody has");
        let _ = env.coracle(["create", "--name", "kept", "--userns=keep-id", image]).succeeded();
        std::fs::read_dir(env.data().join("layers-v1")).expect("layers").flatten().for_each(|layer| {
            // As a machine that crashed: what is not there is made again.
            let away = env.command(["unshare", "rm", "-rf"]).arg(layer.path().join("mapped")).run();
            let _ = away.succeeded();
        });
        env.coracle(["start", "--attach", "kept"]).ok();
        let _ = env.coracle(["rm", "kept"]).succeeded();
        let _ = env.coracle(["rmi", "--all"]).succeeded();
        assert_eq!(std::fs::read_dir(env.data().join("layers-v1")).expect("layers").count(), 0);
    }

    fn the_caller_keeps_their_ids(env) {
        let image = owned_image(&env);
        let (uid, gid) = env.ids();
        let shared = env.directory("shared");
        let volume = format!("{}:/shared", shared.display());
        let script = "id -u; id -g; echo mine > /shared/file; touch /data/new 2>&1; stat -c %u /shared";
        let seen = run(&env, &["--userns=keep-id", "-v", &volume], &[image, "sh", "-c", script]).ok();
        assert_eq!(seen, format!("{uid}\n{gid}\ntouch: /data/new: Permission denied\n{uid}"));
        let file = std::fs::metadata(shared.join("file")).expect("the file");
        assert_eq!((file.uid(), file.gid()), (uid, gid));
        // Root inside is a subordinate id: on the host its files are not the caller's.
        run(&env, &["--userns=keep-id", "-u", "0", "-v", &volume], &[image, "chmod", "777", "/"]).ok();
        let refusal = run(&env, &["--userns=keep-id", "-u", "0", "-v", &volume], &[image, "chown", "0", "/shared/file"]);
        assert!(refusal.code() == 0, "{refusal}");
        assert_ne!(std::fs::metadata(shared.join("file")).expect("the file").uid(), uid);
        let _ = env.command(["unshare", "rm", "-f"]).arg(shared.join("file")).run().succeeded();
    }

    fn what_comes_out_has_the_images_owners(env) {
        let image = owned_image(&env);
        let change = "echo new > /data/new; chown 1000:5 /data/new; echo more >> /data/roots; rm /data/others";
        let create = ["run", "--name", "c", "--network", "none", "--userns=keep-id:uid=1000,gid=1000", "-u", "0:0"];
        env.coracle(create.iter().chain(&[image, "sh", "-c", change])).ok();
        assert_eq!(env.coracle(["diff", "c"]).ok(), "C /data\nA /data/new\nD /data/others\nC /data/roots");
        let tar = env.coracle(["export", "c"]);
        let mut archive = tar::Archive::new(tar.stdout.as_slice());
        let owners: Vec<(String, u64, u64)> = archive.entries().expect("an archive").map(|entry| {
            let entry = entry.expect("an entry");
            let header = entry.header();
            (entry.path().expect("a path").display().to_string(), header.uid().expect("a uid"), header.gid().expect("a gid"))
        }).collect();
        for expected in [("data/new", 1000, 5), ("data/roots", 0, 0), ("data/users/file", 1000, 1000), ("data/suid", 0, 0)] {
            let found = owners.iter().any(|(path, uid, gid)| (path.as_str(), *uid, *gid) == expected);
            assert!(found, "{expected:?} is not in {owners:?}");
        }
        let _ = env.coracle(["commit", "-q", "c", "changed"]).succeeded();
        let words = ["localhost/changed", "stat", "-c", "%u %g %n", "/data/new", "/data/roots", "/data/users/file"];
        assert_eq!(run(&env, &[], &words).ok(), "1000 5 /data/new\n0 0 /data/roots\n1000 1000 /data/users/file");
        // In and out by `cp`: inside it is the container's user's, outside the caller's.
        env.write("in", "in");
        let _ = env.coracle(["cp", "in", "c:/data/in"]).succeeded();
        let _ = env.coracle(["cp", "c:/data/roots", "out"]).succeeded();
        assert_eq!(std::fs::metadata(env.path("out")).expect("the copy").uid(), env.ids().0);
        let _ = env.coracle(["commit", "-q", "c", "again"]).succeeded();
        assert_eq!(run(&env, &[], &["localhost/again", "stat", "-c", "%u %g", "/data/in"]).ok(), "0 0");
    }

    fn exec_has_the_same_ids(env) {
        let image = owned_image(&env);
        let run = ["run", "-d", "--name", "c", "--network", "none", "--userns=keep-id:uid=1000,gid=1000", "--init"];
        let _ = env.coracle(run.iter().chain(&[image, "sleep", "1000"])).succeeded();
        assert_eq!(env.coracle(["exec", "c", "sh", "-c", "id -u; stat -c %u /data/roots"]).ok(), "1000\n0");
        assert_eq!(env.coracle(["exec", "-u", "0", "c", "sh", "-c", "id -u; cat /data/roots | wc -c"]).ok(), "0\n100000");
    }

    fn a_map_over_the_bounds_of_ours(env) {
        // The caller is one range, the subordinate ids are another.
        let image = owned_image(&env);
        for map in [["--uidmap=0:0:1100", "--gidmap=0:1:1100"], ["--uidmap=0:1:1100", "--gidmap=0:0:1100"]] {
            assert_eq!(run(&env, &map, &[image, "stat", "-c", "%u:%g", "/data/users"]).ok(), "1000:1000", "{map:?}");
        }
        let own = env.coracle(["unshare", "cat", "/proc/self/uid_map"]).ok();
        let second = range(own.lines().nth(1).expect("subordinate ids")).0;
        let userns = format!("--userns=auto:uidmapping=1:@{second}:1");
        let map = run(&env, &[&userns], &[image, "awk", "$1 == 1 {print $2}", "/proc/self/uid_map"]).ok();
        assert_eq!(map, "1");
    }

    fn mapped_ids_of_a_mount_need_root(env) {
        let image = env.busybox();
        let volume = format!("{}:/x:idmap", env.directory("d").display());
        let refusal = run(&env, &["--userns=keep-id", "-v", &volume], &[image, "true"]).fails(125);
        assert!(refusal.contains("idmap") && refusal.contains("hint:"), "{refusal}");
    }
}

/// The ids a container has: first and how many.
fn range(text: &str) -> (u64, u64) {
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    (numbers[1], numbers[2])
}

as_user! {
    fn automatic_ranges_have_nothing_in_common(env) {
        let image = owned_image(&env);
        let map = |name: &str| range(&env.coracle(["start", "--attach", name]).ok());
        let words = |name: &'static str| {
            ["create", "--name", name, "--network", "none", "--userns=auto", image, "cat", "/proc/self/uid_map"]
        };
        let all: Vec<_> = ["a", "b", "c", "d"].map(|name| env.command(words(name)).spawn()).into_iter().collect();
        all.into_iter().for_each(|one| { let _ = one.wait().succeeded(); });
        let mut ranges = ["a", "b", "c", "d"].map(map);
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{ranges:?}");
        }
        // By the image's accounts, which end at 2000.
        assert!(ranges.iter().all(|(_, size)| *size == 2001), "{ranges:?}");
        let _ = env.coracle(["rm", "a", "b", "c", "d"]).succeeded();
        let _ = env.coracle(words("a")).succeeded();
        assert_eq!(map("a").0, ranges[0].0, "what was removed is free again");
        // One that has all there are does not keep others from theirs.
        let _ = env.coracle(["create", "--userns=keep-id", image]).succeeded();
        let _ = env.coracle(words("b")).succeeded();
        assert_ne!(map("b").0, ranges[0].0);
        let refusal = env.coracle(["create", "--userns=auto:size=70000", image]).fails(125);
        assert!(refusal.contains("no free range of 70000 ids") && refusal.contains("hint:"), "{refusal}");
    }
}

as_root! {
    fn owners_are_mapped_for_root_without_copies(env) {
        let image = owned_image(&env);
        let shared = env.directory("shared");
        std::os::unix::fs::chown(&shared, Some(200_000), Some(200_000)).expect("chown");
        let volume = format!("{}:/shared", shared.display());
        let map = ["--uidmap", "0:200000:65536", "-v", &volume];
        let script = format!("{LOOK}; stat -c %u:%g /data/high /shared; touch /shared/file; chown 7 /shared/file");
        let seen = run(&env, &map, &[image, "sh", "-c", &script]).ok();
        assert_eq!(seen, format!("{SEEN}\n{LOOKED}\n60000:60000\n0:0"));
        assert_eq!(std::fs::metadata(shared.join("file")).expect("the file").uid(), 200_007);
        assert_eq!(copies(&env), 0);
        // An idmapped volume: whose the files are on the host, they are inside.
        let plain = env.directory("plain");
        env.write("plain/file", "x");
        let mapped = format!("{}:/plain:idmap", plain.display());
        let script = "stat -c %u:%g /plain/file; touch /plain/new; chown 5:5 /plain/new";
        assert_eq!(run(&env, &["--uidmap", "0:200000:65536", "-v", &mapped], &[image, "sh", "-c", script]).ok(), "0:0");
        assert_eq!(std::fs::metadata(plain.join("new")).expect("the file").uid(), 5);
        let moved = format!("{}:/plain:idmap=uids=@0-7-10;gids=@0-8-10", plain.display());
        let script = "stat -c %u:%g /plain/file";
        assert_eq!(run(&env, &["--uidmap", "0:200000:65536", "-v", &moved], &[image, "sh", "-c", script]).ok(), "7:8");
    }

    fn automatic_ranges_are_of_the_user_containers(env) {
        let image = env.busybox();
        let known = ["/etc/subuid", "/etc/subgid"].iter().all(|file| {
            std::fs::read_to_string(file).unwrap_or_default().lines().any(|line| line.starts_with("containers:"))
        });
        let output = run(&env, &["--userns=auto"], &[image, "cat", "/proc/self/uid_map"]);
        if known {
            assert_eq!(range(&output.ok()).1, 2001);
        } else {
            let refusal = output.fails(125);
            assert!(refusal.contains("user \"containers\"") && refusal.contains("hint:"), "{refusal}");
        }
    }

    fn root_keeps_its_ids_in_any_case(env) {
        let image = env.busybox();
        assert_eq!(run(&env, &["--userns=keep-id"], &[image, "id", "-u"]).ok(), "0");
        let refusal = run(&env, &["--userns=nomap"], &[image, "true"]).fails(125);
        assert!(refusal.contains("nomap is only supported in rootless mode"), "{refusal}");
    }
}

both! {
    fn volumes_under_a_map(env) {
        let image = owned_image(&env);
        let map: &[&str] = if env.is_root() { &["--uidmap", "0:300000:65536"] } else { &["--userns=nomap"] };
        let with = |options: &[&str], script: &str| -> String {
            let options: Vec<&str> = map.iter().chain(options).copied().collect();
            run(&env, &options, &[image, "sh", "-c", script]).ok()
        };
        // Filled from the image, with its owners.
        assert_eq!(with(&["-v", "v:/data/users"], "stat -c '%u %g %a' /data/users /data/users/file"), "1000 1000 700\n1000 1000 640");
        // At no place of the image: the user's.
        assert_eq!(with(&["-v", "w:/nowhere", "-u", "5:6"], "touch /nowhere/x; stat -c %u:%g /nowhere /nowhere/x"), "5:6\n5:6");
        let directory = env.directory("d");
        env.write("d/file", "x");
        let mount = format!("{}:/d:U", directory.display());
        assert_eq!(with(&["-v", &mount, "-u", "1000:1000"], "stat -c %u:%g /d /d/file"), "1000:1000\n1000:1000");
        let mount = format!("{}:/d:O", directory.display());
        assert_eq!(with(&["-v", &mount, "-u", "1000:1000"], "echo y >> /d/file; cat /d/file"), "xy");
        assert_eq!(with(&["--mount", "type=image,src=localhost/owned,dst=/i"], "stat -c %u:%g /i /i/data/users"), "0:0\n1000:1000");
        let _ = env.command(["unshare", "rm", "-rf"]).arg(&directory).run();
    }
}
