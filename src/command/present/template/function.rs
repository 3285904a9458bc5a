//! The functions of a template: Go's own, and what docker and podman add.

use super::print;
use super::render::{Item, truth};
use anyhow::{Result, bail};
use serde_json::Value;
use std::cmp::Ordering;

const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad", "print",
    "printf", "println", "slice", "split", "title", "truncate", "upper",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn call(name: &str, arguments: &[Item<'_>]) -> Result<Value> {
    match name {
        "and" | "or" => bail!("wrong number of args for {name}: want at least 1 got 0"),
        "not" => one(name, arguments).map(|value| Value::Bool(!truth(value))),
        "eq" => equal(arguments),
        "ne" => two(name, arguments).and_then(|(left, right)| Ok(Value::Bool(!same(left, right)?))),
        "lt" => two(name, arguments).and_then(|pair| compare(pair, |order| order == Ordering::Less)),
        "le" => two(name, arguments).and_then(|pair| compare(pair, |order| order != Ordering::Greater)),
        "gt" => two(name, arguments).and_then(|pair| compare(pair, |order| order == Ordering::Greater)),
        "ge" => two(name, arguments).and_then(|pair| compare(pair, |order| order != Ordering::Less)),
        "len" => length(one(name, arguments)?),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "json" => Ok(Value::String(serde_json::to_string(one(name, arguments)?)?)),
        "print" => Ok(Value::String(print::spaced(arguments, false))),
        "println" => Ok(Value::String(print::spaced(arguments, true) + "\n")),
        "printf" => {
            let Some((format, rest)) = arguments.split_first() else {
                bail!("wrong number of args for printf: want at least 1 got 0")
            };
            Ok(Value::String(print::formatted(text(format)?, rest)))
        }
        "join" => join(two(name, arguments)?),
        "split" => {
            let (source, separator) = two(name, arguments)?;
            let (source, separator) = (text(source)?, text(separator)?);
            Ok(if separator.is_empty() {
                source.chars().map(|character| Value::from(character.to_string())).collect()
            } else {
                source.split(separator).map(Value::from).collect()
            })
        }
        "upper" => Ok(Value::String(text(one(name, arguments)?)?.to_uppercase())),
        "lower" => Ok(Value::String(text(one(name, arguments)?)?.to_lowercase())),
        "title" => Ok(Value::String(title(text(one(name, arguments)?)?))),
        "truncate" => {
            let (source, length) = two(name, arguments)?;
            Ok(Value::String(text(source)?.chars().take(integer(length)?).collect()))
        }
        "pad" => {
            let [source, prefix, suffix] = arguments else {
                bail!("wrong number of args for pad: want 3 got {}", arguments.len())
            };
            let source = text(source)?;
            // docker pads nothing around nothing.
            if source.is_empty() {
                return Ok(Value::from(""));
            }
            Ok(Value::String(format!("{}{source}{}", " ".repeat(integer(prefix)?), " ".repeat(integer(suffix)?))))
        }
        _ => bail!("function {name:?} not defined"),
    }
}

fn one<'v>(name: &str, arguments: &'v [Item<'_>]) -> Result<&'v Value> {
    match arguments {
        [value] => Ok(value),
        _ => bail!("wrong number of args for {name}: want 1 got {}", arguments.len()),
    }
}

fn two<'v>(name: &str, arguments: &'v [Item<'_>]) -> Result<(&'v Value, &'v Value)> {
    match arguments {
        [left, right] => Ok((left, right)),
        _ => bail!("wrong number of args for {name}: want 2 got {}", arguments.len()),
    }
}

fn text(value: &Value) -> Result<&str> {
    value
        .as_str()
        .ok_or_else(|| anyhow::anyhow!("wrong type for value; expected string; got {}", print::type_name(value)))
}

/// A count of characters; the limit keeps `pad` from eating the memory.
fn integer(value: &Value) -> Result<usize> {
    match value.as_u64() {
        Some(number) if number <= 1 << 20 => Ok(number as usize),
        _ => bail!("wrong type for value; expected a small positive int; got {}", print::plain(value)),
    }
}

fn equal(arguments: &[Item<'_>]) -> Result<Value> {
    let Some((first, rest)) = arguments.split_first() else {
        bail!("wrong number of args for eq: want at least 1 got 0")
    };
    if rest.is_empty() {
        bail!("missing argument for comparison");
    }
    for other in rest {
        if same(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn same(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            bail!(
                "non-comparable type {}",
                print::type_name(if left.is_array() || left.is_object() { left } else { right })
            )
        }
        (Value::Null, _) | (_, Value::Null) => Ok(left == right),
        (Value::Number(left), Value::Number(right)) => Ok(left == right || left.as_f64() == right.as_f64()),
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(left == right),
        _ => bail!("incompatible types for comparison"),
    }
}

fn compare((left, right): (&Value, &Value), accept: fn(Ordering) -> bool) -> Result<Value> {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64().partial_cmp(&right.as_f64()),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(_), Value::Bool(_)) => bail!("invalid type for comparison"),
        _ => bail!("incompatible types for comparison"),
    };
    Ok(Value::Bool(order.is_some_and(accept)))
}

fn length(value: &Value) -> Result<Value> {
    match value {
        Value::String(text) => Ok(Value::from(text.len())),
        Value::Array(elements) => Ok(Value::from(elements.len())),
        Value::Object(entries) => Ok(Value::from(entries.len())),
        Value::Null => bail!("len of nil pointer"),
        _ => bail!("len of type {}", print::type_name(value)),
    }
}

fn index(arguments: &[Item<'_>]) -> Result<Value> {
    let Some((first, keys)) = arguments.split_first() else {
        bail!("wrong number of args for index: want at least 1 got 0")
    };
    let mut value: &Value = first;
    for key in keys {
        value = match (value, &**key) {
            (Value::Array(elements), Value::Number(number)) => {
                match number.as_u64().map(|at| elements.get(at as usize)) {
                    Some(Some(element)) => element,
                    _ => bail!("index out of range: {number}"),
                }
            }
            (Value::Object(object), Value::String(key)) => object.get(key).unwrap_or(&Value::Null),
            // A nil map has no keys.
            (Value::Null, Value::String(_)) => &Value::Null,
            (Value::Null, _) => bail!("index of nil pointer"),
            (Value::String(text), Value::Number(number)) => {
                let byte = number.as_u64().and_then(|at| text.as_bytes().get(at as usize).copied());
                return byte.map(Value::from).ok_or_else(|| anyhow::anyhow!("index out of range: {number}"));
            }
            (Value::Array(_), key) => bail!("cannot index slice/array with type {}", print::type_name(key)),
            (Value::Object(_), key) => bail!("value has type {}; should be string", print::type_name(key)),
            (other, _) => bail!("can't index item of type {}", print::type_name(other)),
        };
    }
    Ok(value.clone())
}

fn slice(arguments: &[Item<'_>]) -> Result<Value> {
    let Some((first, bounds)) = arguments.split_first() else {
        bail!("wrong number of args for slice: want at least 1 got 0")
    };
    let length = match &**first {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.len(),
        other => bail!("can't slice item of type {}", print::type_name(other)),
    };
    let mut range = [0, length];
    for (place, bound) in range.iter_mut().zip(bounds) {
        *place = match bound.as_u64() {
            Some(bound) if bound as usize <= length => bound as usize,
            _ => bail!("index out of range: {}", print::plain(bound)),
        };
    }
    let [start, end] = range;
    if start > end {
        bail!("invalid slice index: {start} > {end}");
    }
    Ok(match &**first {
        Value::String(text) => Value::from(String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned()),
        Value::Array(elements) => Value::from(&elements[start..end]),
        _ => Value::Null,
    })
}

/// `join LIST SEPARATOR`; a list that is nil joins to nothing.
fn join((list, separator): (&Value, &Value)) -> Result<Value> {
    let separator = text(separator)?;
    match list {
        Value::Null => Ok(Value::from("")),
        Value::Array(elements) => {
            let parts: Vec<String> = elements.iter().map(print::plain).collect();
            Ok(Value::String(parts.join(separator)))
        }
        _ => bail!("wrong type for value; expected []string; got {}", print::type_name(list)),
    }
}

/// The first letter of each word in upper case (Go's `strings.Title`).
fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_word = false;
    for character in text.chars() {
        if in_word {
            result.push(character);
        } else {
            result.extend(character.to_uppercase());
        }
        in_word = character.is_alphanumeric() || character == '_' || character == '\'';
    }
    result
}
