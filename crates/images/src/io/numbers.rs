//! Numbers as qemu-io reads and prints them.

use block::options::{SizeProblem, parse_bytes};

use super::Failed;

/// A number of bytes; complains on failure.
pub fn number(text: &str) -> Result<i64, Failed> {
    match parse_bytes(text, b'B') {
        Ok(value) if value <= i64::MAX as u64 => Ok(value as i64),
        Ok(_) | Err(SizeProblem::TooLarge) => {
            println!("Parsing error: argument too large -- {text}");
            Err(Failed)
        }
        Err(SizeProblem::Malformed) => {
            println!(
                "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}"
            );
            Err(Failed)
        }
    }
}

/// A byte pattern.
pub fn pattern(text: &str) -> Result<u8, Failed> {
    let parsed = if let Some(hex) = text.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()
    } else {
        text.parse().ok()
    };
    match parsed.and_then(|value: u64| u8::try_from(value).ok()) {
        Some(byte) => Ok(byte),
        None => {
            println!("{text} is not a valid pattern byte");
            Err(Failed)
        }
    }
}

/// A size with its unit.
pub fn sized(bytes: f64) -> String {
    const UNITS: [(f64, &str); 6] = [
        ((1u64 << 60) as f64, "EiB"),
        ((1u64 << 50) as f64, "PiB"),
        ((1u64 << 40) as f64, "TiB"),
        ((1u64 << 30) as f64, "GiB"),
        ((1u64 << 20) as f64, "MiB"),
        ((1u64 << 10) as f64, "KiB"),
    ];
    for (unit, name) in UNITS {
        if bytes >= unit {
            return format!("{} {name}", trimmed(format!("{:.3}", bytes / unit)));
        }
    }
    format!("{} bytes", trimmed(format!("{bytes:.6}")))
}

/// Without a fraction of nothing but zeros.
fn trimmed(text: String) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.into(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lose_empty_fractions() {
        for (bytes, text) in [
            (0.0, "0 bytes"),
            (512.0, "512 bytes"),
            (65_536.0, "64 KiB"),
            (1_572_864.0, "1.500 MiB"),
        ] {
            assert_eq!(sized(bytes), text);
        }
    }
}
