//! Hostile bytes in every codec: right messages with some bytes changed, cut or repeated.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use net::dhcp::{self, message, options, v6};
use net::dns::{self, Forwarder, name, resolv};
use net::packet::icmp::Echo;
use net::packet::tcp::Segment;
use net::packet::udp::Datagram;
use net::packet::{Mac, arp, ip, ipv4, ipv6};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

/// `rounds` spoilt copies of each of the messages.
fn spoil(messages: &[Vec<u8>], rounds: usize, mut judge: impl FnMut(&[u8])) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        for message in messages {
            let mut bytes = message.clone();
            for _ in 0..random.below(6) {
                let at = random.below(bytes.len());
                bytes[at] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff, 0x11][random.below(9)];
            }
            match random.below(4) {
                0 => bytes.truncate(random.below(bytes.len() + 1)),
                1 => {
                    let from = random.below(bytes.len());
                    bytes.extend_from_within(from..);
                }
                _ => {}
            }
            judge(&bytes);
        }
    }
}

#[test]
fn dhcp_survives_and_never_leaves_its_range() {
    let discover = message::Message {
        is_reply: false,
        exchange: 7,
        broadcast: false,
        client: Ipv4Addr::UNSPECIFIED,
        yours: Ipv4Addr::UNSPECIFIED,
        next_server: Ipv4Addr::UNSPECIFIED,
        relay: Ipv4Addr::UNSPECIFIED,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        file: b"file".to_vec(),
        options: vec![
            (options::KIND, vec![1]),
            (options::REQUESTED, vec![10, 0, 2, 16]),
            (options::HOST_NAME, b"name".to_vec()),
            (options::CLIENT, vec![1, 2, 3]),
        ],
    };
    let mut request = discover.clone();
    request.options[0].1 = vec![3];
    let (first, last) = (Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 30));
    let settings = dhcp::Settings {
        server: Ipv4Addr::new(10, 0, 2, 2),
        mask: Ipv4Addr::new(255, 255, 255, 0),
        range: Some((first, last)),
        lease: Some(Duration::from_secs(60)),
        router: None,
        dns: Vec::new(),
        host_name: None,
        domain: None,
        search: Vec::new(),
        mtu: None,
        boot_file: None,
        next_server: None,
        tftp_name: None,
        hosts: Vec::new(),
    };
    let mut server = dhcp::Server::new(settings, []);
    let (mut now, mut answered) = (Duration::ZERO, 0);
    spoil(&[discover.bytes(), request.bytes()], 5000, |bytes| {
        now += Duration::from_millis(300);
        let Some(message) = dhcp::Message::read(bytes) else { return };
        let Some(reply) = server.answer(&message, now) else { return };
        answered += 1;
        let yours = reply.yours;
        assert!(yours.is_unspecified() || (first..=last).contains(&yours), "{yours}");
        assert!(dhcp::Message::read(&reply.bytes()).is_some());
        assert!(server.leases(now).count() <= 16);
    });
    assert!(answered > 1000, "{answered}");
    let request = vec![11, 1, 2, 3, 0, 1, 0, 4, 0, 3, 0, 1, 0, 6, 0, 2, 0, 23];
    spoil(&[request], 5000, |bytes| {
        let _ = v6::answer(&v6::Settings::default(), bytes);
    });
}

#[test]
fn dns_survives() {
    let question = dns::message::query(7, "some.long.name.example", dns::message::AAAA).unwrap();
    let query = dns::Message::read(&question).unwrap();
    let record = dns::message::Record::address("a.example", Ipv4Addr::LOCALHOST.into(), 1);
    let answer = query.answer(0, &[record], 512);
    let server: SocketAddr = "192.0.2.1:53".parse().unwrap();
    let mut forwarder = Forwarder::new(vec![server]);
    let mut now = Instant::now();
    spoil(&[question, answer], 5000, |bytes| {
        now += Duration::from_millis(100);
        let _ = name::read(bytes, 12);
        forwarder.question(bytes.len(), bytes, now);
        forwarder.reply(bytes.len(), server, bytes, now);
        forwarder.tick(now);
        let _ = resolv::servers(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn packets_survive() {
    let tcp = {
        let mut bytes = vec![0; 60];
        bytes[12] = 0xf0;
        bytes[13] = 2;
        bytes[20..28].copy_from_slice(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
        bytes
    };
    let v4 = ipv4::Header {
        source: Ipv4Addr::new(10, 0, 2, 15),
        destination: Ipv4Addr::new(10, 0, 2, 2),
        protocol: ip::TCP,
        length: tcp.len(),
        fragment: None,
    };
    let (from, to) = ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
    let extended = [&[44, 1][..], &[0; 14], &[6, 0, 0, 9, 1, 2, 3, 4], &tcp].concat();
    let v6 = [&ipv6::header(from, to, 0, extended.len(), 64)[..], &extended].concat();
    let v4 = [&v4.bytes()[..], &tcp].concat();
    spoil(&[v4, v6], 20_000, |bytes| {
        let _ = arp::Message::read(bytes);
        for packet in [ipv4::read(bytes), ipv6::read(bytes)].into_iter().flatten() {
            let _ = Segment::read(&packet, true);
            let _ = Datagram::read(&packet, true);
            let _ = Echo::read(&packet);
        }
    });
}
