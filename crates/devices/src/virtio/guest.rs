//! The guest's side, for tests: a driver that speaks to a device through mmio registers and rings in
//! its own memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use device::{Io, IrqLine, IrqSink, RecordedIrq};
use memory::{AddressSpace, Owner, Ram, Region};

use super::device::{VirtioDevice, feature};
use super::mmio::VirtioMmio;
use super::transport::RingOptions;

/// A guest's memory and the device in its only slot.
pub struct Guest {
    pub ram: Arc<Ram>,
    pub memory: Arc<AddressSpace>,
    pub mmio: Arc<VirtioMmio>,
    pub irq: Arc<RecordedIrq>,
    pub rings: Vec<DriverRing>,
    /// Where the next buffer goes.
    free: u64,
}

/// Memory of a guest.
pub const RAM_BYTES: u64 = 16 << 20;
/// How long an answer of a device's own thread may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A driver's half of a split ring.
#[derive(Clone, Copy)]
pub struct DriverRing {
    pub size: u16,
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
    next_descriptor: u16,
    pub next_available: u16,
    next_used: u16,
}

/// A buffer of a request: bytes for the device, or room for its answer.
pub enum Part<'a> {
    Out(&'a [u8]),
    In(u32),
}

/// A request that is under way, and where its answer will be.
pub struct Sent {
    pub head: u16,
    answer: Vec<(u64, u32)>,
}

