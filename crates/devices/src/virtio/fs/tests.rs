use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memory::{Owner, Region};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::virtio::guest::{Guest, Part, RAM_BYTES};

/// A back end that serves queue 1 with files instead of mapped memory.
#[derive(Default)]
struct Back {
    /// The guest's memory, and the rings.
    memory: Vec<(u64, File)>,
    /// Descriptors, used, available.
    ring: [u64; 3],
    kick: Option<File>,
    call: Option<File>,
    served: u16,
}

/// What a back end does with a request: the head that it gives back, and how far it says it is.
type Manner = fn(&Back, head: u16, served: u16) -> Option<(u32, u16)>;

fn honest(_: &Back, head: u16, served: u16) -> Option<(u32, u16)> {
    Some((head.into(), served))
}

impl Back {
    fn place(&self, address: u64) -> (&File, u64) {
        let region = self.memory.iter().rev().find(|(start, _)| *start <= address).unwrap();
        (&region.1, address - region.0)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        let (file, at) = self.place(address);
        file.read_exact_at(bytes, at).unwrap();
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let (file, at) = self.place(address);
        file.write_all_at(bytes, at).unwrap();
    }

    fn half(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Writes `pong` into the last buffer of each request that is there.
    fn serve(&mut self, manner: Manner) {
        let [descriptors, used, available] = self.ring;
        while self.half(available + 2) != self.served {
            let head = self.half(available + 4 + u64::from(self.served % 1024) * 2);
            let mut at = head;
            loop {
                let mut descriptor = [0; 16];
                self.read(descriptors + u64::from(at) * 16, &mut descriptor);
                let (address, rest) = descriptor.split_at(8);
                let address = u64::from_le_bytes(address.try_into().unwrap());
                if rest[4] & 1 == 0 {
                    self.write(address, b"pong");
                    break;
                }
                at = u16::from_le_bytes([rest[6], rest[7]]);
            }
            let entry = used + 4 + u64::from(self.served % 1024) * 8;
            self.served = self.served.wrapping_add(1);
            let Some((head, index)) = manner(self, head, self.served) else { return };
            self.write(entry, &[head.to_le_bytes(), 4_u32.to_le_bytes()].concat());
            self.write(used + 2, &index.to_le_bytes());
            self.call.as_mut().unwrap().write_all(&1_u64.to_ne_bytes()).unwrap();
        }
    }

    /// Talks until the front end goes; with `manner` for the requests.
    fn run(mut self, mut socket: UnixStream, manner: Manner) {
        loop {
            let mut header = [0; 12];
            let mut files = match receive(&socket, &mut header) {
                Some(files) => files.into_iter(),
                None => return,
            };
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            let mut body = vec![0; word(8) as usize];
            socket.read_exact(&mut body).unwrap();
            let long = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().unwrap());
            let mut answer = None;
            match word(0) {
                1 => answer = Some(1_u64 << 32 | 1 << 30 | 1 << 29),
                15 => answer = Some(0),
                11 => answer = Some(long(0)),
                5 => {
                    let places = (0..).map(|index| long(8 + index * 32));
                    self.memory = places.zip(files.by_ref()).collect();
                    self.memory.sort_by_key(|(start, _)| *start);
                }
                9 if long(0) == 1 => self.ring = [long(8), long(16), long(24)],
                12 if long(0) == 1 => self.kick = files.next(),
                13 if long(0) == 1 => self.call = files.next(),
                // Enabled: from now on each kick is a request.
                18 if long(0) == (1 << 32 | 1) => {
                    let mut kick = self.kick.take().unwrap();
                    let mut back = Self {
                        memory: std::mem::take(&mut self.memory),
                        ring: self.ring,
                        kick: None,
                        call: self.call.take(),
                        served: 0,
                    };
                    thread::spawn(move || {
                        // Goes with the test: the front end makes other events after a reset.
                        for _ in 0..2000 {
                            if kick.read(&mut [0; 8]).is_ok() {
                                back.serve(manner);
                            }
                            thread::sleep(Duration::from_millis(2));
                        }
                    });
                }
                _ => {}
            }
            if let Some(answer) = answer {
                let head = [word(0), 5, 8].map(u32::to_ne_bytes).concat();
                let bytes = [head, answer.to_ne_bytes().to_vec()].concat();
                socket.write_all(&bytes).unwrap();
            }
        }
    }
}

