//! Whole boards on the translator: firmware and kernels from Debian's packages.

mod firmware;
mod linux;
mod rig;
mod virtio;
