//! Documents: links lead somewhere, the front page stays short, its table is the generated one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Tree;
use crate::{claims, workspace};

/// A stranger reads this much.
const README_LINES_MAX: usize = 120;
/// The executable chooses an applet and nothing else.
const MAIN_LINES_MAX: usize = 100;

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in workspace::files(&tree.root, ".md")? {
        let name = workspace::relative(&tree.root, &path);
        let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {name}"))?;
        let folder = path.parent().unwrap_or(&tree.root);
        complaints.extend(dead_links(&name, folder, &text));
        if name == "README.md" {
            complaints.extend(too_long(&name, &text, README_LINES_MAX));
        }
        complaints.extend(claims::stale(&name, &text));
    }
    let main = tree.root.join("crates/hostel/src/main.rs");
    if main.exists() {
        complaints.extend(too_long("main.rs", &fs::read_to_string(main)?, MAIN_LINES_MAX));
    }
    Ok(complaints)
}

fn too_long(name: &str, text: &str, lines_max: usize) -> Option<String> {
    let lines = text.lines().count();
    (lines > lines_max).then(|| format!("{name}: {lines} lines, at most {lines_max}"))
}

fn dead_links(name: &str, folder: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.starts_with("```");
        if fenced {
            continue;
        }
        for target in targets(line) {
            let outside = target.contains("://") || target.starts_with("mailto:");
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let own_anchor = path.is_empty() && has_heading(text, anchor);
            let exists = !path.is_empty() && folder.join(path).exists();
            if !outside && !own_anchor && !exists {
                complaints
                    .push(format!("{name}:{}: the link '{target}' leads nowhere", number + 1));
            }
        }
    }
    complaints
}

/// The targets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

fn has_heading(text: &str, anchor: &str) -> bool {
    let slug = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    text.lines().any(|line| line.starts_with('#') && slug(line.trim_start_matches('#')) == anchor)
}
