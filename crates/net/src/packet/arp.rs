//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use super::{Mac, be16};

/// Bytes of a message.
pub const LENGTH: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// A question or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// An answer rather than a question.
    pub is_reply: bool,
    /// The sender's hardware address.
    pub sender_mac: Mac,
    /// The sender's address.
    pub sender: Ipv4Addr,
    /// The target's hardware address; meaningless in a question.
    pub target_mac: Mac,
    /// The address asked for.
    pub target: Ipv4Addr,
}

impl Message {
    /// Reads a message.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LENGTH)?;
        let ethernet_and_ipv4 = [0, 1, 8, 0, 6, 4];
        if bytes[..6] != ethernet_and_ipv4 {
            return None;
        }
        let is_reply = match be16(bytes, 6)? {
            REQUEST => false,
            REPLY => true,
            _ => return None,
        };
        let mac = |at: usize| Mac([0, 1, 2, 3, 4, 5].map(|byte| bytes[at + byte]));
        let address = |at: usize| Ipv4Addr::from([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        Some(Self {
            is_reply,
            sender_mac: mac(8),
            sender: address(14),
            target_mac: mac(18),
            target: address(24),
        })
    }

    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        let operation = if self.is_reply { REPLY } else { REQUEST };
        bytes[6..8].copy_from_slice(&operation.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender_mac.0);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac.0);
        bytes[24..].copy_from_slice(&self.target.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let message = Message {
            is_reply: true,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender: Ipv4Addr::new(10, 0, 2, 2),
            target_mac: Mac([2, 0, 0, 0, 0, 2]),
            target: Ipv4Addr::new(10, 0, 2, 15),
        };
        assert_eq!(Message::read(&message.bytes()), Some(message));
    }

    #[test]
    fn other_hardware_and_short_messages_are_refused() {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&[0, 6, 8, 0, 6, 4, 0, 1]);
        assert_eq!(Message::read(&bytes), None);
        assert_eq!(Message::read(&bytes[..27]), None);
    }
}
