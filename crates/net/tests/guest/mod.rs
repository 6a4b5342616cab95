//! A guest made of smoltcp, plugged into a back end as a card would be.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant as StdInstant};

use net::{Backend, Capabilities, Card, Offload};
use parking_lot::Mutex;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

/// Frames that the card takes before it says that it is full.
const RING: usize = 256;

/// The card: a ring of frames, with the rule of the contract about room.
#[derive(Default)]
pub struct TestCard {
    frames: Mutex<VecDeque<(Vec<u8>, Offload)>>,
    refused: AtomicBool,
    pub largest: AtomicUsize,
}

impl Card for TestCard {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        let mut frames = self.frames.lock();
        if frames.len() >= RING {
            self.refused.store(true, Ordering::SeqCst);
            return false;
        }
        self.largest.fetch_max(frame.len(), Ordering::SeqCst);
        frames.push_back((frame.to_vec(), offload));
        true
    }

    fn set_link(&self, _up: bool) {}
}

/// The guest's end of the cable, as smoltcp sees it.
pub struct Cable {
    backend: Arc<dyn Backend>,
    card: Arc<TestCard>,
    trusts: bool,
}

pub struct Taken(Vec<u8>);
pub struct Given(Arc<dyn Backend>, bool);

impl RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Given {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        let offload = Offload { checksum_valid: self.1, ..Offload::default() };
        self.0.transmit(&frame, offload);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Given;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Given)> {
        let (frame, _) = self.card.frames.lock().pop_front()?;
        if self.card.refused.swap(false, Ordering::SeqCst) {
            self.backend.room();
        }
        Some((Taken(frame), Given(Arc::clone(&self.backend), false)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Given> {
        Some(Given(Arc::clone(&self.backend), false))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        if self.trusts {
            // What has offloaded checksums cannot be checked; what is sent has them.
            capabilities.checksum.tcp = Checksum::Tx;
            capabilities.checksum.udp = Checksum::Tx;
        }
        capabilities
    }
}

pub struct Guest {
    pub interface: Interface,
    pub cable: Cable,
    pub sockets: SocketSet<'static>,
    pub card: Arc<TestCard>,
    started: StdInstant,
    next_port: u16,
}

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

impl Guest {
    /// A guest without an address. `offload`: its driver takes everything.
    pub fn new(backend: Arc<dyn Backend>, offload: bool) -> Self {
        let card = Arc::new(TestCard::default());
        let weak: Weak<TestCard> = Arc::downgrade(&card);
        backend.attach(weak);
        if offload {
            backend.set_guest_offload(backend.capabilities());
        } else {
            backend.set_guest_offload(Capabilities::default());
        }
        let mut cable = Cable { backend, card: Arc::clone(&card), trusts: offload };
        let config = Config::new(EthernetAddress(MAC).into());
        let interface = Interface::new(config, &mut cable, Instant::ZERO);
        let sockets = SocketSet::new(Vec::new());
        let started = StdInstant::now();
        Self { interface, cable, sockets, card, started, next_port: 49152 }
    }

    /// A guest with the address that DHCP would give it.
    pub fn with_address(backend: Arc<dyn Backend>, offload: bool) -> Self {
        let mut guest = Self::new(backend, offload);
        guest.set_address(Ipv4Cidr::new(Ipv4Addr::new(10, 0, 2, 15), 24));
        guest.interface.routes_mut().add_default_ipv4_route(Ipv4Addr::new(10, 0, 2, 2)).unwrap();
        guest
    }

    pub fn set_address(&mut self, address: impl Into<IpCidr>) {
        self.interface.update_ip_addrs(|all| all.push(address.into()).unwrap());
    }

    pub fn poll(&mut self) {
        let now = Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap());
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
    }

    /// Lives until `look` has an answer.
    pub fn live<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = StdInstant::now() + Duration::from_secs(30);
        loop {
            self.poll();
            if let Some(answer) = look(self) {
                return answer;
            }
            assert!(StdInstant::now() < deadline, "no {what} within 30 seconds");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Gets an address by DHCP; returns what came with it.
    pub fn dhcp(&mut self) -> (Ipv4Cidr, Option<Ipv4Addr>, Vec<Ipv4Addr>) {
        let handle = self.sockets.add(dhcpv4::Socket::new());
        let answer = self.live("DHCP", |guest| {
            match guest.sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
                Some(dhcpv4::Event::Configured(config)) => {
                    Some((config.address, config.router, config.dns_servers.to_vec()))
                }
                _ => None,
            }
        });
        self.sockets.remove(handle);
        self.set_address(answer.0);
        if let Some(router) = answer.1 {
            self.interface.routes_mut().add_default_ipv4_route(router).unwrap();
        }
        answer
    }

    pub fn tcp(&mut self, buffer: usize) -> SocketHandle {
        let buffers = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(buffers(), buffers());
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let handle = self.tcp(65536);
        self.next_port = self.next_port.checked_add(1).unwrap_or(49152);
        let port = self.next_port;
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.interface.context(), to, port).unwrap();
        handle
    }

    /// Sends all and reads until the other side finishes.
    pub fn exchange(&mut self, handle: SocketHandle, mut request: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        self.live("answer", |guest| {
            let socket = guest.socket(handle);
            if socket.can_send() && !request.is_empty() {
                request = &request[socket.send_slice(request).unwrap()..];
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        answer.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            (!socket.may_recv() && !matches!(socket.state(), tcp::State::SynSent)).then_some(())
        });
        self.socket(handle).close();
        self.poll();
        answer
    }
}
