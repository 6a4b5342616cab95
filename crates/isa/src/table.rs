//! Decode tables: rows as the manuals print them.
//!
//! A row is a string of `0`, `1` and `.` with blanks between the manual's fields; beside it stand
//! the operand format and the meaning. [`Pattern`]s are made and checked for overlaps at compile
//! time, so that two rows can never claim the same word.

/// Which bits of a word a row fixes, and to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// Bits that must match.
    pub mask: u32,
    /// Their values.
    pub value: u32,
}

impl Pattern {
    /// Whether the row describes this word.
    pub const fn matches(&self, word: u32) -> bool {
        word & self.mask == self.value
    }

    /// Whether some word is described by both rows.
    pub const fn overlaps(&self, other: &Self) -> bool {
        let both = self.mask & other.mask;
        self.value & both == other.value & both
    }
}

/// `0` and `1` must match, `.` is an operand bit, blanks separate the manual's fields.
pub const fn pattern(row: &str, width: u32) -> Pattern {
    let (text, mut mask, mut value, mut bits, mut i) = (row.as_bytes(), 0, 0, 0, 0);
    while i < text.len() {
        let (fixed, one) = match text[i] {
            b' ' => {
                i += 1;
                continue;
            }
            b'0' => (1, 0),
            b'1' => (1, 1),
            b'.' => (0, 0),
            _ => panic!("a row consists of 0, 1, '.' and blanks"),
        };
        mask = mask << 1 | fixed;
        value = value << 1 | one;
        bits += 1;
        i += 1;
    }
    assert!(bits == width, "a row describes the whole word");
    Pattern { mask, value }
}

/// A row that takes precedence over one it overlaps must stand in an earlier table.
pub const fn assert_disjoint(rows: &[Pattern]) {
    let mut i = 0;
    while i < rows.len() {
        let mut j = i + 1;
        while j < rows.len() {
            assert!(!rows[i].overlaps(&rows[j]), "two rows describe the same word");
            j += 1;
        }
        i += 1;
    }
}

/// Bits `high..=low` of a word.
pub const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word >> low & (u32::MAX >> (31 - (high - low)))
}

/// The same, sign-extended.
pub const fn signed_bits(word: u32, high: u32, low: u32) -> i32 {
    (word << (31 - high)) as i32 >> (31 - high + low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_matches_its_words_only() {
        let row = pattern("0000000 ..... ..... 000 ..... 0110011", 32);
        assert!(row.matches(0x00b5_0533)); // add a0,a0,a1
        assert!(!row.matches(0x40b5_0533)); // sub a0,a0,a1
        assert!(row.overlaps(&pattern("....... ..... ..... 000 ..... 0110011", 32)));
        assert!(!row.overlaps(&pattern("....... ..... ..... 001 ..... 0110011", 32)));
    }

    #[test]
    fn fields_are_cut_out() {
        assert_eq!(bits(0xabcd_1234, 15, 8), 0x12);
        assert_eq!(bits(0xabcd_1234, 31, 0), 0xabcd_1234);
        assert_eq!(signed_bits(0xfff0_0000, 31, 20), -1);
        assert_eq!(signed_bits(0x7ff0_0000, 31, 20), 0x7ff);
    }
}
