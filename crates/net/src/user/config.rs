//! What the guest sees of a user-mode network.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// A user-mode network.
#[derive(Clone, Debug)]
pub struct Config {
    /// IPv4; `None`: switched off.
    pub ipv4: Option<Ipv4Config>,
    /// IPv6; `None`: switched off.
    pub ipv6: Option<Ipv6Config>,
    /// The guest reaches nothing but what is forwarded to or from it.
    pub restrict: bool,
    /// Connections to the gateway reach the host's own loopback services.
    pub host_loopback: bool,
    /// The name that DHCP gives to the guest.
    pub host_name: Option<String>,
    /// The domain that DHCP gives to the guest.
    pub domain: Option<String>,
    /// Domains that the guest searches.
    pub search: Vec<String>,
    /// The boot file that DHCP names.
    pub boot_file: Option<String>,
    /// The directory that TFTP serves; `None`: no TFTP.
    pub tftp_root: Option<PathBuf>,
    /// The TFTP server's name that DHCP gives.
    pub tftp_name: Option<String>,
    /// Where the host lists its name servers.
    pub resolv_conf: PathBuf,
    /// Name servers to use instead of the listed ones; none: those that are listed.
    pub name_servers: Vec<SocketAddr>,
    /// The largest IP packet that the guest's link carries.
    pub mtu: u16,
    /// Services that the guest finds at addresses of its own network.
    pub guest_forwards: Vec<GuestForward>,
}

/// The IPv4 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Config {
    /// The network's address.
    pub network: Ipv4Addr,
    /// How many bits of it count.
    pub prefix: u8,
    /// The gateway, which is also the host as the guest sees it.
    pub host: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
    /// The first address that DHCP gives.
    pub dhcp_start: Ipv4Addr,
}

/// The IPv6 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Config {
    /// The network's address.
    pub prefix: Ipv6Addr,
    /// How many bits of it count.
    pub prefix_length: u8,
    /// The router, which is also the host as the guest sees it.
    pub host: Ipv6Addr,
    /// The name server.
    pub dns: Ipv6Addr,
}

/// A service at an address of the guest's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestForward {
    /// Where the guest finds it.
    pub at: SocketAddr,
    /// What is behind it.
    pub to: ForwardTarget,
}

/// What is behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardTarget {
    /// A program started for each connection, which is its standard input and output.
    Command(OsString),
    /// A TCP service, connected to for each connection.
    Tcp(SocketAddr),
    /// A unix socket, connected to for each connection.
    Unix(PathBuf),
}

/// The router's address on the link.
pub(crate) const ROUTER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// What IPv6 asks of every link (RFC 8200 section 5).
const MTU_MIN: u16 = 1280;
/// How many clients DHCP serves.
const DHCP_CLIENTS: u32 = 16;

impl Config {
    /// The network that guests' images, scripts and habits expect: 10.0.2.0/24 and fec0::/64,
    /// with the host's loopback services at the gateway.
    #[must_use]
    pub fn customary() -> Self {
        Self {
            ipv4: Some(Ipv4Config::in_network(Ipv4Addr::new(10, 0, 2, 0), 24)),
            ipv6: Some(Ipv6Config::in_network(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 64)),
            restrict: false,
            host_loopback: true,
            host_name: None,
            domain: None,
            search: Vec::new(),
            boot_file: None,
            tftp_root: None,
            tftp_name: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            name_servers: Vec::new(),
            mtu: 1500,
            guest_forwards: Vec::new(),
        }
    }

    /// Whether the addresses fit together.
    ///
    /// # Errors
    /// Names the address that does not fit.
    pub fn check(&self) -> Result<()> {
        if self.ipv4.is_none() && self.ipv6.is_none() {
            return Err(Error::NoProtocol);
        }
        if self.mtu < MTU_MIN {
            return Err(Error::Mtu(self.mtu));
        }
        if let Some(v4) = &self.ipv4 {
            v4.check()?;
        }
        if let Some(v6) = &self.ipv6 {
            v6.check()?;
        }
        for forward in &self.guest_forwards {
            let address = forward.at.ip();
            if !self.is_in_network(address) || self.is_gateway(address) {
                return Err(Error::OutsideNetwork {
                    what: "guest forwarding's",
                    address: address.to_string(),
                    network: self.networks(),
                });
            }
        }
        Ok(())
    }

