//! Frames: a length word, six header words, a payload.

use super::xdr::{Reader, Xdr};

/// libvirt's own limit, header included; a larger length is an attack or a lost byte.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// The length word and six more.
pub const HEADER_BYTES: usize = 28;
/// libvirt passes at most this many descriptors with one message.
pub const DESCRIPTORS_MAX: usize = 32;

/// The third header word but one: what a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Arguments, from the client.
    Call,
    /// A result or an error, from the server.
    Reply,
    /// An event or a keepalive; nobody answers with the same serial.
    Message,
    /// Data of a stream, with the serial of the call that opened it.
    Stream,
    /// A call that brings file descriptors.
    CallWithDescriptors,
    /// A reply that brings file descriptors.
    ReplyWithDescriptors,
    /// A hole in a sparse stream.
    StreamHole,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Call,
        Self::Reply,
        Self::Message,
        Self::Stream,
        Self::CallWithDescriptors,
        Self::ReplyWithDescriptors,
        Self::StreamHole,
    ];

    fn from_wire(word: u32) -> Option<Self> {
        Self::ALL.get(word as usize).copied()
    }
}

/// The last header word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The call succeeded; a stream has ended well.
    Ok,
    /// The payload is an error.
    Error,
    /// A stream goes on.
    Continue,
}

impl Status {
    fn from_wire(word: u32) -> Option<Self> {
        [Self::Ok, Self::Error, Self::Continue].get(word as usize).copied()
    }
}

/// Six words that say what the payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// `PROGRAM_REMOTE` and its like.
    pub program: u32,
    /// Always 1.
    pub version: u32,
    /// The procedure's number within the program.
    pub procedure: u32,
    /// Call, reply, event or stream data.
    pub kind: Kind,
    /// Chosen by the client; a reply repeats it.
    pub serial: u32,
    /// How it went.
    pub status: Status,
}

impl Header {
    /// The header of the reply to this call.
    pub fn reply(self, status: Status) -> Self {
        Self { kind: Kind::Reply, status, ..self }
    }

    /// The header of a stream packet that belongs to this call.
    pub fn stream(self, status: Status) -> Self {
        Self { kind: Kind::Stream, status, ..self }
    }
}

/// One message, in or out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is.
    pub header: Header,
    /// XDR, or a stream's bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The bytes for the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = HEADER_BYTES + self.payload.len();
        assert!(length <= FRAME_BYTES_MAX, "the sender bounds its payloads");
        let header = &self.header;
        let mut bytes = Vec::with_capacity(length);
        (length as u32).encode(&mut bytes);
        for word in [
            header.program,
            header.version,
            header.procedure,
            header.kind as u32,
            header.serial,
            header.status as u32,
        ] {
            word.encode(&mut bytes);
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// How many descriptors follow a call of kind `CallWithDescriptors`: its payload's first word.
    pub fn descriptor_count(&self) -> Option<usize> {
        let word = self.payload.first_chunk()?;
        Some(u32::from_be_bytes(*word) as usize)
    }
}

/// Why a connection has to be closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream of bytes has lost its frames.
    #[error("Frame length {bytes} is outside {HEADER_BYTES}..={FRAME_BYTES_MAX}")]
    BadLength {
        /// What the length word said.
        bytes: usize,
    },
    /// The kind is none of the seven.
    #[error("Frame kind {word} is unknown")]
    BadKind {
        /// What the header said.
        word: u32,
    },
    /// The status is none of the three.
    #[error("Frame status {word} is unknown")]
    BadStatus {
        /// What the header said.
        word: u32,
    },
}

/// Bytes in, frames out. Owns no socket and no clock.
#[derive(Default)]
pub struct FrameDecoder {
    pending: Vec<u8>,
    /// Bytes of `pending` that were already handed out.
    start: usize,
}

impl FrameDecoder {
    /// Takes what a socket gave.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.pending.drain(..self.start);
            self.start = 0;
        }
        self.pending.extend_from_slice(bytes);
    }

    /// `Ok(None)` asks for more bytes. After an error the connection is to be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let bytes = &self.pending[self.start..];
        let Some(length) = bytes.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(FrameError::BadLength { bytes: length });
        }
        if bytes.len() < length {
            return Ok(None);
        }
        let header = parse_header(&bytes[4..HEADER_BYTES])?;
        let payload = bytes[HEADER_BYTES..length].to_vec();
        self.start += length;
        Ok(Some(Frame { header, payload }))
    }

    /// Takes `count` raw bytes that stand between frames: the dummies that carry descriptors.
    pub fn take_raw(&mut self, count: usize) -> bool {
        let available = self.pending.len() - self.start >= count;
        if available {
            self.start += count;
        }
        available
    }
}

fn parse_header(bytes: &[u8]) -> Result<Header, FrameError> {
    let mut reader = Reader::new(bytes);
    let mut word = || u32::decode(&mut reader).expect("a header has six words");
    let (program, version, procedure) = (word(), word(), word());
    let (kind, serial, status) = (word(), word(), word());
    Ok(Header {
        program,
        version,
        procedure,
        kind: Kind::from_wire(kind).ok_or(FrameError::BadKind { word: kind })?,
        serial,
        status: Status::from_wire(status).ok_or(FrameError::BadStatus { word: status })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Frame> {
        let header = Header {
            program: super::super::PROGRAM_REMOTE,
            version: 1,
            procedure: 66,
            kind: Kind::Call,
            serial: 0,
            status: Status::Ok,
        };
        vec![
            Frame { header, payload: Vec::new() },
            Frame { header: Header { serial: 1, ..header }, payload: vec![0, 0, 0, 7] },
            Frame { header: header.stream(Status::Continue), payload: vec![1; 1000] },
        ]
    }

    #[test]
    fn frames_survive_any_split() {
        let frames = sample();
        let wire: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        for cut in 0..=wire.len() {
            let (mut decoder, mut seen) = (FrameDecoder::default(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                decoder.feed(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "cut at {cut}");
        }
    }

    #[test]
    fn lengths_and_words_out_of_range_close_the_connection() {
        let refuse = |patch: &[(usize, u32)]| {
            let mut bytes = sample()[0].to_bytes();
            for (word, value) in patch {
                bytes[word * 4..word * 4 + 4].copy_from_slice(&value.to_be_bytes());
            }
            let mut decoder = FrameDecoder::default();
            decoder.feed(&bytes);
            decoder.next_frame().unwrap_err()
        };
        assert_eq!(refuse(&[(0, 27)]), FrameError::BadLength { bytes: 27 });
        assert_eq!(refuse(&[(0, u32::MAX)]), FrameError::BadLength { bytes: 0xffff_ffff });
        assert_eq!(refuse(&[(4, 7)]), FrameError::BadKind { word: 7 });
        assert_eq!(refuse(&[(6, 3)]), FrameError::BadStatus { word: 3 });
    }
}
