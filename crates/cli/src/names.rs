//! Names for machines that nobody names.

use crate::failure::{Failure, USAGE};

const QUALITIES: &[&str] = &[
    "amber", "brave", "calm", "clever", "cosy", "eager", "fair", "gentle", "happy", "jolly",
    "keen", "kind", "lively", "lucky", "merry", "neat", "nimble", "polite", "quick", "quiet",
    "ready", "shiny", "smart", "snug", "sunny", "swift", "tidy", "warm", "wise", "witty",
];
const GUESTS: &[&str] = &[
    "badger", "beaver", "crane", "dolphin", "falcon", "finch", "fox", "gecko", "heron", "hare",
    "ibis", "jay", "koala", "lark", "lemur", "lynx", "marten", "newt", "otter", "owl", "panda",
    "puffin", "quail", "raven", "robin", "seal", "swan", "tapir", "toad", "wren",
];
const LENGTH_MAX: usize = 63;

/// A name that is not taken.
pub fn made_up(taken: &[String]) -> String {
    let mut bytes = [0; 4];
    for number in 0.. {
        _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let [a, b, c, d] = bytes.map(usize::from);
        let quality = QUALITIES[(a * 256 + b) % QUALITIES.len()];
        let guest = GUESTS[(c * 256 + d) % GUESTS.len()];
        let name = match number {
            0..20 => format!("{quality}-{guest}"),
            more => format!("{quality}-{guest}-{more}"),
        };
        if !taken.contains(&name) {
            return name;
        }
    }
    unreachable!("numbers do not run out")
}

/// Names are host names too.
pub fn check(name: &str) -> Result<(), Failure> {
    let good = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
    let sound = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && !name.ends_with('-')
        && name.chars().all(good)
        && name.len() <= LENGTH_MAX;
    if sound {
        return Ok(());
    }
    Err(Failure::new(format!("'{name}' cannot be the name of a machine"))
        .hint("letters, digits and dashes, with a letter first: it is its host name too")
        .code(USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        for name in ["a", "web-1", &made_up(&[])] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in ["", "1a", "a b", "a-", "../x", "ä", &"a".repeat(64)] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
