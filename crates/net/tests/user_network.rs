//! The user-mode network from a guest's side: smoltcp on one end, the host's sockets on the other.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod guest;

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use guest::Guest;
use net::dns::{Message, message};
use net::user::{
    Config, ConnectionKind, ForwardTarget, GuestForward, HostEnd, HostForward, UserNet,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{dns, icmp, tcp, udp};
use smoltcp::wire::{DnsQueryType, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv6Cidr};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

fn network(config: Config) -> Arc<UserNet> {
    UserNet::new(config, &[]).unwrap()
}

fn at_gateway(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(GATEWAY.into(), host.port())
}

/// A server that answers each connection by `serve` and ends with the test.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
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

fn http(body: Vec<u8>) -> SocketAddr {
    server(move |mut stream| {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            request.push(byte[0]);
        }
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    })
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

#[test]
fn dhcp_gives_the_customary_addresses() {
    let mut guest = Guest::new(network(Config::customary()), false);
    let (address, router, servers) = guest.dhcp();
    assert_eq!((address.address(), address.prefix_len()), (GUEST, 24));
    assert_eq!((router, servers), (Some(GATEWAY), vec![Ipv4Addr::new(10, 0, 2, 3)]));
}

#[test]
fn restricted_guest_learns_no_way_out_and_finds_none() {
    let address = http(b"secret".to_vec());
    let config = Config { restrict: true, ..Config::customary() };
    let mut guest = Guest::new(network(config), false);
    let (_, router, servers) = guest.dhcp();
    assert_eq!((router, servers), (None, vec![]));
    let handle = guest.connect(at_gateway(address));
    guest.live("refusal", |guest| {
        (guest.socket(handle).state() == tcp::State::Closed).then_some(())
    });
}

#[test]
fn http_from_a_local_server_with_and_without_offload() {
    let body = pattern(3_000_000);
    let address = http(body.clone());
    for offload in [false, true] {
        let mut guest = Guest::with_address(network(Config::customary()), offload);
        let handle = guest.connect(at_gateway(address));
        let answer = guest.exchange(handle, b"GET / HTTP/1.0\r\n\r\n");
        let start = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert!(answer[start..] == body, "{} bytes, offload {offload}", answer.len());
        let largest = guest.card.largest.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(largest > 1514, offload, "largest frame {largest}");
    }
}

#[test]
fn upload_arrives_whole_and_half_close_works_both_ways() {
    let address = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        // The guest has finished; the answer still gets through.
        let sum: u64 = all.iter().map(|byte| u64::from(*byte)).sum();
        write!(stream, "{} {sum}", all.len()).unwrap();
    });
    let body = pattern(2_000_000);
    let mut guest = Guest::with_address(network(Config::customary()), false);
    let handle = guest.connect(at_gateway(address));
    let (mut rest, mut answer) = (&body[..], Vec::new());
    guest.live("answer", |guest| {
        let socket = guest.socket(handle);
        if socket.can_send() && !rest.is_empty() {
            rest = &rest[socket.send_slice(rest).unwrap()..];
            if rest.is_empty() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes))).unwrap();
        }
        (rest.is_empty() && !socket.may_recv()).then_some(())
    });
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(String::from_utf8(answer).unwrap(), format!("{} {sum}", body.len()));
}

