//! Hostile images, the rows of the security table that concern registries and archives and that have no test elsewhere:
//! bombs (memory and output stay bounded), ambient variables, labels that look like the engine's own.
//!
//! | row | test |
//! |---|---|
//! | CVE-2020-15157 credentials to another host | `pull::tokens_and_credentials_go_where_they_belong`, `http::tests::redirects_never_leave_https` |
//! | auth realm tricks | `auth::tests::realms_that_would_give_the_password_away_are_refused`, `pull::unauthorized_for_ever_is_no_loop` |
//! | CVE-2021-41190 two meanings | `manifest::tests::one_meaning`, `pull::documents_that_lie_are_refused` |
//! | CVE-2024-3727 digest strings | `digest::tests`, `pull::documents_that_lie_are_refused`, `archive::archives_that_lie_about_digests_are_refused` |
//! | digest and size at each level | `pull::lies_are_found_and_leave_nothing`, `pull::ranges_that_lie_are_refused`, `push::damaged_sources_are_found` |
//! | registry downgrade | `pull::plain_http_is_only_for_registries_marked_insecure`, `http::tests::redirects_never_leave_https` |
//! | tar extraction | `archive::hostile_archives_*`, `tar::tests::nasty_archives_are_refused`, `fuzz/` |
//! | CVE-2026-41567 decompressor of the image | `compress` has built-in decoders only |
//! | signatures that prove nothing | `sign::only_what_the_key_has_signed_comes_in` |
//! | CVE-2021-20291 and bombs, CVE-2026-57231, CVE-2026-53488 | here |

use crate::support::coracle::both;
use crate::support::image::{BUSYBOX, Image, Layer, digest};
use crate::support::need::need;
use crate::support::registry::{Fake, config, gzip, manifest};
use serde_json::json;
use std::io::Write;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Private memory that a pull may have, whatever is sent.
const MEMORY: &str = "--data=100663296";

/// Zeros that are compressed a thousandfold, as one member of gzip.
fn zeros(megabytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..megabytes {
        encoder.write_all(&zeros).expect("compress");
    }
    encoder.finish().expect("compress")
}

/// A header of tar, with a right sum.
fn header(kind: u8, name: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A zstd frame that asks for a window of 2 GiB (RFC 8878, 3.1.1.1.2), then one block of a repeated byte.
fn wide_window() -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    let length: u32 = 100_000;
    frame.extend_from_slice(&(length << 3 | 0b011).to_le_bytes()[..3]);
    frame.push(0);
    frame
}

both! {
    fn bombs_are_refused_with_little_memory(env: Env) {
        need!(program("prlimit"));
        let env = env.host_network();
        let fake = Fake::start();
        let good = Layer::new().file("a", 0o644, "a").tar();
        let promise = digest(&good);
        let pull = |kind: &str, blob: &[u8]| {
            let layer = fake.blob(kind, blob);
            let config = fake.blob(CONFIG, &config(std::slice::from_ref(&promise)));
            fake.manifest("app", "1", &manifest(&config, &[layer]));
            let command = env.command(["pull", "-q", "--tls-verify=false", "--retry=0", &fake.name("app:1")]);
            let limited = command.std();
            let words: Vec<_> = std::iter::once(limited.get_program()).chain(limited.get_args()).collect();
            env.other(["prlimit".as_ref(), MEMORY.as_ref(), "--".as_ref()].into_iter().chain(words)).run()
        };
        let members: Vec<u8> = gzip(b"").repeat(200_000);
        let mut tail = gzip(&good);
        tail.extend_from_slice(&members);
        let names = gzip(&[header(b'x', "pax", 0), vec![]].concat().repeat(20_000));
        for (what, kind, blob) in [
            ("zeros that are no archive", GZIP, zeros(128)),
            ("zeros behind an archive", GZIP, [gzip(&good), zeros(128)].concat()),
            ("a file of zeros", GZIP, [gzip(&header(b'0', "big", 64 << 20)), zeros(64)].concat()),
            ("members without number", GZIP, members),
            ("members behind an archive", GZIP, [tail, gzip(b"x")].concat()),
            ("headers without end", GZIP, names),
            ("a header without end", GZIP, [gzip(&header(b'x', "pax", 7 << 30)), zeros(64)].concat()),
            ("a window of 2 GiB", ZSTD, wide_window()),
        ] {
            let output = pull(kind, &blob);
            assert_eq!(output.code(), 125, "{what}: {output}");
            assert!(output.stderr().starts_with("coracle: "), "{what}: {output}");
            let layers = std::fs::read_dir(env.data().join("layers-v1")).map_or(0, |entries| entries.count());
            assert_eq!(layers, 0, "{what}: it has come in");
        }
        // What is good comes in with as little.
        let output = pull(GZIP, &gzip(&good));
        assert_eq!(output.code(), 0, "{output}");
    }

    fn an_image_has_no_say_beyond_its_container(env: Env) {
        let more = json!({"Env": ["PLAIN=yes", "SECRET_OF_THE_HOST", "*", "", "=x", "PATH=/bin"], "Labels": {
            "io.containers.autoupdate": "registry", "coracle.logger": "binary:///bin/sh", "PODMAN_SYSTEMD_UNIT": "x.service",
            "org.opencontainers.image.ref.name": "../../x", "run": "coracle run --privileged IMAGE"}});
        let env = env.variable("SECRET_OF_THE_HOST", "leaked");
        let _ = env.busybox();
        env.load(&Image::busybox().named("localhost/sly:1").config(more));
        let shown = env.coracle(["run", "--rm", "--network=none", "localhost/sly:1", "env"]).ok();
        assert!(shown.lines().any(|line| line == "PLAIN=yes"), "{shown}");
        assert!(!shown.contains("SECRET_OF_THE_HOST") && !shown.contains("leaked"), "{shown}");
        let known = ["PATH", "HOSTNAME", "HOME", "TERM", "container", "PLAIN"];
        let odd: Vec<&str> =
            shown.lines().filter(|line| !known.contains(&line.split('=').next().unwrap_or_default())).collect();
        assert!(odd.is_empty(), "variables that nobody gave: {odd:?}");
        let plain = env.coracle(["create", "--network=none", BUSYBOX, "true"]).ok();
        let sly = env.coracle(["create", "--network=none", "localhost/sly:1", "true"]).ok();
        let facts = "{{.HostConfig.LogConfig.Type}} {{.HostConfig.Privileged}} {{.HostConfig.RestartPolicy.Name}}";
        let inspect = |id: &str| env.coracle(["inspect", "--format", facts, id]).ok();
        assert_eq!(inspect(&sly), inspect(&plain));
    }
}
