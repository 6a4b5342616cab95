//! A scripted guest and a scripted host around the engine: no sockets, no waiting.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::arena::Id;
use super::outside::{Failure, Outside, Target, Transfer};
use super::*;
use crate::cable::Segmentation;
use crate::dhcp::{Message, message, options, v6};
use crate::dns;
use crate::packet::tcp::{self, Header, Segment};
use crate::packet::{arp, checksum, icmp, udp};
use crate::user::config::ROUTER_LINK_LOCAL;

const GUEST_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The host: what the engine asked, and what it is to be told.
#[derive(Default)]
struct Script {
    streams: BTreeMap<Id, Stream>,
    targets: Vec<Target>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    refuse: Option<Failure>,
    pings: Vec<Vec<u8>>,
    file: Vec<u8>,
    open: (usize, usize, usize),
}

#[derive(Default)]
struct Stream {
    written: Vec<u8>,
    /// Bytes that are taken before the host is full.
    capacity: usize,
    to_read: VecDeque<u8>,
    ended: bool,
    finished: bool,
    closed: Option<bool>,
}

impl Outside for Script {
    fn tcp_connect(&mut self, flow: Id, to: &Target) -> Result<(), Failure> {
        self.targets.push(to.clone());
        if let Some(failure) = self.refuse {
            return Err(failure);
        }
        let stream = Stream { capacity: usize::MAX, ..Stream::default() };
        self.streams.insert(flow, stream);
        Ok(())
    }

    fn tcp_write(&mut self, flow: Id, bytes: &[u8]) -> Transfer {
        let Some(stream) = self.streams.get_mut(&flow) else { return Transfer::Failed };
        let count = bytes.len().min(stream.capacity);
        stream.capacity -= count;
        stream.written.extend(&bytes[..count]);
        if count == 0 { Transfer::Later } else { Transfer::Bytes(count) }
    }

    fn tcp_read(&mut self, flow: Id, into: &mut [u8]) -> Transfer {
        let Some(stream) = self.streams.get_mut(&flow) else { return Transfer::Failed };
        let count = into.len().min(stream.to_read.len());
        for (to, from) in into.iter_mut().zip(stream.to_read.drain(..count)) {
            *to = from;
        }
        match count {
            0 if stream.ended => Transfer::End,
            0 => Transfer::Later,
            _ => Transfer::Bytes(count),
        }
    }

    fn tcp_finish(&mut self, flow: Id) {
        if let Some(stream) = self.streams.get_mut(&flow) {
            assert!(!stream.finished, "finished twice");
            stream.finished = true;
        }
    }

    fn tcp_close(&mut self, flow: Id, reset: bool) {
        if let Some(stream) = self.streams.get_mut(&flow) {
            assert_eq!(stream.closed, None, "closed twice");
            stream.closed = Some(reset);
        }
    }

    fn udp_open(&mut self, _: Id, _: bool) -> Result<(), Failure> {
        self.open.0 += 1;
        Ok(())
    }

    fn udp_send(&mut self, _: Id, to: SocketAddr, bytes: &[u8]) {
        self.datagrams.push((to, bytes.to_vec()));
    }

    fn udp_send_forward(&mut self, _: u32, to: SocketAddr, bytes: &[u8]) {
        self.datagrams.push((to, bytes.to_vec()));
    }

    fn udp_close(&mut self, _: Id) {
        self.open.0 -= 1;
    }

    fn ping_open(&mut self, _: Id, _: bool) -> bool {
        self.open.1 += 1;
        true
    }

    fn ping_send(&mut self, _: Id, _: SocketAddr, message: &[u8]) {
        self.pings.push(message.to_vec());
    }

    fn ping_close(&mut self, _: Id) {
        self.open.1 -= 1;
    }

    fn file_open(&mut self, _: Id, path: &str) -> Option<u64> {
        self.open.2 += usize::from(path == "/boot");
        (path == "/boot").then_some(self.file.len() as u64)
    }

    fn file_read(&mut self, _: Id, offset: u64, into: &mut [u8]) -> Option<usize> {
        let from = usize::try_from(offset).unwrap();
        into.copy_from_slice(&self.file[from..from + into.len()]);
        Some(into.len())
    }

    fn file_close(&mut self, _: Id) {
        self.open.2 -= 1;
    }

    fn name_servers(&mut self) -> Vec<SocketAddr> {
        vec![SocketAddr::new(SERVER.into(), dns::PORT)]
    }
}

#[derive(Default)]
struct Ring {
    frames: Mutex<VecDeque<(Vec<u8>, Offload)>>,
    full: AtomicBool,
}

