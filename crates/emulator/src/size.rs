//! Sizes as QEMU writes them: a number with a suffix.

const MIB_SHIFT: u32 = 20;

/// Bytes; without a suffix the number counts MiB.
pub fn parse_mebibytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, suffix) if suffix.is_ascii_alphabetic() => {
            let shift = match suffix.to_ascii_lowercase() {
                'b' => 0,
                'k' => 10,
                'm' => MIB_SHIFT,
                'g' => 30,
                't' => 40,
                _ => return None,
            };
            (&text[..at], shift)
        }
        _ => (text, MIB_SHIFT),
    };
    if let Ok(number) = digits.parse::<u64>() {
        return number.checked_mul(1 << shift);
    }
    let number: f64 = digits.parse().ok()?;
    let bytes = number * (1_u64 << shift) as f64;
    (number >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes() {
        for (text, bytes) in [
            ("128", Some(128 << 20)),
            ("1G", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            ("4096k", Some(4 << 20)),
            ("", None),
            ("x", None),
            ("1Q", None),
            ("99999999T", None),
        ] {
            assert_eq!(parse_mebibytes(text), bytes, "{text}");
        }
    }
}
