//! Sizes with units.

use crate::xml::Element;
use crate::{Code, Error, Result};

/// `value` times `unit`, in bytes. Units as libvirt knows them; `default` is the multiplier when
/// there is none.
pub fn scaled_bytes(value: u64, unit: Option<&str>, default: u64) -> Result<u64> {
    let factor = match unit {
        None | Some("") => default,
        Some(unit) => factor(unit)
            .ok_or_else(|| Error::new(Code::InvalidArg, format!("unknown suffix '{unit}'")))?,
    };
    value.checked_mul(factor).ok_or_else(|| {
        Error::new(Code::Overflow, format!("value too large: {value}{}", unit.unwrap_or("")))
    })
}

fn factor(unit: &str) -> Option<u64> {
    let lower = unit.to_ascii_lowercase();
    if matches!(lower.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let power = 1 + "kmgtpe".find(lower.chars().next()?)? as u32;
    match &lower[1..] {
        "" | "ib" => Some(1 << (10 * power)),
        "b" => Some(1000u64.pow(power)),
        _ => None,
    }
}

/// The size that an element such as `<memory unit='MiB'>` states, in KiB, rounded up.
pub fn kibibytes(element: &Element) -> Result<u64> {
    let text = element.text();
    let value: u64 = text.trim().parse().map_err(|_| {
        Error::new(
            Code::XmlError,
            format!(
                "Invalid value '{}' for element or attribute './{}[1]'",
                text.trim(),
                element.name
            ),
        )
    })?;
    Ok(scaled_bytes(value, element.attribute("unit"), 1024)?.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_libvirts() {
        for (value, unit, bytes) in [
            (1, None, 1024),
            (1, Some("b"), 1),
            (2, Some("KiB"), 2048),
            (2, Some("KB"), 2000),
            (1, Some("M"), 1 << 20),
            (3, Some("GiB"), 3 << 30),
        ] {
            assert_eq!(scaled_bytes(value, unit, 1024), Ok(bytes));
        }
        assert_eq!(
            scaled_bytes(1, Some("X"), 1).unwrap_err().message(),
            "invalid argument: unknown suffix 'X'"
        );
        assert_eq!(scaled_bytes(u64::MAX, Some("K"), 1).unwrap_err().code, Code::Overflow);
    }
}
