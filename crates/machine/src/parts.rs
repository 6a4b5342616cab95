//! Devices that are plugged in: the tree of buses, names, slots.

use std::sync::Arc;

use device::pci::{Address, Bus, Connection, spec};
use device::{Device, Fields, StateError};
use device::{Properties, PropertyValue};
use devices::catalog::{
    self, Attachment, Built, BusKind, Controls, Model, OfferedBus, PciPlace, Request,
};
use devices::surroundings::Surroundings;
use memory::{AddressSpace, Owner, Region, RegionId};

use crate::config::{MachineError, Part, PartError};
use crate::state::transfer_function;

/// A device that was plugged in.
pub struct Plugged {
    /// Its name.
    pub id: String,
    /// Its row of the catalog.
    pub model: &'static Model,
    /// What was set, and the defaults of the rest.
    pub properties: Properties,
    /// The bus it is on; empty for the board.
    pub bus: String,
    /// Slot and function, on PCI.
    pub address: Option<Address>,
    /// For reset and pause.
    pub device: Arc<dyn Device>,
    /// What can be asked of it.
    pub controls: Controls,
    attachment: Attachment,
    buses: Vec<String>,
    /// Its registers off PCI: in ports, in memory.
    regions: (Vec<RegionId>, Vec<RegionId>),
}

/// What came of the wish to take a device out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplug {
    /// It is gone.
    Done,
    /// The guest was asked; the event `Unplugged` comes when it has let go.
    Asked,
    /// Its bus has no way to ask.
    NotHotpluggable,
    /// No device has the name.
    NoSuchDevice,
}

/// A bus with what others need to plug into it.
struct KnownBus {
    offered: OfferedBus,
    /// The device that opened it; none for the board.
    owner: Option<String>,
}

/// All that was plugged in.
pub struct Parts {
    surroundings: Surroundings,
    buses: Vec<KnownBus>,
    plugged: Vec<Plugged>,
    /// For names that are made up.
    counter: usize,
}

impl Parts {
    /// Nothing yet, on a board with these buses.
    pub fn new(surroundings: Surroundings, buses: Vec<OfferedBus>) -> Self {
        let buses = buses.into_iter().map(|offered| KnownBus { offered, owner: None }).collect();
        Self { surroundings, buses, plugged: Vec::new(), counter: 0 }
    }

    /// What the machine offers to its devices.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// All devices, in the order in which they came.
    pub fn all(&self) -> &[Plugged] {
        &self.plugged
    }

    /// A device by its name.
    pub fn find(&self, id: &str) -> Option<&Plugged> {
        self.plugged.iter().find(|plugged| plugged.id == id)
    }

    /// The device that has opened a bus; none for the board's own.
    pub fn owner_of(&self, bus: &str) -> Option<&Plugged> {
        let known = self.buses.iter().find(|known| known.offered.name == bus)?;
        self.find(known.owner.as_deref()?)
    }

    /// Plugs a part in, and says under which name.
    pub fn plug(&mut self, part: &Part) -> Result<String, MachineError> {
        let id = part.id.clone().unwrap_or_else(|| {
            self.counter += 1;
            format!("#device{}", self.counter)
        });
        let failed =
            |source| MachineError::Part { id: id.clone(), model: part.model.clone(), source };
        self.try_plug(part, &id).map_err(|source| {
            self.surroundings.backends.release(&id);
            failed(Box::new(source))
        })?;
        Ok(id)
    }

