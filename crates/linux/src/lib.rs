//! Safe wrappers over the operating system, for what well-kept crates do not wrap.

pub mod inherited;
pub mod landlock;
pub mod locks;
pub mod mounts;
pub mod shared;
pub mod netlink;
pub mod socket;
pub mod tap;
