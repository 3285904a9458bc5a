//! `man/` and `completions/` are what `coracle document` writes; shells load the scripts and complete with them.

use crate::support::coracle::both;
use crate::support::{Env, need};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|entry| {
        (entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path()).expect("read a document"))
    });
    files.collect()
}

#[test]
fn documents_are_what_the_binary_writes() {
    let Some(env) = Env::root().or_else(Env::user) else { return };
    env.coracle(["document", "."]).ok();
    for directory in ["man", "completions"] {
        let mut checked_in = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory));
        // Pages of other sections are written by hand.
        checked_in.retain(|name, _| directory != "man" || name.ends_with(".1"));
        let written = files(&env.path(directory));
        let names: std::collections::BTreeSet<&String> = checked_in.keys().chain(written.keys()).collect();
        let old: Vec<_> = names.into_iter().filter(|name| checked_in.get(*name) != written.get(*name)).collect();
        assert!(
            old.is_empty(),
            "run `coracle document .` in the source directory: not up to date in {directory}/: {old:?}"
        );
    }
}

#[test]
fn man_pages_are_well_formed() {
    need::need!(program("groff"));
    let Some(env) = Env::root().or_else(Env::user) else { return };
    let mut pages = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("read man/").flatten() {
        // The user may not reach the source directory.
        pages.push(env.write(entry.file_name(), fs::read(entry.path()).expect("read a page")));
    }
    let mut command = env.other(["groff", "-man", "-k", "-z", "-ww", "-Tutf8"]);
    for page in &pages {
        command = command.arg(page);
    }
    assert_eq!(command.run().ok(), "", "warnings of groff");
}

both! {
    fn bash_completes(env: Env) {
        need::need!(program("bash"));
        let script = env.write("coracle.bash", env.coracle(["completion", "bash"]).ok());
        let test = r#"
            coracle() { "$CORACLE" --root "$STORE" --runroot "$STORE/run" "$@"; }
            compopt() { :; }
            source "$SCRIPT"
            COMP_LINE=$1 COMP_POINT=${#1}
            _coracle
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let complete = |line: &str| {
            let command = env.other(["bash", "-c", test, "bash", line]).env("SCRIPT", &script).env("STORE", env.data());
            command.env("CORACLE", crate::support::coracle::binary()).run().ok()
        };
        assert_eq!(complete("coracle vers"), "version");
        assert_eq!(complete("coracle version --form"), "--format");
        assert_eq!(complete("coracle completion "), "bash\nzsh\nfish");
        let _ = env.write("some-file", "");
        assert_eq!(complete("coracle completion bash --file some-f"), "some-file");
    }
}
