use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::packet::{self, Header};
use super::*;
use crate::virtio::guest::{Guest, Part, Sent, eventually, hostile};

/// A driver with buffers for packets.
struct Peer {
    guest: Guest,
    buffers: Vec<Sent>,
    path: PathBuf,
}

const BUFFER: u32 = 4096;

fn path(name: &str) -> PathBuf {
    ::tests::scratch(name).join("v.sock")
}

fn peer(name: &str) -> Peer {
    let path = path(name);
    let mut guest = Guest::ready(Vsock::new(3, &path).unwrap(), 3 << 28);
    assert_eq!((guest.read(0x100), guest.read(0x104)), (3, 0));
    let buffers = (0..32).map(|_| guest.put(0, &[Part::In(BUFFER)])).collect();
    guest.notify(0);
    Peer { guest, buffers, path }
}

fn header(operation: u16, ports: (u32, u32), bytes: usize) -> Header {
    Header {
        from: 3,
        to: 2,
        from_port: ports.1,
        to_port: ports.0,
        bytes: bytes as u32,
        kind: packet::TYPE_STREAM,
        operation,
        flags: 0,
        buffer_bytes: 1 << 16,
        forwarded: 0,
    }
}

impl Peer {
    fn send(&mut self, header: Header, data: &[u8]) {
        self.guest.request(1, &[Part::Out(&header.emit()), Part::Out(data)]);
    }

    /// The next packet for the guest, which offers its buffer again. Credit updates are passed over.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        loop {
            let (head, written) = self.guest.wait(0);
            let at = self.buffers.iter().position(|sent| sent.head == head).unwrap();
            let bytes = self.guest.answer(&self.buffers[at]);
            self.buffers.remove(at);
            self.buffers.push(self.guest.put(0, &[Part::In(BUFFER)]));
            self.guest.notify(0);
            let header = Header::parse(bytes.first_chunk().unwrap());
            assert_eq!(header.bytes + 44, written);
            if header.operation != packet::CREDIT_UPDATE {
                return (header, bytes[44..written as usize].to_vec());
            }
        }
    }

    fn connected(&mut self, port: u32) -> (UnixStream, (u32, u32)) {
        let mut socket = UnixStream::connect(&self.path).unwrap();
        writeln!(socket, "CONNECT {port}").unwrap();
        let (asked, _) = self.receive();
        assert_eq!((asked.operation, asked.from, asked.to_port), (packet::REQUEST, 2, port));
        let ports = (asked.from_port, port);
        self.send(header(packet::RESPONSE, ports, 0), &[]);
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, socket.try_clone().unwrap());
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, format!("OK {}\n", ports.0));
        (socket, ports)
    }
}

#[test]
fn a_program_of_the_host_reaches_one_of_the_guest() {
    let mut peer = peer("vsock-in");
    let (mut socket, ports) = peer.connected(52);
    socket.write_all(b"hello guest").unwrap();
    let (data, bytes) = peer.receive();
    assert_eq!((data.operation, &bytes[..]), (packet::DATA, &b"hello guest"[..]));
    peer.send(header(packet::DATA, ports, 10), b"hello host");
    let mut bytes = [0; 10];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello host");

    drop(socket);
    let (end, _) = peer.receive();
    assert_eq!((end.operation, end.flags), (packet::SHUTDOWN, packet::NO_SEND));
    peer.send(Header { flags: 3, ..header(packet::SHUTDOWN, ports, 0) }, &[]);
    assert_eq!(peer.receive().0.operation, packet::RESET);
}

#[test]
fn a_program_of_the_guest_reaches_one_of_the_host() {
    let mut peer = peer("vsock-out");
    let ports = (1234, 77);
    peer.send(header(packet::REQUEST, ports, 0), &[]);
    assert_eq!(peer.receive().0.operation, packet::RESET, "nobody listens");
    let mut name = peer.path.clone().into_os_string();
    name.push("_1234");
    let listener = UnixListener::bind(&name).unwrap();
    peer.send(header(packet::REQUEST, ports, 0), &[]);
    let (answer, _) = peer.receive();
    assert_eq!((answer.operation, answer.from_port, answer.to_port), (packet::RESPONSE, 1234, 77));
    let (mut socket, _) = listener.accept().unwrap();

    // The guest says it has finished; what it sent arrives, then the end.
    peer.send(header(packet::DATA, ports, 3), b"abc");
    peer.send(Header { flags: packet::NO_SEND, ..header(packet::SHUTDOWN, ports, 0) }, &[]);
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"abc");
    socket.write_all(b"the answer").unwrap();
    assert_eq!(peer.receive().1, b"the answer", "the other half is still open");
    peer.send(header(packet::RESET, ports, 0), &[]);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut peer = peer("vsock-credit");
    let (mut socket, ports) = peer.connected(9);
    let data: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    let writer = std::thread::spawn({
        let data = data.clone();
        move || {
            socket.write_all(&data).unwrap();
            socket
        }
    });
    let mut got = Vec::new();
    while got.len() < 1 << 16 {
        got.extend(peer.receive().1);
    }
    assert_eq!(got.len(), 1 << 16, "the room it has told of");
    std::thread::sleep(std::time::Duration::from_millis(50));
    peer.guest.notify(0);
    let more = peer.guest.take(0).is_some_and(|(_, bytes)| bytes > 44);
    assert!(!more);
    while got.len() < data.len() {
        let forwarded = got.len() as u32;
        peer.send(Header { forwarded, ..header(packet::CREDIT_UPDATE, ports, 0) }, &[]);
        let until = (got.len() + (1 << 16)).min(data.len());
        while got.len() < until {
            got.extend(peer.receive().1);
        }
    }
    assert_eq!(got, data);
    writer.join().unwrap();
}

#[test]
fn a_guest_that_sends_without_room_is_cut_off() {
    let mut peer = peer("vsock-flood");
    let (socket, ports) = peer.connected(9);
    let data = vec![0; 60_000];
    let mut sent = 0;
    let mut reset = false;
    while sent < 4 << 20 && !reset {
        peer.send(header(packet::DATA, ports, data.len()), &data);
        sent += data.len();
        reset = peer.guest.take(0).is_some_and(|_| true) && sent > 1 << 20;
    }
    assert!(reset, "it is told that it is too much");
    drop(socket);
}

#[test]
fn a_path_that_is_taken_is_refused() {
    let path = path("vsock-path");
    let first = Vsock::new(3, &path).unwrap();
    assert!(matches!(Vsock::new(4, &path), Err(VsockError::InUse { .. })));
    drop(first);
    assert!(!path.exists());
    drop(UnixListener::bind(&path).unwrap());
    drop(Vsock::new(3, &path).expect("a socket that nobody listens on is replaced"));
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(Vsock::new(4, &path), Err(VsockError::NoSocket { .. })));
}

#[test]
fn a_reset_ends_all_connections() {
    let mut peer = peer("vsock-reset");
    let (mut socket, _) = peer.connected(9);
    peer.guest.write(0x70, 0);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    let mut late = UnixStream::connect(&peer.path).unwrap();
    _ = writeln!(late, "CONNECT 9");
    eventually("nobody is there", || matches!(late.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..5 {
        let path = path(&format!("vsock-hostile-{seed}"));
        let vsock = Vsock::new(3, &path).unwrap();
        hostile(Arc::clone(&vsock) as _, 3 << 28, 1500, seed);
    }
}