    /// The default guest of a forwarding: the first that DHCP serves.
    #[must_use]
    pub fn first_guest(&self) -> Option<Ipv4Addr> {
        self.ipv4.map(|v4| v4.dhcp_start)
    }

    pub(crate) fn networks(&self) -> String {
        let v4 = self.ipv4.map(|v4| format!("{}/{}", v4.network, v4.prefix));
        let v6 = self.ipv6.map(|v6| format!("{}/{}", v6.prefix, v6.prefix_length));
        v4.into_iter().chain(v6).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|v4| v4.host == address),
            IpAddr::V6(address) => {
                self.ipv6.is_some_and(|v6| v6.host == address || ROUTER_LINK_LOCAL == address)
            }
        }
    }

    pub(crate) fn is_dns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|v4| v4.dns == address),
            IpAddr::V6(address) => self.ipv6.is_some_and(|v6| v6.dns == address),
        }
    }

    /// Whether the address is one that we answer for on the link.
    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        self.is_gateway(address)
            || self.is_dns(address)
            || self.guest_forwards.iter().any(|forward| forward.at.ip() == address)
    }

    /// Whether a guest may have the address.
    pub(crate) fn is_in_network(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|v4| v4.contains(address)),
            IpAddr::V6(address) => {
                self.ipv6.is_some_and(|v6| v6.contains(address))
                    || (self.ipv6.is_some() && address.is_unicast_link_local())
            }
        }
    }

    pub(crate) fn gateway(&self, is_v4: bool) -> Option<IpAddr> {
        if is_v4 {
            self.ipv4.map(|v4| IpAddr::V4(v4.host))
        } else {
            self.ipv6.map(|v6| IpAddr::V6(v6.host))
        }
    }

    /// Where on the host what the guest sends to `to` goes; `None`: nowhere.
    /// The name server and guest forwardings are not asked here.
    pub(crate) fn host_address(&self, to: SocketAddr) -> Option<SocketAddr> {
        if self.restrict {
            return None;
        }
        if self.is_gateway(to.ip()) {
            let loopback: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            return self.host_loopback.then(|| SocketAddr::new(loopback, to.port()));
        }
        (!self.is_in_network(to.ip()) && is_routable(to.ip())).then_some(to)
    }
}

/// Whether an address may be left to the host's routing. The host takes some addresses for its
/// own, which would open its loopback services by another door.
fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => {
            let embedded = address.to_ipv4_mapped().is_some();
            let compatible = address.segments()[..6] == [0; 6];
            !embedded && !compatible && !address.is_multicast() && !address.is_unicast_link_local()
        }
    }
}

impl Ipv4Config {
    /// A network with the customary addresses: host 2, name server 3, first guest 15.
    #[must_use]
    pub fn in_network(network: Ipv4Addr, prefix: u8) -> Self {
        let base = network.to_bits() & mask_bits(prefix);
        let address = |last: u32| Ipv4Addr::from_bits(base.saturating_add(last));
        Self {
            network: Ipv4Addr::from_bits(base),
            prefix,
            host: address(2),
            dns: address(3),
            dhcp_start: address(15),
        }
    }

    /// The network's mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_bits(self.prefix))
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = mask_bits(self.prefix);
        address.to_bits() & mask == self.network.to_bits() & mask
    }

    /// The last address that a guest may have.
    fn last(&self) -> u32 {
        (self.network.to_bits() | !mask_bits(self.prefix)) - 1
    }

    /// The addresses that DHCP gives.
    pub(crate) fn dhcp_range(&self) -> (Ipv4Addr, Ipv4Addr) {
        let first = self.dhcp_start.to_bits();
        let last = first.saturating_add(DHCP_CLIENTS - 1).min(self.last());
        (self.dhcp_start, Ipv4Addr::from_bits(last))
    }

    pub(crate) fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        address == Ipv4Addr::BROADCAST
            || address.to_bits() == self.network.to_bits() | !mask_bits(self.prefix)
    }

    fn check(&self) -> Result<()> {
        let network = format!("{}/{}", self.network, self.prefix);
        let misplaced = self.network.to_bits() & !mask_bits(self.prefix) != 0;
        if !(8..=29).contains(&self.prefix) || misplaced {
            return Err(Error::Network { network });
        }
        for (what, address) in
            [("host", self.host), ("name server's", self.dns), ("first DHCP", self.dhcp_start)]
        {
            let bits = address.to_bits();
            if !self.contains(address) || bits == self.network.to_bits() || bits > self.last() {
                return Err(Error::OutsideNetwork { what, address: address.to_string(), network });
            }
        }
        Ok(())
    }
}

