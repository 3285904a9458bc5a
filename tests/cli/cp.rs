//! `coracle cp`: which path means what, and what podman's scripts read when it fails.

use crate::support::Env;
use crate::support::coracle::both;

/// A container that does not run, with `/tmp/d` and `/tmp/f` in it.
fn stopped(env: &Env, name: &str) {
    let image = env.busybox();
    let script = "mkdir -p /tmp/d/sub /tmp/links; echo f > /tmp/f; echo in > /tmp/d/in; ln -s .. /tmp/d/sub/up; \
        ln -s /tmp/later /tmp/links/nowhere";
    env.coracle(["run", "--name", name, "--network", "none", image, "sh", "-c", script]).ok();
}

/// What is at a path of a container, without running it.
fn read(env: &Env, place: &str) -> String {
    let target = env.path("read");
    let _ = std::fs::remove_file(&target);
    env.coracle(["cp", place, target.to_str().expect("a path of text")]).ok();
    std::fs::read_to_string(target).expect("a file")
}

both! {
    fn a_link_to_the_directory_above_is_that_directory(env: Env) {
        stopped(&env, "c");
        let target = env.path("up");
        env.coracle(["cp", "c:/tmp/d/sub/up", target.to_str().unwrap()]).ok();
        assert_eq!(std::fs::read_to_string(target.join("in")).unwrap(), "in\n");
    }

    fn a_link_that_leads_nowhere_says_where_to_make_the_file(env: Env) {
        stopped(&env, "c");
        let source = env.write("new", "new");
        env.coracle(["cp", source.to_str().unwrap(), "c:/tmp/links/nowhere"]).ok();
        assert_eq!(read(&env, "c:/tmp/later"), "new");
        let refusal = env.coracle(["cp", source.to_str().unwrap(), "c:/tmp/none/"]).fails(125);
        assert_eq!(refusal, "coracle: \"/tmp/none/\" could not be found on container c: no such file or directory");
    }

    fn another_kind_of_thing_stays_in_its_place(env: Env) {
        stopped(&env, "c");
        let base = env.directory("base");
        let path = |name: &str| base.join(name).to_str().unwrap().to_owned();
        std::fs::write(path("d"), "file").unwrap();
        std::fs::create_dir(path("f")).unwrap();
        std::fs::write(path("f/in"), "of f").unwrap();
        for name in ["d", "f"] {
            let refusal = env.coracle(["cp", &path(name), "c:/tmp"]).fails(125);
            assert!(refusal.contains(&format!("error creating \"/tmp/{name}\": ")), "{refusal}");
            assert!(refusal.contains(": file exists\nhint: --overwrite"), "{refusal}");
        }
        assert_eq!(read(&env, "c:/tmp/d/in"), "in\n");
        let refusal = env.coracle(["cp", &path("f"), "c:/tmp/f"]).fails(125);
        assert_eq!(refusal, "coracle: destination must be a directory when copying a directory");
        let refusal = env.coracle(["cp", "c:/tmp/d", base.to_str().unwrap()]).fails(125);
        assert!(refusal.contains("error creating \"/d\": "), "{refusal}");
        env.coracle(["cp", "--overwrite", &path("d"), "c:/tmp"]).ok();
        env.coracle(["cp", "--overwrite", &path("f"), "c:/tmp"]).ok();
        assert_eq!(read(&env, "c:/tmp/d"), "file");
        assert_eq!(read(&env, "c:/tmp/f/in"), "of f");
    }

    fn standard_streams_by_their_names(env: Env) {
        stopped(&env, "c");
        let source = env.write("given", "through stdin");
        let copied = env
            .other(["sh", "-c", "exec \"$@\" < \"$0\"", source.to_str().unwrap()])
            .arg(crate::support::coracle::binary())
            .arg("--root").arg(env.data()).arg("--runroot").arg(env.runroot())
            .arg("cp").arg("/dev/stdin").arg("c:/tmp/d")
            .run();
        copied.ok();
        assert_eq!(read(&env, "c:/tmp/d/stdin"), "through stdin");
        let refusal = env.coracle(["cp", "c:/tmp/f", "/dev/stdout"]).fails(125);
        assert_eq!(refusal, "coracle: invalid destination: \"/dev/stdout\" must be a directory or a regular file");
        for text in ["no archive", &"long ".repeat(300)] {
            let refusal = env.command(["cp", "-", "c:/tmp"]).stdin(text).run().fails(125);
            assert_eq!(refusal, "coracle: source must be a (compressed) tar archive when copying from stdin");
        }
        let refusal = env.command(["cp", "-", "c:/tmp/f"]).stdin("").run().fails(125);
        assert_eq!(refusal, "coracle: destination must be a directory when copying from stdin");
    }
}
