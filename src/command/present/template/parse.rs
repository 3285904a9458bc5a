//! Tokens to a tree.

use super::lex::{self, Kind, Piece, Place, Token};
use anyhow::{Result, bail};
use serde_json::Value;
use std::iter::Peekable;
use std::vec::IntoIter;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// `{{if pipeline}} body {{else}} otherwise {{end}}`, and the same for `with` and `range`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Pipeline {
    /// Variables on the left: none, one, or two for `range $key, $value :=`.
    pub(super) variables: Vec<String>,
    /// `=` sets a variable that is there, `:=` makes one.
    pub(super) assign: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// The names that follow: `.A.B` is `Dot` with two.
    pub(super) fields: Vec<String>,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Literal(Value),
    Paren(Pipeline),
}

impl Operand {
    /// The operand as written, for error messages.
    pub(super) fn text(&self) -> String {
        let mut text = match &self.base {
            Base::Dot if self.fields.is_empty() => ".".to_owned(),
            Base::Dot => String::new(),
            Base::Variable(name) => format!("${name}"),
            Base::Function(name) => name.clone(),
            Base::Literal(value) => value.to_string(),
            Base::Paren(_) => "(…)".to_owned(),
        };
        for field in &self.fields {
            text.push('.');
            text.push_str(field);
        }
        text
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let mut parser = Parser { pieces: lex::lex(text)?.into_iter().peekable(), scope: vec![String::new()], loops: 0 };
    let (nodes, stop) = parser.nodes()?;
    match stop {
        None => Ok(nodes),
        Some(stop) => wrong(stop.place, format_args!("unexpected {{{{{}}}}}", stop.word)),
    }
}

/// Collect what a template reads from `.`.
pub(super) fn fields(nodes: &[Node], found: &mut Vec<Vec<String>>) {
    for node in nodes {
        match node {
            Node::Text(_) | Node::Break | Node::Continue => {}
            Node::Action(pipeline) => pipeline_fields(pipeline, found),
            Node::If(branch) | Node::With(branch) | Node::Range(branch) => {
                pipeline_fields(&branch.pipeline, found);
                fields(&branch.body, found);
                fields(&branch.otherwise, found);
            }
        }
    }
}

fn pipeline_fields(pipeline: &Pipeline, found: &mut Vec<Vec<String>>) {
    for operand in pipeline.commands.iter().flat_map(|command| &command.operands) {
        match &operand.base {
            Base::Dot if !operand.fields.is_empty() => found.push(operand.fields.clone()),
            Base::Paren(inner) => pipeline_fields(inner, found),
            _ => {}
        }
    }
}

fn wrong<T>(place: Place, what: impl std::fmt::Display) -> Result<T> {
    bail!("template: format:{}: {what}", place.line)
}

/// The keyword that ended a list of nodes.
struct Stop {
    word: &'static str,
    /// What follows `else`: the tokens of `if …` or `with …`.
    tokens: Vec<Token>,
    place: Place,
}

struct Parser {
    pieces: Peekable<IntoIter<Piece>>,
    /// The names of the variables that are declared here.
    scope: Vec<String>,
    /// How many `range` bodies are open: `break` needs one.
    loops: usize,
}

impl Parser {
    /// Nodes up to `else`, `end` or the end of the text.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<Stop>)> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, place) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, place) => (tokens, place),
            };
            let keyword = match tokens.first() {
                None => return wrong(place, "missing value for command"),
                Some(Token { kind: Kind::Word(word), .. }) => word.as_str(),
                Some(_) => "",
            };
            match keyword {
                "if" => nodes.push(Node::If(self.branch("if", tokens, place)?)),
                "with" => nodes.push(Node::With(self.branch("with", tokens, place)?)),
                "range" => nodes.push(Node::Range(self.branch("range", tokens, place)?)),
                "break" | "continue" if self.loops == 0 => {
                    return wrong(place, format_args!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "else" => return Ok((nodes, Some(Stop { word: "else", tokens, place }))),
                "end" => return Ok((nodes, Some(Stop { word: "end", tokens, place }))),
                "define" | "template" | "block" => {
                    return wrong(place, format_args!("{{{{{keyword}}}}} is not supported in --format"));
                }
                _ => nodes.push(Node::Action(self.pipeline(tokens, place, false)?)),
            }
        }
        Ok((nodes, None))
    }

    fn branch(&mut self, word: &'static str, mut tokens: Vec<Token>, place: Place) -> Result<Branch> {
        tokens.remove(0);
        let scope = self.scope.len();
        let is_range = word == "range";
        let pipeline = self.pipeline(tokens, place, is_range)?;
        self.loops += usize::from(is_range);
        let (body, stop) = self.nodes()?;
        self.loops -= usize::from(is_range);
        let mut otherwise = Vec::new();
        match stop {
            None => return wrong(place, "unexpected EOF"),
            Some(stop) if stop.word == "end" => {}
            Some(mut stop) => {
                stop.tokens.remove(0);
                match stop.tokens.first().map(|token| token.kind.clone()) {
                    None => {
                        let (nodes, end) = self.nodes()?;
                        match end {
                            Some(end) if end.word == "end" => otherwise = nodes,
                            Some(end) => return wrong(end.place, "unexpected {{else}}"),
                            None => return wrong(place, "unexpected EOF"),
                        }
                    }
                    Some(Kind::Word(next)) if next == "if" && !is_range => {
                        otherwise.push(Node::If(self.branch("if", stop.tokens, stop.place)?));
                    }
                    Some(Kind::Word(next)) if next == "with" && word == "with" => {
                        otherwise.push(Node::With(self.branch("with", stop.tokens, stop.place)?));
                    }
                    Some(_) => return wrong(stop.place, "unexpected token after {{else}}"),
                }
            }
        }
        self.scope.truncate(scope);
        Ok(Branch { pipeline, body, otherwise })
    }

