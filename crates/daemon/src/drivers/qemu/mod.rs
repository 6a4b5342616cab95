//! QEMU, ours or the reference.
use super::Registration;
pub const REGISTRATION: Registration = Registration {
    scheme: "qemu",
    start: |_| Ok(Vec::new()),
    open: |_, _| Err(libvirt_compat::Error::bare(libvirt_compat::Code::NoConnect)),
};
