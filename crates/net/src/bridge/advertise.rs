//! Router advertisements (RFC 4861 section 4.2): hosts on the bridge make addresses of their own.

use core::net::{Ipv6Addr, SocketAddr};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use linux::netlink::route::Route;
use linux::socket::bind_to_device;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Between advertisements that nobody asked for.
const INTERVAL: Duration = Duration::from_secs(200);
/// A bridge without ports cannot send; one gets its first port soon.
const RETRY: Duration = Duration::from_secs(5);
/// Hosts that ask together are answered together.
const PAUSE: Duration = Duration::from_millis(100);
/// How long hosts believe in the router: three intervals.
const LIFETIME_SECONDS: u16 = 600;
const PREFIX_SECONDS: u32 = 86_400;

/// Tells hosts of networks.
pub struct Advertiser {
    /// A raw socket: the kernel adds the checksum.
    socket: UdpSocket,
    link: u32,
    message: Vec<u8>,
    next: Instant,
}

impl Advertiser {
    /// Begins with the next call of [`serve`](Self::serve).
    pub fn new(link: &str, prefixes: &[(Ipv6Addr, u8)], routed: bool) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(ipproto::ICMPV6);
        let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
        bind_to_device(&socket, link)?;
        // Neighbours prove by it that they are neighbours.
        sockopt::set_ipv6_multicast_hops(&socket, 255)?;
        let index = Route::new()?.index(link)?;
        sockopt::set_ipv6_add_membership(&socket, &ALL_ROUTERS, index)?;
        let message = message(prefixes, routed);
        Ok(Self { socket: socket.into(), link: index, message, next: Instant::now() })
    }

    /// When [`serve`](Self::serve) has something to do.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Hears who asks, and speaks when it is time.
    pub fn serve(&mut self, buffer: &mut [u8]) {
        let mut asked = false;
        while let Ok((length, _)) = self.socket.recv_from(buffer) {
            asked |= buffer[..length].first() == Some(&SOLICITATION);
        }
        let now = Instant::now();
        if asked {
            self.next = self.next.min(now + PAUSE);
        }
        if now < self.next {
            return;
        }
        let to = std::net::SocketAddrV6::new(ALL_NODES, 0, 0, self.link);
        let sent = self.socket.send_to(&self.message, SocketAddr::V6(to));
        self.next = now + if sent.is_ok() { INTERVAL } else { RETRY };
    }
}

impl AsFd for Advertiser {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn message(prefixes: &[(Ipv6Addr, u8)], routed: bool) -> Vec<u8> {
    let hops = 64;
    let lifetime = if routed { LIFETIME_SECONDS } else { 0 };
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, hops, 0];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    for (address, length) in prefixes {
        let (on_link, autonomous) = (0x80, 0x40);
        message.extend([3, 4, *length, on_link | autonomous]);
        message.extend(PREFIX_SECONDS.to_be_bytes());
        message.extend((PREFIX_SECONDS / 2).to_be_bytes());
        message.extend([0; 4]);
        let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
        message.extend((u128::from(*address) & mask).to_be_bytes());
        // The name server is the bridge (RFC 8106).
        message.extend([25, 3, 0, 0]);
        message.extend(u32::from(LIFETIME_SECONDS).to_be_bytes());
        message.extend(address.octets());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_names_the_network_and_the_name_server() {
        let address: Ipv6Addr = "fd00:1:2:3::1".parse().unwrap();
        let bytes = message(&[(address, 64)], true);
        assert_eq!((bytes[0], bytes.len()), (ADVERTISEMENT, 16 + 32 + 24));
        let network: Ipv6Addr = "fd00:1:2:3::".parse().unwrap();
        assert_eq!(bytes[32..48], network.octets());
        assert_eq!(bytes[56..72], address.octets());
        let silent = message(&[(address, 64)], false);
        assert_eq!(silent[6..8], [0, 0], "no way out");
    }
}
