//! The monitor's types: one text declares them, and from it come both the checks on arguments and
//! the answer to `query-qmp-schema`.
//!
//! ```text
//! struct Name { member: type, optional?: type }
//! enum Name { one, two }
//! union Name (tag) { member: type } { one: Struct, two: Struct }
//! alternate Name { inner: Struct, outer: str }
//! ```
//!
//! A type is `str int number bool null any`, `[type]` or a name; commands write the same between
//! braces. A union's tag is a member of it whose type is an enum.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use thiserror::Error;

/// Nothing that a client sends nests deeper than this, or it is refused.
const DEPTH_MAX: usize = 64;

/// A value that is not of its type. The texts are QEMU's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TypeError {
    /// Of another kind.
    #[error("Invalid parameter type for '{name}', expected: {expected}")]
    Kind {
        /// The member, with dots between levels.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Needed, and not there.
    #[error("Parameter '{name}' is missing")]
    Missing {
        /// The member.
        name: String,
    },
    /// There, and unknown.
    #[error("Parameter '{name}' is unexpected")]
    Unexpected {
        /// The member.
        name: String,
    },
    /// None of an enum's words.
    #[error("Parameter '{name}' does not accept value '{value}'")]
    Word {
        /// The member.
        name: String,
        /// What was given.
        value: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Builtin(&'static str),
    List(Box<Type>),
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    optional: bool,
    kind: Type,
}

#[derive(Clone, Debug)]
enum Entity {
    Struct(Vec<Member>),
    Enum(Vec<String>),
    Union { tag: String, members: Vec<Member>, cases: Vec<(String, String)> },
    Alternate(Vec<Member>),
}

/// The arguments and the answer of one command.
#[derive(Clone, Debug)]
struct Command {
    name: String,
    arguments: Vec<Member>,
    /// Arguments that are a type of their own, such as a union.
    boxed: Option<String>,
    returns: Option<Type>,
    allows_oob: bool,
}

/// All types, commands and events.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    entities: BTreeMap<String, Entity>,
    commands: BTreeMap<String, Command>,
    events: BTreeMap<String, Vec<Member>>,
}

impl Schema {
    /// Reads the declarations of types.
    ///
    /// # Panics
    /// When the text, which is ours, is malformed.
    #[must_use]
    pub fn new(types: &str) -> Self {
        let mut tokens = Tokens::new(types);
        let mut schema = Self::default();
        while let Some(word) = tokens.next() {
            let name = tokens.word();
            let entity = match word {
                "struct" => Entity::Struct(tokens.members()),
                "enum" => Entity::Enum(tokens.words()),
                "alternate" => Entity::Alternate(tokens.members()),
                "union" => {
                    tokens.expect("(");
                    let tag = tokens.word();
                    tokens.expect(")");
                    let members = tokens.members();
                    let cases = tokens.members().into_iter();
                    let case = |member: Member| match member.kind {
                        Type::Named(name) => (member.name, name),
                        _ => panic!("a case of {name} is no struct"),
                    };
                    Entity::Union { tag, members, cases: cases.map(case).collect() }
                }
                other => panic!("'{other}' declares nothing"),
            };
            assert!(schema.entities.insert(name, entity).is_none(), "declared twice");
        }
        schema
    }

    /// Adds a command. Its arguments are members between braces, or the name of a type.
    pub fn command(&mut self, name: &str, arguments: &str, returns: &str, allows_oob: bool) {
        // Arguments of any kind are read by the command itself.
        let boxed = (!arguments.starts_with('{')).then(|| arguments.to_owned());
        let arguments = if boxed.is_some() { "{}" } else { arguments };
        let arguments = Tokens::new(arguments).members();
        let returns = (!returns.is_empty()).then(|| Tokens::new(returns).kind());
        let name = name.to_owned();
        let command = Command { name, arguments, boxed, returns, allows_oob };
        self.commands.insert(command.name.clone(), command);
    }

    /// Adds an event with its data.
    pub fn event(&mut self, name: &str, data: &str) {
        self.events.insert(name.to_owned(), Tokens::new(data).members());
    }

    /// The names of all commands.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    /// Holds a command's arguments against its declaration.
    pub fn check(&self, command: &str, arguments: &Map<String, Value>) -> Result<(), TypeError> {
        let Some(command) = self.commands.get(command) else { return Ok(()) };
        match &command.boxed {
            Some(name) => self.check_entity(name, &Value::Object(arguments.clone()), "", 0),
            None => self.check_members(&[&command.arguments], arguments, "", 0),
        }
    }

    fn check_members(
        &self,
        groups: &[&[Member]],
        map: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<(), TypeError> {
        let members = || groups.iter().copied().flatten();
        let full = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        for member in members() {
            match map.get(&member.name) {
                Some(value) => {
                    self.check_type(&member.kind, value, &full(&member.name), depth + 1)?;
                }
                None if member.optional => {}
                None => return Err(TypeError::Missing { name: full(&member.name) }),
            }
        }
        match map.keys().find(|key| members().all(|member| member.name != **key)) {
            Some(name) => Err(TypeError::Unexpected { name: full(name) }),
            None => Ok(()),
        }
    }

    fn check_type(
        &self,
        kind: &Type,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<(), TypeError> {
        let wrong = |expected| Err(TypeError::Kind { name: path.to_owned(), expected });
        if depth > DEPTH_MAX {
            return wrong("less depth");
        }
        match kind {
            Type::Builtin(name) => {
                let (fits, expected) = match *name {
                    "str" => (value.is_string(), "string"),
                    "int" => (value.is_i64() || value.is_u64(), "integer"),
                    "number" => (value.is_number(), "number"),
                    "bool" => (value.is_boolean(), "boolean"),
                    "null" => (value.is_null(), "null"),
                    _ => (true, "value"),
                };
                if fits { Ok(()) } else { wrong(expected) }
            }
            Type::List(inner) => match value.as_array() {
                Some(list) => list.iter().enumerate().try_for_each(|(index, value)| {
                    self.check_type(inner, value, &format!("{path}[{index}]"), depth + 1)
                }),
                None => wrong("array"),
            },
            Type::Named(name) => self.check_entity(name, value, path, depth + 1),
        }
    }

    fn check_entity(
        &self,
        name: &str,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<(), TypeError> {
        let wrong = |expected| Err(TypeError::Kind { name: path.to_owned(), expected });
        match self.entities.get(name) {
            Some(Entity::Enum(words)) => match value.as_str() {
                Some(word) if words.iter().any(|known| known == word) => Ok(()),
                Some(word) => {
                    Err(TypeError::Word { name: path.to_owned(), value: word.to_owned() })
                }
                None => wrong("string"),
            },
            Some(Entity::Struct(members)) => match value.as_object() {
                Some(map) => self.check_members(&[members], map, path, depth),
                None => wrong("object"),
            },
            Some(Entity::Union { tag, members, cases }) => {
                let Some(map) = value.as_object() else { return wrong("object") };
                let case = map.get(tag).and_then(Value::as_str);
                let case = cases.iter().find(|(name, _)| Some(name.as_str()) == case);
                let more = match case.and_then(|(_, name)| self.entities.get(name)) {
                    Some(Entity::Struct(members)) => members.as_slice(),
                    _ => &[],
                };
                self.check_members(&[members, more], map, path, depth)
            }
            Some(Entity::Alternate(members)) => {
                let kind = |member: &&Member| self.json_kind(&member.kind) == json_kind_of(value);
                match members.iter().find(kind) {
                    Some(member) => self.check_type(&member.kind, value, path, depth + 1),
                    None => wrong("another type"),
                }
            }
            None => Ok(()),
        }
    }

    fn json_kind(&self, kind: &Type) -> &'static str {
        match kind {
            Type::Builtin("str") => "string",
            Type::Builtin("int" | "number") => "number",
            Type::Builtin("bool") => "boolean",
            Type::Builtin("null") => "null",
            Type::Builtin(_) => "value",
            Type::List(_) => "array",
            Type::Named(name) => match self.entities.get(name) {
                Some(Entity::Enum(_)) => "string",
                _ => "object",
            },
        }
    }

    /// The answer to `query-qmp-schema`: types have numbers instead of names.
    #[must_use]
    pub fn describe(&self) -> Value {
        let mut writer =
            Writer { schema: self, numbers: BTreeMap::new(), queue: vec![], out: vec![] };
        for command in self.commands.values() {
            let arguments = match &command.boxed {
                Some(name) if name == "any" => "any".to_owned(),
                Some(name) => writer.number(Key::Named(name.clone())),
                None => writer.number(Key::Members(command.arguments.clone())),
            };
            let returns = match &command.returns {
                Some(kind) => writer.reference(kind),
                None => writer.number(Key::Members(Vec::new())),
            };
            let mut entry = json!({"name": command.name, "meta-type": "command",
                "arg-type": arguments, "ret-type": returns});
            if command.allows_oob {
                entry["allow-oob"] = true.into();
            }
            writer.out.push(entry);
        }
        for (name, data) in &self.events {
            let arguments = writer.number(Key::Members(data.clone()));
            writer.out.push(json!({"name": name, "meta-type": "event", "arg-type": arguments}));
        }
        writer.finish()
    }
}

fn json_kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What gets a number in the description.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Named(String),
    Members(Vec<Member>),
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        format!("{self:?}").cmp(&format!("{other:?}"))
    }
}

struct Writer<'a> {
    schema: &'a Schema,
    numbers: BTreeMap<Key, usize>,
    queue: Vec<Key>,
    out: Vec<Value>,
}

