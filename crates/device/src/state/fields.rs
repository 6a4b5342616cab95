//! Named fields: of a structure, of a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use memory::Ram;
use parking_lot::Mutex;

use super::{Reader, Reason, StateError, Value};

/// Appends a field: its name, the length of its value, the value.
pub fn put_field(into: &mut Vec<u8>, name: &str, value: &impl Value) {
    let mut bytes = Vec::new();
    value.save(&mut bytes);
    name.to_owned().save(into);
    bytes.save(into);
}

/// The fields of a structure that is loaded, by name.
pub struct Group<'a>(BTreeMap<&'a str, &'a [u8]>);

impl<'a> Group<'a> {
    /// Takes the fields of a structure off.
    pub fn read(from: &mut Reader<'a>) -> Result<Self, StateError> {
        let length = from.length()?;
        Self::parse(from.take(length)?)
    }

    /// Fields and nothing else.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StateError> {
        let (mut from, mut fields) = (Reader::new(bytes), BTreeMap::new());
        while !from.is_empty() {
            let length = from.length()?;
            let name = std::str::from_utf8(from.take(length)?);
            let name = name.map_err(|_| StateError::bad("a name is not UTF-8"))?;
            let length = from.length().map_err(|error| error.within(name))?;
            let value = from.take(length).map_err(|error| error.within(name))?;
            if fields.insert(name, value).is_some() {
                return Err(StateError::bad("it is there twice").within(name));
            }
        }
        Ok(Self(fields))
    }

    /// Fills in a field, which must be there.
    pub fn take(&mut self, name: &str, value: &mut impl Value) -> Result<(), StateError> {
        match self.take_if_there(name, value)? {
            true => Ok(()),
            false => Err(StateError::of(Reason::Missing).within(name)),
        }
    }

    fn take_if_there(&mut self, name: &str, value: &mut impl Value) -> Result<bool, StateError> {
        let Some(bytes) = self.0.remove(name) else { return Ok(false) };
        let mut from = Reader::new(bytes);
        let loaded = value.load(&mut from).and_then(|()| from.finish());
        loaded.map_err(|error| error.within(name)).map(|()| true)
    }

    /// All fields must have been taken.
    pub fn finish(self) -> Result<(), StateError> {
        match self.0.keys().next() {
            Some(name) => Err(StateError::of(Reason::Unknown).within(name)),
            None => Ok(()),
        }
    }
}

/// Blocks of memory with their names.
pub type NamedMemory = Vec<(String, Arc<Ram>)>;

/// The fields of a device, which are collected or filled in.
pub struct Fields<'a> {
    direction: Direction<'a>,
    memory: NamedMemory,
}

enum Direction<'a> {
    Save(Vec<u8>),
    Load(Group<'a>),
}

impl<'a> Fields<'a> {
    /// Collects.
    #[must_use]
    pub fn saving() -> Self {
        Self { direction: Direction::Save(Vec::new()), memory: Vec::new() }
    }

    /// Fills in from what was collected.
    pub fn loading(bytes: &'a [u8]) -> Result<Self, StateError> {
        Ok(Self { direction: Direction::Load(Group::parse(bytes)?), memory: Vec::new() })
    }

    /// Whether fields are filled in.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        matches!(self.direction, Direction::Load(_))
    }

    /// A field, which must be there.
    pub fn item(&mut self, name: &str, value: &mut impl Value) -> Result<(), StateError> {
        match &mut self.direction {
            Direction::Save(into) => put_field(into, name, value),
            Direction::Load(group) => group.take(name, value)?,
        }
        Ok(())
    }

    /// A field that older states do not have.
    pub fn newer(&mut self, name: &str, value: &mut impl Value) -> Result<(), StateError> {
        match &mut self.direction {
            Direction::Save(into) => put_field(into, name, value),
            Direction::Load(group) => _ = group.take_if_there(name, value)?,
        }
        Ok(())
    }

    /// A part of the device behind its lock: it changes whole, or not at all.
    pub fn locked<T: Value + Clone>(
        &mut self,
        name: &str,
        value: &Mutex<T>,
    ) -> Result<(), StateError> {
        let mut value = value.lock();
        match &mut self.direction {
            Direction::Save(into) => put_field(into, name, &*value),
            Direction::Load(group) => {
                let mut loaded = value.clone();
                group.take(name, &mut loaded)?;
                *value = loaded;
            }
        }
        Ok(())
    }

    /// What a loaded device relies on; saved ones are as they are.
    pub fn check(&self, holds: bool, name: &str) -> Result<(), StateError> {
        match holds || !self.is_loading() {
            true => Ok(()),
            false => Err(StateError::bad("a device is never like this").within(name)),
        }
    }

    /// Memory of the device's own, whose pages are saved as the machine's are.
    pub fn memory(&mut self, name: &str, ram: &Arc<Ram>) {
        self.memory.push((name.to_owned(), Arc::clone(ram)));
    }

    /// What was collected: the fields and the device's memory.
    pub fn finish(self) -> Result<(Vec<u8>, NamedMemory), StateError> {
        match self.direction {
            Direction::Save(bytes) => Ok((bytes, self.memory)),
            Direction::Load(group) => group.finish().map(|()| (Vec::new(), self.memory)),
        }
    }
}
