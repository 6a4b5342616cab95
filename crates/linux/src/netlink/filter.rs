//! Packet filter tables (nftables): one table of family `inet`, made whole in one transaction.
//!
//! The expressions are those of the kernel's `linux/netfilter/nf_tables.h`, only as many of them as
//! virtual networks need.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::{ACKNOWLEDGE, APPEND, Builder, CREATE, REQUEST, Socket};

/// The packet filter's part of a message type.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// IPv4 and IPv6 in one table.
const FAMILY_INET: u8 = 1;
/// Told when tables change.
const GROUP_TABLES: u32 = 1 << 6;

/// The register that conditions are computed in.
const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;
const VERDICT_REGISTER: u32 = 0;

/// Where packets meet a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// On the way from one link to another.
    Forward,
    /// About to leave, where source addresses are translated.
    SourceNat,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Came in by this link.
    From(String),
    /// Goes out by this link.
    To(String),
    /// The source is in this network.
    Source(IpAddr, u8),
    /// The destination is in this network.
    Destination(IpAddr, u8),
    /// The destination is not.
    DestinationNot(IpAddr, u8),
    /// Belongs to a known connection.
    Established,
    /// TCP (6) or UDP (17).
    Protocol(u8),
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it pass.
    Accept,
    /// Tell the sender that nobody is there.
    Reject,
    /// Look at no more rules of this chain.
    Return,
    /// Send it with the link's own address, and with ports of this range.
    Masquerade(Option<(u16, u16)>),
    /// Send it with an address of this range, and with ports of this range.
    Source((Ipv4Addr, Ipv4Addr), Option<(u16, u16)>),
}

/// A rule: when all conditions hold, the action.
pub type Rule = (Vec<Match>, Action);

/// A table of chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name, by which it is found again.
    pub name: String,
    /// Rules by the place where they apply.
    pub chains: Vec<(Hook, Vec<Rule>)>,
}

/// Puts a table in place of whatever has its name, in one transaction.
///
/// # Errors
/// As the kernel says: the right or a kernel module is missing. Nothing has changed then.
pub fn replace(table: &Table) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.begin();
    // Deleting what may not be there would fail, so it is made first.
    batch.add(NEW_TABLE, CREATE, |message| _ = message.text(1, &table.name));
    batch.add(DELETE_TABLE, 0, |message| _ = message.text(1, &table.name));
    batch.add(NEW_TABLE, CREATE, |message| _ = message.text(1, &table.name));
    for (hook, rules) in &table.chains {
        let (name, number, priority, kind): (&str, u32, i32, &str) = match hook {
            Hook::Forward => ("forward", 2, 0, "filter"),
            Hook::SourceNat => ("postrouting", 4, 100, "nat"),
        };
        batch.add(NEW_CHAIN, CREATE, |message| {
            message.text(1, &table.name).text(3, name);
            message.nested(4, |inside| {
                inside.big(1, number).big(2, priority.cast_unsigned());
            });
            message.text(7, kind);
        });
        for rule in rules {
            batch.add(NEW_RULE, CREATE | APPEND, |message| {
                message.text(1, &table.name).text(2, name);
                message.nested(4, |list| expressions(list, rule));
            });
        }
    }
    batch.commit()
}

/// Removes a table; one that is not there is no error.
///
/// # Errors
/// As the kernel says.
pub fn remove(name: &str) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.begin();
    batch.add(DELETE_TABLE, 0, |message| _ = message.text(1, name));
    match batch.commit() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether there is a table of this name.
