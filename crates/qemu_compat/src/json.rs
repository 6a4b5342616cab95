//! JSON texts exactly as QEMU's tools print them: members stand in the order of QEMU's hash
//! table, so that outputs compare byte by byte.

use std::cmp::Reverse;
use std::fmt::Write;

use serde_json::{Map, Value};

/// The table's size.
const BUCKETS: u32 = 512;

/// The bucket of a key: the hash that QEMU's dictionaries use.
fn bucket(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let mut value = 0x238f_13af_u32.wrapping_mul(bytes.len() as u32);
    for (index, byte) in bytes.iter().enumerate() {
        value = value.wrapping_add(u32::from(*byte) << (index * 5 % 24));
    }
    1_103_515_243_u32.wrapping_mul(value).wrapping_add(12_345) % BUCKETS
}

/// The members of a map in the order in which they are printed.
pub fn ordered(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    // Within a bucket the newest comes first; members are mostly made in alphabetical order.
    members.sort_by_key(|(key, _)| (bucket(key), Reverse(key.as_str())));
    members
}

/// On several lines, indented by four.
pub fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, Some(0));
    text
}

/// On one line.
pub fn compact(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, None);
    text
}

fn new_line(text: &mut String, depth: Option<usize>) {
    if let Some(depth) = depth {
        text.push('\n');
        for _ in 0..depth {
            text.push_str("    ");
        }
    }
}

fn write_value(text: &mut String, value: &Value, depth: Option<usize>) {
    let inner = depth.map(|depth| depth + 1);
    let separator = if depth.is_some() { "," } else { ", " };
    match value {
        Value::Object(map) => {
            text.push('{');
            for (number, (key, value)) in ordered(map).into_iter().enumerate() {
                if number > 0 {
                    text.push_str(separator);
                }
                new_line(text, inner);
                write_text(text, key);
                text.push_str(": ");
                write_value(text, value, inner);
            }
            new_line(text, depth);
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (number, value) in list.iter().enumerate() {
                if number > 0 {
                    text.push_str(separator);
                }
                new_line(text, inner);
                write_value(text, value, inner);
            }
            new_line(text, depth);
            text.push(']');
        }
        Value::String(string) => write_text(text, string),
        other => _ = write!(text, "{other}"),
    }
}

/// A text with everything beyond printable ASCII escaped.
fn write_text(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            ' '..='~' => text.push(c),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    _ = write!(text, "\\u{unit:04X}");
                }
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The order in which qemu-img 10.0 prints these.
    #[test]
    fn members_stand_as_qemu_prints_them() {
        let value = json!({"virtual-size": 1, "filename": "a", "cluster-size": 2, "format": "raw",
            "actual-size": 3, "dirty-flag": false, "children": []});
        assert_eq!(
            compact(&value),
            r#"{"children": [], "virtual-size": 1, "filename": "a", "cluster-size": 2, "format": "raw", "actual-size": 3, "dirty-flag": false}"#
        );
        assert_eq!(pretty(&json!({"a": []})), "{\n    \"a\": [\n    ]\n}");
    }
}
