//! `-machine`, `-cpu`, `-smp`, `-m`: the board and what is soldered to it.

use qemu_compat::system::values;

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
    /// The model's name.
    pub processor: String,
    /// Features switched on or off, and other properties.
    pub features: Vec<(String, String)>,
    pub uuid: Option<[u8; 16]>,
}

/// How many processors, and how they hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    pub count: u32,
    pub maximum: u32,
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

impl Board {
    pub(super) fn default_board() -> Self {
        Self {
            name: boards::DEFAULT,
            properties: Vec::new(),
            ram_bytes: RAM_DEFAULT,
            ram_max: None,
            ram_slots: 0,
            topology: Topology { count: 1, maximum: 1, sockets: 1, cores: 1, threads: 1 },
            processor: "qemu64".to_owned(),
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
            "smp" => self.take_topology(value),
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

    fn take_processor(&mut self, value: &str) -> Result<(), Refusal> {
        self.features.clear();
        let mut parts = value.split(',');
        self.processor = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, value) = match (part.split_once('='), part.chars().next()) {
                (Some((name, value)), _) => (name, value),
                (None, Some('+')) => (&part[1..], "on"),
                (None, Some('-')) => (&part[1..], "off"),
                (None, _) => (part, "on"),
            };
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

    fn take_topology(&mut self, value: &str) -> Result<(), Refusal> {
        let (mut count, mut maximum) = (0, 0);
        let (mut sockets, mut cores, mut threads) = (0, 0, 0);
        for (key, value) in pairs(value, "cpus")? {
            let number = parsed(values::unsigned(&key, &value))?;
            match key.as_str() {
                "cpus" => count = number,
                "maxcpus" => maximum = number,
                "sockets" => sockets = number,
                "cores" => cores = number,
                "threads" => threads = number,
                "dies" | "clusters" | "modules" | "books" | "drawers" if number <= 1 => {}
                "dies" | "clusters" | "modules" | "books" | "drawers" => {
                    return Err(format!("{key} > 1 not supported by this machine's CPU topology"));
                }
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
            if number == 0 {
                return Err(
                    "Invalid CPU topology: CPU topology parameters must be greater than zero"
                        .to_owned(),
                );
            }
            if number > PROCESSORS_MAX {
                return Err(format!(
                    "Invalid SMP CPUs {number}. The max CPUs supported by machine '{}' is \
                     {PROCESSORS_MAX}",
                    self.name
                ));
            }
        }
        self.topology = complete_topology((count, maximum), (sockets, cores, threads))?;
        Ok(())
    }
}

/// Fills in what was not said, and holds it against what was.
fn complete_topology(
    (mut count, mut maximum): (u64, u64),
    (mut sockets, mut cores, mut threads): (u64, u64, u64),
) -> Result<Topology, Refusal> {
    let given = sockets.max(1) * cores.max(1) * threads.max(1);
    if maximum == 0 {
        maximum = if count > 0 { count.max(given) } else { given };
    }
    if count == 0 {
        count = maximum;
    }
    // Like newer QEMU, cores are what is missing first, then sockets, then threads.
    if threads == 0 {
        threads = 1;
    }
    match (sockets, cores) {
        (0, 0) => (sockets, cores) = (1, maximum / threads),
        (0, _) => sockets = maximum / (cores * threads),
        (_, 0) => cores = maximum / (sockets * threads),
        _ => {}
    }
    let product = sockets * cores * threads;
    if product != maximum {
        return Err(format!(
            "Invalid CPU topology: product of the hierarchy must match maxcpus: sockets \
             ({sockets}) * cores ({cores}) * threads ({threads}) != maxcpus ({maximum})"
        ));
    }
    if maximum < count {
        return Err(format!(
            "Invalid CPU topology: maxcpus must be equal to or greater than smp: sockets \
             ({sockets}) * cores ({cores}) * threads ({threads}) == maxcpus ({maximum}) < \
             smp_cpus ({count})"
        ));
    }
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Topology {
        count: small(count),
        maximum: small(maximum),
        sockets: small(sockets),
        cores: small(cores),
        threads: small(threads),
    })
}

fn uuid(text: &str) -> Option<[u8; 16]> {
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

    fn check(smp: &str, expected: Result<(u32, u32, u32, u32, u32), &str>) {
        let mut board = Board::default_board();
        let taken = board.take("smp", smp);
        let Topology { count, maximum, sockets, cores, threads } = board.topology;
        match expected {
            Ok(topology) => {
                assert_eq!(taken, Ok(()), "{smp}");
                assert_eq!((count, maximum, sockets, cores, threads), topology, "{smp}");
            }
            Err(text) => {
                let error = taken.unwrap_err();
                assert!(error.contains(text), "{smp}: {error}");
            }
        }
    }

    #[test]
    fn missing_parts_of_a_topology_follow_from_the_others() {
        check("4", Ok((4, 4, 1, 4, 1)));
        check("2,maxcpus=4,sockets=4,cores=1,threads=1", Ok((2, 4, 4, 1, 1)));
        check("sockets=2,threads=2", Ok((4, 4, 2, 1, 2)));
        check("cpus=8,sockets=2", Ok((8, 8, 2, 4, 1)));
        check("3,sockets=2", Err("product of the hierarchy must match maxcpus"));
        check("4,maxcpus=2", Err("maxcpus must be equal to or greater than smp"));
        check("0", Err("must be greater than zero"));
        check("1000", Err("The max CPUs supported"));
    }

    #[test]
    fn processors_have_features() {
        let mut board = Board::default_board();
        board.take("cpu", "qemu64,+aes,-svm,x2apic=on,check").unwrap();
        let expected = [("aes", "on"), ("svm", "off"), ("x2apic", "on"), ("check", "on")];
        let features: Vec<(&str, &str)> =
            board.features.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!((board.processor.as_str(), features.as_slice()), ("qemu64", &expected[..]));
    }
}
