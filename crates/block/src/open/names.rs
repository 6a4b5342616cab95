//! Names of images that a file's name alone does not describe.

use serde_json::{Map, Value, json};

use crate::node::NodeRef;
use crate::options::OpenOptions;

/// Options without which the contents would be others, or unreadable.
const STRONG: [&str; 3] = ["key-secret", "offset", "size"];
const STRONG_BELOW: [&str; 1] = ["encrypt."];

/// The name in JSON, where one is needed.
pub(super) fn full(node: &NodeRef, given: &OpenOptions) -> Option<String> {
    crate::formats::find(node.driver())?;
    let file = node.file()?;
    let below = file.filename();
    let strong: Vec<_> = given
        .iter()
        .filter(|(key, _)| {
            STRONG.contains(key) || STRONG_BELOW.iter().any(|start| key.starts_with(start))
        })
        .collect();
    if strong.is_empty() && !below.starts_with("json:") {
        return None;
    }
    let mut tree = Map::new();
    for (key, value) in strong {
        tree.insert(key.to_owned(), value.clone());
    }
    tree.insert("driver".into(), node.driver().into());
    tree.insert("file".into(), described(&file, &below));
    Some(format!("json:{}", Value::Object(tree)))
}

/// A child as an object.
pub(crate) fn described(node: &NodeRef, name: &str) -> Value {
    name.strip_prefix("json:")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| json!({"driver": node.driver(), "filename": name}))
}
