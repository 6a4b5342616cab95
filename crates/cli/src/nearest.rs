//! The nearest known word to a mistyped one.

/// A word further away than this is a different word, not a slip.
const DISTANCE_MAX: usize = 3;

/// The candidate with the fewest edits to `word`, if any is near.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= DISTANCE_MAX.min(candidate.len() / 2))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Up to three candidates that are about as near as the nearest, the nearest first.
pub fn nearest_few<'a>(word: &str, candidates: Vec<&'a str>) -> Vec<&'a str> {
    const COUNT_MAX: usize = 3;
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= DISTANCE_MAX.min(candidate.len() / 2))
        .collect();
    near.sort_unstable();
    near.dedup();
    let limit = near.first().map_or(0, |(distance, _)| distance + 1);
    let few = near.into_iter().filter(|(distance, _)| *distance <= limit).take(COUNT_MAX);
    few.map(|(_, candidate)| candidate).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`: the optimal string
/// alignment distance, over three rows of the usual table.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("link", "link", 0),
            ("lnik", "link", 1),
            ("qemu-imgg", "qemu-img", 1),
            ("virhs", "virsh", 1),
        ] {
            assert_eq!(distance(a, b), edits, "{a} -> {b}");
        }
    }

    #[test]
    fn a_different_word_is_not_near() {
        assert_eq!(nearest("qemu-imgg", ["qemu-io", "qemu-img"].into_iter()), Some("qemu-img"));
        assert_eq!(
            nearest_few("fedora-42", vec!["fedora-43", "rocky-9", "fedora-44", "fedora-43"]),
            ["fedora-43", "fedora-44"]
        );
        assert_eq!(nearest("banana", ["qemu-io", "qemu-img", "link"].into_iter()), None);
    }
}
