//! Snapshots inside an image.

use crate::error::Result;
use crate::node::NodeRef;

/// One snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// A number, unique in the image, as text.
    pub id: String,
    /// The name the user gave.
    pub name: String,
    /// Bytes of saved machine state.
    pub vm_state_bytes: u64,
    /// Seconds since 1970.
    pub date_seconds: u32,
    /// And nanoseconds.
    pub date_nanoseconds: u32,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_ns: u64,
    /// Instructions executed, where the machine counted them.
    pub icount: Option<u64>,
    /// The size that the guest saw.
    pub disk_bytes: u64,
}

/// Formats with snapshots inside.
pub trait Snapshots: Send + Sync {
    /// All snapshots in the order of the image.
    fn list(&self) -> Vec<Snapshot>;
    /// Takes one. The identifier is chosen by the format.
    fn create(&self, snapshot: &Snapshot) -> Result<()>;
    /// Makes a snapshot's contents the current ones.
    fn apply(&self, id_or_name: &str) -> Result<()>;
    /// Removes one.
    fn delete(&self, id: &str) -> Result<()>;
    /// A read-only view of a snapshot's contents.
    fn open(&self, id: &str) -> Result<NodeRef>;
}
