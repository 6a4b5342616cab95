//! Frames: a kind, a length, bytes.

use std::io::{self, Read, Write};

/// What one frame carries at most.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The first one: a request, in JSON.
    Request,
    /// Standard input, or a file's contents to the guest. An empty one is the end.
    Input,
    /// Standard output, or a file's contents from the guest. An empty one is the end.
    Output,
    /// Standard error.
    Error,
    /// The window has another size, in JSON.
    Resize,
    /// A signal's number, as one byte.
    Signal,
    /// The last one: how it ended, in JSON.
    Exit,
    /// The last one: why it could not be done, in JSON.
    Failure,
    /// An answer, in JSON.
    Answer,
}

impl FrameKind {
    const ALL: [Self; 9] = [
        Self::Request,
        Self::Input,
        Self::Output,
        Self::Error,
        Self::Resize,
        Self::Signal,
        Self::Exit,
        Self::Failure,
        Self::Answer,
    ];
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An unknown kind.
    #[error("The other side sent a frame of the unknown kind {0}")]
    Kind(u8),
    /// Too long.
    #[error("The other side sent a frame of {0} bytes")]
    Length(u32),
}

/// Reads a frame; none at the connection's end.
pub fn read_frame(from: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    let mut head = [0; 5];
    let mut filled = 0;
    while filled < head.len() {
        match from.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [number, length @ ..] = head;
    let kind = FrameKind::ALL.get(usize::from(number)).copied();
    let kind = kind.ok_or(FrameError::Kind(number))?;
    let length = u32::from_le_bytes(length);
    if length as usize > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Length(length));
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    Ok(Some(Frame { kind, payload }))
}

/// Writes a frame in one piece.
pub fn write_frame(to: &mut impl Write, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "frames are cut by their writers");
    let number = FrameKind::ALL.iter().position(|known| *known == kind);
    let number = number.expect("all kinds are in the table") as u8;
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(number);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
    to.write_all(&bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_through_and_hostile_ones_are_refused() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, FrameKind::Output, b"abc").unwrap();
        write_frame(&mut bytes, FrameKind::Exit, b"").unwrap();
        let mut from = bytes.as_slice();
        let first = read_frame(&mut from).unwrap().unwrap();
        assert_eq!((first.kind, first.payload.as_slice()), (FrameKind::Output, &b"abc"[..]));
        assert_eq!(read_frame(&mut from).unwrap().unwrap().kind, FrameKind::Exit);
        assert!(read_frame(&mut from).unwrap().is_none());
        assert!(matches!(read_frame(&mut &[99, 0, 0, 0, 0][..]), Err(FrameError::Kind(99))));
        let huge = [1, 255, 255, 255, 255];
        assert!(matches!(read_frame(&mut &huge[..]), Err(FrameError::Length(_))));
        assert!(matches!(read_frame(&mut &[1, 5, 0, 0, 0, 1][..]), Err(FrameError::Io(_))));
    }
}
