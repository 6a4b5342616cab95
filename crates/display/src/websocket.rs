//! WebSocket as a server speaks it (RFC 6455): the opening handshake and frames.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha1::{Digest, Sha1};

use crate::codec::{Bytes, ProtocolError, bad};

/// The head of a request is no longer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A frame's payload is taken as it comes, but control frames are taken whole (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Reads a request's head: its length and the answer to it. `None` when it is not whole yet.
pub fn greet(bytes: &[u8]) -> Option<Result<(usize, Vec<u8>), ProtocolError>> {
    let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
        return (bytes.len() > HEAD_BYTES_MAX).then(|| Err(bad("length of a request")));
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    if !lines.next().is_some_and(|line| line.starts_with("GET ") && line.ends_with(" HTTP/1.1")) {
        return Some(Err(bad("request")));
    }
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field.trim().eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.trim())
    };
    let has = |name: &str, word: &str| {
        field(name).split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let key = field("Sec-WebSocket-Key");
    if !has("Upgrade", "websocket") || field("Sec-WebSocket-Version") != "13" || key.is_empty() {
        return Some(Err(bad("request: it does not ask for a WebSocket")));
    }
    let accept = BASE64.encode(Sha1::new().chain_update(key).chain_update(MAGIC).finalize());
    let protocol = match has("Sec-WebSocket-Protocol", "binary") {
        true => "Sec-WebSocket-Protocol: binary\r\n",
        false => "",
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    );
    Some(Ok((end + 4, answer.into_bytes())))
}

/// A frame around a payload, as a server sends it: whole and unmasked.
pub fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..126 => out.push(length as u8),
        length @ ..0x1_0000 => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(payload);
}

/// Binary data.
pub const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Takes frames apart.
#[derive(Default)]
pub struct Unframer {
    waiting: Vec<u8>,
    left: u64,
    mask: [u8; 4],
    at: usize,
}

impl Unframer {
    /// Takes what came. Data goes to `data`, answers to control frames to `answers`. False when
    /// the other side has closed.
    pub fn push(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        self.waiting.extend(bytes);
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = &waiting[..];
        loop {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
            data.extend(rest[..count].iter().map(|byte| {
                self.at += 1;
                byte ^ self.mask[(self.at - 1) % 4]
            }));
            rest = &rest[count..];
            self.left -= count as u64;
            if self.left > 0 || rest.is_empty() {
                return Ok(true);
            }
            let mut head = Bytes::new(rest);
            let Some(opened) = self.open(&mut head, answers) else {
                self.waiting = rest.to_vec();
                return Ok(true);
            };
            if !opened? {
                return Ok(false);
            }
            rest = &rest[head.taken()..];
        }
    }

    /// The head of a frame, and all of a control frame. False when it closes.
    fn open(
        &mut self,
        head: &mut Bytes<'_>,
        answers: &mut Vec<u8>,
    ) -> Option<Result<bool, ProtocolError>> {
        let (first, second) = (head.u8()?, head.u8()?);
        if second & 0x80 == 0 {
            return Some(Err(bad("frame: clients mask theirs")));
        }
        let length = match second & 0x7f {
            126 => u64::from(head.u16()?),
            127 => u64::from(head.u32()?) << 32 | u64::from(head.u32()?),
            short => short.into(),
        };
        let mut mask = [0; 4];
        mask.copy_from_slice(head.take(4)?);
        match first & 0x0f {
            0..=2 => (self.left, self.mask, self.at) = (length, mask, 0),
            CLOSE => {
                frame(CLOSE, &[], answers);
                return Some(Ok(false));
            }
            PING | PONG if length <= CONTROL_BYTES_MAX => {
                let payload = head.take(length as usize)?.iter().zip(mask.iter().cycle());
                let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
                if first & 0x0f == PING {
                    frame(PONG, &payload, answers);
                }
            }
            _ => return Some(Err(bad("kind of frame"))),
        }
        Some(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nupgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, binary\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let (length, answer) = greet(REQUEST.as_bytes()).unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(length, REQUEST.len());
        assert!(answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.ends_with("Protocol: binary\r\n\r\n"), "{answer}");
        assert!(greet(&REQUEST.as_bytes()[..80]).is_none());
        assert!(greet(b"POST / HTTP/1.1\r\n\r\n").unwrap().is_err());
        assert!(greet(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n").unwrap().is_err());
        assert!(greet(&[b'x'; HEAD_BYTES_MAX + 1]).unwrap().is_err());
    }

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(a, b)| a ^ b));
        bytes
    }

    #[test]
    fn frames_come_in_any_pieces() {
        let all =
            [masked(0x02, b"hel"), masked(0x89, b"?"), masked(0x80, b"lo"), masked(0x88, b"")];
        let all = all.concat();
        for size in 1..all.len() {
            let (mut unframer, mut data, mut answers) =
                (Unframer::default(), Vec::new(), Vec::new());
            let open: Vec<bool> = all
                .chunks(size)
                .map(|piece| unframer.push(piece, &mut data, &mut answers).unwrap())
                .collect();
            assert_eq!(data, b"hello", "pieces of {size}");
            assert_eq!(answers, [0x8a, 1, b'?', 0x88, 0]);
            assert_eq!(open.last(), Some(&false));
        }
        let mut unframer = Unframer::default();
        let unmasked = unframer.push(&[0x82, 1, 7], &mut Vec::new(), &mut Vec::new());
        assert!(unmasked.is_err());
        let mut huge = vec![0x89, 0xff];
        huge.extend([0xff; 12]);
        assert!(Unframer::default().push(&huge, &mut Vec::new(), &mut Vec::new()).is_err());
    }
}
