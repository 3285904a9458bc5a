//! Expected texts in files under `tests/golden/`. `UPDATE_GOLDEN=1` writes them.

use std::path::Path;

/// Compare a text with a file under `tests/golden/`.
#[track_caller]
pub(crate) fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file in a directory")).expect("make the directory");
        std::fs::write(&path, actual).expect("write the golden");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, left, right)) = first_difference(&expected, actual) {
        panic!(
            "{name} differs in line {number}\n  expected: {left}\n  actual:   {right}\n\
             UPDATE_GOLDEN=1 writes the file; whole output:\n{actual}"
        );
    }
}

fn first_difference(expected: &str, actual: &str) -> Option<(usize, String, String)> {
    if expected == actual {
        return None;
    }
    let (mut left, mut right) = (expected.split('\n'), actual.split('\n'));
    let mut number = 1;
    loop {
        match (left.next(), right.next()) {
            (Some(left), Some(right)) if left == right => number += 1,
            (left, right) => {
                let show = |line: Option<&str>| line.map_or("(end of text)".to_owned(), |line| format!("{line:?}"));
                return Some((number, show(left), show(right)));
            }
        }
    }
}
