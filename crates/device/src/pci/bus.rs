//! A bus: slots, the way of configuration cycles, and the wires of interrupt pins.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use memory::AddressSpace;
use parking_lot::{Mutex, RwLock};

use super::msi::MsiSink;
use super::{PciFunction, spec};
use crate::IrqSink;

/// Slot and function on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// 0 to 31.
    pub slot: u8,
    /// 0 to 7.
    pub function: u8,
}

impl Address {
    /// Function 0 of a slot.
    #[must_use]
    pub fn slot(slot: u8) -> Self {
        Self { slot, function: 0 }
    }

    /// As configuration cycles carry it.
    #[must_use]
    pub fn number(self) -> u8 {
        self.slot << 3 | self.function & 7
    }

    /// The other way round.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self { slot: number >> 3, function: number & 7 }
    }
}

/// What all buses of a host bridge share.
pub struct Root {
    /// Where memory BARs are mapped.
    pub memory: Arc<AddressSpace>,
    /// Where port BARs are mapped.
    pub ports: Arc<AddressSpace>,
    /// What functions access: RAM. Not each other, or a guest could lead them in circles.
    pub dma: Arc<AddressSpace>,
    /// Where interrupt messages go.
    pub msi: Arc<dyn MsiSink>,
}

/// Where the pins of a root bus are wired to: the chipset's interrupt router.
pub trait PinRouter: Send + Sync {
    /// The input of the router that pin (0 for A) of a slot is soldered to.
    fn input(&self, slot: u8, pin: u32) -> u32;
}

/// What a bridge lets through to its lower side.
pub trait Aperture: Send + Sync {
    /// Whether ports or memory from `first` to `last` pass.
    fn admits(&self, io: bool, first: u64, last: u64) -> bool;
}

/// The upper end of a bus.
enum Upper {
    /// The host bridge: pins go to a router's inputs.
    Host { router: Box<dyn PinRouter>, sink: Arc<dyn IrqSink>, asserted: Mutex<BTreeMap<u32, u32>> },
    /// A bridge: pins are swizzled and go on as the bridge's own.
    Bridge { asserted: Mutex<[u32; 4]>, ends: RwLock<Option<(Place, Arc<dyn Aperture>)>> },
}

/// A bus with its functions.
///
/// Lock order: `slots` is never held while a function is called.
pub struct Bus {
    root: Arc<Root>,
    upper: Upper,
    /// Express buses have the 4 KiB configuration space.
    express: bool,
    slots: RwLock<BTreeMap<u8, Arc<dyn PciFunction>>>,
}

/// Why a function cannot be plugged in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// Somebody is there.
    #[error("PCI slot {slot}.{function} is in use")]
    Occupied {
        /// The slot.
        slot: u8,
        /// The function.
        function: u8,
    },
    /// Function 0 is there and does not say that there are others, or the other way round.
    #[error("PCI slot {slot}: function 0 does not announce several functions")]
    SingleFunction {
        /// The slot.
        slot: u8,
    },
}

impl Bus {
    /// The bus below a host bridge.
    pub fn host(
        root: Arc<Root>,
        express: bool,
        router: Box<dyn PinRouter>,
        sink: Arc<dyn IrqSink>,
    ) -> Arc<Self> {
        let upper = Upper::Host { router, sink, asserted: Mutex::default() };
        Arc::new(Self { root, upper, express, slots: RwLock::default() })
    }

    /// The bus below a bridge; [`Bus::connect`] ties it to the bridge once that is plugged in.
    pub fn below_bridge(root: Arc<Root>, express: bool) -> Arc<Self> {
        let upper = Upper::Bridge { asserted: Mutex::default(), ends: RwLock::default() };
        Arc::new(Self { root, upper, express, slots: RwLock::default() })
    }

    /// The bridge above is at `place` and lets through what `aperture` says.
    pub fn connect(&self, place: Place, aperture: Arc<dyn Aperture>) {
        if let Upper::Bridge { ends, .. } = &self.upper {
            *ends.write() = Some((place, aperture));
        }
        self.remap();
    }

    /// What all buses share.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Whether it is a PCI Express bus.
    #[must_use]
    pub fn is_express(&self) -> bool {
        self.express
    }

