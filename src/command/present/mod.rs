//! Tables, templates, JSON and progress: the only place that writes to standard output.
//!
//! A list verb describes its columns once and hands over rows; `--format` decides here what becomes of them:
//! nothing or `table` (the default columns), `table {{…}}` (columns of the user's choice, with headings), `json`,
//! `{{range …}}` (a template over all rows), or a template for each row. A reader that goes away (EPIPE) is success.

pub mod human;
pub mod progress;
pub mod table;
pub mod template;
pub mod yaml;

use crate::failure::{self, Level};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::io::{ErrorKind, Write};
use template::Template;

/// One column of a list verb's default table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The field of a row, as templates name it.
    pub field: &'static str,
    /// The heading over it.
    pub heading: &'static str,
}

impl Column {
    /// A column; a table of them is a `const` of the verb.
    pub const fn new(field: &'static str, heading: &'static str) -> Column {
        Column { field, heading }
    }
}

/// How a list is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// What `--format` said.
    pub format: Option<&'a str>,
    /// False for `--noheading`.
    pub heading: bool,
    /// The default table.
    pub columns: &'a [Column],
    /// Headings of fields that are not in the default table and whose name does not make a good one.
    pub more_headings: &'a [Column],
}

impl List<'_> {
    /// Print the items: `row` makes the object that tables and templates read, `json` the one for `--format json`.
    /// Only what is asked for is made.
    pub fn print<T>(&self, items: &[T], row: impl Fn(&T) -> Value, json: impl Fn(&T) -> Value) -> Result<()> {
        text(&self.text(items, row, json)?)
    }

    /// What [`List::print`] prints.
    pub fn text<T>(&self, items: &[T], row: impl Fn(&T) -> Value, json: impl Fn(&T) -> Value) -> Result<String> {
        let format = self.format.unwrap_or("table").trim();
        if format == "json" {
            return pretty(&items.iter().map(json).collect::<Value>());
        }
        let rows: Vec<Value> = items.iter().map(row).collect();
        match format.strip_prefix("table") {
            Some("") => Ok(self.default_table(&rows)),
            Some(custom) if custom.starts_with([' ', '\t', '\\', '{']) => self.custom_table(custom, &rows),
            _ => each(format, rows),
        }
    }

    fn default_table(&self, rows: &[Value]) -> String {
        let mut text = String::new();
        if self.heading {
            push_line(&mut text, self.columns.iter().map(|column| column.heading.to_owned()));
        }
        for row in rows {
            let cell = |column: &Column| row.get(column.field).map(template::display).unwrap_or_default();
            // A tab or newline in a label must not become a column or a row.
            push_line(&mut text, self.columns.iter().map(|column| cell(column).replace(['\t', '\n'], " ")));
        }
        table::align(&text)
    }

    fn custom_table(&self, format: &str, rows: &[Value]) -> Result<String> {
        let template = Template::parse(format.strip_prefix("\\t").unwrap_or(format).trim_start())?;
        let mut text = String::new();
        if self.heading {
            // Podman refuses a table whose template ranges over a field; here it only goes without headings.
            if let Ok(heading) = template.render(&self.headings(&template)) {
                text.push_str(&heading);
                text.push('\n');
            }
        }
        for row in rows {
            text.push_str(&template.render(row)?);
            text.push('\n');
        }
        Ok(table::align(&text))
    }

    /// An object with, for each field the template reads, its heading.
    fn headings(&self, template: &Template) -> Value {
        let mut headings = Map::new();
        for chain in template.fields() {
            let known = self.columns.iter().chain(self.more_headings).find(|column| column.field == chain.join("."));
            put_heading(&mut headings, &chain, known.map(|column| column.heading));
        }
        Value::Object(headings)
    }
}

/// Put a heading where a template will look for it.
fn put_heading(headings: &mut Map<String, Value>, chain: &[String], known: Option<&str>) {
    match chain {
        [] => {}
        [name] => {
            let heading = known.map_or_else(|| heading_of(name), str::to_owned);
            headings.entry(name).or_insert(Value::String(heading));
        }
        [parent, rest @ ..] => {
            let entry = headings.entry(parent).or_insert(Value::Null);
            if !entry.is_object() {
                *entry = Value::Object(Map::new());
            }
            if let Value::Object(object) = entry {
                put_heading(object, rest, known);
            }
        }
    }
}

fn push_line(text: &mut String, cells: impl Iterator<Item = String>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push('\t');
        }
        text.push_str(&cell);
    }
    text.push('\n');
}

/// `MemUsage` -> `MEM USAGE`, `ImageID` -> `IMAGE ID`.
fn heading_of(field: &str) -> String {
    let letters: Vec<char> = field.chars().collect();
    let mut heading = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let starts_word = letter.is_uppercase()
            && index > 0
            && (letters[index - 1].is_lowercase() || letters.get(index + 1).is_some_and(|next| next.is_lowercase()));
        if starts_word {
            heading.push(' ');
        }
        heading.extend(letter.to_uppercase());
    }
    heading
}

