//! From one rate to another, by straight lines between frames.

/// A stream of frames on its way to another rate.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    /// How far the next frame is behind the last one that came, in parts of `to_hz`.
    phase: u64,
    last: [i16; 2],
}

impl Resampler {
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        // The first frame goes out as it is.
        Self {
            from_hz: from_hz.max(1),
            to_hz: to_hz.max(1),
            phase: to_hz.max(1).into(),
            last: [0; 2],
        }
    }

    /// Takes frames and adds what they give.
    pub fn push(&mut self, frames: &[[i16; 2]], out: &mut Vec<[i16; 2]>) {
        if self.from_hz == self.to_hz {
            return out.extend(frames);
        }
        let (from, to) = (u64::from(self.from_hz), u64::from(self.to_hz));
        for frame in frames {
            while self.phase <= to {
                let side = |side: usize| {
                    let (a, b) = (i64::from(self.last[side]), i64::from(frame[side]));
                    (a + (b - a) * self.phase as i64 / to as i64) as i16
                };
                out.push([side(0), side(1)]);
                self.phase += from;
            }
            self.phase -= to;
            self.last = *frame;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stays_a_second_in_whatever_pieces_it_comes() {
        let frames: Vec<[i16; 2]> = (0..48_000).map(|n| [(n % 480) as i16 * 10, 7]).collect();
        for to_hz in [8_000, 44_100, 48_000, 96_000] {
            let mut whole = Vec::new();
            Resampler::new(48_000, to_hz).push(&frames, &mut whole);
            assert!(whole.len().abs_diff(to_hz as usize) <= 2, "{to_hz}: {}", whole.len());
            assert!(whole[2..].iter().all(|frame| frame[1] == 7), "what is level stays level");
            let (mut parts, mut resampler) = (Vec::new(), Resampler::new(48_000, to_hz));
            frames.chunks(77).for_each(|chunk| resampler.push(chunk, &mut parts));
            assert_eq!(whole, parts);
        }
        let mut out = Vec::new();
        Resampler::new(1, 2).push(&[[0, 0], [10, -10]], &mut out);
        assert_eq!(out, [[0, 0], [5, -5], [10, -10]]);
    }
}