impl Card for Ring {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        let full = self.full.load(Ordering::SeqCst);
        if !full {
            self.frames.lock().push_back((frame.to_vec(), offload));
        }
        !full
    }

    fn set_link(&self, _: bool) {}
}

struct World {
    engine: Engine,
    host: Script,
    card: Arc<Ring>,
    now: Instant,
}

fn everything() -> Capabilities {
    Capabilities {
        takes_checksum: true,
        takes_tso4: true,
        takes_tso6: true,
        gives_checksum: true,
        gives_tso4: true,
        gives_tso6: true,
    }
}

impl World {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut engine = Engine::new(config, now);
        let card = Arc::new(Ring::default());
        let weak: Weak<Ring> = Arc::downgrade(&card);
        engine.attach(weak);
        let mut world = Self { engine, host: Script::default(), card, now };
        // Whoever speaks is known.
        let hello = arp::Message {
            is_reply: true,
            sender_mac: GUEST_MAC,
            sender: GUEST,
            target_mac: Mac::default(),
            target: GATEWAY,
        };
        world.frame(ethernet::ARP, &hello.bytes());
        world
    }

    fn frame(&mut self, kind: u16, payload: &[u8]) {
        let header = ethernet::header(self.engine.port.mac, GUEST_MAC, kind);
        let frame = [&header[..], payload].concat();
        self.engine.input(&frame, Offload::default(), &mut self.host, self.now);
    }

    fn packet(&mut self, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) {
        let mut packet = vec![0; ip::header_length(to)];
        ip::write_header(&mut packet, from, to, protocol, payload.len());
        packet.extend(payload);
        self.frame(ip::ethernet_kind(to), &packet);
    }

    fn datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.packet(from.ip(), to.ip(), ip::UDP, &udp::bytes(from, to, payload));
    }

    fn service(&mut self) {
        while self.engine.service(&mut self.host, self.now) {}
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.engine.tick(&mut self.host, self.now);
        self.service();
    }

    fn frames(&self) -> Vec<(Vec<u8>, Offload)> {
        self.card.frames.lock().drain(..).collect()
    }

    /// The payload of the only packet of `protocol` that was sent.
    fn only(&self, protocol: u8) -> Vec<u8> {
        let all: Vec<Vec<u8>> = self.payloads(protocol);
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    fn payloads(&self, protocol: u8) -> Vec<Vec<u8>> {
        let frames = self.frames();
        let read = frames.iter().filter_map(|(bytes, _)| {
            let frame = ethernet::Frame::read(bytes)?;
            let packet = match frame.kind {
                ethernet::IPV4 => ipv4::read(frame.payload)?,
                ethernet::IPV6 => ipv6::read(frame.payload)?,
                _ => return None,
            };
            (packet.protocol == protocol).then(|| packet.payload.to_vec())
        });
        read.collect()
    }
}

/// The guest's end of a connection.
struct Peer {
    port: u16,
    to: SocketAddr,
    next: u32,
    expected: u32,
    window: u16,
}

#[derive(Debug, PartialEq)]
struct Seen {
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    payload: Vec<u8>,
    window: u16,
    offload: Offload,
}

impl Peer {
    fn new(port: u16) -> Self {
        let to = SocketAddr::new(SERVER.into(), 80);
        Self { port, to, next: 1000, expected: 0, window: 0xffff }
    }

    fn send(&mut self, world: &mut World, flags: u8, payload: &[u8]) {
        let header = Header {
            sequence: self.next,
            acknowledgement: self.expected,
            flags,
            window: self.window,
            segment_bytes_max: (flags & tcp::SYN != 0).then_some(1460),
            window_scale: None,
        };
        self.next = self.next.wrapping_add(u32::try_from(payload.len()).unwrap());
        self.next = self.next.wrapping_add(u32::from(flags & (tcp::SYN | tcp::FIN) != 0));
        self.send_header(world, &header, payload);
    }

