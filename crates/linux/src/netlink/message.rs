//! How netlink messages are written and read: a header, a fixed part, attributes in attributes.

use super::HEADER;

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// Writes messages one behind the other.
#[derive(Default)]
pub struct Builder {
    bytes: Vec<u8>,
    /// Where the message and the attributes begin whose lengths are not known yet.
    open: Vec<usize>,
}

impl Builder {
    /// Begins a message with its fixed part.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> &mut Self {
        self.close_to(0);
        self.open.push(self.bytes.len());
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        self.align()
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("attributes are short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.align()
    }

    /// Adds a text, which ends with a zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds a number as the packet filter wants it.
    pub fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds what `inside` writes.
    pub fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) -> &mut Self {
        let depth = self.open.len();
        self.open.push(self.bytes.len());
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        inside(self);
        self.close_to(depth);
        self.align()
    }

    /// The bytes of all messages.
    pub fn finish(&mut self) -> Vec<u8> {
        self.close_to(0);
        std::mem::take(&mut self.bytes)
    }

    fn close_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            let start = self.open.pop().expect("the loop's condition says so");
            let length = self.bytes.len() - start;
            if self.open.is_empty() {
                let length = u32::try_from(length).expect("messages are short");
                self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
            } else {
                let length = u16::try_from(length).expect("attributes are short");
                self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
            }
        }
    }

    fn align(&mut self) -> &mut Self {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
        self
    }
}

/// The first message: its type, its body, what is behind it.
pub(super) fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

/// An attribute: its kind and its value.
pub type Attribute<'a> = (u16, &'a [u8]);

/// The attributes in these bytes; what is cut off ends them.
pub fn attributes(mut bytes: &[u8]) -> Vec<Attribute<'_>> {
    let mut list = Vec::new();
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & !NESTED;
        let Some(value) = bytes.get(4..length) else { break };
        list.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    list
}

/// The value of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(own, _)| *own == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut builder = Builder::default();
        builder.message(16, 5, 1, &[1, 2, 3, 4]).text(3, "br0").nested(18, |inside| {
            inside.text(1, "bridge");
        });
        builder.message(17, 5, 2, &[]);
        let bytes = builder.finish();
        let (kind, body, after) = split(&bytes).unwrap();
        assert_eq!((kind, &body[..4]), (16, &[1, 2, 3, 4][..]));
        assert_eq!(find(&body[4..], 3), Some(&b"br0\0"[..]));
        assert_eq!(find(find(&body[4..], 18).unwrap(), 1), Some(&b"bridge\0"[..]));
        assert_eq!(split(after).unwrap().0, 17);
    }

    #[test]
    fn broken_bytes_end_the_list() {
        for bytes in [&[1][..], &[3, 0, 1, 0], &[8, 0, 1, 0, 9], &[255, 255, 1, 0]] {
            assert_eq!(attributes(bytes), [], "{bytes:?}");
            assert!(split(bytes).is_none());
        }
    }
}
