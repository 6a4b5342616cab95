use std::sync::Arc;

use memory::{FlatView, Listener};
use parking_lot::Mutex;

use crate::virtio::device::{Driver, Kind, VirtioDevice, feature};
use crate::virtio::guest::{Guest, Part, RAM_BYTES, hostile};

/// Answers each request with its own bytes, reversed.
#[derive(Default)]
struct Mirror {
    driver: Mutex<Option<Driver>>,
    config: Mutex<u8>,
}

impl VirtioDevice for Mirror {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn features(&self) -> u64 {
        1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64, 8]
    }

    fn config(&self) -> Vec<u8> {
        vec![*self.config.lock(), 2, 3]
    }

    fn activate(&self, driver: Driver) {
        *self.driver.lock() = Some(driver);
    }

    fn reset(&self) {
        *self.driver.lock() = None;
    }

    fn notify(&self, queue: u16) {
        let queue = self.driver.lock().as_ref().and_then(|driver| driver.queue(queue).cloned());
        let Some(queue) = queue else { return };
        while let Some(chain) = queue.pop() {
            let mut bytes = chain.reader().to_vec(1 << 20);
            bytes.reverse();
            let written = chain.writer().write(&bytes);
            queue.push(chain, written as u64);
        }
    }
}

#[test]
fn requests_come_back_with_their_answers_in_any_cut() {
    for features in [0, feature::EVENT_INDEX, feature::INDIRECT] {
        let mut guest = Guest::ready(Arc::new(Mirror::default()), features);
        for round in 0..200 {
            let parts = match round % 4 {
                0 => vec![Part::Out(b"abc"), Part::In(3)],
                1 => vec![Part::Out(b"a"), Part::Out(b"bc"), Part::In(1), Part::In(7)],
                2 => vec![Part::Out(b"abc"), Part::In(2)],
                _ => vec![Part::Out(b""), Part::Out(b"abc"), Part::In(0), Part::In(3)],
            };
            let (answer, written) = guest.request(0, &parts);
            assert_eq!(answer[..written as usize], b"cba"[..written as usize]);
            assert_eq!(written, if round % 4 == 2 { 2 } else { 3 });
        }
        assert!(!guest.needs_reset());
    }
}

#[test]
fn with_the_event_index_one_interrupt_announces_many_answers() {
    let mut guest = Guest::ready(Arc::new(Mirror::default()), feature::EVENT_INDEX);
    for _ in 0..10 {
        guest.put(0, &[Part::Out(b"x"), Part::In(1)]);
    }
    guest.notify(0);
    assert_eq!(guest.irq.take(), [(5, true)]);
    assert_eq!(guest.read(0x60), 1);
    guest.write(0x64, 1);
    assert_eq!(guest.irq.take(), [(5, false)]);
    let ring = guest.rings[0];
    let event = guest.ram.read_value(ring.device + 4 + 64 * 8, 2);
    assert_eq!(event, 10, "a notification is wanted for the next request");
    while guest.take(0).is_some() {}
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    assert_eq!(guest.irq.take(), [(5, true)]);
}

#[test]
fn without_the_event_index_the_flag_decides() {
    let mut guest = Guest::ready(Arc::new(Mirror::default()), 0);
    guest.ram.write_value(guest.rings[0].driver, 2, 1);
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    assert_eq!(guest.irq.take(), []);
    guest.ram.write_value(guest.rings[0].driver, 2, 0);
    guest.request(0, &[Part::Out(b"x"), Part::In(1)]);
    assert_eq!(guest.irq.take(), [(5, true)]);
}

#[test]
fn an_indirect_table_is_followed() {
    let mut guest = Guest::ready(Arc::new(Mirror::default()), feature::INDIRECT);
    let (table, data) = (guest.allocate(48), guest.allocate(64));
    assert!(guest.ram.write(data, b"wxyz"));
    guest.descriptor(table, data, 2, 1, 2);
    guest.descriptor(table + 16, data + 32, 4, 2, 0);
    guest.descriptor(table + 32, data + 2, 2, 1, 1);
    let ring = guest.rings[0];
    guest.descriptor(ring.descriptors + 5 * 16, table, 48, 4, 0);
    guest.offer(0, 5);
    guest.notify(0);
    assert_eq!(guest.wait(0), (5, 4));
    assert_eq!(guest.bytes(data + 32, 4), b"zyxw");
}

