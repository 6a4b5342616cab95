//! Linux itself as the guest: a tap interface in a network namespace, plugged into the user-mode
//! network by a crossover cable. The kernel's TCP, its offloads and busybox's clients judge us.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use net::tap::{TapEnd, TapNet};
use net::user::{Config, HostEnd, HostForward, UserNet};
use net::{Backend, Card, Offload};

/// Plugs one back end into another.
struct Crossover(Weak<dyn Backend>);

impl Card for Crossover {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        if let Some(far) = self.0.upgrade() {
            far.transmit(frame, offload);
        }
        true
    }

    fn set_link(&self, _: bool) {}
}

fn cross(near: &Arc<dyn Backend>, far: &Arc<dyn Backend>) -> Arc<Crossover> {
    let card = Arc::new(Crossover(Arc::downgrade(far)));
    let weak: Weak<Crossover> = Arc::downgrade(&card);
    near.attach(weak);
    near.set_guest_offload(far.capabilities().and(near.capabilities()));
    card
}

fn run(line: &str) -> (bool, String) {
    let output = Command::new("/bin/sh").arg("-c").arg(line).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}

#[track_caller]
fn must(line: &str) -> String {
    let (success, text) = run(line);
    assert!(success, "{line}: {text}");
    text
}

/// A guest with the kernel's TCP. All of its commands and sockets are of this thread's own
/// network namespace; the network's sockets are of the host's.
struct Guest {
    _user: Arc<UserNet>,
    tap: Arc<dyn Backend>,
    _cards: (Arc<Crossover>, Arc<Crossover>),
}

fn guest(user: Arc<UserNet>, offload: bool) -> Option<Guest> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
    if !run("ip link set lo up").0 {
        return None;
    }
    let tap = TapNet::new(TapEnd::Name("eth0".into()), offload, None).ok()?;
    let tap: Arc<dyn Backend> = tap;
    let network: Arc<dyn Backend> = Arc::clone(&user) as _;
    let cards = (cross(&tap, &network), cross(&network, &tap));
    must("ip link set eth0 up");
    Some(Guest { _user: user, tap, _cards: cards })
}

fn with_address(user: Arc<UserNet>, offload: bool) -> Option<Guest> {
    let guest = guest(user, offload)?;
    must("ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2");
    Some(guest)
}

fn at_gateway(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), host.port())
}

const NO_GUEST: &str = "no network namespace, no tap interface or no ip";

fn busybox() -> Option<PathBuf> {
    tests::asset("busybox-amd64/bin/busybox")
}

fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

#[test]
fn kernel_moves_bytes_both_ways() {
    let body = pattern(30_000_000);
    let echo = {
        let body = body.clone();
        serve(move |mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert!(all == body, "{} bytes came", all.len());
            stream.write_all(&all).unwrap();
        })
    };
    for offload in [true, false] {
        let user = UserNet::new(Config::customary(), &[]).unwrap();
        let body = body.clone();
        let ran = thread::spawn(move || {
            let Some(_guest) = with_address(user, offload) else { return false };
            let start = Instant::now();
            let mut stream = TcpStream::connect(at_gateway(echo)).unwrap();
            stream.write_all(&body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let up = start.elapsed();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            assert!(back == body, "{} bytes came back", back.len());
            println!("offload {offload}: {up:?} up, {:?} in all", start.elapsed());
            true
        });
        if !ran.join().unwrap() {
            tests::skip!("{NO_GUEST}");
        }
    }
}

