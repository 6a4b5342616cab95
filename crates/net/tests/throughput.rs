//! How much the user-mode network carries, with a guest that costs nearly nothing.
//!
//! `cargo test --release --package net --test throughput -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use net::packet::tcp::{self, Header, Segment};
use net::packet::{Mac, arp, checksum, ethernet, ip, ipv4};
use net::user::{Config, UserNet};
use net::{Backend, Capabilities, Card, Offload, Segmentation};
use parking_lot::Mutex;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const HOST_MAC: Mac = Mac([0x52, 0x55, 10, 0, 2, 2]);
const PORT: u16 = 40_000;
const SHIFT: u8 = 7;
const TIME: Duration = Duration::from_secs(3);

/// A guest that acknowledges what it gets and forgets it.
struct Sink {
    net: Mutex<Option<Weak<UserNet>>>,
    remote_port: u16,
    own_next: AtomicU32,
    expected: AtomicU32,
    /// What the network has acknowledged, and up to where it takes more.
    acknowledged: AtomicU32,
    allowed: AtomicU32,
    bytes: AtomicU64,
    unacknowledged: AtomicU32,
    open: AtomicBool,
    copy: Mutex<Vec<u8>>,
}

impl Sink {
    fn send(&self, flags: u8, payload: &[u8], offload: bool, segment_bytes: u16) {
        let net = self.net.lock().as_ref().and_then(Weak::upgrade);
        let Some(net) = net else { return };
        let sequence = self.own_next.load(Ordering::SeqCst);
        let starts = flags & tcp::SYN != 0;
        let header = Header {
            sequence,
            acknowledgement: self.expected.load(Ordering::SeqCst),
            flags,
            window: 0xffff,
            segment_bytes_max: starts.then_some(1460),
            window_scale: starts.then_some(SHIFT),
        };
        let start = ethernet::HEADER + ipv4::HEADER;
        let length = header.length() + payload.len();
        let mut frame = vec![0; start + length];
        frame[..14].copy_from_slice(&ethernet::header(HOST_MAC, MAC, ethernet::IPV4));
        let (from, to) = (IpAddr::V4(GUEST), IpAddr::V4(GATEWAY));
        ip::write_header(&mut frame[14..], from, to, ip::TCP, length);
        frame[start + header.length()..].copy_from_slice(payload);
        header.write(&mut frame[start..], PORT, self.remote_port);
        let sum = checksum::pseudo(from, to, ip::TCP, length);
        let sum = if offload { sum.partial() } else { sum.with(&frame[start..]).finish() };
        frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        let cut = payload.len() > usize::from(segment_bytes);
        net.transmit(
            &frame,
            Offload {
                needs_checksum: offload,
                checksum_start: 34,
                checksum_offset: 16,
                segmentation: cut.then_some(Segmentation::TcpV4),
                segment_bytes: if cut { segment_bytes } else { 0 },
                header_bytes: 54,
                checksum_valid: false,
            },
        );
        let count = u32::try_from(payload.len()).unwrap() + u32::from(starts);
        self.own_next.store(sequence.wrapping_add(count), Ordering::SeqCst);
    }
}

impl Card for Sink {
    fn receive(&self, frame: &[u8], _: Offload) -> bool {
        let Some(frame) = ethernet::Frame::read(frame) else { return true };
        let Some(packet) = ipv4::read(frame.payload) else { return true };
        let Some(segment) = Segment::read(&packet, true) else { return true };
        let header = segment.header;
        let window = u32::from(header.window) << if header.flags & tcp::SYN == 0 { 5 } else { 0 };
        self.acknowledged.store(header.acknowledgement, Ordering::SeqCst);
        self.allowed.store(header.acknowledgement.wrapping_add(window), Ordering::SeqCst);
        if header.flags & tcp::SYN != 0 {
            self.expected.store(header.sequence.wrapping_add(1), Ordering::SeqCst);
            self.open.store(true, Ordering::SeqCst);
            self.send(tcp::ACK, &[], true, 1460);
            return true;
        }
        // What a card does: one copy into the guest's memory.
        let mut copy = self.copy.lock();
        copy[..segment.payload.len()].copy_from_slice(segment.payload);
        drop(copy);
        let count = u32::try_from(segment.payload.len()).unwrap();
        self.bytes.fetch_add(count.into(), Ordering::SeqCst);
        self.expected.store(header.sequence.wrapping_add(count), Ordering::SeqCst);
        let due = self.unacknowledged.fetch_add(count, Ordering::SeqCst) + count;
        if due >= 64_000 {
            self.unacknowledged.store(0, Ordering::SeqCst);
            self.send(tcp::ACK, &[], true, 1460);
        }
        true
    }

