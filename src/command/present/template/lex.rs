//! Characters to tokens: text between actions, and the words inside `{{ }}`.
//!
//! Space matters in two places of Go's grammar (`.A.B` is one operand, `.A .B` are two), so each token knows whether
//! space stood before it.

use anyhow::{Result, bail};
use serde_json::{Number, Value};

/// One piece of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// Text to print as it stands.
    Text(String),
    /// What stands between `{{` and `}}`.
    Action(Vec<Token>, Place),
}

/// Line and column of an action or operand, counted from one and zero as Go counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// White space stood before this token.
    pub(super) spaced: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `.` alone.
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`
    Variable(String),
    /// A keyword or a function's name.
    Word(String),
    Literal(Value),
    Pipe,
    Open,
    Close,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Cut the template into texts and actions; trim markers and comments are done with here.
pub(super) fn lex(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut position = 0;
    let mut trim_next = false;
    loop {
        let start = text[position..].find("{{").map(|offset| position + offset);
        let mut plain = &text[position..start.unwrap_or(text.len())];
        if trim_next {
            plain = plain.trim_start_matches(SPACE);
        }
        let Some(start) = start else {
            push_text(&mut pieces, plain);
            return Ok(pieces);
        };
        let inside = &text[start + 2..];
        let trims_left = inside.starts_with('-') && inside[1..].starts_with(SPACE);
        if trims_left {
            plain = plain.trim_end_matches(SPACE);
        }
        push_text(&mut pieces, plain);
        let mut action = Action { text, at: start + 2 + usize::from(trims_left), tokens: Vec::new() };
        let comment = action.comment()?;
        if !comment {
            action.tokens()?;
        }
        trim_next = action.end()?;
        position = action.at;
        if !comment {
            pieces.push(Piece::Action(action.tokens, place(text, start)));
        }
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Where a byte of the text stands.
pub(super) fn place(text: &str, at: usize) -> Place {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    Place { line, column: at - before.rfind('\n').map_or(0, |newline| newline + 1) }
}

/// The lexer inside one pair of braces.
struct Action<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl Action<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self, what: &str) -> Result<T> {
        bail!("template: format:{}: {what}", place(self.text, self.at.min(self.text.len())).line)
    }

    /// Skip a comment; true if the action is one.
    fn comment(&mut self) -> Result<bool> {
        let trimmed = self.rest().trim_start_matches(SPACE);
        if !trimmed.starts_with("/*") {
            return Ok(false);
        }
        let Some(end) = trimmed.find("*/") else { return self.wrong("unclosed comment") };
        self.at = self.text.len() - trimmed.len() + end + 2;
        Ok(true)
    }

    /// The closing braces, and whether they carry a trim marker.
    fn end(&mut self) -> Result<bool> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(SPACE);
        let trims = trimmed.len() < rest.len() && trimmed.starts_with("-}}");
        if !trims && !trimmed.starts_with("}}") {
            return self.wrong("unclosed action");
        }
        self.at = self.text.len() - trimmed.len() + if trims { 3 } else { 2 };
        Ok(trims)
    }

    fn tokens(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(SPACE);
            let spaced = trimmed.len() < rest.len();
            if trimmed.starts_with("}}") || (spaced && trimmed.starts_with("-}}")) {
                return Ok(());
            }
            self.at = self.text.len() - trimmed.len();
            let start = self.at;
            let kind = self.token()?;
            self.tokens.push(Token { kind, place: place(self.text, start), spaced });
        }
    }

    fn token(&mut self) -> Result<Kind> {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return self.wrong("unclosed action") };
        let second = rest[first.len_utf8()..].chars().next().unwrap_or(' ');
        let simple = match first {
            '|' => Some(Kind::Pipe),
            '(' => Some(Kind::Open),
            ')' => Some(Kind::Close),
            ',' => Some(Kind::Comma),
            '=' => Some(Kind::Assign),
            _ => None,
        };
        if let Some(kind) = simple {
            self.at += 1;
            return Ok(kind);
        }
        match first {
            ':' if second == '=' => {
                self.at += 2;
                Ok(Kind::Declare)
            }
            '"' | '\'' | '`' => self.quoted(first),
            '.' if second.is_alphabetic() || second == '_' => {
                self.at += 1;
                Ok(Kind::Field(self.word()))
            }
            '.' if !second.is_ascii_digit() => {
                self.at += 1;
                Ok(Kind::Dot)
            }
            '$' => {
                self.at += 1;
                Ok(Kind::Variable(self.word()))
            }
            '0'..='9' | '+' | '-' | '.' => self.number(),
            _ if first.is_alphabetic() || first == '_' => Ok(match self.word().as_str() {
                "true" => Kind::Literal(Value::Bool(true)),
                "false" => Kind::Literal(Value::Bool(false)),
                "nil" => Kind::Literal(Value::Null),
                word => Kind::Word(word.to_owned()),
            }),
            _ => self.wrong(&format!("unexpected {first:?} in command")),
        }
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        word
    }

    fn number(&mut self) -> Result<Kind> {
        let rest = self.rest();
        let end = rest[1..]
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
            .map_or(rest.len(), |offset| offset + 1);
        let written = rest[..end].to_owned();
        let digits = written.trim_start_matches('+').replace('_', "");
        let radix = |prefix: &str, radix| {
            digits.strip_prefix(prefix).and_then(|hex| i64::from_str_radix(hex, radix).ok()).map(Number::from)
        };
        let number = radix("0x", 16)
            .or_else(|| radix("0o", 8))
            .or_else(|| radix("0b", 2))
            .or_else(|| digits.parse::<i64>().ok().map(Number::from))
            .or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64));
        let Some(number) = number else { return self.wrong(&format!("bad number syntax: {written:?}")) };
        self.at += end;
        Ok(Kind::Literal(Value::Number(number)))
    }

    fn quoted(&mut self, quote: char) -> Result<Kind> {
        self.at += 1;
        let unclosed = if quote == '`' { "unterminated raw quoted string" } else { "unterminated quoted string" };
        let mut result = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((offset, character)) = characters.next() {
            if character == quote {
                self.at += offset + 1;
                return match (quote, result.chars().next()) {
                    ('\'', Some(only)) if result.chars().count() == 1 => Ok(Kind::Literal(Value::from(only as u32))),
                    ('\'', _) => self.wrong("malformed character constant"),
                    _ => Ok(Kind::Literal(Value::String(result))),
                };
            }
            match character {
                '\n' if quote != '`' => return self.wrong(unclosed),
                '\\' if quote != '`' => match escape(&mut characters) {
                    Some(escaped) => result.push(escaped),
                    None => return self.wrong("invalid syntax in quoted string"),
                },
                _ => result.push(character),
            }
        }
        self.wrong(unclosed)
    }
}

/// The character after a backslash in Go's string literals.
fn escape(characters: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, letter) = characters.next()?;
    let digits = match letter {
        'a' => return Some('\x07'),
        'b' => return Some('\x08'),
        'f' => return Some('\x0c'),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'v' => return Some('\x0b'),
        '\\' | '"' | '\'' => return Some(letter),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let text: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
    if text.len() < digits { None } else { u32::from_str_radix(&text, 16).ok().and_then(char::from_u32) }
}