    fn send_header(&self, world: &mut World, header: &Header, payload: &[u8]) {
        let mut bytes = vec![0; header.length()];
        header.write(&mut bytes, self.port, self.to.port());
        bytes.extend(payload);
        let sum = checksum::pseudo(GUEST.into(), self.to.ip(), ip::TCP, bytes.len());
        let sum = sum.with(&bytes).finish();
        bytes[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
        world.packet(GUEST.into(), self.to.ip(), ip::TCP, &bytes);
        world.service();
    }

    /// What came for this connection; checks the headers of each frame.
    fn seen(&self, world: &World) -> Vec<Seen> {
        let mut all = Vec::new();
        for (bytes, offload) in world.frames() {
            let frame = ethernet::Frame::read(&bytes).unwrap();
            let Some(packet) = ipv4::read(frame.payload).filter(|p| p.protocol == ip::TCP) else {
                continue;
            };
            assert_eq!((frame.destination, frame.source), (GUEST_MAC, world.engine.port.mac));
            let trusted = offload.needs_checksum;
            let segment = Segment::read(&packet, trusted).expect("a right checksum");
            assert_eq!(segment.source, self.to);
            all.push(Seen {
                flags: segment.header.flags,
                sequence: segment.header.sequence,
                acknowledgement: segment.header.acknowledgement,
                payload: segment.payload.to_vec(),
                window: segment.header.window,
                offload,
            });
        }
        all
    }

    /// Opens the connection from the guest's side.
    fn open(&mut self, world: &mut World) -> Id {
        self.send(world, tcp::SYN, &[]);
        assert_eq!(self.seen(world), [], "nothing before the host has answered");
        let id = *world.host.streams.last_key_value().unwrap().0;
        world.engine.tcp_connected(id, Ok(()), &mut world.host, world.now);
        world.service();
        let seen = self.seen(world);
        assert_eq!((seen.len(), seen[0].flags, seen[0].acknowledgement), (1, 0x12, self.next));
        self.expected = seen[0].sequence.wrapping_add(1);
        self.send(world, tcp::ACK, &[]);
        assert_eq!(self.seen(world), []);
        id
    }
}

fn host_says(world: &mut World, id: Id, bytes: &[u8], ended: bool) {
    let stream = world.host.streams.get_mut(&id).unwrap();
    stream.to_read.extend(bytes);
    stream.ended = ended;
    world.engine.tcp_ready(id, true, false, ended, &mut world.host, world.now);
    world.service();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

#[test]
fn connection_opens_talks_and_closes() {
    let mut world = World::new(Config::customary());
    let mut peer = Peer::new(4000);
    let id = peer.open(&mut world);
    peer.send(&mut world, tcp::ACK, b"question");
    let seen = peer.seen(&world);
    assert_eq!((seen.len(), seen[0].flags, seen[0].acknowledgement), (1, tcp::ACK, peer.next));
    assert_eq!(world.host.streams[&id].written, b"question");
    host_says(&mut world, id, b"answer", true);
    let seen = peer.seen(&world);
    let all: Vec<u8> = seen.iter().flat_map(|segment| segment.payload.clone()).collect();
    let finish = seen.last().unwrap();
    assert_eq!((&all[..], finish.flags & tcp::FIN), (&b"answer"[..], tcp::FIN));
    peer.expected = peer.expected.wrapping_add(7);
    peer.send(&mut world, tcp::ACK | tcp::FIN, &[]);
    let seen = peer.seen(&world);
    assert_eq!((seen.len(), seen[0].acknowledgement), (1, peer.next));
    assert!(world.host.streams[&id].finished);
    assert_eq!(world.host.streams[&id].closed, Some(false));
    assert_eq!((world.engine.tcp.flows.count(), world.engine.deadline()), (0, None));
}

#[test]
fn failures_of_the_host_are_told_each_in_its_way() {
    for (failure, reset, unreachable) in [
        (Failure::Refused, true, None),
        (Failure::NoNetwork, false, Some(0)),
        (Failure::NoHost, false, Some(1)),
        (Failure::Prohibited, false, Some(13)),
        (Failure::Silent, false, None),
    ] {
        let mut world = World::new(Config::customary());
        world.host.refuse = Some(failure);
        let mut peer = Peer::new(4000);
        peer.send(&mut world, tcp::SYN, &[]);
        let (mut resets, mut codes) = (0, None);
        for (bytes, _) in world.frames() {
            let frame = ethernet::Frame::read(&bytes).unwrap();
            let packet = ipv4::read(frame.payload).unwrap();
            match packet.protocol {
                ip::TCP => {
                    let segment = Segment::read(&packet, false).unwrap();
                    assert_eq!(segment.header.flags, tcp::RST | tcp::ACK);
                    assert_eq!(segment.header.acknowledgement, peer.next);
                    resets += 1;
                }
                _ => {
                    assert!(icmp::checksum_is_right(&packet));
                    codes = Some(packet.payload[1]);
                }
            }
        }
        assert_eq!((resets == 1, codes), (reset, unreachable), "{failure:?}");
        assert_eq!(world.engine.tcp.flows.count(), 0);
    }
}

#[test]
fn out_of_order_and_repeated_data_arrives_once_in_order() {
    let mut world = World::new(Config::customary());
    let mut peer = Peer::new(4000);
    let id = peer.open(&mut world);
    let data = pattern(3000);
    let start = peer.next;
    for (offset, length) in [(1000, 1000), (0, 600), (0, 1000), (500, 1000), (2500, 500), (0, 3000)]
    {
        peer.next = start + offset;
        let from = offset as usize;
        peer.send(&mut world, tcp::ACK, &data[from..from + length]);
        assert!(!peer.seen(&world).is_empty(), "each is acknowledged");
    }
    assert!(world.host.streams[&id].written == data);
}

#[test]
fn what_came_too_early_counts_once_the_gap_is_filled() {
    let mut world = World::new(Config::customary());
    let mut peer = Peer::new(4000);
    let id = peer.open(&mut world);
    let data = pattern(4000);
    let start = peer.next;
    for (offset, acknowledged) in [(3000, 0), (1000, 0), (2000, 0), (0, 4000)] {
        peer.next = start + offset;
        let from = offset as usize;
        peer.send(&mut world, tcp::ACK, &data[from..from + 1000]);
        let seen = peer.seen(&world);
        assert_eq!(seen.last().unwrap().acknowledgement, start + acknowledged);
    }
    assert!(world.host.streams[&id].written == data);
    assert_eq!(world.engine.kept(), (0, 0));
}

#[test]
fn lost_frames_are_sent_again() {
    for by_duplicates in [true, false] {
        let mut world = World::new(Config::customary());
        let mut peer = Peer::new(4000);
        let id = peer.open(&mut world);
        let data = pattern(20_000);
        host_says(&mut world, id, &data, false);
        let seen = peer.seen(&world);
        assert!(seen.len() >= 13 && seen.iter().all(|segment| segment.payload.len() <= 1460));
        // The first gets lost, the others make the guest repeat what it has.
        if by_duplicates {
            for _ in 0..3 {
                peer.send(&mut world, tcp::ACK, &[]);
            }
        } else {
            peer.send(&mut world, tcp::ACK, b"alive");
            world.frames();
            world.wait(Duration::from_millis(1100));
        }
        let again: Vec<u8> = peer.seen(&world).into_iter().flat_map(|s| s.payload).collect();
        if by_duplicates {
            // Only the first, until the guest says that more is missing.
            assert!(again == data[..1460], "{} bytes", again.len());
            peer.expected = peer.expected.wrapping_add(1460);
            peer.send(&mut world, tcp::ACK, &[]);
            let next: Vec<u8> = peer.seen(&world).into_iter().flat_map(|s| s.payload).collect();
            assert!(next == data[1460..2920], "{} bytes", next.len());
            peer.expected = peer.expected.wrapping_sub(1460);
        } else {
            assert!(again == data, "{} bytes", again.len());
        }
        peer.expected = peer.expected.wrapping_add(20_000);
        peer.send(&mut world, tcp::ACK, &[]);
        assert_eq!(world.engine.kept(), (0, 0));
    }
}

#[test]
fn silent_guest_is_given_up_but_a_paused_one_is_not() {
    for (speaks, kept) in [(true, false), (false, true)] {
        let mut world = World::new(Config::customary());
        let mut peer = Peer::new(4000);
        let id = peer.open(&mut world);
        host_says(&mut world, id, b"data", false);
        for _ in 0..600 {
            world.wait(Duration::from_secs(1));
            if speaks {
                let own = SocketAddr::new(GUEST.into(), 9);
                world.datagram(own, SocketAddr::new(GATEWAY.into(), 9), b"x");
            }
        }
        assert_eq!(world.engine.tcp.flows.get(id).is_some(), kept, "speaks: {speaks}");
        assert_eq!(world.host.streams[&id].closed.is_none(), kept);
    }
}

#[test]
fn large_segments_go_out_when_the_guest_takes_them() {
    let mut world = World::new(Config::customary());
    world.engine.set_granted(everything());
    let mut peer = Peer::new(4000);
    let id = peer.open(&mut world);
    let data = pattern(62_000);
    host_says(&mut world, id, &data, false);
    let seen = peer.seen(&world);
    let largest = seen.iter().max_by_key(|segment| segment.payload.len()).unwrap();
    assert!(largest.payload.len() > 60_000 && seen.len() == 1, "{}", seen.len());
    let offload = largest.offload;
    assert_eq!(offload.segmentation, Some(Segmentation::TcpV4));
    assert_eq!((offload.segment_bytes, offload.header_bytes), (1460, 54));
    assert_eq!((offload.checksum_start, offload.checksum_offset), (34, 16));
    let all: Vec<u8> = seen.into_iter().flat_map(|segment| segment.payload).collect();
    assert!(all == data);
}

#[test]
fn windows_hold_back_on_both_sides() {
    let mut world = World::new(Config::customary());
    let mut peer = Peer::new(4000);
    peer.window = 5000;
    let id = peer.open(&mut world);
    host_says(&mut world, id, &pattern(100_000), false);
    let sent: usize = peer.seen(&world).iter().map(|segment| segment.payload.len()).sum();
    assert!((2500..=5000).contains(&sent), "{sent}");
    assert!(world.host.streams[&id].to_read.len() >= 95_000, "the rest stays with the host");
    // A closed window is asked about, for as long as the guest lives.
    peer.window = 0;
    peer.expected = peer.expected.wrapping_add(u32::try_from(sent).unwrap());
    peer.send(&mut world, tcp::ACK, &[]);
    for _ in 0..50 {
        world.wait(Duration::from_secs(5));
        for probe in peer.seen(&world) {
            assert_eq!(probe.sequence, peer.expected.wrapping_sub(1));
            peer.send(&mut world, tcp::ACK, &[]);
        }
    }
    peer.window = 0xffff;
    peer.send(&mut world, tcp::ACK, &[]);
    assert!(!peer.seen(&world).is_empty(), "an open window is used");

    // The other way: a host that takes nothing closes the window that the guest is told.
    world.host.streams.get_mut(&id).unwrap().capacity = 0;
    let mut window = 0xffff;
    for _ in 0..2000 {
        if window < 1000 {
            break;
        }
        peer.send(&mut world, tcp::ACK, &[7; 1000]);
        window = peer.seen(&world).last().map_or(window, |segment| segment.window);
    }
    let (_, stored) = world.engine.kept();
    assert!(window < 1000 && stored <= super::tcp::flow::RECEIVE_MAX, "{window} {stored}");
    world.host.streams.get_mut(&id).unwrap().capacity = usize::MAX;
    world.engine.tcp_ready(id, false, true, false, &mut world.host, world.now);
    world.service();
    assert_eq!(peer.seen(&world).last().unwrap().window, 0xffff, "the window opens again");
    assert_eq!(world.engine.kept().1, 0);
}

#[test]
fn card_without_room_gets_everything_later() {
    let mut world = World::new(Config::customary());
    let mut peer = Peer::new(4000);
    let id = peer.open(&mut world);
    world.card.full.store(true, Ordering::SeqCst);
    host_says(&mut world, id, &pattern(4000), true);
    let own = SocketAddr::new(GUEST.into(), 9);
    world.datagram(own, SocketAddr::new(GATEWAY.into(), 0), b"x");
    assert_eq!(world.frames(), []);
    world.card.full.store(false, Ordering::SeqCst);
    world.engine.room();
    world.service();
    let all: Vec<u8> = peer.seen(&world).into_iter().flat_map(|s| s.payload).collect();
    assert!(all == pattern(4000));
}

#[test]
fn stray_segments_are_reset_and_resets_are_not() {
    let mut world = World::new(Config::customary());
    let mut peer = Peer::new(4000);
    for (flags, expected) in [
        (tcp::ACK, Some(tcp::RST)),
        (tcp::FIN, Some(tcp::RST | tcp::ACK)),
        (tcp::SYN | tcp::ACK, Some(tcp::RST)),
        (tcp::RST, None),
        (tcp::RST | tcp::ACK, None),
    ] {
        peer.send(&mut world, flags, b"x");
        let seen = peer.seen(&world);
        assert_eq!(seen.first().map(|segment| segment.flags), expected, "{flags:#x}");
    }
    // A reset out of the window does not break a connection, one within does.
    let id = peer.open(&mut world);
    let header = |sequence| Header {
        sequence,
        acknowledgement: 0,
        flags: tcp::RST,
        window: 0,
        segment_bytes_max: None,
        window_scale: None,
    };
    peer.send_header(&mut world, &header(peer.next.wrapping_sub(5)), &[]);
    assert!(world.engine.tcp.flows.get(id).is_some());
    peer.send_header(&mut world, &header(peer.next), &[]);
    assert_eq!(world.host.streams[&id].closed, Some(true));
}

#[test]
fn connection_from_the_host_finds_the_guest_by_arp() {
    let now = Instant::now();
    let mut engine = Engine::new(Config::customary(), now);
    let card = Arc::new(Ring::default());
    let weak: Weak<Ring> = Arc::downgrade(&card);
    engine.attach(weak);
    let mut world = World { engine, host: Script::default(), card, now };
    let guest = SocketAddr::new(GUEST.into(), 22);
    let peer_address: SocketAddr = "127.0.0.1:5555".parse().unwrap();
    let id = world.engine.tcp_incoming(guest, Some(peer_address), now).unwrap();
    world.host.streams.insert(id, Stream { capacity: usize::MAX, ..Stream::default() });
    world.service();
    let frames = world.frames();
    let question = arp::Message::read(&frames[0].0[ethernet::HEADER..]).unwrap();
    assert_eq!((frames.len(), question.target, question.is_reply), (1, GUEST, false));
    let answer = arp::Message {
        is_reply: true,
        sender_mac: GUEST_MAC,
        sender: GUEST,
        target_mac: world.engine.port.mac,
        target: GATEWAY,
    };
    world.frame(ethernet::ARP, &answer.bytes());
    world.service();
    let mut peer = Peer::new(22);
    peer.to = SocketAddr::new(GATEWAY.into(), 5555);
    let seen = peer.seen(&world);
    assert_eq!((seen.len(), seen[0].flags), (1, tcp::SYN));
    peer.expected = seen[0].sequence.wrapping_add(1);
    peer.send(&mut world, tcp::SYN | tcp::ACK, &[]);
    assert_eq!(peer.seen(&world)[0].flags, tcp::ACK);
    host_says(&mut world, id, b"hello", false);
    assert_eq!(peer.seen(&world)[0].payload, b"hello");
    // A second one from the same port gets another.
    let second = world.engine.tcp_incoming(guest, Some(peer_address), now).unwrap();
    assert_ne!(world.engine.tcp.flows.get(second).unwrap().remote, peer.to);
}

#[test]
fn dhcp_is_answered_by_broadcast() {
    let config = Config { host_name: Some("vm".into()), ..Config::customary() };
    let mut world = World::new(config);
    let discover = Message {
        is_reply: false,
        exchange: 9,
        broadcast: false,
        client: Ipv4Addr::UNSPECIFIED,
        yours: Ipv4Addr::UNSPECIFIED,
        next_server: Ipv4Addr::UNSPECIFIED,
        relay: Ipv4Addr::UNSPECIFIED,
        mac: GUEST_MAC,
        file: Vec::new(),
        options: vec![(options::KIND, vec![message::kind_number(dhcp::Kind::Discover)])],
    };
    world.datagram(
        "0.0.0.0:68".parse().unwrap(),
        "255.255.255.255:67".parse().unwrap(),
        &discover.bytes(),
    );
    let reply = Message::read(&world.only(ip::UDP)[udp::HEADER..]).unwrap();
    assert_eq!((reply.yours, reply.exchange), (GUEST, 9));
    assert_eq!(reply.option(options::HOST_NAME), Some(&b"vm"[..]));
}

#[test]
fn questions_go_to_the_hosts_name_server() {
    let mut world = World::new(Config::customary());
    let own = SocketAddr::new(GUEST.into(), 3333);
    let question = dns::message::query(1, "a.example", dns::message::A).unwrap();
    world.datagram(own, "10.0.2.3:53".parse().unwrap(), &question);
    let server = SocketAddr::new(SERVER.into(), 53);
    assert_eq!(world.host.datagrams, [(server, question.clone())]);
    let id = world.engine.udp.flows.iter().next().unwrap().0;
    let answer = dns::Message::read(&question).unwrap().answer(0, &[], 512);
    world.engine.udp_received(id, server, &answer, &mut world.host, world.now);
    assert_eq!(world.only(ip::UDP)[udp::HEADER..], answer);
    world.wait(Duration::from_secs(30));
    assert_eq!((world.engine.udp.flows.count(), world.host.open.0), (0, 0));
}

#[test]
fn large_datagrams_pass_in_parts() {
    let mut world = World::new(Config::customary());
    let (own, to) = (SocketAddr::new(GUEST.into(), 3333), SocketAddr::new(SERVER.into(), 4444));
    let payload = pattern(5000);
    let whole = udp::bytes(own, to, &payload);
    for (number, piece) in whole.chunks(1480).enumerate() {
        let offset = number * 1480;
        let more = offset + piece.len() < whole.len();
        let part = ip::Fragment { identification: 3, offset, more };
        let header = ipv4::Header {
            source: GUEST,
            destination: SERVER,
            protocol: ip::UDP,
            length: piece.len(),
            fragment: Some(part),
        };
        world.frame(ethernet::IPV4, &[&header.bytes()[..], piece].concat());
    }
    assert_eq!(world.host.datagrams, [(to, payload.clone())]);
    let id = world.engine.udp.flows.iter().next().unwrap().0;
    world.engine.udp_received(id, to, &payload, &mut world.host, world.now);
    let parts = world.payloads(ip::UDP);
    assert_eq!(parts.len(), 4);
    assert!(parts.concat()[udp::HEADER..] == payload);
}

#[test]
fn pings_go_out_by_the_host_and_come_back_under_the_guests_number() {
    let mut world = World::new(Config::customary());
    let echo = icmp::Echo { is_reply: false, identifier: 7, sequence: 1, payload: b"abc" };
    let bytes = echo.bytes(GUEST.into(), SERVER.into());
    world.packet(GUEST.into(), SERVER.into(), ip::ICMP, &bytes);
    assert_eq!(world.host.pings, [bytes]);
    let id = world.engine.echoes_first();
    let mut reply = icmp::Echo { is_reply: true, ..echo };
    reply.identifier = 999;
    let bytes = reply.bytes(SERVER.into(), GUEST.into());
    let server = SocketAddr::new(SERVER.into(), 0);
    world.engine.ping_received(id, server, &bytes, world.now);
    let reply = icmp::Echo { is_reply: true, ..echo };
    assert_eq!(world.only(ip::ICMP), reply.bytes(SERVER.into(), GUEST.into()));
    world.wait(Duration::from_secs(60));
    assert_eq!(world.host.open.1, 0);
}

#[test]
fn ipv6_guest_is_told_of_the_router_and_answered() {
    let config = Config { search: vec!["example.org".into()], ..Config::customary() };
    let mut world = World::new(config);
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x15);
    let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let mut solicitation = vec![133, 0, 0, 0, 0, 0, 0, 0];
    icmp::finish(&mut solicitation, own.into(), routers.into());
    world.packet(own.into(), routers.into(), ip::ICMPV6, &solicitation);
    let advertisement = world.only(ip::ICMPV6);
    assert_eq!((advertisement[0], advertisement[5], advertisement[16]), (134, 0x40, 1));
    let prefix: Vec<u8> = [&[3, 4, 64, 0xc0][..], &86_400_u32.to_be_bytes()].concat();
    assert!(advertisement.windows(8).any(|eight| eight == prefix));
    assert!(advertisement.windows(8).any(|eight| eight == b"\x07example"));

    let host = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
    let mut solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &host.octets()].concat();
    icmp::finish(&mut solicitation, own.into(), host.into());
    world.packet(own.into(), host.into(), ip::ICMPV6, &solicitation);
    let answer = world.only(ip::ICMPV6);
    assert_eq!((answer[0], &answer[8..24]), (136, &host.octets()[..]));
    assert_eq!(answer[26..], world.engine.port.mac.0);

