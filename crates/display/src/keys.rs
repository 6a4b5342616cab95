//! Keys: from X11's symbols and from scan codes to the numbers of Linux's `input-event-codes.h`.

/// The left shift key.
pub const SHIFT: u16 = 42;
/// The right shift key.
pub const SHIFT_RIGHT: u16 = 54;

/// Keys of an American keyboard by what they write: plain, shifted, number.
const WRITING: &[(u8, u8, u16)] = &[
    (b'1', b'!', 2),
    (b'2', b'@', 3),
    (b'3', b'#', 4),
    (b'4', b'$', 5),
    (b'5', b'%', 6),
    (b'6', b'^', 7),
    (b'7', b'&', 8),
    (b'8', b'*', 9),
    (b'9', b'(', 10),
    (b'0', b')', 11),
    (b'-', b'_', 12),
    (b'=', b'+', 13),
    (b'[', b'{', 26),
    (b']', b'}', 27),
    (b';', b':', 39),
    (b'\'', b'"', 40),
    (b'`', b'~', 41),
    (b'\\', b'|', 43),
    (b',', b'<', 51),
    (b'.', b'>', 52),
    (b'/', b'?', 53),
    (b' ', b' ', 57),
];

/// Rows of letters and the number of the first key of each.
const LETTERS: &[(&[u8], u16)] = &[(b"qwertyuiop", 16), (b"asdfghjkl", 30), (b"zxcvbnm", 44)];

/// Symbols of keys that write nothing, and of the number pad.
const NAMED: &[(u32, u16)] = &[
    (0xff08, 14),  // BackSpace
    (0xff09, 15),  // Tab
    (0xfe20, 15),  // ISO_Left_Tab
    (0xff0d, 28),  // Return
    (0xff13, 119), // Pause
    (0xff14, 70),  // Scroll_Lock
    (0xff15, 99),  // Sys_Req
    (0xff1b, 1),   // Escape
    (0xff50, 102), // Home
    (0xff51, 105), // Left
    (0xff52, 103), // Up
    (0xff53, 106), // Right
    (0xff54, 108), // Down
    (0xff55, 104), // Page_Up
    (0xff56, 109), // Page_Down
    (0xff57, 107), // End
    (0xff61, 99),  // Print
    (0xff63, 110), // Insert
    (0xff67, 127), // Menu
    (0xff7f, 69),  // Num_Lock
    (0xff8d, 96),  // KP_Enter
    (0xffaa, 55),  // KP_Multiply
    (0xffab, 78),  // KP_Add
    (0xffac, 121), // KP_Separator
    (0xffad, 74),  // KP_Subtract
    (0xffae, 83),  // KP_Decimal
    (0xff9f, 83),  // KP_Delete
    (0xffaf, 98),  // KP_Divide
    (0xff9e, 82),  // KP_Insert
    (0xff9c, 79),  // KP_End
    (0xff99, 80),  // KP_Down
    (0xff9b, 81),  // KP_Page_Down
    (0xff96, 75),  // KP_Left
    (0xff9d, 76),  // KP_Begin
    (0xff98, 77),  // KP_Right
    (0xff95, 71),  // KP_Home
    (0xff97, 72),  // KP_Up
    (0xff9a, 73),  // KP_Page_Up
    (0xffb0, 82),  // KP_0
    (0xffb1, 79),
    (0xffb2, 80),
    (0xffb3, 81),
    (0xffb4, 75),
    (0xffb5, 76),
    (0xffb6, 77),
    (0xffb7, 71),
    (0xffb8, 72),
    (0xffb9, 73),  // KP_9
    (0xffbd, 117), // KP_Equal
    (0xffc8, 87),  // F11
    (0xffc9, 88),  // F12
    (0xffe1, 42),  // Shift_L
    (0xffe2, 54),  // Shift_R
    (0xffe3, 29),  // Control_L
    (0xffe4, 97),  // Control_R
    (0xffe5, 58),  // Caps_Lock
    (0xffe7, 125), // Meta_L
    (0xffe8, 126), // Meta_R
    (0xffe9, 56),  // Alt_L
    (0xffea, 100), // Alt_R
    (0xfe03, 100), // ISO_Level3_Shift
    (0xffeb, 125), // Super_L
    (0xffec, 126), // Super_R
    (0xffff, 111), // Delete
];

