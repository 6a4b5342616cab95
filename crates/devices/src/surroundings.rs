//! What a device finds around it: memory, time, and back ends by their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::pci::Root;
use device::{
    Clock, Entropy, EventSink, Inputs, IrqLine, IrqSink, NoEvents, NoPower, Power, Properties,
    RecordedIrq, Screens, Sound, Stream, Timers,
};
use memory::AddressSpace;
use parking_lot::Mutex;

use crate::catalog::BuildError;
use crate::virtio::ninep::Share;

/// What the machine offers to its devices.
#[derive(Clone)]
pub struct Surroundings {
    /// Guest memory, for devices that are not on PCI (those use `Connection::dma`).
    pub memory: Arc<AddressSpace>,
    /// Ports.
    pub ports: Arc<AddressSpace>,
    /// The machine's time.
    pub clock: Arc<dyn Clock>,
    /// Timers that its main loop rings.
    pub timers: Arc<Timers>,
    /// The sixteen old interrupt lines, by number.
    pub isa_irqs: Arc<dyn IrqSink>,
    /// What all PCI buses share, for bridges; none on a board without PCI.
    pub pci: Option<Arc<Root>>,
    /// Reset, power-off, stop.
    pub power: Arc<dyn Power>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// Where screens are registered.
    pub screens: Arc<Screens>,
    /// Where keyboards and pointers are registered.
    pub inputs: Arc<Inputs>,
    /// Images of firmware and of expansion ROMs.
    pub firmware: Arc<dyn Firmware>,
    /// Disks, networks, streams.
    pub backends: Arc<Backends>,
    /// The bytes of RAM that the machine began with.
    pub ram_bytes: u64,
}

impl Surroundings {
    /// Surroundings with this memory and clock and nothing else, for tests of devices.
    #[must_use]
    pub fn bare(memory: &Arc<AddressSpace>, clock: Arc<dyn Clock>) -> Self {
        Self {
            memory: Arc::clone(memory),
            ports: Arc::default(),
            clock,
            timers: Timers::new(|| {}),
            isa_irqs: Arc::new(RecordedIrq::default()),
            pci: None,
            power: Arc::new(NoPower),
            events: Arc::new(NoEvents),
            screens: Arc::default(),
            inputs: Arc::default(),
            firmware: Arc::new(NoFirmware),
            backends: Arc::default(),
            ram_bytes: 0,
        }
    }

    /// An old interrupt line.
    #[must_use]
    pub fn isa_irq(&self, number: u32) -> IrqLine {
        IrqLine::new(Arc::clone(&self.isa_irqs), number)
    }
}

/// Where firmware images come from: folders of the host.
pub trait Firmware: Send + Sync {
    /// The bytes of an image by its file's name, or by a path.
    fn load(&self, name: &str) -> Option<Vec<u8>>;
}

/// No images at all.
#[derive(Debug, Default)]
pub struct NoFirmware;

impl Firmware for NoFirmware {
    fn load(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }
}

/// Back ends by kind and name. They may come and go while the machine runs.
#[derive(Default)]
pub struct Backends {
    /// Nodes of the block graph, or drives.
    pub drives: Registry<dyn block::Node>,
    /// What network cards are plugged into.
    pub networks: Registry<dyn net::Backend>,
    /// Byte streams.
    pub streams: Registry<dyn Stream>,
    /// Sources of random numbers.
    pub entropy: Registry<dyn Entropy>,
    /// Shared folders.
    pub shares: Registry<Share>,
    /// Numbers by which guests are known to each other's sockets.
    pub contexts: Registry<()>,
    /// Where sound is played; many devices may play at one.
    pub sounds: Registry<dyn Sound>,
}

/// Back ends of one kind. A device claims one by its name; most kinds have one user at most.
pub struct Registry<T: ?Sized> {
    entries: Mutex<BTreeMap<String, Entry<T>>>,
}

struct Entry<T: ?Sized> {
    backend: Arc<T>,
    user: Option<String>,
}

impl<T: ?Sized> Default for Registry<T> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<T: ?Sized> Registry<T> {
    /// Adds one. False when the name is taken.
    pub fn insert(&self, name: &str, backend: Arc<T>) -> bool {
        let mut entries = self.entries.lock();
        if entries.contains_key(name) {
            return false;
        }
        entries.insert(name.to_owned(), Entry { backend, user: None });
        true
    }

