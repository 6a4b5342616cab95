//! Stateless `DHCPv6` (RFC 8415 section 18.3.5): options for clients that make their own address.

use core::net::Ipv6Addr;

use crate::dns::name;
use crate::packet::be16;

/// Where servers listen.
pub const SERVER_PORT: u16 = 547;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 546;
/// All servers and relays on the link.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

const REPLY: u8 = 7;
const INFORMATION_REQUEST: u8 = 11;
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const DNS: u16 = 23;
const SEARCH: u16 = 24;
const BOOT_URL: u16 = 59;
/// RFC 8415 section 11.1: an identity has 1 to 128 bytes after its type.
const IDENTITY_BYTES_MAX: usize = 130;

/// What is told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// This server's identity.
    pub server: Vec<u8>,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Where to boot from.
    pub boot_url: Option<String>,
}

/// The answer to a client's message: only information requests get one.
#[must_use]
pub fn answer(settings: &Settings, bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = bytes.split_first_chunk::<4>()?;
    if header[0] != INFORMATION_REQUEST {
        return None;
    }
    let mut reply = vec![REPLY, header[1], header[2], header[3]];
    while !rest.is_empty() {
        let (number, length) = (be16(rest, 0)?, usize::from(be16(rest, 2)?));
        let value = rest.get(4..4 + length)?;
        match number {
            CLIENT_ID if length <= IDENTITY_BYTES_MAX => put(&mut reply, CLIENT_ID, value),
            // A request for another server is not ours to answer.
            SERVER_ID if value != settings.server => return None,
            _ => {}
        }
        rest = &rest[4 + length..];
    }
    put(&mut reply, SERVER_ID, &settings.server);
    let dns: Vec<u8> = settings.dns.iter().flat_map(Ipv6Addr::octets).collect();
    if !dns.is_empty() {
        put(&mut reply, DNS, &dns);
    }
    let search: Vec<u8> =
        settings.search.iter().filter_map(|d| name::encode(d)).flatten().collect();
    if !search.is_empty() {
        put(&mut reply, SEARCH, &search);
    }
    if let Some(url) = &settings.boot_url {
        put(&mut reply, BOOT_URL, url.as_bytes());
    }
    Some(reply)
}

fn put(reply: &mut Vec<u8>, number: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    reply.extend(number.to_be_bytes());
    reply.extend(length.to_be_bytes());
    reply.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            server: vec![0, 3, 0, 1, 2],
            dns: vec![Ipv6Addr::LOCALHOST],
            search: vec!["x".into()],
            boot_url: None,
        }
    }

    #[test]
    fn information_request_is_answered_with_its_identity() {
        let request = [11, 1, 2, 3, 0, 1, 0, 2, 7, 8];
        let reply = answer(&settings(), &request).unwrap();
        let mut expected =
            vec![7, 1, 2, 3, 0, 1, 0, 2, 7, 8, 0, 2, 0, 5, 0, 3, 0, 1, 2, 0, 23, 0, 16];
        expected.extend(Ipv6Addr::LOCALHOST.octets());
        expected.extend([0, 24, 0, 3, 1, b'x', 0]);
        assert_eq!(reply, expected);
    }

    #[test]
    fn others_are_not_answered() {
        for (name, request) in [
            ("solicit", &[1, 1, 2, 3][..]),
            ("for another server", &[11, 1, 2, 3, 0, 2, 0, 1, 9]),
            ("option beyond the end", &[11, 1, 2, 3, 0, 1, 0, 9, 9]),
            ("cut", &[11, 1]),
        ] {
            assert_eq!(answer(&settings(), request), None, "{name}");
        }
    }
}