/// A header, and the descriptors that came with it.
fn receive(socket: &UnixStream, header: &mut [u8; 12]) -> Option<Vec<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(header)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(socket, &mut buffers, &mut control, flags).ok()?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors.map(|file: OwnedFd| File::from(file)));
        }
    }
    (received.bytes == 12).then_some(files)
}

/// A guest with a folder whose back end behaves like this.
fn guest(manner: Manner) -> (Guest, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let back = thread::spawn(move || Back::default().run(theirs, manner));
    let memory = Arc::new(AddressSpace::new());
    let config = FsConfig {
        tag: "tag".to_owned(),
        socket: ours.into(),
        queues: 1,
        queue_size: 64,
        memory: Arc::clone(&memory),
    };
    let mut guest = Guest::new(Fs::new(config).unwrap());
    memory.add(Region::new("ram", 0, RAM_BYTES, Owner::Ram(Arc::clone(&guest.ram))));
    guest.start(0, 64);
    (guest, back)
}

fn needs_reset(guest: &Guest) {
    let start = Instant::now();
    while guest.read(0x70) & 0x40 == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "the device asks for a reset");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn requests_reach_the_back_end_and_answers_the_guest() {
    let (mut guest, _back) = guest(honest);
    assert_eq!(guest.read(0x100), u32::from_le_bytes(*b"tag\0"));
    for round in 0..3 {
        for _ in 0..40 {
            let sent = guest.put(1, &[Part::Out(b"ping"), Part::Out(b"more"), Part::In(8)]);
            guest.notify(1);
            assert_eq!(guest.wait(1), (sent.head, 4), "round {round}");
            assert_eq!(guest.answer(&sent)[..4], *b"pong");
        }
        guest.start(0, 64); // a new driver finds new rings
    }
}

#[test]
fn a_back_end_that_lies_or_goes_breaks_its_device_only() {
    let manners: [Manner; 4] = [
        |_, head, _| Some((u32::from(head) + 1, 1)), // a chain that it does not have
        |_, head, _| Some((head.into(), 40_000)),    // more than there can be
        |_, _, served| Some((u32::MAX, served)),
        |_, head, _| Some((head.into(), 2)), // the same, and one that was never offered
    ];
    for manner in manners {
        let (mut guest, _back) = guest(manner);
        guest.put(1, &[Part::Out(b"ping"), Part::In(8)]);
        guest.notify(1);
        needs_reset(&guest);
    }
    // One that goes.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let going = theirs.try_clone().unwrap();
    let back = thread::spawn(move || Back::default().run(theirs, honest));
    let memory = Arc::new(AddressSpace::new());
    let socket = ours.into();
    let tag = "tag".to_owned();
    let config = FsConfig { tag, socket, queues: 1, queue_size: 64, memory: Arc::clone(&memory) };
    let mut guest = Guest::new(Fs::new(config).unwrap());
    memory.add(Region::new("ram", 0, RAM_BYTES, Owner::Ram(Arc::clone(&guest.ram))));
    guest.start(0, 64);
    going.shutdown(std::net::Shutdown::Both).unwrap();
    back.join().unwrap();
    needs_reset(&guest);
}

#[test]
fn nonsense_at_the_beginning_is_an_error() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0; 40], &[0xff; 40], b""] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answer).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let memory = Arc::new(AddressSpace::new());
        let (tag, socket) = ("tag".to_owned(), ours.into());
        let config = FsConfig { tag, socket, queues: 1, queue_size: 64, memory };
        let error = Fs::new(config).err().unwrap().to_string();
        assert!(error.starts_with("the vhost-user back end"), "{error}");
    }
}

#[test]
fn hostile_rings_do_no_harm() {
    for seed in 1..3 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || Back::default().run(theirs, honest));
        let memory = Arc::new(AddressSpace::new());
        let (tag, socket) = ("tag".to_owned(), ours.into());
        let config = FsConfig { tag, socket, queues: 1, queue_size: 64, memory };
        crate::virtio::guest::hostile(Fs::new(config).unwrap(), 0, 60, seed);
    }
}
