//! A compressed stream that goes on from rectangle to rectangle.

use flate2::{Compress, Compression, FlushCompress};

/// The sending end.
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        // The fastest level: a screen's picture is either easy or hopeless.
        Self(Compress::new(Compression::fast(), true))
    }
}

impl Deflater {
    /// Compresses the next part, so that it can be read without what follows.
    pub fn deflate(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let start = self.0.total_in();
        loop {
            out.reserve((bytes.len() / 4).max(256));
            let done = (self.0.total_in() - start) as usize;
            let room = out.capacity() - out.len();
            let before = self.0.total_out();
            let result = self.0.compress_vec(&bytes[done..], out, FlushCompress::Sync);
            result.expect("compressing is possible at all times");
            let written = (self.0.total_out() - before) as usize;
            let done = (self.0.total_in() - start) as usize;
            // Room left over means that nothing is held back.
            if done == bytes.len() && written < room {
                return;
            }
        }
    }
}
