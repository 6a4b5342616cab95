//! Numbers in byte streams, big-endian as RFB has them.

/// Takes numbers off the front of a slice. `None` means that more bytes have to come.
#[derive(Clone, Debug)]
pub struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    /// Starts at the front.
    #[must_use]
    pub fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// How many were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.at
    }

    /// The next `count`.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.all.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// The next two.
    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// The next four.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

/// Puts numbers at the end of a vector.
pub trait Put {
    /// Two bytes; a screen's sides fit, and nothing larger is put.
    fn put16(&mut self, value: u32);
    /// Four bytes.
    fn put32(&mut self, value: u32);
}

impl Put for Vec<u8> {
    fn put16(&mut self, value: u32) {
        let value = u16::try_from(value).unwrap_or(u16::MAX);
        self.extend(value.to_be_bytes());
    }

    fn put32(&mut self, value: u32) {
        self.extend(value.to_be_bytes());
    }
}
