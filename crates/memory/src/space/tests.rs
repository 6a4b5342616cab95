use super::*;
use crate::{Io, PAGE_SIZE, Ram};

struct Echo(u8);

impl Io for Echo {
    fn read(&self, offset: u64, size: u8) -> u64 {
        (u64::from(self.0) << 8 | offset & 0xff) & crate::ones(size)
    }

    fn write(&self, _offset: u64, _size: u8, _value: u64) {}
}

fn io(tag: u8) -> Owner {
    Owner::Io(Arc::new(Echo(tag)))
}

/// Every address of a small space against the definition: the highest priority that is on, the
/// latest among equals.
#[test]
fn the_flat_view_follows_the_definition_at_every_address() {
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..500 {
        let space = AddressSpace::new();
        let mut regions = Vec::new();
        for tag in 0..random(9) as u8 {
            let region = Region::new("r", random(64), random(32), io(tag))
                .with_priority(random(3) as i32)
                .with_offset(random(8))
                .with_enabled(random(4) != 0);
            regions.push(region.clone());
            space.add(region);
        }
        let view = space.view();
        for address in 0..100 {
            let covers = |region: &&Region| {
                region.enabled && address >= region.start && address - region.start < region.length
            };
            let expected = regions.iter().filter(covers).max_by_key(|region| region.priority);
            // `max_by_key` takes the last of equals, as the definition does.
            let expected = expected.map(|region| {
                let Owner::Io(io) = &region.owner else { unreachable!("all regions are i/o") };
                io.read(address - region.start + region.offset, 2)
            });
            assert_eq!(view.read_value(address, 1), expected.map_or(0xff, |value| value & 0xff));
            assert_eq!(view.find(address).is_some(), expected.is_some(), "at {address}");
        }
    }
}

#[test]
fn a_region_to_the_top_of_the_space_does_not_wrap() {
    let space = AddressSpace::new();
    space.add(Region::new("all", 0, u64::MAX, io(1)));
    space.add(Region::new("top", u64::MAX - 15, u64::MAX, io(2)));
    let view = space.view();
    assert_eq!(view.read_value(u64::MAX - 15, 2), 0x200);
    assert_eq!(view.read_value(u64::MAX - 17, 2), 0x1ee);
    let mut bytes = [0; 4];
    view.read(u64::MAX - 1, &mut bytes);
    assert_eq!(bytes[2..], [0, 1], "an access beyond the top goes on at the bottom");
}

#[test]
fn rom_swallows_writes_and_holes_read_as_ones() {
    let space = AddressSpace::new();
    let ram = Arc::new(Ram::new("ram", PAGE_SIZE).unwrap());
    space.add(Region::new("ram", 0, PAGE_SIZE, Owner::Ram(Arc::clone(&ram))));
    space.add(Region::new("rom", PAGE_SIZE, PAGE_SIZE, Owner::Rom(Arc::clone(&ram))));
    let view = space.view();

    view.write(PAGE_SIZE - 2, &[1, 2, 3, 4]);
    view.write_value(PAGE_SIZE + 8, 4, 5);

    assert_eq!(view.read_value(PAGE_SIZE - 2, 4), 0x0201);
    assert_eq!(ram.read_value(8, 4), 0);
    assert_eq!(view.read_value(2 * PAGE_SIZE - 1, 2), 0xff02);
}

#[test]
fn changes_in_one_update_are_seen_at_once() {
    struct Count(AtomicU64);
    impl Listener for Count {
        fn changed(&self, _: &FlatView, _: &FlatView) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let space = AddressSpace::new();
    let count = Arc::new(Count(AtomicU64::new(0)));
    space.listen(Arc::clone(&count) as Arc<dyn Listener>);
    let (a, b) = space.update(|change| {
        (change.add(Region::new("a", 0, 8, io(1))), change.add(Region::new("b", 0, 8, io(2))))
    });
    assert_eq!(space.view().read_value(0, 2), 0x200);

    space.update(|change| {
        change.set_enabled(b, false);
        change.set_start(a, 4);
    });

    let view = space.view();
    assert_eq!((view.read_value(0, 2), view.read_value(4, 2)), (0xffff, 0x100));
    assert_eq!((count.0.load(Ordering::Relaxed), space.generation()), (3, 2));
    space.update(|change| change.set_enabled(b, false));
    assert_eq!(space.generation(), 2, "no change, no new view");
}

#[test]
fn memory_is_found_across_ranges_and_nothing_else_is_memory() {
    let space = AddressSpace::new();
    let ram = Arc::new(Ram::new("ram", 4 * PAGE_SIZE).unwrap());
    let half = |start| {
        Region::new("half", start, PAGE_SIZE, Owner::Ram(Arc::clone(&ram))).with_offset(start)
    };
    space.add(half(0));
    space.add(half(PAGE_SIZE));
    space.add(Region::new("rom", 2 * PAGE_SIZE, PAGE_SIZE, Owner::Rom(Arc::clone(&ram))));
    space.add(Region::new("io", 3 * PAGE_SIZE, PAGE_SIZE, io(1)));
    let view = space.view();
    for (address, length, write, found) in [
        (0, 10, true, Some((0, 10))),
        (4090, 10, true, Some((4090, 10))),
        (4090, 8192, true, Some((4090, 4102))),
        (8192, 10, false, Some((0, 10))),
        (8192, 10, true, None),
        (12288, 1, false, None),
        (16384, 1, false, None),
        (u64::MAX, 1, false, None),
    ] {
        let piece = view.memory_at(address, length, write);
        assert_eq!(piece.map(|piece| (piece.offset, piece.length)), found, "{address} {length}");
    }
    assert!(view.write_memory(4095, &[1, 2]) && !view.write_memory(8191, &[1, 2]));
    let mut bytes = [0; 4];
    assert!(view.read_memory(4094, &mut bytes));
    assert_eq!(bytes, [0, 1, 2, 0]);
    assert!(!view.read_memory(12287, &mut bytes) && !view.read_memory(u64::MAX, &mut bytes));
    assert!(view.is_memory(0, 3 * PAGE_SIZE, false) && !view.is_memory(0, u64::MAX, false));
}
