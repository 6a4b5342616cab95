//! What a drive says of itself: 256 words. ACS-3, 7.12.7.

/// The words.
pub struct Identity([u16; 256]);

impl Identity {
    /// A drive with these texts: serial number, firmware, model.
    pub fn new(serial: &str, firmware: &str, model: &str) -> Self {
        let mut identity = Self([0; 256]);
        identity.text(10, 10, serial);
        identity.text(23, 4, firmware);
        identity.text(27, 20, model);
        identity
    }

    pub fn set(&mut self, word: usize, value: u16) {
        self.0[word] = value;
    }

    pub fn set_all(&mut self, words: &[(usize, u16)]) {
        words.iter().for_each(|(word, value)| self.0[*word] = *value);
    }

    /// Several words, the least first.
    pub fn set_long(&mut self, word: usize, words: usize, value: u64) {
        for at in 0..words {
            self.0[word + at] = (value >> (16 * at)) as u16;
        }
    }

    /// Two characters a word, the first in the upper half, filled with spaces.
    fn text(&mut self, word: usize, words: usize, text: &str) {
        let bytes: Vec<u8> = text.bytes().chain(std::iter::repeat(b' ')).take(2 * words).collect();
        for (at, pair) in bytes.chunks(2).enumerate() {
            self.0[word + at] = u16::from_be_bytes([pair[0], pair[1]]);
        }
    }

    /// The bytes, with the sum in the last word.
    pub fn finish(mut self) -> Vec<u8> {
        self.0[255] = 0xa5;
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[511] = sum.wrapping_neg();
        bytes
    }
}
