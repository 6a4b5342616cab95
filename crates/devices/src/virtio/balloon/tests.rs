use device::StoppedClock;
use memory::{Owner, Ram, Region};

use super::*;
use crate::virtio::guest::{Guest, Part, hostile};

struct World {
    /// Memory that is ballooned: not the one in which the test has its rings.
    ram: Arc<Ram>,
    balloon: Arc<Balloon>,
    clock: Arc<StoppedClock>,
    timers: Arc<Timers>,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told(Mutex<Vec<DeviceEvent>>);

impl EventSink for Told {
    fn event(&self, _id: &str, event: DeviceEvent) {
        self.0.lock().push(event);
    }
}

const PAGES: u64 = 64;

fn world() -> World {
    let ram = Arc::new(Ram::new("ram", PAGES * PAGE_SIZE).unwrap());
    assert!(ram.fill(0, PAGES * PAGE_SIZE, 7));
    let memory = Arc::new(AddressSpace::new());
    memory.add(Region::new("ram", 0, PAGES * PAGE_SIZE, Owner::Ram(Arc::clone(&ram))));
    let (clock, timers) = (Arc::new(StoppedClock::default()), Timers::new(|| {}));
    let told = Arc::new(Told::default());
    let config = BalloonConfig {
        id: "balloon0".to_owned(),
        memory,
        ram_bytes: PAGES * PAGE_SIZE,
        deflate_on_oom: true,
        free_page_reporting: true,
        events: Arc::clone(&told) as _,
        clock: Arc::clone(&clock) as _,
    };
    World { ram, balloon: Balloon::new(config, &timers), clock, timers, told }
}

fn released(ram: &Ram) -> Vec<u64> {
    (0..PAGES).filter(|page| ram.read_value(page * PAGE_SIZE + 8, 8) == 0).collect()
}

#[test]
fn inflated_pages_leave_the_host() {
    let World { ram, balloon, told, .. } = world();
    let mut guest = Guest::ready(Arc::clone(&balloon) as _, F_STATISTICS);
    balloon.set_target(60 * PAGE_SIZE);
    assert_eq!((guest.read(0x60), guest.read(0x100)), (2, 4));
    let pages: Vec<u8> = [9_u32, 8, 30, 31, 8, 1_000_000, u32::MAX]
        .iter()
        .flat_map(|page| page.to_le_bytes())
        .collect();
    guest.request(0, &[Part::Out(&pages)]);
    assert_eq!(released(&ram), [8, 9, 30, 31]);
    guest.write(0x104, 4);
    assert_eq!(balloon.actual(), 60 * PAGE_SIZE);
    assert_eq!(*told.0.lock(), [DeviceEvent::BalloonChanged { bytes: 60 * PAGE_SIZE }]);
    assert_eq!(guest.read(0x104), 4);
    guest.request(1, &[Part::Out(&pages)]);
    guest.mmio_write_byte(0x105, 0xff);
    guest.mmio_write_byte(0x105, 0);
    assert_eq!(balloon.actual(), 60 * PAGE_SIZE, "legacy drivers write byte by byte");
    guest.write(0x70, 0);
    assert_eq!(balloon.actual(), PAGES * PAGE_SIZE);
}

#[test]
fn reported_pages_leave_the_host_wherever_the_queue_is() {
    for (features, queue) in [(F_REPORTING, 2), (F_REPORTING | F_STATISTICS, 3)] {
        let World { ram, balloon, .. } = world();
        let mut guest = Guest::ready(balloon, features);
        // Whole pages only: the page after the first byte, and not the one with the last.
        guest.descriptor(guest.rings[queue].descriptors, 0x1001, 0x3000, 2, 0);
        guest.offer(queue, 0);
        guest.notify(queue);
        assert_eq!(guest.wait(queue), (0, 0));
        assert_eq!(released(&ram), [2, 3]);
    }
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let World { balloon, clock, timers, .. } = world();
    let mut guest = Guest::ready(Arc::clone(&balloon) as _, F_STATISTICS);
    let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let entries = [entry(4, 111), entry(5, 222), entry(0, u64::MAX), entry(99, 1)].concat();
    guest.put(2, &[Part::Out(&entries)]);
    guest.notify(2);
    assert_eq!(balloon.statistics().0, [("free-memory", 111), ("total-memory", 222)]);
    assert_eq!(guest.take(2), None, "the buffer stays until it is asked for again");
    balloon.set_polling(2);
    assert_eq!((balloon.polling(), timers.next_ns()), (2, Some(2_000_000_000)));
    clock.set_ns(2_000_000_000);
    timers.run(2_000_000_000);
    assert_eq!(guest.take(2), Some((0, 0)));
    guest.put(2, &[Part::Out(&entry(4, 333))]);
    guest.notify(2);
    assert_eq!(balloon.statistics(), (vec![("free-memory", 333), ("total-memory", 222)], 2));
    balloon.set_polling(0);
    assert_eq!(timers.next_ns(), None);
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..5 {
        let World { balloon, .. } = world();
        hostile(balloon, F_STATISTICS | F_REPORTING | 3 << 28, 2000, seed);
    }
}
