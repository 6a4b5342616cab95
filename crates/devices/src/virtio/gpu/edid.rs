//! The description of a monitor that likes one size best. VESA E-EDID 1.4. Pure.

/// Bytes of the description.
pub const EDID_BYTES: usize = 128;
/// The largest side that a timing can tell.
const SIDE_MAX: u32 = 4095;
/// Pixels and lines of the gaps between the pictures: reduced blanking.
const BLANK: (u32, u32) = (160, 40);
const REFRESH_HZ: u32 = 60;

/// A monitor of this size in pixels.
pub fn edid(width: u32, height: u32) -> [u8; EDID_BYTES] {
    let (width, height) = (width.clamp(1, SIDE_MAX), height.clamp(1, SIDE_MAX));
    let mut edid = [0; EDID_BYTES];
    edid[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // The maker in three letters of five bits ("HST"), the product, and the version 1.4.
    let letter = |letter: u8| u16::from(letter - b'@');
    let maker = letter(b'H') << 10 | letter(b'S') << 5 | letter(b'T');
    edid[8..10].copy_from_slice(&maker.to_be_bytes());
    edid[10..12].copy_from_slice(&1_u16.to_le_bytes());
    edid[16..20].copy_from_slice(&[1, 34, 1, 4]); // first week of 2024
    edid[20] = 0xa5; // digital, 8 bits a colour, DisplayPort
    // Its size in centimetres at about 100 dots an inch.
    edid[21] = (width * 254 / 10_000).clamp(1, 255) as u8;
    edid[22] = (height * 254 / 10_000).clamp(1, 255) as u8;
    edid[23] = 120; // gamma 2.2
    edid[24] = 0x06; // sRGB, and the first timing is the preferred one
    // sRGB's primaries and white.
    edid[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    edid[38..54].fill(1); // no standard timings
    edid[54..72].copy_from_slice(&timing(width, height));
    edid[72..90].copy_from_slice(&text(0xfc, b"Hostel"));
    let mut limits = text(0xfd, &[]);
    limits[5..11].copy_from_slice(&[1, 125, 15, 255, 66, 1]); // Hz, kHz, 10 MHz
    edid[90..108].copy_from_slice(&limits);
    edid[108..126].copy_from_slice(&text(0x10, &[]));
    let sum = edid.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    edid[127] = sum.wrapping_neg();
    edid
}

/// The detailed timing of the preferred size.
fn timing(width: u32, height: u32) -> [u8; 18] {
    let clock = (width + BLANK.0) * (height + BLANK.1) * REFRESH_HZ / 10_000;
    let high = |value: u32| (value >> 8 & 0xf) as u8;
    let mut timing = [0; 18];
    timing[..2].copy_from_slice(&u16::try_from(clock).unwrap_or(u16::MAX).to_le_bytes());
    timing[2] = width as u8;
    timing[3] = BLANK.0 as u8;
    timing[4] = high(width) << 4 | high(BLANK.0);
    timing[5] = height as u8;
    timing[6] = BLANK.1 as u8;
    timing[7] = high(height) << 4 | high(BLANK.1);
    // Where the pulses are within the gaps.
    timing[8..12].copy_from_slice(&[48, 32, 0x36, 0]);
    let (wide, tall) = (width * 254 / 1000, height * 254 / 1000); // in millimetres
    timing[12] = wide as u8;
    timing[13] = tall as u8;
    timing[14] = high(wide) << 4 | high(tall);
    timing[17] = 0x18; // separate pulses
    timing
}

/// A descriptor that is no timing.
fn text(kind: u8, words: &[u8]) -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    descriptor[..5].copy_from_slice(&[0, 0, 0, kind, 0]);
    if !words.is_empty() {
        descriptor[5..5 + words.len()].copy_from_slice(words);
        descriptor[5 + words.len()] = b'\n';
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_prefers_its_size_and_its_sum_is_right() {
        for (width, height) in [(1, 1), (1280, 800), (1920, 1080), (4095, 4095), (99_999, 3)] {
            let edid = edid(width, height);
            let sum = edid.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum, 0, "{width}x{height}");
            let told = |low: u8, high: u8| u32::from(low) | u32::from(high >> 4) << 8;
            assert_eq!(told(edid[56], edid[58]), width.min(SIDE_MAX));
            assert_eq!(told(edid[59], edid[61]), height.min(SIDE_MAX));
        }
    }
}
