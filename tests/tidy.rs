//! The rules of the house that a compiler does not know: who may import whom, where `unsafe` may stand, what each file
//! opens with.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, floor by floor from the top: a room may import what stands on a lower floor, and itself.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["command"],
    &["api"],
    &["kube", "compose", "build"],
    &["engine"],
    &["supervisor"],
    &["bundle", "image"],
    &["storage", "runtime", "network", "quadlet"],
    &["host", "state"],
    &["model", "sys", "failure"],
];

/// Arrows that go sideways on purpose: (file or room, room).
const EXCEPTIONS: &[(&str, &str)] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory, with their text, sorted by name.
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).expect("read a source file")));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no sources below {directory}");
    files
}

/// The lines that are code, numbered from one.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(at, line)| (at + 1, line))
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn room(file: &str) -> &str {
    let path = file.strip_prefix("src/").unwrap_or(file);
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The first words after each `crate::` of a text: `crate::{a, b::c}` names two rooms.
fn imports(text: &str) -> Vec<(usize, String)> {
    let text: String = text
        .lines()
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + "crate::".len()..];
        let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (offset, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        let name = word(group[start..offset].trim());
                        if !name.is_empty() {
                            found.push((line, name));
                        }
                        start = offset + 1;
                        if character == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        } else {
            found.push((line, word(rest)));
        }
    }
    found
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let from = room(&file);
        let Some(here) = floor(from) else {
            wrong.push(format!("{file}: `{from}` is not a room of the house"));
            continue;
        };
        for (line, to) in imports(&text) {
            let allowed = match floor(&to) {
                Some(there) => there > here || to == from,
                // A macro or item of main.rs, or no import at all.
                None => !to.is_empty(),
            };
            let excepted = EXCEPTIONS.iter().any(|(who, what)| (*who == file || *who == from) && *what == to);
            if !allowed && !excepted {
                wrong.push(format!("{file}:{line}: `{from}` imports `{to}`"));
            }
        }
    }
    none("imports that do not point down", wrong);
}

#[test]
fn model_and_sys_import_nothing_and_runtime_little() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        for (line, to) in imports(&text) {
            if matches!(room(&file), "model" | "sys") && to != room(&file) {
                wrong.push(format!("{file}:{line}: imports `{to}`"));
            }
        }
        if room(&file) == "runtime" {
            for (number, line) in code(&text) {
                if line.contains("crate::model::") && !line.contains("crate::model::resource") {
                    wrong.push(format!("{file}:{number}: {}", line.trim()));
                }
            }
        }
    }
    none("imports that must not be", wrong);
}

#[test]
fn imports_are_found() {
    let text = "use crate::a::B;\nuse crate::{b, c::{d, e}, f};\n// crate::no\nlet x = crate::g::h($crate::i);";
    let names: Vec<String> = imports(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "b", "c", "f", "g"]);
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let path = file.strip_prefix("src/").unwrap_or(&file);
        let is_room = !path.contains('/') || path.ends_with("/mod.rs") && path.matches('/').count() == 1;
        if room(&file) != "sys" && path != "main.rs" && is_room && !text.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{file}: no #![forbid(unsafe_code)]"));
        }
    }
    let words = ["unsafe {", "unsafe fn", "unsafe impl"];
    let main = fs::read_to_string(root().join("src/main.rs")).expect("read main.rs");
    if words.iter().any(|word| code(&main).any(|(_, line)| line.contains(word))) {
        wrong.push("src/main.rs: unsafe".to_owned());
    }
    none("unsafe code outside sys/", wrong);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    let opening = format!("{} {{", "unsafe");
    for (file, text) in sources("src/sys").into_iter().chain(sources("tests")) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in code(&text) {
            if !line.contains(&opening) || line.contains("\"unsafe") {
                continue;
            }
            // The argument stands in the comment above the statement.
            let above = lines[..number - 1].iter().rev().take(12);
            if !line.contains("SAFETY:") && !above.clone().any(|line| line.contains("SAFETY:")) {
                wrong.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    none("unsafe without `// SAFETY:`", wrong);
}

#[test]
fn files_say_what_they_are() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let wrong = all.filter(|(_, text)| !text.starts_with("//!")).map(|(file, _)| file).collect();
    none("files that do not open with `//!`", wrong);
}

