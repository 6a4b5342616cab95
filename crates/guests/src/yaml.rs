//! YAML as JSON's values, for cloud-config: mistakes are reported by line and column.
//!
//! What JSON cannot say (keys that are lists, several documents) is a mistake here, and an alias may
//! not blow a short text up to a huge one.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// Values that one text may have, aliases counted as often as they stand for something.
const VALUES_MAX: usize = 200_000;
const DEPTH_MAX: usize = 64;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct YamlError {
    /// Counted from one.
    pub line: usize,
    /// Counted from one.
    pub column: usize,
    /// In words.
    pub reason: String,
}

/// The one document of a text; `Null` for a text without any.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| at(error.marker(), error.info()))?;
        builder.take(event, &span.start)?;
    }
    Ok(builder.document.unwrap_or_default())
}

fn at(marker: &Marker, reason: impl Into<String>) -> YamlError {
    YamlError { line: marker.line(), column: marker.col() + 1, reason: reason.into() }
}

/// A list or a mapping that is not complete yet.
enum Open {
    List(Vec<Value>),
    /// What is there, a key without its value yet, what is to be merged.
    Map(Map<String, Value>, Option<String>, Vec<Map<String, Value>>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, usize)>,
    anchors: HashMap<usize, (Value, usize)>,
    document: Option<Value>,
    values: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, marker: &Marker) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(_) if self.document.is_some() => {
                Err(at(marker, "a second document begins; there may be one only"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                self.put(value, anchor, marker)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List(Vec::new()), anchor, marker),
            Event::MappingStart(anchor, _) => {
                self.begin(Open::Map(Map::new(), None, Vec::new()), anchor, marker)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (open, anchor) = self.open.pop().expect("the parser closes what it opened");
                let value = match open {
                    Open::List(list) => Value::Array(list),
                    Open::Map(map, _, merged) => Value::Object(with_merged(map, merged)),
                };
                self.put(value, anchor, marker)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (value, size) =
                    known.ok_or_else(|| at(marker, "an alias stands inside what it stands for"))?;
                self.values += size;
                self.put(value, 0, marker)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, anchor: usize, marker: &Marker) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(at(marker, format!("more than {DEPTH_MAX} levels inside each other")));
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn put(&mut self, value: Value, anchor: usize, marker: &Marker) -> Result<(), YamlError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(at(marker, format!("more than {VALUES_MAX} values")));
        }
        if anchor != 0 {
            let size = count(&value);
            self.anchors.insert(anchor, (value.clone(), size));
        }
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some((Open::List(list), _)) => list.push(value),
            Some((Open::Map(map, key, merged), _)) => match key.take() {
                None => *key = Some(key_text(value, map, marker)?),
                Some(name) if name == "<<" => merged.extend(mappings(value, marker)?),
                Some(name) => _ = map.insert(name, value),
            },
        }
        Ok(())
    }
}

fn key_text(value: Value, map: &Map<String, Value>, marker: &Marker) -> Result<String, YamlError> {
    let name = match value {
        Value::String(text) => text,
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => return Err(at(marker, "a key must be a word, not a list or a mapping")),
    };
    if name != "<<" && map.contains_key(&name) {
        return Err(at(marker, format!("the key '{name}' stands there twice")));
    }
    Ok(name)
}

/// What YAML 1.1's merge key brings.
fn mappings(value: Value, marker: &Marker) -> Result<Vec<Map<String, Value>>, YamlError> {
    let sources = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    let mapping = |source| match source {
        Value::Object(source) => Ok(source),
        _ => Err(at(marker, "only mappings can be merged")),
    };
    sources.into_iter().map(mapping).collect()
}

/// What stands in a mapping itself stays.
fn with_merged(mut map: Map<String, Value>, merged: Vec<Map<String, Value>>) -> Map<String, Value> {
    for (key, value) in merged.into_iter().flatten() {
        map.entry(key).or_insert(value);
    }
    map
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// The core schema, with YAML 1.1's words for truth, which cloud-init's parser knows.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let forced = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || forced {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return true.into();
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return false.into();
        }
        _ => {}
    }
    let octal = text.strip_prefix("0o").or_else(|| {
        let rest = text.strip_prefix('0')?;
        (!rest.is_empty() && rest.bytes().all(|digit| digit.is_ascii_digit())).then_some(rest)
    });
    let whole = match (octal, text.strip_prefix("0x")) {
        (Some(digits), _) => i64::from_str_radix(digits, 8).ok(),
        (_, Some(digits)) => i64::from_str_radix(digits, 16).ok(),
        _ => text.parse().ok(),
    };
    if let Some(number) = whole {
        return number.into();
    }
    let looks_like_number =
        text.starts_with(|sign: char| sign.is_ascii_digit() || "+-.".contains(sign));
    let number = looks_like_number.then(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    number.flatten().map_or_else(|| text.into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cloud_configs_become_values() {
        let text = "#cloud-config\nusers:\n  - default\n  - name: ann\n    sudo: [ALL]\n\
            base: &b {a: 1, mode: 0644}\nmore:\n  <<: *b\n  a: 2\npackage_update: yes\n\
            write_files:\n- path: /x\n  content: |\n    one\n    two\n  permissions: '0644'\n";
        let expected = json!({
            "users": ["default", {"name": "ann", "sudo": ["ALL"]}],
            "base": {"a": 1, "mode": 0o644},
            "more": {"a": 2, "mode": 0o644},
            "package_update": true,
            "write_files": [{"path": "/x", "content": "one\ntwo\n", "permissions": "0644"}],
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, line, column, reason) in [
            ("a: 1\na: 2\n", 2, 1, "twice"),
            ("a: 1\n b: 2\n", 2, 3, ""),
            ("users:\n  - x\nb: [\n", 4, 1, ""),
            ("a: 'x\n", 1, 4, ""),
            ("? [a]\n: 1\n", 1, 5, "key must be a word"),
            ("a\n---\nb\n", 2, 1, "second document"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.reason.contains(reason), "{text:?}: {error}");
            assert_eq!(error.line, line, "{text:?}: {error}");
            if !reason.is_empty() {
                assert_eq!(error.column, column, "{text:?}: {error}");
            }
        }
    }

    #[test]
    fn a_short_text_cannot_become_a_huge_one() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(parse(&text).unwrap_err().reason.contains("values"));
        assert!(parse(&"[".repeat(100)).unwrap_err().reason.contains("levels"));
    }
}