    /// Whether it is the bus below the host bridge.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self.upper, Upper::Host { .. })
    }

    /// Plugs a function in.
    pub fn plug(
        self: &Arc<Self>,
        address: Address,
        function: &Arc<dyn PciFunction>,
    ) -> Result<(), PlugError> {
        {
            let mut slots = self.slots.write();
            let Address { slot, function: number } = address;
            if slots.contains_key(&address.number()) {
                return Err(PlugError::Occupied { slot, function: number });
            }
            let announces = |function: &Arc<dyn PciFunction>| {
                function.connection().config_read(spec::HEADER_TYPE, 1) & 0x80 != 0
            };
            let first = slots.get(&(slot << 3));
            let others = (1..8).any(|number| slots.contains_key(&(slot << 3 | number)));
            let single = match number {
                0 => others && !announces(function),
                _ => first.is_some_and(|first| !announces(first)),
            };
            if single {
                return Err(PlugError::SingleFunction { slot });
            }
            slots.insert(address.number(), Arc::clone(function));
        }
        let place = Place { bus: Arc::downgrade(self), root: Arc::clone(&self.root), address };
        function.connection().attach(place.clone());
        function.plugged(&place);
        if let Some(bridge) = self.bridge() {
            bridge.child_plugged();
        }
        Ok(())
    }

    /// The bridge above, if there is one.
    fn bridge(&self) -> Option<Arc<dyn PciFunction>> {
        let Upper::Bridge { ends, .. } = &self.upper else { return None };
        let place = ends.read().as_ref().map(|(place, _)| place.clone())?;
        place.bus()?.function(place.address)
    }

    /// Takes a function out: its memory is gone, its interrupt is silent.
    pub fn unplug(&self, address: Address) -> Option<Arc<dyn PciFunction>> {
        let function = self.slots.write().remove(&address.number())?;
        function.connection().detach();
        Some(function)
    }

    /// The function at an address.
    #[must_use]
    pub fn function(&self, address: Address) -> Option<Arc<dyn PciFunction>> {
        self.slots.read().get(&address.number()).cloned()
    }

    /// All functions in the order of their addresses.
    #[must_use]
    pub fn functions(&self) -> Vec<(Address, Arc<dyn PciFunction>)> {
        let slots = self.slots.read();
        let entry = |(number, function): (&u8, &Arc<_>)| {
            (Address::from_number(*number), Arc::clone(function))
        };
        slots.iter().map(entry).collect()
    }

    /// The first slot from `first` on in which there is nothing.
    #[must_use]
    pub fn free_slot(&self, first: u8) -> Option<u8> {
        let slots = self.slots.read();
        (first..32).find(|slot| (0..8).all(|number| !slots.contains_key(&(slot << 3 | number))))
    }

    /// The function that a configuration cycle for `bus` reaches, seen from this bus, which has
    /// the number `own`.
    #[must_use]
    pub fn find(&self, own: u8, bus: u8, address: Address) -> Option<Arc<dyn PciFunction>> {
        if bus == own {
            return self.function(address);
        }
        self.functions().into_iter().find_map(|(_, function)| {
            let below = function.secondary()?;
            let connection = function.connection();
            let secondary = connection.config_read(spec::SECONDARY_BUS, 1) as u8;
            let subordinate = connection.config_read(spec::SUBORDINATE_BUS, 1) as u8;
            // Numbers grow on the way down, so this ends whatever a guest has written.
            let leads = secondary > own && (secondary..=subordinate).contains(&bus);
            leads.then(|| below.find(secondary, bus, address)).flatten()
        })
    }

    /// A configuration read that starts here; ones where nobody answers.
    #[must_use]
    pub fn config_read(&self, bus: u8, address: Address, at: u16, size: u8) -> u32 {
        let nobody = memory::ones(size.min(4)) as u32;
        self.find(0, bus, address).map_or(nobody, |function| function.config_read(at, size))
    }

    /// A configuration write that starts here.
    pub fn config_write(&self, bus: u8, address: Address, at: u16, size: u8, value: u32) {
        if let Some(function) = self.find(0, bus, address) {
            function.config_write(at, size, value);
        }
    }

    /// The windows above have changed: what is below looks where it is visible now.
    pub fn remap(&self) {
        for (_, function) in self.functions() {
            function.connection().remap();
            if let Some(below) = function.secondary() {
                below.remap();
            }
        }
    }

    /// Resets every function.
    pub fn reset(&self) {
        for (_, function) in self.functions() {
            if let Some(below) = function.secondary() {
                below.reset();
            }
            function.reset();
        }
    }

    fn set_pin(&self, address: Address, pin: u32, level: bool) {
        let swizzled = (pin + u32::from(address.slot)) % 4;
        match &self.upper {
            Upper::Host { router, sink, asserted } => {
                let input = router.input(address.slot, pin);
                let mut asserted = asserted.lock();
                let count = asserted.entry(input).or_default();
                *count = if level { *count + 1 } else { count.saturating_sub(1) };
                sink.set_level(input, *count > 0);
            }
            Upper::Bridge { asserted, ends } => {
                let mut asserted = asserted.lock();
                let count = &mut asserted[swizzled as usize];
                let before = *count > 0;
                *count = if level { *count + 1 } else { count.saturating_sub(1) };
                let after = *count > 0;
                if let Some((place, _)) = ends.read().as_ref().filter(|_| before != after) {
                    place.set_pin(swizzled, after);
                }
            }
        }
    }

    fn admits(&self, io: bool, first: u64, last: u64) -> bool {
        match &self.upper {
            Upper::Host { .. } => true,
            Upper::Bridge { ends, .. } => ends.read().as_ref().is_some_and(|(place, aperture)| {
                aperture.admits(io, first, last) && place.admits(io, first, last)
            }),
        }
    }
}

/// Where a function is plugged in.
#[derive(Clone)]
pub struct Place {
    bus: Weak<Bus>,
    root: Arc<Root>,
    address: Address,
}

impl Place {
    /// Slot and function.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The bus, while it exists.
    #[must_use]
    pub fn bus(&self) -> Option<Arc<Bus>> {
        self.bus.upgrade()
    }

    /// What all buses share.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    pub(super) fn space(&self, io: bool) -> &AddressSpace {
        if io { &self.root.ports } else { &self.root.memory }
    }

    pub(super) fn admits(&self, io: bool, first: u64, last: u64) -> bool {
        self.bus.upgrade().is_some_and(|bus| bus.admits(io, first, last))
    }

    pub(super) fn set_pin(&self, pin: u32, level: bool) {
        if let Some(bus) = self.bus.upgrade() {
            bus.set_pin(self.address, pin, level);
        }
    }
}