fn mask_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

impl Ipv6Config {
    /// A network with the customary addresses: host 2, name server 3.
    #[must_use]
    pub fn in_network(prefix: Ipv6Addr, prefix_length: u8) -> Self {
        let base = prefix.to_bits() & mask_bits_v6(prefix_length);
        let address = |last: u128| Ipv6Addr::from_bits(base | last);
        Self { prefix: address(0), prefix_length, host: address(2), dns: address(3) }
    }

    fn contains(&self, address: Ipv6Addr) -> bool {
        let mask = mask_bits_v6(self.prefix_length);
        address.to_bits() & mask == self.prefix.to_bits() & mask
    }

    fn check(&self) -> Result<()> {
        let network = format!("{}/{}", self.prefix, self.prefix_length);
        let special = self.prefix.is_multicast() || self.prefix.is_unicast_link_local();
        if !(8..=126).contains(&self.prefix_length) || special {
            return Err(Error::Network { network });
        }
        for (what, address) in [("IPv6 host", self.host), ("IPv6 name server's", self.dns)] {
            if !self.contains(address) {
                return Err(Error::OutsideNetwork { what, address: address.to_string(), network });
            }
        }
        Ok(())
    }
}

fn mask_bits_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customary_addresses() {
        let config = Config::customary();
        config.check().unwrap();
        let v4 = config.ipv4.unwrap();
        let all = [v4.network, v4.host, v4.dns, v4.dhcp_start, v4.mask()].map(|a| a.to_string());
        assert_eq!(all, ["10.0.2.0", "10.0.2.2", "10.0.2.3", "10.0.2.15", "255.255.255.0"]);
        let v6 = config.ipv6.unwrap();
        assert_eq!([v6.host, v6.dns].map(|a| a.to_string()), ["fec0::2", "fec0::3"]);
    }

    #[test]
    fn loopback_has_one_door() {
        let mut config = Config::customary();
        let host = |config: &Config, to: &str| {
            config.host_address(to.parse().unwrap()).map(|address| address.to_string())
        };
        for (to, expected) in [
            ("10.0.2.2:80", Some("127.0.0.1:80")),
            ("[fec0::2]:80", Some("[::1]:80")),
            ("1.2.3.4:80", Some("1.2.3.4:80")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]:80")),
            ("127.0.0.1:80", None),
            ("127.9.9.9:80", None),
            ("0.0.0.0:80", None),
            ("255.255.255.255:80", None),
            ("224.0.0.1:80", None),
            ("10.0.2.77:80", None),
            ("[::1]:80", None),
            ("[::]:80", None),
            ("[::ffff:127.0.0.1]:80", None),
            ("[::127.0.0.1]:80", None),
            ("[fe80::9]:80", None),
            ("[ff02::1]:80", None),
        ] {
            assert_eq!(host(&config, to).as_deref(), expected, "{to}");
        }
        config.host_loopback = false;
        assert_eq!(host(&config, "10.0.2.2:80"), None);
        assert!(host(&config, "1.2.3.4:80").is_some());
        config.restrict = true;
        assert_eq!(host(&config, "1.2.3.4:80"), None);
    }

    #[test]
    fn addresses_outside_the_network_are_named() {
        let check = |change: fn(&mut Config)| {
            let mut config = Config::customary();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        let text = check(|config| {
            config.ipv4.as_mut().unwrap().dns = Ipv4Addr::new(10, 0, 3, 3);
        });
        assert!(text.contains("10.0.3.3") && text.contains("10.0.2.0/24"), "{text}");
        let text = check(|config| config.ipv4.as_mut().unwrap().prefix = 31);
        assert!(text.contains("10.0.2.0/31"), "{text}");
        let text = check(|config| {
            config.ipv4 = None;
            config.ipv6 = None;
        });
        assert!(text.contains("Neither"), "{text}");
    }
}
