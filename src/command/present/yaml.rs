//! A JSON value as YAML, as people read it: maps and lists in block style, text quoted only where it must be.

use serde_json::Value;
use std::fmt::Write;

/// The document, with a newline at its end.
pub fn text(value: &Value) -> String {
    let mut output = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut output),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut output),
        _ => {
            output.push_str(&scalar(value));
            output.push('\n');
        }
    }
    output
}

/// The lines of a map or list that is not empty.
fn block(value: &Value, depth: usize, output: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let _ = write!(output, "{indent}{}:", key(name));
                below(value, depth, output);
            }
        }
        Value::Array(list) => {
            for value in list {
                let _ = write!(output, "{indent}-");
                match value {
                    // A map begins on the line of its dash.
                    Value::Object(fields) if !fields.is_empty() => {
                        let mut lines = String::new();
                        block(value, depth + 1, &mut lines);
                        let _ = write!(output, " {}", lines.trim_start());
                    }
                    value => below(value, depth, output),
                }
            }
        }
        _ => {}
    }
}

/// What stands behind a name or dash.
fn below(value: &Value, depth: usize, output: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            output.push('\n');
            block(value, depth + 1, output);
        }
        Value::Array(list) if !list.is_empty() => {
            output.push('\n');
            block(value, depth, output);
        }
        value => {
            let _ = writeln!(output, " {}", scalar(value));
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

fn key(name: &str) -> String {
    string(name)
}

/// Text that would be read as something else is quoted.
fn string(text: &str) -> String {
    let first = text.chars().next();
    let looks_special = matches!(
        text.to_ascii_lowercase().as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    ) || text.parse::<f64>().is_ok()
        || first.is_some_and(|first| "-?:,[]{}#&*!|>'\"%@` ".contains(first))
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with([':', ' '])
        || text.contains(|letter: char| letter.is_control());
    if looks_special { serde_json::to_string(text).unwrap_or_default() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents() {
        let value = json!({
            "a": { "b": 1, "c": [], "d": {} },
            "e": ["x", { "f": true, "g": [1, 2] }],
            "h": "5.0",
            "i": "plain text",
            "j": null,
            "k": "a: b",
            "l": "",
        });
        assert_eq!(
            text(&value),
            "a:\n  b: 1\n  c: []\n  d: {}\ne:\n- x\n- f: true\n  g:\n  - 1\n  - 2\nh: \"5.0\"\ni: plain text\nj: null\nk: \"a: b\"\nl: \"\"\n"
        );
    }
}