    let request = [11, 1, 2, 3];
    world.datagram(
        SocketAddr::new(own.into(), v6::CLIENT_PORT),
        SocketAddr::new(v6::ALL_SERVERS.into(), v6::SERVER_PORT),
        &request,
    );
    let reply = world.only(ip::UDP);
    assert_eq!(reply[udp::HEADER..udp::HEADER + 4], [7, 1, 2, 3]);
    assert!(world.engine.config.is_gateway(ROUTER_LINK_LOCAL.into()));
}

#[test]
fn files_are_served_block_by_block() {
    let config = Config { tftp_root: Some("/served".into()), ..Config::customary() };
    let mut world = World::new(config);
    world.host.file = pattern(2048);
    let own = SocketAddr::new(GUEST.into(), 1069);
    let server = SocketAddr::new(GATEWAY.into(), 69);
    let ask = |world: &mut World, bytes: &[u8]| {
        world.datagram(own, server, bytes);
        world.payloads(ip::UDP).concat().get(udp::HEADER..).unwrap_or_default().to_vec()
    };
    let absent = ask(&mut world, b"\0\x01/absent\0octet\0");
    assert_eq!(absent[..4], [0, 5, 0, 1]);
    assert_eq!(ask(&mut world, b"\0\x02/boot\0octet\0")[..4], [0, 5, 0, 2]);
    let options = ask(&mut world, b"\0\x01/boot\0octet\0tsize\x000\0blksize\x001024\0");
    assert_eq!(options, b"\0\x06blksize\x001024\0tsize\x002048\0");
    let mut file: Vec<u8> = Vec::new();
    for number in 0..3 {
        let block = ask(&mut world, &[0, 4, 0, number]);
        assert_eq!(block[..4], [0, 3, 0, number + 1]);
        file.extend(&block[4..]);
        let again = ask(&mut world, &[0, 4, 0, number]);
        assert_eq!(again, block, "what is asked for again is sent again");
    }
    assert!(file == world.host.file);
    assert!(ask(&mut world, &[0, 4, 0, 3]).is_empty());
    assert_eq!(world.host.open.2, 0, "closed after the last block");
}

