//! Where random numbers come from.

/// A source of random bytes. Called from any thread.
pub trait Entropy: Send + Sync {
    /// Fills all of `bytes` and says how many: fewer when the source has no more for now.
    fn fill(&self, bytes: &mut [u8]) -> usize;
}
