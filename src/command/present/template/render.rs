//! The tree over a value, to text.
//!
//! Invariant: values are borrowed from the data wherever Go would take an address; a row with many fields is never
//! copied to read one.

use super::lex::Place;
use super::parse::{Base, Branch, Command, Node, Operand, Pipeline};
use super::{function, print};
use crate::failure::{Failure, Kind};
use anyhow::{Result, bail};
use serde_json::{Map, Value};
use std::borrow::Cow;

pub(super) type Item<'a> = Cow<'a, Value>;

/// Append what the template makes of `data`.
pub(super) fn render(nodes: &[Node], data: &Value, output: &mut String) -> Result<()> {
    let root = Cow::Borrowed(data);
    let mut state = State { data, variables: vec![(String::new(), root.clone())], output };
    state.nodes(nodes, &root).map(|_| ())
}

/// What a node tells the loop around it.
#[derive(PartialEq)]
enum Next {
    Go,
    Break,
    Continue,
}

struct State<'a, 'o> {
    data: &'a Value,
    variables: Vec<(String, Item<'a>)>,
    output: &'o mut String,
}

impl<'a> State<'a, '_> {
    fn nodes(&mut self, nodes: &'a [Node], dot: &Item<'a>) -> Result<Next> {
        for node in nodes {
            let next = match node {
                Node::Text(text) => {
                    self.output.push_str(text);
                    Next::Go
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.output.push_str(&super::display(&value));
                    } else {
                        self.bind(pipeline, value);
                    }
                    Next::Go
                }
                Node::If(branch) => self.scoped(branch, dot, false)?,
                Node::With(branch) => self.scoped(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Next::Break,
                Node::Continue => Next::Continue,
            };
            if next != Next::Go {
                return Ok(next);
            }
        }
        Ok(Next::Go)
    }

    fn bind(&mut self, pipeline: &Pipeline, value: Item<'a>) {
        let Some(name) = pipeline.variables.first() else { return };
        if pipeline.assign {
            self.assign(name, value);
        } else {
            self.variables.push((name.clone(), value));
        }
    }

    fn assign(&mut self, name: &str, value: Item<'a>) {
        if let Some((_, place)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *place = value;
        }
    }

    fn scoped(&mut self, branch: &'a Branch, dot: &Item<'a>, moves_dot: bool) -> Result<Next> {
        let mark = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        self.bind(&branch.pipeline, value.clone());
        let next = match (truth(&value), moves_dot) {
            (true, true) => self.nodes(&branch.body, &value)?,
            (true, false) => self.nodes(&branch.body, dot)?,
            (false, _) => self.nodes(&branch.otherwise, dot)?,
        };
        self.variables.truncate(mark);
        Ok(next)
    }

