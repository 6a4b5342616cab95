//! Values of options, with QEMU's texts for what is none.

use thiserror::Error;

/// A value that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not a switch.
    #[error("Parameter '{name}' expects 'on' or 'off'")]
    Switch {
        /// The parameter.
        name: String,
    },
    /// Not a number.
    #[error("Parameter '{name}' expects {what}")]
    Number {
        /// The parameter.
        name: String,
        /// What would be one.
        what: String,
    },
    /// Not a size.
    #[error(
        "Parameter '{name}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, \
         P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
    )]
    Size {
        /// The parameter.
        name: String,
    },
    /// Not one of the words.
    #[error("Parameter '{name}' does not accept value '{value}'")]
    Choice {
        /// The parameter.
        name: String,
        /// What was given.
        value: String,
    },
    /// No such parameter.
    #[error("Invalid parameter '{name}'")]
    Unknown {
        /// The parameter.
        name: String,
    },
    /// Needed, and not there.
    #[error("Parameter '{name}' is missing")]
    Missing {
        /// The parameter.
        name: String,
    },
}

/// `on`, `yes`, `true`, `y` and their opposites.
pub fn switch(name: &str, text: &str) -> Result<bool, ValueError> {
    match text {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(ValueError::Switch { name: name.to_owned() }),
    }
}

/// A whole number, in C's notation.
pub fn unsigned(name: &str, text: &str) -> Result<u64, ValueError> {
    let error = || ValueError::Number { name: name.to_owned(), what: "a number".to_owned() };
    c_number(text).ok_or_else(error)
}

/// A whole number in decimal, `0x` hexadecimal or `0` octal.
#[must_use]
pub fn c_number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => u64::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// A size: a number with a suffix; one without counts in units of `2 ^ plain_shift`.
pub fn size(name: &str, text: &str, plain_shift: u32) -> Result<u64, ValueError> {
    parse_size(text, plain_shift).ok_or_else(|| ValueError::Size { name: name.to_owned() })
}

fn parse_size(text: &str, plain_shift: u32) -> Option<u64> {
    if text.starts_with("0x") {
        return c_number(text)?.checked_shl(plain_shift);
    }
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, suffix) if suffix.is_ascii_alphabetic() => {
            let shift = match suffix.to_ascii_lowercase() {
                'b' => 0,
                'k' => 10,
                'm' => 20,
                'g' => 30,
                't' => 40,
                'p' => 50,
                'e' => 60,
                _ => return None,
            };
            (&text[..at], shift)
        }
        _ => (text, plain_shift),
    };
    if let Ok(number) = digits.parse::<u64>() {
        return number.checked_mul(1 << shift);
    }
    let number: f64 = digits.parse().ok().filter(|_| digits.contains('.'))?;
    let bytes = number * (1_u64 << shift) as f64;
    (number >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Six bytes in hexadecimal with colons or dashes between them.
#[must_use]
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut address {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}

/// `SLOT[.FUNCTION]`, in hexadecimal with `0x` or without.
#[must_use]
pub fn pci_address(text: &str) -> Option<(u8, u8)> {
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u8::from_str_radix(digits, 16).ok()
    };
    let (slot, function) = match text.split_once('.') {
        Some((slot, function)) => (number(slot)?, number(function)?),
        None => (number(text)?, 0),
    };
    (slot < 32 && function < 8).then_some((slot, function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("128", Some(128 << 20)),
            ("1G", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            ("4096k", Some(4 << 20)),
            ("", None),
            ("x", None),
            ("1Q", None),
            ("-1", None),
            ("99999999T", None),
        ] {
            assert_eq!(parse_size(text, 20), bytes, "{text}");
        }
        assert_eq!(parse_size("512", 0), Some(512));
    }

    #[test]
    fn addresses() {
        assert_eq!(mac("52:54:00:12:34:5f"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x5f]));
        assert_eq!((mac("52:54:00"), mac("52:54:00:12:34:5f:1"), mac("x")), (None, None, None));
        assert_eq!(pci_address("0x1f.7"), Some((31, 7)));
        assert_eq!(pci_address("2.0x5"), Some((2, 5)));
        assert_eq!((pci_address("20"), pci_address("1.8")), (None, None));
    }

    #[test]
    fn numbers_are_written_as_in_c() {
        assert_eq!(
            (c_number("0x10"), c_number("010"), c_number("0"), c_number("9")),
            (Some(16), Some(8), Some(0), Some(9))
        );
        assert_eq!((c_number("x"), c_number("")), (None, None));
        assert_eq!(
            switch("a", "maybe").unwrap_err().to_string(),
            "Parameter 'a' expects 'on' or 'off'"
        );
    }
}
