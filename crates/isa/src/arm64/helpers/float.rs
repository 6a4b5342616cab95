//! Floating-point vector instructions.

use crate::arm64::state::State;

/// Does a floating-point instruction and gives sticky exceptions as in MXCSR; `None`: it is none.
pub fn compute(_: &mut State, _: u32) -> Option<u64> {
    None
}
