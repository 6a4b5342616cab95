//! Looking for zeros, fast.

/// Whether all bytes are zero. The first look is at a few bytes, because most data shows there.
pub fn all_zero(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return true };
    if *first != 0 || bytes[bytes.len() - 1] != 0 || bytes[bytes.len() / 2] != 0 {
        return false;
    }
    let mut pieces = bytes.chunks_exact(256);
    // Written so that the compiler makes vector code of the inner loop.
    pieces.by_ref().all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
        && pieces.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_bit_anywhere_is_seen() {
        for length in [1, 255, 256, 257, 4096] {
            let mut bytes = vec![0; length];
            assert!(all_zero(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(!all_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