#[test]
fn closed_port_is_refused_and_reset_passes_on() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut guest = Guest::with_address(network(Config::customary()), false);
    let handle = guest.connect(at_gateway(closed));
    guest.live("refusal", |guest| {
        (guest.socket(handle).state() == tcp::State::Closed).then_some(())
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = server(move |mut stream| {
        let outcome = stream.read(&mut [0; 16]).map_err(|error| error.kind());
        sender.send(outcome).unwrap();
    });
    let handle = guest.connect(at_gateway(address));
    guest.live("connection", |guest| guest.socket(handle).may_send().then_some(()));
    guest.socket(handle).abort();
    guest.poll();
    let outcome = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(outcome, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn loopback_is_closed_when_the_configuration_says_so() {
    let address = http(b"secret".to_vec());
    let config = Config { host_loopback: false, ..Config::customary() };
    let net = network(config);
    let mut guest = Guest::with_address(Arc::clone(&net) as _, false);
    let handle = guest.connect(at_gateway(address));
    guest.live("refusal", |guest| {
        (guest.socket(handle).state() == tcp::State::Closed).then_some(())
    });
    // A guest that sends to loopback addresses themselves finds no other door.
    let handle = guest.connect(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 1).into(), address.port()));
    guest.live("refusal", |guest| {
        (guest.socket(handle).state() == tcp::State::Closed).then_some(())
    });
}

/// A name server with one name, over UDP; over TCP it answers the same.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let query = Message::read(&bytes[..count]).unwrap();
            let name = query.question.as_ref().unwrap().name.clone();
            let known = name == "hostel.test";
            let record = message::Record::address(&name, IpAddr::from([192, 0, 2, 7]), 60);
            let (code, records) = if known {
                (message::NO_ERROR, vec![record])
            } else {
                (message::NO_SUCH_NAME, vec![])
            };
            socket.send_to(&query.answer(code, &records, 512), from).unwrap();
        }
    });
    address
}

#[test]
fn names_are_resolved_past_a_dead_server() {
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = Config {
        name_servers: vec![dead.local_addr().unwrap(), name_server()],
        ..Config::customary()
    };
    let mut guest = Guest::with_address(network(config), false);
    let servers = [IpAddress::v4(10, 0, 2, 3)];
    let handle = guest.sockets.add(dns::Socket::new(&servers, vec![]));
    for (name, expected) in [("hostel.test", Some(IpAddress::v4(192, 0, 2, 7))), ("no.test", None)]
    {
        let socket = guest.sockets.get_mut::<dns::Socket>(handle);
        let context = guest.interface.context();
        let query = socket.start_query(context, name, DnsQueryType::A).unwrap();
        let answer = guest.live("name", |guest| {
            let socket = guest.sockets.get_mut::<dns::Socket>(handle);
            match socket.get_query_result(query) {
                Ok(addresses) => Some(addresses.first().copied()),
                Err(dns::GetQueryResultError::Pending) => None,
                Err(dns::GetQueryResultError::Failed) => Some(None),
            }
        });
        assert_eq!(answer, expected, "{name}");
    }
}

#[test]
fn questions_by_tcp_reach_the_name_server() {
    let address = server(|mut stream| {
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"answer to ").and_then(|()| stream.write_all(&question)).unwrap();
    });
    let config = Config { name_servers: vec![address], ..Config::customary() };
    let mut guest = Guest::with_address(network(config), false);
    let handle = guest.connect("10.0.2.3:53".parse().unwrap());
    assert_eq!(guest.exchange(handle, b"query"), b"answer to query");
}

#[test]
fn forwarded_tcp_port_leads_to_the_guest_until_it_is_removed() {
    let net = network(Config::customary());
    let any = HostEnd::Tcp("127.0.0.1:0".parse().unwrap());
    let guest_end = SocketAddr::new(GUEST.into(), 80);
    let forward = net.add_forward(&HostForward { from: any, guest: guest_end }).unwrap();
    let HostEnd::Tcp(address) = forward.from.clone() else { panic!("{forward:?}") };
    // The guest is found by ARP: it has not said a word yet.
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let mut guest = Guest::with_address(Arc::clone(&net) as _, false);
    let handle = guest.tcp(4096);
    guest.socket(handle).listen(80).unwrap();
    let mut heard = Vec::new();
    let peer = guest.live("request", |guest| {
        let socket = guest.socket(handle);
        if socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
        }
        (heard.len() == 5 && !socket.may_recv()).then(|| socket.remote_endpoint().unwrap())
    });
    assert_eq!((heard.as_slice(), peer.addr), (&b"hello"[..], IpAddress::v4(10, 0, 2, 2)));
    guest.socket(handle).send_slice(b"world").unwrap();
    guest.socket(handle).close();
    guest.live("end", |_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap(), "world");
    let kinds: Vec<_> = net.connections().iter().map(|row| row.kind).collect();
    assert!(kinds.contains(&ConnectionKind::TcpForward), "{kinds:?}");
    net.remove_forward(&forward.from).unwrap();
    assert!(net.remove_forward(&forward.from).is_err());
    let refused = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_err()
    });
    assert!(refused, "the port is still open");
}

