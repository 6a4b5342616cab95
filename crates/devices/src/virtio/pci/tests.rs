use device::pci::{Address, Bus, MsiSink, PinRouter, Root};
use device::{IrqSink, RecordedIrq};
use memory::{AddressSpace, Ram, Region};
use parking_lot::Mutex;

use super::*;
use crate::virtio::device::{Driver, feature};

/// Answers each request with its own bytes, and has a byte of configuration.
#[derive(Default)]
struct Mirror(Mutex<Option<Driver>>);

impl VirtioDevice for Mirror {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn features(&self) -> u64 {
        1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![16, 16]
    }

    fn config(&self) -> Vec<u8> {
        vec![42, 43, 44, 45]
    }

    fn activate(&self, driver: Driver) {
        *self.0.lock() = Some(driver);
    }

    fn reset(&self) {
        *self.0.lock() = None;
    }

    fn notify(&self, queue: u16) {
        let queue = self.0.lock().as_ref().and_then(|driver| driver.queue(queue).cloned());
        while let Some(chain) = queue.as_ref().and_then(|queue| queue.pop()) {
            let bytes = chain.reader().to_vec(100);
            let written = chain.writer().write(&bytes);
            queue.as_ref().unwrap().push(chain, written as u64);
        }
    }
}

#[derive(Default)]
struct Messages(Mutex<Vec<(u64, u32)>>);

impl MsiSink for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

struct Straight;

impl PinRouter for Straight {
    fn input(&self, slot: u8, _pin: u32) -> u32 {
        u32::from(slot)
    }
}

struct Pc {
    bus: Arc<Bus>,
    memory: Arc<AddressSpace>,
    ports: Arc<AddressSpace>,
    ram: Arc<Ram>,
    messages: Arc<Messages>,
    pins: Arc<RecordedIrq>,
}

const AT: Address = Address { slot: 3, function: 0 };
const BAR: u64 = 0xfe00_0000;
const MSIX: u64 = 0xfd00_0000;
const PORTS: u64 = 0xc000;

fn pc(modern: bool, legacy: bool) -> Pc {
    let (memory, ports) = (Arc::new(AddressSpace::new()), Arc::new(AddressSpace::new()));
    let ram = Arc::new(Ram::new("ram", 1 << 20).unwrap());
    memory.add(Region::new("ram", 0, 1 << 20, Owner::Ram(Arc::clone(&ram))));
    let (messages, pins) = (Arc::new(Messages::default()), Arc::new(RecordedIrq::default()));
    let root = Root {
        memory: Arc::clone(&memory),
        ports: Arc::clone(&ports),
        dma: Arc::clone(&memory),
        msi: Arc::clone(&messages) as Arc<dyn MsiSink>,
    };
    let bus =
        Bus::host(Arc::new(root), false, Box::new(Straight), Arc::clone(&pins) as Arc<dyn IrqSink>);
    let options = PciOptions {
        modern,
        legacy,
        vectors: 3,
        class: class(Kind::Console),
        express: false,
        rings: RingOptions { indirect: true, event_index: false },
    };
    let function = VirtioPci::new::<()>(Arc::new(Mirror::default()), &options, |_| Ok(())).unwrap();
    bus.plug(AT, &(function as Arc<dyn PciFunction>)).unwrap();
    let pc = Pc { bus, memory, ports, ram, messages, pins };
    pc.config(spec::BAR0 + 4 * u16::from(MODERN_BAR), BAR as u32);
    pc.config(spec::BAR0 + 4 * u16::from(MSIX_BAR), MSIX as u32);
    pc.config(spec::BAR0 + 4 * u16::from(LEGACY_BAR), PORTS as u32);
    pc.config(spec::COMMAND, 7);
    pc
}

impl Pc {
    fn config(&self, at: u16, value: u32) {
        self.bus.config_write(0, AT, at, 4, value);
    }

    fn id(&self) -> (u32, u32, u32) {
        let read = |at, size| self.bus.config_read(0, AT, at, size);
        (read(2, 2), read(8, 1), read(0x2c, 4))
    }

