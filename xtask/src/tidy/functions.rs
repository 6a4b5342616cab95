//! The ratchet on function lengths: 70 lines at most, and what is longer may only shrink.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::Tree;
use super::source::Source;

const LINES_MAX: usize = 70;

/// Functions that were longer when they came, as `path fn lines`.
const RATCHET: &str = "xtask/long-functions.txt";

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let ratchet = read_ratchet(tree)?;
    let mut complaints = Vec::new();
    for ((path, name), lines) in long_functions(tree) {
        let before = ratchet.get(&(path.clone(), name.clone())).copied().unwrap_or(LINES_MAX);
        if lines > before {
            complaints.push(format!("{path}: fn {name} has {lines} lines, at most {before}"));
        }
    }
    Ok(complaints)
}

/// Writes the ratchet anew: for a function that is a table, and must be long.
pub fn bless(tree: &Tree) -> Result<()> {
    let mut text = String::from("# Functions over 70 lines: each may shrink, none may grow.\n");
    for ((path, name), lines) in long_functions(tree) {
        _ = writeln!(text, "{path} {name} {lines}");
    }
    fs::write(tree.root.join(RATCHET), text).with_context(|| format!("Cannot write {RATCHET}"))
}

type Lengths = BTreeMap<(String, String), usize>;

fn read_ratchet(tree: &Tree) -> Result<Lengths> {
    let path = tree.root.join(RATCHET);
    if !path.exists() {
        return Ok(Lengths::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {RATCHET}"))?;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let mut word = || words.next().with_context(|| format!("{RATCHET}: '{line}'"));
            Ok(((word()?, word()?), word()?.parse()?))
        })
        .collect()
}

/// The longest function of each name in each file, where it is over the limit.
fn long_functions(tree: &Tree) -> Lengths {
    let mut found = Lengths::new();
    for source in &tree.sources {
        for (name, lines) in lengths(source) {
            if lines > LINES_MAX {
                let longest = found.entry((source.path.clone(), name)).or_default();
                *longest = lines.max(*longest);
            }
        }
    }
    found
}

/// Every function outside tests, with its lines from `fn` to the closing brace. rustfmt puts that
/// brace at the indentation of the `fn`.
fn lengths(source: &Source) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in source.code.iter().enumerate().take(source.tests_from) {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let mut rest = source.code[start..].iter();
        if let Some(length) = rest.position(|line| line.trim_end() == closing) {
            found.push((name, length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let trimmed = line.trim_start();
    if line.trim_end().ends_with([';', '}']) {
        return None; // a declaration, or a body of one line
    }
    let (qualifiers, rest) = trimmed.split_once("fn ")?;
    let words = qualifiers.split_whitespace();
    let known = |word: &str| {
        word.starts_with("pub")
            || word.starts_with('"')
            || matches!(word, "const" | "async" | "unsafe" | "extern" | "crate)" | "super)")
    };
    let name: String = rest
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect();
    (words.into_iter().all(known) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_from_fn_to_brace() {
        let text = "impl X {\n    pub(crate) fn a(\n        b: u8,\n    ) {\n        c();\n    }\n\n    \
                    fn one() {}\n}\n";
        let source = Source::new("crates/x/src/lib.rs".to_owned(), text);
        assert_eq!(lengths(&source), [("a".to_owned(), 5)]);
    }
}