type Offence = (&'static str, fn(&mut Guest));

/// Each breaks the rules in one way; the device asks for a reset and does nothing more.
#[test]
fn a_driver_that_breaks_the_rules_must_reset() {
    let breaks: &[Offence] = &[
        ("a head outside the table", |guest| guest.offer(0, 64)),
        ("a loop", |guest| {
            let table = guest.rings[0].descriptors;
            guest.descriptor(table, 0x10_0000, 1, 1, 0);
            guest.offer(0, 0);
        }),
        ("a link outside the table", |guest| {
            let table = guest.rings[0].descriptors;
            guest.descriptor(table, 0x10_0000, 1, 1, 64);
            guest.offer(0, 0);
        }),
        ("a buffer behind the end of memory", |guest| one(guest, RAM_BYTES - 1, 2, 0)),
        ("a buffer that wraps around", |guest| one(guest, u64::MAX, 2, 2)),
        ("a buffer in registers", |guest| one(guest, 1 << 32, 4, 2)),
        ("a buffer larger than memory", |guest| one(guest, 0, u32::MAX, 2)),
        ("a read after a write", |guest| {
            let table = guest.rings[0].descriptors;
            guest.descriptor(table, 0x10_0000, 1, 3, 1);
            guest.descriptor(table + 16, 0x10_0000, 1, 0, 0);
            guest.offer(0, 0);
        }),
        ("more requests than entries", |guest| {
            guest.ram.write_value(guest.rings[0].driver + 2, 2, 65);
        }),
        ("an indirect table that is too short", |guest| one(guest, 0x10_0000, 15, 4)),
        ("an empty indirect table", |guest| one(guest, 0x10_0000, 0, 4)),
        ("a huge indirect table", |guest| one(guest, 0x10_0000, 1025 * 16, 4)),
        ("an indirect table nowhere", |guest| one(guest, RAM_BYTES, 16, 4)),
        ("an indirect table that wraps around", |guest| one(guest, u64::MAX - 7, 16, 4)),
        ("a table in a table", |guest| {
            guest.descriptor(0x10_0000, 0x10_0000, 16, 4, 0);
            one(guest, 0x10_0000, 16, 4);
        }),
        ("a loop in a table", |guest| {
            guest.descriptor(0x10_0000, 0x10_0000, 16, 1, 0);
            one(guest, 0x10_0000, 16, 4);
        }),
        ("a link after a table", |guest| one(guest, 0x10_0000, 16, 5)),
    ];
    for (what, break_it) in breaks {
        let mut guest = Guest::ready(Arc::new(Mirror::default()), feature::INDIRECT);
        break_it(&mut guest);
        guest.notify(0);
        assert!(guest.needs_reset(), "{what}");
        assert_eq!(guest.read(0x60), 2, "{what}: the change is announced");
        assert_eq!(guest.take(0), None, "{what}");
        guest.start(0, 64);
        assert!(!guest.needs_reset(), "{what}: a reset heals");
        assert_eq!(guest.request(0, &[Part::Out(b"ab"), Part::In(2)]).0, b"ba", "{what}");
    }
}

fn one(guest: &mut Guest, address: u64, bytes: u32, flags: u16) {
    let table = guest.rings[0].descriptors;
    guest.descriptor(table, address, bytes, flags, 0);
    guest.offer(0, 0);
}

/// A translator must hear of code that a device overwrites.
#[test]
fn what_is_written_is_announced_before_it_is_given_back() {
    struct Heard(Mutex<Vec<(u64, u64)>>);
    impl Listener for Heard {
        fn changed(&self, _before: &FlatView, _after: &FlatView) {}
        fn written(&self, start: u64, bytes: u64) {
            self.0.lock().push((start, bytes));
        }
    }
    let mut guest = Guest::ready(Arc::new(Mirror::default()), 0);
    let heard = Arc::new(Heard(Mutex::default()));
    guest.memory.listen(Arc::clone(&heard) as Arc<dyn Listener>);
    guest.request(0, &[Part::Out(b"abcde"), Part::In(3), Part::In(64)]);
    let heard = heard.0.lock();
    let heard: Vec<u64> = heard.iter().map(|(_, bytes)| *bytes).collect();
    assert_eq!(heard[..2], [3, 2], "and then the ring: {heard:?}");
}

#[test]
fn tables_without_the_feature_are_refused() {
    let mut guest = Guest::ready(Arc::new(Mirror::default()), 0);
    guest.descriptor(0x10_0000, 0x10_0100, 1, 0, 0);
    one(&mut guest, 0x10_0000, 16, 4);
    guest.notify(0);
    assert!(guest.needs_reset());
}

#[test]
fn rings_outside_memory_or_askew_break_the_device() {
    for (register, address) in [(0x80, RAM_BYTES - 8), (0x90, 0x3001), (0xa0, 1 << 33)] {
        let mut guest = Guest::new(Arc::new(Mirror::default()));
        guest.start(0, 64);
        guest.write(0x70, 0);
        for status in [1, 3] {
            guest.write(0x70, status);
        }
        guest.write(0x24, 1);
        guest.write(0x20, 1);
        guest.write(0x70, 11);
        guest.write(0x30, 0);
        guest.write(register, address as u32);
        guest.write(register + 4, (address >> 32) as u32);
        guest.write(0x44, 1);
        guest.write(0x70, 15);
        assert!(guest.needs_reset(), "{register:#x}");
        guest.notify(0);
    }
}

#[test]
fn features_that_are_not_offered_are_not_taken() {
    let guest = Guest::new(Arc::new(Mirror::default()));
    for (low, high, taken) in [(1, 1, true), (2, 1, false), (1, 0, false), (1 << 29, 1, true)] {
        guest.write(0x70, 0);
        guest.write(0x70, 3);
        guest.write(0x24, 0);
        guest.write(0x20, low);
        guest.write(0x24, 1);
        guest.write(0x20, high);
        guest.write(0x70, 11);
        assert_eq!(guest.read(0x70) & 8 != 0, taken, "{low:#x} {high:#x}");
    }
}

#[test]
fn the_configuration_has_an_end_and_a_generation() {
    let mirror = Arc::new(Mirror::default());
    let guest = Guest::new(Arc::clone(&mirror) as Arc<dyn VirtioDevice>);
    let before = guest.read(0xfc);
    assert_eq!(guest.read(0x100), 0xff03_0200);
    assert_eq!(guest.read(0xfc), before);
    *mirror.config.lock() = 7;
    assert_ne!(guest.read(0xfc), before);
    assert_eq!(guest.read(0x1fc), u32::MAX);
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..6 {
        let features = if seed % 2 == 0 { feature::EVENT_INDEX } else { 0 } | feature::INDIRECT;
        hostile(Arc::new(Mirror::default()), features, 3000, seed);
    }
}
