//! Signatures: which images policy.json lets in, how it is changed, and images that are signed as they are pushed.

use crate::support::Env;
use crate::support::coracle::both;
use crate::support::image::Layer;
use crate::support::need::need;
use crate::support::registry::Fake;
use serde_json::{Value, json};
use std::path::PathBuf;

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Files of a key pair, as `openssl` makes them.
fn pair(env: &Env, name: &str) -> (PathBuf, PathBuf) {
    let (private, public) = (env.path(format!("{name}.key")), env.path(format!("{name}.pub")));
    let private_text = private.to_str().expect("a path");
    let public_text = public.to_str().expect("a path");
    let _ = env
        .other(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private_text])
        .run();
    assert!(private.exists(), "openssl makes a key");
    let _ = env.other(["openssl", "pkey", "-in", private_text, "-pubout", "-out", public_text]).run();
    assert!(public.exists(), "openssl makes a public key");
    (private, public)
}

/// Put a signature beside an image as `cosign` does, made by `openssl`.
fn sign(env: &Env, fake: &Fake, repository: &str, digest: &str, name: &str, key: &std::path::Path) {
    let payload =
        json!({"critical": {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature"}, "optional": {"creator": "tests"}})
        .to_string();
    let file = env.write("payload", &payload);
    let signature = env.path("signature");
    let _ = env
        .other(["openssl", "dgst", "-sha256", "-sign", key.to_str().unwrap(), "-out", signature.to_str().unwrap()])
        .arg(&file)
        .run()
        .ok();
    let encoded = env.other(["base64", "-w0"]).arg(&signature).run().ok();
    let mut layer = fake.blob(PAYLOAD, payload.as_bytes());
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": encoded});
    let config = fake.blob("application/vnd.oci.image.config.v1+json", br#"{"rootfs": {"type": "layers"}}"#);
    let manifest = crate::support::registry::manifest(&config, &[layer]);
    fake.manifest(repository, &format!("{}.sig", digest.replace(':', "-")), &manifest);
}

fn layer(name: &str) -> Vec<u8> {
    Layer::new().file(name, 0o644, name).tar()
}

/// A policy that wants these requirements of everything, and signatures beside the images.
fn policy(env: &Env, requirements: &Value) {
    let folder = env.home().join(".config/containers");
    std::fs::create_dir_all(folder.join("registries.d")).unwrap();
    std::fs::write(folder.join("policy.json"), json!({"default": requirements}).to_string()).unwrap();
    std::fs::write(folder.join("registries.d/x.yaml"), "default-docker:\n  use-sigstore-attachments: true\n").unwrap();
}

both! {
    fn only_what_the_key_has_signed_comes_in(env: Env) {
        need!(program("openssl"));
        let env = env.host_network();
        let fake = Fake::start();
        let (private, public) = pair(&env, "own");
        let (foreign, _) = pair(&env, "foreign");
        let rule = json!({"type": "sigstoreSigned", "keyPath": public});
        policy(&env, &json!([rule]));
        let (digest, _) = fake.image("app", "1", &[layer("a")]);
        let name = fake.name("app:1");
        let pull = |name: &str| env.coracle(["pull", "-q", "--tls-verify=false", "--retry=0", name]);
        let refused = |name: &str, why: &str| {
            let text = pull(name).fails(125);
            assert!(text.contains("Source image rejected: ") && text.contains(why), "{name}: {text}");
            assert!(!env.data().join("layers-v1").read_dir().is_ok_and(|mut list| list.next().is_some()));
            assert_eq!(env.coracle(["images", "-q"]).ok(), "");
        };
        refused(&name, "A signature was required, but no signature exists");
        sign(&env, &fake, "app", &digest, &name, &foreign);
        refused(&name, "cryptographic signature verification failed");
        sign(&env, &fake, "app", &format!("sha256:{}", "0".repeat(64)), &name, &private);
        refused(&name, "cryptographic signature verification failed");
        // Signed by the key, but for another image: put where this one's signature is looked for.
        let other = fake.image("app", "other", &[layer("b")]).0;
        sign(&env, &fake, "app", &other, &name, &private);
        let moved = fake.stored_manifest("app", &format!("{}.sig", other.replace(':', "-"))).unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        fake.raw_manifest("app", &format!("{}.sig", digest.replace(':', "-")), kind, &moved);
        refused(&name, "the signature is for");
        sign(&env, &fake, "app", &digest, &fake.name("app:2"), &private);
        refused(&name, "is not accepted");
        for wrong in [
            json!([{"type": "sigstoreSigned", "keyPath": public, "rekorPublicKeyPath": public}]),
            json!([{"type": "sigstoreSigned", "fulcio": {"caPath": "/x", "oidcIssuer": "y", "subjectEmail": "z"},
                "rekorPublicKeyPath": public}]),
        ] {
            policy(&env, &wrong);
            refused(&name, "coracle cannot check");
        }
        policy(&env, &json!([{"type": "sigstoreSigned", "keyPath": public, "signedIdentity": {"type": "matchRepository"}}]));
        let _ = pull(&name).ok();
        let _ = env.coracle(["rmi", &name]).succeeded();
        policy(&env, &json!([rule]));
        // By digest, the tag it was signed under does not matter.
        let _ = pull(&fake.name(&format!("app@{digest}"))).ok();
        let _ = env.coracle(["rmi", "-a"]).succeeded();
        sign(&env, &fake, "app", &digest, &name, &private);
        let _ = pull(&name).ok();
        // Copies and looks from afar ask the same.
        let source = format!("docker://{}", fake.name("app:other"));
        let text = env.coracle(["copy", "-q", "--src-tls-verify=false", &source, "dir:out"]).fails(125);
        assert!(text.contains("Source image rejected"), "{text}");
        let text = env.coracle(["run", "--rm", "--tls-verify=false", &fake.name("app:other"), "true"]).fails(125);
        assert!(text.contains("Source image rejected"), "{text}");
        // Where registries.d does not say that signatures stand beside images, there are none.
        std::fs::remove_file(env.home().join(".config/containers/registries.d/x.yaml")).unwrap();
        let _ = env.coracle(["rmi", "-a"]).succeeded();
        refused(&name, "no signature exists");
    }

    fn an_index_that_is_signed_vouches_for_its_images(env: Env) {
        need!(program("openssl"));
        let env = env.host_network();
        let fake = Fake::start();
        let (private, public) = pair(&env, "own");
        policy(&env, &json!([{"type": "sigstoreSigned", "keyPath": public}]));
        let (digest, _) = fake.image("app", "x", &[layer("a")]);
        let size = fake.stored_manifest("app", &digest).unwrap().len();
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": crate::support::image::architecture()}});
        let index = fake.manifest("app", "1", &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}));
        let name = fake.name("app:1");
        let pull = || env.coracle(["pull", "-q", "--tls-verify=false", "--retry=0", &name]);
        let text = pull().fails(125);
        assert!(text.contains("no signature exists"), "{text}");
        sign(&env, &fake, "app", index["digest"].as_str().unwrap(), &name, &private);
        let _ = pull().ok();
    }

    fn signed_as_it_is_pushed(env: Env) {
        need!(program("openssl"));
        let env = env.host_network();
        let (from, to) = (Fake::start(), Fake::start());
        let (private, public) = pair(&env, "own");
        let (other, _) = pair(&env, "other");
        let (digest, _) = from.image("app", "1", &[layer("a")]);
        let name = from.name("app:1");
        let _ = env.coracle(["pull", "-q", "--tls-verify=false", &name]).ok();
        let target = to.name("app:1");
        for key in [&other, &private] {
            let _ = env
                .command(["push", "-q", "--tls-verify=false", "--sign-by-sigstore-private-key"])
                .arg(key)
                .arg(&name)
                .arg(&target)
                .run()
                .ok();
        }
        let tag = format!("{}.sig", digest.replace(':', "-"));
        let signatures: Value = serde_json::from_slice(&to.stored_manifest("app", &tag).unwrap()).unwrap();
        assert_eq!(signatures["layers"].as_array().unwrap().len(), 2, "each key's signature is kept");
        policy(&env, &json!([{"type": "sigstoreSigned", "keyPath": public}]));
        let _ = env.coracle(["rmi", "-a"]).succeeded();
        let _ = env.coracle(["pull", "-q", "--tls-verify=false", "--retry=0", &target]).ok();
        let text = env.coracle(["push", "-q", "--tls-verify=false", "--sign-by=me", &target]).fails(125);
        assert!(text.contains("--sign-by: signing images in this way is not supported"), "{text}");
        let key = private.to_str().unwrap();
        let text = env.coracle(["push", "-q", "--sign-by-sigstore-private-key", key, &target, "dir:x"]).fails(125);
        assert!(text.contains("signatures are kept in registries only"), "{text}");
        let text = env.coracle(["image", "sign", &target]).fails(125);
        assert!(text.contains("GPG signatures are not supported"), "{text}");
    }

    fn the_policy_is_shown_and_changed(env: Env) {
        let file = env.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}], "more": {"x": 1}}"#);
        let key = env.write("key.pub", "a key");
        let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
        let trust = |words: &[&str]| {
            let fixed = ["image", "trust", words[0], "--policypath", file];
            env.coracle(fixed.iter().chain(&words[1..]).copied().collect::<Vec<_>>())
        };
        assert_eq!(trust(&["set", "-t", "reject", "default"]).ok(), "");
        assert_eq!(trust(&["set", "-t", "accept", "docker.io"]).ok(), "");
        assert_eq!(trust(&["set", "-t", "sigstoreSigned", "-f", key, "r.test/app"]).ok(), "");
        let document: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(document["more"]["x"], 1);
        assert_eq!(document["default"], json!([{"type": "reject"}]));
        let signed = json!([{"type": "sigstoreSigned", "keyPath": key}]);
        assert_eq!(document["transports"]["docker"]["r.test/app"], signed);
        let shown = trust(&["show", "--noheading"]).ok();
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = [
            vec!["all", "default", "reject"],
            vec!["repository", "docker.io", "accept"],
            vec!["repository", "r.test/app", "sigstoreSigned", "N/A"],
        ];
        assert_eq!(lines, expected);
        let document = trust(&["show", "--json", "r.test/app"]).json();
        assert_eq!(document[0]["keys"], json!([key]));
        assert_eq!(trust(&["show", "--raw"]).ok(), std::fs::read_to_string(file).unwrap().trim_end());
        for (words, text) in [
            (&["set", "-t", "perhaps", "default"][..], "invalid choice"),
            (&["set", "r.test"], "at least one public key must be defined"),
            (&["set", "-t", "accept", "https://r.test"], "invalid registry"),
        ] {
            let said = trust(words).fails(125);
            assert!(said.contains(text), "{said}");
        }
    }
}