/// The key that gives a symbol on an American keyboard, and whether shift has to be down for it:
/// none where it does not matter.
#[must_use]
pub fn of_symbol(symbol: u32) -> Option<(u16, Option<bool>)> {
    if let Ok(byte) = u8::try_from(symbol) {
        let lower = byte.to_ascii_lowercase();
        let in_row = |(row, first): &(&[u8], u16)| {
            let at = row.iter().position(|letter| *letter == lower)?;
            Some(first + u16::try_from(at).ok()?)
        };
        if let Some(code) = LETTERS.iter().find_map(in_row) {
            return Some((code, Some(byte.is_ascii_uppercase())));
        }
        let key = WRITING.iter().find(|(plain, shifted, _)| byte == *plain || byte == *shifted)?;
        let shift = (key.0 != key.1).then_some(byte == key.1);
        return Some((key.2, shift));
    }
    if let 0xffbe..=0xffc7 = symbol {
        return Some((59 + (symbol - 0xffbe) as u16, None)); // F1 to F10
    }
    NAMED.iter().find(|(known, _)| *known == symbol).map(|(_, code)| (*code, None))
}

/// Scan codes behind the prefix e0 that PC keyboards have.
const PREFIXED: &[(u8, u16)] = &[
    (0x10, 165), // previous track
    (0x19, 163), // next track
    (0x1c, 96),  // Enter of the number pad
    (0x1d, 97),  // right control
    (0x20, 113), // mute
    (0x21, 140), // calculator
    (0x22, 164), // play
    (0x24, 166), // stop
    (0x2e, 114), // volume down
    (0x30, 115), // volume up
    (0x32, 172), // home page
    (0x35, 98),  // / of the number pad
    (0x37, 99),  // print
    (0x38, 100), // right alt
    (0x46, 119), // pause
    (0x47, 102), // home
    (0x48, 103), // up
    (0x49, 104), // page up
    (0x4b, 105), // left
    (0x4d, 106), // right
    (0x4f, 107), // end
    (0x50, 108), // down
    (0x51, 109), // page down
    (0x52, 110), // insert
    (0x53, 111), // delete
    (0x5b, 125), // left logo key
    (0x5c, 126), // right logo key
    (0x5d, 127), // menu
    (0x5e, 116), // power
    (0x5f, 142), // sleep
    (0x63, 143), // wake
];

/// The key behind an XT scan code; bit 7 stands for the prefix e0.
#[must_use]
pub fn of_scan_code(code: u32) -> Option<u16> {
    let prefixed = |code: u8| PREFIXED.iter().find(|(known, _)| *known == code).map(|row| row.1);
    match code {
        // Linux took its numbers from here.
        0x01..=0x53 | 0x56..=0x58 => u16::try_from(code).ok(),
        0x54 => Some(99),  // print, with alt down
        0x73 => Some(89),  // the key beside the right shift in Japan and Brazil
        0x70 => Some(93),  // katakana
        0x79 => Some(92),  // henkan
        0x7b => Some(94),  // muhenkan
        0x7d => Some(124), // yen
        0x80..=0xff => prefixed((code & 0x7f) as u8),
        0xe000..=0xe07f => prefixed((code & 0x7f) as u8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_on_the_keyboard() {
        for (symbol, key) in [
            (0x61, Some((30, Some(false)))),
            (0x41, Some((30, Some(true)))),
            (0x7a, Some((44, Some(false)))),
            (0x40, Some((3, Some(true)))),
            (0x20, Some((57, None))),
            (0xff0d, Some((28, None))),
            (0xffbe, Some((59, None))),
            (0xffc7, Some((68, None))),
            (0xe4, None),
            (u32::MAX, None),
        ] {
            assert_eq!(of_symbol(symbol), key, "{symbol:x}");
        }
    }

    #[test]
    fn scan_codes_have_their_keys() {
        for (code, key) in
            [(0x1e, Some(30)), (0x9d, Some(97)), (0xc8, Some(103)), (0xe048, Some(103)), (0, None)]
        {
            assert_eq!(of_scan_code(code), key, "{code:x}");
        }
        assert_eq!(of_scan_code(u32::MAX), None);
    }
}
