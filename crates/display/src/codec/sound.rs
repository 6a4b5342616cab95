//! The extension for sound: what clients ask for, and what they are sent.

use super::bytes::{Bytes, Put};
use super::{ProtocolError, bad};

/// Rates that clients may ask for.
const RATES_HZ: std::ops::RangeInclusive<u32> = 1_000..=192_000;
/// The server's message and its part that is about sound.
const MESSAGE: [u8; 2] = [255, 1];

/// How samples are written, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundFormat {
    /// Bytes of one: 1, 2 or 4.
    pub sample_bytes: u8,
    /// With a sign, or with the middle of the range for silence.
    pub signed: bool,
    /// One or two.
    pub channels: u8,
    /// Frames a second.
    pub rate_hz: u32,
}

impl Default for SoundFormat {
    fn default() -> Self {
        Self { sample_bytes: 2, signed: true, channels: 2, rate_hz: 44_100 }
    }
}

impl SoundFormat {
    /// Frames as bytes.
    #[must_use]
    pub fn encode(&self, frames: &[[i16; 2]]) -> Vec<u8> {
        let each = usize::from(self.sample_bytes) * usize::from(self.channels);
        let mut out = Vec::with_capacity(frames.len() * each);
        let mut put = |sample: i16| {
            let mut bytes = [0, 0, sample.to_le_bytes()[0], sample.to_le_bytes()[1]];
            if !self.signed {
                bytes[3] ^= 0x80;
            }
            out.extend(&bytes[4 - usize::from(self.sample_bytes)..]);
        };
        for [left, right] in frames {
            if self.channels == 1 {
                let both = (i32::from(*left) + i32::from(*right)) / 2;
                put(i16::try_from(both).unwrap_or(0));
            } else {
                put(*left);
                put(*right);
            }
        }
        out
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoundOrder {
    /// To hear.
    Enable,
    /// Not to hear any longer.
    Disable,
    /// To hear it so.
    Format(SoundFormat),
}

impl SoundOrder {
    pub(super) fn read(bytes: &mut Bytes<'_>) -> Option<Result<Self, ProtocolError>> {
        Some(match bytes.u16()? {
            0 => Ok(Self::Enable),
            1 => Ok(Self::Disable),
            2 => {
                let (kind, channels, rate_hz) = (bytes.u8()?, bytes.u8()?, bytes.u32()?);
                let known = kind < 6 && matches!(channels, 1 | 2) && RATES_HZ.contains(&rate_hz);
                let sample_bytes = 1_u8.checked_shl(u32::from(kind / 2)).unwrap_or(4);
                let format = SoundFormat { sample_bytes, signed: kind % 2 == 1, channels, rate_hz };
                if known { Ok(Self::Format(format)) } else { Err(bad("format of sound")) }
            }
            _ => Err(bad("order about sound")),
        })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend(MESSAGE);
        match self {
            Self::Enable => out.put16(0),
            Self::Disable => out.put16(1),
            Self::Format(SoundFormat { sample_bytes, signed, channels, rate_hz }) => {
                out.put16(2);
                let kind = u8::from(signed) + 2 * (sample_bytes / 2);
                out.extend([kind, channels]);
                out.put32(rate_hz);
            }
        }
    }
}

/// What a server says of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SoundNews {
    /// Nothing is played any longer.
    Ends,
    /// Something begins to be played.
    Begins,
    /// Samples, as they were asked for.
    Samples(Vec<u8>),
}

impl SoundNews {
    /// The most bytes of samples in a message.
    pub const BYTES_MAX: u32 = 1 << 20;

    /// Reads one behind its first byte; `None` when it is not whole yet.
    pub fn read(bytes: &mut Bytes<'_>) -> Option<Result<Self, ProtocolError>> {
        if bytes.u8()? != MESSAGE[1] {
            return Some(Err(bad("kind of message")));
        }
        Some(Ok(match bytes.u16()? {
            0 => Self::Ends,
            1 => Self::Begins,
            2 => {
                let length = bytes.u32()?;
                if length > Self::BYTES_MAX {
                    return Some(Err(bad("length of sound")));
                }
                Self::Samples(bytes.take(length as usize)?.to_vec())
            }
            _ => return Some(Err(bad("news about sound"))),
        }))
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(MESSAGE);
        match self {
            Self::Ends => out.put16(0),
            Self::Begins => out.put16(1),
            Self::Samples(samples) => {
                out.put16(2);
                out.put32(samples.len() as u32);
                out.extend(samples);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_they_are_asked_for() {
        let format = |sample_bytes, signed, channels| SoundFormat {
            sample_bytes,
            signed,
            channels,
            ..SoundFormat::default()
        };
        let frames = [[0x0102, -2]];
        for (format, expected) in [
            (format(2, true, 2), &[2, 1, 0xfe, 0xff][..]),
            (format(2, false, 2), &[2, 0x81, 0xfe, 0x7f]),
            (format(1, false, 2), &[0x81, 0x7f]),
            (format(1, true, 1), &[0]),
            (format(4, true, 1), &[0, 0, 0x80, 0]),
        ] {
            assert_eq!(format.encode(&frames), expected, "{format:?}");
        }
    }

    #[test]
    fn orders_that_make_no_sense_are_refused() {
        let read = |bytes: &[u8]| SoundOrder::read(&mut Bytes::new(bytes));
        for bytes in [
            &[0, 3][..],
            &[0, 2, 6, 2, 0, 0, 0xac, 0x44],
            &[0, 2, 3, 3, 0, 0, 0xac, 0x44],
            &[0, 2, 3, 0, 0, 0, 0xac, 0x44],
            &[0, 2, 3, 2, 0, 0, 0, 1],
            &[0, 2, 255, 2, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(read(bytes).unwrap().is_err(), "{bytes:?}");
        }
    }
}