    fn try_plug(&mut self, part: &Part, id: &str) -> Result<(), PartError> {
        let model = catalog::model(&part.model).ok_or(PartError::NoSuchModel)?;
        if self.find(id).is_some() {
            return Err(PartError::NameInUse);
        }
        let mut properties = Properties::defaults(model.declared());
        for (name, value) in part.properties.iter() {
            properties.set(name, value.clone());
        }
        let bus = self.choose_bus(model, part.bus.as_deref())?;
        let offered = bus.map(|at| &self.buses[at].offered);
        let pci = offered.and_then(|bus| bus.pci.clone());
        let request = Request {
            id,
            properties: &properties,
            surroundings: &self.surroundings,
            pci_place: pci.as_deref().map_or(PciPlace::Conventional, PciPlace::of),
            bus: offered.map(|bus| &bus.object),
        };
        let Built { device, attachment, buses, controls } = (model.build)(&request)?;
        let bus = offered.map_or(String::new(), |bus| bus.name.clone());
        let mut plugged = Plugged {
            id: id.to_owned(),
            model,
            properties,
            bus,
            address: None,
            device,
            controls,
            attachment,
            buses: Vec::new(),
            regions: (Vec::new(), Vec::new()),
        };
        plugged.attach(pci.as_ref(), &self.surroundings)?;
        for (number, mut offered) in buses.into_iter().enumerate() {
            if offered.name.is_empty() {
                offered.name = format!("{id}.{number}");
            }
            plugged.buses.push(offered.name.clone());
            self.buses.push(KnownBus { offered, owner: Some(id.to_owned()) });
        }
        self.plugged.push(plugged);
        Ok(())
    }

    /// The bus for a model: the one that was asked for, or the first of its kind with room.
    fn choose_bus(&self, model: &Model, asked: Option<&str>) -> Result<Option<usize>, PartError> {
        if model.bus == BusKind::Board {
            return Ok(None);
        }
        if let Some(name) = asked {
            let bus = || name.to_owned();
            // A device stands for its first bus.
            let first = self.find(name).and_then(|owner| owner.buses.first());
            let wanted = first.map_or(name, String::as_str);
            let at = self.buses.iter().position(|known| known.offered.name == wanted);
            let at = at.ok_or_else(|| PartError::NoSuchBus { bus: bus() })?;
            let fits = self.buses[at].offered.kind == model.bus;
            return if fits { Ok(Some(at)) } else { Err(PartError::WrongBus { bus: bus() }) };
        }
        let has_room = |bus: &OfferedBus| {
            bus.pci.as_ref().is_none_or(|pci| {
                pci.free_slot(first_slot(pci)).is_some_and(|slot| slot < slots(pci))
            })
        };
        let fits = |known: &KnownBus| known.offered.kind == model.bus && has_room(&known.offered);
        self.buses.iter().position(fits).map(Some).ok_or(PartError::NoFreeBus)
    }

    /// Takes a device out, with all that is plugged into it.
    pub fn unplug(&mut self, id: &str) -> bool {
        let Some(at) = self.plugged.iter().position(|plugged| plugged.id == id) else {
            return false;
        };
        let below: Vec<String> = self
            .plugged
            .iter()
            .filter(|other| self.plugged[at].buses.contains(&other.bus))
            .map(|other| other.id.clone())
            .collect();
        below.iter().for_each(|id| _ = self.unplug(id));
        let Some(at) = self.plugged.iter().position(|plugged| plugged.id == id) else {
            return false;
        };
        let plugged = self.plugged.remove(at);
        self.buses.retain(|known| known.owner.as_deref() != Some(id));
        let bus = self.buses.iter().find(|known| known.offered.name == plugged.bus);
        plugged.detach(bus.and_then(|known| known.offered.pci.as_ref()), &self.surroundings);
        self.surroundings.backends.release(id);
        true
    }

    /// Asks the guest to let go of a device, where it must be asked; others go at once.
    pub fn request_unplug(&mut self, id: &str) -> Unplug {
        let Some(plugged) = self.find(id) else { return Unplug::NoSuchDevice };
        if plugged.address.is_none() {
            self.unplug(id);
            return Unplug::Done;
        }
        let parent = self.owner_of(&plugged.bus).and_then(|parent| match &parent.attachment {
            Attachment::Pci(function) => Some(Arc::clone(function)),
            _ => None,
        });
        if parent.is_some_and(|parent| parent.ask_to_unplug_child()) {
            return Unplug::Asked;
        }
        Unplug::NotHotpluggable
    }

    /// Takes out what guests have let go of: the names.
    pub fn collect_unplugged(&mut self) -> Vec<String> {
        let gone = |plugged: &&Plugged| {
            plugged.pci_connection().is_some_and(|connection| connection.place().is_none())
        };
        let names: Vec<String> =
            self.plugged.iter().filter(gone).map(|plugged| plugged.id.clone()).collect();
        names.iter().for_each(|id| _ = self.unplug(id));
        names
    }