/// Both directions at once, many connections at once, ends in any order.
#[test]
fn kernel_opens_thousands_of_connections_at_once() {
    // Three descriptors each: the guest's, the network's, the server's.
    const CONNECTIONS: usize = 2000;
    let limit = net::user::raise_descriptor_limit();
    if limit.is_some_and(|limit| limit < 4 * CONNECTIONS as u64) {
        tests::skip!("only {limit:?} descriptors");
    }
    let address = serve(|mut stream| {
        let mut head = [0; 4];
        let answer = pattern(20_000);
        while stream.read_exact(&mut head).is_ok() {
            stream.write_all(&answer).unwrap();
        }
    });
    let user = UserNet::new(Config::customary(), &[]).unwrap();
    let watched = Arc::clone(&user);
    let ran = thread::spawn(move || {
        let Some(_guest) = with_address(user, true) else { return false };
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(TcpStream::connect(at_gateway(address)).unwrap());
        }
        for _ in 0..3 {
            for stream in &mut open {
                stream.write_all(b"more").unwrap();
            }
            let expected = pattern(20_000);
            let mut answer = vec![0; 20_000];
            for stream in &mut open {
                stream.read_exact(&mut answer).unwrap();
                assert!(answer == expected);
            }
        }
        assert!(watched.connections().len() >= CONNECTIONS);
        drop(open);
        for _ in 0..500 {
            if watched.connections().is_empty() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{:?}", watched.connections());
    });
    if !ran.join().unwrap() {
        tests::skip!("{NO_GUEST}");
    }
}

#[test]
fn kernel_serves_through_a_forwarding() {
    let any = HostEnd::Tcp("127.0.0.1:0".parse().unwrap());
    let guest_end = SocketAddr::new(Ipv4Addr::new(10, 0, 2, 15).into(), 8080);
    let forward = HostForward { from: any, guest: guest_end };
    let user = UserNet::new(Config::customary(), &[forward]).unwrap();
    let HostEnd::Tcp(address) = user.forwards()[0].from.clone() else { panic!() };
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let ran = thread::spawn(move || {
        let Some(_guest) = with_address(user, true) else { return false };
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 3];
        stream.read_exact(&mut head).unwrap();
        stream.write_all(&pattern(5_000_000)).unwrap();
        drop(stream);
        assert!(client.join().unwrap() == pattern(5_000_000));
        true
    });
    if !ran.join().unwrap() {
        tests::skip!("{NO_GUEST}");
    }
}

/// A fake name server for `hostel.test`.
fn name_server() -> SocketAddr {
    use net::dns::{Message, message};
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let query = Message::read(&bytes[..count]).unwrap();
            let question = query.question.clone().unwrap();
            let known = question.name == "hostel.test" && question.kind == message::A;
            let address = Ipv4Addr::new(192, 0, 2, 7).into();
            let record = message::Record::address(&question.name, address, 60);
            let records = if known { vec![record] } else { vec![] };
            socket.send_to(&query.answer(message::NO_ERROR, &records, 512), from).unwrap();
        }
    });
    address
}

#[test]
fn busybox_gets_its_address_a_name_a_file_and_a_pong() {
    let Some(busybox) = busybox() else { tests::skip!("no busybox: cargo xtask fetch") };
    let busybox = busybox.display().to_string();
    let root = tests::scratch("net-tftp");
    std::fs::write(root.join("boot.img"), pattern(100_000)).unwrap();
    let config = Config {
        host_name: Some("vm7".into()),
        domain: Some("example.org".into()),
        search: vec!["a.example".into(), "b.example".into()],
        boot_file: Some("boot.img".into()),
        tftp_root: Some(root.clone()),
        name_servers: vec![name_server()],
        ..Config::customary()
    };
    let user = UserNet::new(config, &[]).unwrap();
    let ran = thread::spawn(move || {
        let Some(_guest) = guest(user, true) else { return false };
        let script = root.join("udhcpc.sh");
        std::fs::write(&script, "#!/bin/sh\nenv\n").unwrap();
        must(&format!("chmod +x {}", script.display()));
        let asks = "-O search -O tftp -O bootfile -O hostname -O domain";
        let line = format!("{busybox} udhcpc -i eth0 -n -q -f -t 5 {asks} -s {}", script.display());
        let text = must(&line);
        for expected in [
            "ip=10.0.2.15",
            "subnet=255.255.255.0",
            "router=10.0.2.2",
            "dns=10.0.2.3",
            "hostname=vm7",
            "domain=example.org",
            "search=a.example b.example",
            "boot_file=boot.img",
            "siaddr=10.0.2.2",
            "lease=86400",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}: {text}");
        }
        must("ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2");
        must(&format!("{busybox} ping -c 2 -W 5 10.0.2.2"));
        let text = must(&format!("{busybox} nslookup hostel.test 10.0.2.3"));
        assert!(text.contains("192.0.2.7"), "{text}");
        for size in ["", "-b 1024"] {
            let to = root.join("got");
            must(&format!("{busybox} tftp -g {size} -r boot.img -l {} 10.0.2.2", to.display()));
            assert!(std::fs::read(to).unwrap() == pattern(100_000));
        }
        let (found, _) = run(&format!("{busybox} tftp -g -r ../secret -l /dev/null 10.0.2.2"));
        assert!(!found);
        // Larger than a packet in both directions.
        must(&format!("{busybox} ping -c 1 -W 5 -s 5000 10.0.2.2"));
        true
    });
    if !ran.join().unwrap() {
        tests::skip!("{NO_GUEST}");
    }
}