/// Small and repeatable: what a hostile guest sends is chosen by this.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.next() & 0xff).unwrap()).collect()
    }
}

/// Frames that are right in parts, so that they get far, and wrong in others.
fn hostile_frame(random: &mut Random, mac: Mac) -> Vec<u8> {
    let v6 = random.below(4) == 0;
    let address = |random: &mut Random| -> IpAddr {
        match (v6, random.below(6)) {
            (false, 0) => GUEST.into(),
            (false, 1) => GATEWAY.into(),
            (false, 2) => Ipv4Addr::new(10, 0, 2, 3).into(),
            (false, 3) => Ipv4Addr::UNSPECIFIED.into(),
            (false, 4) => SERVER.into(),
            (false, _) => Ipv4Addr::from_bits(random.next() as u32).into(),
            (true, 0) => ROUTER_LINK_LOCAL.into(),
            (true, 1) => Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3).into(),
            (true, 2) => Ipv6Addr::UNSPECIFIED.into(),
            (true, 3) => v6::ALL_SERVERS.into(),
            (true, _) => Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0x15).into(),
        }
    };
    let (from, to) = (address(random), address(random));
    let ports = [53, 67, 68, 69, 80, 546, 547, 4000, 0];
    let (a, b) = (ports[random.below(9)], ports[random.below(9)]);
    let most = if random.below(9) == 0 { 3000 } else { 80 };
    let length = random.below(most);
    let payload = random.bytes(length);
    let (protocol, body) = match random.below(5) {
        0 => (ip::UDP, udp::bytes(SocketAddr::new(from, a), SocketAddr::new(to, b), &payload)),
        1 | 2 => {
            let header = Header {
                sequence: 1000 + random.below(3) as u32,
                acknowledgement: random.next() as u32,
                flags: [2, 16, 17, 18, 4, 24][random.below(6)],
                window: random.next() as u16,
                segment_bytes_max: Some(random.next() as u16),
                window_scale: Some(random.next() as u8),
            };
            let mut bytes = vec![0; header.length()];
            header.write(&mut bytes, 4000 + random.below(2000) as u16, 80);
            bytes.extend(payload);
            let sum = checksum::pseudo(from, to, ip::TCP, bytes.len()).with(&bytes).finish();
            bytes[16..18].copy_from_slice(&sum.to_be_bytes());
            (ip::TCP, bytes)
        }
        3 => {
            let kinds = [8, 0, 128, 133, 134, 135, 136];
            let mut bytes = [&[kinds[random.below(7)], 0, 0, 0][..], &payload].concat();
            icmp::finish(&mut bytes, from, to);
            (if v6 { ip::ICMPV6 } else { ip::ICMP }, bytes)
        }
        _ => (random.next() as u8, payload),
    };
    let mut packet = vec![0; ip::header_length(to)];
    ip::write_header(&mut packet, from, to, protocol, body.len());
    packet.extend(body);
    let kind = if random.below(20) == 0 { ethernet::ARP } else { ip::ethernet_kind(to) };
    let mut frame = [&ethernet::header(mac, GUEST_MAC, kind)[..], &packet].concat();
    for _ in 0..random.below(3) {
        let at = random.below(frame.len());
        frame[at] = random.next() as u8;
    }
    if random.below(8) == 0 {
        frame.truncate(random.below(frame.len()));
    }
    frame
}

