//! Links and addresses: `rtnetlink(7)`.

use std::io;
use std::net::IpAddr;

use super::{ACKNOWLEDGE, Builder, CREATE, DUMP, EXCLUSIVE, REQUEST, Socket, find};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;

/// Attributes of links.
const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// Attributes of bridges.
const BRIDGE_FORWARD_DELAY: u16 = 1;
const BRIDGE_STP: u16 = 5;
/// Attributes of addresses and routes.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_DEVICE: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_METRIC: u16 = 6;

const UP: u32 = 1;

/// A bridge to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Look for loops with other bridges.
    pub stp: bool,
    /// Seconds before a new port passes frames on.
    pub forward_delay_s: u32,
    /// The largest packet.
    pub mtu: Option<u32>,
}

/// A conversation with the kernel about links.
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens one.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { socket: Socket::new(None)? })
    }

    /// Makes a bridge, still switched off.
    ///
    /// # Errors
    /// `AlreadyExists`, `PermissionDenied`, or what else the kernel says.
    pub fn add_bridge(&self, bridge: &Bridge) -> io::Result<()> {
        let mut builder = Builder::default();
        let flags = REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE;
        builder.message(NEW_LINK, flags, 1, &link(0, 0, 0)).text(LINK_NAME, &bridge.name);
        if let Some(mac) = bridge.mac {
            builder.attribute(LINK_ADDRESS, &mac);
        }
        if let Some(mtu) = bridge.mtu {
            builder.attribute(LINK_MTU, &mtu.to_ne_bytes());
        }
        builder.nested(LINK_INFO, |info| {
            info.text(INFO_KIND, "bridge").nested(INFO_DATA, |data| {
                // Hundredths of a second.
                let delay = bridge.forward_delay_s.saturating_mul(100);
                data.attribute(BRIDGE_STP, &u32::from(bridge.stp).to_ne_bytes());
                if bridge.forward_delay_s >= 2 || !bridge.stp {
                    data.attribute(BRIDGE_FORWARD_DELAY, &delay.to_ne_bytes());
                }
            });
        });
        self.socket.exchange(&builder.finish(), 1).map(|_| ())
    }

    /// Removes a link.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut builder = Builder::default();
        builder
            .message(DELETE_LINK, REQUEST | ACKNOWLEDGE, 1, &link(0, 0, 0))
            .text(LINK_NAME, name);
        self.socket.exchange(&builder.finish(), 1).map(|_| ())
    }

    /// Switches a link on or off.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let mut builder = Builder::default();
        let flags = if up { UP } else { 0 };
        builder
            .message(NEW_LINK, REQUEST | ACKNOWLEDGE, 1, &link(0, flags, UP))
            .text(LINK_NAME, name);
        self.socket.exchange(&builder.finish(), 1).map(|_| ())
    }

    /// Plugs a link into a bridge, or out of the one it is in.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn set_master(&self, name: &str, bridge: Option<&str>) -> io::Result<()> {
        let master = bridge.map(|bridge| self.index(bridge)).transpose()?.unwrap_or(0);
        let mut builder = Builder::default();
        builder
            .message(NEW_LINK, REQUEST | ACKNOWLEDGE, 1, &link(0, 0, 0))
            .text(LINK_NAME, name)
            .attribute(LINK_MASTER, &master.to_ne_bytes());
        self.socket.exchange(&builder.finish(), 1).map(|_| ())
    }

    /// The number of a link.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut builder = Builder::default();
        builder.message(GET_LINK, REQUEST | ACKNOWLEDGE, 1, &link(0, 0, 0)).text(LINK_NAME, name);
        let answers = self.socket.exchange(&builder.finish(), 1)?;
        let index = answers
            .iter()
            .find_map(|(_, body)| Some(u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?)));
        index.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives a link an address; one that it has is no error.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let index = self.index(name)?;
        let mut builder = Builder::default();
        let mut fixed = vec![family(address), prefix, 0, 0];
        fixed.extend(index.to_ne_bytes());
        builder.message(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE, 1, &fixed);
        let bytes = octets(address);
        builder.attribute(LOCAL, &bytes).attribute(ADDRESS, &bytes);
        if let IpAddr::V4(address) = address
            && prefix < 31
        {
            let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            builder.attribute(BROADCAST, &(u32::from(address) | hosts).to_be_bytes());
        }
        match self.socket.exchange(&builder.finish(), 1) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Leads packets for a network through a gateway on a link.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn add_route(
        &self,
        name: &str,
        (network, prefix): (IpAddr, u8),
        gateway: IpAddr,
        metric: Option<u32>,
    ) -> io::Result<()> {
        const TABLE_MAIN: u8 = 254;
        const BY_ADMINISTRATOR: u8 = 4;
        const UNICAST: u8 = 1;
        let index = self.index(name)?;
        let mut builder = Builder::default();
        let fixed =
            [family(network), prefix, 0, 0, TABLE_MAIN, BY_ADMINISTRATOR, 0, UNICAST, 0, 0, 0, 0];
        builder
            .message(NEW_ROUTE, REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE, 1, &fixed)
            .attribute(ROUTE_DESTINATION, &octets(network))
            .attribute(ROUTE_GATEWAY, &octets(gateway))
            .attribute(ROUTE_DEVICE, &index.to_ne_bytes());
        if let Some(metric) = metric {
            builder.attribute(ROUTE_METRIC, &metric.to_ne_bytes());
        }
        self.socket.exchange(&builder.finish(), 1).map(|_| ())
    }

    /// All addresses of version 4 with their prefixes, of all links.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn addresses(&self) -> io::Result<Vec<(u32, IpAddr, u8)>> {
        let mut builder = Builder::default();
        builder.message(GET_ADDRESS, REQUEST | DUMP, 1, &[0, 0, 0, 0, 0, 0, 0, 0]);
        let answers = self.socket.exchange(&builder.finish(), usize::MAX)?;
        let read = |body: &[u8]| {
            let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
            let value = find(body.get(8..)?, ADDRESS)?;
            let address = match value.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
                _ => return None,
            };
            Some((index, address, *body.get(1)?))
        };
        Ok(answers.iter().filter_map(|(_, body)| read(body)).collect())
    }
}

fn family(address: IpAddr) -> u8 {
    const V4: u8 = 2;
    const V6: u8 = 10;
    if address.is_ipv4() { V4 } else { V6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The fixed part of a message about a link.
fn link(index: u32, flags: u32, changed: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&changed.to_ne_bytes());
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_link_is_found_and_others_are_not() {
        let route = Route::new().unwrap();
        assert_eq!(route.index("lo").unwrap(), 1);
        assert!(route.index("no-such-link").is_err());
        // A fresh network namespace has a loopback link without addresses.
        for (index, _, prefix) in route.addresses().unwrap() {
            assert!(index > 0 && prefix <= 128);
        }
    }
}
