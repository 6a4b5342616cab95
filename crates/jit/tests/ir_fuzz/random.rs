//! Random numbers, the same ones for a seed.

/// A small generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Seeds that differ in one bit give numbers that differ in all.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ mixed >> 31) | 1)
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.draw() >> 32) as usize) % n
    }

    /// Numbers that find borders: zeros, ones, extremes, floats and NaNs among random ones.
    pub fn word(&mut self) -> u64 {
        const BORDERS: [u64; 16] = [
            0,
            1,
            u64::MAX,
            1 << 63,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000,
            0x7fff_ffff,
            0x3ff0_0000_3f80_0000,
            0x7ff8_0000_7fc0_0000,
            0x7ff0_0001_7f80_0001,
            0xfff0_0000_ff80_0000,
            0x7ff0_0000_0000_0000,
            0x43df_ffff_4f00_0000,
            0xc1e0_0000_0020_0000,
            0x0000_0001_0000_0001,
            0xbff8_0000_bf00_0000,
        ];
        match self.draw() % 4 {
            0 => BORDERS[(self.draw() % 16) as usize],
            1 => self.draw() >> (self.draw() % 64),
            _ => self.draw(),
        }
    }
}