/// Whatever a guest sends, the network neither panics nor keeps more than its bounds, and all
/// that was opened for it is closed in the end.
#[test]
fn hostile_frames_do_no_harm() {
    for seed in 1..=4_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let config = Config { tftp_root: Some("/served".into()), ..Config::customary() };
        let mut world = World::new(config);
        world.host.file = pattern(100);
        for round in 0..20_000 {
            let frame = hostile_frame(&mut random, world.engine.port.mac);
            let offload = Offload {
                needs_checksum: random.below(4) == 0,
                segmentation: (random.below(9) == 0).then_some(Segmentation::TcpV4),
                checksum_start: random.next() as u16,
                ..Offload::default()
            };
            world.engine.input(&frame, offload, &mut world.host, world.now);
            let streams: Vec<Id> = world.host.streams.keys().copied().collect();
            if let Some(id) = streams.get(random.below(streams.len() + 1)).copied() {
                match random.below(4) {
                    0 => world.engine.tcp_connected(id, Ok(()), &mut world.host, world.now),
                    1 => host_says(&mut world, id, &[1; 5000], random.below(9) == 0),
                    2 => world.engine.tcp_ready(id, false, true, false, &mut world.host, world.now),
                    _ => {}
                }
            }
            world.host.streams.retain(|_, stream| stream.closed.is_none());
            if round % 16 == 0 {
                world.engine.set_granted(if round % 32 == 0 {
                    everything()
                } else {
                    Capabilities::default()
                });
                world.wait(Duration::from_millis(random.next() % 500));
            }
            world.frames();
            world.host.datagrams.clear();
            world.host.pings.clear();
            world.host.targets.clear();
        }
        for _ in 0..400 {
            world.wait(Duration::from_secs(2));
            world.frames();
        }
        assert_eq!(world.host.open, (0, 0, 0), "seed {seed}");
        let (held, stored) = world.engine.kept();
        assert!(held < 64 << 20 && stored < 64 << 20, "{held} {stored}");
    }
}
