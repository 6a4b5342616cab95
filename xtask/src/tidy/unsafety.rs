//! `unsafe` stays in few, small, documented modules.

use anyhow::Result;

use super::Tree;
use super::source::{Source, has_word};

/// The crates where safe Rust cannot do the work. Everywhere else the lint denies it; this rule
/// also stops a module from switching the lint off.
const HOMES: &[&str] =
    &["crates/linux/", "crates/memory/", "crates/jit/", "crates/accel/", "crates/linux_user/"];

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for source in &tree.sources {
        let Some(first) = source.code.iter().position(|line| is_unsafe(line)) else { continue };
        let place = format!("{}:{}", source.path, first + 1);
        if !source.is_in(HOMES) {
            complaints.push(format!("{place}: unsafe outside its crates"));
        } else if !source.lines.iter().any(|line| line.contains("// UNSAFETY: ")) {
            complaints.push(format!("{place}: no '// UNSAFETY:' says why safe Rust cannot"));
        }
    }
    Ok(complaints)
}

/// One line: how many unsafe blocks there are, and in how many files.
pub fn census(tree: &Tree) -> String {
    let blocks = |source: &Source| source.code.iter().filter(|line| is_unsafe(line)).count();
    let counts: Vec<usize> = tree.sources.iter().map(blocks).filter(|count| *count > 0).collect();
    format!("{} unsafe places in {} files", counts.iter().sum::<usize>(), counts.len())
}

/// `unsafe_code` in an attribute is no unsafe code, `unsafe(no_mangle)` and the keyword are.
fn is_unsafe(line: &str) -> bool {
    has_word(line, "unsafe")
}
