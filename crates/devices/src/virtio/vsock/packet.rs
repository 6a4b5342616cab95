//! A packet's header (5.10.6). Pure.

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 44;

/// Streams; there is nothing else here.
pub(super) const TYPE_STREAM: u16 = 1;

/// Asks for a connection.
pub(super) const REQUEST: u16 = 1;
/// Accepts it.
pub(super) const RESPONSE: u16 = 2;
/// Refuses or ends it.
pub(super) const RESET: u16 = 3;
/// A side sends or receives no more.
pub(super) const SHUTDOWN: u16 = 4;
/// Data.
pub(super) const DATA: u16 = 5;
/// How much room there is.
pub(super) const CREDIT_UPDATE: u16 = 6;
/// Asks for the above.
pub(super) const CREDIT_REQUEST: u16 = 7;

/// Of a shutdown: receives no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// Of a shutdown: sends no more.
pub(super) const NO_SEND: u32 = 2;

/// A header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub from: u64,
    pub to: u64,
    pub from_port: u32,
    pub to_port: u32,
    pub bytes: u32,
    pub kind: u16,
    pub operation: u16,
    pub flags: u32,
    /// The sender's buffer, and how much of what came it has passed on.
    pub buffer_bytes: u32,
    pub forwarded: u32,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word =
            |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            from: long(0),
            to: long(8),
            from_port: word(16),
            to_port: word(20),
            bytes: word(24),
            kind: word(28) as u16,
            operation: (word(28) >> 16) as u16,
            flags: word(32),
            buffer_bytes: word(36),
            forwarded: word(40),
        }
    }

    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.from.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.to.to_le_bytes());
        let last = u32::from(self.kind) | u32::from(self.operation) << 16;
        let words = [self.from_port, self.to_port, self.bytes, last];
        let words = words.into_iter().chain([self.flags, self.buffer_bytes, self.forwarded]);
        for (place, word) in bytes[16..].chunks_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_way() {
        let bytes: [u8; HEADER_BYTES] = std::array::from_fn(|at| at as u8 + 1);
        let header = Header::parse(&bytes);
        assert_eq!((header.from, header.bytes), (0x0807_0605_0403_0201, 0x1c1b_1a19));
        assert_eq!((header.kind, header.operation), (0x1e1d, 0x201f));
        assert_eq!(header.emit(), bytes);
    }
}
