//! ICMP for both IP versions (RFC 792, RFC 4443): echo, unreachable.

use core::net::IpAddr;

use super::ip::{self, Packet};
use super::{be16, checksum};

/// Bytes before a message's body.
pub const HEADER: usize = 8;

/// Why something could not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route to the network.
    Network,
    /// The host does not answer.
    Host,
    /// Nobody listens at the port.
    Port,
    /// A firewall forbids it.
    Prohibited,
}

/// An echo, asked or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// An answer rather than a question.
    pub is_reply: bool,
    /// Which program asked.
    pub identifier: u16,
    /// Which of its questions.
    pub sequence: u16,
    /// What is to be sent back.
    pub payload: &'a [u8],
}

impl<'a> Echo<'a> {
    /// Reads an echo message of a packet, `None` for all other messages.
    #[must_use]
    pub fn read(packet: &Packet<'a>) -> Option<Self> {
        let bytes = packet.payload;
        if !checksum_is_right(packet) {
            return None;
        }
        let (request, reply) = kinds(packet.source);
        let kind = *bytes.first()?;
        if (kind != request && kind != reply) || *bytes.get(1)? != 0 {
            return None;
        }
        Some(Self {
            is_reply: kind == reply,
            identifier: be16(bytes, 4)?,
            sequence: be16(bytes, 6)?,
            payload: bytes.get(HEADER..)?,
        })
    }

    /// The message's bytes, as a ping socket or a packet takes them.
    #[must_use]
    pub fn bytes(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let (request, reply) = kinds(source);
        let kind = if self.is_reply { reply } else { request };
        let [a, b] = self.identifier.to_be_bytes();
        let [c, d] = self.sequence.to_be_bytes();
        let mut bytes = vec![kind, 0, 0, 0, a, b, c, d];
        bytes.extend(self.payload);
        finish(&mut bytes, source, destination);
        bytes
    }
}

fn kinds(family: IpAddr) -> (u8, u8) {
    if family.is_ipv4() { (8, 0) } else { (128, 129) }
}

/// Whether a message's checksum is right; `ICMPv6` includes the pseudo header.
#[must_use]
pub fn checksum_is_right(packet: &Packet<'_>) -> bool {
    let bytes = packet.payload;
    sum(packet.source, packet.destination, bytes.len()).with(bytes).finish() == 0
}

fn sum(source: IpAddr, destination: IpAddr, length: usize) -> checksum::Sum {
    if source.is_ipv4() {
        checksum::Sum::default()
    } else {
        checksum::pseudo(source, destination, ip::ICMPV6, length)
    }
}

/// Stores the checksum of a message whose checksum field is still 0.
pub fn finish(bytes: &mut [u8], source: IpAddr, destination: IpAddr) {
    let sum = sum(source, destination, bytes.len()).with(bytes).finish();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The message that `original` (a packet from its IP header on) cannot be delivered.
#[must_use]
pub fn unreachable(
    why: Unreachable,
    source: IpAddr,
    destination: IpAddr,
    original: &[u8],
) -> Vec<u8> {
    let (kind, code, quoted) = match (source, why) {
        (IpAddr::V4(_), Unreachable::Network) => (3, 0, 548),
        (IpAddr::V4(_), Unreachable::Host) => (3, 1, 548),
        (IpAddr::V4(_), Unreachable::Port) => (3, 3, 548),
        (IpAddr::V4(_), Unreachable::Prohibited) => (3, 13, 548),
        (IpAddr::V6(_), Unreachable::Network) => (1, 0, 1232),
        (IpAddr::V6(_), Unreachable::Prohibited) => (1, 1, 1232),
        (IpAddr::V6(_), Unreachable::Host) => (1, 3, 1232),
        (IpAddr::V6(_), Unreachable::Port) => (1, 4, 1232),
    };
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    bytes.extend(&original[..original.len().min(quoted)]);
    finish(&mut bytes, source, destination);
    bytes
}
