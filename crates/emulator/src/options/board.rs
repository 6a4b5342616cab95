//! `-machine`, `-cpu`, `-smp`, `-m`: the board and what is soldered to it.

use qemu_compat::system::values;

use super::topology::{Topology, Typed};
use super::{Accelerator, Refusal, pairs, parsed};
use crate::boards;

/// QEMU's default.
const RAM_DEFAULT: u64 = 128 << 20;
const PROCESSORS_MAX: u64 = 254;

/// The board.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its full versioned name.
    pub name: &'static str,
    /// Properties that were set, as typed.
    pub properties: Vec<(String, String)>,
    pub ram_bytes: u64,
    /// Of `-m`: room for more memory.
    pub ram_max: Option<u64>,
    pub ram_slots: u64,
    pub topology: Topology,
    /// `-smp`, before it is held against the board.
    typed_topology: Option<Typed>,
    /// The model's name, if one was asked for.
    pub processor: Option<String>,
    /// Features switched on or off, and other properties: `+` and `-` stand before their names.
    pub features: Vec<(String, String)>,
    pub uuid: Option<[u8; 16]>,
}

impl Board {
    pub(super) fn default_board() -> Self {
        Self {
            name: boards::DEFAULT,
            properties: Vec::new(),
            ram_bytes: RAM_DEFAULT,
            ram_max: None,
            ram_slots: 0,
            topology: Topology {
                count: 1,
                maximum: 1,
                sockets: 1,
                dies: 1,
                modules: 1,
                cores: 1,
                threads: 1,
            },
            typed_topology: None,
            processor: None,
            features: Vec::new(),
            uuid: None,
        }
    }

    /// `-machine`.
    pub(super) fn take_machine(
        &mut self,
        value: &str,
        accelerator: &mut Accelerator,
    ) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "type")? {
            match key.as_str() {
                "type" => {
                    let hint = "Use -machine help to list supported machines";
                    let unknown = || format!("unsupported machine type: \"{value}\"\n{hint}");
                    self.name = boards::full_name(&value).ok_or_else(unknown)?;
                }
                "accel" => accelerator.add(&value, None)?,
                "kernel-irqchip" => super::accelerator::irqchip(&value)?,
                _ => self.properties.push((key, value)),
            }
        }
        Ok(())
    }

    /// The last value of a property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The others of the family.
    pub(super) fn take(&mut self, option: &str, value: &str) -> Result<(), Refusal> {
        match option {
            "cpu" => self.take_processor(value),
            "smp" => {
                self.typed_topology = Some(Typed::parse(value)?);
                Ok(())
            }
            "m" => self.take_memory(value),
            "uuid" => {
                let wrong = || "Parameter 'uuid' expects a UUID".to_owned();
                self.uuid = Some(uuid(value).ok_or_else(wrong)?);
                Ok(())
            }
            "no-acpi" => {
                self.properties.push(("acpi".into(), "off".into()));
                Ok(())
            }
            _ => {
                self.properties.push(("hpet".into(), "off".into()));
                Ok(())
            }
        }
    }

    /// All options are read.
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        if let Some(typed) = self.typed_topology {
            let most = if self.name == boards::NONE { 1 } else { PROCESSORS_MAX };
            self.topology = typed.complete(self.name, most)?;
        }
        Ok(())
    }

    fn take_processor(&mut self, value: &str) -> Result<(), Refusal> {
        self.features.clear();
        let mut parts = value.split(',');
        self.processor = Some(parts.next().unwrap_or_default().to_owned());
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, "on"));
            self.features.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    fn take_memory(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "size")? {
            match key.as_str() {
                // QEMU rounds up likewise.
                "size" => {
                    let bytes = parsed(values::size("size", &value, 20))?;
                    self.ram_bytes = bytes.checked_next_multiple_of(8192).unwrap_or(bytes);
                }
                "maxmem" => self.ram_max = Some(parsed(values::size("maxmem", &value, 20))?),
                "slots" => self.ram_slots = parsed(values::unsigned("slots", &value))?,
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        if self.ram_bytes == 0 {
            self.ram_bytes = RAM_DEFAULT;
        }
        match self.ram_max {
            Some(most) if most < self.ram_bytes => Err(format!(
                "maximum memory size (0x{most:x}) must be at least the initial memory size (0x{:x})",
                self.ram_bytes
            )),
            Some(most) if most > self.ram_bytes || self.ram_slots > 0 => {
                Err("memory hot-plug ('maxmem', 'slots') is not built in Hostel".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// A UUID in its usual form.
pub fn uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths != [8, 4, 4, 4, 12] || !text.is_ascii() {
        return None;
    }
    let digits = groups.concat();
    let mut uuid = [0; 16];
    for (index, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_have_features() {
        let mut board = Board::default_board();
        board.take("cpu", "qemu64,+aes,-svm,x2apic=on,check").unwrap();
        let expected = [("+aes", "on"), ("-svm", "on"), ("x2apic", "on"), ("check", "on")];
        let features: Vec<(&str, &str)> =
            board.features.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(board.processor.as_deref(), Some("qemu64"));
        assert_eq!(features, expected);
    }
}
