//! What a client sends after the handshake (RFC 6143, 7.5, and extensions).

use super::bytes::{Bytes, Put};
use super::pixel::PixelFormat;
use super::sound::SoundOrder;
use super::{ProtocolError, bad};

/// Encodings and the abilities that are announced like encodings.
pub mod encoding {
    /// Pixels as they are.
    pub const RAW: i32 = 0;
    /// Pixels that the client has elsewhere.
    pub const COPY_RECT: i32 = 1;
    /// Tiles of 16 by 16, with rectangles in them.
    pub const HEXTILE: i32 = 5;
    /// Raw, compressed.
    pub const ZLIB: i32 = 6;
    /// One colour, palettes, and compressed pixels.
    pub const TIGHT: i32 = 7;
    /// Tiles of 64 by 64 with palettes and runs, compressed.
    pub const ZRLE: i32 = 16;
    /// JPEG may be used, of a quality from the lowest to the highest.
    pub const QUALITIES: std::ops::RangeInclusive<i32> = -32..=-23;
    /// Text of the clipboard in Unicode, when somebody asks.
    pub const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32 as i32;
    /// The screen's size changes.
    pub const DESKTOP_SIZE: i32 = -223;
    /// The pointer's picture, opaque or not.
    pub const CURSOR: i32 = -239;
    /// Whether the pointer is absolute.
    pub const POINTER_TYPE: i32 = -257;
    /// Keys with their scan codes.
    pub const SCAN_KEYS: i32 = -258;
    /// What the machine plays, as the client asks for it.
    pub const SOUND: i32 = -259;
    /// The keyboard's lights.
    pub const LIGHTS: i32 = -261;
    /// The screen's size and layout, which the client may ask to change.
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
    /// Marks in the stream that the other side sends back.
    pub const FENCE: i32 = -312;
    /// Updates without a request for each.
    pub const CONTINUOUS_UPDATES: i32 = -313;
    /// The pointer's picture with an alpha channel.
    pub const CURSOR_ALPHA: i32 = -314;
}

/// One screen of those that make up a desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScreenLayout {
    /// Its number.
    pub id: u32,
    /// Left, upper edge, width, height.
    pub place: [u16; 4],
    /// Nothing yet.
    pub flags: u32,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// How it wants pixels.
    PixelFormat(PixelFormat),
    /// What it understands, best first.
    Encodings(Vec<i32>),
    /// It would like an update.
    UpdateRequest {
        /// Only what has changed.
        incremental: bool,
        /// Left, upper edge, width, height.
        area: [u16; 4],
    },
    /// A key by its X11 symbol.
    Key {
        /// Down, or up.
        down: bool,
        /// Which.
        symbol: u32,
    },
    /// The pointer's buttons and place.
    Pointer {
        /// A bit each.
        buttons: u16,
        /// In pixels.
        x: u16,
        /// In pixels.
        y: u16,
    },
    /// Text for the clipboard follows: this many bytes.
    CutText {
        /// They are not part of the message.
        bytes: u32,
    },
    /// Updates without requests.
    ContinuousUpdates {
        /// From now on, or no longer.
        enable: bool,
        /// Of this part.
        area: [u16; 4],
    },
    /// A mark.
    Fence {
        /// What it blocks; bit 31 asks for an answer.
        flags: u32,
        /// Sent back as it is.
        payload: Vec<u8>,
    },
    /// Another size for the screen.
    DesktopSize {
        /// In pixels.
        width: u16,
        /// In pixels.
        height: u16,
        /// What it consists of.
        screens: Vec<ScreenLayout>,
    },
    /// A key with its scan code.
    ScanKey {
        /// Down, or up.
        down: bool,
        /// Its X11 symbol.
        symbol: u32,
        /// Its XT scan code; bit 7 stands for the prefix e0.
        code: u32,
    },
    /// What it wants to hear.
    Sound(SoundOrder),
}

/// The most bytes that a fence carries.
pub const FENCE_BYTES_MAX: usize = 64;

fn area(bytes: &mut Bytes<'_>) -> Option<[u16; 4]> {
    Some([bytes.u16()?, bytes.u16()?, bytes.u16()?, bytes.u16()?])
}