///
/// # Errors
/// As the kernel says.
pub fn exists(name: &str) -> io::Result<bool> {
    let mut builder = Builder::default();
    builder.message(GET_TABLE, REQUEST | ACKNOWLEDGE, 1, &[FAMILY_INET, 0, 0, 0]).text(1, name);
    match Socket::new(Some(netlink::NETFILTER))?.exchange(&builder.finish(), 1) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Is readable when any table has changed, whoever did it.
pub struct Watch {
    descriptor: std::os::fd::OwnedFd,
}

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn new() -> io::Result<Self> {
        let descriptor = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::NETFILTER),
        )?;
        bind(&descriptor, &SocketAddrNetlink::new(0, GROUP_TABLES))?;
        Ok(Self { descriptor })
    }

    /// Forgets what has been told, lost messages included.
    pub fn drain(&self) {
        let mut buffer = [0_u8; 8192];
        for _ in 0..1024 {
            match recv(&self.descriptor, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[derive(Default)]
struct Batch {
    messages: Vec<(u16, u16, Vec<u8>)>,
}

impl Batch {
    fn begin(&mut self) {
        self.messages.clear();
    }

    fn add(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Builder)) {
        let mut builder = Builder::default();
        builder.message(kind, flags, 0, &[FAMILY_INET, 0, 0, 0]);
        fill(&mut builder);
        self.messages.push((kind, flags, builder.finish()));
    }

    fn commit(self) -> io::Result<()> {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let mut bytes = Vec::new();
        let mut builder = Builder::default();
        builder.message(BATCH_BEGIN, REQUEST, 0, &[0, 0, high, low]);
        bytes.extend(builder.finish());
        let count = self.messages.len();
        for (place, (_, flags, mut message)) in self.messages.into_iter().enumerate() {
            // The last one's acknowledgement says that all of it is done.
            let acknowledge = if place + 1 == count { ACKNOWLEDGE } else { 0 };
            let flags = flags | REQUEST | acknowledge;
            message[6..8].copy_from_slice(&flags.to_ne_bytes());
            bytes.extend(message);
        }
        builder.message(BATCH_END, REQUEST, 0, &[0, 0, high, low]);
        bytes.extend(builder.finish());
        Socket::new(Some(netlink::NETFILTER))?.exchange(&bytes, 1).map(|_| ())
    }
}

fn expressions(list: &mut Builder, (conditions, action): &Rule) {
    for condition in conditions {
        match condition {
            Match::From(link) => compare_meta(list, 6, &link_name(link)),
            Match::To(link) => compare_meta(list, 7, &link_name(link)),
            Match::Source(network, prefix) => address(list, *network, *prefix, false, true),
            Match::Destination(network, prefix) => address(list, *network, *prefix, true, true),
            Match::DestinationNot(network, prefix) => {
                address(list, *network, *prefix, true, false);
            }
            Match::Protocol(number) => compare_meta(list, 16, &[*number]),
            Match::Established => {
                const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
                expression(list, "ct", |ct| _ = ct.big(1, REGISTER).big(2, 0));
                mask(list, &ESTABLISHED_OR_RELATED.to_ne_bytes());
                compare(list, false, &[0; 4]);
            }
        }
    }
    match action {
        Action::Accept => verdict(list, 1),
        Action::Return => verdict(list, -5),
        Action::Reject => {
            // An ICMP message of the packet's own version: port unreachable.
            expression(list, "reject", |reject| _ = reject.big(1, 2).attribute(2, &[1]));
        }
        Action::Masquerade(ports) => {
            load_ports(list, *ports);
            expression(list, "masq", |masquerade| {
                if ports.is_some() {
                    masquerade.big(2, REGISTER).big(3, SECOND_REGISTER);
                }
            });
        }
        Action::Source((first, last), ports) => {
            load_ports(list, *ports);
            const ADDRESS_REGISTERS: (u32, u32) = (3, 4);
            immediate(list, ADDRESS_REGISTERS.0, &first.octets());
            immediate(list, ADDRESS_REGISTERS.1, &last.octets());
            expression(list, "nat", |nat| {
                const FAMILY_IPV4: u32 = 2;
                nat.big(1, 0).big(2, FAMILY_IPV4);
                nat.big(3, ADDRESS_REGISTERS.0).big(4, ADDRESS_REGISTERS.1);
                if ports.is_some() {
                    nat.big(5, REGISTER).big(6, SECOND_REGISTER);
                }
            });
        }
    }
}

fn load_ports(list: &mut Builder, ports: Option<(u16, u16)>) {
    if let Some((first, last)) = ports {
        immediate(list, REGISTER, &first.to_be_bytes());
        immediate(list, SECOND_REGISTER, &last.to_be_bytes());
    }
}

fn expression(list: &mut Builder, name: &str, fill: impl FnOnce(&mut Builder)) {
    list.nested(1, |element| {
        element.text(1, name).nested(2, fill);
    });
}

fn verdict(list: &mut Builder, code: i32) {
    expression(list, "immediate", |inside| {
        inside.big(1, VERDICT_REGISTER).nested(2, |data| {
            data.nested(2, |verdict| _ = verdict.big(1, code.cast_unsigned()));
        });
    });
}

fn immediate(list: &mut Builder, register: u32, value: &[u8]) {
    expression(list, "immediate", |inside| {
        inside.big(1, register).nested(2, |data| _ = data.attribute(1, value));
    });
}

fn compare(list: &mut Builder, equal: bool, value: &[u8]) {
    expression(list, "cmp", |inside| {
        inside.big(1, REGISTER).big(2, u32::from(!equal));
        inside.nested(3, |data| _ = data.attribute(1, value));
    });
}

fn compare_meta(list: &mut Builder, key: u32, value: &[u8]) {
    expression(list, "meta", |meta| _ = meta.big(1, REGISTER).big(2, key));
    compare(list, true, value);
}

fn mask(list: &mut Builder, mask: &[u8]) {
    let length = u32::try_from(mask.len()).expect("registers are short");
    expression(list, "bitwise", |inside| {
        inside.big(1, REGISTER).big(2, REGISTER).big(3, length);
        inside.nested(4, |data| _ = data.attribute(1, mask));
        inside.nested(5, |data| _ = data.attribute(1, &vec![0; mask.len()]));
    });
}

/// Compares an address of the packet, of either version, with a network.
fn address(list: &mut Builder, network: IpAddr, prefix: u8, destination: bool, equal: bool) {
    const PROTOCOL_FAMILY: u32 = 15;
    const NETWORK_HEADER: u32 = 1;
    let (bytes, family, offset) = match network {
        IpAddr::V4(address) => (address.octets().to_vec(), 2, if destination { 16 } else { 12 }),
        IpAddr::V6(address) => (address.octets().to_vec(), 10, if destination { 24 } else { 8 }),
    };
    compare_meta(list, PROTOCOL_FAMILY, &[family]);
    let length = u32::try_from(bytes.len()).expect("addresses are short");
    expression(list, "payload", |inside| {
        inside.big(1, REGISTER).big(2, NETWORK_HEADER).big(3, offset).big(4, length);
    });
    let bits: Vec<u8> = (0..bytes.len())
        .map(|byte| {
            let own = usize::from(prefix).saturating_sub(byte * 8).min(8);
            u8::try_from(0xff00_u32 >> own & 0xff).expect("eight bits")
        })
        .collect();
    mask(list, &bits);
    let value: Vec<u8> = bytes.iter().zip(&bits).map(|(byte, bits)| byte & bits).collect();
    compare(list, equal, &value);
}

/// A link's name as the kernel keeps it.
fn link_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}
