//! The receiving end of a compressed stream.

use flate2::{Decompress, FlushDecompress, Status};

use crate::codec::{ProtocolError, bad};

pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// What the bytes hold, at most `most`.
    pub fn inflate(&mut self, bytes: &[u8], most: usize) -> Result<Vec<u8>, ProtocolError> {
        let mut out = Vec::with_capacity((bytes.len() * 4).min(most) + 1);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let before = out.len();
            let status = self
                .0
                .decompress_vec(&bytes[done..], &mut out, FlushDecompress::Sync)
                .map_err(|_| bad("compressed stream"))?;
            if out.len() > most {
                return Err(bad("length of compressed data"));
            }
            let read = (self.0.total_in() - start) as usize;
            let is_stuck = read == done && out.len() == before;
            if status == Status::StreamEnd && read < bytes.len() {
                return Err(bad("end of a compressed stream"));
            }
            // Room left over means that nothing is held back.
            if (read == bytes.len() && out.len() < out.capacity()) || is_stuck {
                return if read == bytes.len() { Ok(out) } else { Err(bad("compressed stream")) };
            }
            out.reserve(out.len().min(most) + 64);
        }
    }
}