    /// Takes one away. The device that uses it keeps it until it is gone itself.
    pub fn remove(&self, name: &str) -> Option<Arc<T>> {
        self.entries.lock().remove(name).map(|entry| entry.backend)
    }

    /// One by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.entries.lock().get(name).map(|entry| Arc::clone(&entry.backend))
    }

    /// The device that uses it.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<String> {
        self.entries.lock().get(name)?.user.clone()
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries.lock().keys().cloned().collect()
    }

    /// The one that `property` of device `id` names, for this device alone; none where the
    /// property is not set.
    pub fn claim(
        &self,
        id: &str,
        properties: &Properties,
        property: &str,
    ) -> Result<Option<Arc<T>>, BuildError> {
        let Some(value) = properties.text(property) else { return Ok(None) };
        self.claim_named(id, property, value).map(Some)
    }

    /// The one of this name, for device `id` alone.
    pub fn claim_named(&self, id: &str, property: &str, value: &str) -> Result<Arc<T>, BuildError> {
        let (property, value) = (property.to_owned(), value.to_owned());
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&value) else {
            return Err(BuildError::NoSuchBackend { property, value });
        };
        if let Some(by) = entry.user.clone().filter(|user| user != id) {
            return Err(BuildError::InUse { property, value, by });
        }
        entry.user = Some(id.to_owned());
        Ok(Arc::clone(&entry.backend))
    }

    /// The same, without keeping others off.
    pub fn share(
        &self,
        properties: &Properties,
        property: &str,
    ) -> Result<Option<Arc<T>>, BuildError> {
        let Some(value) = properties.text(property) else { return Ok(None) };
        let (property, value) = (property.to_owned(), value.to_owned());
        self.get(&value).map(Some).ok_or(BuildError::NoSuchBackend { property, value })
    }

    /// Two back ends get each other's names, with their users. False when one is not there.
    pub fn exchange(&self, one: &str, other: &str) -> bool {
        let mut entries = self.entries.lock();
        if one == other || !entries.contains_key(one) || !entries.contains_key(other) {
            return false;
        }
        let (Some(first), Some(second)) = (entries.remove(one), entries.remove(other)) else {
            return false;
        };
        entries.insert(one.to_owned(), second);
        entries.insert(other.to_owned(), first);
        true
    }

    /// The name of what device `id` uses.
    #[must_use]
    pub fn used_by(&self, id: &str) -> Option<String> {
        let entries = self.entries.lock();
        let found = entries.iter().find(|(_, entry)| entry.user.as_deref() == Some(id));
        found.map(|(name, _)| name.clone())
    }

    /// Device `id` is gone: what it used is free.
    pub fn release(&self, id: &str) {
        for entry in self.entries.lock().values_mut() {
            if entry.user.as_deref() == Some(id) {
                entry.user = None;
            }
        }
    }
}

impl Backends {
    /// Device `id` is gone: what it used is free.
    pub fn release(&self, id: &str) {
        self.drives.release(id);
        self.networks.release(id);
        self.streams.release(id);
        self.entropy.release(id);
        self.shares.release(id);
        self.contexts.release(id);
    }
}

#[cfg(test)]
mod tests {
    use device::{NullStream, PropertyValue};

    use super::*;

    #[test]
    fn a_back_end_has_one_user_until_it_is_released() {
        let streams = Registry::<dyn Stream>::default();
        assert!(streams.insert("a", Arc::new(NullStream)));
        assert!(!streams.insert("a", Arc::new(NullStream)), "names are unique");
        let mut properties = Properties::default();
        assert!(streams.claim("one", &properties, "chardev").unwrap().is_none());
        properties.set("chardev", PropertyValue::Text("a".to_owned()));
        assert!(streams.claim("one", &properties, "chardev").unwrap().is_some());
        let error = streams.claim("two", &properties, "chardev").err().unwrap();
        assert_eq!(error.to_string(), "Property 'chardev': 'a' is in use by 'one'");
        streams.release("one");
        assert!(streams.claim("two", &properties, "chardev").unwrap().is_some());
        properties.set("chardev", PropertyValue::Text("b".to_owned()));
        assert!(streams.claim("two", &properties, "chardev").is_err());
    }
}
