use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use device::{DeviceEvent, EventSink, NullStream, Stream, StreamEvent, StreamPeer};

use super::*;
use crate::virtio::guest::{Guest, Part, hostile};

/// The far end: takes so many bytes and no more until it is told.
#[derive(Default)]
struct Far {
    taken: Mutex<Vec<u8>>,
    room: AtomicUsize,
    rooms: AtomicUsize,
    open: AtomicBool,
    guest_open: AtomicBool,
    events: Mutex<Vec<DeviceEvent>>,
}

impl Stream for Far {
    fn write(&self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room.load(Ordering::Relaxed));
        self.room.fetch_sub(taken, Ordering::Relaxed);
        self.taken.lock().extend(&bytes[..taken]);
        taken
    }

    fn attach(&self, _peer: Weak<dyn StreamPeer>) {}

    fn room(&self) {
        self.rooms.fetch_add(1, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn set_guest_open(&self, open: bool) {
        self.guest_open.store(open, Ordering::Relaxed);
    }
}

impl EventSink for Far {
    fn event(&self, id: &str, event: DeviceEvent) {
        assert_eq!(id, "agent");
        self.events.lock().push(event);
    }
}

fn far() -> Arc<Far> {
    Arc::new(Far { room: 1000.into(), open: true.into(), ..Far::default() })
}

fn port(far: &Arc<Far>, is_console: bool) -> PortConfig {
    PortConfig {
        id: "agent".to_owned(),
        number: None,
        is_console,
        name: "org.qemu.guest_agent.0".to_owned(),
        stream: Arc::clone(far) as _,
        events: Arc::clone(far) as _,
    }
}

fn order(port: u32, event: u16, value: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// A driver that has set up port 1 and opened it.
fn opened(far: &Arc<Far>) -> (Guest, Arc<Console>, Arc<Port>) {
    let console = Console::new(4);
    let port = console.add(port(far, false)).unwrap();
    let mut guest = Guest::ready(Arc::clone(&console) as _, spec::F_MULTIPORT);
    let answers: Vec<_> = (0..4).map(|_| guest.put(2, &[Part::In(64)])).collect();
    guest.request(3, &[Part::Out(&order(0, spec::DEVICE_READY, 1))]);
    guest.request(3, &[Part::Out(&order(1, spec::PORT_READY, 1))]);
    let mut heard = Vec::new();
    for answer in &answers {
        if let Some((_, bytes)) = guest.take(2) {
            heard.push(guest.answer(answer)[..bytes as usize].to_vec());
        }
    }
    let name = [order(1, spec::PORT_NAME, 1), b"org.qemu.guest_agent.0\0".to_vec()].concat();
    assert_eq!(heard, [order(1, spec::DEVICE_ADD, 1), name, order(1, spec::PORT_OPEN, 1)]);
    guest.request(3, &[Part::Out(&order(1, spec::PORT_OPEN, 1))]);
    assert!(far.guest_open.load(Ordering::Relaxed));
    (guest, console, port)
}

#[test]
fn bytes_go_both_ways() {
    let far = far();
    let (mut guest, _, port) = opened(&far);
    assert_eq!(port.number(), 1);
    guest.request(5, &[Part::Out(b"hello "), Part::Out(b"host")]);
    assert_eq!(*far.taken.lock(), b"hello host");

    assert_eq!(port.room(), 0);
    let answers = [guest.put(4, &[Part::In(4)]), guest.put(4, &[Part::In(8)])];
    guest.notify(4);
    assert_eq!((far.rooms.load(Ordering::Relaxed), port.room()), (1, 4));
    port.receive(b"hello");
    assert_eq!((guest.take(4), guest.take(4)), (Some((0, 4)), Some((1, 1))));
    assert_eq!(guest.answer(&answers[0]), b"hell");
    assert_eq!(guest.answer(&answers[1])[0], b'o');
}

#[test]
fn a_slow_stream_holds_the_guest_up_and_nothing_is_lost() {
    let far = far();
    let (mut guest, _, port) = opened(&far);
    far.room.store(3, Ordering::Relaxed);
    guest.put(5, &[Part::Out(b"abcdef")]);
    guest.put(5, &[Part::Out(b"ghi")]);
    guest.notify(5);
    assert_eq!((guest.take(5), &far.taken.lock()[..]), (None, &b"abc"[..]));
    far.room.store(4, Ordering::Relaxed);
    port.writable();
    assert!(guest.take(5).is_some() && guest.take(5).is_none());
    far.room.store(4, Ordering::Relaxed);
    port.writable();
    assert!(guest.take(5).is_some());
    assert_eq!(*far.taken.lock(), b"abcdefghi");
}

#[test]
fn opening_and_closing_is_told_both_ways() {
    let far = far();
    let (mut guest, console, port) = opened(&far);
    let answer = guest.put(2, &[Part::In(64)]);
    far.open.store(false, Ordering::Relaxed);
    port.event(StreamEvent::Closed);
    // The fourth of the first buffers is used before this one.
    assert_eq!(guest.take(2).map(|(_, bytes)| bytes), Some(8));
    port.event(StreamEvent::Opened);
    assert_eq!(guest.take(2).map(|(_, bytes)| bytes), Some(8));
    assert_eq!(guest.answer(&answer)[..8], order(1, spec::PORT_OPEN, 0));
    guest.request(5, &[Part::Out(b"to nobody")]);
    assert!(far.taken.lock().is_empty());

    guest.request(3, &[Part::Out(&order(1, spec::PORT_OPEN, 0))]);
    assert!(!far.guest_open.load(Ordering::Relaxed));
    guest.request(3, &[Part::Out(&order(1, spec::PORT_OPEN, 1))]);
    guest.write(0x70, 0);
    let opens = far.events.lock().iter().map(|event| *event == open(true)).collect::<Vec<_>>();
    assert_eq!(opens, [true, false, true, false], "a reset closes");
    console.remove(1);
    assert!(console.ports().is_empty());
}

fn open(open: bool) -> DeviceEvent {
    DeviceEvent::PortChanged { open }
}

#[test]
fn a_driver_without_orders_has_the_first_port() {
    let far = far();
    let console = Console::new(2);
    let port = console.add(port(&far, true)).unwrap();
    let mut guest = Guest::ready(Arc::clone(&console) as _, 0);
    guest.put(0, &[Part::In(4)]);
    assert_eq!(port.room(), 4);
    port.receive(b"hi");
    assert_eq!(guest.take(0), Some((0, 2)));
    guest.request(1, &[Part::Out(b"x")]);
    guest.write(0x108, u32::from(b'!'));
    assert_eq!(*far.taken.lock(), b"x!");
}

#[test]
fn a_paused_port_gives_and_takes_nothing() {
    let far = far();
    let (mut guest, console, port) = opened(&far);
    guest.put(4, &[Part::In(4)]);
    console.set_running(false);
    assert_eq!(port.room(), 0);
    console.set_running(true);
    assert_eq!((far.rooms.load(Ordering::Relaxed), port.room()), (1, 4));
}

#[test]
fn numbers_of_ports_are_given_out_once() {
    let console = Console::new(3);
    let add = |number, is_console| {
        console
            .add(PortConfig { number, ..port(&far(), is_console) })
            .map(|port| port.number())
            .map_err(|error| error.to_string())
    };
    assert_eq!(add(Some(0), false), Err("Port 0 is reserved for a console".to_owned()));
    assert_eq!((add(None, false), add(None, true), add(None, true)), (Ok(1), Ok(0), Ok(2)));
    assert_eq!(add(Some(1), false), Err("Port 1 is in use".to_owned()));
    assert_eq!(add(None, false), Err("The controller has no free port".to_owned()));
    assert!(add(Some(3), false).unwrap_err().contains("beyond the last"));
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..5 {
        let console = Console::new(3);
        for _ in 0..2 {
            let stream = Arc::new(NullStream) as Arc<dyn Stream>;
            console.add(PortConfig { stream, ..port(&far(), false) }).unwrap();
        }
        hostile(Arc::clone(&console) as _, spec::F_MULTIPORT | 3 << 28, 2000, seed);
        assert!(console.state.lock().orders.len() <= ORDERS_MAX);
    }
}
