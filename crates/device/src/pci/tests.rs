//! A small device on a bus, as a guest sees it.

use memory::{AddressSpace, Io, Owner};
use parking_lot::Mutex;

use super::*;
use crate::{IrqSink, RecordedIrq};

struct Scratch(Mutex<u64>);

impl Io for Scratch {
    fn read(&self, offset: u64, _size: u8) -> u64 {
        *self.0.lock() + offset
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        *self.0.lock() = value;
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
    fn input(&self, slot: u8, pin: u32) -> u32 {
        (u32::from(slot) + pin) % 4
    }
}

struct Card(Arc<Connection>);

impl Device for Card {
    fn reset(&self) {
        self.0.reset();
    }
}

impl PciFunction for Card {
    fn connection(&self) -> &Connection {
        &self.0
    }
}

struct Fixture {
    bus: Arc<Bus>,
    memory: Arc<AddressSpace>,
    messages: Arc<Messages>,
    pins: Arc<RecordedIrq>,
}

fn fixture() -> Fixture {
    let memory = Arc::new(AddressSpace::new());
    let messages = Arc::new(Messages::default());
    let pins = Arc::new(RecordedIrq::default());
    let root = Root {
        memory: Arc::clone(&memory),
        ports: Arc::new(AddressSpace::new()),
        dma: Arc::clone(&memory),
        msi: Arc::clone(&messages) as Arc<dyn MsiSink>,
    };
    let sink = Arc::clone(&pins) as Arc<dyn IrqSink>;
    let bus = Bus::host(Arc::new(root), true, Box::new(Straight), sink);
    Fixture { bus, memory, messages, pins }
}

fn plain(card: &Arc<Card>) -> Arc<dyn PciFunction> {
    Arc::clone(card) as Arc<dyn PciFunction>
}

fn card() -> Arc<Card> {
    let identity = Identity {
        vendor: 0x1af4,
        device: 0x1000,
        revision: 1,
        class: 0x020000,
        subsystem: (1, 2),
    };
    let mut layout = Layout::new(identity);
    layout.interrupt_pin(1);
    layout.bar(0, BarKind::Memory32, 0x1000, Owner::Io(Arc::new(Scratch(Mutex::new(7)))));
    layout.msix(None, 2, 1, 0, 0x800);
    Arc::new(Card(layout.build()))
}

#[test]
fn a_bar_is_seen_where_it_points_and_gone_after_reset() {
    let Fixture { bus, memory, .. } = fixture();
    let at = Address::slot(3);
    bus.plug(at, &plain(&card())).unwrap();
    assert_eq!(bus.config_read(0, at, 0, 4), 0x1000_1af4);
    assert_eq!(bus.config_read(0, Address::slot(4), 0, 4), u32::MAX);
    bus.config_write(0, at, spec::BAR0, 4, 0xe000_0000);
    bus.config_write(0, at, spec::COMMAND, 2, 2);
    assert_eq!(memory.view().read_value(0xe000_0010, 4), 0x17);
    bus.config_write(0, at, spec::BAR0, 4, 0xd000_0000);
    assert_eq!(memory.view().read_value(0xe000_0010, 4), 0xffff_ffff);
    assert_eq!(memory.view().read_value(0xd000_0010, 4), 0x17);
    bus.reset();
    assert!(memory.view().ranges().is_empty());
    assert_eq!(bus.plug(at, &plain(&card())), Err(PlugError::Occupied { slot: 3, function: 0 }));
    bus.unplug(at).unwrap();
    assert_eq!(bus.config_read(0, at, 0, 4), u32::MAX);
}

#[test]
fn a_message_needs_a_bus_master_and_a_pin_can_be_switched_off() {
    let Fixture { bus, memory, messages, pins } = fixture();
    let (at, card) = (Address::slot(3), card());
    bus.plug(at, &plain(&card)).unwrap();
    assert!(!card.0.notify(0));
    card.0.set_irq(true);
    assert_eq!(pins.take(), [(3, true)]);
    bus.config_write(0, at, spec::COMMAND, 2, 0x402);
    assert_eq!(pins.take(), [(3, false)]);
    assert_ne!(bus.config_read(0, at, spec::STATUS, 2) & u32::from(spec::STATUS_INTX), 0);

    bus.config_write(0, at, spec::BAR0 + 4, 4, 0xe000_0000);
    memory.view().write_value(0xe000_0000, 8, 0xfee0_0000);
    memory.view().write_value(0xe000_0008, 8, 0x4033);
    let capability = bus.config_read(0, at, spec::CAPABILITIES, 1) as u16;
    bus.config_write(0, at, capability + 2, 2, 0x8000);
    assert!(card.0.notify(0) && messages.0.lock().is_empty() && card.0.dma().is_none());
    bus.config_write(0, at, spec::COMMAND, 2, 6);
    assert!(card.0.notify(0) && card.0.dma().is_some());
    assert_eq!(*messages.0.lock(), [(0xfee0_0000, 0x4033)]);
}

#[test]
fn random_configuration_writes_break_nothing() {
    let Fixture { bus, .. } = fixture();
    let at = Address::slot(3);
    bus.plug(at, &plain(&card())).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = 1 << (seed >> 60 & 3).min(2);
        let register = (seed >> 40) as u16 & 0xfff;
        bus.config_write(0, at, register, size, (seed >> 8) as u32);
        _ = bus.config_read(0, at, register, size);
    }
    assert_eq!(bus.config_read(0, at, 0, 4), 0x1000_1af4);
}
