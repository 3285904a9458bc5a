//! Who runs inside, with what of the host: users, accounts and environments of hostile images.

use crate::support::coracle::{as_user, both};
use crate::support::image::{Image, Layer};
use crate::support::{Env, Output};
use serde_json::json;

fn run(env: &Env, words: &[&str]) -> Output {
    env.coracle(["run", "--rm", "--network", "none"].iter().chain(words))
}

both! {
    fn cve_2016_3697_a_number_is_no_name(env: Env) {
        let layer = Layer::new().file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n");
        env.load(&Image::busybox().named("localhost/names").layer(layer));
        assert_eq!(run(&env, &["-u", "1000", "localhost/names", "id", "-u"]).ok(), "1000");
    }

    fn cve_2026_30892_what_is_no_id_is_nobody(env: Env) {
        let image = env.busybox();
        for user in ["1000abc", "0x0", "-1", "4294967296", "4294967295", "00x", "0:0:0", "+0"] {
            let option = format!("--user={user}");
            let output = run(&env, &[&option, image, "id", "-u"]);
            assert!(output.code() != 0 && output.stdout().is_empty(), "{user}: {output}");
        }
    }

    fn cve_2020_14370_the_hosts_environment_stays_outside(env: Env) {
        let config = json!({"Env": ["PATH=/bin", "HOST_SECRET", "*", "", "=x", "HOST_*", "KEPT=1"]});
        env.load(&Image::busybox().named("localhost/env").config(config));
        let words = ["run", "--rm", "--network", "none", "localhost/env", "env"];
        let output = env.command(words).env("HOST_SECRET", "leaked").env("HOST_OTHER", "leaked").run();
        assert!(!output.stdout().contains("leaked"), "{output}");
        assert!(output.code() != 0 || output.stdout().contains("KEPT=1"), "{output}");
    }

    fn cve_2022_1227_top_runs_nothing_of_the_image(env: Env) {
        let script = "#!/bin/sh\necho > /ran\n";
        let layer = Layer::new().file("usr/bin/ps", 0o755, script).file("usr/bin/nsenter", 0o755, script);
        env.load(&Image::busybox().named("localhost/ps").layer(layer));
        let words = ["run", "-d", "--init", "--name", "c", "--network", "none", "localhost/ps", "sleep", "1000"];
        let _ = env.coracle(words).succeeded();
        for verb in [&["top", "c"][..], &["top", "c", "pid", "user", "hpid"], &["stats", "--no-stream", "c"], &["inspect", "c"]] {
            let _ = env.coracle(verb);
        }
        assert_ne!(env.coracle(["exec", "c", "test", "-e", "/ran"]).code(), 0);
    }

    fn cve_2024_9676_accounts_are_no_accounts(env: Env) {
        let userns: &[&str] = if env.is_root() { &[] } else { &["--userns=auto"] };
        let layers = [
            Layer::new().symlink("etc/passwd", "/dev/zero"),
            Layer::new().symlink("etc/passwd", "/proc/kmsg"),
            Layer::new().symlink("etc/passwd", "passwd"),
            Layer::new().file("etc/passwd", 0o644, vec![b'\n'; 2 << 20]),
        ];
        for layer in layers {
            env.load(&Image::busybox().named("localhost/accounts").layer(layer));
            let words: Vec<&str> = userns.iter().copied().chain(["-u", "5:5", "localhost/accounts", "true"]).collect();
            // It ends, and never with more than an error.
            assert!(matches!(run(&env, &words).code(), 0 | 125 | 126));
        }
    }
}

as_user! {
    fn accounts_of_the_host_are_seen_where_asked_for(env) {
        let image = env.busybox();
        let name = crate::support::coracle::ordinary_user().expect("a user").name;
        let (uid, gid) = env.ids();
        assert_eq!(run(&env, &["--userns=keep-id", image, "id", "-un"]).ok(), name);
        let asked = ["--hostuser", &name, "--user", &name, image, "sh", "-c", "id -u; id -un"];
        assert_eq!(run(&env, &asked).ok(), format!("{uid}\n{name}"));
        let words = ["--userns=keep-id", "--user", "0", image, "sh", "-c", "id -un; id -u"];
        assert_eq!(run(&env, &words).ok(), "root\n0");
        let by_number = format!("--hostuser={uid}");
        let user = format!("{name}:{gid}");
        let words = [by_number.as_str(), "--user", &user, image, "id", "-g"];
        assert_eq!(run(&env, &words).ok(), gid.to_string());
        let refusal = run(&env, &["--hostuser=bogus", image, "true"]).fails(126);
        assert!(refusal.contains("unknown user bogus"), "{refusal}");
    }
}
