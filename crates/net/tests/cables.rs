//! Back ends other than the user-mode network, with a smoltcp guest on them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod guest;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use guest::Guest;
use net::dump::{Capture, Direction, Dump};
use net::hub::Hub;
use net::socket::{Address, DgramEnds, DgramNet, StreamEnd, StreamNet};
use net::tap::{TapEnd, TapNet};
use net::user::{Config, UserNet};
use net::{Backend, Card, Offload};
use smoltcp::wire::Ipv4Cidr;

/// A card that passes on what it gets.
struct Ears(mpsc::Sender<Vec<u8>>, mpsc::Sender<bool>);

impl Card for Ears {
    fn receive(&self, frame: &[u8], _: Offload) -> bool {
        self.0.send(frame.to_vec()).unwrap();
        true
    }

    fn set_link(&self, up: bool) {
        self.1.send(up).unwrap();
    }
}

type Heard = (Arc<Ears>, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<bool>);

fn listen(backend: &dyn Backend) -> Heard {
    let ((frames, heard), (links, link)) = (mpsc::channel(), mpsc::channel());
    let ears = Arc::new(Ears(frames, links));
    let weak: Weak<Ears> = Arc::downgrade(&ears);
    backend.attach(weak);
    (ears, heard, link)
}

const PATIENCE: Duration = Duration::from_secs(10);

fn scratch(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("net-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(&[7; 300_000]);
        }
    });
    SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), address.port())
}

#[test]
fn stream_frames_have_their_length_before_them() {
    let path = scratch("stream");
    let net = StreamNet::new(StreamEnd::Listen(Address::Unix(path.clone()))).unwrap();
    let (_ears, heard, link) = listen(&*net);
    assert!(!net.link());
    for _ in 0..2 {
        let mut far = UnixStream::connect(&path).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(link.recv_timeout(PATIENCE).unwrap());
        // Cut as badly as a stream can be.
        for piece in [&b"\0\0"[..], b"\0\x03ab", b"c\0\0\0\x02xy\0", b"\0\0\x01z"] {
            far.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        for expected in [&b"abc"[..], b"xy", b"z"] {
            assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), expected);
        }
        net.transmit(b"hello", Offload::default());
        let mut bytes = [0; 9];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0\x05hello");
        // A length beyond any frame: the far end is not spoken to any more.
        far.write_all(&[0xff; 8]).unwrap();
        assert_eq!(far.read(&mut bytes).unwrap_or(0), 0);
        assert!(!link.recv_timeout(PATIENCE).unwrap());
    }
    drop(net);
    assert!(!path.exists(), "the path goes with its socket");
}

#[test]
fn stream_connects_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let end = StreamEnd::Connect(address, Some(Duration::from_millis(20)));
    let net = StreamNet::new(end).unwrap();
    let (_ears, heard, _link) = listen(&*net);
    for number in 0..3 {
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(&[0, 0, 0, 1, number]).unwrap();
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), [number]);
    }
    let closed = Address::Unix("/nonexistent/socket".into());
    let text = StreamNet::new(StreamEnd::Connect(closed, None)).err().unwrap().to_string();
    assert!(text.contains("/nonexistent/socket"), "{text}");
}

#[test]
fn datagrams_carry_frames_by_udp_unix_and_multicast() {
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (a, b) = (free(), free());
    let udp = [DgramEnds::Udp { local: a, remote: b }, DgramEnds::Udp { local: b, remote: a }];
    let (c, d) = (scratch("dgram-a"), scratch("dgram-b"));
    let unix = [
        DgramEnds::Unix { local: c.clone(), remote: d.clone() },
        DgramEnds::Unix { local: d.clone(), remote: c.clone() },
    ];
    let group = SocketAddrV4::new(Ipv4Addr::new(239, 192, 7, 7), free().port());
    let member = || DgramEnds::Multicast { group, interface: Some(Ipv4Addr::LOCALHOST) };
    for (name, [first, second]) in
        [("udp", udp), ("unix", unix), ("multicast", [member(), member()])]
    {
        let (first, second) = (DgramNet::new(first).unwrap(), DgramNet::new(second).unwrap());
        let (_ears, heard, _) = listen(&*first);
        let (_others, others, _) = listen(&*second);
        first.transmit(b"question", Offload::default());
        assert_eq!(others.recv_timeout(PATIENCE).unwrap(), b"question", "{name}");
        second.transmit(b"answer", Offload::default());
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"answer", "{name}: not its own words");
    }
    assert!(!c.exists() && !d.exists(), "the paths go with their sockets");
}

