//! Values as Go's `fmt` writes them: `%v`, `Print` and `Printf`.

use super::render::Item;
use serde_json::{Number, Value};
use std::iter::Peekable;
use std::slice::Iter;
use std::str::Chars;

/// What Go would call the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(elements) if elements.iter().all(Value::is_string) => "[]string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "object",
    }
}

/// `%v`
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => self::number(number),
        Value::String(text) => text.clone(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(object) => {
            let mut entries: Vec<String> =
                object.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// Go's `%v` of a float is `%g`: exponents below 1e-4 and from 1e21.
fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => {
            let size = value.abs();
            if size != 0.0 && !(1e-4..1e21).contains(&size) {
                exponent(format!("{value:e}"))
            } else {
                value.to_string()
            }
        }
        _ => number.to_string(),
    }
}

/// `1e-7` as Go writes it: `1e-07`.
fn exponent(text: String) -> String {
    let Some((mantissa, power)) = text.split_once('e') else { return text };
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `Print` puts a space between two operands when neither is a string; `Println` always.
pub(super) fn spaced(arguments: &[Item<'_>], always: bool) -> String {
    let mut result = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 && (always || !(argument.is_string() || arguments[index - 1].is_string())) {
            result.push(' ');
        }
        result.push_str(&plain(argument));
    }
    result
}

/// The flags, width and precision of one verb.
#[derive(Default)]
struct Directive {
    left: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `Printf`, with Go's notes in the text where verb and operand do not fit.
pub(super) fn formatted(format: &str, arguments: &[Item<'_>]) -> String {
    let mut result = String::new();
    let mut characters = format.chars().peekable();
    let mut arguments = arguments.iter();
    while let Some(character) = characters.next() {
        if character != '%' {
            result.push(character);
            continue;
        }
        let mut directive = Directive::default();
        while let Some(flag) = characters.peek() {
            match flag {
                '-' => directive.left = true,
                '+' => directive.plus = true,
                '#' => directive.sharp = true,
                ' ' => directive.space = true,
                '0' => directive.zero = true,
                _ => break,
            }
            characters.next();
        }
        directive.width = count(&mut characters, &mut arguments);
        if characters.next_if_eq(&'.').is_some() {
            directive.precision = Some(count(&mut characters, &mut arguments).unwrap_or(0));
        }
        match characters.next() {
            None => result.push_str("%!(NOVERB)"),
            Some('%') => result.push('%'),
            Some(verb) => match arguments.next() {
                None => result.push_str(&format!("%!{verb}(MISSING)")),
                Some(argument) => result.push_str(&directive.padded(verb, argument)),
            },
        }
    }
    let extra: Vec<String> = arguments.map(|value| format!("{}={}", type_name(value), plain(value))).collect();
    if !extra.is_empty() {
        result.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    result
}

/// A width or precision: digits, or `*` for an operand.
fn count(characters: &mut Peekable<Chars<'_>>, arguments: &mut Iter<'_, Item<'_>>) -> Option<usize> {
    if characters.next_if_eq(&'*').is_some() {
        return arguments.next().and_then(|value| value.as_u64()).map(|star| star.min(LIMIT) as usize);
    }
    let mut number = None;
    while let Some(digit) = characters.peek().and_then(|digit| digit.to_digit(10)) {
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(LIMIT as usize));
        characters.next();
    }
    number
}

/// No column of a million blanks is meant.
const LIMIT: u64 = 1_000_000;

impl Directive {
    fn padded(&self, verb: char, value: &Value) -> String {
        let text = self.bare(verb, value);
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        if missing == 0 {
            return text;
        }
        let blanks = " ".repeat(missing);
        if self.left {
            text + &blanks
        } else if self.zero && !text.starts_with("%!") {
            let digits = text.trim_start_matches(['-', '+']);
            format!("{}{}{digits}", &text[..text.len() - digits.len()], "0".repeat(missing))
        } else {
            blanks + &text
        }
    }

    fn bare(&self, verb: char, value: &Value) -> String {
        let wrong = || format!("%!{verb}({}={})", type_name(value), plain(value));
        match (verb, value) {
            ('v' | 's', Value::String(text)) => match self.precision {
                Some(length) => text.chars().take(length).collect(),
                None if verb == 'v' && self.sharp => quoted(text),
                None => text.clone(),
            },
            ('v', _) => self.signed(value, plain(value)),
            ('s', Value::Array(_) | Value::Object(_)) => plain(value),
            ('q', Value::String(text)) => quoted(text),
            ('q', Value::Array(elements)) => {
                format!("[{}]", elements.iter().map(|element| self.bare('q', element)).collect::<Vec<_>>().join(" "))
            }
            ('t', Value::Bool(value)) => value.to_string(),
            ('T', _) => type_name(value).to_owned(),
            ('x' | 'X', Value::String(text)) => {
                let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                if verb == 'X' { hex.to_uppercase() } else { hex }
            }
            ('d' | 'x' | 'X' | 'o' | 'b' | 'c' | 'U', Value::Number(number)) => match number.as_i64() {
                Some(whole) => self.signed(value, self.whole(verb, whole)),
                None => wrong(),
            },
            ('f' | 'F' | 'e' | 'g', Value::Number(number)) if number.is_f64() => {
                let float = number.as_f64().unwrap_or(0.0);
                let precision = self.precision;
                self.signed(
                    value,
                    match (verb, precision) {
                        ('e', _) => exponent(format!("{float:.*e}", precision.unwrap_or(6))),
                        ('g', None) => plain(value),
                        ('g', Some(digits)) => super::super::human::significant(float, digits),
                        _ => format!("{float:.*}", precision.unwrap_or(6)),
                    },
                )
            }
            _ => wrong(),
        }
    }

    fn whole(&self, verb: char, value: i64) -> String {
        let sign = if value < 0 { "-" } else { "" };
        let size = value.unsigned_abs();
        let prefix = if self.sharp { ["0x", "0X", "0", "0b"] } else { [""; 4] };
        match verb {
            'x' => format!("{sign}{}{size:x}", prefix[0]),
            'X' => format!("{sign}{}{size:X}", prefix[1]),
            'o' => format!("{sign}{}{size:o}", prefix[2]),
            'b' => format!("{sign}{}{size:b}", prefix[3]),
            'c' => u32::try_from(size).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string(),
            'U' => format!("U+{size:04X}"),
            _ => format!("{sign}{size}"),
        }
    }

    fn signed(&self, value: &Value, text: String) -> String {
        match value {
            Value::Number(_) if self.plus && !text.starts_with('-') => format!("+{text}"),
            Value::Number(_) if self.space && !text.starts_with('-') => format!(" {text}"),
            _ => text,
        }
    }
}

/// Go's `strconv.Quote`, near enough: JSON's escapes are Go's for all but control characters.
fn quoted(text: &str) -> String {
    let mut result = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            control if control.is_control() => result.push_str(&format!("\\x{:02x}", control as u32)),
            other => result.push(other),
        }
    }
    result.push('"');
    result
}
