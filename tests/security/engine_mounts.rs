//! Images, volumes and containers whose links lead out: nothing of the host is read, made or changed through them.

use crate::support::coracle::both;
use crate::support::image::{Image, Layer};
use crate::support::{Env, Output};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A directory of the host with a file that must stay as it is.
fn outside(env: &Env) -> PathBuf {
    let outside = env.directory("outside");
    std::fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("set a mode");
    env.write("outside/canary", "alive");
    outside
}

/// Nothing else is there, and the canary lives.
#[track_caller]
fn untouched(outside: &Path) {
    let names: Vec<_> =
        std::fs::read_dir(outside).expect("the directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["canary"], "something came out");
    assert_eq!(std::fs::read_to_string(outside.join("canary")).expect("the canary"), "alive");
}

fn run(env: &Env, words: &[&str]) -> Output {
    env.coracle(["run", "--rm", "--network", "none"].iter().chain(words))
}

both! {
    fn cve_2026_55686_directories_made_through_links(env: Env) {
        let outside = outside(&env);
        let link = outside.to_str().expect("a path");
        let layer = Layer::new().symlink("place", link).symlink("volume", link);
        let config = json!({"WorkingDir": "/place/made", "Volumes": {"/volume/made": {}}});
        env.load(&Image::busybox().named("localhost/links").layer(layer).config(config));
        // A link that leads nowhere inside: whether it runs is another matter.
        let _ = run(&env, &["localhost/links", "true"]);
        untouched(&outside);
        let source = format!("{}:/place/bound", env.directory("source").display());
        for option in [["--tmpfs", "/place/memory"], ["-v", &source], ["-v", "named:/volume/named"]] {
            let _ = run(&env, &["-w", "/", option[0], option[1], "localhost/links", "true"]);
        }
        untouched(&outside);
    }

    fn cve_2026_41579_places_of_the_engine_are_links(env: Env) {
        let outside = outside(&env);
        let link = outside.to_str().expect("a path");
        for place in ["dev", "etc", "run", "proc", "sys", "dev/shm", "dev/mqueue", "dev/pts"] {
            let layer = Layer::new().symlink(place, link);
            env.load(&Image::busybox().named("localhost/places").layer(layer));
            // Whether it runs is another matter.
            let _ = run(&env, &["localhost/places", "true"]);
            untouched(&outside);
        }
    }

    fn cve_2017_1002101_a_subpath_is_a_link(env: Env) {
        let image = env.busybox();
        let outside = outside(&env);
        let script = format!("ln -s {} /v/link; ln -s / /v/root; ln -s ../../../.. /v/up; echo own > /v/file", outside.display());
        run(&env, &["-v", "v:/v", image, "sh", "-c", &script]).ok();
        for subpath in ["link", "root/bin", "up/bin", "../../bin", "link/canary"] {
            let mount = format!("type=volume,src=v,dst=/m,subpath={subpath}");
            let refusal = run(&env, &["--mount", &mount, image, "ls", "/m"]).fails(125);
            assert!(refusal.contains("subpath") || refusal.contains("bind"), "{refusal}");
        }
        // The volume is the root of its links.
        for subpath in ["root", "up", "."] {
            let mount = format!("type=volume,src=v,dst=/m,subpath={subpath}");
            assert_eq!(run(&env, &["--mount", &mount, image, "cat", "/m/file"]).ok(), "own", "{subpath}");
        }
        untouched(&outside);
    }

    fn cve_2024_1753_a_part_of_an_image_is_a_link(env: Env) {
        let outside = outside(&env);
        let layer = Layer::new().symlink("root-link", "/").symlink("out", outside.to_str().expect("a path"));
        env.load(&Image::busybox().named("localhost/part").layer(layer));
        let part = |subpath: &str| format!("type=image,src=localhost/part,dst=/m,subpath={subpath}");
        run(&env, &["--mount", &part("out"), "localhost/part", "true"]).fails(125);
        // The image's own root, not the machine's.
        let names = run(&env, &["--mount", &part("root-link"), "localhost/part", "ls", "/m"]).ok();
        assert!(names.contains("root-link"), "{names}");
        untouched(&outside);
    }

    fn cve_2018_15664_copies_through_links(env: Env) {
        let outside = outside(&env);
        let layer = Layer::new().symlink("out", outside.to_str().expect("a path"));
        env.load(&Image::busybox().named("localhost/out").layer(layer));
        env.write("new", "new");
        let link = format!("ln -s {} /v/out; sleep 1000", outside.display());
        let words = ["run", "-d", "--init", "--name", "c", "--network", "none", "-v", "v:/v", "localhost/out", "sh", "-c"];
        let _ = env.coracle(words.iter().copied().chain([link.as_str()])).succeeded();
        let is_there = || (env.coracle(["exec", "c", "test", "-L", "/v/out"]).code() == 0).then_some(());
        crate::support::until("the link", is_there);
        for running in [true, false] {
            for place in ["out", "v/out"] {
                for (source, target) in [("new", format!("c:/{place}/new")), ("new", format!("c:/{place}/canary"))] {
                    let _ = env.coracle(["cp", source, &target]);
                    untouched(&outside);
                }
                let stolen = env.path("stolen");
                let _ = env.coracle(["cp", &format!("c:/{place}/canary"), "stolen"]);
                assert!(std::fs::read(&stolen).is_ok_and(|bytes| bytes != b"alive") || !stolen.exists(), "read through {place}");
                let _ = std::fs::remove_file(&stolen);
            }
            if running {
                let _ = env.coracle(["stop", "--time", "0", "c"]).succeeded();
            }
        }
    }

    fn cve_2020_1726_what_a_volume_holds_stays(env: Env) {
        let image = env.busybox();
        let _ = env.coracle(["volume", "create", "v"]).succeeded();
        let tar = Layer::new().file("passwd", 0o644, "mine\n").tar();
        let _ = env.command(["volume", "import", "v", "-"]).stdin(tar).run().succeeded();
        assert_eq!(run(&env, &["-v", "v:/etc", image, "cat", "/etc/passwd"]).ok(), "mine");
    }

    fn cve_2023_0778_an_exported_volume_has_links_as_links(env: Env) {
        let image = env.busybox();
        let outside = outside(&env);
        let script = format!("ln -s {}/canary /v/file; ln -s {} /v/directory", outside.display(), outside.display());
        run(&env, &["-v", "v:/v", image, "sh", "-c", &script]).ok();
        let tar = env.coracle(["volume", "export", "v"]);
        let mut archive = tar::Archive::new(tar.stdout.as_slice());
        for entry in archive.entries().expect("an archive") {
            let entry = entry.expect("an entry");
            let name = entry.path().expect("a path").display().to_string();
            if name.ends_with("file") || name.ends_with("directory") {
                assert!(entry.header().entry_type().is_symlink(), "{name}");
            }
            assert!(!name.ends_with("canary"), "{name}");
        }
    }

    fn cve_2021_30465_a_target_inside_a_volume_is_a_link(env: Env) {
        let image = env.busybox();
        let outside = outside(&env);
        let script = format!("ln -s {} /v/link; ln -s /proc /v/proc", outside.display());
        run(&env, &["-v", "v:/v", image, "sh", "-c", &script]).ok();
        let source = env.directory("source");
        let mount = |target: &str| format!("{}:{target}", source.display());
        let _ = run(&env, &["-v", "v:/v", "-v", &mount("/v/link/deep"), image, "true"]);
        let _ = run(&env, &["-v", "v:/v", "-v", &mount("/v/proc/self"), image, "true"]);
        untouched(&outside);
    }

    fn cve_2021_41091_nobody_else_enters_the_store(env: Env) {
        env.busybox();
        let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).expect("the store"));
        assert_eq!(mode(&env.data()) & 0o077, 0);
    }

    fn a_writable_image_mount_leaves_the_image_alone(env: Env) {
        let image = env.busybox();
        let mount = format!("type=image,src={image},dst=/i,rw=true");
        run(&env, &["--mount", &mount, image, "sh", "-c", "echo > /i/new; rm /i/etc/passwd"]).ok();
        assert_eq!(run(&env, &[image, "sh", "-c", "test -e /new || test -s /etc/passwd && echo whole"]).ok(), "whole");
    }
}
