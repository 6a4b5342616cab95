//! A Rust file, with comments and strings told apart from code.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace;

/// A source file in three views of the same lines.
pub struct Source {
    /// The path as seen from the workspace's root.
    pub path: String,
    /// The lines as they stand.
    pub lines: Vec<String>,
    /// The lines with comments blanked.
    pub uncommented: Vec<String>,
    /// The lines with comments and the insides of strings blanked.
    pub code: Vec<String>,
    /// From this line on, everything is `#[cfg(test)]`.
    pub tests_from: usize,
}

impl Source {
    pub fn read(root: &Path, path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("Cannot read the source file {}", path.display()))?;
        Ok(Self::new(workspace::relative(root, path), &text))
    }

    pub fn new(path: String, text: &str) -> Self {
        let (uncommented, code) = blank(text);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let lines_as_they_stand = lines(text);
        let is_test_file = path.contains("/tests/") || path.ends_with("/tests.rs");
        let tests_from = if is_test_file {
            0
        } else {
            let marker = |line: &String| line.trim_start().starts_with("#[cfg(test)]");
            let followed = |at: &usize| {
                let next = lines_as_they_stand.get(at + 1).map_or("", |line| line.trim_start());
                next.starts_with("mod ") && next.ends_with('{')
            };
            let markers = lines_as_they_stand.iter().enumerate();
            let mut blocks = markers.filter(|(_, line)| marker(line)).map(|(at, _)| at);
            blocks.find(followed).unwrap_or(lines_as_they_stand.len())
        };
        Self {
            path,
            uncommented: lines(&uncommented),
            code: lines(&code),
            lines: lines_as_they_stand,
            tests_from,
        }
    }

    /// The crate's folder: `crates/block` of `crates/block/src/raw.rs`.
    pub fn is_in(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.path.starts_with(prefix))
    }
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    String,
    /// A raw string ends with this many `#`.
    RawString(usize),
}

/// The text without comments, and without comments and string contents; line breaks stay.
fn blank(text: &str) -> (String, String) {
    let characters: Vec<char> = text.chars().collect();
    let (mut uncommented, mut code) = (String::new(), String::new());
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        let (next, taken) = step(inside, rest, code.chars().last());
        for &character in &rest[..taken] {
            let comment = |state| matches!(state, Inside::LineComment | Inside::BlockComment(_));
            let string = |state| matches!(state, Inside::String | Inside::RawString(_));
            let blank_comment = comment(inside) || comment(next);
            let blank_code = blank_comment || (string(inside) && string(next));
            let keep = |blank: bool| if character == '\n' || !blank { character } else { ' ' };
            uncommented.push(keep(blank_comment));
            code.push(keep(blank_code));
        }
        inside = next;
        at += taken;
    }
    (uncommented, code)
}

/// The state after the next characters, and how many of them were taken.
fn step(inside: Inside, rest: &[char], before: Option<char>) -> (Inside, usize) {
    let starts = |text: &str| text.chars().eq(rest.iter().copied().take(text.chars().count()));
    match inside {
        Inside::LineComment if rest[0] == '\n' => (Inside::Code, 1),
        Inside::LineComment => (inside, 1),
        Inside::BlockComment(depth) if starts("*/") && depth == 1 => (Inside::Code, 2),
        Inside::BlockComment(depth) if starts("*/") => (Inside::BlockComment(depth - 1), 2),
        Inside::BlockComment(depth) if starts("/*") => (Inside::BlockComment(depth + 1), 2),
        Inside::BlockComment(_) => (inside, 1),
        Inside::String if rest[0] == '\\' => (inside, rest.len().min(2)),
        Inside::String if rest[0] == '"' => (Inside::Code, 1),
        Inside::String => (inside, 1),
        Inside::RawString(hashes) => {
            let closing = format!("\"{}", "#".repeat(hashes));
            if starts(&closing) { (Inside::Code, 1 + hashes) } else { (inside, 1) }
        }
        Inside::Code if starts("//") => (Inside::LineComment, 2),
        Inside::Code if starts("/*") => (Inside::BlockComment(1), 2),
        Inside::Code if rest[0] == '"' => (Inside::String, 1),
        Inside::Code if rest[0] == '\'' => (inside, character_literal(rest)),
        Inside::Code if rest[0] == 'r' && !before.is_some_and(is_word) => {
            let hashes = rest[1..].iter().take_while(|character| **character == '#').count();
            let quoted = rest.get(1 + hashes) == Some(&'"');
            if quoted { (Inside::RawString(hashes), 2 + hashes) } else { (inside, 1) }
        }
        Inside::Code => (inside, 1),
    }
}

/// How long the character literal at the start of `rest` is; 1 when it is a lifetime's tick.
fn character_literal(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') {
        let end = rest.iter().skip(3).take(10).position(|character| *character == '\'');
        return end.map_or(1, |end| end + 4);
    }
    if rest.get(2) == Some(&'\'') { 3 } else { 1 }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `line` holds `word` with no letter, digit or underscore beside it.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_told_apart() {
        for (text, uncommented, code) in [
            ("a // b", "a     ", "a     "),
            ("a /* /* b */ */ c", "a               c", "a               c"),
            (r#"f("x // y") "#, r#"f("x // y") "#, r#"f("      ") "#),
            (r#"f("\"x", y)"#, r#"f("\"x", y)"#, r#"f("   ", y)"#),
            (r##"r#"a"b"# c"##, r##"r#"a"b"# c"##, r##"r#"   "# c"##),
            ("'\"' b", "'\"' b", "'\"' b"),
            ("&'a str // x", "&'a str     ", "&'a str     "),
            (r"'\n' // x", r"'\n'     ", r"'\n'     "),
        ] {
            assert_eq!(blank(text), (uncommented.to_owned(), code.to_owned()), "{text}");
        }
    }

    #[test]
    fn words_have_borders() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
    }
}
