//! Mounts and volumes: what each option changes as seen from inside, and on the host.

use crate::support::coracle::both;
use crate::support::{Env, Output};
use std::os::unix::fs::chown;

fn run(env: &Env, words: &[&str]) -> Output {
    env.coracle(["run", "--rm", "--network", "none"].iter().chain(words))
}

both! {
    fn a_tmpfs_has_the_mode_and_owner_it_was_given(env: Env) {
        let image = env.busybox();
        let stat = ["stat", "-c", "%a %u:%g", "/t"];
        let with = |mount: &str, user: &str| run(&env, &[&["--mount", mount, "-u", user, image][..], &stat].concat()).ok();
        assert_eq!(with("type=tmpfs,dst=/t,tmpfs-mode=1700", "0"), "1700 0:0");
        assert_eq!(with("type=tmpfs,dst=/t,U", "1000:2000").split_once(' ').expect("two words").1, "1000:2000");
        // Of the image's directory where nothing was said.
        let copied = run(&env, &["--mount", "type=tmpfs,dst=/root", image, "stat", "-c", "%a", "/root"]).ok();
        assert_eq!(copied, "700");
    }

    fn read_only_with_nothing_writable(env: Env) {
        let image = env.busybox();
        let script = "for d in / /tmp /run /dev /dev/shm; do touch $d/x 2>/dev/null && echo $d; done; echo x > /dev/null; ls /dev/pts/ptmx";
        let words = ["--read-only", "--read-only-tmpfs=false", image, "sh", "-c", script];
        assert_eq!(run(&env, &words).ok(), "/dev/pts/ptmx");
    }

    fn parts_of_volumes_and_images(env: Env) {
        let image = env.busybox();
        run(&env, &["-v", "v:/v", image, "sh", "-c", "mkdir -p /v/a/b; echo deep > /v/a/b/c"]).ok();
        let cat = |mount: &str, path: &str| run(&env, &["--mount", mount, image, "cat", path]).ok();
        assert_eq!(cat("type=volume,src=v,dst=/m,subpath=a/b", "/m/c"), "deep");
        assert_eq!(cat("type=volume,src=v,dst=/m,subpath=/a/b/c", "/m"), "deep");
        let part = format!("type=image,src={image},dst=/m,subpath=etc/os-release");
        assert!(cat(&part, "/m").starts_with("ID=busybox"));
        let memory = ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"];
        let _ = env.coracle(memory).succeeded();
        let refusal = run(&env, &["--mount", "type=volume,src=memory,dst=/m,subpath=nothing", image, "true"]).fails(125);
        assert!(refusal.contains("nothing"), "{refusal}");
    }

    fn owners_are_given_once(env: Env) {
        let image = env.busybox();
        let directory = env.directory("d");
        let file = env.write("d/file", "x");
        let mount = format!("{}:/d:U", directory.display());
        let look = ["-u", "1000:2000", "-v", &mount, image, "stat", "-c", "%u:%g", "/d", "/d/file"];
        assert_eq!(run(&env, &look).ok(), "1000:2000\n1000:2000");
        // One that is theirs is not walked again.
        if env.is_root() {
            chown(&file, Some(5), Some(5)).expect("chown");
        } else {
            let _ = env.command(["unshare", "chown", "5:5"]).arg(&file).run().succeeded();
        }
        assert_eq!(run(&env, &look).ok(), "1000:2000\n5:5");
        let _ = env.command(["unshare", "rm", "-rf"]).arg(&directory).run();
    }

    fn throw_away_overlays(env: Env) {
        let image = env.busybox();
        let directory = env.directory("d");
        env.write("d/file", "x");
        let mount = format!("{}:/d:O", directory.display());
        assert_eq!(run(&env, &["-v", &mount, image, "sh", "-c", "echo y >> /d/file; cat /d/file"]).ok(), "xy");
        assert_eq!(std::fs::read_to_string(directory.join("file")).expect("the file"), "x");
        let (upper, work) = (env.directory("upper"), env.directory("work"));
        let mount = format!("{}:/d:O,upperdir={},workdir={}", directory.display(), upper.display(), work.display());
        run(&env, &["-v", &mount, image, "touch", "/d/kept"]).ok();
        assert!(upper.join("kept").exists());
        let _ = env.command(["unshare", "rm", "-rf"]).arg(&upper).arg(&work).run();
    }

    fn the_hosts_namespaces_are_joined_through_a_container(env: Env) {
        let image = env.busybox();
        for option in ["--cgroupns", "--uts"] {
            let name = option.trim_start_matches('-');
            let words = ["run", "-d", "--init", "--name", name, "--network", "none", option, "host", image, "sleep", "1000"];
            let _ = env.coracle(words).succeeded();
            let kind = if name == "cgroupns" { "cgroup" } else { name };
            let link = format!("/proc/self/ns/{kind}");
            let joined = run(&env, &[option, &format!("container:{name}"), image, "readlink", &link]).ok();
            assert_eq!(joined, std::fs::read_link(&link).expect("a namespace").display().to_string());
        }
    }
}