    fn range(&mut self, branch: &'a Branch, dot: &Item<'a>) -> Result<Next> {
        let mark = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let entries = entries(value, &branch.pipeline)?;
        if entries.is_empty() {
            let next = self.nodes(&branch.otherwise, dot)?;
            self.variables.truncate(mark);
            return Ok(next);
        }
        for (key, element) in entries {
            match (branch.pipeline.variables.as_slice(), branch.pipeline.assign) {
                ([], _) => {}
                ([one], false) => self.variables.push((one.clone(), element.clone())),
                ([one], true) => self.assign(one, element.clone()),
                ([first, second, ..], false) => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), element.clone()));
                }
                ([first, second, ..], true) => {
                    self.assign(first, key);
                    self.assign(second, element.clone());
                }
            }
            let next = self.nodes(&branch.body, &element)?;
            self.variables.truncate(mark);
            if next == Next::Break {
                break;
            }
        }
        Ok(Next::Go)
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Item<'a>) -> Result<Item<'a>> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn command(&mut self, command: &'a Command, dot: &Item<'a>, last: Option<Item<'a>>) -> Result<Item<'a>> {
        let Some((first, rest)) = command.operands.split_first() else { bail!("template: format: empty command") };
        let Base::Function(name) = &first.base else {
            return match rest {
                [] => self.operand(first, dot),
                [argument] if first.fields.last().is_some_and(|name| name == "Label") => {
                    self.label(first, argument, dot)
                }
                _ => bail!(at(first, format_args!("can't give argument to non-function {}", first.text()))),
            };
        };
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        // `and` and `or` stop at the first operand that decides.
        let decides = match name.as_str() {
            "and" => Some(false),
            "or" => Some(true),
            _ => None,
        };
        for operand in rest {
            let value = self.operand(operand, dot)?;
            if decides.is_some_and(|deciding| truth(&value) == deciding) {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(last);
        if first.fields.is_empty() && decides.is_some() && !arguments.is_empty() {
            return Ok(arguments.swap_remove(arguments.len() - 1));
        }
        let value = function::call(name, &arguments)
            .map_err(|error| anyhow::anyhow!(at(first, format_args!("error calling {name}: {error}"))))?;
        self.chain(Cow::Owned(value), first)
    }

    /// `.Label "KEY"`, the one method that docker's and podman's lists have: empty where there is no such label.
    fn label(&mut self, labels: &'a Operand, key: &'a Operand, dot: &Item<'a>) -> Result<Item<'a>> {
        let labels = self.operand(labels, dot)?;
        let key = self.operand(key, dot)?;
        let value = labels.get(key.as_str().unwrap_or_default());
        Ok(Cow::Owned(value.cloned().unwrap_or_else(|| Value::String(String::new()))))
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Item<'a>) -> Result<Item<'a>> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => value.clone(),
                None => bail!(at(operand, format_args!("undefined variable: ${name}"))),
            },
            Base::Literal(value) => Cow::Borrowed(value),
            Base::Paren(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Function(name) => {
                let value = function::call(name, &[])
                    .map_err(|error| anyhow::anyhow!(at(operand, format_args!("error calling {name}: {error}"))))?;
                Cow::Owned(value)
            }
        };
        self.chain(base, operand)
    }

    /// Follow `.A.B` from a value.
    fn chain(&self, mut value: Item<'a>, operand: &Operand) -> Result<Item<'a>> {
        for name in &operand.fields {
            value = match value {
                Cow::Borrowed(borrowed) => self.field(borrowed, name, operand)?.map_or(null(), Cow::Borrowed),
                Cow::Owned(owned) => {
                    self.field(&owned, name, operand)?.map_or(null(), |found| Cow::Owned(found.clone()))
                }
            };
        }
        Ok(value)
    }

    /// A field of a value. `None`: a key that a map has not, which Go prints as `<no value>`.
    fn field<'v>(&self, value: &'v Value, name: &str, operand: &Operand) -> Result<Option<&'v Value>> {
        let Value::Object(object) = value else {
            if value.is_null() {
                bail!(at(operand, format_args!("nil pointer evaluating interface {{}}.{name}")));
            }
            bail!(at(operand, format_args!("can't evaluate field {name} in type {}", print::type_name(value))));
        };
        if let Some(found) = lookup(object, name) {
            return Ok(Some(found));
        }
        if !std::ptr::eq(value, self.data) && !is_record(object) {
            return Ok(None);
        }
        let message = at(operand, format_args!("can't evaluate field {name} in type object"));
        let known: Vec<&str> = object.keys().map(String::as_str).collect();
        Err(Failure::new(Kind::Engine, message).hint(format!("fields are {}", known.join(", "))).into())
    }
}

fn null<'a>() -> Item<'a> {
    Cow::Owned(Value::Null)
}

/// The key itself, else the key that differs only in how JSON documents write it (`.IPv6Enabled` for
/// `ipv6_enabled`, `.ID` for `Id`): podman's templates use the names of the program's types, its JSON other ones.
fn lookup<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.get(name).or_else(|| {
        if !name.starts_with(|first: char| first.is_ascii_uppercase()) {
            return None;
        }
        let same = |key: &str| {
            let mut letters = key.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase());
            name.chars().all(|letter| letters.next() == Some(letter.to_ascii_lowercase())) && letters.next().is_none()
        };
        object.iter().find(|(key, _)| same(key)).map(|(_, value)| value)
    })
}

/// Whether an object stands for a type with fixed fields; a map's keys (labels, ports, options) are the user's.
fn is_record(object: &Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|key| key.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// Go's truth: not empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

fn entries<'a>(value: Item<'a>, pipeline: &Pipeline) -> Result<Vec<(Item<'a>, Item<'a>)>> {
    let index = |index: usize| Cow::Owned(Value::from(index));
    Ok(match value {
        Cow::Borrowed(Value::Array(elements)) => {
            elements.iter().enumerate().map(|(at, element)| (index(at), Cow::Borrowed(element))).collect()
        }
        Cow::Owned(Value::Array(elements)) => {
            elements.into_iter().enumerate().map(|(at, element)| (index(at), Cow::Owned(element))).collect()
        }
        Cow::Borrowed(Value::Object(object)) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries
                .into_iter()
                .map(|(key, value)| (Cow::Owned(Value::from(key.as_str())), Cow::Borrowed(value)))
                .collect()
        }
        Cow::Owned(Value::Object(object)) => {
            let mut entries: Vec<_> = object.into_iter().collect();
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            entries.into_iter().map(|(key, value)| (Cow::Owned(Value::from(key)), Cow::Owned(value))).collect()
        }
        value if value.is_null() => Vec::new(),
        value => {
            let operand = pipeline.commands.last().and_then(|command| command.operands.first());
            let message = format!("range can't iterate over {}", print::plain(&value));
            bail!(operand.map_or(message.clone(), |operand| at(operand, format_args!("{message}"))));
        }
    })
}

/// Go's frame around an execution error.
fn at(operand: &Operand, what: std::fmt::Arguments<'_>) -> String {
    let Place { line, column } = operand.place;
    format!("template: format:{line}:{column}: executing \"format\" at <{}>: {what}", operand.text())
}
