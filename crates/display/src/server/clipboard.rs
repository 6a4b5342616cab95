//! Text that clients cut, for the other clients: in Latin 1, or, with the extension for it, in
//! Unicode and only when somebody asks.

use std::sync::Arc;

use super::Shared;
use super::client::{Client, End};
use crate::codec::{Bytes, ProtocolError, Put, bad};
use crate::decode::Inflater;
use crate::encode::Deflater;

/// The longest text that is kept; of a longer one nothing is.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// `ServerCutText`.
const CUT_TEXT: u8 = 3;
/// The only format that is known.
const TEXT: u32 = 1;
const CAPS: u32 = 1 << 24;
const REQUEST: u32 = 1 << 25;
const PEEK: u32 = 1 << 26;
const NOTIFY: u32 = 1 << 27;
const PROVIDE: u32 = 1 << 28;

/// What a client says by the extension.
#[derive(Debug, PartialEq, Eq)]
enum Extended {
    /// What it can; the server can all that it may ask for.
    Caps,
    /// It wants the text.
    Request,
    /// It wants to know whether there is one.
    Peek,
    /// It has a text now, or none any more.
    Notify(bool),
    /// The text.
    Provide(String),
    /// Something of a kind that is not known here.
    Other,
}

impl Extended {
    fn read(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Bytes::new(bytes);
        let flags = reader.u32().ok_or_else(|| bad("clipboard"))?;
        let has_text = flags & TEXT != 0;
        Ok(match flags & (CAPS | REQUEST | PEEK | NOTIFY | PROVIDE) {
            REQUEST if has_text => Self::Request,
            PEEK => Self::Peek,
            NOTIFY => Self::Notify(has_text),
            PROVIDE if has_text => {
                // The text stands behind its length, and ends in a zero.
                let inner = Inflater::default().inflate(&bytes[4..], TEXT_BYTES_MAX + 16)?;
                let mut reader = Bytes::new(&inner);
                let text = reader.u32().and_then(|bytes| reader.take(bytes as usize));
                let text = text.ok_or_else(|| bad("clipboard"))?;
                let text = text.strip_suffix(&[0]).unwrap_or(text);
                Self::Provide(String::from_utf8_lossy(text).replace("\r\n", "\n"))
            }
            _ if flags & CAPS != 0 => Self::Caps,
            _ => Self::Other,
        })
    }
}

/// A message of the extension.
fn extended(flags: u32, data: &[u8]) -> Vec<u8> {
    let mut out = vec![CUT_TEXT, 0, 0, 0];
    let length = 4 + data.len() as i32;
    out.extend((-length).to_be_bytes());
    out.put32(flags);
    out.extend(data);
    out
}

/// What the server can: everything, with text, of which nothing comes unasked.
pub fn capabilities() -> Vec<u8> {
    extended(CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT, &[0; 4])
}

fn notify(has_text: bool) -> Vec<u8> {
    extended(NOTIFY | if has_text { TEXT } else { 0 }, &[])
}

fn provide(text: &str) -> Vec<u8> {
    let text = text.replace('\n', "\r\n");
    let mut inner = Vec::with_capacity(text.len() + 5);
    inner.put32(text.len() as u32 + 1);
    inner.extend(text.as_bytes());
    inner.push(0);
    let mut data = Vec::new();
    Deflater::default().deflate(&inner, &mut data);
    extended(PROVIDE | TEXT, &data)
}

/// For clients without the extension: what Latin 1 has no sign for becomes a question mark.
fn plain(text: &str) -> Vec<u8> {
    let bytes: Vec<u8> = text.chars().map(|sign| u8::try_from(sign).unwrap_or(b'?')).collect();
    let mut out = vec![CUT_TEXT, 0, 0, 0];
    out.put32(bytes.len() as u32);
    out.extend(bytes);
    out
}

impl Shared {
    /// A client has cut something.
    pub(super) fn cut(
        &self,
        client: &Arc<Client>,
        is_extended: bool,
        bytes: &[u8],
    ) -> Result<(), End> {
        if !is_extended {
            self.offer(client, bytes.iter().map(|byte| char::from(*byte)).collect());
            return Ok(());
        }
        let text = || self.clipboard.lock().clone();
        match Extended::read(bytes)? {
            Extended::Request => match text() {
                Some(text) => client.put_text(&provide(&text)),
                None => client.put_text(&notify(false)),
            },
            Extended::Peek => client.put_text(&notify(text().is_some())),
            // Whoever wants it later is not to wait for a client that has gone.
            Extended::Notify(true) => client.put_text(&extended(REQUEST | TEXT, &[])),
            Extended::Provide(text) => {
                self.offer(client, text);
                Ok(())
            }
            Extended::Notify(false) | Extended::Caps | Extended::Other => Ok(()),
        }
    }

    /// Keeps a text and lets the others know.
    fn offer(&self, from: &Arc<Client>, text: String) {
        let text: Arc<str> = text.into();
        *self.clipboard.lock() = Some(Arc::clone(&text));
        let others = self.clients.lock().clone();
        for client in others.iter().filter(|client| !Arc::ptr_eq(client, from) && client.is_in()) {
            let knows = client.state.lock().abilities.clipboard;
            // One that takes nothing loses what was cut, and stays.
            _ = client.put_text(&if knows { notify(true) } else { plain(&text) });
        }
    }

    /// What a client is told that has just said that it knows the extension.
    pub(super) fn introduce_clipboard(&self, client: &Client) -> Result<(), End> {
        client.put_text(&capabilities())?;
        match self.clipboard.lock().is_some() {
            true => client.put_text(&notify(true)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        for text in ["", "one line", "two\nlines", "grüße, 世界 🐧"] {
            let message = provide(text);
            let length = i32::from_be_bytes(message[4..8].try_into().unwrap());
            assert_eq!(length.unsigned_abs() as usize, message.len() - 8);
            assert!(length < 0, "a negative length is the sign of the extension");
            assert_eq!(Extended::read(&message[8..]), Ok(Extended::Provide(text.to_owned())));
        }
        assert_eq!(plain("aä€"), [&[3, 0, 0, 0, 0, 0, 0, 3][..], &[b'a', 0xe4, b'?']].concat());
    }

    #[test]
    fn hostile_texts_are_errors() {
        let mut large = vec![0; 4];
        let mut inner = (8_u32 << 20).to_be_bytes().to_vec();
        inner.resize(8 << 20, b'x');
        large.copy_from_slice(&(PROVIDE | TEXT).to_be_bytes());
        Deflater::default().deflate(&inner, &mut large);
        assert!(large.len() < TEXT_BYTES_MAX, "it is small on its way");
        assert!(Extended::read(&large).is_err());
        for bytes in [&[][..], &[0x10, 0, 0], &[0x10, 0, 0, 1, 1, 2, 3], &[0x10, 0, 0, 1]] {
            assert!(Extended::read(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(Extended::read(&[0xff, 0, 0, 2]), Ok(Extended::Caps));
    }
}
