//! Files: names that say something, sizes that fit a head, modules that are reached.

use std::path::Path;

use anyhow::Result;

use super::Tree;
use super::source::Source;

const LINES_WARN: usize = 600;
const LINES_MAX: usize = 1500;

/// Names that hold anything and say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "base", "misc", "helper", "manager"];

/// Roots of a crate, which nobody declares.
const ROOTS: &[&str] = &["lib.rs", "main.rs", "build.rs"];

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for source in &tree.sources {
        complaints.extend(empty_name(source));
        complaints.extend(dash(source));
        complaints.extend(size(source));
        complaints.extend(todo(source));
        if is_orphan(tree, source) {
            complaints.push(format!("{}: no module declares it", source.path));
        }
    }
    Ok(complaints)
}

fn empty_name(source: &Source) -> Option<String> {
    let parts = source.path.split(['/', '.']);
    let empty = parts.filter(|part| EMPTY_NAMES.contains(part)).collect::<Vec<_>>();
    let word = empty.first()?;
    Some(format!("{}: '{word}' says nothing about what is inside", source.path))
}

fn dash(source: &Source) -> Option<String> {
    source.path.contains('-').then(|| format!("{}: a dash in a path, use '_'", source.path))
}

fn size(source: &Source) -> Option<String> {
    let is_test = source.path.contains("tests/") || source.path.ends_with("tests.rs");
    let lines = source.lines.len();
    if lines > LINES_WARN && !is_test {
        println!("note: {} has {lines} lines, perhaps it is two rooms", source.path);
    }
    let table = source.path.contains("/table");
    (lines > LINES_MAX && !is_test && !table)
        .then(|| format!("{}: {lines} lines, at most {LINES_MAX}", source.path))
}

fn todo(source: &Source) -> Option<String> {
    if source.is_in(&["xtask/"]) {
        return None;
    }
    let marks = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];
    let marked =
        |line: &String| marks.iter().any(|mark| line.contains(mark)) && !line.contains("TODO(#");
    let at = source.lines.iter().position(marked)?;
    Some(format!("{}:{}: unfinished, and no issue number", source.path, at + 1))
}

/// A file that no `mod` line reaches is never compiled.
fn is_orphan(tree: &Tree, source: &Source) -> bool {
    let path = Path::new(&source.path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new(""));
    let in_target_folder = |kind| folder.ends_with(kind);
    let explicit = ["tests", "benches", "examples", "bin", "fuzz_targets"];
    if ROOTS.contains(&&*name) || explicit.into_iter().any(in_target_folder) {
        return false;
    }
    let (module, parents) = if name == "mod.rs" {
        let module = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (module, folder.parent().unwrap_or(Path::new("")))
    } else {
        (name.trim_end_matches(".rs").to_owned(), folder)
    };
    let parent_name = parents.file_name().unwrap_or_default().to_string_lossy();
    let beside = parents.with_file_name(format!("{parent_name}.rs"));
    let declared = |other: &&Source| {
        let other_path = Path::new(&other.path);
        let is_parent = other_path.parent() == Some(parents) || other_path == beside;
        is_parent && other.uncommented.iter().any(|line| declares(line, &module))
    };
    !tree.sources.iter().any(|other| declared(&other))
}

fn declares(line: &str, module: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix("pub").map_or(line, |rest| {
        let rest = rest.trim_start();
        rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest)
    });
    let declaration =
        line.trim_start().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
    declaration.is_some_and(|name| name.trim() == module)
        || line.contains(&format!("#[path = \"{module}.rs\"]"))
}
