//! The users that machines run as: numbers nobody else has, one for each running machine.

use std::collections::BTreeSet;

use libvirt_compat::{Code, Error, Origin, Result};

/// Users of machines, by number; groups have the same numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub first: u32,
    pub last: u32,
}

impl Default for Range {
    /// Numbers that systemd's list of ranges (UIDS-GIDS) says nobody uses.
    fn default() -> Self {
        Self { first: 1_900_000_000, last: 1_900_065_535 }
    }
}

impl Range {
    /// `FIRST-LAST`.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
        // Nobody's number means "no change" to the kernel, and 0 is root.
        (range.first > 0 && range.first <= range.last && range.last < u32::MAX).then_some(range)
    }

    /// A machine's user: mostly the same one at each start, never one that is taken.
    pub fn choose(&self, uuid: &str, taken: &BTreeSet<u32>) -> Result<u32> {
        let count = u64::from(self.last - self.first) + 1;
        let start = hash(uuid) % count;
        let number = |step: u64| self.first + ((start + step) % count) as u32;
        let tries = count.min(taken.len() as u64 + 1);
        (0..tries).map(number).find(|user| !taken.contains(user)).ok_or_else(|| {
            let text = format!("all users from {} to {} are in use", self.first, self.last);
            Error::new(Code::OperationFailed, text).from(Origin::Security)
        })
    }
}

/// A number for a text, the same in every run: FNV-1a.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// libvirt's label for a user and a group.
pub fn label(user: u32, group: u32) -> String {
    format!("+{user}:+{group}")
}

/// User and group of a label: numbers, or names as `/etc/passwd` and `/etc/group` have them.
pub fn parse_label(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.trim().split_once(':')?;
    Some((number(user, "/etc/passwd")?, number(group, "/etc/group")?))
}

fn number(text: &str, file: &str) -> Option<u32> {
    if let Ok(number) = text.trim_start_matches('+').parse() {
        return Some(number);
    }
    let table = std::fs::read_to_string(file).ok()?;
    let mut rows = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.find(|row| row.first() == Some(&text))?.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_steady_and_never_shared() {
        let range = Range { first: 100, last: 103 };
        let mut taken = BTreeSet::new();
        let first = range.choose("a", &taken).unwrap();
        assert_eq!(range.choose("a", &taken).unwrap(), first);
        for name in ["a", "b", "c", "d"] {
            let user = range.choose(name, &taken).unwrap();
            assert!((100..=103).contains(&user) && taken.insert(user), "{name}: {user}");
        }
        assert!(range.choose("e", &taken).unwrap_err().to_string().contains("in use"));
    }

    #[test]
    fn ranges_and_labels_are_read() {
        for (text, expected) in [
            ("10-20", Some((10, 20))),
            ("0-20", None),
            ("20-10", None),
            ("5", None),
            ("1-4294967295", None),
        ] {
            let range = Range::parse(text).map(|range| (range.first, range.last));
            assert_eq!(range, expected, "{text}");
        }
        assert_eq!(parse_label("+5:+6"), Some((5, 6)));
        assert_eq!(parse_label("root:root"), Some((0, 0)));
        assert_eq!(parse_label("nobody-of-this-name:0"), None);
        assert_eq!(label(7, 8), "+7:+8");
    }
}
