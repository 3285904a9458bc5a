//! Go's text/template as far as people write it after `--format`: the language of podman and docker users.
//!
//! What it is: a parser and a renderer over `serde_json::Value`, with the functions docker and podman add (`json`,
//! `join`, `split`, `upper`, …). What it is not: `define`, `template` and `block`, and no methods on values.
//! Invariant: a template that does not parse is refused before anything is printed, and a field that is not there is
//! an error in Go's words, never an empty column.

mod function;
mod lex;
mod parse;
mod print;
mod render;

use anyhow::Result;
use parse::Node;
use serde_json::Value;

/// A parsed `--format` text.
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Parse the text. `\t`, `\n` and their kin written with a backslash outside actions become control characters,
    /// as docker and podman do.
    pub fn parse(text: &str) -> Result<Template> {
        Ok(Template { nodes: parse::parse(&unescape(text))? })
    }

    /// Render over one value, which is `.` and `$`.
    pub fn render(&self, data: &Value) -> Result<String> {
        let mut output = String::new();
        render::render(&self.nodes, data, &mut output)?;
        Ok(output)
    }

    /// The field chains that are read from a `.` anywhere in the template; a heading row is made from them.
    pub fn fields(&self) -> Vec<Vec<String>> {
        let mut fields = Vec::new();
        parse::fields(&self.nodes, &mut fields);
        fields
    }
}

/// How Go prints a value with `%v`; the text of a table's cell.
pub fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        other => print::plain(other),
    }
}

/// Replace the backslash escapes that a shell's single quotes leave in place. Inside an action's quotes Go's own
/// lexer does it, where a raw tab or newline means the same.
fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let end = rest[start..].find("}}").map_or(rest.len(), |length| start + length + 2);
        replace_escapes(&rest[..start], &mut result);
        result.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    replace_escapes(rest, &mut result);
    result
}

fn replace_escapes(text: &str, result: &mut String) {
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let control = match (character, characters.peek()) {
            ('\\', Some('a')) => '\x07',
            ('\\', Some('b')) => '\x08',
            ('\\', Some('f')) => '\x0c',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('t')) => '\t',
            ('\\', Some('v')) => '\x0b',
            _ => {
                result.push(character);
                continue;
            }
        };
        characters.next();
        result.push(control);
    }
}

#[cfg(test)]
mod tests;
