//! `push` and `copy`: what is sent, what is not, and that digests stay.

use crate::support::Env;
use crate::support::coracle::{as_root, both};
use crate::support::image::{Image, Layer, digest};
use crate::support::need::need;
use crate::support::registry::{CREDENTIALS, DockerRegistry, Fake, Reply, gzip, noise};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

fn layer(name: &str) -> Vec<u8> {
    Layer::new().directory("data", 0o755).file(&format!("data/{name}"), 0o644, name.repeat(2000)).tar()
}

fn hex(digest: &str) -> &str {
    &digest["sha256:".len()..]
}

#[track_caller]
fn push(env: &Env, words: &[&str]) -> String {
    let words: Vec<&str> =
        ["push", "-q", "--tls-verify=false", "--retry-delay=1ms"].iter().chain(words).copied().collect();
    env.coracle(words).ok()
}

#[track_caller]
fn copy(env: &Env, source: &str, target: &str, words: &[&str]) {
    let fixed =
        ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "--retry-delay=1ms", source, target];
    let _ = env.coracle(fixed.iter().chain(words)).ok();
}

fn manifest(fake: &Fake, name: &str, reference: &str) -> Value {
    serde_json::from_slice(&fake.stored_manifest(name, reference).expect("a manifest")).expect("JSON")
}

both! {
    fn what_was_pulled_keeps_its_digest_and_is_sent_once(env: Env) {
        let env = env.host_network();
        let (from, to) = (Fake::start(), Fake::start());
        let (pulled, _) = from.image("app", "1", &[layer("a"), layer("b")]);
        let _ = env.coracle(["pull", "-q", "--tls-verify=false", &from.name("app:1")]).ok();
        push(&env, &[&from.name("app:1"), &to.name("team/app:2"), "--digestfile", "digest"]);
        assert_eq!(std::fs::read_to_string(env.path("digest")).unwrap(), pulled);
        assert_eq!(to.stored_manifest("team/app", "2"), from.stored_manifest("app", "1"));
        assert_eq!(to.count("POST", "/uploads/"), 3);

        // All is there: nothing is sent but the manifest.
        push(&env, &[&from.name("app:1"), &to.name("team/app:3")]);
        assert_eq!(to.count("POST", "/uploads/"), 3);
        assert_eq!(to.stored_manifest("team/app", "3"), from.stored_manifest("app", "1"));
    }

    fn a_push_needs_no_second_try(env: Env) {
        let env = env.host_network();
        // It closes the connection after each answer without a word, as servers do with those that are idle.
        let to = Fake::misbehaving(|_, reply| reply.then_close());
        let image = Image::new("localhost/made:1").layer(Layer::new().file("x", 0o644, noise("x", 50_000)));
        env.load(&image.layer(Layer::new().file("y", 0o644, "y")));
        for number in 0..5 {
            push(&env, &["--retry=0", "localhost/made:1", &to.name(&format!("made{number}:1"))]);
            to.forget_all();
        }
    }

    fn an_image_made_here_is_compressed_on_its_way(env: Env) {
        let env = env.host_network();
        let to = Fake::start();
        let image = Image::new("localhost/made:1").layer(Layer::new().file("x", 0o644, "x".repeat(100_000)));
        env.load(&image);
        push(&env, &["localhost/made:1", &format!("docker://{}", to.name("made:1"))]);
        let manifest = manifest(&to, "made", "1");
        assert_eq!(manifest["config"]["digest"], json!(digest(&image.document())));
        assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with("gzip"), "{manifest}");
        assert!(manifest["layers"][0]["size"].as_u64().unwrap() < 10_000, "{manifest}");
        let first = to.stored_manifest("made", "1");
        push(&env, &["localhost/made:1", &to.name("made:1")]);
        assert_eq!(to.stored_manifest("made", "1"), first, "the same content gives the same digest");
        let _ = env.coracle(["rmi", "localhost/made:1"]).succeeded();
        let id = env.coracle(["pull", "-q", "--tls-verify=false", &to.name("made:1")]).ok();
        assert_eq!(id, hex(&digest(&image.document())));
    }
}

