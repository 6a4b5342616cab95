//! The daemon against libvirt's own clients, and against libvirtd where there is one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

mod fixture;
mod test_world;
mod qemu;
mod hostile;
mod reference;
mod procedures;
mod virt_manager;
mod go_libvirt;
mod networks;
mod confinement;
mod transports;