impl Guest {
    /// A guest that has found the device and done nothing yet.
    pub fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let ram = Arc::new(Ram::new("test", RAM_BYTES).unwrap());
        let memory = Arc::new(AddressSpace::new());
        memory.add(Region::new("ram", 0, RAM_BYTES, Owner::Ram(Arc::clone(&ram))));
        let irq = Arc::new(RecordedIrq::default());
        let line = IrqLine::new(Arc::clone(&irq) as Arc<dyn IrqSink>, 5);
        let options = RingOptions { indirect: true, event_index: true };
        let mmio = VirtioMmio::new(device, Arc::clone(&memory), line, options);
        memory.add(Region::new("slot", 1 << 32, 0x200, Owner::Io(Arc::clone(&mmio) as _)));
        Self { ram, memory, mmio, irq, rings: Vec::new(), free: 0x10_0000 }
    }

    /// A guest whose driver wants these features and is ready.
    pub fn ready(device: Arc<dyn VirtioDevice>, features: u64) -> Self {
        let mut guest = Self::new(device);
        guest.start(features, 64);
        guest
    }

    /// The driver's set-up by the book (3.1.1), all queues in use.
    pub fn start(&mut self, features: u64, size_max: u16) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        let features = features | feature::VERSION_1;
        for half in [0, 1] {
            self.write(0x24, half);
            self.write(0x20, (features >> (32 * half)) as u32);
        }
        self.write(0x70, 11);
        assert_eq!(self.read(0x70), 11, "the device takes the features");
        self.rings.clear();
        for index in 0.. {
            self.write(0x30, index);
            let size = (self.read(0x34) as u16).min(size_max);
            if size == 0 {
                break;
            }
            let base = 0x1000 + u64::from(index) * 0x3000;
            let ring = DriverRing {
                size,
                descriptors: base,
                driver: base + 0x1000,
                device: base + 0x2000,
                next_descriptor: 0,
                next_available: 0,
                next_used: 0,
            };
            assert!(self.ram.fill(base, 0x3000, 0));
            self.write(0x38, u32::from(size));
            for (register, address) in
                [(0x80, ring.descriptors), (0x90, ring.driver), (0xa0, ring.device)]
            {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            self.write(0x44, 1);
            self.rings.push(ring);
        }
        self.write(0x70, 15);
        self.irq.take(); // the reset has lowered the line
    }

    pub fn read(&self, register: u64) -> u32 {
        self.mmio.read(register, 4) as u32
    }

    pub fn write(&self, register: u64, value: u32) {
        self.mmio.write(register, 4, u64::from(value));
    }

    pub fn mmio_write_byte(&self, register: u64, value: u8) {
        self.mmio.write(register, 1, u64::from(value));
    }

    pub fn mmio_read_half(&self, register: u64) -> u16 {
        self.mmio.read(register, 2) as u16
    }

    /// Memory for a buffer. It is never given back: a test is short, and starts over at the end.
    pub fn allocate(&mut self, bytes: u32) -> u64 {
        let at = self.free;
        self.free += u64::from(bytes).next_multiple_of(64);
        if self.free > RAM_BYTES {
            self.free = 0x10_0000;
            return self.allocate(bytes);
        }
        at
    }

    pub fn bytes(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut all = vec![0; bytes];
        assert!(self.ram.read(address, &mut all));
        all
    }

    pub fn descriptor(&self, place: u64, address: u64, bytes: u32, flags: u16, next: u16) {
        self.ram.write_value(place, 8, address);
        self.ram.write_value(place + 8, 4, u64::from(bytes));
        self.ram.write_value(place + 12, 2, u64::from(flags));
        self.ram.write_value(place + 14, 2, u64::from(next));
    }

    /// Puts a request into a ring without a notification.
    pub fn put(&mut self, queue: usize, parts: &[Part<'_>]) -> Sent {
        let mut answer = Vec::new();
        let mut ring = self.rings[queue];
        let head = ring.next_descriptor % ring.size;
        for (index, part) in parts.iter().enumerate() {
            let (address, bytes, flag) = match part {
                Part::Out(data) => {
                    let address = self.allocate(data.len() as u32);
                    assert!(self.ram.write(address, data));
                    (address, data.len() as u32, 0)
                }
                Part::In(bytes) => {
                    let address = self.allocate(*bytes);
                    answer.push((address, *bytes));
                    (address, *bytes, 2)
                }
            };
            let last = index + 1 == parts.len();
            let this = ring.next_descriptor % ring.size;
            ring.next_descriptor = ring.next_descriptor.wrapping_add(1);
            let next = ring.next_descriptor % ring.size;
            let place = ring.descriptors + u64::from(this) * 16;
            self.descriptor(place, address, bytes, flag | u16::from(!last), next);
        }
        self.rings[queue] = ring;
        self.offer(queue, head);
        Sent { head, answer }
    }

    /// Puts the head of a chain into the driver's ring.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let place = ring.driver + 4 + u64::from(ring.next_available % ring.size) * 2;
        ring.next_available = ring.next_available.wrapping_add(1);
        self.ram.write_value(place, 2, u64::from(head));
        self.ram.write_value(ring.driver + 2, 2, u64::from(ring.next_available));
    }

    pub fn notify(&self, queue: usize) {
        self.write(0x50, queue as u32);
    }

    /// Takes an answer out of a ring: the chain's head and the bytes that were written.
    pub fn take(&mut self, queue: usize) -> Option<(u16, u32)> {
        let ring = &mut self.rings[queue];
        if self.ram.read_value(ring.device + 2, 2) as u16 == ring.next_used {
            return None;
        }
        let place = ring.device + 4 + u64::from(ring.next_used % ring.size) * 8;
        ring.next_used = ring.next_used.wrapping_add(1);
        // The next interrupt is wanted for the next answer.
        let event = ring.driver + 4 + u64::from(ring.size) * 2;
        self.ram.write_value(event, 2, u64::from(ring.next_used));
        let entry = self.ram.read_value(place, 8);
        Some((entry as u16, (entry >> 32) as u32))
    }

    /// Waits for an answer.
    pub fn wait(&mut self, queue: usize) -> (u16, u32) {
        let start = Instant::now();
        loop {
            if let Some(used) = self.take(queue) {
                return used;
            }
            assert!(start.elapsed() < PATIENCE, "no answer on queue {queue}");
            std::thread::yield_now();
        }
    }

    /// What the device wrote into a request's buffers.
    pub fn answer(&self, sent: &Sent) -> Vec<u8> {
        let parts = sent.answer.iter();
        parts.flat_map(|(address, bytes)| self.bytes(*address, *bytes as usize)).collect()
    }

    /// A request, and its answer when it has come: all of the buffers, and the bytes written.
    pub fn request(&mut self, queue: usize, parts: &[Part<'_>]) -> (Vec<u8>, u32) {
        let sent = self.put(queue, parts);
        self.notify(queue);
        let (head, written) = self.wait(queue);
        assert_eq!(head, sent.head);
        (self.answer(&sent), written)
    }

    pub fn needs_reset(&self) -> bool {
        self.read(0x70) & 64 != 0
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A small random generator with a seed, so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // xorshift64*: enough for choosing, and the same everywhere.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A hostile guest: random rings, registers and notifications. Nothing may panic or hang; the test
/// around it checks what it can of the device's own state.
pub fn hostile(device: Arc<dyn VirtioDevice>, features: u64, rounds: u32, seed: u64) {
    let mut random = Random(seed);
    let mut guest = Guest::new(device);
    for round in 0..rounds {
        if round % 16 == 0 || (guest.needs_reset() && random.below(4) != 0) {
            guest.start(features, 1 << random.below(7));
        }
        for _ in 0..random.below(12) {
            hostile_step(&mut guest, &mut random);
        }
        for queue in 0..guest.rings.len() {
            guest.notify(queue);
            while guest.take(queue).is_some() && random.below(64) != 0 {}
        }
    }
    guest.write(0x70, 0);
}

fn hostile_step(guest: &mut Guest, random: &mut Random) {
    let queues = guest.rings.len() as u64;
    let queue = random.below(queues) as usize;
    let ring = guest.rings[queue];
    let address = match random.below(8) {
        0 => random.next(),
        1 => RAM_BYTES - random.below(64),
        2 => (1 << 32) + random.below(0x200), // the device's own registers
        3 => ring.descriptors + random.below(0x3000),
        _ => 0x10_0000 + random.below(RAM_BYTES - 0x20_0000),
    };
    let bytes = match random.below(8) {
        0 => random.next() as u32,
        1 => 0,
        2 => 1 << random.below(21),
        _ => random.below(200) as u32,
    };
    let flags =
        if random.below(6) == 0 { random.next() as u16 & 7 } else { random.below(4) as u16 };
    let place = ring.descriptors + random.below(u64::from(ring.size)) * 16;
    match random.below(12) {
        0..=4 => {
            let next = random.below(u64::from(ring.size) + 1) as u16;
            guest.descriptor(place, address, bytes, flags, next);
            // Small numbers are the words that devices understand.
            let small =
                [random.below(40) as u8, random.below(3) as u8, 0, 0, random.below(8) as u8];
            if (0x10_0000..RAM_BYTES - 0x20_0000).contains(&address) {
                assert!(guest.ram.write(address, &small));
            }
        }
        5..=8 => guest.offer(queue, random.below(u64::from(ring.size) + 1) as u16),
        9 => {
            let (place, value) = (random.below(0x3000), random.next());
            guest.ram.write_value(ring.descriptors + place, 2, value);
        }
        10 => {
            let register = random.below(0x200) & !3;
            if register != 0x70 {
                guest.write(register, random.next() as u32 & 0xff);
            }
        }
        _ => {
            let size = 1 << random.below(4);
            let value = guest.mmio.read(random.below(0x200), size);
            if random.below(2) == 0 {
                guest.mmio.write(0x100 + random.below(0x40), size, value ^ random.next());
            }
        }
    }
}
