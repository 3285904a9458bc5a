//! Shell patterns (`*`, `?`, `[a-z]`) and the paths that match them.

use anyhow::{Result, ensure};

/// All paths that match an absolute pattern, sorted.
pub fn expand(pattern: &str) -> Result<Vec<String>> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        ensure!(is_closed(part), "syntax error in pattern");
        let mut next = Vec::new();
        for parent in found {
            if !part.contains(['*', '?', '[', '\\']) {
                let path = format!("{parent}/{part}");
                if std::fs::symlink_metadata(&path).is_ok() {
                    next.push(path);
                }
                continue;
            }
            let directory = if parent.is_empty() { "/" } else { &parent };
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            next.extend(names.filter(|name| matches(part, name)).map(|name| format!("{parent}/{name}")));
        }
        found = next;
    }
    found.sort();
    Ok(found)
}

fn is_closed(part: &str) -> bool {
    match part.rfind('[') {
        Some(open) => part[open..].contains(']'),
        None => true,
    }
}

/// Whether a name matches a pattern as a whole. `*` does not match `/`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Where to go on when what follows the last star did not fit.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') if name[n] != '/' => Some(1),
            Some('[') if name[n] != '/' => class(&pattern[p..], name[n]),
            Some('\\') if pattern.get(p + 1) == Some(&name[n]) => Some(2),
            Some(letter) if *letter == name[n] && !"?[\\".contains(*letter) => Some(1),
            _ => None,
        };
        match (step, retry) {
            (Some(step), _) => {
                p += step;
                n += 1;
            }
            (None, Some((star, from))) if name[from] != '/' => {
                retry = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

/// The length of the class at the head of the pattern, if the letter is in it.
fn class(pattern: &[char], letter: char) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some('^' | '!'));
    let begin = if negated { 2 } else { 1 };
    let end = begin + 1 + pattern.get(begin + 1..)?.iter().position(|other| *other == ']')?;
    let mut inside = false;
    let mut index = begin;
    while index < end {
        if index + 2 < end && pattern[index + 1] == '-' {
            inside |= (pattern[index]..=pattern[index + 2]).contains(&letter);
            index += 3;
        } else {
            inside |= pattern[index] == letter;
            index += 1;
        }
    }
    (inside != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[!a]x", "bx", true),
            ("*.conf", ".conf", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("a", "", false),
            ("*", "a/b", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(expand("/pro[c]/self/stat?s").unwrap(), ["/proc/self/status"]);
        assert_eq!(expand("/nothing-here/*").unwrap(), Vec::<String>::new());
        assert!(expand("/[a").is_err());
    }
}
