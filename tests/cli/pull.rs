//! `pull`: from a registry that behaves, from one that does not, and from the real one.

use crate::support::coracle::{as_root, both};
use crate::support::image::{Layer, digest};
use crate::support::need::need;
use crate::support::registry::{CREDENTIALS, DockerRegistry, Fake, Reply, Seen, config, gzip, manifest, noise};
use crate::support::{Env, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layer with one file of so many bytes that do not compress.
fn layer(name: &str, size: usize) -> Vec<u8> {
    Layer::new().directory("data", 0o755).file(&format!("data/{name}"), 0o644, noise(name, size)).tar()
}

fn hex(digest: &str) -> &str {
    &digest["sha256:".len()..]
}

/// Names in a directory of the store.
fn listed(env: &Env, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(env.data().join(directory)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Nothing of an image is to be seen.
#[track_caller]
fn assert_empty(env: &Env) {
    for directory in ["images", "tags", "layers-v1"] {
        assert!(listed(env, directory).is_empty(), "{directory}: {:?}", listed(env, directory));
    }
}

fn pull(env: &Env, name: &str) -> crate::support::command::Command {
    env.command(["pull", "--quiet", "--tls-verify=false", "--retry-delay=1ms", name])
}

both! {
    fn an_image_comes_once(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let layers = [layer("a", 3000), layer("b", 200_000)];
        let (_, config) = fake.image("team/app", "1", &layers);
        assert_eq!(pull(&env, &fake.name("team/app:1")).run().ok(), hex(&config));
        let blobs = fake.seen().iter().filter(|seen| seen.is_blob()).count();
        assert_eq!(blobs, 3, "config and two layers");
        let expected: BTreeSet<String> = layers.iter().map(|layer| hex(&digest(layer)).to_owned()).collect();
        assert_eq!(listed(&env, "layers-v1").into_iter().collect::<BTreeSet<_>>(), expected);
        let file = env.data().join("layers-v1").join(hex(&digest(&layers[0]))).join("diff/data/a");
        if env.is_root() {
            assert_eq!(std::fs::metadata(file).unwrap().len(), 3000);
        }
        assert!(listed(&env, "tmp").is_empty(), "{:?}", listed(&env, "tmp"));

        let before = fake.seen().len();
        assert_eq!(pull(&env, &fake.name("team/app:1")).run().ok(), hex(&config));
        let again: Vec<String> = fake.seen()[before..].iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
        assert!(again.iter().filter(|line| line.contains("/manifests/")).count() == 1, "{again:?}");
        assert!(!again.iter().any(|line| line.contains("/blobs/")), "{again:?}");
    }

    fn progress_is_told_on_stderr_only(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (_, config) = fake.image("app", "1", &[layer("a", 10)]);
        let output = env.coracle(["pull", "--tls-verify=false", &fake.name("app:1")]);
        assert_eq!(output.succeeded(), hex(&config));
        assert!(output.stderr().starts_with(&format!("Trying to pull {}...\n", fake.name("app:1"))), "{output}");
    }

    fn a_killed_pull_goes_on_where_it_stopped(env: Env) {
        let env = env.host_network();
        let size = 400_000;
        let stalls = Arc::new(AtomicBool::new(true));
        let wanted = stalls.clone();
        let fake = Fake::misbehaving(move |seen, mut reply| {
            if seen.is_blob() && reply.body.len() > 100_000 && wanted.load(Ordering::SeqCst) {
                reply.stall = Some(150_000);
            }
            reply
        });
        let layers = [layer("a", size)];
        let (_, config) = fake.image("app", "1", &layers);
        let blob = digest(&gzip(&layers[0]));
        let running = pull(&env, &fake.name("app:1")).spawn();
        let partial = env.data().join("tmp").join(format!("partial.{}", hex(&blob)));
        until("a part of the blob", || std::fs::metadata(&partial).ok().filter(|found| found.len() == 150_000));
        running.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = running.wait();
        assert_empty(&env);

        stalls.store(false, Ordering::SeqCst);
        let before = fake.seen().len();
        assert_eq!(pull(&env, &fake.name("app:1")).run().ok(), hex(&config));
        let ranges: Vec<String> = fake.seen()[before..]
            .iter()
            .filter(|seen| seen.path.contains(&blob))
            .map(|seen| seen.header("range").unwrap_or("all").to_owned())
            .collect();
        assert_eq!(ranges, ["bytes=150000-"]);
    }

    fn pulls_at_once_fetch_each_layer_once(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let shared = [layer("a", 300_000), layer("b", 300_000)];
        let mut ids = Vec::new();
        for name in ["one", "two", "three"] {
            let own = layer(name, 1000);
            // Not in the same order: waiting for each other would be a deadlock.
            let layers = match name {
                "two" => vec![shared[1].clone(), shared[0].clone(), own],
                _ => vec![shared[0].clone(), shared[1].clone(), own],
            };
            ids.push(fake.image(name, "1", &layers).1);
        }
        let running: Vec<_> =
            ["one", "two", "three", "one"].map(|name| pull(&env, &fake.name(&format!("{name}:1"))).spawn()).into();
        for (running, id) in running.into_iter().zip([&ids[0], &ids[1], &ids[2], &ids[0]]) {
            assert_eq!(running.wait().ok(), hex(id));
        }
        for layer in &shared {
            let path = format!("/blobs/{}", digest(&gzip(layer)));
            assert_eq!(fake.count("GET", &path), 1, "{path}");
        }
    }
}

as_root! {
    fn cuts_are_mended_by_ranges(env: Env) {
        let env = env.host_network();
        let cuts = AtomicUsize::new(0);
        let fake = Fake::misbehaving(move |seen, mut reply| {
            if seen.is_blob() && reply.body.len() > 10_000 && cuts.fetch_add(1, Ordering::SeqCst) < 6 {
                reply.cut = Some(9_000);
            }
            reply
        });
        let layers = [layer("a", 100_000)];
        let (_, config) = fake.image("app", "1", &layers);
        assert_eq!(pull(&env, &fake.name("app:1")).run().ok(), hex(&config));
        let blob = digest(&gzip(&layers[0]));
        let ranges = fake.seen().iter().filter(|seen| seen.path.contains(&blob) && seen.header("range").is_some()).count();
        assert_eq!(ranges, 6);
    }

    fn a_registry_without_ranges_serves_too(env: Env) {
        let env = env.host_network();
        let cut = AtomicBool::new(true);
        let fake = Fake::misbehaving(move |seen, mut reply| {
            if seen.is_blob() && reply.status == 206 {
                // All of it, as if no range had been asked for: the fake knows it by asking itself without one.
                return Reply { status: 599, ..reply };
            }
            if seen.is_blob() && reply.body.len() > 10_000 && cut.swap(false, Ordering::SeqCst) {
                reply.cut = Some(20_000);
            }
            reply
        });
        let layers = [layer("a", 100_000)];
        fake.image("app", "1", &layers);
        // 599 is no answer to build on: the pull ends, and says so.
        let text = pull(&env, &fake.name("app:1")).arg("--retry=1").run().fails(125);
        assert!(text.contains("the server answers 599"), "{text}");
        assert_empty(&env);
    }

    fn ranges_that_lie_are_refused(env: Env) {
        let env = env.host_network();
        let cut = AtomicBool::new(true);
        let fake = Fake::misbehaving(move |seen, mut reply| {
            if seen.is_blob() && reply.body.len() > 10_000 && cut.swap(false, Ordering::SeqCst) {
                reply.cut = Some(20_000);
            } else if reply.status == 206 {
                for (name, value) in &mut reply.headers {
                    if name == "Content-Range" {
                        *value = "bytes 50000-99999/100000".to_owned();
                    }
                }
            }
            reply
        });
        fake.image("app", "1", &[layer("a", 100_000)]);
        let text = pull(&env, &fake.name("app:1")).run().fails(125);
        assert!(text.contains("the registry sent bytes 50000 to 99999"), "{text}");
        assert_empty(&env);
    }

    fn lies_are_found_and_leave_nothing(env: Env) {
        let env = env.host_network();
        type Lie = fn(&Seen, Reply) -> Reply;
        let lies: [(&str, Lie, &str); 6] = [
            ("blob altered", |seen, mut reply| {
                if seen.is_blob() && reply.body.len() > 10_000 {
                    let last = reply.body.len() - 1;
                    reply.body[last] ^= 1;
                }
                reply
            }, "copying blob"),
            ("blob too short", |seen, mut reply| {
                if seen.is_blob() && reply.body.len() > 10_000 {
                    reply.body.truncate(10_000);
                }
                reply
            }, "announces 10000 bytes"),
            ("blob too long", |seen, mut reply| {
                if seen.is_blob() && reply.body.len() > 10_000 {
                    reply.body.extend_from_slice(b"more");
                }
                reply
            }, "announces"),
            ("config altered", |seen, mut reply| {
                if seen.is_blob() && reply.body.starts_with(b"{") {
                    reply.body[1] = b' ';
                }
                reply
            }, "the registry sent sha256:"),
            ("blob missing", |seen, reply| {
                if seen.is_blob() && reply.body.len() > 10_000 {
                    return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
                }
                reply
            }, "blob unknown"),
            ("server broken", |seen, reply| {
                if seen.is_blob() { Reply::new(500) } else { reply }
            }, "the server answers 500"),
        ];
        for (what, lie, expected) in lies {
            let fake = Fake::misbehaving(lie);
            fake.image("app", "1", &[layer("a", 50_000)]);
            let text = pull(&env, &fake.name("app:1")).arg("--retry=1").run().fails(125);
            assert!(text.contains(expected), "{what}: {text}");
            assert_empty(&env);
        }
    }

    fn documents_that_lie_are_refused(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let good = layer("a", 1000);
        let blob = fake.blob(LAYER, &gzip(&good));
        let config_of = |diff_ids: &[String]| fake.blob(CONFIG, &config(diff_ids));
        let honest = config_of(&[digest(&good)]);
        let with = |key: &str, value: Value| {
            let mut changed = blob.clone();
            changed[key] = value;
            changed
        };
        let mut both_kinds = manifest(&honest, std::slice::from_ref(&blob));
        both_kinds["manifests"] = json!([blob]);
        let wrong_diff = config_of(&[digest(b"something else")]);
        let foreign = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        for (what, document, expected) in [
            ("confusion", both_kinds, "CVE-2021-41190"),
            ("path in a digest", manifest(&honest, &[with("digest", json!("sha256:../../../../etc/passwd"))]), "not a digest"),
            ("short digest", manifest(&honest, &[with("digest", json!("sha256:00"))]), "not a digest"),
            ("upper case", manifest(&honest, &[with("digest", json!(format!("sha256:{}", "A".repeat(64))))]), "not a digest"),
            ("size", manifest(&honest, &[with("size", json!(5))]), "announces"),
            ("huge size", manifest(&honest, &[with("size", json!(1_u64 << 60))]), "no space left on device"),
            ("diff id", manifest(&wrong_diff, std::slice::from_ref(&blob)), "diff id"),
            ("too few layers", manifest(&honest, &[]), "layers"),
            ("foreign layer", manifest(&honest, &[with("mediaType", foreign)]), "foreign layer"),
            ("schema 1", json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
            ("artifact", manifest(&fake.blob("application/vnd.x+json", b"{}"), std::slice::from_ref(&blob)), "artifact with type"),
        ] {
            fake.manifest("app", "1", &document);
            let text = pull(&env, &fake.name("app:1")).run().fails(125);
            assert!(text.contains(expected), "{what}: {text}");
            assert_empty(&env);
        }
        // By digest, the registry cannot give another document.
        let (asked, _) = fake.image("other", "1", &[good]);
        fake.raw_manifest("app", &asked, "application/vnd.oci.image.manifest.v1+json", b"{}");
        let text = pull(&env, &fake.name(&format!("app@{asked}"))).run().fails(125);
        assert!(text.contains("the registry sent something else"), "{text}");
    }

    fn rate_limits_are_explained(env: Env) {
        let env = env.host_network();
        let fake = Fake::misbehaving(|_, _| {
            Reply::error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit").header("Retry-After", "3600")
        });
        let text = pull(&env, &fake.name("app:1")).run().fails(125);
        assert!(text.contains("toomanyrequests: You have reached your pull rate limit"), "{text}");
        assert!(text.contains(&format!("hint: the registry limits how much is pulled: log in with `coracle login {}`", fake.host())), "{text}");
        assert!(text.contains("3600 s"), "{text}");
        assert_eq!(fake.count("GET", "/manifests/"), 1, "an hour is not waited for");

        let first = AtomicBool::new(true);
        let fake = Fake::misbehaving(move |seen, reply| {
            if seen.is_blob() && first.swap(false, Ordering::SeqCst) {
                return Reply::new(429).header("Retry-After", "0");
            }
            reply
        });
        let (_, config) = fake.image("app", "1", &[layer("a", 10)]);
        assert_eq!(pull(&env, &fake.name("app:1")).run().ok(), hex(&config));
    }

    fn unauthorized_for_ever_is_no_loop(env: Env) {
        let env = env.host_network();
        let fake = Fake::misbehaving(|seen, reply| {
            if seen.path.starts_with("/token") {
                return Reply::new(200).body(r#"{"token": "t"}"#);
            }
            if seen.path.starts_with("/v2/x") {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", seen.header("host").unwrap_or_default());
                return Reply::new(401).header("WWW-Authenticate", realm);
            }
            reply
        });
        let text = pull(&env, &fake.name("x/app:1")).run().fails(125);
        assert!(text.contains("unauthorized: authentication required"), "{text}");
        assert!(fake.seen().len() < 10, "{} requests", fake.seen().len());
    }

    fn tokens_and_credentials_go_where_they_belong(env: Env) {
        let env = env.host_network();
        // The blobs are elsewhere, and there somebody asks for credentials too.
        let elsewhere = Arc::new(Fake::misbehaving(|seen, reply| {
            if seen.path.contains("challenge") {
                return Reply::new(401).header("WWW-Authenticate", "Basic realm=\"give\"");
            }
            reply
        }));
        let place = elsewhere.host();
        let fake = Fake::misbehaving(move |seen, reply| {
            if seen.path.starts_with("/token") {
                return Reply::new(200).body(r#"{"access_token": "the-token", "expires_in": 300}"#);
            }
            if seen.header("authorization") != Some("Bearer the-token") {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"svc\",scope=\"repository:secret:push\"",
                    seen.header("host").unwrap_or_default());
                return Reply::new(401).header("WWW-Authenticate", realm);
            }
            if seen.is_blob() {
                return Reply::new(307).header("Location", format!("http://{place}{}", seen.path));
            }
            reply
        });
        let layers = [layer("a", 1000)];
        let (_, config) = fake.image("team/app", "1", &layers);
        elsewhere.image("team/app", "1", &layers);
        let command = pull(&env, &fake.name("team/app:1")).arg("--creds=user:pass");
        assert_eq!(command.run().ok(), hex(&config));
        assert!(elsewhere.seen().len() >= 2);
        for seen in elsewhere.seen() {
            assert_eq!(seen.header("authorization"), None, "{seen:?}");
        }
        let tokens: Vec<Seen> = fake.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
        assert_eq!(tokens.len(), 1, "one token serves all");
        // What we need, not what the challenge would have us ask for.
        assert!(tokens[0].path.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{}", tokens[0].path);
        assert!(!tokens[0].path.contains("secret"), "{}", tokens[0].path);
        assert_eq!(tokens[0].header("authorization"), Some("Basic dXNlcjpwYXNz"));
        // The password itself never goes to the registry that wants tokens.
        for seen in fake.seen().iter().filter(|seen| !seen.path.starts_with("/token")) {
            assert!(seen.header("authorization").is_none_or(|value| !value.starts_with("Basic")), "{seen:?}");
        }

        // A challenge of the other host is not answered.
        let place = elsewhere.host();
        let fake = Fake::misbehaving(move |seen, reply| {
            if seen.is_blob() {
                return Reply::new(307).header("Location", format!("http://{place}/challenge"));
            }
            reply
        });
        fake.image("app", "1", &[layer("b", 1000)]);
        let before = elsewhere.seen().len();
        let text = pull(&env, &fake.name("app:1")).arg("--creds=user:pass").run().fails(125);
        assert!(text.contains("unauthorized"), "{text}");
        for seen in &elsewhere.seen()[before..] {
            assert_eq!(seen.header("authorization"), None, "{seen:?}");
        }
    }

    fn plain_http_is_only_for_registries_marked_insecure(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (_, config) = fake.image("app", "1", &[layer("a", 10)]);
        let text = env.coracle(["pull", "-q", "--retry=0", &fake.name("app:1")]).fails(125);
        assert!(text.contains("initializing source docker://"), "{text}");
        assert!(fake.seen().is_empty(), "no plain request: {:?}", fake.seen());
        let folder = env.home().join(".config/containers");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", fake.host());
        std::fs::write(folder.join("registries.conf"), text).unwrap();
        assert_eq!(env.coracle(["pull", "-q", &fake.name("app:1")]).ok(), hex(&config));
    }

    fn mirrors_short_names_blocks_and_policy(env: Env) {
        let env = env.host_network();
        let (dead, mirror, home) = (Fake::misbehaving(|_, _| Reply::new(500)), Fake::start(), Fake::start());
        let (_, from_mirror) = mirror.image("m/app", "1", &[layer("a", 10)]);
        let (_, from_home) = home.image("app", "2", &[layer("b", 10)]);
        home.image("blocked/x", "1", &[layer("c", 10)]);
        let folder = env.home().join(".config/containers");
        std::fs::create_dir_all(&folder).unwrap();
        let (dead_host, mirror_host, home_host) = (dead.host(), mirror.host(), home.host());
        let text = format!(
            "unqualified-search-registries = [\"own.test\"]\n[aliases]\n\"short\" = \"own.test/app\"\n\
             [[registry]]\nprefix = \"own.test\"\nlocation = \"{home_host}\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{dead_host}\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{mirror_host}/m\"\ninsecure = true\n\
             [[registry]]\nlocation = \"own.test/blocked\"\nblocked = true\n"
        );
        std::fs::write(folder.join("registries.conf"), text).unwrap();
        let pull = |name: &str| env.coracle(["pull", "-q", "--retry=0", name]);
        assert_eq!(pull("own.test/app:1").ok(), hex(&from_mirror));
        assert_eq!(pull("app:1").ok(), hex(&from_mirror));
        assert_eq!(pull("short:2").ok(), hex(&from_home));
        assert!(listed(&env, "tags").iter().any(|tag| tag == "own.test+app:2"), "{:?}", listed(&env, "tags"));
        let text = pull("own.test/blocked/x:1").fails(125);
        assert!(text.contains("registry own.test is blocked in"), "{text}");
        let text = pull("own.test/none:1").fails(125);
        assert!(text.contains("manifest unknown"), "{text}");

        std::fs::write(folder.join("policy.json"), r#"{"default": [{"type": "reject"}]}"#).unwrap();
        let text = pull("own.test/app:1").fails(125);
        assert!(text.contains("Source image rejected"), "{text}");
        std::fs::write(folder.join("policy.json"), r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}"#).unwrap();
        let text = pull("own.test/app:1").fails(125);
        assert!(text.contains("signature"), "{text}");
    }

    fn an_index_gives_the_image_of_the_platform(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let mut entries = Vec::new();
        let mut ids = Vec::new();
        for (architecture, variant) in [("amd64", None), ("arm64", Some("v8")), ("arm", Some("v6"))] {
            let own = layer(architecture, 500);
            let mut document: Value = serde_json::from_slice(&config(&[digest(&own)])).unwrap();
            document["architecture"] = json!(architecture);
            let config = fake.blob(CONFIG, document.to_string().as_bytes());
            let blob = fake.blob(LAYER, &gzip(&own));
            let mut entry = fake.manifest("app", architecture, &manifest(&config, &[blob]));
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            if let Some(variant) = variant {
                entry["platform"]["variant"] = json!(variant);
            }
            entries.push(entry);
            ids.push(hex(config["digest"].as_str().unwrap()).to_owned());
        }
        fake.manifest("app", "1", &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
        let name = fake.name("app:1");
        let pull = |words: &[&str]| {
            let words: Vec<&str> = ["pull", "-q", "--tls-verify=false"].iter().chain(words).copied().collect();
            env.command(words).arg(&name).run()
        };
        assert_eq!(pull(&["--platform", "linux/amd64"]).ok(), ids[0]);
        assert_eq!(pull(&["--platform=linux/aarch64"]).ok(), ids[1]);
        assert_eq!(pull(&["--arch", "arm", "--variant", "v7"]).ok(), ids[2]);
        let text = pull(&["--platform", "linux/s390x"]).fails(125);
        assert!(text.contains("no image found in manifest list for architecture s390x"), "{text}");
        assert!(text.contains("linux/amd64, linux/arm64/v8, linux/arm/v6"), "{text}");
        let _ = pull(&["--all-platforms"]).succeeded();
        assert_eq!(listed(&env, "images").len(), 3);
    }

    fn policies_of_pulling(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (_, config) = fake.image("app", "1", &[layer("a", 10)]);
        let name = fake.name("app:1");
        let pull = |policy: &str| env.coracle(["pull", "-q", "--tls-verify=false", "--policy", policy, &name]);
        let text = pull("never").fails(125);
        assert!(text.contains("image not known"), "{text}");
        assert!(fake.seen().is_empty());
        assert_eq!(pull("missing").ok(), hex(&config));
        let before = fake.seen().len();
        assert_eq!(pull("missing").ok(), hex(&config));
        assert_eq!(pull("never").ok(), hex(&config));
        assert_eq!(fake.seen().len(), before);
        let (_, newer) = fake.image("app", "1", &[layer("b", 10)]);
        assert_eq!(pull("newer").ok(), hex(&newer));
        let text = pull("perhaps").fails(125);
        assert!(text.contains("unsupported pull policy"), "{text}");
        drop(fake);
        let output = env.coracle(["pull", "--tls-verify=false", "--retry=0", "--policy=newer", &name]);
        assert_eq!(output.succeeded(), hex(&newer));
    }

    fn all_tags(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (_, one) = fake.image("app", "1", &[layer("a", 10)]);
        let (_, two) = fake.image("app", "2", &[layer("b", 10)]);
        let pulled = env.coracle(["pull", "-q", "--tls-verify=false", "-a", &fake.name("app")]).ok();
        assert_eq!(pulled, format!("{}\n{}", hex(&one), hex(&two)));
        let text = env.coracle(["pull", "-q", "--tls-verify=false", "-a", &fake.name("app:1")]).fails(125);
        assert!(text.contains("tag can't be used with --all-tags/-a"), "{text}");
    }

    fn errors_name_the_cause(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let host = fake.host();
        let pull = |name: &str| env.coracle(["pull", "-q", "--tls-verify=false", "--retry=0", name]).fails(125);
        assert_eq!(
            pull(&fake.name("none:1")),
            format!("coracle: initializing source docker://{host}/none:1: reading manifest 1 in {host}/none: manifest unknown")
        );
        let text = pull("oci:/x");
        assert!(text.contains("hint: `coracle copy oci:/x containers-storage:NAME`"), "{text}");
        assert!(pull("Upper").contains("repository name must be lowercase"));
        drop(fake);
        assert!(pull(&format!("{host}/app:1")).contains("connection refused"));
    }
}

as_root! {
    /// DESIGN, the crash walk: at each write, rename and sync of a pull in turn it is killed or the disk fails; afterwards
    /// ordinary commands work, and the same pull succeeds.
    fn a_pull_may_end_anywhere(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (_, config) = fake.image("app", "1", &[layer("a", 20_000), layer("b", 3000)]);
        let name = fake.name("app:1");
        let points = env.path("points");
        let _ = pull(&env, &name).env("CORACLE_FAULT_COUNT", &points).run().ok();
        let count = std::fs::read_to_string(&points).unwrap_or_default().lines().count();
        // A release build has no such points. Each is a killing, and one of the two errors.
        for number in 1..=count {
            for kind in ["kill", if number % 2 == 0 { "EIO" } else { "ENOSPC" }] {
                let _ = env.coracle(["rmi", "--force", &name]).succeeded();
                let ended = pull(&env, &name).arg("--retry=0").env("CORACLE_FAULT", format!("{kind}@{number}")).run();
                assert!(kind != "kill" || [0, 137].contains(&ended.code()), "{kind}@{number}\n{ended}");
                let again = pull(&env, &name).run();
                assert!(again.code() == 0 && again.stdout().trim() == hex(&config), "{kind}@{number}\n{ended}\n{again}");
            }
        }
        assert_eq!(env.coracle(["images", "--format", "{{.Id}}", "--no-trunc"]).ok(), hex(&config));
    }
}

both! {
    fn from_the_real_registry_over_tls_with_a_password(env: Env) {
        need!(program("docker-registry"), program("openssl"), program("skopeo"));
        let env = env.host_network();
        let registry = DockerRegistry::secure();
        let certificates = registry.certificates(env.base());
        let fake = Fake::start();
        let (digest, config) = fake.image("app", "1", &[layer("a", 100_000), layer("b", 10)]);
        let certificates = certificates.to_str().unwrap();
        let _ = env
            .other(["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-cert-dir", certificates, "--dest-creds", CREDENTIALS])
            .arg(format!("docker://{}", fake.name("app:1")))
            .arg(format!("docker://{}", registry.name("app:1")))
            .run()
            .succeeded();
        let name = registry.name("app:1");
        let pull = |words: &[&str]| {
            let words: Vec<&str> = ["pull", "-q", "--retry=0"].iter().chain(words).copied().collect();
            env.command(words).arg(&name).run()
        };
        let text = pull(&[]).fails(125);
        assert!(text.contains("x509: certificate signed by unknown authority"), "{text}");
        assert!(text.contains("--cert-dir"), "{text}");
        let text = pull(&["--cert-dir", certificates]).fails(125);
        assert!(text.contains("unauthorized: authentication required"), "{text}");
        let text = pull(&["--cert-dir", certificates, "--creds", "user:wrong"]).fails(125);
        assert!(text.contains("unauthorized: authentication required"), "{text}");
        assert_eq!(pull(&["--cert-dir", certificates, "--creds", CREDENTIALS]).ok(), hex(&config));
        assert_eq!(pull(&["--tls-verify=false", "--creds", CREDENTIALS]).ok(), hex(&config));
        let inspected = env
            .command(["image", "inspect", "--cert-dir", certificates, "--creds", CREDENTIALS])
            .arg(format!("docker://{name}"))
            .run()
            .json();
        assert_eq!(inspected[0]["Digest"], json!(digest));
        assert_eq!(inspected[0]["Id"], json!(hex(&config)));
        let by_digest = registry.name(&format!("app@{digest}"));
        let pulled = env.coracle(["pull", "-q", "--cert-dir", certificates, "--creds", CREDENTIALS, &by_digest]).ok();
        assert_eq!(pulled, hex(&config));
    }
}
