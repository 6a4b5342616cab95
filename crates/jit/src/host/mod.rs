//! Host back ends. One so far.

pub mod x86_64;
