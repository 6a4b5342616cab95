//! Persistent dirty bitmaps: which parts of an image changed since some point in time.

use crate::error::Result;

/// One bitmap as `info` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BitmapInfo {
    /// Unique in the image.
    pub name: String,
    /// Bytes that one bit speaks for.
    pub granularity: u64,
    /// The bitmap was not stored when the image was last used, so its contents mean nothing.
    pub in_use: bool,
    /// The bitmap follows writes.
    pub auto: bool,
}

/// Formats that keep bitmaps.
pub trait Bitmaps: Send + Sync {
    /// All bitmaps.
    fn list(&self) -> Vec<BitmapInfo>;
    /// Adds an empty one.
    fn add(&self, name: &str, granularity: u64, enabled: bool) -> Result<()>;
    /// Removes one.
    fn remove(&self, name: &str) -> Result<()>;
    /// Clears all its bits.
    fn clear(&self, name: &str) -> Result<()>;
    /// Makes it follow writes, or not.
    fn enable(&self, name: &str, enabled: bool) -> Result<()>;
    /// The dirty byte ranges (offset, length), coalesced and ascending.
    fn dirty(&self, name: &str) -> Result<Vec<(u64, u64)>>;
    /// Marks byte ranges as dirty.
    fn mark(&self, name: &str, ranges: &[(u64, u64)]) -> Result<()>;
}
