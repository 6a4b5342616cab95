//! DNS messages (RFC 1035 section 4): the header and the question are read, records are written.

use core::net::IpAddr;

use super::name;
use crate::packet::be16;

/// Bytes before the first question.
pub const HEADER: usize = 12;
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;

/// No error.
pub const NO_ERROR: u8 = 0;
/// The server could not find out.
pub const SERVER_FAILURE: u8 = 2;
/// There is no such name.
pub const NO_SUCH_NAME: u8 = 3;
/// The server does not want to.
pub const REFUSED: u8 = 5;

/// IPv4 addresses.
pub const A: u16 = 1;
/// Names of addresses.
pub const PTR: u16 = 12;
/// Texts.
pub const TXT: u16 = 16;
/// IPv6 addresses.
pub const AAAA: u16 = 28;
/// Services.
pub const SRV: u16 = 33;
const INTERNET: u16 = 1;

/// A message's header and question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which exchange, chosen by the asker.
    pub identification: u16,
    /// An answer rather than a question.
    pub is_response: bool,
    /// An ordinary query, not an update or a notice.
    pub is_query: bool,
    /// The answer did not fit; ask again by TCP.
    pub truncated: bool,
    /// The asker wants the server to find out.
    pub recursion_desired: bool,
    /// [`NO_ERROR`] and its like.
    pub code: u8,
    /// What is asked, when exactly one thing is.
    pub question: Option<Question>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of which name, in lower case.
    pub name: String,
    /// Which records.
    pub kind: u16,
    /// In which class.
    pub class: u16,
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub name: String,
    /// Which kind.
    pub kind: u16,
    /// Seconds that it may be kept.
    pub lifetime: u32,
    /// The record's data, names in it uncompressed.
    pub data: Vec<u8>,
}

impl Record {
    /// The address of a name.
    #[must_use]
    pub fn address(name: &str, address: IpAddr, lifetime: u32) -> Self {
        let (kind, data) = match address {
            IpAddr::V4(address) => (A, address.octets().to_vec()),
            IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
        };
        Self { name: name.to_owned(), kind, lifetime, data }
    }
}

impl Message {
    /// Reads a message's header and question.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let flags = be16(header, 2)?;
        let question = if be16(header, 4)? == 1 {
            let (name, after) = name::read(bytes, HEADER)?;
            Some(Question { name, kind: be16(bytes, after)?, class: be16(bytes, after + 2)? })
        } else {
            None
        };
        Some(Self {
            identification: be16(header, 0)?,
            is_response: flags & RESPONSE != 0,
            is_query: flags & OPCODE == 0,
            truncated: flags & TRUNCATED != 0,
            recursion_desired: flags & RECURSION_DESIRED != 0,
            code: u8::try_from(flags & 15).unwrap_or(0),
            question,
        })
    }

    /// An answer of our own to this query. When it has more than `bytes_max` bytes, the records
    /// that do not fit are left out and the answer says so.
    #[must_use]
    pub fn answer(&self, code: u8, records: &[Record], bytes_max: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..2].copy_from_slice(&self.identification.to_be_bytes());
        if let Some(question) = &self.question
            && let Some(encoded) = name::encode(&question.name)
        {
            bytes.extend(encoded);
            bytes.extend(question.kind.to_be_bytes());
            bytes.extend(question.class.to_be_bytes());
            bytes[5] = 1;
        }
        let (mut count, mut truncated) = (0_u16, false);
        for record in records {
            let Some(mut one) = name::encode(&record.name) else { continue };
            let Ok(length) = u16::try_from(record.data.len()) else { continue };
            one.extend(record.kind.to_be_bytes());
            one.extend(INTERNET.to_be_bytes());
            one.extend(record.lifetime.to_be_bytes());
            one.extend(length.to_be_bytes());
            one.extend(&record.data);
            if bytes.len() + one.len() > bytes_max || count == u16::MAX {
                truncated = true;
                break;
            }
            bytes.extend(one);
            count += 1;
        }
        let mut flags = RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | u16::from(code & 15);
        flags |= if self.recursion_desired { RECURSION_DESIRED } else { 0 };
        flags |= if truncated { TRUNCATED } else { 0 };
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes
    }
}

/// A query for a name.
#[must_use]
pub fn query(identification: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    bytes[..2].copy_from_slice(&identification.to_be_bytes());
    bytes[2..4].copy_from_slice(&RECURSION_DESIRED.to_be_bytes());
    bytes[5] = 1;
    bytes.extend(name::encode(name)?);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_answer() {
        let bytes = query(7, "Host.Example", A).unwrap();
        let message = Message::read(&bytes).unwrap();
        let question = Question { name: "host.example".into(), kind: A, class: 1 };
        assert_eq!(message.question, Some(question));
        let record = Record::address("host.example", IpAddr::from([1, 2, 3, 4]), 60);
        let answer = message.answer(NO_ERROR, core::slice::from_ref(&record), 512);
        let read = Message::read(&answer).unwrap();
        assert!(read.is_response && !read.truncated && read.identification == 7);
        assert_eq!(answer[answer.len() - 4..], [1, 2, 3, 4]);
        let many = vec![record; 100];
        let answer = message.answer(NO_ERROR, &many, 512);
        assert!(answer.len() <= 512 && Message::read(&answer).unwrap().truncated);
    }

    #[test]
    fn cut_messages_are_refused() {
        let bytes = query(7, "host.example", A).unwrap();
        for length in 0..bytes.len() {
            assert_eq!(Message::read(&bytes[..length]), None, "{length}");
        }
    }
}
