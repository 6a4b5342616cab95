//! The daemon against libvirt's own clients, and against libvirtd where there is one.

mod fixture;
mod test_world;
mod qemu;
mod hostile;
mod reference;
mod procedures;
