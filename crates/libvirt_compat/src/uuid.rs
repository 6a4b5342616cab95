//! UUIDs: sixteen bytes, and the texts libvirt reads and writes.

use std::fmt;

/// Identifies a domain, network, pool or secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// A version 4 UUID from sixteen random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Reads 32 hexadecimal digits; dashes and blanks around and between bytes are skipped.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = text.trim().bytes().filter(|byte| *byte != b'-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let high = char::from(digits.next()?).to_digit(16)?;
            let low = char::from(digits.next()?).to_digit(16)?;
            *byte = (high << 4 | low) as u8;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_with_and_without_dashes() {
        let text = "b3068f9a-0edb-44b5-aea0-03f509a2be88";
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse("b3068f9a0edb44b5aea003f509a2be88"), Some(uuid));
        for bad in ["", "b3", "zz068f9a0edb44b5aea003f509a2be88", &format!("{text}0")] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn random_bytes_make_version_4() {
        assert_eq!(
            Uuid::from_random([0xff; 16]).to_string(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }
}
