//! Tests of [`super`].

use super::*;

fn around() -> Surroundings {
    Surroundings { directory: "/here".into(), ..Surroundings::default() }
}

fn volume_json(word: &str) -> Result<String> {
    Ok(serde_json::to_string(&volume(word, &around())?.source)?)
}

#[test]
fn volumes() {
    for (word, expected) in [
        ("/a:/b", r#"{"bind":{"path":"/a","create":false,"recursive":true}}"#),
        ("./a/../c:/b:ro", r#"{"bind":{"path":"/here/c","create":false,"recursive":true}}"#),
        ("..:/b", r#"{"bind":{"path":"/","create":false,"recursive":true}}"#),
        ("data:/b", r#"{"volume":{"name":"data","anonymous":false,"subpath":null}}"#),
        ("/b", r#"{"volume":{"name":null,"anonymous":true,"subpath":null}}"#),
        ("/a:/b:bind", r#"{"bind":{"path":"/a","create":false,"recursive":false}}"#),
    ] {
        assert_eq!(volume_json(word).unwrap(), expected, "{word}");
    }
    for word in ["", ":/b", "/a:b", "/a:/b:ro:x", "a/b:/c", "/a:/b:foo", "/a:/", "a:/b:ro,rw"] {
        assert!(volume_json(word).is_err(), "{word}");
    }
    assert_eq!(volume("/a:/b/../c/", &around()).unwrap().target, "/c");
}

fn mounts(word: &str) -> Result<String> {
    Ok(serde_json::to_string(&mount(word, &around())?.remove(0).source)?)
}

#[test]
fn mount_words() {
    for (word, expected) in [
        ("type=bind,src=x,dst=/b", r#"{"bind":{"path":"/here/x","create":false,"recursive":true}}"#),
        ("type=bind,dst=/b,bind-nonrecursive", r#"{"bind":{"path":"/b","create":false,"recursive":false}}"#),
        ("dst=/b", r#"{"volume":{"name":null,"anonymous":true,"subpath":null}}"#),
        (
            "type=volume,source=v,target=/b,subpath=/x/../y",
            r#"{"volume":{"name":"v","anonymous":false,"subpath":"y"}}"#,
        ),
        (
            "type=tmpfs,destination=/b,tmpfs-size=1m,tmpfs-mode=1777",
            r#"{"tmpfs":{"size":1048576,"mode":1023,"copy_up":true}}"#,
        ),
        ("type=tmpfs,dst=/b,notmpcopyup", r#"{"tmpfs":{"size":null,"mode":null,"copy_up":false}}"#),
        ("type=ramfs,dst=/b", r#""ramfs""#),
        ("type=devpts,dst=/b,gid=5,mode=620", r#"{"devpts":{"uid":null,"gid":5,"mode":400,"max":null}}"#),
        ("type=image,src=i:1,dst=/b,subpath=/x", r#"{"image":{"reference":"i:1","subpath":"x"}}"#),
        ("\"type=bind\",\"src=/a,b\",dst=/b", r#"{"bind":{"path":"/a,b","create":false,"recursive":true}}"#),
    ] {
        assert_eq!(mounts(word).unwrap(), expected, "{word}");
    }
    for word in [
        "",
        "type=foo,dst=/b",
        "type=bind",
        "type=bind,src=/a,dst=b",
        "type=bind,src=,dst=/b",
        "type=bind,src=/a,src=/b,dst=/b",
        "type=bind,src=/a,dst=/b,tmpfs-size=1",
        "type=tmpfs,src=/a,dst=/b",
        "type=bind,src=/a,dst=/b,ro,rw",
        "type=bind,src=/a,dst=/b,bind-propagation=x",
        "type=bind,src=/a,dst=/b,relabel=x",
        "type=bind,src=/a,dst=/b,U=maybe",
        "type=volume,src=v,dst=/b,subpath=../x",
        "type=volume,src=v,dst=/b,volume-opt=o=bind",
        "type=image,dst=/b",
        "type=artifact,src=a,dst=/b",
        "type=bind,src=/a,dst=/b,ro=maybe",
    ] {
        assert!(mounts(word).is_err(), "{word}");
    }
}

#[test]
fn mount_access() {
    let read_only = |word: &str| mount(word, &around()).unwrap()[0].options.read_only;
    for (options, expected) in [
        ("ro", true),
        ("readonly", true),
        ("ro=true", true),
        ("ro=false", false),
        ("rw", false),
        ("rw=false", true),
        ("readonly=1", true),
    ] {
        assert_eq!(read_only(&format!("type=bind,src=/a,dst=/b,{options}")), expected, "{options}");
    }
    assert!(read_only("type=image,src=i,dst=/b"));
    assert!(!read_only("type=image,src=i,dst=/b,rw=true"));
}

#[test]
fn tmpfs_words() {
    let mount = tmpfs("/t:rw,size=64m,mode=755,noexec,uid=5").unwrap();
    assert_eq!(mount.source, MountSource::Tmpfs { size: Some(ByteSize(64 << 20)), mode: Some(0o755), copy_up: true });
    assert_eq!((mount.options.noexec, mount.options.data), (Some(true), vec!["uid=5".to_owned()]));
    for word in ["", "t", "/t:foo", "/t:size=x", "/t:mode=9"] {
        assert!(tmpfs(word).is_err(), "{word}");
    }
}

#[test]
fn devices() {
    let text = |word: &str| device(word).map(|device| format!("{} {} {}", device.source, device.target, device.access));
    for (word, expected) in [
        ("/dev/a", "/dev/a /dev/a rwm"),
        ("/dev/a:/dev/b", "/dev/a /dev/b rwm"),
        ("/dev/a:r", "/dev/a /dev/a r"),
        ("/dev/a:/dev/b:rm", "/dev/a /dev/b rm"),
    ] {
        assert_eq!(text(word).unwrap(), expected, "{word}");
    }
    for word in ["", "/dev/a:x", "/dev/a:/dev/b:rr", "/dev/a:/dev/b:", "a:b:c:d", "vendor.com/class=name"] {
        assert!(text(word).is_err(), "{word}");
    }
}

#[test]
fn one_mount_a_target() {
    let mut list = Vec::new();
    add(&mut list, volume("/a:/b", &around()).unwrap()).unwrap();
    add(&mut list, volume("/a:/b", &around()).unwrap()).unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(add(&mut list, tmpfs("/b").unwrap()).unwrap_err().to_string(), "/b: duplicate mount destination");
}
