//! Safe wrappers over the operating system, for what well-kept crates do not wrap.

pub mod locks;
pub mod shared;
pub mod netlink;
pub mod socket;
pub mod tap;