impl Writer<'_> {
    fn number(&mut self, key: Key) -> String {
        let next = self.numbers.len();
        let number = *self.numbers.entry(key.clone()).or_insert_with(|| {
            self.queue.push(key);
            next
        });
        number.to_string()
    }

    fn reference(&mut self, kind: &Type) -> String {
        match kind {
            Type::Builtin(name) => (*name).to_owned(),
            Type::Named(name) => self.number(Key::Named(name.clone())),
            Type::List(inner) => format!("[{}]", self.reference(inner)),
        }
    }

    fn members(&mut self, members: &[Member]) -> Vec<Value> {
        let member = |member: &Member| {
            let mut entry = json!({"name": member.name, "type": self.reference(&member.kind)});
            if member.optional {
                entry["default"] = Value::Null;
            }
            entry
        };
        members.iter().map(member).collect()
    }

    fn finish(mut self) -> Value {
        while let Some(key) = self.queue.pop() {
            let name = self.numbers[&key].to_string();
            let mut entry = match &key {
                Key::Members(members) => {
                    json!({"meta-type": "object", "members": self.members(members)})
                }
                Key::Named(name) => match self.schema.entities.get(name) {
                    Some(Entity::Struct(members)) => {
                        json!({"meta-type": "object", "members": self.members(members)})
                    }
                    Some(Entity::Enum(words)) => {
                        let members = words.iter().map(|word| json!({"name": word}));
                        let members: Vec<Value> = members.collect();
                        json!({"meta-type": "enum", "values": words, "members": members})
                    }
                    Some(Entity::Alternate(members)) => {
                        let types = members.iter().map(|member| self.reference(&member.kind));
                        let types: Vec<_> = types.map(|kind| json!({"type": kind})).collect();
                        json!({"meta-type": "alternate", "members": types})
                    }
                    Some(Entity::Union { tag, members, cases }) => {
                        let variants = cases.iter().map(|(case, name)| {
                            json!({"case": case, "type": self.number(Key::Named(name.clone()))})
                        });
                        let variants: Vec<Value> = variants.collect();
                        json!({"meta-type": "object", "tag": tag, "variants": variants,
                            "members": self.members(members)})
                    }
                    None => panic!("type {name} is not declared"),
                },
            };
            entry["name"] = name.into();
            self.out.push(entry);
        }
        self.lists();
        let builtins = [
            ("str", "string"),
            ("int", "int"),
            ("number", "number"),
            ("bool", "boolean"),
            ("null", "null"),
            ("any", "value"),
        ];
        self.out.extend(builtins.map(|(name, json_type)| {
            json!({"name": name, "meta-type": "builtin", "json-type": json_type})
        }));
        Value::Array(self.out)
    }

    /// Lists are entries too, under the names by which others mention them.
    fn lists(&mut self) {
        let mut names = std::collections::BTreeSet::new();
        for entry in &self.out {
            collect_lists(entry, &mut names);
        }
        for name in names {
            let element = &name[1..name.len() - 1];
            self.out.push(json!({"name": name, "meta-type": "array", "element-type": element}));
        }
    }
}

