//! The bytes of messages: little endian numbers, and strings behind their lengths.

use rustix::io::Errno;

use super::spec;

/// A request's fields in turn. A request that ends too early is invalid.
pub struct Reader<'a>(pub &'a [u8]);

type Result<T> = std::result::Result<T, Errno>;

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn half(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn word(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn long(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn string(&mut self) -> Result<&'a [u8]> {
        let count = self.half()?;
        self.bytes(usize::from(count))
    }
}

/// What names a file to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qid {
    pub kind: u8,
    pub version: u32,
    pub path: u64,
}

/// An answer, its header first.
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new(kind: u8, tag: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.push(kind);
        bytes.extend(tag.to_le_bytes());
        Self(bytes)
    }

    pub fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn half(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn word(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn long(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn string(&mut self, text: &[u8]) {
        self.half(text.len() as u16); // names and links are shorter than 64 KiB
        self.0.extend(text);
    }

    pub fn qid(&mut self, qid: Qid) {
        self.byte(qid.kind);
        self.word(qid.version);
        self.long(qid.path);
    }

    /// Bytes behind their count, which `fill` puts there: at most `room`.
    pub fn counted(
        &mut self,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        let start = self.0.len() + 4;
        self.0.resize(start + room, 0);
        let count = fill(&mut self.0[start..])?.min(room);
        self.0.truncate(start + count);
        self.0[start - 4..start].copy_from_slice(&(count as u32).to_le_bytes());
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The whole message.
    pub fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }

    /// The answer to a request that failed.
    pub fn error(tag: u16, error: Errno) -> Vec<u8> {
        let mut answer = Self::new(spec::ERROR, tag);
        answer.word(error.raw_os_error() as u32);
        answer.finish()
    }
}
