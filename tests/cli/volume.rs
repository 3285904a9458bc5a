//! `volume`, and manifest lists among images: what podman's users see of things that are there once.

use crate::support::coracle::both;

both! {
    fn a_volume_of_a_directory(env: Env) {
        let image = env.busybox();
        let directory = env.directory("shared");
        env.write("shared/file", "content\n");
        let device = format!("device={}", directory.display());
        let missing = env.coracle(["volume", "create", "-o", "type=bind", "-o", "device=/bogus", "v"]);
        let text = "invalid volume option device for driver 'local': faccessat /bogus: no such file or directory";
        assert!(missing.fails(125).contains(text), "{missing}");
        env.coracle(["volume", "create", "-o", "type=bind", "-o", &device, "v"]).ok();
        let run = ["run", "--rm", "--network", "none", "-v", "v:/v", image, "cat", "/v/file"];
        assert_eq!(env.coracle(run).ok(), "content");
        env.coracle(["volume", "rm", "v"]).ok();
    }

    fn nothing_to_prune_is_no_question(env: Env) {
        assert_eq!(env.coracle(["volume", "prune"]).ok(), "No dangling anonymous volumes found");
        env.coracle(["volume", "create", "named"]).ok();
        assert_eq!(env.coracle(["volume", "prune"]).ok(), "No dangling anonymous volumes found");
        // One without a name is nobody's.
        let nameless = env.coracle(["volume", "create"]).ok();
        assert_eq!(env.coracle(["volume", "prune", "--force"]).ok(), nameless);
        assert_eq!(env.coracle(["volume", "prune", "-a", "-f"]).ok(), "named");
        assert_eq!(env.coracle(["volume", "prune", "-a"]).ok(), "No dangling volumes found");
    }

    fn a_volume_is_filled_once(env: Env) {
        let image = env.busybox();
        env.coracle(["volume", "create", "v"]).ok();
        let flags = || env.coracle(["volume", "inspect", "-f", "{{.NeedsCopyUp}} {{.NeedsChown}} {{.Anonymous}}", "v"]).ok();
        let run = |place: &str| env.coracle(["run", "--rm", "--network", "none", "-v", &format!("v:{place}"), image, "true"]).ok();
        assert_eq!(flags(), "true true false");
        // Nothing is there to fill it with: it is filled where something is.
        run("/nothing");
        assert_eq!(flags(), "true true false");
        run("/bin");
        assert_eq!(flags(), "false false false");
        let document = env.coracle(["volume", "inspect", "v"]).json();
        assert!(document[0].get("NeedsCopyUp").is_none(), "{document}");
        env.coracle(["volume", "rm", "v"]).ok();
    }

    fn lists_are_images_too(env: Env) {
        let image = env.busybox();
        let id = env.coracle(["manifest", "create", "localhost/list:1"]).ok();
        env.coracle(["manifest", "add", "localhost/list:1", image]).ok();
        let lines = |words: &[&str]| {
            let base = ["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
            env.coracle(base.iter().chain(words)).ok()
        };
        let line = format!("localhost/list:1 {}", &id[..12]);
        assert!(lines(&[]).lines().any(|shown| shown == line), "{}", lines(&[]));
        assert_eq!(lines(&["list"]), line);
        assert_eq!(lines(&["--filter", "manifest=true"]), line);
        assert!(!lines(&["--filter", "manifest=false"]).contains("list"));
        assert_eq!(env.coracle(["rmi", "localhost/list:1"]).ok(), format!("Untagged: localhost/list:1\nDeleted: {id}"));
        assert!(!lines(&[]).contains("list"));
        assert_eq!(env.coracle(["manifest", "exists", "localhost/list:1"]).code(), 1);
        // Force makes what is not there no failure.
        assert_eq!(env.coracle(["rmi", "--force", "nosuch"]).ok(), "");
        assert_eq!(env.coracle(["rmi", "nosuch"]).code(), 1);
        let tags = env.coracle(["history", "--format", "{{.Tags}}", image]).ok();
        assert!(tags.lines().next().unwrap().starts_with('['), "{tags}");
    }
}
