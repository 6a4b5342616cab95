//! Options by name: those an image is opened with, and those it is created with.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};

/// Options for opening a node, flattened: a child's option `filename` is `file.filename`.
///
/// Drivers take what they know; what is left over at the end is an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenOptions {
    entries: BTreeMap<String, Value>,
}

impl OpenOptions {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Flattens a tree, as it stands in a `json:` name.
    pub fn from_json(value: &Value) -> Result<Self> {
        let Value::Object(map) = value else {
            return Err(Error::invalid("Invalid JSON object given"));
        };
        let mut options = Self::new();
        for (key, value) in map {
            options.flatten(key, value);
        }
        Ok(options)
    }

    /// Reads a `json:` name's text. Strings may stand in single quotes.
    pub fn parse_json(text: &str) -> Result<Self> {
        let tree: Value = serde_json::from_str(&double_quoted(text))
            .map_err(|_| Error::invalid("Could not parse the JSON options"))?;
        Self::from_json(&tree)
    }

    fn flatten(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    self.flatten(&format!("{key}.{name}"), value);
                }
            }
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    self.flatten(&format!("{key}.{index}"), value);
                }
            }
            scalar => {
                self.entries.insert(key.to_string(), scalar.clone());
            }
        }
    }

    /// Sets an option to a text.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.insert(key.to_string(), value.into());
    }

    /// Sets an option unless it is there.
    pub fn set_default(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.entry(key.to_string()).or_insert_with(|| value.into());
    }

    /// Whether the option is there.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Looks at a text option without taking it.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.entries.get(key).and_then(Value::as_str)
    }

    /// Takes an option as text; numbers and booleans are spelled as on a command line.
    pub fn take_text(&mut self, key: &str) -> Option<String> {
        Some(match self.entries.remove(key)? {
            Value::String(text) => text,
            Value::Bool(true) => "on".into(),
            Value::Bool(false) => "off".into(),
            Value::Null => String::new(),
            other => other.to_string(),
        })
    }

    /// Whether the option is JSON's null; it is then taken.
    pub fn take_null(&mut self, key: &str) -> bool {
        let null = self.entries.get(key).is_some_and(Value::is_null);
        if null {
            self.entries.remove(key);
        }
        null
    }

    /// Takes a boolean.
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>> {
        let Some(text) = self.take_text(key) else { return Ok(None) };
        parse_bool(key, &text).map(Some)
    }

    /// Takes a size or number with an optional binary suffix.
    pub fn take_size(&mut self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.take_text(key) else { return Ok(None) };
        parse_size(key, &text).map(Some)
    }

    /// Takes everything below `prefix.` as options of their own.
    pub fn take_below(&mut self, prefix: &str) -> Self {
        let dotted = format!("{prefix}.");
        let keys: Vec<_> =
            self.entries.keys().filter(|k| k.starts_with(&dotted)).cloned().collect();
        let mut below = Self::new();
        for key in keys {
            if let Some(value) = self.entries.remove(&key) {
                below.entries.insert(key[dotted.len()..].to_string(), value);
            }
        }
        below
    }

    /// Whether there is anything below `prefix.`.
    pub fn has_below(&self, prefix: &str) -> bool {
        let dotted = format!("{prefix}.");
        self.entries.keys().any(|key| key.starts_with(&dotted))
    }

    /// Adds options of a child under its name.
    pub fn put_below(&mut self, prefix: &str, options: &Self) {
        for (key, value) in &options.entries {
            self.entries.insert(format!("{prefix}.{key}"), value.clone());
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first option in order of names.
    pub fn first_key(&self) -> Option<&str> {
        self.entries.keys().next().map(String::as_str)
    }

    /// All options.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The tree that [`Self::from_json`] flattens.
    pub fn to_json(&self) -> Value {
        let mut root = Value::Object(serde_json::Map::new());
        for (key, value) in &self.entries {
            let mut place = &mut root;
            for part in key.split('.') {
                if !place.is_object() {
                    *place = Value::Object(serde_json::Map::new());
                }
                place = &mut place[part];
            }
            *place = value.clone();
        }
        root
    }
}

/// The same JSON with all strings in double quotes.
fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                out.push('"');
            }
            (Some(open), close) if open == close => {
                quote = None;
                out.push('"');
            }
            (Some('\''), '"') => out.push_str("\\\""),
            (Some(_), '\\') => match letters.next() {
                Some('\'') => out.push('\''),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            (_, other) => out.push(other),
        }
    }
    out
}

