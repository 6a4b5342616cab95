//! Clients that break the protocol: refused or cut off, and nobody else notices.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libvirt_compat::rpc::{Frame, xdr::to_bytes};
use libvirt_compat::rpc::{Header, Kind, PROGRAM_REMOTE, Status, client, frame::FRAME_BYTES_MAX};

use super::fixture::Daemon;
use crate::need;

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// A small generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn open(stream: &mut UnixStream) {
    let arguments = to_bytes(&(Some("test:///default".to_owned()), 0u32));
    stream.write_all(&client::call_frame(PROGRAM_REMOTE, 1, 0, arguments).to_bytes()).unwrap();
    let mut reply = [0; 28];
    stream.read_exact(&mut reply).unwrap();
}

fn assert_unharmed(daemon: &Daemon) {
    let list = daemon.ok("list --all");
    assert_eq!(list.trim(), "", "the daemon still answers");
}

#[test]
fn garbage_ends_the_connection_only() {
    need!("virsh");
    let daemon = Daemon::start();
    for length in [0u32, 27, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut stream = connect(&daemon);
        stream.write_all(&length.to_be_bytes()).unwrap();
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0, "length {length}");
    }
    assert_unharmed(&daemon);
}

#[test]
fn calls_with_random_payloads_harm_nobody() {
    need!("virsh");
    let daemon = Daemon::start();
    let mut dice = Dice(0x1234_5678_9abc_def1);
    // 2 is the close, which would end each round early; 9.0 has 443 procedures.
    for round in 0..40 {
        let mut stream = connect(&daemon);
        open(&mut stream);
        for serial in 1..200 {
            let procedure = (dice.roll() % 460) as u32;
            if procedure == 2 {
                continue;
            }
            let length = (dice.roll() % 96) as usize & !3;
            let payload: Vec<u8> = (0..length)
                // Small numbers reach deeper into the decoders than large ones.
                .map(|at| if at % 4 == 3 { (dice.roll() % 24) as u8 } else { 0 })
                .collect();
            let frame = client::call_frame(PROGRAM_REMOTE, procedure, serial, payload);
            if stream.write_all(&frame.to_bytes()).is_err() {
                break;
            }
        }
        drop(stream);
        if round % 10 == 9 {
            assert_unharmed(&daemon);
        }
    }
    assert_unharmed(&daemon);
}

#[test]
fn a_client_that_never_reads_is_no_burden() {
    need!("virsh");
    let daemon = Daemon::start();
    let mut stream = connect(&daemon);
    open(&mut stream);
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // Capabilities are long; nobody takes the replies.
    for serial in 1..5000 {
        let frame = client::call_frame(PROGRAM_REMOTE, 7, serial, Vec::new());
        if stream.write_all(&frame.to_bytes()).is_err() {
            break;
        }
    }
    assert_unharmed(&daemon);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 100 << 10, "{kib} KiB");
}

#[test]
fn stream_packets_out_of_the_blue_are_ignored() {
    need!("virsh");
    let daemon = Daemon::start();
    let mut stream = connect(&daemon);
    open(&mut stream);
    for status in [Status::Continue, Status::Ok, Status::Error] {
        let header = Header {
            program: PROGRAM_REMOTE,
            version: 1,
            procedure: 201,
            kind: Kind::Stream,
            serial: 77,
            status,
        };
        stream.write_all(&Frame { header, payload: vec![1; 100] }.to_bytes()).unwrap();
    }
    assert_unharmed(&daemon);
}

#[test]
fn hostile_documents_are_refused_with_libvirts_codes() {
    need!("virsh");
    let daemon = Daemon::start();
    let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]><domain>&b;</domain>";
    let name = "<domain type='qemu'><name>../../etc/passwd</name><memory>1024</memory>\
                <os><type>hvm</type></os></domain>";
    let deep = "<a>".repeat(100_000);
    for (document, message) in [
        (bomb, "document type declaration"),
        (name, "name ../../etc/passwd cannot contain '/'"),
        (deep.as_str(), "Excessive depth"),
        ("<domain type='qemu'><name>x</name>", "Premature end of data"),
    ] {
        let file = daemon.scratch.join("bad.xml");
        fs::write(&file, document).unwrap();
        let (ok, text) = daemon.virsh(&format!("define {}", file.display()));
        assert!(!ok && text.contains(message), "{text}");
    }
    assert_unharmed(&daemon);
}

#[test]
fn a_read_only_connection_cannot_write() {
    need!("virsh");
    let daemon = Daemon::start();
    let (_, text) =
        super::fixture::virsh(&daemon.uri("test", "/default"), "connect --readonly; list");
    assert!(!text.contains("error"), "{text}");
    let mut stream = connect(&daemon);
    let arguments = to_bytes(&(Some("test:///default".to_owned()), 1u32));
    stream.write_all(&client::call_frame(PROGRAM_REMOTE, 1, 0, arguments).to_bytes()).unwrap();
    let mut reply = [0; 28];
    stream.read_exact(&mut reply).unwrap();
    let call = client::call_frame(PROGRAM_REMOTE, 11, 1, to_bytes(&("<domain/>".to_owned(),)));
    stream.write_all(&call.to_bytes()).unwrap();
    let mut reply = [0; 32];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[27], 1, "the status is an error");
    assert_eq!(reply[31], 29, "the code is OPERATION_DENIED");
}