impl ClientMessage {
    /// Reads one; `None` when it is not whole yet.
    pub fn read(bytes: &mut Bytes<'_>) -> Option<Result<Self, ProtocolError>> {
        let kind = bytes.u8()?;
        Some(Ok(match kind {
            0 => {
                bytes.take(3)?;
                return Some(PixelFormat::read(bytes)?.map(Self::PixelFormat));
            }
            2 => {
                bytes.take(1)?;
                let count = usize::from(bytes.u16()?);
                let list = bytes.take(count * 4)?;
                let number = |four: &[u8]| i32::from_be_bytes([four[0], four[1], four[2], four[3]]);
                Self::Encodings(list.chunks_exact(4).map(number).collect())
            }
            3 => Self::UpdateRequest { incremental: bytes.u8()? != 0, area: area(bytes)? },
            4 => {
                let down = bytes.u8()? != 0;
                bytes.take(2)?;
                Self::Key { down, symbol: bytes.u32()? }
            }
            5 => {
                let buttons = bytes.u8()?.into();
                Self::Pointer { buttons, x: bytes.u16()?, y: bytes.u16()? }
            }
            6 => {
                bytes.take(3)?;
                Self::CutText { bytes: bytes.u32()? }
            }
            150 => Self::ContinuousUpdates { enable: bytes.u8()? != 0, area: area(bytes)? },
            248 => {
                bytes.take(3)?;
                let (flags, length) = (bytes.u32()?, usize::from(bytes.u8()?));
                if length > FENCE_BYTES_MAX {
                    return Some(Err(bad("length of a fence")));
                }
                Self::Fence { flags, payload: bytes.take(length)?.to_vec() }
            }
            251 => {
                bytes.take(1)?;
                let (width, height, count) = (bytes.u16()?, bytes.u16()?, bytes.u8()?);
                bytes.take(1)?;
                let mut screens = Vec::new();
                for _ in 0..count {
                    let (id, place) = (bytes.u32()?, area(bytes)?);
                    screens.push(ScreenLayout { id, place, flags: bytes.u32()? });
                }
                Self::DesktopSize { width, height, screens }
            }
            255 => match bytes.u8()? {
                0 => {
                    let down = bytes.u16()? != 0;
                    Self::ScanKey { down, symbol: bytes.u32()?, code: bytes.u32()? }
                }
                1 => return Some(SoundOrder::read(bytes)?.map(Self::Sound)),
                _ => return Some(Err(ProtocolError::UnknownMessage { kind })),
            },
            _ => return Some(Err(ProtocolError::UnknownMessage { kind })),
        }))
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let put_area = |out: &mut Vec<u8>, area: &[u16; 4]| {
            area.iter().for_each(|side| out.put16((*side).into()));
        };
        match self {
            Self::PixelFormat(format) => {
                out.extend([0; 4]);
                format.write(out);
            }
            Self::Encodings(list) => {
                out.extend([2, 0]);
                out.put16(list.len() as u32);
                list.iter().for_each(|number| out.extend(number.to_be_bytes()));
            }
            Self::UpdateRequest { incremental, area } => {
                out.extend([3, (*incremental).into()]);
                put_area(out, area);
            }
            Self::Key { down, symbol } => {
                out.extend([4, (*down).into(), 0, 0]);
                out.put32(*symbol);
            }
            Self::Pointer { buttons, x, y } => {
                out.extend([5, (buttons & 0xff) as u8]);
                out.put16((*x).into());
                out.put16((*y).into());
            }
            Self::CutText { bytes } => {
                out.extend([6, 0, 0, 0]);
                out.put32(*bytes);
            }
            Self::ContinuousUpdates { enable, area } => {
                out.extend([150, (*enable).into()]);
                put_area(out, area);
            }
            Self::Fence { flags, payload } => {
                out.extend([248, 0, 0, 0]);
                out.put32(*flags);
                out.push(payload.len().min(FENCE_BYTES_MAX) as u8);
                out.extend(&payload[..payload.len().min(FENCE_BYTES_MAX)]);
            }
            Self::DesktopSize { width, height, screens } => {
                out.extend([251, 0]);
                out.put16((*width).into());
                out.put16((*height).into());
                out.extend([screens.len().min(255) as u8, 0]);
                for screen in screens.iter().take(255) {
                    out.put32(screen.id);
                    put_area(out, &screen.place);
                    out.put32(screen.flags);
                }
            }
            Self::Sound(order) => order.write(out),
            Self::ScanKey { down, symbol, code } => {
                out.extend([255, 0]);
                out.put16((*down).into());
                out.put32(*symbol);
                out.put32(*code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::SoundFormat;

    #[test]
    fn what_is_written_is_read_and_a_part_of_it_waits() {
        let screens = vec![ScreenLayout { id: 7, place: [0, 0, 640, 480], flags: 0 }];
        for message in [
            ClientMessage::PixelFormat(PixelFormat::NATIVE),
            ClientMessage::Encodings(vec![encoding::TIGHT, encoding::FENCE]),
            ClientMessage::UpdateRequest { incremental: true, area: [1, 2, 3, 4] },
            ClientMessage::Key { down: true, symbol: 0xff0d },
            ClientMessage::Pointer { buttons: 5, x: 100, y: 200 },
            ClientMessage::CutText { bytes: 9 },
            ClientMessage::ContinuousUpdates { enable: true, area: [0, 0, 9, 9] },
            ClientMessage::Fence { flags: 1 << 31, payload: vec![1, 2, 3] },
            ClientMessage::DesktopSize { width: 640, height: 480, screens },
            ClientMessage::ScanKey { down: false, symbol: 0x61, code: 30 },
            ClientMessage::Sound(SoundOrder::Enable),
            ClientMessage::Sound(SoundOrder::Disable),
            ClientMessage::Sound(SoundOrder::Format(SoundFormat::default())),
        ] {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            for count in 0..bytes.len() {
                assert_eq!(ClientMessage::read(&mut Bytes::new(&bytes[..count])), None);
            }
            let mut reader = Bytes::new(&bytes);
            assert_eq!(ClientMessage::read(&mut reader), Some(Ok(message)));
            assert_eq!(reader.taken(), bytes.len());
        }
    }

    #[test]
    fn unknown_messages_end_the_conversation() {
        let read = |bytes: &[u8]| ClientMessage::read(&mut Bytes::new(bytes)).unwrap().unwrap_err();
        assert_eq!(read(&[99]), ProtocolError::UnknownMessage { kind: 99 });
        assert_eq!(read(&[255, 2]), ProtocolError::UnknownMessage { kind: 255 });
        assert!(matches!(read(&[248, 0, 0, 0, 0, 0, 0, 0, 65]), ProtocolError::Bad { .. }));
    }
}