#[test]
fn kernel_makes_itself_an_ipv6_address_and_uses_it() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { tests::skip!("the host has no IPv6") };
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(&pattern(3_000_000));
        }
    });
    let user = UserNet::new(Config::customary(), &[]).unwrap();
    let ran = thread::spawn(move || {
        let Some(_guest) = guest(user, true) else { return false };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !must("ip -6 addr show dev eth0").contains("fec0::") {
            assert!(Instant::now() < deadline, "{}", must("ip -6 addr show dev eth0"));
            thread::sleep(Duration::from_millis(50));
        }
        while must("ip -6 addr show dev eth0").contains("tentative") {
            assert!(Instant::now() < deadline, "{}", must("ip -6 addr show dev eth0"));
            thread::sleep(Duration::from_millis(50));
        }
        let gateway = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
        let mut stream = TcpStream::connect((gateway, port)).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == pattern(3_000_000));
        assert!(must("ip -6 route").contains("default via fe80::2"));
        true
    });
    if !ran.join().unwrap() {
        tests::skip!("{NO_GUEST}");
    }
}

/// A crossover cable that loses one frame in fifty, and refuses one in seven at first.
struct Bad {
    far: Weak<dyn Backend>,
    near: Weak<dyn Backend>,
    random: std::sync::atomic::AtomicU64,
    refuses: bool,
}

impl Card for Bad {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        use std::sync::atomic::Ordering;
        let mut random = self.random.load(Ordering::SeqCst);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.store(random, Ordering::SeqCst);
        let dice = random >> 20;
        if self.refuses && dice.is_multiple_of(7) {
            let near = self.near.clone();
            thread::spawn(move || {
                if let Some(near) = near.upgrade() {
                    near.room();
                }
            });
            return false;
        }
        if let Some(far) = self.far.upgrade().filter(|_| !dice.is_multiple_of(50)) {
            far.transmit(frame, offload);
        }
        true
    }

    fn set_link(&self, _: bool) {}
}

