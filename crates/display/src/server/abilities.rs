//! What a client understands.

use crate::codec::encoding;
use crate::encode;

/// The list that a client sends, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The encoding that it likes best of those that are known here.
    pub encoding: i32,
    /// How much detail it wants of photographs, from 0 to 9; it takes JPEG then.
    pub quality: Option<u8>,
    pub copies: bool,
    pub clipboard: bool,
    pub resizes: bool,
    pub resizes_extended: bool,
    pub cursor: bool,
    pub cursor_alpha: bool,
    pub pointer_type: bool,
    pub scan_keys: bool,
    pub lights: bool,
    pub sound: bool,
    pub fences: bool,
    pub continuous: bool,
}

impl Abilities {
    pub fn of(list: &[i32]) -> Self {
        let has = |number: i32| list.contains(&number);
        let best = list.iter().copied().find(|number| encode::is_known(*number));
        let quality = list.iter().find(|number| encoding::QUALITIES.contains(*number));
        let quality = quality.map(|number| (number - encoding::QUALITIES.start()) as u8);
        Self {
            quality,
            encoding: best.unwrap_or(encoding::RAW),
            copies: has(encoding::COPY_RECT),
            clipboard: has(encoding::EXTENDED_CLIPBOARD),
            resizes: has(encoding::DESKTOP_SIZE),
            resizes_extended: has(encoding::EXTENDED_DESKTOP_SIZE),
            cursor: has(encoding::CURSOR),
            cursor_alpha: has(encoding::CURSOR_ALPHA),
            pointer_type: has(encoding::POINTER_TYPE),
            scan_keys: has(encoding::SCAN_KEYS),
            lights: has(encoding::LIGHTS),
            sound: has(encoding::SOUND),
            fences: has(encoding::FENCE),
            continuous: has(encoding::CONTINUOUS_UPDATES),
        }
    }
}
