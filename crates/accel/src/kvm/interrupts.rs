//! Interrupt messages to the local APICs in the kernel.

use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;

use super::IOAPIC_PINS;

/// A write to where the local APICs listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where, with the destination.
    pub address: u64,
    /// What: vector and kind.
    pub data: u32,
}

/// The way into the kernel.
pub struct Interrupts {
    vm: Arc<VmFd>,
    /// What each input of the I/O APIC sends: from it the kernel learns which ends of interrupts
    /// it must tell of.
    routes: Mutex<[Option<Message>; IOAPIC_PINS as usize]>,
}

impl Interrupts {
    pub(super) fn new(vm: &Arc<VmFd>) -> Self {
        Self { vm: Arc::clone(vm), routes: Mutex::default() }
    }

    /// Delivers a message. One that addresses nobody is lost, as on a bus.
    pub fn send(&self, message: Message) {
        let Message { address, data } = message;
        _ = self.vm.signal_msi(kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..Default::default()
        });
    }

    /// An input of the I/O APIC sends this from now on, or nothing.
    pub fn set_route(&self, pin: u32, message: Option<Message>) {
        let mut routes = self.routes.lock();
        let Some(route) = routes.get_mut(pin as usize) else { return };
        if std::mem::replace(route, message) == message {
            return;
        }
        let entry = |(pin, message): (usize, &Option<Message>)| {
            let Message { address, data } = (*message)?;
            let mut msi = kvm_irq_routing_msi { data, ..Default::default() };
            (msi.address_lo, msi.address_hi) = (address as u32, (address >> 32) as u32);
            let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
            let type_ = KVM_IRQ_ROUTING_MSI;
            Some(kvm_irq_routing_entry { gsi: pin as u32, type_, u, ..Default::default() })
        };
        let entries: Vec<_> = routes.iter().enumerate().filter_map(entry).collect();
        if let Ok(table) = KvmIrqRouting::from_entries(&entries) {
            // There is always room for so few, and the kernel takes any MSI.
            _ = self.vm.set_gsi_routing(&table);
        }
    }
}
