//! Codes of keys: Linux's numbers, the keyboard's own (set 2), and the controller's translation of
//! them (set 1).

/// Set 2 by set 1, for keys without a prefix. 0 stands for none.
const SET_2: [u8; 0x60] = [
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
];

/// Keys with the prefix 0xe0: Linux's number, set 1.
const EXTENDED: &[(u16, u8)] = &[
    (96, 0x1c),  // Enter of the keypad
    (97, 0x1d),  // right Ctrl
    (98, 0x35),  // slash of the keypad
    (99, 0x37),  // Print
    (100, 0x38), // right Alt
    (102, 0x47), // Home
    (103, 0x48), // up
    (104, 0x49), // page up
    (105, 0x4b), // left
    (106, 0x4d), // right
    (107, 0x4f), // End
    (108, 0x50), // down
    (109, 0x51), // page down
    (110, 0x52), // Insert
    (111, 0x53), // Delete
    (113, 0x20), // mute
    (114, 0x2e), // softer
    (115, 0x30), // louder
    (116, 0x5e), // power
    (125, 0x5b), // left Windows
    (126, 0x5c), // right Windows
    (127, 0x5d), // menu
];

const PAUSE: u16 = 119;
const RELEASE: u8 = 0xf0;
const PREFIX: u8 = 0xe0;

/// What a keyboard sends in its own code (or in set 1) for a key that goes down or up.
#[must_use]
pub fn key_bytes(code: u16, down: bool, set_1: bool) -> Vec<u8> {
    if code == PAUSE {
        // It has no release: press and release come as one.
        return match (down, set_1) {
            (false, _) => Vec::new(),
            (true, true) => vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5],
            (true, false) => vec![0xe1, 0x14, 0x77, 0xe1, RELEASE, 0x14, RELEASE, 0x77],
        };
    }
    let extended = EXTENDED.iter().find(|(number, _)| *number == code);
    let (prefix, one) = match (extended, code) {
        (Some((_, one)), _) => (true, *one),
        (None, 1..=0x58) => (false, code as u8),
        _ => return Vec::new(),
    };
    let two = SET_2[usize::from(one)];
    let mut bytes = Vec::with_capacity(3);
    if prefix {
        bytes.push(PREFIX);
    }
    match (set_1, down) {
        (true, _) => bytes.push(one | if down { 0 } else { 0x80 }),
        (false, true) => bytes.push(two),
        (false, false) => bytes.extend([RELEASE, two]),
    }
    bytes
}

/// The controller's translation of a byte, given whether a release is going on. None: the byte is
/// swallowed, and the next one is a release.
#[must_use]
pub fn translate(byte: u8, released: bool) -> Option<u8> {
    if byte == RELEASE {
        return None;
    }
    let one = SET_2.iter().position(|two| *two == byte && byte != 0);
    match one {
        Some(one) => Some(one as u8 | if released { 0x80 } else { 0 }),
        None => Some(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_controller_translates_is_set_1() {
        for code in (1..=0x58).chain(96..128) {
            for down in [true, false] {
                let mut released = false;
                let mut translated = Vec::new();
                for byte in key_bytes(code, down, false) {
                    match translate(byte, released) {
                        Some(byte) => {
                            translated.push(byte);
                            released = false;
                        }
                        None => released = true,
                    }
                }
                assert_eq!(translated, key_bytes(code, down, true), "key {code} {down}");
            }
        }
        assert_eq!(key_bytes(30, true, true), [0x1e]);
        assert_eq!(key_bytes(105, false, false), [0xe0, 0xf0, 0x6b]);
        assert!(key_bytes(500, true, false).is_empty());
    }
}
