//! Domain names as messages hold them (RFC 1035 sections 3.1 and 4.1.4).

use crate::packet::be16;

const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 255;
/// More pointers than any name that is not a loop has labels.
const POINTERS_MAX: usize = 127;

/// The uncompressed form of `name`, or `None` when DNS does not permit it.
#[must_use]
pub fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return None;
        }
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= NAME_BYTES_MAX).then_some(bytes)
}

/// Reads the name at `at` of `message`: its text in lower case without the last dot, and where
/// what follows it starts.
#[must_use]
pub fn read(message: &[u8], at: usize) -> Option<(String, usize)> {
    let mut name = Vec::new();
    let mut here = at;
    let mut after = None;
    for _ in 0..=POINTERS_MAX + LABEL_BYTES_MAX {
        let length = usize::from(*message.get(here)?);
        match length >> 6 {
            0 if length == 0 => {
                let text = String::from_utf8(name).ok()?;
                return Some((text, after.unwrap_or(here + 1)));
            }
            0 => {
                let label = message.get(here + 1..here + 1 + length)?;
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > NAME_BYTES_MAX {
                    return None;
                }
                here += 1 + length;
            }
            3 => {
                after = after.or(Some(here + 2));
                here = usize::from(be16(message, here)? & 0x3fff);
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_or_refused() {
        assert_eq!(encode("a.bc.").as_deref(), Some(&b"\x01a\x02bc\0"[..]));
        assert_eq!(encode("").as_deref(), Some(&b"\0"[..]));
        assert_eq!(encode("a..b"), None);
        assert_eq!(encode(&"x".repeat(64)), None);
        assert_eq!(encode(&"abc.".repeat(64)), None);
    }

    #[test]
    fn pointers_are_followed_and_loops_end() {
        let message = b"\x01a\x02BC\0\x01x\xc0\x02rest";
        assert_eq!(read(message, 0), Some(("a.bc".into(), 6)));
        assert_eq!(read(message, 6), Some(("x.bc".into(), 10)));
        for (name, bytes) in [
            ("loop", &b"\xc0\x00"[..]),
            ("loop with labels", b"\x01a\xc0\x00"),
            ("reserved", b"\x40"),
            ("beyond", b"\x09abc"),
            ("pointer beyond", b"\xc0\x99"),
            ("no end", b"\x01a"),
        ] {
            assert_eq!(read(bytes, 0), None, "{name}");
        }
    }
}