/// The kinds of values of a creation option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptionKind {
    /// Bytes, with a binary suffix.
    Size,
    /// `on` or `off`.
    Bool,
    /// Anything.
    Text,
    /// A number.
    Number,
}

/// A creation option of a format.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: OptionKind,
    /// What it has when it is not given.
    pub default: Option<&'static str>,
    /// One line for a help page.
    pub help: &'static str,
}

impl OptionSpec {
    /// An option without default.
    pub const fn new(name: &'static str, kind: OptionKind, help: &'static str) -> Self {
        Self { name, kind, default: None, help }
    }

    /// The same with a default.
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}

/// Creation options as given, checked for their kind.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    entries: BTreeMap<String, String>,
}

impl CreateOptions {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an option.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.entries.insert(name.to_string(), value.into());
    }

    /// Removes an option.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.entries.remove(name)
    }

    /// An option's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(String::as_str)
    }

    /// An option's text, or nothing when it is empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    /// A size or number.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        self.text(name).map(|text| parse_size(name, text)).transpose()
    }

    /// A plain number.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.text(name).map(|text| parse_number(name, text)).transpose()
    }

    /// A boolean.
    pub fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.text(name).map(|text| parse_bool(name, text)).transpose()
    }

    /// The preallocation mode.
    pub fn preallocation(&self) -> Result<crate::node::Preallocation> {
        let text = self.text("preallocation").unwrap_or("off");
        crate::node::Preallocation::parse(text).ok_or_else(|| {
            Error::invalid(format!("Parameter 'preallocation' does not accept value '{text}'"))
        })
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks every value's kind and every name against `specs`.
    pub fn validate(&self, specs: &[&[OptionSpec]]) -> Result<()> {
        for (name, text) in &self.entries {
            let spec = specs.iter().copied().flatten().find(|spec| spec.name == name);
            match spec.map(|spec| spec.kind) {
                None => return Err(Error::invalid(format!("Invalid parameter '{name}'"))),
                Some(OptionKind::Size) => _ = parse_size(name, text)?,
                Some(OptionKind::Number) => _ = parse_number(name, text)?,
                Some(OptionKind::Bool) => _ = parse_bool(name, text)?,
                Some(OptionKind::Text) => {}
            }
        }
        Ok(())
    }
}

/// A number; a negative one wraps around, and is then out of every range.
pub fn parse_number(name: &str, text: &str) -> Result<u64> {
    match text.parse::<i64>() {
        Ok(number) => Ok(number as u64),
        Err(_) => {
            text.parse().map_err(|_| Error::invalid(format!("Parameter '{name}' expects a number")))
        }
    }
}

/// `on` or `off`, and the other spellings that scripts use.
pub fn parse_bool(name: &str, text: &str) -> Result<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(Error::invalid(format!("Parameter '{name}' expects 'on' or 'off'"))),
    }
}

/// Bytes with an optional binary suffix; the error is worded for option `name`.
pub fn parse_size(name: &str, text: &str) -> Result<u64> {
    // A negative number without a suffix is a number all the same.
    if text.starts_with('-') && text.parse::<i64>().is_ok() {
        return Err(Error::invalid(format!(
            "Value '{text}' is out of range for parameter '{name}'"
        )));
    }
    parse_bytes(text, b'B').map_err(|problem| match problem {
        SizeProblem::TooLarge => {
            Error::invalid(format!("Value '{text}' is out of range for parameter '{name}'"))
        }
        SizeProblem::Malformed => Error::invalid(format!(
            "Parameter '{name}' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively."
        )),
    })
}

