//! The options that we read and write, by their numbers (RFC 2132 and followers).

/// Subnet mask.
pub const MASK: u8 = 1;
/// Routers.
pub const ROUTER: u8 = 3;
/// Domain name servers.
pub const DNS: u8 = 6;
/// The client's name.
pub const HOST_NAME: u8 = 12;
/// The domain that the client is in.
pub const DOMAIN: u8 = 15;
/// The link's MTU.
pub const MTU: u8 = 26;
/// The address that the client would like.
pub const REQUESTED: u8 = 50;
/// Seconds that a lease lasts.
pub const LEASE_TIME: u8 = 51;
/// What the message is: [`Kind`](super::Kind).
pub const KIND: u8 = 53;
/// The server that a request is for.
pub const SERVER: u8 = 54;
/// Options that the client asks for.
pub const WANTED: u8 = 55;
/// Why a request was refused, in words.
pub const REASON: u8 = 56;
/// When to renew.
pub const RENEWAL_TIME: u8 = 58;
/// When to ask any server.
pub const REBINDING_TIME: u8 = 59;
/// The kind of client, such as `HTTPClient` of UEFI.
pub const VENDOR_CLASS: u8 = 60;
/// The client's identity, when it is not its hardware address.
pub const CLIENT: u8 = 61;
/// The TFTP server's name.
pub const TFTP_NAME: u8 = 66;
/// The boot file.
pub const BOOT_FILE: u8 = 67;
/// Domains to search (RFC 3397).
pub const SEARCH: u8 = 119;

/// Domain names as option 119 holds them: labels with lengths, each name ended by 0.
/// Names that DNS does not permit are left out.
#[must_use]
pub fn search_list(domains: &[String]) -> Vec<u8> {
    let encoded = domains.iter().filter_map(|domain| crate::dns::name::encode(domain));
    encoded.flatten().collect()
}