/// A template over each row, or over all of them if it begins with a `range` of its own.
fn each(format: &str, rows: Vec<Value>) -> Result<String> {
    let template = Template::parse(format)?;
    let opening = format.trim_start_matches("{{-").trim_start_matches("{{").trim_start();
    if format.starts_with("{{") && opening.starts_with("range ") {
        let mut text = template.render(&Value::Array(rows))?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        return Ok(text);
    }
    let mut text = String::new();
    for row in &rows {
        text.push_str(&template.render(row)?);
        if !format.ends_with('\n') && !format.ends_with("\\n") {
            text.push('\n');
        }
    }
    Ok(text)
}

/// Documents of `inspect`: a JSON array, or the template over each.
pub fn documents(format: Option<&str>, documents: Vec<Value>) -> Result<()> {
    let text = match format.map(str::trim) {
        None | Some("json" | "") => pretty(&Value::Array(documents))?,
        Some(format) => {
            let template = Template::parse(format)?;
            let mut text = String::new();
            for document in &documents {
                text.push_str(&template.render(document)?);
                text.push('\n');
            }
            text
        }
    };
    self::text(&text)
}

/// One document (`info`, `version`): JSON, or the template.
pub fn document(format: &str, document: &Value) -> Result<()> {
    let text = match format.trim() {
        "json" => pretty(document)?,
        format => Template::parse(format)?.render(document)? + "\n",
    };
    self::text(&text)
}

/// The fields of `more` over those of `base`.
pub fn merge(base: Value, more: Value) -> Value {
    match (base, more) {
        (Value::Object(mut base), Value::Object(more)) => {
            base.extend(more);
            Value::Object(base)
        }
        (_, more) => more,
    }
}

/// JSON for people, with a newline at the end. podman indents documents by five blanks, lists by two or four; so
/// long as it is JSON nobody depends on which.
pub fn pretty(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"     ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).context("write JSON")?;
    bytes.push(b'\n');
    String::from_utf8(bytes).context("write JSON")
}

/// Whether anybody still reads standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reader {
    /// The bytes were taken.
    Reads,
    /// The pipe is closed: stop, successfully.
    Gone,
}

/// Write bytes to standard output at once.
pub fn write(bytes: &[u8]) -> Result<Reader> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error).context("write to standard output"),
    }
}

/// Write text to standard output as it is.
pub fn text(text: &str) -> Result<()> {
    write(text.as_bytes()).map(|_| ())
}

/// Tell of something that is no failure, in the form that scripts of podman's users look for.
pub fn warn(text: &str) {
    failure::note(Level::Warning, || text.to_owned());
}

/// Ask before something is removed. What cannot be answered (no terminal, end of input) is a no.
pub fn confirm(warning: &str) -> Result<bool> {
    text(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(answer.trim().to_lowercase().starts_with('y'))
}

/// Write one line to standard output.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    self::text(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] = &[Column::new("ID", "CONTAINER ID"), Column::new("Names", "NAMES")];

    fn show(format: Option<&str>, heading: bool) -> String {
        let items =
            [json!({"ID": "1a", "Names": "web", "MemUsage": 5}), json!({"ID": "2b", "Names": "db\tx", "MemUsage": 6})];
        let list = List { format, heading, columns: COLUMNS, more_headings: &[] };
        list.text(&items, Value::clone, |item| json!({"Id": item["ID"]})).unwrap()
    }

    #[test]
    fn default_table() {
        let table = "CONTAINER ID  NAMES\n1a            web\n2b            db x\n";
        assert_eq!(show(None, true), table);
        assert_eq!(show(Some("table"), true), table);
        assert_eq!(show(None, false), "1a          web\n2b          db x\n");
    }

    #[test]
    fn custom_table() {
        assert_eq!(
            show(Some("table {{.ID}}\\t{{.MemUsage}}"), true),
            "CONTAINER ID  MEM USAGE\n1a            5\n2b            6\n"
        );
        assert_eq!(show(Some("table {{.ID}} {{.MemUsage}}"), false), "1a 5\n2b 6\n");
    }

    #[test]
    fn templates_and_json() {
        assert_eq!(show(Some("{{.ID}}\\t{{.MemUsage}}"), true), "1a\t5\n2b\t6\n");
        assert_eq!(show(Some("{{range .}}{{.ID}},{{end}}"), true), "1a,2b,\n");
        assert_eq!(
            serde_json::from_str::<Value>(&show(Some("json"), true)).unwrap(),
            json!([{"Id": "1a"}, {"Id": "2b"}])
        );
        assert_eq!(show(Some("{{json .Names}}"), true), "\"web\"\n\"db\\tx\"\n");
    }

    #[test]
    fn a_list_without_rows_still_has_headings() {
        let list = List { format: Some("table {{.Names}}"), heading: true, columns: COLUMNS, more_headings: &[] };
        assert_eq!(list.text(&[] as &[Value], Value::clone, Value::clone).unwrap(), "NAMES\n");
    }

    #[test]
    fn headings_of_names() {
        for (field, heading) in [
            ("MemUsage", "MEM USAGE"),
            ("ImageID", "IMAGE ID"),
            ("CPUPerc", "CPU PERC"),
            ("PIDs", "PI DS"),
            ("ID", "ID"),
        ] {
            assert_eq!(heading_of(field), heading);
        }
    }
}
