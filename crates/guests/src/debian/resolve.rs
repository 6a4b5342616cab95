//! Which packages belong together: a closure over what they depend on.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::archive::{Listed, listed};
use crate::{GuestError, Result};

/// A system has fewer packages than this.
const PACKAGES_MAX: usize = 5000;

/// An index that can be asked for packages by name, and by what they stand in for.
pub struct Index<'a> {
    by_name: HashMap<&'a str, &'a str>,
    providers: BTreeMap<&'a str, Vec<&'a str>>,
    suite: &'a str,
}

fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The name in `name:any (>= 1)`.
fn name(text: &str) -> &str {
    let text = text.trim();
    text.split([' ', '(', ':', '[']).next().unwrap_or(text)
}

impl<'a> Index<'a> {
    /// Reads an index.
    pub fn new(text: &'a str, suite: &'a str) -> Self {
        let mut index = Self { by_name: HashMap::new(), providers: BTreeMap::new(), suite };
        for paragraph in text.split("\n\n") {
            let Some(own) = field(paragraph, "Package") else { continue };
            index.by_name.insert(own, paragraph);
            for provided in field(paragraph, "Provides").unwrap_or_default().split(',') {
                index.providers.entry(name(provided)).or_default().push(own);
            }
        }
        index
    }

    /// Essential packages, and those that every Debian has.
    pub fn required(&self) -> Vec<&'a str> {
        let is = |paragraph: &str| {
            field(paragraph, "Essential") == Some("yes")
                || field(paragraph, "Priority") == Some("required")
        };
        let mut names: Vec<&str> =
            self.by_name.iter().filter(|(_, text)| is(text)).map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    /// The packages of these names and all that they depend on, without those of `without`.
    pub fn closure(&self, wanted: &[&'a str], without: &[&str]) -> Result<Vec<Listed>> {
        let mut chosen: BTreeSet<&str> = BTreeSet::new();
        let mut pending: VecDeque<&str> = wanted.iter().copied().collect();
        let mut order = Vec::new();
        while let Some(next) = pending.pop_front() {
            if chosen.contains(next) || chosen.len() >= PACKAGES_MAX {
                continue;
            }
            let paragraph = self.by_name.get(next).ok_or_else(|| GuestError::NoPackage {
                package: next.to_owned(),
                suite: self.suite.to_owned(),
            })?;
            chosen.insert(next);
            order.extend(listed(paragraph));
            for group in ["Pre-Depends", "Depends"]
                .iter()
                .filter_map(|name| field(paragraph, name))
                .flat_map(|list| list.split(','))
            {
                pending.extend(self.choice(group, &chosen, without));
            }
        }
        Ok(order)
    }

    /// One of the alternatives `a | b`: one that is there already, or the first that can be had.
    fn choice(&self, group: &'a str, chosen: &BTreeSet<&str>, without: &[&str]) -> Option<&'a str> {
        let names: Vec<&str> = group.split('|').map(name).collect();
        let stands_in = |wanted: &str| self.providers.get(wanted).into_iter().flatten().copied();
        let is_there = |wanted: &&str| {
            chosen.contains(*wanted)
                || without.contains(wanted)
                || stands_in(wanted).any(|name| chosen.contains(name))
        };
        // An alternative for older releases does not count only because its name is there.
        let is_old = |text: &&str| text.contains("(<<") || text.contains("(<=");
        let present = group.split('|').filter(|text| !is_old(text)).map(name);
        if present.into_iter().any(|name| is_there(&name)) {
            return None;
        }
        let known = names.iter().find(|name| self.by_name.contains_key(**name)).copied();
        known.or_else(|| names.iter().find_map(|name| stands_in(name).next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_alternatives_and_stand_ins_are_followed() {
        let sum = "a".repeat(64);
        let paragraph = |name: &str, more: &str| {
            format!("Package: {name}\nVersion: 1\n{more}Filename: f\nSHA256: {sum}")
        };
        let text = [
            paragraph("base", "Essential: yes\n"),
            paragraph(
                "a",
                "Depends: b (>= 1), c | d, e:any, new | base (<< 2)\nPre-Depends: base\n",
            ),
            paragraph("new", ""),
            paragraph("b", "Depends: a, mail\n"),
            paragraph("d", ""),
            paragraph("e", ""),
            paragraph("exim", "Provides: mail (= 1), x\n"),
        ]
        .join("\n\n");
        let index = Index::new(&text, "s");
        assert_eq!(index.required(), ["base"]);
        let names = |list: Vec<Listed>| {
            let mut names: Vec<String> = list.into_iter().map(|one| one.name).collect();
            names.sort();
            names
        };
        let closure = index.closure(&["a"], &[]).unwrap();
        assert_eq!(names(closure), ["a", "b", "base", "d", "e", "exim", "new"]);
        let closure = index.closure(&["a"], &["mail"]).unwrap();
        assert_eq!(names(closure), ["a", "b", "base", "d", "e", "new"]);
        assert!(index.closure(&["nothing"], &[]).is_err());
    }
}
