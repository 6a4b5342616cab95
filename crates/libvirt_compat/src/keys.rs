//! Keys of a keyboard: the names and numbers that Linux gives them, and the numbers (`qnum`, that of
//! a PC's scan code) under which emulators take them.

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Without `KEY_`.
    pub name: &'static str,
    /// In Linux's `input-event-codes.h`.
    pub linux: u32,
    /// The scan code of set 1; those that follow a byte E0 have their highest bit set.
    pub qnum: u32,
}

const fn key(name: &'static str, linux: u32, qnum: u32) -> Key {
    Key { name, linux, qnum }
}

/// Up to here both numbers are the same.
const NAMES: &[&str] = &[
    "RESERVED",
    "ESC",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "0",
    "MINUS",
    "EQUAL",
    "BACKSPACE",
    "TAB",
    "Q",
    "W",
    "E",
    "R",
    "T",
    "Y",
    "U",
    "I",
    "O",
    "P",
    "LEFTBRACE",
    "RIGHTBRACE",
    "ENTER",
    "LEFTCTRL",
    "A",
    "S",
    "D",
    "F",
    "G",
    "H",
    "J",
    "K",
    "L",
    "SEMICOLON",
    "APOSTROPHE",
    "GRAVE",
    "LEFTSHIFT",
    "BACKSLASH",
    "Z",
    "X",
    "C",
    "V",
    "B",
    "N",
    "M",
    "COMMA",
    "DOT",
    "SLASH",
    "RIGHTSHIFT",
    "KPASTERISK",
    "LEFTALT",
    "SPACE",
    "CAPSLOCK",
    "F1",
    "F2",
    "F3",
    "F4",
    "F5",
    "F6",
    "F7",
    "F8",
    "F9",
    "F10",
    "NUMLOCK",
    "SCROLLLOCK",
    "KP7",
    "KP8",
    "KP9",
    "KPMINUS",
    "KP4",
    "KP5",
    "KP6",
    "KPPLUS",
    "KP1",
    "KP2",
    "KP3",
    "KP0",
    "KPDOT",
];

/// The others.
const MORE: &[Key] = &[
    key("ZENKAKUHANKAKU", 85, 0x76),
    key("102ND", 86, 0x56),
    key("F11", 87, 0x57),
    key("F12", 88, 0x58),
    key("RO", 89, 0x73),
    key("KATAKANAHIRAGANA", 93, 0x70),
    key("KPENTER", 96, 0x9c),
    key("RIGHTCTRL", 97, 0x9d),
    key("KPSLASH", 98, 0xb5),
    key("SYSRQ", 99, 0x54),
    key("RIGHTALT", 100, 0xb8),
    key("HOME", 102, 0xc7),
    key("UP", 103, 0xc8),
    key("PAGEUP", 104, 0xc9),
    key("LEFT", 105, 0xcb),
    key("RIGHT", 106, 0xcd),
    key("END", 107, 0xcf),
    key("DOWN", 108, 0xd0),
    key("PAGEDOWN", 109, 0xd1),
    key("INSERT", 110, 0xd2),
    key("DELETE", 111, 0xd3),
    key("MUTE", 113, 0xa0),
    key("VOLUMEDOWN", 114, 0xae),
    key("VOLUMEUP", 115, 0xb0),
    key("POWER", 116, 0xde),
    key("KPEQUAL", 117, 0x59),
    key("PAUSE", 119, 0xc6),
    key("KPCOMMA", 121, 0x7e),
    key("YEN", 124, 0x7d),
    key("LEFTMETA", 125, 0xdb),
    key("RIGHTMETA", 126, 0xdc),
    key("COMPOSE", 127, 0xdd),
];

/// The number that Linux gives a key, by its name with `KEY_` in front.
#[must_use]
pub fn by_name(name: &str) -> Option<u32> {
    let name = name.strip_prefix("KEY_")?;
    if let Some(place) = NAMES.iter().position(|known| *known == name) {
        return u32::try_from(place).ok();
    }
    MORE.iter().find(|key| key.name == name).map(|key| key.linux)
}

/// An emulator's number for Linux's.
#[must_use]
pub fn from_linux(code: u32) -> Option<u32> {
    if (code as usize) < NAMES.len() {
        return Some(code);
    }
    MORE.iter().find(|key| key.linux == code).map(|key| key.qnum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_numbers() {
        for (name, linux, qnum) in
            [("KEY_LEFTCTRL", 29, 29), ("KEY_KPDOT", 83, 83), ("KEY_DELETE", 111, 0xd3)]
        {
            assert_eq!(by_name(name), Some(linux), "{name}");
            assert_eq!(from_linux(linux), Some(qnum), "{name}");
        }
        assert_eq!((by_name("LEFTCTRL"), from_linux(84)), (None, None));
    }
}
