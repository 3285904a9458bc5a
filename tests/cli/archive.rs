//! Hostile archives: a corpus of tars that try to write outside, to fill the disk, to lie about themselves. Each is imported
//! as an image; what is refused leaves nothing behind, what is taken stays inside.

use crate::support::Image;
use crate::support::coracle::both;
use serde_json::json;

/// A raw tar header, so that it can say anything.
struct Header {
    bytes: [u8; 512],
}

impl Header {
    fn new(name: &[u8], kind: u8) -> Header {
        let mut bytes = [0; 512];
        bytes[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        bytes[100..108].copy_from_slice(b"0000755\0");
        bytes[108..116].copy_from_slice(b"0000000\0");
        bytes[116..124].copy_from_slice(b"0000000\0");
        bytes[124..136].copy_from_slice(b"00000000000\0");
        bytes[136..148].copy_from_slice(b"14524770400\0");
        bytes[156] = kind;
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        Header { bytes }
    }

    fn size(mut self, size: &[u8]) -> Header {
        self.bytes[124..124 + size.len()].copy_from_slice(size);
        self
    }

    fn link(mut self, target: &[u8]) -> Header {
        self.bytes[157..157 + target.len()].copy_from_slice(target);
        self
    }

    fn device(mut self, major: &[u8], minor: &[u8]) -> Header {
        self.bytes[329..329 + major.len()].copy_from_slice(major);
        self.bytes[337..337 + minor.len()].copy_from_slice(minor);
        self
    }

    fn sealed(mut self) -> [u8; 512] {
        self.bytes[148..156].fill(b' ');
        let sum: u32 = self.bytes.iter().map(|byte| u32::from(*byte)).sum();
        self.bytes[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        self.bytes[154] = 0;
        self.bytes
    }
}

fn entry(header: Header, content: &[u8]) -> Vec<u8> {
    let mut bytes = header.size(format!("{:011o}", content.len()).as_bytes()).sealed().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(Header::new(name.as_bytes(), b'0'), content)
}

fn directory(name: &str) -> Vec<u8> {
    Header::new(name.as_bytes(), b'5').sealed().to_vec()
}

fn link(kind: u8, name: &str, target: &str) -> Vec<u8> {
    Header::new(name.as_bytes(), kind).link(target.as_bytes()).sealed().to_vec()
}

fn pax(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in pairs {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap_or(rest);
        text.push_str(&format!("{length} {key}={value}\n"));
    }
    entry(Header::new(b"pax", b'x'), text.as_bytes())
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Archives that must be refused, with a part of the message.
fn refused(outside: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let long = "x".repeat(9000);
    vec![
        ("parent", archive(&[file("../evil", b"x")]), "leads out"),
        ("parent in the middle", archive(&[file("a/../../evil", b"x")]), "leads out"),
        ("parent by pax", archive(&[pax(&[("path", "../../evil")]), file("a", b"x")]), "leads out"),
        ("hard link to outside", archive(&[link(b'1', "a", "../../../etc/passwd")]), "leads out"),
        ("hard link to an absolute path", archive(&[link(b'1', "a", outside)]), "hard link to"),
        (
            "hard link through a link",
            archive(&[link(b'2', "l", "/"), link(b'1', "a", &format!("l{outside}"))]),
            "hard link to",
        ),
        ("hard link to a whiteout", archive(&[file(".wh.x", b""), link(b'1', "a", "x")]), "whiteout"),
        ("whiteout of nothing", archive(&[file("a/.wh.", b"")]), "whiteout"),
        ("whiteout of the parent", archive(&[file("a/.wh...", b"")]), "whiteout"),
        (
            "device 0:0",
            archive(&[Header::new(b"a", b'3').device(b"0000000\0", b"0000000\0").sealed().to_vec()]),
            "device 0:0",
        ),
        ("unknown type", archive(&[Header::new(b"a", b'Z').sealed().to_vec()]), "unknown type"),
        ("cut off", file("a", &[b'x'; 2000])[..1000].to_vec(), "cut off"),
        ("cut off in a header", file("a", b"")[..200].to_vec(), "cut off"),
        (
            "more than there is room for",
            Header::new(b"a", b'0').size(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").sealed().to_vec(),
            "",
        ),
        ("negative size", Header::new(b"a", b'0').size(&[0xff; 12]).sealed().to_vec(), "size"),
        ("huge extended header", Header::new(b"a", b'x').size(b"77777777777\0").sealed().to_vec(), "extended header"),
        ("pax without an entry", archive(&[pax(&[("path", "a")])]), "extended header"),
        (
            "pax with a wrong length",
            archive(&[entry(Header::new(b"p", b'x'), b"999 path=a\n"), file("a", b"")]),
            "extended header",
        ),
        ("endless name", archive(&[pax(&[("path", &long)]), file("a", b"")]), "bytes"),
        (
            "a directory with content",
            archive(&[Header::new(b"d", b'5').size(b"00000000010\0").sealed().to_vec()]),
            "directory with content",
        ),
        (
            "a sparse map that lies",
            archive(&[pax(&[("GNU.sparse.map", "0,5,3,9"), ("GNU.sparse.size", "4")]), file("a", b"x")]),
            "sparse",
        ),
        ("a file below a file", archive(&[file("a", b"x"), file("a/b", b"y")]), "directory is needed"),
        ("no tar at all", vec![b'#'; 4096], "no tar"),
        ("owner out of range", archive(&[pax(&[("uid", "99999999999")]), file("a", b"")]), "owner"),
    ]
}

/// Archives that are taken, and what must then be inside.
fn taken(outside: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("absolute name", archive(&[file("/etc/inside", b"x")]), "/etc/inside"),
        (
            "through an absolute link",
            archive(&[link(b'2', "l", outside), directory(&outside[1..]), file("l/inside", b"x")]),
            "/l",
        ),
        (
            "through a relative link",
            archive(&[directory("d/"), link(b'2', "l", "../../../../d"), file("l/inside", b"x")]),
            "/d/inside",
        ),
        ("the same name twice", archive(&[file("a", b"one"), file("a", b"two")]), "/a"),
        ("a link, then a file of its name", archive(&[link(b'2', "a", outside), file("a", b"x")]), "/a"),
        ("a directory, then a link", archive(&[directory("a/"), file("a/b", b"x"), link(b'2', "a", "/")]), "/a"),
        (
            "attributes of overlayfs",
            archive(&[
                pax(&[("SCHILY.xattr.trusted.overlay.redirect", "/etc"), ("SCHILY.xattr.user.overlay.opaque", "y")]),
                directory("d/"),
            ]),
            "/d",
        ),
        ("aufs's books", archive(&[file(".wh..wh.plnk", b""), file("a", b"x")]), "/a"),
        ("nothing", archive(&[]), ""),
    ]
}

both! {
    fn hostile_archives_are_refused_and_leave_nothing(env: Env) {
        let canary = env.write("canary", "untouched");
        for (what, bytes, message) in refused(&canary.to_string_lossy()) {
            let archive = env.write("hostile.tar", &bytes);
            let output = env.command(["import"]).arg(&archive).arg("hostile").run();
            assert_eq!(output.code(), 125, "{what}: {}", output.stderr());
            let said = output.stderr();
            assert!(said.contains(message), "{what}: {said}");
            assert_eq!(env.coracle(["images", "-qa"]).ok(), "", "{what}");
            for directory in ["tmp", "layers-v1", "blobs/sha256", "images", "tags"] {
                let left = std::fs::read_dir(env.data().join(directory)).map_or(0, |entries| entries.count());
                assert_eq!(left, 0, "{what}: something is left in {directory}");
            }
        }
        assert_eq!(std::fs::read_to_string(&canary).expect("read the canary"), "untouched");
        assert!(!env.path("evil").exists() && !env.data().join("evil").exists());
    }

    fn hostile_archives_that_are_taken_stay_inside(env: Env) {
        let outside = env.directory("outside");
        for (what, bytes, inside) in taken(&outside.to_string_lossy()) {
            let archive = env.write("hostile.tar", &bytes);
            let output = env.command(["import"]).arg(&archive).arg("hostile").run();
            output.succeeded();
            let id = env.coracle(["create", "--network", "none", "hostile", "x"]).ok();
            let names = env.command(["export", "-o", "exported.tar"]).arg(&id).run();
            names.ok();
            let listing = std::process::Command::new("tar").arg("tf").arg(env.path("exported.tar")).output().expect("run tar");
            let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
            assert!(listing.lines().any(|line| line.trim_end_matches('/').ends_with(&inside[inside.len().min(1)..])), "{what}: {listing}");
            assert_eq!(std::fs::read_dir(&outside).expect("read a directory").count(), 0, "{what}");
            env.coracle(["rm", &id]).ok();
            env.coracle(["rmi", "hostile"]).ok();
        }
    }

    fn archives_that_lie_about_digests_are_refused(env: Env) {
        let good = Image::new("localhost/liar:1").layer(crate::support::image::Layer::new().file("a", 0o644, "a"));
        let files = good.oci_files();
        // A byte of each blob in turn is another.
        for (index, (name, bytes)) in files.iter().enumerate().filter(|(_, (name, _))| name.starts_with("blobs/")) {
            let directory = env.directory(format!("oci-{index}"));
            good.oci_directory(&directory);
            let mut changed = bytes.clone();
            let last = changed.len() - 2;
            changed[last] ^= 1;
            std::fs::write(directory.join(name), changed).expect("write a blob");
            let output = env.command(["load", "-i"]).arg(&directory).run();
            let _ = output.fails(125);
            assert_eq!(env.coracle(["images", "-qa"]).ok(), "", "{name}");
            assert_eq!(std::fs::read_dir(env.data().join("layers-v1")).map_or(0, |entries| entries.count()), 0, "{name}");
        }
        // The config of a docker-archive promises another layer.
        let other = Image::new("localhost/liar:2").layer(crate::support::image::Layer::new().file("b", 0o644, "b"));
        let config = String::from_utf8(good.document()).expect("JSON");
        let layer = other.rootfs_tar();
        let manifest = json!([{"Config": "c.json", "RepoTags": ["liar:1"], "Layers": ["l.tar"]}]).to_string();
        let bytes = archive(&[file("manifest.json", manifest.as_bytes()), file("c.json", config.as_bytes()), file("l.tar", layer)]);
        let path = env.write("liar.tar", bytes);
        let said = env.command(["load", "-i"]).arg(&path).run().fails(125);
        assert!(said.contains("diff id"), "{said}");
        // Names with path parts in the place of digests.
        for digest in ["sha256:../../../../etc/passwd", "sha256:00", "../x"] {
            let config = json!({"rootfs": {"type": "layers", "diff_ids": [digest]}}).to_string();
            let bytes = archive(&[file("manifest.json", manifest.as_bytes()), file("c.json", config.as_bytes()), file("l.tar", layer)]);
            let path = env.write("liar.tar", bytes);
            let _ = env.command(["load", "-i"]).arg(&path).run().fails(125);
        }
    }

    fn a_damaged_file_is_found_and_named(env: Env) {
        let image = Image::new("localhost/check:1").layer(crate::support::image::Layer::new().file("etc/file", 0o644, "good"));
        env.load(&image);
        assert_eq!(env.coracle(["system", "check"]).ok(), "");
        let layer = std::fs::read_dir(env.data().join("layers-v1")).expect("read layers").flatten().next().expect("a layer");
        std::fs::write(layer.path().join("diff/etc/file"), "evil").expect("alter a file");
        let output = env.coracle(["system", "check"]);
        assert!(output.stdout().contains("/etc/file: its content was altered"), "{}", output.stdout());
        assert_eq!(output.code(), 125);
        // What cannot be fetched again is not made worse.
        let _ = env.coracle(["system", "check", "--repair"]).code();
        assert!(layer.path().join("diff/etc/file").exists());
    }

    fn a_load_cut_off_anywhere_is_as_if_it_never_was_or_whole(env: Env) {
        let image = Image::new("localhost/walk:1").layer(crate::support::image::Layer::new().file("a", 0o644, "a"));
        let archive = env.write("walk.tar", image.docker_archive());
        for kind in ["kill", "EIO", "ENOSPC"] {
            for point in 1.. {
                assert!(point < 200, "the walk does not end");
                let fault = format!("{kind}@{point}");
                let output = env.command(["load", "-q", "-i"]).arg(&archive).env("CORACLE_FAULT", &fault).run();
                let whole = output.code() == 0;
                env.coracle(["images", "-a"]).ok();
                assert_eq!(env.coracle(["system", "check"]).ok(), "", "{fault}");
                // Once more: it goes on as if nothing had been.
                env.command(["load", "-q", "-i"]).arg(&archive).run().ok();
                let output = env.command(["rmi", "walk:1"]).env("CORACLE_FAULT", &fault).run();
                let removed = output.code() == 0;
                assert_eq!(env.coracle(["system", "check"]).ok(), "", "{fault}");
                let _ = env.coracle(["rmi", "-f", "walk:1"]).code();
                env.coracle(["system", "prune", "-af"]).ok();
                for directory in ["layers-v1", "blobs/sha256", "images", "tags", "tmp"] {
                    let left = std::fs::read_dir(env.data().join(directory)).map_or(0, |entries| entries.count());
                    assert_eq!(left, 0, "{fault}: something is left in {directory}");
                }
                if whole && removed {
                    break;
                }
            }
        }
    }
}