fn collect_lists(value: &Value, names: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| collect_lists(value, names)),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("type" | "ret-type", Value::String(name)) => {
                        let mut name = name.as_str();
                        while name.starts_with('[') {
                            names.insert(name.to_owned());
                            name = &name[1..name.len() - 1];
                        }
                    }
                    _ => collect_lists(value, names),
                }
            }
        }
        _ => {}
    }
}

/// Takes declarations apart.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn new(rest: &'a str) -> Self {
        Self { rest }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let end = match is_word(first) {
            true => self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len()),
            false => first.len_utf8(),
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }

    fn peek(&self) -> Option<&'a str> {
        Tokens { rest: self.rest }.next()
    }

    fn word(&mut self) -> String {
        self.next().expect("a declaration goes on").to_owned()
    }

    fn expect(&mut self, token: &str) {
        assert_eq!(self.next(), Some(token), "before '{}'", self.rest);
    }

    fn kind(&mut self) -> Type {
        match self.word().as_str() {
            "[" => {
                let inner = self.kind();
                self.expect("]");
                Type::List(Box::new(inner))
            }
            "str" => Type::Builtin("str"),
            "int" => Type::Builtin("int"),
            "number" => Type::Builtin("number"),
            "bool" => Type::Builtin("bool"),
            "null" => Type::Builtin("null"),
            "any" => Type::Builtin("any"),
            name => Type::Named(name.to_owned()),
        }
    }

    fn members(&mut self) -> Vec<Member> {
        let mut members = Vec::new();
        self.expect("{");
        while self.peek() != Some("}") {
            let name = self.word();
            let optional = self.peek() == Some("?");
            if optional {
                self.expect("?");
            }
            self.expect(":");
            members.push(Member { name, optional, kind: self.kind() });
            if self.peek() == Some(",") {
                self.expect(",");
            }
        }
        self.expect("}");
        members
    }

    fn words(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        self.expect("{");
        while self.peek() != Some("}") {
            words.push(self.word());
            if self.peek() == Some(",") {
                self.expect(",");
            }
        }
        self.expect("}");
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: &str = "
        enum Kind { one, two }
        struct One { size: int }
        struct Two { name?: str }
        union Thing (kind) { kind: Kind, id: str } { one: One, two: Two }
        alternate Where { inline: Thing, name: str }
    ";

    fn schema() -> Schema {
        let mut schema = Schema::new(TYPES);
        schema.command("put", "{ thing: Thing, list?: [int], at?: Where }", "[Thing]", false);
        schema.command("put-it", "Thing", "", true);
        schema.event("MOVED", "{ id: str }");
        schema
    }

    fn check(command: &str, arguments: Value, expected: &str) {
        let schema = schema();
        let Value::Object(map) = arguments else { panic!("no object") };
        let text = schema.check(command, &map).err().map(|error| error.to_string());
        assert_eq!(text.as_deref().unwrap_or(""), expected, "{map:?}");
    }

    #[test]
    fn arguments_are_held_against_their_declaration() {
        let thing = json!({"kind": "one", "id": "a", "size": 1});
        check("put", json!({"thing": thing, "list": [1, 2], "at": "x"}), "");
        check("put", json!({"thing": thing, "at": thing}), "");
        check("put", json!({}), "Parameter 'thing' is missing");
        check("put", json!({"thing": thing, "x": 1}), "Parameter 'x' is unexpected");
        let text = "Invalid parameter type for 'list[0]', expected: integer";
        check("put", json!({"thing": thing, "list": ["a"]}), text);
        let text = "Parameter 'kind' does not accept value 'three'";
        check("put-it", json!({"kind": "three", "id": "a"}), text);
        check("put-it", json!({"kind": "two", "id": "a", "name": "b"}), "");
        let text = "Parameter 'size' is unexpected";
        check("put-it", json!({"kind": "two", "id": "a", "size": 1}), text);
    }

    #[test]
    fn the_description_names_only_what_it_describes() {
        let description = schema().describe();
        let entries = description.as_array().unwrap();
        let names: Vec<&str> =
            entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        let mut mentioned = Vec::new();
        for entry in entries {
            for key in ["arg-type", "ret-type", "element-type"] {
                mentioned.extend(entry[key].as_str());
            }
            for part in ["members", "variants"] {
                let parts = entry[part].as_array().into_iter().flatten();
                mentioned.extend(parts.filter_map(|part| part["type"].as_str()));
            }
        }
        assert!(mentioned.len() > 10);
        for name in mentioned {
            assert!(names.contains(&name), "{name} is not described");
        }
    }
}
