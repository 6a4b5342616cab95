//! Whole boards: firmware and kernels from Debian's packages.

mod deep;
mod firmware;
mod hostile;
mod kvm;
mod linux;
mod panic;
mod rig;
mod saved;
mod virtio;
