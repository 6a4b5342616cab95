//! How a stream's samples are laid out (section 3.7.1).

/// A format's register, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub rate_hz: u32,
    pub channels: usize,
    /// Of a sample in memory.
    pub sample_bytes: usize,
}

impl Format {
    pub fn of(register: u16) -> Self {
        let base = if register & 1 << 14 != 0 { 44_100 } else { 48_000 };
        let multiple = u32::from(register >> 11 & 7).min(3) + 1;
        let divisor = u32::from(register >> 8 & 7) + 1;
        let sample_bytes = match register >> 4 & 7 {
            0 => 1,
            1 => 2,
            _ => 4, // 20, 24 and 32 bits take as much room
        };
        let channels = usize::from(register & 15) + 1;
        Self { rate_hz: base * multiple / divisor, channels, sample_bytes }
    }

    /// Bytes of all channels' samples.
    pub fn frame_bytes(self) -> usize {
        self.channels * self.sample_bytes
    }

    /// Bytes that pass in a time.
    pub fn bytes_in(self, time_ns: u64) -> u64 {
        let frames = u128::from(time_ns) * u128::from(self.rate_hz) / 1_000_000_000;
        let frames = u64::try_from(frames).unwrap_or(u64::MAX);
        frames.saturating_mul(self.frame_bytes() as u64)
    }

    /// Two neighbouring channels of whole frames; one that is alone is heard on both sides.
    pub fn stereo(self, bytes: &[u8], first_channel: usize) -> Vec<[i16; 2]> {
        let sample = |frame: &[u8], channel: usize| {
            let channel = channel.min(self.channels - 1);
            let bytes = &frame[channel * self.sample_bytes..][..self.sample_bytes];
            match bytes {
                // One byte has no sign and its middle at 128.
                [only] => i16::from_be_bytes([only ^ 0x80, 0]),
                // The upper half is what there is room for.
                [.., low, high] => i16::from_le_bytes([*low, *high]),
                [] => 0,
            }
        };
        let frames = bytes.chunks_exact(self.frame_bytes());
        frames
            .map(|frame| [sample(frame, first_channel), sample(frame, first_channel + 1)])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_say_rates_and_sizes() {
        let format = |rate_hz, channels, sample_bytes| Format { rate_hz, channels, sample_bytes };
        for (register, expected) in [
            (0x0011, format(48_000, 2, 2)),
            (0x4011, format(44_100, 2, 2)),
            (0x0511, format(8_000, 2, 2)),
            (0x1821, format(192_000, 2, 4)),
            (0x4310, format(11_025, 1, 2)),
            (0x0007, format(48_000, 8, 1)),
            (0xffff, format(44_100 * 4 / 8, 16, 4)),
        ] {
            assert_eq!(Format::of(register), expected, "{register:#x}");
        }
        assert_eq!(Format::of(0x0011).bytes_in(1_000_000_000), 192_000);
    }

    #[test]
    fn samples_become_left_and_right() {
        let stereo = |register, bytes: &[u8], first| Format::of(register).stereo(bytes, first);
        assert_eq!(stereo(0x11, &[1, 0, 2, 0, 3, 0, 0xff, 0xff, 9], 0), [[1, 2], [3, -1]]);
        assert_eq!(stereo(0x10, &[1, 0, 2, 0], 0), [[1, 1], [2, 2]], "one is heard on both sides");
        assert_eq!(stereo(0x00, &[0x80, 0xff], 0), [[0, 0], [0x7f00, 0x7f00]]);
        assert_eq!(stereo(0x41, &[0, 0, 5, 0, 0, 0, 6, 0], 0), [[5, 6]], "the upper half counts");
        assert_eq!(stereo(0x13, &[1, 0, 2, 0, 3, 0, 4, 0], 2), [[3, 4]]);
    }
}
