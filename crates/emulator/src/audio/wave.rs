//! Files of sound (RIFF WAVE, 16 bits a sample).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::PROGRAM;

const HEAD_BYTES: u32 = 44;
/// Lengths have 32 bits.
const BYTES_MAX: u32 = u32::MAX - HEAD_BYTES - 8;

/// A file that grows as something is played.
pub struct Wave {
    file: File,
    rate_hz: u32,
    channels: u16,
    bytes: u32,
    /// It is full, or the disk is.
    is_over: bool,
}

impl Wave {
    pub fn create(path: &Path, rate_hz: u32, channels: u16) -> io::Result<Self> {
        let file = File::create(path)?;
        let wave = Self { file, rate_hz, channels, bytes: 0, is_over: false };
        wave.file.write_all_at(&wave.head(), 0)?;
        Ok(wave)
    }

    fn head(&self) -> Vec<u8> {
        let frame = self.channels * 2;
        let mut head = Vec::with_capacity(HEAD_BYTES as usize);
        head.extend(b"RIFF");
        head.extend((self.bytes + HEAD_BYTES - 8).to_le_bytes());
        head.extend(b"WAVEfmt \x10\0\0\0\x01\0");
        head.extend(self.channels.to_le_bytes());
        head.extend(self.rate_hz.to_le_bytes());
        head.extend((self.rate_hz * u32::from(frame)).to_le_bytes());
        head.extend(frame.to_le_bytes());
        head.extend(16_u16.to_le_bytes());
        head.extend(b"data");
        head.extend(self.bytes.to_le_bytes());
        head
    }

    /// Adds frames. The file is whole after each time, whatever becomes of this process.
    pub fn write(&mut self, frames: &[[i16; 2]]) {
        if self.is_over {
            return;
        }
        let mut bytes = Vec::with_capacity(frames.len() * 4);
        for [left, right] in frames {
            if self.channels == 1 {
                let both = (i32::from(*left) + i32::from(*right)) / 2;
                bytes.extend((both as i16).to_le_bytes());
            } else {
                bytes.extend(left.to_le_bytes());
                bytes.extend(right.to_le_bytes());
            }
        }
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if count > BYTES_MAX - self.bytes {
            self.is_over = true;
            return;
        }
        let at = u64::from(HEAD_BYTES + self.bytes);
        let written = self.file.write_all_at(&bytes, at).and_then(|()| {
            self.bytes += count;
            self.file.write_all_at(&self.head(), 0)
        });
        if let Err(error) = written {
            let reason = crate::character::reason(&error);
            eprintln!("{PROGRAM}: warning: the file of sound ends here: {reason}");
            self.is_over = true;
        }
    }
}