    fn set_link(&self, _: bool) {}
}

fn plug(remote_port: u16, offload: bool) -> (Arc<UserNet>, Arc<Sink>) {
    let net = UserNet::new(Config::customary(), &[]).unwrap();
    let sink = Arc::new(Sink {
        net: Mutex::new(Some(Arc::downgrade(&net))),
        remote_port,
        own_next: AtomicU32::new(1000),
        expected: AtomicU32::new(0),
        acknowledged: AtomicU32::new(0),
        allowed: AtomicU32::new(0),
        bytes: AtomicU64::new(0),
        unacknowledged: AtomicU32::new(0),
        open: AtomicBool::new(false),
        copy: Mutex::new(vec![0; 1 << 17]),
    });
    let weak: Weak<Sink> = Arc::downgrade(&sink);
    net.attach(weak);
    let granted = if offload { net.capabilities() } else { Capabilities::default() };
    net.set_guest_offload(granted);
    let hello = arp::Message {
        is_reply: true,
        sender_mac: MAC,
        sender: GUEST,
        target_mac: HOST_MAC,
        target: GATEWAY,
    };
    let header = ethernet::header(HOST_MAC, MAC, ethernet::ARP);
    net.transmit(&[&header[..], &hello.bytes()].concat(), Offload::default());
    sink.send(tcp::SYN, &[], false, 1460);
    while !sink.open.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    (net, sink)
}

/// CPU seconds of the network's thread.
fn thread_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let mut ticks = 0.0;
    for task in tasks {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        if stat.contains("(usernet)") {
            let rest = stat.rsplit(") ").next().unwrap_or_default();
            let field = |at: usize| rest.split(' ').nth(at).unwrap().parse::<f64>().unwrap();
            ticks += field(11) + field(12);
        }
    }
    ticks / 100.0
}

fn report(what: &str, bytes: u64, wall: Duration, cpu: f64) {
    let gbits = bytes as f64 * 8.0 / 1e9;
    println!(
        "{what}: {:.2} Gbit/s, {:.2} Gbit per CPU second of the network's thread, {:.2} CPU-s/GB",
        gbits / wall.as_secs_f64(),
        gbits / cpu.max(0.01),
        cpu / (bytes as f64 / 1e9),
    );
}

#[test]
#[ignore = "a figure, not a check"]
fn download() {
    for offload in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let zeros = vec![0; 256 << 10];
            while stream.write_all(&zeros).is_ok() {}
        });
        let (net, sink) = plug(port, offload);
        let (start, before, cpu) =
            (Instant::now(), sink.bytes.load(Ordering::SeqCst), thread_seconds());
        thread::sleep(TIME);
        let bytes = sink.bytes.load(Ordering::SeqCst) - before;
        let name = if offload { "download, offload" } else { "download, MTU 1500" };
        report(name, bytes, start.elapsed(), thread_seconds() - cpu);
        drop(net);
    }
}

#[test]
#[ignore = "a figure, not a check"]
fn upload() {
    for (offload, size) in [(true, 64_240_usize), (false, 1460)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&got);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; 256 << 10];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                counter.fetch_add(count as u64, Ordering::SeqCst);
            }
        });
        let (net, sink) = plug(port, offload);
        let payload = vec![7; size];
        let (start, cpu) = (Instant::now(), thread_seconds());
        while start.elapsed() < TIME {
            let next = sink.own_next.load(Ordering::SeqCst);
            let room = sink.allowed.load(Ordering::SeqCst).wrapping_sub(next).cast_signed();
            if room >= i32::try_from(size).unwrap() {
                sink.send(tcp::ACK, &payload, offload, 1460);
            } else {
                thread::yield_now();
            }
        }
        let name = if offload { "upload, offload" } else { "upload, MTU 1500" };
        let bytes = got.load(Ordering::SeqCst);
        report(name, bytes, start.elapsed(), thread_seconds() - cpu);
        println!("dropped {}", net.dropped());
        drop(net);
    }
}