/// Why a text is no size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeProblem {
    /// Not a number with a suffix.
    Malformed,
    /// More than 64 bits.
    TooLarge,
}

/// A number of bytes: decimal (with a fraction when there is a suffix) or hexadecimal.
pub fn parse_bytes(text: &str, default_suffix: u8) -> std::result::Result<u64, SizeProblem> {
    let text = text.trim_start_matches([' ', '\t']);
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return parse_hex(hex);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = match suffix.as_bytes() {
        [] => default_suffix,
        [one] => *one,
        _ => return Err(SizeProblem::Malformed),
    };
    let shift = match suffix.to_ascii_uppercase() {
        b'B' => 0,
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        b'P' => 50,
        b'E' => 60,
        _ => return Err(SizeProblem::Malformed),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(SizeProblem::Malformed);
    }
    if shift == 0 && number.contains('.') && fraction.bytes().any(|digit| digit != b'0') {
        return Err(SizeProblem::Malformed);
    }
    let whole: u64 =
        if whole.is_empty() { 0 } else { whole.parse().map_err(|_| SizeProblem::TooLarge)? };
    let unit = 1u64 << shift;
    let bytes = whole.checked_mul(unit).ok_or(SizeProblem::TooLarge)?;
    if fraction.is_empty() {
        return Ok(bytes);
    }
    let fraction: f64 = format!("0.{fraction}").parse().map_err(|_| SizeProblem::Malformed)?;
    bytes.checked_add((fraction * unit as f64).round() as u64).ok_or(SizeProblem::TooLarge)
}

/// A hexadecimal number; only these suffixes cannot be digits.
fn parse_hex(hex: &str) -> std::result::Result<u64, SizeProblem> {
    let (digits, shift) = match hex.as_bytes().last() {
        Some(b'k' | b'K') => (&hex[..hex.len() - 1], 10),
        Some(b'm' | b'M') => (&hex[..hex.len() - 1], 20),
        Some(b'g' | b'G') => (&hex[..hex.len() - 1], 30),
        Some(b't' | b'T') => (&hex[..hex.len() - 1], 40),
        _ => (hex, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(SizeProblem::Malformed);
    }
    let number = u64::from_str_radix(digits, 16).map_err(|_| SizeProblem::TooLarge)?;
    number.checked_mul(1 << shift).ok_or(SizeProblem::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_users_write_them() {
        for (text, bytes) in [
            ("0", Ok(0)),
            ("1024", Ok(1024)),
            ("1k", Ok(1024)),
            ("1.5G", Ok(3 << 29)),
            ("0x10", Ok(16)),
            ("1E", Ok(1 << 60)),
            ("16E", Err(SizeProblem::TooLarge)),
            ("18446744073709551616", Err(SizeProblem::TooLarge)),
            ("-1", Err(SizeProblem::Malformed)),
            ("1kk", Err(SizeProblem::Malformed)),
            ("", Err(SizeProblem::Malformed)),
            ("1.5", Err(SizeProblem::Malformed)),
        ] {
            assert_eq!(parse_bytes(text, b'B'), bytes, "{text}");
        }
    }

    #[test]
    fn json_may_have_single_quotes() {
        let options = OpenOptions::parse_json("{'driver': 'x', \"a\": 'it\\'s \"b\"'}").unwrap();
        assert_eq!(options.text("driver"), Some("x"));
        assert_eq!(options.text("a"), Some("it's \"b\""));
    }

    #[test]
    fn a_tree_survives_flattening() {
        let tree = serde_json::json!({"driver": "qcow2", "file": {"driver": "file", "x": 1}});
        let options = OpenOptions::from_json(&tree).unwrap();
        assert_eq!(options.text("file.driver"), Some("file"));
        assert_eq!(options.to_json(), tree);
    }
}