    fn capabilities(&self) -> Vec<(u8, u16)> {
        let mut at = self.bus.config_read(0, AT, spec::CAPABILITIES, 1) as u16;
        let mut found = Vec::new();
        while at != 0 {
            found.push((self.bus.config_read(0, AT, at, 1) as u8, at));
            at = self.bus.config_read(0, AT, at + 1, 1) as u16;
        }
        found
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.memory.view().write_value(BAR + offset, size, value);
    }

    fn read(&self, offset: u64, size: u8) -> u64 {
        self.memory.view().read_value(BAR + offset, size)
    }

    /// One request in the ring at 0x1000: its four bytes come back.
    fn put(&self, ring: [u64; 3], round: u64) {
        let [descriptors, driver, _] = ring;
        self.ram.write_value(0x8000, 4, 0x0403_0201 + round);
        for (place, address, flags) in [(0, 0x8000, 1), (16, 0x9000, 2)] {
            self.ram.write_value(descriptors + place, 8, address);
            self.ram.write_value(descriptors + place + 8, 8, 4 | flags << 32 | 1 << 48);
        }
        self.ram.write_value(driver + 2, 2, round + 1);
    }

    fn start_modern(&self, vectors: bool) {
        for (offset, size, value) in [
            (0x14, 1, 0),
            (0x14, 1, 3),
            (0x08, 4, 1),
            (0x0c, 4, 1),
            (0x14, 1, 11),
            (0x16, 2, 1),
            (0x20, 8, 0x1000),
            (0x28, 4, 0x2000),
            (0x30, 4, 0x3000),
        ] {
            self.write(offset, size, value);
        }
        if vectors {
            self.write(0x10, 2, 0);
            self.write(0x1a, 2, 1);
        }
        self.write(0x1c, 2, 1);
        self.write(0x14, 1, 15);
        assert_eq!(self.read(0x14, 1), 15);
    }
}

#[test]
fn identities_tell_drivers_what_there_is() {
    assert_eq!(pc(true, false).id(), (0x1043, 1, 0x1100_1af4));
    assert_eq!(pc(true, true).id(), (0x1003, 0, 0x0003_1af4));
    assert_eq!(pc(false, true).id(), (0x1003, 0, 0x0003_1af4));
    let vendors = |pc: Pc| pc.capabilities().iter().filter(|(id, _)| *id == 9).count();
    assert_eq!((vendors(pc(true, true)), vendors(pc(false, true))), (5, 0));
}

#[test]
fn a_modern_driver_works_with_the_pin_and_with_messages() {
    let pc = pc(true, false);
    assert_eq!((pc.read(0x12, 2), pc.read(0x18, 2)), (2, 16), "two queues of 16");
    pc.start_modern(false);
    let ring = [0x1000, 0x2000, 0x3000];
    pc.put(ring, 0);
    pc.write(0x3004, 2, 1);
    assert_eq!((pc.ram.read_value(0x9000, 4), pc.ram.read_value(0x3002, 2)), (0x0403_0201, 1));
    assert_eq!(pc.pins.take(), [(3, true)]);
    assert_eq!((pc.read(0x1000, 1), pc.read(0x1000, 1)), (1, 0), "reading takes the pin down");
    assert_eq!(pc.pins.take(), [(3, false)]);

    let msix = pc.capabilities().into_iter().find(|(id, _)| *id == 0x11).unwrap().1;
    pc.bus.config_write(0, AT, msix + 2, 2, 0x8000);
    for (place, value) in [(16, 0xfee0_0000), (20, 0), (24, 0x41), (28, 0)] {
        pc.memory.view().write_value(MSIX + place, 4, value);
    }
    assert!(pc.ram.fill(0x1000, 0x3000, 0));
    pc.start_modern(true);
    assert_eq!(pc.read(0x1a, 2), 1);
    pc.write(0x1a, 2, 9);
    assert_eq!(pc.read(0x1a, 2), 0xffff, "there is no such vector");
    pc.write(0x1a, 2, 1);
    pc.put(ring, 0);
    pc.write(0x3004, 2, 1);
    assert_eq!(*pc.messages.0.lock(), [(0xfee0_0000, 0x41)]);
    assert_eq!(pc.pins.take(), []);
}

