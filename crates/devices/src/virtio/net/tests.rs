use std::sync::atomic::{AtomicUsize, Ordering};

use ::net::{Offload, Segmentation};
use device::{DeviceEvent, NoEvents};

use super::*;
use crate::virtio::guest::{Guest, Part, Random, hostile};

const OWN: Address = [2, 0, 0, 0, 0, 1];

/// Writes down what it is told.
#[derive(Default)]
struct Wire {
    sent: Mutex<Vec<(Vec<u8>, Offload)>>,
    granted: Mutex<Capabilities>,
    card: Mutex<Option<Weak<dyn Card>>>,
    rooms: AtomicUsize,
    /// Frames come back at once.
    echoes: bool,
}

const ALL_CAPABILITIES: Capabilities = Capabilities {
    takes_checksum: true,
    takes_tso4: true,
    takes_tso6: true,
    gives_checksum: true,
    gives_tso4: true,
    gives_tso6: true,
};

impl Backend for Wire {
    fn capabilities(&self) -> Capabilities {
        ALL_CAPABILITIES
    }

    fn transmit(&self, frame: &[u8], offload: Offload) {
        if self.echoes {
            let card = self.card.lock().as_ref().and_then(Weak::upgrade);
            card.map(|card| card.receive(frame, Offload::default()));
        } else {
            self.sent.lock().push((frame.to_vec(), offload));
        }
    }

    fn attach(&self, card: Weak<dyn Card>) {
        *self.card.lock() = Some(card);
    }

    fn set_guest_offload(&self, granted: Capabilities) {
        *self.granted.lock() = granted;
    }

    fn room(&self) {
        self.rooms.fetch_add(1, Ordering::Relaxed);
    }

    fn link(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        String::new()
    }
}

fn config(wire: &Arc<Wire>) -> NetConfig {
    NetConfig {
        id: "net0".to_owned(),
        backend: Arc::clone(wire) as Arc<dyn Backend>,
        address: OWN,
        pairs: 1,
        receive_queue_size: 256,
        transmit_queue_size: 256,
        mtu: Some(1400),
        offloads: ALL_CAPABILITIES,
        merge_buffers: true,
        control: true,
        events: Arc::new(NoEvents),
    }
}

const OFFLOADS: u64 = spec::F_CSUM
    | spec::F_HOST_TSO4
    | spec::F_HOST_TSO6
    | spec::F_GUEST_CSUM
    | spec::F_GUEST_TSO4
    | spec::F_GUEST_TSO6;

fn ready(features: u64) -> (Guest, Arc<Wire>, Arc<Net>) {
    let wire = Arc::new(Wire::default());
    let card = Net::new(config(&wire));
    (Guest::ready(Arc::clone(&card) as _, features), wire, card)
}

fn frame(to: Address, bytes: usize) -> Vec<u8> {
    let mut frame = Random(bytes as u64 + 1).bytes(bytes);
    frame[..6].copy_from_slice(&to);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame
}

#[test]
fn frames_of_the_guest_reach_the_wire_with_what_was_left_to_do() {
    let (mut guest, wire, _) = ready(OFFLOADS);
    assert_eq!(*wire.granted.lock(), ALL_CAPABILITIES);
    let small = frame([9; 6], 60);
    let large = frame([9; 6], 65000);
    guest.request(1, &[Part::Out(&[0; 12]), Part::Out(&small)]);
    let header = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    let parts = [Part::Out(&header[..5]), Part::Out(&header[5..]), Part::Out(&large[..9])];
    let rest = [Part::Out(&large[9..])];
    guest.request(1, &parts.into_iter().chain(rest).collect::<Vec<_>>());
    let offload = Offload {
        needs_checksum: true,
        checksum_start: 34,
        checksum_offset: 16,
        segmentation: Some(Segmentation::TcpV4),
        segment_bytes: 1460,
        header_bytes: 54,
        checksum_valid: false,
    };
    assert_eq!(*wire.sent.lock(), [(small, Offload::default()), (large, offload)]);
}

#[test]
fn frames_that_make_no_sense_are_lost() {
    let (mut guest, wire, _) = ready(spec::F_CSUM);
    let good = frame([9; 6], 60);
    let huge = frame([9; 6], spec::FRAME_BYTES_MAX + 1);
    for (header, frame) in [
        ([0, 1, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0], &good[..]), // TSO was not agreed on
        ([0, 9, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0], &good[..]),
        ([0; 12], &good[..13]),
        ([0; 12], &huge[..]),
        ([0; 12], &[]),
    ] {
        guest.request(1, &[Part::Out(&header), Part::Out(frame)]);
    }
    guest.request(1, &[Part::Out(&[0; 11])]);
    guest.request(1, &[Part::In(100)]);
    assert!(wire.sent.lock().is_empty() && !guest.needs_reset());
}

