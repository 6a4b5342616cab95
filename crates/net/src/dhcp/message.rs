//! `DHCPv4` messages (RFC 2131), BOOTP's among them.

use core::net::Ipv4Addr;

use super::options;
use crate::packet::{Mac, be16, be32};

const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// BOOTP clients may discard shorter messages.
const LENGTH_MIN: usize = 300;
/// Bytes of the boot file's field; its last is 0.
pub const FILE_BYTES: usize = 128;
const PAD: u8 = 0;
const END: u8 = 255;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has an address for me?
    Discover,
    /// I have.
    Offer,
    /// I take it, or want to keep it.
    Request,
    /// The address is in use by another.
    Decline,
    /// It is yours.
    Ack,
    /// It is not.
    Nak,
    /// I need it no more.
    Release,
    /// I have an address and want the options only.
    Inform,
}

const KINDS: [Kind; 8] = [
    Kind::Discover,
    Kind::Offer,
    Kind::Request,
    Kind::Decline,
    Kind::Ack,
    Kind::Nak,
    Kind::Release,
    Kind::Inform,
];

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// From a server rather than to one.
    pub is_reply: bool,
    /// Which exchange, chosen by the client.
    pub exchange: u32,
    /// The client cannot take unicast yet.
    pub broadcast: bool,
    /// The address that the client has.
    pub client: Ipv4Addr,
    /// The address that it gets.
    pub yours: Ipv4Addr,
    /// Where to boot from.
    pub next_server: Ipv4Addr,
    /// The relay that passed it on.
    pub relay: Ipv4Addr,
    /// The client's hardware address.
    pub mac: Mac,
    /// The boot file.
    pub file: Vec<u8>,
    /// Options in their order. Longer ones than 255 bytes are split when written (RFC 3396).
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Message {
    /// Reads a message of an Ethernet client.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..FIXED)?;
        let is_reply = match fixed[0] {
            1 => false,
            2 => true,
            _ => return None,
        };
        if fixed[1] != 1 || fixed[2] != 6 || bytes.get(FIXED..FIXED + 4)? != COOKIE {
            return None;
        }
        let address = |at| be32(fixed, at).map(Ipv4Addr::from);
        let file = &fixed[108..FIXED];
        let file_length = file.iter().position(|byte| *byte == 0).unwrap_or(FILE_BYTES);
        Some(Self {
            is_reply,
            exchange: be32(fixed, 4)?,
            broadcast: be16(fixed, 10)? & 0x8000 != 0,
            client: address(12)?,
            yours: address(16)?,
            next_server: address(20)?,
            relay: address(24)?,
            mac: Mac([0, 1, 2, 3, 4, 5].map(|byte| fixed[28 + byte])),
            file: file[..file_length].to_vec(),
            options: read_options(&bytes[FIXED + 4..])?,
        })
    }

    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[if self.is_reply { 2 } else { 1 }, 1, 6]);
        bytes[4..8].copy_from_slice(&self.exchange.to_be_bytes());
        bytes[10] = if self.broadcast { 0x80 } else { 0 };
        for (at, address) in
            [(12, self.client), (16, self.yours), (20, self.next_server), (24, self.relay)]
        {
            bytes[at..at + 4].copy_from_slice(&address.octets());
        }
        bytes[28..34].copy_from_slice(&self.mac.0);
        let file = &self.file[..self.file.len().min(FILE_BYTES - 1)];
        bytes[108..108 + file.len()].copy_from_slice(file);
        bytes.extend(COOKIE);
        for (number, value) in &self.options {
            if value.is_empty() {
                bytes.extend([*number, 0]);
            }
            for piece in value.chunks(255) {
                bytes.extend([*number, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
                bytes.extend(piece);
            }
        }
        bytes.push(END);
        if bytes.len() < LENGTH_MIN {
            bytes.resize(LENGTH_MIN, PAD);
        }
        bytes
    }

    /// An option's value.
    #[must_use]
    pub fn option(&self, number: u8) -> Option<&[u8]> {
        self.options.iter().find(|(other, _)| *other == number).map(|(_, value)| &value[..])
    }

    /// An option's value when it is an address.
    #[must_use]
    pub fn address_option(&self, number: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(number)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    }

    /// What the message is; `None` for plain BOOTP.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let [number] = self.option(options::KIND)? else { return None };
        KINDS.get(usize::from(*number).checked_sub(1)?).copied()
    }
}

/// The number that stands for a kind.
#[must_use]
pub fn kind_number(kind: Kind) -> u8 {
    let at = KINDS.iter().position(|other| *other == kind).unwrap_or(0);
    u8::try_from(at + 1).unwrap_or(0)
}

/// The options up to their end; values of one number are joined.
fn read_options(mut bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some((&number, rest)) = bytes.split_first() {
        match number {
            END => break,
            PAD => bytes = rest,
            _ => {
                let (&length, rest) = rest.split_first()?;
                let value = rest.get(..usize::from(length))?;
                match options.iter_mut().find(|(other, _)| *other == number) {
                    Some((_, joined)) => joined.extend(value),
                    None => options.push((number, value.to_vec())),
                }
                bytes = &rest[usize::from(length)..];
            }
        }
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            is_reply: false,
            exchange: 0x1234_5678,
            broadcast: true,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::new(10, 0, 2, 15),
            next_server: Ipv4Addr::new(10, 0, 2, 2),
            relay: Ipv4Addr::UNSPECIFIED,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            file: b"boot.img".to_vec(),
            options: vec![(options::KIND, vec![1]), (options::SEARCH, vec![7; 600])],
        }
    }

    #[test]
    fn what_is_written_is_read_and_long_options_are_joined() {
        let message = message();
        assert_eq!(Message::read(&message.bytes()), Some(message.clone()));
        assert_eq!(message.kind(), Some(Kind::Discover));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let good = message().bytes();
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(&str, Spoil); 5] = [
            ("operation", |b| b[0] = 3),
            ("hardware", |b| b[1] = 6),
            ("cookie", |b| b[236] = 0),
            ("option beyond the end", |b| b.truncate(FIXED + 4 + 10)),
            ("cut", |b| b.truncate(100)),
        ];
        for (name, spoil) in cases {
            let mut bytes = good.clone();
            spoil(&mut bytes);
            assert_eq!(Message::read(&bytes), None, "{name}");
        }
    }

    #[test]
    fn kinds_have_the_numbers_of_the_rfc() {
        assert_eq!(kind_number(Kind::Discover), 1);
        assert_eq!(kind_number(Kind::Ack), 5);
        assert_eq!(kind_number(Kind::Inform), 8);
    }
}
