//! What a vCPU knows, to be saved: fields of words by name, the same on every accelerator that
//! runs it again.

use std::collections::BTreeMap;

/// Fields by their names.
pub type SavedProcessor = BTreeMap<String, Vec<u64>>;

/// Why a state cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is incomplete.
    #[error("The state of a CPU has no '{name}'")]
    Missing {
        /// Which field.
        name: &'static str,
    },
    /// A field has another size.
    #[error("'{name}' of a CPU's state has {found} words and not {expected}")]
    Length {
        /// Which field.
        name: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The system does not take it, or does not give it.
    #[error("Cannot move a CPU's state: {text}")]
    System {
        /// What it says.
        text: String,
    },
}

/// Takes a field of so many words out of a state.
pub(crate) fn field<const N: usize>(
    saved: &SavedProcessor,
    name: &'static str,
) -> Result<[u64; N], SavedError> {
    let words = saved.get(name).ok_or(SavedError::Missing { name })?;
    let length = SavedError::Length { name, found: words.len(), expected: N };
    words.as_slice().try_into().map_err(|_| length)
}