/// What is lost is sent again, by both sides, and nothing comes twice or in another order.
#[test]
fn kernel_gets_everything_over_a_bad_cable() {
    let body = pattern(3_000_000);
    let expected = body.clone();
    let echo = serve(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == expected, "{} bytes came", all.len());
        stream.write_all(&all).unwrap();
    });
    for offload in [true, false] {
        let user = UserNet::new(Config::customary(), &[]).unwrap();
        let body = body.clone();
        let ran = thread::spawn(move || {
            let Some(guest) = with_address(Arc::clone(&user), offload) else { return false };
            let (tap, network) = (Arc::clone(&guest.tap), user as Arc<dyn Backend>);
            let bad = |far: &Arc<dyn Backend>, near: &Arc<dyn Backend>, refuses| {
                let (far, near) = (Arc::downgrade(far), Arc::downgrade(near));
                Arc::new(Bad { far, near, random: 88_172_645_463_325_252.into(), refuses })
            };
            let cards = (bad(&network, &tap, false), bad(&tap, &network, true));
            let weak: (Weak<Bad>, Weak<Bad>) = (Arc::downgrade(&cards.0), Arc::downgrade(&cards.1));
            tap.attach(weak.0);
            network.attach(weak.1);
            let start = Instant::now();
            let mut stream = TcpStream::connect(at_gateway(echo)).unwrap();
            stream.write_all(&body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            assert!(back == body, "{} bytes came back", back.len());
            println!("offload {offload}: {:?}", start.elapsed());
            true
        });
        if !ran.join().unwrap() {
            tests::skip!("{NO_GUEST}");
        }
    }
}

/// Whom the host reaches beyond its loopback. The network has a host of its own here: another
/// namespace, with an address that only it has, and with the right to ping.
#[test]
fn kernel_reaches_others_than_the_gateway() {
    let ran = thread::spawn(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err()
            || !run("ip link set lo up").0
        {
            return false;
        }
        must("ip addr add 192.0.2.1/32 dev lo && ip -6 addr add 2001:db8::1/128 dev lo nodad");
        let ping = "/proc/sys/net/ipv4/ping_group_range";
        must(&format!("echo 0 2147483647 > {ping}"));
        let echo = UdpSocket::bind("192.0.2.1:0").unwrap();
        let echo_address = echo.local_addr().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while let Ok((count, from)) = echo.recv_from(&mut bytes) {
                echo.send_to(&bytes[..count], from).unwrap();
            }
        });
        let user = UserNet::new(Config::customary(), &[]).unwrap();
        let Some(_guest) = with_address(user, true) else { return false };
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The largest datagram goes in many parts, both ways.
        for length in [1, 1472, 1473, 9000, 65_507] {
            socket.send_to(&pattern(length), echo_address).unwrap();
            let mut bytes = vec![0; 65_536];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            assert!(bytes[..count] == pattern(length), "{length}");
            assert_eq!(from, echo_address, "the true sender is seen");
        }
        // Nobody listens: the host says so, and so do we.
        let error = TcpStream::connect("192.0.2.1:1").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let error = TcpStream::connect("198.51.100.1:1").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
        let Some(busybox) = busybox() else { return true };
        let busybox = busybox.display();
        must(&format!("{busybox} ping -c 2 -W 5 192.0.2.1"));
        must(&format!("{busybox} ping -c 1 -W 5 -s 4000 192.0.2.1"));
        assert!(!run(&format!("{busybox} ping -c 1 -W 1 198.51.100.1")).0);
        must("ip -6 addr add fec0::15/64 dev eth0 nodad");
        must("ip -6 route replace default via fec0::2 dev eth0");
        must(&format!("{busybox} ping -6 -c 1 -W 5 fec0::2"));
        must(&format!("{busybox} ping -6 -c 1 -W 5 2001:db8::1"));
        true
    });
    if !ran.join().unwrap() {
        tests::skip!("{NO_GUEST}");
    }
}

#[test]
fn kernel_makes_a_thousand_short_connections() {
    let address = serve(|mut stream| {
        let mut head = [0; 18];
        if stream.read_exact(&mut head).is_ok() {
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
        }
    });
    let user = UserNet::new(Config::customary(), &[]).unwrap();
    let ran = thread::spawn(move || {
        let Some(_guest) = with_address(user, true) else { return false };
        let start = Instant::now();
        for _ in 0..1000 {
            let mut stream = TcpStream::connect(at_gateway(address)).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("hello"), "{answer}");
        }
        println!("{:.0} connections a second", 1000.0 / start.elapsed().as_secs_f64());
        true
    });
    if !ran.join().unwrap() {
        tests::skip!("{NO_GUEST}");
    }
}