#[test]
fn nothing_is_left_to_do() {
    let macros = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let words = [format!("{}{}", "TO", "DO"), format!("{}{}", "FIX", "ME"), format!("{}{}", "X", "XX:")];
    let mut wrong = Vec::new();
    for (file, text) in sources("src").into_iter().chain(sources("tests")) {
        for (number, line) in text.lines().enumerate() {
            if macros.iter().chain(&words).any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("unfinished work", wrong);
}

#[test]
fn nobody_sleeps_without_a_deadline() {
    // Where the kernel or a registry tells of no event, a loop may ask again, but it must know when to give up.
    let bounds = ["elapsed()", "deadline", "retries", "interval", "gets it alone"];
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let code_ends = text.find("#[cfg(test)]").unwrap_or(text.len());
        let lines: Vec<&str> = text[..code_ends].lines().collect();
        for (number, line) in code(&text[..code_ends]) {
            let mut around = lines[number.saturating_sub(30)..(number + 5).min(lines.len())].iter();
            if line.contains("thread::sleep") && !around.any(|line| bounds.iter().any(|bound| line.contains(bound))) {
                wrong.push(format!("{file}:{number}"));
            }
        }
    }
    none("`thread::sleep` in a loop without a bound: wait for the event instead", wrong);
}

#[test]
fn only_present_writes_to_standard_output() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let code_ends = text.find("#[cfg(test)]").unwrap_or(text.len());
        for (number, line) in code(&text[..code_ends]) {
            let prints = line.contains("println!(") && !line.contains("eprintln!(");
            let prints = prints || (line.contains("print!(") && !line.contains("eprint!(") && !line.contains("sprint"));
            if prints && !file.starts_with("src/command/present") {
                wrong.push(format!("{file}:{number}"));
            }
        }
    }
    none("standard output outside command/present", wrong);
}

#[test]
fn every_test_file_is_declared() {
    let mut wrong = Vec::new();
    for (file, _) in sources("tests") {
        let path = Path::new(&file);
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let parent = path.parent().expect("a directory");
        let (owner, name) = match stem.as_str() {
            "main" if parent == Path::new("tests") => continue,
            "mod" => (
                parent.parent().expect("a directory"),
                parent.file_name().expect("a name").to_string_lossy().into_owned(),
            ),
            _ => (parent, stem),
        };
        let owners = [owner.join("mod.rs"), owner.join("main.rs"), owner.with_extension("rs")];
        let declared = owners.iter().any(|owner| {
            let text = fs::read_to_string(root().join(owner)).unwrap_or_default();
            text.lines().any(|line| {
                let line = line.trim_end_matches(';').trim();
                line.strip_suffix(&name).is_some_and(|before| before.ends_with("mod "))
            })
        });
        if !declared && !file.starts_with("tests/bench/") && !file.starts_with("tests/fuzz/") {
            wrong.push(file);
        }
    }
    none("test files that no `mod` line names", wrong);
}

#[test]
fn no_path_of_anybodys_workplace() {
    let banned = [format!("/{}/", "work"), format!("/{}/main", "work"), format!("/{}/.cargo", "root")];
    let mut wrong = Vec::new();
    for (file, text) in sources("src").into_iter().chain(sources("tests")) {
        for (number, line) in text.lines().enumerate() {
            // At the beginning of a word: overlayfs has a directory of such a name below others.
            if banned.iter().any(|path| line.contains(&format!("\"{path}")) || line.contains(&format!(" {path}"))) {
                wrong.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("paths of a workplace", wrong);
}