#[test]
fn a_legacy_driver_works_by_ports() {
    let pc = pc(true, true);
    let port = |offset, size| pc.ports.view().read_value(PORTS + offset, size);
    let out = |offset, size, value| pc.ports.view().write_value(PORTS + offset, size, value);
    assert_eq!(port(0, 4), 1 | feature::ANY_LAYOUT | feature::INDIRECT);
    assert_eq!(port(20, 4), 0x2d2c_2b2a);
    out(18, 1, 3);
    out(4, 4, 1);
    out(14, 2, 1);
    assert_eq!((port(12, 2), port(8, 4)), (16, 0));
    out(8, 4, 1); // page 1
    out(18, 1, 7);
    pc.put([0x1000, 0x1100, 0x2000], 0);
    out(16, 2, 1);
    assert_eq!((pc.ram.read_value(0x9000, 4), pc.ram.read_value(0x2002, 2)), (0x0403_0201, 1));
    assert_eq!((pc.pins.take(), port(19, 1), port(19, 1)), (vec![(3, true)], 1, 0));
    out(8, 4, 0);
    assert_eq!((port(18, 1), port(8, 4)), (0, 0), "a page of zero is a reset");

    let msix = pc.capabilities().into_iter().find(|(id, _)| *id == 0x11).unwrap().1;
    pc.bus.config_write(0, AT, msix + 2, 2, 0x8000);
    assert_eq!((port(20, 2), port(24, 4)), (0xffff, 0x2d2c_2b2a), "vectors come before");
}

#[test]
fn the_window_reaches_the_registers_without_the_bar() {
    let pc = pc(true, false);
    let is_window = |at| pc.bus.config_read(0, AT, at + 3, 1) == u32::from(CAPABILITY_WINDOW);
    let window = pc.capabilities().into_iter().find(|(id, at)| *id == 9 && is_window(*at));
    let window = window.unwrap().1;
    pc.bus.config_write(0, AT, window + 4, 1, u32::from(MODERN_BAR));
    let aim = |offset, bytes| {
        pc.config(window + 8, offset);
        pc.config(window + 12, bytes);
    };
    aim(0x2000, 4);
    assert_eq!(pc.bus.config_read(0, AT, window + 16, 4), 0x2d2c_2b2a);
    aim(0x14, 1);
    pc.bus.config_write(0, AT, window + 16, 1, 3);
    assert_eq!(pc.read(0x14, 1), 3);
    for (offset, bytes) in [(0x4000, 4), (2, 4), (0, 3), (u32::MAX, 1)] {
        aim(offset, bytes);
        pc.bus.config_write(0, AT, window + 16, 4, 0);
        _ = pc.bus.config_read(0, AT, window + 16, 4);
    }
    assert_eq!(pc.read(0x14, 1), 3);
}

#[test]
fn a_reset_of_the_bus_resets_the_device() {
    let pc = pc(true, false);
    pc.start_modern(false);
    pc.bus.reset();
    pc.config(spec::BAR0 + 4 * u16::from(MODERN_BAR), BAR as u32);
    pc.config(spec::COMMAND, 7);
    assert_eq!((pc.read(0x14, 1), pc.read(0x1c, 2)), (0, 0));
}

#[test]
fn random_accesses_break_nothing() {
    let pc = pc(true, true);
    let mut random = crate::virtio::guest::Random(3);
    let spaces: [(&AddressSpace, u64, u64); 2] =
        [(&pc.memory, BAR, 0x4000), (&pc.ports, PORTS, 64)];
    for _ in 0..30_000 {
        let (space, base, bytes) = spaces[random.below(2) as usize];
        let bytes = if random.below(2) == 0 { bytes.min(0x40) } else { bytes };
        let (at, size) = (base + random.below(bytes), 1 << random.below(4));
        let value = if random.below(2) == 0 { random.below(32) } else { random.next() };
        space.view().write_value(at, size, value);
        _ = space.view().read_value(at, size);
    }
}
