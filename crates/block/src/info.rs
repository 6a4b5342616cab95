//! What an image says about itself, and what a check of it found.

use serde_json::{Map, Value};

/// Beyond what every image has (name, size): the format's own facts.
#[derive(Clone, Debug, Default)]
pub struct ImageInfo {
    /// The image was not closed cleanly.
    pub dirty: bool,
    /// The contents are encrypted.
    pub encrypted: bool,
    /// The name of the backing file as the image stores it.
    pub backing_file: Option<String>,
    /// The format of the backing file as the image stores it.
    pub backing_format: Option<String>,
    /// Compressed clusters are possible and present by default.
    pub compressed: bool,
    /// The format's own facts, in display order: JSON name and value.
    pub specific: Option<Specific>,
}

/// A format's own facts.
#[derive(Clone, Debug)]
pub struct Specific {
    /// The tag that tells readers which facts follow.
    pub kind: &'static str,
    /// The facts.
    pub data: Map<String, Value>,
}

/// What a check may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fix {
    /// Space that nothing uses may be given back.
    pub leaks: bool,
    /// Damage may be repaired.
    pub errors: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Damage.
    pub corruptions: u64,
    /// Space that nothing uses.
    pub leaks: u64,
    /// Parts that could not be checked.
    pub check_errors: u64,
    /// Damage repaired.
    pub corruptions_fixed: u64,
    /// Space given back.
    pub leaks_fixed: u64,
    /// Where the image ends, as far as its tables know.
    pub image_end_offset: u64,
    /// Clusters in the image.
    pub total_clusters: u64,
    /// Clusters in use.
    pub allocated_clusters: u64,
    /// Clusters that do not follow their predecessor.
    pub fragmented_clusters: u64,
    /// Clusters that are compressed.
    pub compressed_clusters: u64,
    /// One line for each finding, in the order found.
    pub messages: Vec<String>,
}
