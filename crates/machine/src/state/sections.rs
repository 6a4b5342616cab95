//! What of a machine is saved, in which order.

use std::sync::Arc;

use accel::{Pending, SavedProcessor};
use device::pci::PciFunction;
use device::state::{Fields, Group, Reader, Value, put_field};
use device::{Clock, Device, StateError};
use memory::Ram;

use super::StreamError;
use crate::board::Machine;

/// The layout of what the board itself saves.
const BOARD_VERSION: u32 = 1;
/// Whether the guest ran.
const RUNS: &str = "runs";
/// The name of main memory.
const MAIN_MEMORY: &str = "ram";

/// A device's state in the stream.
pub struct Section {
    name: String,
    version: u32,
    fields: Vec<u8>,
}

impl Section {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.name.save(&mut bytes);
        self.version.save(&mut bytes);
        bytes.extend(&self.fields);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StreamError> {
        let mut from = Reader::new(bytes);
        let (mut name, mut version) = (String::new(), 0);
        name.load(&mut from)?;
        version.load(&mut from)?;
        let fields = from.rest().to_vec();
        Ok(Self { name, version, fields })
    }
}

/// What a machine is made of, as far as a state depends on it.
pub struct Description(Vec<(&'static str, String)>);

impl Description {
    pub fn to_bytes(&self, runs: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_field(&mut bytes, RUNS, &runs);
        self.0.iter().for_each(|(name, value)| put_field(&mut bytes, name, value));
        bytes
    }

    /// Fails where a saved machine is another one. Whether it ran.
    pub fn check(&self, saved: &[u8]) -> Result<bool, StreamError> {
        let mut group = Group::parse(saved)?;
        let mut runs = false;
        group.take(RUNS, &mut runs)?;
        for (what, own) in &self.0 {
            let mut saved = String::new();
            group.take(what, &mut saved)?;
            if saved != *own {
                return Err(StreamError::OtherMachine { what, saved, own: own.clone() });
            }
        }
        group.finish()?;
        Ok(runs)
    }
}

/// Visits a section: its name, its version, and what saves or loads its fields.
type Transfer<'a> = &'a mut dyn FnMut(&mut Fields<'_>) -> Result<(), StateError>;
type Visit<'a> = &'a mut dyn FnMut(&str, u32, Transfer<'_>) -> Result<(), StreamError>;

impl Machine {
    /// What decides whether a state fits.
    pub(super) fn describe(&self) -> Description {
        Description(vec![
            ("board", self.root_bus.to_owned()),
            ("RAM", format!("{} MiB", self.ram.len() >> 20)),
            ("CPUs", self.processors().all().len().to_string()),
            ("accelerator", if self.is_on_kvm() { "KVM" } else { "the translator" }.to_owned()),
        ])
    }

    /// Main memory and its name.
    pub(super) fn main_memory(&self) -> (String, Arc<Ram>) {
        (MAIN_MEMORY.to_owned(), Arc::clone(&self.ram))
    }

    /// Fails where a device cannot be saved.
    pub fn find_blockers(&self) -> Result<(), StreamError> {
        self.memory_blocks().map(|_| ())
    }

    /// All memory that is saved, with its names.
    pub(super) fn memory_blocks(&self) -> Result<Vec<(String, Arc<Ram>)>, StreamError> {
        let mut blocks = vec![self.main_memory()];
        self.visit(&mut |name, _, transfer| {
            let mut fields = Fields::saving();
            transfer(&mut fields).map_err(|error| about(name, error))?;
            let (_, memory) = fields.finish().map_err(|error| about(name, error))?;
            blocks.extend(memory.into_iter().map(|(part, ram)| (format!("{name}/{part}"), ram)));
            Ok(())
        })?;
        Ok(blocks)
    }

    /// All devices and processors.
    pub(super) fn save_sections(&self) -> Result<Vec<Section>, StreamError> {
        let mut sections = Vec::new();
        self.visit(&mut |name, version, transfer| {
            let mut fields = Fields::saving();
            transfer(&mut fields).map_err(|error| about(name, error))?;
            let (fields, _) = fields.finish().map_err(|error| about(name, error))?;
            sections.push(Section { name: name.to_owned(), version, fields });
            Ok(())
        })?;
        let count = self.processors().all().len();
        for number in 0..count {
            let saved = self.save_processor(number)?;
            let mut fields = Fields::saving();
            transfer_processor(&mut fields, saved).map_err(|error| about("cpu", error))?;
            let (fields, _) = fields.finish().map_err(|error| about("cpu", error))?;
            let name = processor_name(number);
            sections.push(Section { name, version: BOARD_VERSION, fields });
        }
        Ok(sections)
    }

    /// Fills all devices and processors in.
    pub(super) fn load_sections(&self, mut sections: Vec<Section>) -> Result<(), StreamError> {
        let mut take = |name: &str, version: u32| {
            let at = sections.iter().position(|section| section.name == name);
            let missing = || StreamError::NoSection { device: name.to_owned() };
            let section = sections.swap_remove(at.ok_or_else(missing)?);
            match section.version <= version {
                true => Ok(section),
                false => Err(StreamError::SectionVersion {
                    device: name.to_owned(),
                    version: section.version,
                }),
            }
        };
        self.visit(&mut |name, version, transfer| {
            let section = take(name, version)?;
            let mut fields = Fields::loading(&section.fields).map_err(|e| about(name, e))?;
            transfer(&mut fields).map_err(|error| about(name, error))?;
            fields.finish().map_err(|error| about(name, error))?;
            Ok(())
        })?;
        for number in 0..self.processors().all().len() {
            let name = processor_name(number);
            let section = take(&name, BOARD_VERSION)?;
            let mut fields = Fields::loading(&section.fields).map_err(|e| about(&name, e))?;
            let saved = transfer_processor(&mut fields, <_>::default());
            let saved = saved.map_err(|error| about(&name, error))?;
            fields.finish().map_err(|error| about(&name, error))?;
            self.load_processor(number, saved)?;
        }
        if let Some(section) = sections.pop() {
            return Err(StreamError::UnknownSection { device: section.name });
        }
        self.forget_translations();
        Ok(())
    }

    fn save_processor(&self, number: usize) -> Result<(Pending, SavedProcessor), StreamError> {
        let processor = &self.processors().all()[number];
        let saved = processor.inspect(|vcpu| vcpu.save());
        let saved = saved.ok_or(StreamError::Cancelled)?;
        let saved = saved.map_err(|source| StreamError::Processor { number, source })?;
        Ok((processor.pending(), saved))
    }

    fn load_processor(
        &self,
        number: usize,
        (pending, saved): (Pending, SavedProcessor),
    ) -> Result<(), StreamError> {
        let processor = &self.processors().all()[number];
        let loaded = processor.inspect(move |vcpu| vcpu.load(&saved));
        let loaded = loaded.ok_or(StreamError::Cancelled)?;
        loaded.map_err(|source| StreamError::Processor { number, source })?;
        processor.set_pending(pending);
        Ok(())
    }

    /// Everything but processors, in the order in which it is loaded.
    fn visit(&self, visit: Visit<'_>) -> Result<(), StreamError> {
        visit("clock", BOARD_VERSION, &mut |fields| {
            let mut now_ns = self.clock.now_ns();
            fields.item("now_ns", &mut now_ns)?;
            if fields.is_loading() {
                self.clock.set_ns(now_ns);
            }
            self.vcpus.transfer_clock(fields)
        })?;
        for (name, function) in self.pci.own_functions() {
            visit(name, BOARD_VERSION, &mut |fields| transfer_function(&*function, fields))?;
        }
        {
            let parts = self.parts.lock();
            for plugged in parts.all() {
                let name = format!("part/{}", plugged.id);
                visit(&name, plugged.model.state_version, &mut |fields| plugged.transfer(fields))?;
            }
        }
        self.pci.bus.remap();
        visit("pci-config", BOARD_VERSION, &mut |fields| self.pci.transfer(fields))?;
        visit("fw-cfg", BOARD_VERSION, &mut |fields| self.fw_cfg.transfer(fields))?;
        for (number, flash) in self.flash.iter().enumerate() {
            let name = format!("flash{number}");
            visit(&name, BOARD_VERSION, &mut |fields| flash.transfer(fields))?;
        }
        for (name, chip) in self.chips.saved() {
            visit(name, BOARD_VERSION, &mut |fields| chip.transfer(fields))?;
        }
        visit("lapic", BOARD_VERSION, &mut |fields| self.chips.apics.transfer(fields))
    }
}

/// The registers of PCI, then the function's own.
pub fn transfer_function(
    function: &dyn PciFunction,
    fields: &mut Fields<'_>,
) -> Result<(), StateError> {
    function.connection().transfer(fields)?;
    Device::transfer(function, fields)
}

fn processor_name(number: usize) -> String {
    format!("cpu{number}")
}

fn transfer_processor(
    fields: &mut Fields<'_>,
    (pending, mut saved): (Pending, SavedProcessor),
) -> Result<(Pending, SavedProcessor), StateError> {
    let Pending { mut init, mut start, mut nmi, mut reset } = pending;
    fields.item("init", &mut init)?;
    fields.item("start", &mut start)?;
    fields.item("nmi", &mut nmi)?;
    fields.item("reset", &mut reset)?;
    fields.item("registers", &mut saved)?;
    Ok((Pending { init, start, nmi, reset }, saved))
}

/// What an error is about.
fn about(section: &str, error: StateError) -> StreamError {
    if error.is_unsupported() {
        let device = section.strip_prefix("part/").unwrap_or(section).to_owned();
        return StreamError::Blocked { device };
    }
    StreamError::Device(error.within(section))
}
