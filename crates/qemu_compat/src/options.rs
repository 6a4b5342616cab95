//! The two syntaxes of option strings.
//!
//! *Opts* (`-drive file=a,,b,if=none,readonly`): a key without a value is on, `nokey` is off,
//! a doubled comma is a comma. *Keyval* (`-blockdev driver=raw,file.filename=x`): dotted keys
//! make a tree, every key has a value; a text that begins with `{` is JSON.

use serde_json::{Map, Value};
use thiserror::Error;

/// What is wrong with an option string.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// A key without a value where one must be.
    #[error("Expected '=' after parameter '{key}'")]
    NoValue {
        /// The key.
        key: String,
    },
    /// A key that cannot be one.
    #[error("Invalid parameter '{key}'")]
    BadKey {
        /// The key.
        key: String,
    },
    /// A key is used both as a value and as a tree.
    #[error("Parameters '{key}.*' used inconsistently")]
    Inconsistent {
        /// The key.
        key: String,
    },
    /// Not JSON.
    #[error("JSON parse error, {text}")]
    Json {
        /// What the parser says.
        text: String,
    },
}

/// Cuts a value at the next single comma; doubled ones become one.
fn take_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    while let Some(comma) = rest.find(',') {
        value.push_str(&rest[..comma]);
        rest = &rest[comma + 1..];
        match rest.strip_prefix(',') {
            Some(after) => {
                value.push(',');
                rest = after;
            }
            None => return (value, rest),
        }
    }
    value.push_str(rest);
    (value, "")
}

/// Parses the *opts* syntax. The first value may stand without its key, which is then `implied`.
pub fn parse_opts(
    text: &str,
    implied: Option<&str>,
) -> Result<Vec<(String, String)>, OptionsError> {
    let mut pairs = Vec::new();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        if rest[end..].starts_with('=') {
            let key = rest[..end].to_string();
            let (value, after) = take_value(&rest[end + 1..]);
            pairs.push((key, value));
            rest = after;
        } else if let (true, Some(key)) = (first, implied) {
            let (value, after) = take_value(rest);
            pairs.push((key.to_string(), value));
            rest = after;
        } else {
            let (word, after) = take_value(rest);
            match word.strip_prefix("no") {
                Some(key) if !key.is_empty() => pairs.push((key.to_string(), "off".into())),
                _ => pairs.push((word, "on".into())),
            }
            rest = after;
        }
        first = false;
    }
    Ok(pairs)
}

/// Parses the *keyval* syntax or JSON into a tree. All values of keyval are texts.
pub fn parse_keyval(text: &str, implied: Option<&str>) -> Result<Value, OptionsError> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| OptionsError::Json { text: error.to_string() });
    }
    let mut tree = Value::Object(Map::new());
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (key, value, after) = if rest[end..].starts_with('=') {
            let (value, after) = take_value(&rest[end + 1..]);
            (&rest[..end], value, after)
        } else if let (true, Some(key)) = (first, implied) {
            let (value, after) = take_value(rest);
            (key, value, after)
        } else {
            return Err(OptionsError::NoValue { key: rest[..end].to_string() });
        };
        put(&mut tree, key, value)?;
        rest = after;
        first = false;
    }
    Ok(make_lists(tree))
}

fn put(tree: &mut Value, key: &str, value: String) -> Result<(), OptionsError> {
    let parts: Vec<&str> = key.split('.').collect();
    let is_key = |part: &&str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    if !parts.iter().all(is_key) {
        return Err(OptionsError::BadKey { key: key.to_string() });
    }
    let mut place = tree;
    for part in &parts[..parts.len() - 1] {
        let Value::Object(map) = place else {
            return Err(OptionsError::Inconsistent { key: key.to_string() });
        };
        place = map.entry(*part).or_insert_with(|| Value::Object(Map::new()));
    }
    let last = parts[parts.len() - 1];
    match place {
        Value::Object(map) if !map.get(last).is_some_and(Value::is_object) => {
            map.insert(last.to_string(), Value::String(value));
            Ok(())
        }
        _ => Err(OptionsError::Inconsistent { key: key.to_string() }),
    }
}

/// Maps whose keys count from 0 are lists.
fn make_lists(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let map: Map<String, Value> =
        map.into_iter().map(|(key, value)| (key, make_lists(value))).collect();
    let is_list =
        !map.is_empty() && (0..map.len()).all(|index| map.contains_key(&index.to_string()));
    if !is_list {
        return Value::Object(map);
    }
    let mut map = map;
    let list = (0..map.len()).filter_map(|index| map.remove(&index.to_string()));
    let list: Vec<Value> = list.collect();
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn opts_have_flags_and_doubled_commas() {
        let parse = |text| parse_opts(text, Some("file")).unwrap();
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(parse("a.img"), [pair("file", "a.img")]);
        assert_eq!(parse("file=a,,b,if=none"), [pair("file", "a,b"), pair("if", "none")]);
        assert_eq!(
            parse("x=1,readonly,nosnap"),
            [pair("x", "1"), pair("readonly", "on"), pair("snap", "off")]
        );
        assert_eq!(parse("x="), [pair("x", "")]);
    }

    #[test]
    fn keyval_makes_trees_and_lists() {
        let tree = parse_keyval("driver=quorum,children.0.driver=raw,children.1=b", None).unwrap();
        assert_eq!(tree, json!({"driver": "quorum", "children": [{"driver": "raw"}, "b"]}));
        assert_eq!(parse_keyval("{\"a\": 1}", None).unwrap(), json!({"a": 1}));
        assert_eq!(parse_keyval("a", None), Err(OptionsError::NoValue { key: "a".into() }));
        assert!(parse_keyval("a=1,a.b=2", None).is_err());
    }
}