#[test]
fn busy_port_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let net = network(Config::customary());
    let guest = SocketAddr::new(GUEST.into(), 80);
    let forward = HostForward { from: HostEnd::Tcp(address), guest };
    let text = net.add_forward(&forward).unwrap_err().to_string();
    assert!(text.contains(&address.to_string()) && text.contains("another program"), "{text}");
    let outside = HostForward {
        from: HostEnd::Udp("127.0.0.1:0".parse().unwrap()),
        guest: "192.0.2.1:80".parse().unwrap(),
    };
    let text = UserNet::new(Config::customary(), &[outside]).err().unwrap().to_string();
    assert!(text.contains("192.0.2.1"), "{text}");
}

fn udp_socket(guest: &mut Guest, port: u16) -> smoltcp::iface::SocketHandle {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 65536]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    guest.sockets.add(socket)
}

#[test]
fn datagrams_go_out_come_back_and_come_in_by_a_forwarding() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo_address = echo.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok((count, from)) = echo.recv_from(&mut bytes) {
            echo.send_to(&bytes[..count], from).unwrap();
        }
    });
    let net = network(Config::customary());
    let mut guest = Guest::with_address(Arc::clone(&net) as _, false);
    let handle = udp_socket(&mut guest, 5000);
    let payload = pattern(1000);
    guest
        .sockets
        .get_mut::<udp::Socket>(handle)
        .send_slice(&payload, at_gateway(echo_address))
        .unwrap();
    let (answer, from) = guest.live("echo", |guest| {
        let socket = guest.sockets.get_mut::<udp::Socket>(handle);
        socket.recv().ok().map(|(bytes, from)| (bytes.to_vec(), from.endpoint))
    });
    assert_eq!((answer, from), (payload, at_gateway(echo_address).into()));

    let guest_end = SocketAddr::new(GUEST.into(), 5000);
    let any = HostEnd::Udp("127.0.0.1:0".parse().unwrap());
    let forward = net.add_forward(&HostForward { from: any, guest: guest_end }).unwrap();
    let HostEnd::Udp(address) = forward.from else { panic!("{forward:?}") };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(b"question", address).unwrap();
    let from = guest.live("question", |guest| {
        let socket = guest.sockets.get_mut::<udp::Socket>(handle);
        socket.recv().ok().map(|(bytes, from)| {
            assert_eq!(bytes, b"question");
            from.endpoint
        })
    });
    guest.sockets.get_mut::<udp::Socket>(handle).send_slice(b"answer", from).unwrap();
    guest.poll();
    let mut bytes = [0; 64];
    let (count, from) = client.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..count], from), (&b"answer"[..], address));
}

#[test]
fn gateway_answers_pings() {
    let mut guest = Guest::with_address(network(Config::customary()), false);
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let handle = guest.sockets.add(icmp::Socket::new(buffer(), buffer()));
    let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
    socket.bind(icmp::Endpoint::Ident(77)).unwrap();
    let echo = Icmpv4Repr::EchoRequest { ident: 77, seq_no: 3, data: b"ping" };
    let bytes = socket.send(echo.buffer_len(), IpAddress::v4(10, 0, 2, 2)).unwrap();
    let sums = ChecksumCapabilities::default();
    echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &sums);
    guest.live("pong", |guest| {
        let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
        let (bytes, _) = socket.recv().ok()?;
        let packet = Icmpv4Packet::new_checked(bytes).unwrap();
        let reply = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(reply, Icmpv4Repr::EchoReply { ident: 77, seq_no: 3, data: b"ping" });
        Some(())
    });
}