as_root! {
    fn formats_and_compressions(env: Env) {
        let env = env.host_network();
        let (from, to) = (Fake::start(), Fake::start());
        let (_, config) = from.image("app", "1", &[layer("a"), layer("b")]);
        let name = from.name("app:1");
        let _ = env.coracle(["pull", "-q", "--tls-verify=false", &name]).ok();
        push(&env, &["--format", "v2s2", &name, &to.name("app:docker")]);
        let docker = manifest(&to, "app", "docker");
        assert_eq!(docker["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
        assert_eq!(docker["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
        assert_eq!(docker["config"]["digest"], json!(config));
        assert_eq!(docker["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert_eq!(docker["layers"][0]["digest"], json!(digest(&gzip(&layer("a")))));
        push(&env, &["--compression-format=zstd", &name, &to.name("app:zstd")]);
        let zstd = manifest(&to, "app", "zstd");
        assert_eq!(zstd["layers"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        assert_eq!(zstd["config"]["digest"], json!(config));
        // The same layers, so nothing is fetched.
        let before = to.count("GET", "/blobs/");
        assert_eq!(env.coracle(["pull", "-q", "--tls-verify=false", &to.name("app:zstd")]).ok(), hex(&config));
        assert_eq!(to.count("GET", "/blobs/"), before);
        let text = env.coracle(["push", "-q", "--tls-verify=false", "--format=v2s1", &name]).fails(125);
        assert!(text.contains("schema 1"), "{text}");
        let text = env.coracle(["push", "-q", "--tls-verify=false", "--sign-by=me", &name]).fails(125);
        assert!(text.contains("signing images in this way is not supported"), "{text}");
    }

    fn blobs_of_the_same_registry_are_mounted(env: Env) {
        let env = env.host_network();
        // Only the repository it was put into has a blob.
        let fake = Fake::misbehaving(|seen, reply| {
            if seen.method == "HEAD" && seen.path.contains("/v2/new/") { Reply::new(404) } else { reply }
        });
        fake.image("old", "1", &[layer("a")]);
        copy(&env, &format!("docker://{}", fake.name("old:1")), &format!("docker://{}", fake.name("new:1")), &[]);
        assert_eq!(fake.stored_manifest("new", "1"), fake.stored_manifest("old", "1"));
        assert_eq!(fake.count("POST", "mount=sha256%3A"), 2);
        assert_eq!(fake.count("PUT", "/uploads/"), 0);
    }

    fn a_long_upload_survives_failures(env: Env) {
        let env = env.host_network();
        let failures = AtomicUsize::new(0);
        let fake = Fake::misbehaving(move |seen, reply| {
            if seen.method == "PATCH" && failures.fetch_add(1, Ordering::SeqCst) < 2 {
                return Reply::new(503);
            }
            reply
        });
        env.load(&Image::new("localhost/big:1").layer(Layer::new().file("x", 0o644, noise("big", 6_000_000))));
        push(&env, &["localhost/big:1", &fake.name("big:1")]);
        assert!(fake.count("PATCH", "/uploads/") >= 1);
        assert!(fake.stored_manifest("big", "1").is_some());
    }

    fn refusals_name_the_cause(env: Env) {
        let env = env.host_network();
        let fake = Fake::misbehaving(|seen, reply| {
            if seen.method == "POST" {
                return Reply::error(403, "DENIED", "requested access to the resource is denied");
            }
            reply
        });
        env.load(&Image::new("localhost/made:1").layer(Layer::new().file("x", 0o644, "x")));
        let name = fake.name("made:1");
        let text = env.coracle(["push", "-q", "--tls-verify=false", "localhost/made:1", &name]).fails(125);
        assert!(text.contains("denied: requested access to the resource is denied"), "{text}");
        assert!(text.contains("hint: log in with `coracle login"), "{text}");
        let text = env.coracle(["push", "-q", "nothing:1", &name]).fails(125);
        assert!(text.contains("image not known"), "{text}");
    }

    fn an_index_is_pushed_as_it_was_pulled(env: Env) {
        let env = env.host_network();
        let (from, to) = (Fake::start(), Fake::start());
        let mut entries = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let (digest, _) = from.image("app", architecture, &[layer(architecture)]);
            let bytes = from.stored_manifest("app", &digest).unwrap();
            entries.push(json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                "size": bytes.len(), "platform": {"os": "linux", "architecture": architecture}}));
        }
        // BuildKit's attestations: manifests of documents, for no machine.
        let config = from.blob("application/vnd.oci.image.config.v1+json", br#"{"rootfs": {"type": "layers"}}"#);
        let statement = from.blob("application/vnd.in-toto+json", br#"{"_type": "statement"}"#);
        let mut attestation = from.manifest("app", "att", &crate::support::registry::manifest(&config, &[statement]));
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        entries.push(attestation);
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        from.manifest("app", "1", &index);
        let name = from.name("app:1");
        let _ = env.coracle(["pull", "-q", "--tls-verify=false", &name]).ok();
        let text = env.coracle(["push", "-q", "--tls-verify=false", "--all-platforms", &name, &to.name("app:1")]).fails(125);
        assert!(text.contains("hint: `coracle pull --all-platforms`"), "{text}");
        let _ = env.coracle(["pull", "-q", "--tls-verify=false", "--all-platforms", &name]).ok();
        let _ = env.coracle(["image", "prune", "-f"]).succeeded();
        push(&env, &["--all-platforms", &name, &to.name("app:1")]);
        assert_eq!(to.stored_manifest("app", "1"), from.stored_manifest("app", "1"));
        copy(&env, &format!("docker://{name}"), &format!("docker://{}", to.name("copy:1")), &["--all"]);
        assert_eq!(to.stored_manifest("copy", "1"), from.stored_manifest("app", "1"));
    }

    fn referrers_stand_under_a_tag_where_the_registry_keeps_none(env: Env) {
        let env = env.host_network();
        let (from, to) = (Fake::start(), Fake::start());
        let (subject, _) = from.image("app", "1", &[layer("a")]);
        let config = from.blob("application/vnd.oci.empty.v1+json", b"{}");
        for tag in ["one", "two", "one"] {
            let note = from.blob("text/plain", tag.as_bytes());
            let mut document = crate::support::registry::manifest(&config, &[note]);
            document["artifactType"] = json!("application/vnd.note");
            document["subject"] = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1});
            from.manifest("app", tag, &document);
            copy(&env, &format!("docker://{}", from.name(&format!("app:{tag}"))), &format!("docker://{}", to.name("app:x")), &[]);
        }
        let index = manifest(&to, "app", &subject.replace(':', "-"));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.note");
    }

    fn copies_between_all_places_keep_the_digest(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (wanted, config) = fake.image("app", "1", &[layer("a"), layer("b"), layer("a")]);
        let registry = format!("docker://{}", fake.name("app:1"));
        let digest_of = |source: &str| {
            copy(&env, source, &format!("dir:{}", env.path("look").display()), &[]);
            digest(&std::fs::read(env.path("look/manifest.json")).unwrap())
        };
        copy(&env, &registry, "oci:layout:name", &[]);
        assert_eq!(digest_of("oci:layout:name"), wanted);
        copy(&env, &registry, "oci:layout:other", &[]);
        assert_eq!(digest_of("oci:layout:other"), wanted);
        let text = env.coracle(["copy", "oci:layout", "dir:x"]).fails(125);
        assert!(text.contains("more than one image"), "{text}");
        copy(&env, "oci:layout:name", "oci-archive:a.tar:r.test/x:1", &[]);
        assert_eq!(digest_of("oci-archive:a.tar"), wanted);
        copy(&env, "oci-archive:a.tar", "containers-storage:stored:1", &[]);
        let id = env.coracle(["image", "inspect", "--format", "{{.Id}}", "localhost/stored:1"]).ok();
        assert_eq!(id, hex(&config));
        copy(&env, &registry, "containers-storage:pulled:1", &[]);
        assert_eq!(digest_of("containers-storage:pulled:1"), wanted);
        copy(&env, "containers-storage:pulled:1", "docker-archive:d.tar:r.test/x:1", &[]);
        copy(&env, "docker-archive:d.tar", &format!("docker://{}", fake.name("back:1")), &[]);
        assert_eq!(manifest(&fake, "back", "1")["config"]["digest"], json!(config));
        let text = env.coracle(["copy", "oci-archive:a.tar", "oci-archive:a.tar"]).fails(125);
        assert!(text.contains("doesn't support modifying existing images"), "{text}");
        let text = env.coracle(["copy", "alpine", "dir:x"]).fails(125);
        assert!(text.contains("Invalid image name \"alpine\""), "{text}");
        let text = env.coracle(["copy", "docker-daemon:x", "dir:x"]).fails(125);
        assert!(text.contains("transport `docker-daemon:` is not supported"), "{text}");
    }

    fn damaged_sources_are_found(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        fake.image("app", "1", &[layer("a")]);
        copy(&env, &format!("docker://{}", fake.name("app:1")), "dir:good", &[]);
        let blob = digest(&gzip(&layer("a")));
        let path = env.path("good").join(hex(&blob));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let registry = format!("docker://{}", fake.name("bad:1"));
        fake.forget(&blob);
        for target in ["oci:bad", "dir:bad2", "containers-storage:bad", &registry] {
            let text = env.command(["copy", "-q", "--dest-tls-verify=false", "--retry=3", "--retry-delay=1ms", "dir:good", target]).run().fails(125);
            assert!(text.contains("digest") || text.contains("corrupt"), "{target}: {text}");
        }
        assert!(fake.stored_manifest("bad", "1").is_none());
        assert!(!env.path("bad/index.json").exists());
        assert!(!env.path("bad2/manifest.json").exists());
    }
}

both! {
    fn the_real_registry_and_skopeo_agree(env: Env) {
        need!(program("docker-registry"), program("openssl"), program("skopeo"));
        let env = env.host_network();
        let registry = DockerRegistry::secure();
        let certificates = registry.certificates(env.base());
        let certificates = certificates.to_str().unwrap();
        let image = Image::new("localhost/made:1").layer(Layer::new().file("x", 0o644, noise("big", 6_000_000)));
        env.load(&image);
        let name = registry.name("team/made:1");
        let _ = env
            .command(["push", "-q", "--cert-dir", certificates, "--creds", CREDENTIALS, "--digestfile", "digest"])
            .arg("localhost/made:1")
            .arg(&name)
            .run()
            .ok();
        let inspected = env
            .other(["skopeo", "inspect", "--cert-dir", certificates, "--creds", CREDENTIALS])
            .arg(format!("docker://{name}"))
            .run()
            .json();
        assert_eq!(inspected["Digest"], json!(std::fs::read_to_string(env.path("digest")).unwrap()));
        let _ = env
            .other(["skopeo", "copy", "-q", "--src-cert-dir", certificates, "--src-creds", CREDENTIALS])
            .arg(format!("docker://{name}"))
            .arg(format!("dir:{}", env.path("theirs").display()))
            .run()
            .succeeded();
        copy(&env, "dir:theirs", "dir:ours", &[]);
        let ours = digest(&std::fs::read(env.path("ours/manifest.json")).unwrap());
        assert_eq!(json!(ours), inspected["Digest"]);
        copy(&env, "dir:ours", "oci:layout:x", &[]);
        let _ = env.other(["skopeo", "copy", "-q", "oci:layout:x", "docker-archive:their.tar:x:1"]).run().succeeded();
        copy(&env, "docker-archive:their.tar", "containers-storage:again:1", &[]);
        let id = env.coracle(["image", "inspect", "--format", "{{.Id}}", "localhost/again:1"]).ok();
        assert_eq!(id, hex(&digest(&image.document())));
    }
}
