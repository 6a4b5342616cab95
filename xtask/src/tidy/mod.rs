//! `cargo xtask tidy`: the rules that no compiler knows. `cargo test` runs it too.
//!
//! A rule is a function from the [`Tree`] to complaints; a new one is one row in [`RULES`].

mod architecture;
mod docs;
mod fences;
mod files;
mod functions;
mod imports;
mod source;
mod unsafety;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::workspace::{self, Member};
use source::Source;

/// Everything the rules look at.
pub struct Tree {
    root: PathBuf,
    members: Vec<Member>,
    sources: Vec<Source>,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let members = workspace::members(root)?;
        let sources = workspace::files(root, ".rs")?
            .iter()
            .map(|path| Source::read(root, path))
            .collect::<Result<_>>()?;
        Ok(Self { root: root.to_path_buf(), members, sources })
    }
}

/// A rule's name and the function that finds what breaks it.
type Rule = (&'static str, fn(&Tree) -> Result<Vec<String>>);

const RULES: &[Rule] = &[
    ("imports", imports::check),
    ("fences", fences::check),
    ("unsafe", unsafety::check),
    ("functions", functions::check),
    ("files", files::check),
    ("architecture", architecture::check),
    ("docs", docs::check),
];

/// Runs the task. `--bless` writes the ratchet of function lengths anew.
pub fn run(arguments: &[String]) -> Result<()> {
    let root = workspace::root();
    match arguments {
        [] => {}
        [word] if word == "--bless" => functions::bless(&Tree::read(&root)?)?,
        _ => bail!("tidy takes no argument but --bless"),
    }
    let complaints = complaints(&root)?;
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    match complaints.len() {
        0 => {
            println!("tidy: {} rules hold, {}", RULES.len(), unsafety::census(&Tree::read(&root)?));
            Ok(())
        }
        count => bail!("{count} things are untidy"),
    }
}

/// What is untidy in the workspace at `root`, a line each, with the rule's name in front.
fn complaints(root: &Path) -> Result<Vec<String>> {
    let tree = Tree::read(root)?;
    let mut all = Vec::new();
    for (name, check) in RULES {
        all.extend(check(&tree)?.into_iter().map(|complaint| format!("{name}: {complaint}")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_tree_is_tidy() {
        let complaints = complaints(&workspace::root()).unwrap();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    /// The fixture is a workspace with one offence against each rule.
    #[test]
    fn each_rule_finds_its_offence() {
        let fixture = workspace::root().join("xtask/fixtures/untidy");
        let complaints = complaints(&fixture).unwrap();
        for expected in [
            "imports: block may not import daemon",
            "imports: block may not use the foreign crate tokio",
            "imports: stowaway is in no layer",
            "fences: crates/block/src/lib.rs:8: 'libvirt'",
            "fences: crates/block/src/lib.rs:13: cfg(target_arch)",
            "unsafe: crates/block/src/lib.rs:17",
            "functions: crates/block/src/lib.rs: fn endless has 73 lines",
            "files: crates/block/src/util.rs: 'util'",
            "files: crates/block/src/orphan.rs: no module declares it",
            "architecture: ARCHITECTURE.md does not name the crate stowaway",
            "architecture: ARCHITECTURE.md names crates/gone, which does not exist",
            "docs: README.md:3: the link 'docs/missing.md' leads nowhere",
        ] {
            let found = complaints.iter().any(|complaint| complaint.starts_with(expected));
            assert!(found, "no complaint '{expected}' among:\n{}", complaints.join("\n"));
        }
    }
}
