//! What a virtual network's bridge offers to guests: addresses by DHCP, names by DNS, and a router
//! that IPv6 hosts hear of. One thread for each network, sleeping until somebody asks.

mod advertise;
mod leases;
mod names;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linux::netlink::filter::Watch;
use linux::socket::bind_to_device;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::dhcp::{self, Lease, Server};
use advertise::Advertiser;
use names::Names;
pub use names::{Forward, NameSettings};

/// What a network offers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bridge.
    pub link: String,
    /// Addresses of version 4.
    pub dhcp: Option<dhcp::Settings>,
    /// Where leases are kept.
    pub leases: Option<PathBuf>,
    /// Names, and on which of the bridge's addresses.
    pub names: Option<(NameSettings, Vec<IpAddr>)>,
    /// The networks of version 6 that hosts make addresses in, and whether there is a way out.
    pub advertise: Option<(Vec<(Ipv6Addr, u8)>, bool)>,
}

/// A network's offers, until they are stopped.
pub struct Service {
    stop: Arc<OwnedFd>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    server: Option<Server>,
    names: Option<Names>,
    leases: Option<PathBuf>,
}

/// Called when packet filter tables have changed.
pub type Watcher = Box<dyn Fn() + Send>;

/// The longest that the thread sleeps: DNS servers that stay silent are noticed sooner.
const NAP_MAX: Duration = Duration::from_secs(3600);
/// The largest question or request.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Seconds since 1970, in which leases are counted so that they outlive the process.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

struct Sockets {
    dhcp: Option<UdpSocket>,
    names: Vec<UdpSocket>,
    upstream: Vec<UdpSocket>,
    advertiser: Option<Advertiser>,
    watch: Option<(Watch, Watcher)>,
}

impl Service {
    /// Opens all sockets and begins to answer. `watcher` hears of changed packet filters.
    ///
    /// # Errors
    /// A socket cannot be had: another server has it, or the right is missing.
    pub fn start(settings: Settings, watcher: Option<Watcher>) -> io::Result<Self> {
        let stop = Arc::new(rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?);
        let dhcp = settings.dhcp.as_ref().map(|_| dhcp_socket(&settings.link)).transpose()?;
        let (mut names, mut listeners) = (None, Vec::new());
        if let Some((names_settings, addresses)) = settings.names {
            for address in addresses {
                listeners.push(name_socket(address)?);
            }
            names = Some(Names::new(names_settings));
        }
        let upstream = if names.is_some() { upstream_sockets() } else { Vec::new() };
        let advertiser = match settings.advertise {
            Some((prefixes, routed)) => Some(Advertiser::new(&settings.link, &prefixes, routed)?),
            None => None,
        };
        let watch = watcher.map(|watcher| Ok::<_, io::Error>((Watch::new()?, watcher)));
        let old = settings.leases.as_ref().map(|path| leases::load(path)).unwrap_or_default();
        let shared = Arc::new(Mutex::new(Shared {
            server: settings.dhcp.map(|settings| Server::new(settings, old)),
            names,
            leases: settings.leases,
        }));
        let sockets =
            Sockets { dhcp, names: listeners, upstream, advertiser, watch: watch.transpose()? };
        let (end, common) = (Arc::clone(&stop), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name(format!("net {}", settings.link))
            .spawn(move || run(sockets, &end, &common))?;
        Ok(Self { stop, shared, thread: Some(thread) })
    }

    /// The leases that hold: the moments at which they end count from 1970.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        let shared = self.shared.lock();
        shared.server.iter().flat_map(|server| server.leases(now()).cloned()).collect()
    }