    /// Resets what no PCI bus resets.
    pub fn reset(&self) {
        for plugged in &self.plugged {
            if !matches!(plugged.attachment, Attachment::Pci(_)) {
                plugged.device.reset();
            }
        }
    }

    /// The machine goes on, or stands still.
    pub fn set_running(&self, running: bool) {
        self.plugged.iter().for_each(|plugged| plugged.device.set_running(running));
    }
}

/// Slots that a bus has: an express port has one.
fn slots(bus: &Bus) -> u8 {
    if bus.is_express() && !bus.is_host() { 1 } else { 32 }
}

/// The first slot for devices without one of their own. Slot 0 of a bridge's lower side is its
/// controller's.
fn first_slot(bus: &Bus) -> u8 {
    u8::from(!bus.is_express() && !bus.is_host())
}

impl Plugged {
    /// The buses it opens.
    pub fn bus_names(&self) -> impl Iterator<Item = &str> {
        self.buses.iter().map(String::as_str)
    }

    /// Its PCI registers, on PCI.
    #[must_use]
    pub fn pci_connection(&self) -> Option<&Connection> {
        match &self.attachment {
            Attachment::Pci(function) => Some(function.connection()),
            _ => None,
        }
    }

    /// Saves or loads it: the registers of PCI, then its own.
    pub(crate) fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut model = self.model.name.to_owned();
        fields.item("model", &mut model)?;
        if model != self.model.name {
            return Err(StateError::bad(format!(
                "it is of a {model}, and here is a {}",
                self.model.name
            )));
        }
        match &self.attachment {
            Attachment::Pci(function) => transfer_function(&**function, fields),
            _ => self.device.transfer(fields),
        }
    }

    fn attach(
        &mut self,
        bus: Option<&Arc<Bus>>,
        surroundings: &Surroundings,
    ) -> Result<(), PartError> {
        match (&self.attachment, bus) {
            (Attachment::Pci(function), Some(bus)) => {
                let address = match self.properties.get("addr") {
                    Some(PropertyValue::PciAddress(slot, function)) => {
                        Address { slot: *slot, function: *function }
                    }
                    _ => {
                        let slot = bus.free_slot(first_slot(bus)).filter(|slot| *slot < slots(bus));
                        Address::slot(slot.ok_or(PartError::NoFreeBus)?)
                    }
                };
                if self.properties.bool("multifunction") {
                    function.connection().with_config(|config| {
                        let header = config.byte(spec::HEADER_TYPE) | 0x80;
                        config.set(spec::HEADER_TYPE, &[header]);
                    });
                }
                bus.plug(address, function).map_err(|source| PartError::Slot {
                    bus: self.bus.clone(),
                    slot: address.slot,
                    function: address.function,
                    source,
                })?;
                self.address = Some(address);
            }
            (Attachment::Isa(isa), _) => {
                let add = |space: &AddressSpace, list: &[(u64, u64, Arc<dyn device::Io>)]| {
                    let region = |(start, length, io): &(u64, u64, Arc<dyn device::Io>)| {
                        space.add(Region::new(&self.id, *start, *length, Owner::Io(Arc::clone(io))))
                    };
                    list.iter().map(region).collect()
                };
                self.regions =
                    (add(&surroundings.ports, &isa.ports), add(&surroundings.memory, &isa.memory));
            }
            _ => {}
        }
        Ok(())
    }

    fn detach(&self, bus: Option<&Arc<Bus>>, surroundings: &Surroundings) {
        match (&self.attachment, bus, self.address) {
            (Attachment::Pci(_), Some(bus), Some(address)) => _ = bus.unplug(address),
            (Attachment::Child(child), ..) => child.unplug(),
            _ => {}
        }
        for (space, ids) in
            [(&surroundings.ports, &self.regions.0), (&surroundings.memory, &self.regions.1)]
        {
            space.update(|change| ids.iter().for_each(|id| change.remove(*id)));
        }
    }
}