const TIME: Duration = Duration::from_secs(3);

/// Source and sink of bytes.
fn ends() -> (SocketAddr, SocketAddr) {
    let source = serve(|mut stream| {
        let zeros = vec![0; 256 << 10];
        while stream.write_all(&zeros).is_ok() {}
    });
    let sink = serve(|mut stream| {
        let mut bytes = vec![0; 256 << 10];
        while let Ok(1..) = stream.read(&mut bytes) {}
    });
    (source, sink)
}

/// CPU seconds of a task, by the path of its `stat`.
fn task_seconds(stat: &std::path::Path) -> f64 {
    let stat = std::fs::read_to_string(stat).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return 0.0 };
    let field = |at: usize| rest.split(' ').nth(at).unwrap().parse::<f64>().unwrap();
    (field(11) + field(12)) / 100.0
}

/// CPU seconds of our threads with one of these names.
fn thread_seconds(names: &[&str]) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let ours = tasks.filter(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.contains(&name.trim())
    });
    ours.map(|task| task_seconds(&task.path().join("stat"))).sum()
}

fn measure(what: &str, up: bool, target: SocketAddr, cpu: impl Fn() -> f64) {
    let mut stream = TcpStream::connect(at_gateway(target)).unwrap();
    let mut bytes = vec![0; 256 << 10];
    let (start, before, mut count) = (Instant::now(), cpu(), 0_usize);
    while start.elapsed() < TIME {
        count += if up { stream.write(&bytes) } else { stream.read(&mut bytes) }.unwrap();
    }
    let (wall, spent) = (start.elapsed().as_secs_f64(), cpu() - before);
    let gigabytes = count as f64 / 1e9;
    let direction = if up { "up" } else { "down" };
    println!(
        "{what} {direction}: {:.2} Gbit/s, {:.2} CPU-s/GB of network and tap",
        gigabytes * 8.0 / wall,
        spent / gigabytes,
    );
}

#[test]
#[ignore = "a figure, not a check"]
fn kernel_throughput() {
    let (source, sink) = ends();
    for (offload, up) in [(true, false), (true, true), (false, false), (false, true)] {
        let user = UserNet::new(Config::customary(), &[]).unwrap();
        let ran = thread::spawn(move || {
            let Some(_guest) = with_address(user, offload) else { return };
            let what = if offload { "ours, offload" } else { "ours, MTU 1500" };
            let cpu = || thread_seconds(&["usernet", "nettap"]);
            measure(what, up, if up { sink } else { source }, cpu);
        });
        ran.join().unwrap();
    }
}

/// The reference's network with the same guest, which it serves by a tap interface as well.
#[test]
#[ignore = "a figure, not a check"]
fn kernel_throughput_of_the_reference() {
    let Some(reference) = tests::asset("bin/qemu-system-x86_64") else {
        tests::skip!("no qemu-system-x86_64: cargo xtask fetch");
    };
    let ran = thread::spawn(move || {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        must("ip link set lo up");
        let (source, sink) = ends();
        let mut command = Command::new(reference);
        command.args(["-M", "none", "-nodefaults", "-display", "none", "-netdev", "user,id=u"]);
        command.args(["-netdev", "tap,id=t,ifname=eth0,script=no,downscript=no"]);
        command.args(["-netdev", "hubport,id=a,hubid=0,netdev=u"]);
        command.args(["-netdev", "hubport,id=b,hubid=0,netdev=t"]);
        let mut child = command.spawn().unwrap();
        while !run("ip link set eth0 up").0 {
            thread::sleep(Duration::from_millis(50));
        }
        must("ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2");
        let stat = PathBuf::from(format!("/proc/{}/stat", child.id()));
        for up in [false, true] {
            measure("reference", up, if up { sink } else { source }, || task_seconds(&stat));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
    ran.join().unwrap();
}
