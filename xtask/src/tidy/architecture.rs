//! ARCHITECTURE.md is a map: it must show every crate, and nothing that is gone.

use std::fs;

use anyhow::{Context, Result};

use super::Tree;

const MAP: &str = "ARCHITECTURE.md";

/// Folders whose paths, when the map names them, must exist.
const OURS: &[&str] = &["crates/", "docs/", "tests/", "xtask/", "web/", ".ci/"];

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let text = fs::read_to_string(tree.root.join(MAP)).with_context(|| format!("No {MAP}"))?;
    let mut complaints = Vec::new();
    for member in &tree.members {
        if !text.contains(&format!("`{}`", member.name)) {
            complaints.push(format!("{MAP} does not name the crate {}", member.name));
        }
    }
    for path in quoted(&text).filter(|word| OURS.iter().any(|folder| word.starts_with(folder))) {
        let pattern = path.contains(['*', '<', '{', ' ']) || path.contains("NAME");
        if !pattern && !tree.root.join(path).exists() {
            complaints.push(format!("{MAP} names {path}, which does not exist"));
        }
    }
    Ok(complaints)
}

/// The words between single back-ticks, line by line; fenced blocks hold none.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}