#[test]
fn guest_behind_a_hub_uses_the_user_network_and_is_captured() {
    let target = greeter();
    let hub = Hub::new().unwrap();
    let network: Arc<dyn Backend> = UserNet::new(Config::customary(), &[]).unwrap();
    hub.join(&network);
    let path = scratch("capture");
    let capture = Arc::new(Capture::create(&path, 65_536).unwrap());
    let dump = Dump::new(hub.port());
    dump.add("d", Direction::Both, Arc::clone(&capture));
    let mut guest = Guest::with_address(dump, false);
    let handle = guest.connect(target);
    assert_eq!(guest.exchange(handle, b""), [7; 300_000]);
    drop(guest);
    // Every record is as long as it says, both directions are there.
    let bytes = std::fs::read(&path).unwrap();
    let (mut at, mut from_guest, mut to_guest) = (24, 0, 0);
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let frame = &bytes[at + 16..at + 16 + length];
        from_guest += usize::from(frame[6..12] == guest::MAC);
        to_guest += usize::from(frame[..6] == guest::MAC);
        at += 16 + length;
    }
    assert!(from_guest > 3 && to_guest > 200, "{from_guest} {to_guest}");
    std::fs::remove_file(path).unwrap();
}

/// A process of the test, ended with it.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The reference's own user-mode network, at the far end of a stream: it speaks our framing,
/// and its addresses are those that we give.
#[test]
fn reference_network_is_reached_by_a_stream() {
    let Some(reference) = tests::asset("bin/qemu-system-x86_64") else {
        tests::skip!("no qemu-system-x86_64: cargo xtask fetch");
    };
    let target = greeter();
    for listens in [true, false] {
        let path = scratch("reference");
        let server = if listens { "off" } else { "on" };
        let stream =
            format!("stream,id=s,server={server},addr.type=unix,addr.path={}", path.display());
        let end = Address::Unix(path.clone());
        let listener = listens.then(|| StreamNet::new(StreamEnd::Listen(end.clone())).unwrap());
        let mut command = Command::new(&reference);
        command.args(["-M", "none", "-nodefaults", "-display", "none", "-netdev", "user,id=u"]);
        command.args(["-netdev", &stream, "-netdev", "hubport,id=a,hubid=0,netdev=u"]);
        command.args(["-netdev", "hubport,id=b,hubid=0,netdev=s"]);
        let _running = Running(command.spawn().unwrap());
        let again = Some(Duration::from_millis(50));
        let net =
            listener.unwrap_or_else(|| StreamNet::new(StreamEnd::Connect(end, again)).unwrap());
        let backend: Arc<dyn Backend> = net;
        let mut guest = Guest::new(Arc::clone(&backend), false);
        guest.live("link", |_| backend.link().then_some(()));
        let (address, router, servers) = guest.dhcp();
        assert_eq!(address.address(), Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(router, Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(servers, [Ipv4Addr::new(10, 0, 2, 3)]);
        let handle = guest.connect(target);
        assert_eq!(guest.exchange(handle, b""), [7; 300_000]);
        drop(guest);
        let _ = std::fs::remove_file(path);
    }
}

/// A network namespace of this thread's own, so that nothing is left on the host.
fn own_namespace() -> bool {
    let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok();
    unshared && std::path::Path::new("/dev/net/tun").exists() && ip("link set lo up")
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

fn meets_host(net: Arc<TapNet>, offload: bool) -> usize {
    let listener = TcpListener::bind("192.168.77.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let sender = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[9; 500_000]).unwrap();
    });
    let mut guest = Guest::new(net, offload);
    guest.set_address(Ipv4Cidr::new(Ipv4Addr::new(192, 168, 77, 2), 24));
    let handle = guest.connect(target);
    assert_eq!(guest.exchange(handle, b""), [9; 500_000]);
    sender.join().unwrap();
    guest.card.largest.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn tap_carries_a_guest_with_and_without_offload() {
    if !own_namespace() {
        tests::skip!("no network namespace, no /dev/net/tun or no ip");
    }
    for offload in [false, true] {
        let net = TapNet::new(TapEnd::Name("guest%d".into()), offload, None).unwrap();
        let name = net.name().to_owned();
        assert!(ip(&format!("addr add 192.168.77.1/24 dev {name}")));
        assert!(ip(&format!("link set {name} up")));
        let largest = meets_host(net, offload);
        assert_eq!(largest > 1514, offload, "largest frame {largest}");
    }
}

#[test]
fn tap_is_plugged_into_a_bridge() {
    if !own_namespace() {
        tests::skip!("no network namespace, no /dev/net/tun or no ip");
    }
    if !ip("link add br7 type bridge") {
        tests::skip!("the kernel has no bridges");
    }
    assert!(ip("addr add 192.168.77.1/24 dev br7") && ip("link set br7 up"));
    let text = TapNet::new(TapEnd::Name("guest%d".into()), true, Some("nobridge7"));
    let text = text.err().unwrap().to_string();
    assert!(text.contains("nobridge7"), "{text}");
    let net = TapNet::new(TapEnd::Name("guest%d".into()), true, Some("br7")).unwrap();
    meets_host(net, false);
}