    /// A pipeline with what may stand left of it.
    fn pipeline(&mut self, mut tokens: Vec<Token>, place: Place, is_range: bool) -> Result<Pipeline> {
        let name = |token: Option<&Token>| match token {
            Some(Token { kind: Kind::Variable(name), .. }) => Some(name.clone()),
            _ => None,
        };
        let kind = |tokens: &[Token], index: usize| tokens.get(index).map(|token| token.kind.clone());
        let mut variables = Vec::new();
        let mut assign = false;
        if let Some(first) = name(tokens.first()) {
            match (kind(&tokens, 1), name(tokens.get(2)), kind(&tokens, 3)) {
                (Some(Kind::Comma), Some(second), Some(Kind::Declare | Kind::Assign)) if is_range => {
                    variables = vec![first, second];
                }
                (Some(Kind::Comma), ..) => return wrong(place, "too many declarations in command"),
                (Some(Kind::Declare | Kind::Assign), ..) => variables = vec![first],
                _ => {}
            }
            if !variables.is_empty() {
                let operator = variables.len() * 2 - 1;
                assign = tokens[operator].kind == Kind::Assign;
                tokens.drain(..=operator);
            }
        }
        let mut tokens = tokens.into_iter().peekable();
        let commands = self.commands(&mut tokens, place)?;
        if let Some(token) = tokens.next() {
            return wrong(token.place, "unexpected right paren");
        }
        for variable in &variables {
            if assign {
                self.check_variable(variable, place)?;
            } else {
                self.scope.push(variable.clone());
            }
        }
        Ok(Pipeline { variables, assign, commands })
    }

    /// Commands between pipes, up to a closing parenthesis or the end.
    fn commands(&mut self, tokens: &mut Peekable<IntoIter<Token>>, place: Place) -> Result<Vec<Command>> {
        let mut commands = Vec::new();
        loop {
            let mut operands: Vec<Operand> = Vec::new();
            let mut piped = false;
            while let Some(token) = tokens.peek() {
                match &token.kind {
                    Kind::Close => break,
                    Kind::Pipe => {
                        piped = true;
                        tokens.next();
                        break;
                    }
                    _ => {}
                }
                let operand = self.operand(tokens)?;
                operands.push(operand);
            }
            let Some(first) = operands.first() else { return wrong(place, "missing value for command") };
            if !commands.is_empty() && !matches!(first.base, Base::Function(_)) {
                return wrong(
                    first.place,
                    format_args!("non executable command in pipeline stage {}", commands.len() + 1),
                );
            }
            commands.push(Command { operands });
            if !piped {
                return Ok(commands);
            }
        }
    }

    fn operand(&mut self, tokens: &mut Peekable<IntoIter<Token>>) -> Result<Operand> {
        let Some(Token { kind, place, .. }) = tokens.next() else { bail!("template: format: unexpected end") };
        let mut fields = Vec::new();
        let base = match kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Variable(name) => {
                self.check_variable(&name, place)?;
                Base::Variable(name)
            }
            Kind::Word(name) if super::function::exists(&name) => Base::Function(name),
            Kind::Word(name) => return wrong(place, format_args!("function {name:?} not defined")),
            Kind::Literal(value) => Base::Literal(value),
            Kind::Open => {
                let commands = self.commands(tokens, place)?;
                match tokens.next() {
                    Some(Token { kind: Kind::Close, .. }) => {}
                    _ => return wrong(place, "unclosed left paren"),
                }
                Base::Paren(Pipeline { variables: Vec::new(), assign: false, commands })
            }
            Kind::Pipe | Kind::Close | Kind::Comma | Kind::Declare | Kind::Assign => {
                return wrong(place, "unexpected token in operand");
            }
        };
        while let Some(Token { kind: Kind::Field(name), spaced: false, .. }) = tokens.peek() {
            fields.push(name.clone());
            tokens.next();
        }
        match tokens.peek() {
            Some(Token { kind: Kind::Pipe | Kind::Close, .. }) | None => {}
            Some(next) if !next.spaced => return wrong(next.place, "unexpected token in operand"),
            Some(_) => {}
        }
        Ok(Operand { base, fields, place })
    }

    fn check_variable(&self, name: &str, place: Place) -> Result<()> {
        if self.scope.iter().any(|known| known == name) {
            Ok(())
        } else {
            wrong(place, format_args!("undefined variable \"${name}\""))
        }
    }
}