#[test]
fn a_frame_fills_several_buffers_when_they_merge() {
    let (mut guest, wire, card) = ready(spec::F_MRG_RXBUF | 1 << 29);
    let sent: Vec<_> = (0..4).map(|_| guest.put(0, &[Part::In(1000)])).collect();
    guest.notify(0);
    let big = frame(OWN, 2500);
    assert!(card.receive(&big, Offload::default()));
    let lengths: Vec<_> = (0..3).map(|_| guest.wait(0).1).collect();
    assert_eq!(lengths, [1000, 1000, 512]);
    let all: Vec<u8> = sent[..3].iter().flat_map(|sent| guest.answer(sent)).collect();
    assert_eq!(all[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert_eq!(all[12..2512], big);

    // One buffer is left: too little, until there are others. Nothing is lost meanwhile.
    let rooms = wire.rooms.load(Ordering::Relaxed);
    assert!(!card.receive(&big, Offload::default()));
    (0..2).for_each(|_| _ = guest.put(0, &[Part::In(1000)]));
    guest.notify(0);
    assert_eq!(wire.rooms.load(Ordering::Relaxed), rooms + 1);
    assert!(card.receive(&big, Offload::default()));
    assert_eq!((guest.wait(0).1, guest.wait(0).1, guest.wait(0).1), (1000, 1000, 512));
}

#[test]
fn without_merging_a_frame_that_does_not_fit_is_lost() {
    let (mut guest, _, card) = ready(0);
    let sent = guest.put(0, &[Part::In(12), Part::In(1514)]);
    assert!(card.receive(&frame(OWN, 1515), Offload::default()));
    assert_eq!(guest.take(0), None);
    let fits = frame(OWN, 1514);
    assert!(card.receive(&fits, Offload::default()));
    assert_eq!(guest.wait(0), (0, 1526));
    assert_eq!(guest.answer(&sent)[12..], fits);
    assert_eq!(guest.answer(&sent)[10..12], [1, 0], "one buffer");
}

#[test]
fn what_is_left_to_the_guest_stands_in_the_header() {
    let (mut guest, _, card) = ready(OFFLOADS | spec::F_MRG_RXBUF);
    let offload = Offload {
        needs_checksum: true,
        checksum_start: 34,
        checksum_offset: 16,
        segmentation: Some(Segmentation::TcpV6),
        segment_bytes: 1400,
        header_bytes: 74,
        checksum_valid: false,
    };
    let sent = guest.put(0, &[Part::In(2000)]);
    assert!(card.receive(&frame(OWN, 1500), offload));
    guest.wait(0);
    assert_eq!(guest.answer(&sent)[..12], [1, 4, 74, 0, 0x78, 5, 34, 0, 16, 0, 1, 0]);

    let valid = Offload { checksum_valid: true, ..Offload::default() };
    let sent = guest.put(0, &[Part::In(2000)]);
    assert!(card.receive(&frame(OWN, 1500), valid));
    guest.wait(0);
    assert_eq!(guest.answer(&sent)[0], spec::HDR_DATA_VALID);
}

#[test]
fn the_guest_chooses_what_it_receives() {
    let control = spec::F_CTRL_VQ | spec::F_CTRL_RX | spec::F_CTRL_MAC_ADDR | OFFLOADS;
    let (mut guest, wire, card) = ready(control | spec::F_CTRL_GUEST_OFFLOADS);
    let order = |guest: &mut Guest, bytes: &[u8]| {
        guest.request(2, &[Part::Out(&bytes[..2]), Part::Out(&bytes[2..]), Part::In(1)]).0[0]
    };
    (0..20).for_each(|_| _ = guest.put(0, &[Part::In(2000)]));
    let other = frame([2, 9, 9, 9, 9, 9], 60);
    let seen = |guest: &mut Guest, frame: &[u8]| {
        assert!(card.receive(frame, Offload::default()));
        guest.take(0).is_some()
    };
    assert!(seen(&mut guest, &other), "promiscuous after power-on");
    assert_eq!(order(&mut guest, &[0, 0, 0]), 0);
    assert!(!seen(&mut guest, &other) && seen(&mut guest, &frame(OWN, 60)));
    let table = [&[1, 0, 1, 0, 0, 0][..], &other[..6], &[0; 4]].concat();
    assert_eq!(order(&mut guest, &table), 0);
    assert!(seen(&mut guest, &other));
    assert_eq!(order(&mut guest, &[1, 1, 2, 7, 7, 7, 7, 7]), 0);
    assert!(seen(&mut guest, &frame([2, 7, 7, 7, 7, 7], 60)));
    assert_eq!(guest.read(0x100), 0x0707_0702);
    for bad in [&[0, 9, 0][..], &[0, 0], &[1, 0, 255, 255, 255, 255], &[2, 0, 0, 0], &[4, 0, 2, 0]]
    {
        assert_eq!(order(&mut guest, bad), 1, "{bad:?}");
    }
    assert_eq!(order(&mut guest, &[&[5, 0][..], &spec::F_GUEST_CSUM.to_le_bytes()].concat()), 0);
    let granted = *wire.granted.lock();
    assert!(granted.gives_checksum && !granted.gives_tso4 && granted.takes_tso4);
    assert_eq!(order(&mut guest, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 1]), 1, "not agreed on");
    guest.write(0x70, 0);
    assert_eq!(*wire.granted.lock(), Capabilities::default());
    assert_eq!(card.filter().address, OWN);
}

#[test]
fn a_change_of_the_filter_is_told_once_until_it_is_asked() {
    #[derive(Default)]
    struct Told(AtomicUsize);
    impl EventSink for Told {
        fn event(&self, _id: &str, event: DeviceEvent) {
            assert_eq!(event, DeviceEvent::ReceiveFilterChanged);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let told = Arc::new(Told::default());
    let wire = Arc::new(Wire::default());
    let card = Net::new(NetConfig { events: Arc::clone(&told) as _, ..config(&wire) });
    let mut guest = Guest::ready(Arc::clone(&card) as _, spec::F_CTRL_VQ | spec::F_CTRL_RX);
    for (on, count) in [(0, 1), (1, 1), (1, 1)] {
        guest.request(2, &[Part::Out(&[0, 0, on]), Part::In(1)]);
        assert_eq!(told.0.load(Ordering::Relaxed), count);
    }
    _ = card.filter();
    guest.request(2, &[Part::Out(&[0, 0, 0]), Part::In(1)]);
    assert_eq!(told.0.load(Ordering::Relaxed), 2);
}

#[test]
fn the_link_is_the_cable_and_the_far_end() {
    let (guest, _, card) = ready(spec::F_STATUS);
    assert_eq!((guest.read(0x100), guest.mmio_read_half(0x104)), (2, 0x100), "its address");
    let link = || guest.mmio_read_half(0x106);
    assert_eq!((link(), guest.mmio_read_half(0x10a)), (1, 1400));
    card.set_plugged(false);
    assert_eq!((link(), guest.read(0x60)), (0, 2));
    assert!(card.receive(&frame(OWN, 60), Offload::default()), "taken, and lost");
    card.set_link(false);
    card.set_plugged(true);
    assert_eq!(link(), 0);
    card.set_link(true);
    assert_eq!(link(), 1);
}

#[test]
fn a_paused_card_asks_to_wait() {
    let (mut guest, wire, card) = ready(0);
    guest.put(0, &[Part::In(2000)]);
    card.set_running(false);
    assert!(!card.receive(&frame(OWN, 60), Offload::default()));
    assert_eq!(guest.take(0), None);
    let rooms = wire.rooms.load(Ordering::Relaxed);
    card.set_running(true);
    assert_eq!(wire.rooms.load(Ordering::Relaxed), rooms + 1);
    assert!(card.receive(&frame(OWN, 60), Offload::default()));
    assert_eq!(guest.take(0), Some((0, 72)));
}

#[test]
fn several_pairs_share_the_flows() {
    let wire = Arc::new(Wire::default());
    let card = Net::new(NetConfig { pairs: 4, ..config(&wire) });
    let features = spec::F_MQ | spec::F_CTRL_VQ;
    let mut guest = Guest::ready(Arc::clone(&card) as _, features);
    assert_eq!(guest.rings.len(), 9);
    assert_eq!(guest.request(8, &[Part::Out(&[4, 0, 4, 0]), Part::In(1)]).0, [0]);
    for pair in 0..4 {
        (0..60).for_each(|_| _ = guest.put(pair * 2, &[Part::In(200)]));
    }
    for seed in 0..50 {
        let mut frame = frame(OWN, 60);
        frame[30] = seed;
        assert!(card.receive(&frame, Offload::default()));
    }
    let used: Vec<usize> =
        (0..4).map(|pair| std::iter::from_fn(|| guest.take(pair * 2)).count()).collect();
    assert!(used.iter().sum::<usize>() == 50 && used.iter().all(|count| *count > 5), "{used:?}");
    guest.request(7, &[Part::Out(&[0; 12]), Part::Out(&frame([9; 6], 60))]);
    assert_eq!(wire.sent.lock().len(), 1);
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..6 {
        let wire = Arc::new(Wire { echoes: true, ..Wire::default() });
        let card = Net::new(NetConfig { pairs: 2, ..config(&wire) });
        let features = OFFLOADS | spec::F_CTRL_VQ | spec::F_CTRL_RX | spec::F_MRG_RXBUF | 3 << 28;
        hostile(Arc::clone(&card) as _, features, 2000, seed);
    }
}