#[test]
fn ipv6_reaches_the_host() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { tests::skip!("the host has no IPv6") };
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(&pattern(200_000));
        }
    });
    let mut guest = Guest::new(network(Config::customary()), false);
    let own = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0x15);
    guest.set_address(IpCidr::from(Ipv6Cidr::new(own, 64)));
    let router = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
    guest.interface.routes_mut().add_default_ipv6_route(router).unwrap();
    let handle = guest.connect(SocketAddr::new(router.into(), port));
    assert!(guest.exchange(handle, b"") == pattern(200_000));
}

#[test]
fn guest_forwardings_to_a_program_and_a_service() {
    let address = http(b"inside".to_vec());
    let forward = |at: &str, to| GuestForward { at: at.parse().unwrap(), to };
    let config = Config {
        restrict: true,
        guest_forwards: vec![
            forward("10.0.2.100:7", ForwardTarget::Command("tr a-z A-Z; echo end".into())),
            forward("10.0.2.100:80", ForwardTarget::Tcp(address)),
        ],
        ..Config::customary()
    };
    let mut guest = Guest::with_address(network(config), false);
    let handle = guest.connect("10.0.2.100:80".parse().unwrap());
    let answer = guest.exchange(handle, b"GET / HTTP/1.0\r\n\r\n");
    assert!(answer.ends_with(b"inside"), "{answer:?}");
    let handle = guest.connect("10.0.2.100:7".parse().unwrap());
    let (mut sent, mut answer) = (false, Vec::new());
    guest.live("program", |guest| {
        let socket = guest.socket(handle);
        if socket.can_send() && !sent {
            socket.send_slice(b"hello ").unwrap();
            socket.close();
            sent = true;
        }
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes))).unwrap();
        }
        (sent && !socket.may_recv()).then_some(())
    });
    assert_eq!(String::from_utf8(answer).unwrap(), "HELLO end\n");
}

#[test]
fn a_thousand_short_connections_leave_nothing_behind() {
    let address = http(pattern(1000));
    let net = network(Config::customary());
    let mut guest = Guest::with_address(Arc::clone(&net) as _, false);
    for number in 0..1000 {
        let handle = guest.connect(at_gateway(address));
        let answer = guest.exchange(handle, b"GET / HTTP/1.0\r\n\r\n");
        assert!(answer.ends_with(&pattern(1000)), "{number}: {} bytes", answer.len());
        guest.sockets.remove(handle);
    }
    guest.live("quiet", |_| {
        let open = net.connections().iter().filter(|row| row.source.is_some()).count();
        (open == 0).then_some(())
    });
}

/// Neither a guest that does not read nor a host that does not makes the network store more
/// than its bound, and both get everything in the end.
#[test]
fn slow_readers_hold_the_sender_back() {
    let body = pattern(12_000_000);
    let address = server({
        let body = body.clone();
        move |mut stream| {
            let _ = stream.write_all(&body);
        }
    });
    let net = network(Config::customary());
    let mut guest = Guest::with_address(Arc::clone(&net) as _, true);
    let handle = guest.connect(at_gateway(address));
    guest.live("full window", |guest| (guest.socket(handle).recv_queue() >= 60_000).then_some(()));
    let until = std::time::Instant::now() + Duration::from_millis(1500);
    guest.live("time", |_| (std::time::Instant::now() > until).then_some(()));
    let queued: usize = net.connections().iter().map(|row| row.queued.0 + row.queued.1).sum();
    assert!(queued <= 200_000, "{queued} bytes are kept for a guest with a window of 64 KiB");
    assert!(guest.exchange(handle, b"") == body);
}