    /// Changes what is offered; sockets and leases stay.
    pub fn change(&self, dhcp: Option<dhcp::Settings>, names: Option<NameSettings>) {
        let mut shared = self.shared.lock();
        if let (Some(server), Some(settings)) = (&mut shared.server, dhcp) {
            server.set_settings(settings);
        }
        if let (Some(own), Some(settings)) = (&mut shared.names, names) {
            own.change(settings);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn dhcp_socket(link: &str) -> io::Result<UdpSocket> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // Every network has a server of its own on the same port, told apart by the link.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    bind_to_device(&socket, link)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, dhcp::SERVER_PORT)))?;
    Ok(socket.into())
}

fn name_socket(address: IpAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    // An address of version 6 is not usable at once: others are asked first whether they have it.
    sockopt::set_ip_freebind(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::from((address, crate::dns::PORT)))?;
    Ok(socket.into())
}

/// One for each version of IP that this host has.
fn upstream_sockets() -> Vec<UdpSocket> {
    let any = ["0.0.0.0:0", "[::]:0"].into_iter().filter_map(|any| UdpSocket::bind(any).ok());
    any.filter(|socket| socket.set_nonblocking(true).is_ok()).collect()
}

fn run(mut sockets: Sockets, stop: &OwnedFd, shared: &Mutex<Shared>) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let ready = wait(&sockets, stop, shared);
        if ready.first().is_none_or(|stop| *stop) {
            return;
        }
        if let Some(socket) = &sockets.dhcp {
            serve_dhcp(socket, shared, &mut buffer);
        }
        let mut guard = shared.lock();
        let Shared { server, names, .. } = &mut *guard;
        if let Some(names) = names {
            let leases: Vec<Lease> =
                server.iter().flat_map(|server| server.leases(now()).cloned()).collect();
            names.serve(&sockets.names, &sockets.upstream, &leases, &mut buffer);
        }
        drop(guard);
        if let Some(advertiser) = &mut sockets.advertiser {
            advertiser.serve(&mut buffer);
        }
        if let Some((watch, tell)) = &sockets.watch
            && ready.last() == Some(&true)
        {
            watch.drain();
            tell();
        }
    }
}

/// Sleeps until something is to be done: whether to stop is the first answer, whether packet
/// filters have changed the last. No answer means that waiting is impossible.
fn wait(sockets: &Sockets, stop: &OwnedFd, shared: &Mutex<Shared>) -> Vec<bool> {
    let start = Instant::now();
    let names = shared.lock().names.as_ref().and_then(Names::deadline);
    let advertise = sockets.advertiser.as_ref().map(Advertiser::deadline);
    let until = names.into_iter().chain(advertise).min();
    let nap = until.map_or(NAP_MAX, |until| until.saturating_duration_since(start)).min(NAP_MAX);
    // A little later than needed, so that nothing is found to be early.
    let nap = nap + Duration::from_millis(2);
    let mut list = vec![PollFd::new(stop, PollFlags::IN)];
    list.extend(sockets.dhcp.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
    list.extend(sockets.names.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
    list.extend(sockets.upstream.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
    if let Some(advertiser) = &sockets.advertiser {
        list.push(PollFd::from_borrowed_fd(advertiser.as_fd(), PollFlags::IN));
    }
    if let Some((watch, _)) = &sockets.watch {
        list.push(PollFd::new(watch, PollFlags::IN));
    }
    let timeout = Timespec {
        tv_sec: i64::try_from(nap.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: nap.subsec_nanos().into(),
    };
    match poll(&mut list, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {
            let ready = list.iter().map(|one| !one.revents().is_empty());
            ready.collect()
        }
        Err(_) => Vec::new(),
    }
}

fn serve_dhcp(socket: &UdpSocket, shared: &Mutex<Shared>, buffer: &mut [u8]) {
    while let Ok((length, _)) = socket.recv_from(buffer) {
        let Some(message) = dhcp::Message::read(&buffer[..length]) else { continue };
        let mut shared = shared.lock();
        let Some(server) = &mut shared.server else { return };
        let Some(reply) = server.answer(&message, now()) else {
            leases::save(&shared);
            continue;
        };
        if reply.kind() != Some(dhcp::Kind::Offer) {
            leases::save(&shared);
        }
        let to = match (message.relay, message.client) {
            (relay, _) if !relay.is_unspecified() => (relay, dhcp::SERVER_PORT),
            (_, client) if !client.is_unspecified() => (client, dhcp::CLIENT_PORT),
            // It has no address yet, and the kernel cannot ask who has it.
            _ => (Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT),
        };
        // A guest that is gone asks again.
        _ = socket.send_to(&reply.bytes(), to);
    }
}
