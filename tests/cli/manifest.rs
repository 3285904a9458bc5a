//! `manifest` and `artifact`.

use crate::support::Env;
use crate::support::coracle::{as_root, both};
use crate::support::image::{Image, Layer, digest};
use crate::support::need::need;
use crate::support::registry::Fake;
use serde_json::{Value, json};

fn layer(name: &str) -> Vec<u8> {
    Layer::new().file(name, 0o644, name.repeat(500)).tar()
}

fn document(fake: &Fake, name: &str, reference: &str) -> Value {
    serde_json::from_slice(&fake.stored_manifest(name, reference).expect("a manifest")).expect("JSON")
}

#[track_caller]
fn inspect(env: &Env, name: &str) -> Value {
    env.coracle(["manifest", "inspect", "--tls-verify=false", name]).json()
}

both! {
    fn a_list_is_made_changed_and_pushed(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let (remote, _) = fake.image("app", "1", &[layer("a")]);
        env.load(&Image::new("localhost/made:1").layer(Layer::new().file("x", 0o644, "x")));
        let id = env.coracle(["manifest", "create", "list:1"]).ok();
        assert_eq!(id.len(), 64);
        let text = env.coracle(["manifest", "create", "list:1"]).fails(125);
        assert!(text.contains("localhost/list:1\" is already in use"), "{text}");
        assert_eq!(env.coracle(["manifest", "exists", "list:1"]).code(), 0);
        assert_eq!(env.coracle(["manifest", "exists", "other"]).code(), 1);
        let add = |image: &str, words: &[&str]| {
            let words: Vec<&str> = ["manifest", "add", "--tls-verify=false"].iter().chain(words).copied().collect();
            env.command(words).arg("list:1").arg(image).run().ok()
        };
        assert_eq!(add("localhost/made:1", &[]), id);
        assert_eq!(add(&format!("docker://{}", fake.name("app:1")), &["--arch", "arm", "--variant=v7", "--annotation", "a=b"]), id);
        let index = inspect(&env, "list:1");
        assert_eq!(index["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        assert_eq!(index["manifests"][0]["platform"]["os"], "linux");
        assert_eq!(index["manifests"][1]["digest"], json!(remote));
        assert_eq!(index["manifests"][1]["platform"], json!({"architecture": "arm", "os": "linux", "variant": "v7"}));
        assert_eq!(index["manifests"][1]["annotations"], json!({"a": "b"}));
        let _ = env.coracle(["manifest", "annotate", "--os-version", "9", "--features", "x,y", "list:1", &remote]).ok();
        let _ = env.coracle(["manifest", "annotate", "--index", "--annotation", "c=d", "list:1"]).ok();
        let index = inspect(&env, "list:1");
        assert_eq!(index["manifests"][1]["platform"]["os.version"], "9");
        assert_eq!(index["manifests"][1]["platform"]["features"], json!(["x", "y"]));
        assert_eq!(index["annotations"], json!({"c": "d"}));

        let to = Fake::start();
        let name = to.name("list:1");
        let _ = env.coracle(["manifest", "push", "-q", "--all", "--tls-verify=false", "--digestfile=digest", "list:1", &name]).ok();
        let pushed = document(&to, "list", "1");
        assert_eq!(digest(&to.stored_manifest("list", "1").unwrap()), std::fs::read_to_string(env.path("digest")).unwrap());
        assert_eq!(pushed["manifests"][1]["digest"], json!(remote));
        for entry in pushed["manifests"].as_array().unwrap() {
            let manifest = document(&to, "list", entry["digest"].as_str().unwrap());
            for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
                assert!(to.stored_blobs().iter().any(|stored| json!(stored) == blob["digest"]), "{blob}");
            }
        }
        assert_eq!(inspect(&env, &format!("docker://{name}")), pushed);
        let _ = env.coracle(["manifest", "remove", "list:1", &remote]).ok();
        assert_eq!(inspect(&env, "list:1")["manifests"].as_array().unwrap().len(), 1);
        let text = env.coracle(["manifest", "remove", "list:1", &remote]).fails(125);
        assert!(text.contains("no image with digest"), "{text}");
        assert_eq!(env.coracle(["manifest", "rm", "list:1"]).ok(), format!("Untagged: localhost/list:1\nDeleted: {id}"));
        assert_eq!(env.coracle(["manifest", "rm", "list:1"]).fails(1), "coracle: list:1: image not known");
        let _ = env.coracle(["manifest", "rm", "--ignore", "list:1"]).ok();
    }

    fn artifacts_come_and_go(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        env.write("one.txt", "hello\n");
        env.write("two.bin", b"\0\x01\x02");
        let name = fake.name("things:1");
        let digest_of = env.coracle(["artifact", "add", "--type", "application/vnd.x", "--annotation", "k=v", &name, "one.txt"]).ok();
        assert_eq!(digest_of.len(), 64);
        let text = env.coracle(["artifact", "add", &name, "one.txt"]).fails(125);
        assert!(text.contains("artifact already exists"), "{text}");
        let appended = env.coracle(["artifact", "add", "--append", &name, "two.bin"]).ok();
        assert_ne!(appended, digest_of);
        let manifest = env.coracle(["artifact", "inspect", &name]).json()["Manifest"].clone();
        assert_eq!(manifest["artifactType"], "application/vnd.x");
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert_eq!(manifest["layers"][0]["mediaType"], "text/plain; charset=utf-8");
        assert_eq!(manifest["layers"][0]["annotations"], json!({"org.opencontainers.image.title": "one.txt", "k": "v"}));
        assert_eq!(manifest["layers"][1]["mediaType"], "application/octet-stream");
        let _ = env.coracle(["artifact", "push", "-q", "--tls-verify=false", &name]).ok();
        assert_eq!(digest(&fake.stored_manifest("things", "1").unwrap()), format!("sha256:{appended}"));
        let listed = env.coracle(["artifact", "ls", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}", "--no-trunc"]).ok();
        assert_eq!(listed, format!("{} 1 {appended}", fake.name("things")));
        assert_eq!(env.coracle(["artifact", "rm", &name]).ok(), appended);
        assert_eq!(std::fs::read_dir(env.data().join("artifacts/blobs/sha256")).unwrap().count(), 0);
        let text = env.coracle(["artifact", "inspect", &name]).fails(125);
        assert!(text.contains("artifact does not exist"), "{text}");
        assert_eq!(env.coracle(["artifact", "pull", "-q", "--tls-verify=false", &name]).ok(), appended);
        env.directory("out");
        let _ = env.coracle(["artifact", "extract", &name, "out"]).ok();
        assert_eq!(std::fs::read(env.path("out/one.txt")).unwrap(), b"hello\n");
        assert_eq!(std::fs::read(env.path("out/two.bin")).unwrap(), b"\0\x01\x02");
        let _ = env.coracle(["artifact", "extract", "--title", "one.txt", &name, "single"]).ok();
        assert_eq!(std::fs::read(env.path("single")).unwrap(), b"hello\n");
        let text = env.coracle(["artifact", "extract", &name, "nodir"]).fails(125);
        assert!(text.contains("is not a directory"), "{text}");
        assert_eq!(env.coracle(["artifact", "rm", "--all"]).ok(), appended);
    }
}

as_root! {
    fn an_artifact_cannot_write_outside(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        let mut file = fake.blob("text/plain", b"evil");
        file["annotations"] = json!({"org.opencontainers.image.title": "../../evil"});
        let config = fake.blob("application/vnd.oci.empty.v1+json", b"{}");
        fake.manifest("bad", "1", &crate::support::registry::manifest(&config, &[file]));
        let name = fake.name("bad:1");
        let _ = env.coracle(["artifact", "pull", "-q", "--tls-verify=false", &name]).ok();
        env.directory("deep/out");
        let text = env.coracle(["artifact", "extract", &name, "deep/out"]).fails(125);
        assert!(text.contains("cannot be a file in the directory"), "{text}");
        assert!(!env.path("evil").exists());
        let (_, _) = fake.image("image", "1", &[layer("a")]);
        let text = env.coracle(["artifact", "pull", "-q", "--tls-verify=false", &fake.name("image:1")]).fails(125);
        assert!(text.contains("it is an image, not an artifact"), "{text}");
    }

    fn skopeo_reads_the_artifacts_layout(env: Env) {
        need!(program("skopeo"));
        env.write("one.txt", "hello\n");
        let made = env.coracle(["artifact", "add", "r.test/x:1", "one.txt"]).ok();
        let layout = format!("oci:{}:r.test/x:1", env.data().join("artifacts").display());
        let raw = env.other(["skopeo", "inspect", "--raw", &layout]).run().ok();
        assert_eq!(digest(raw.as_bytes()), format!("sha256:{made}"));
    }
}
