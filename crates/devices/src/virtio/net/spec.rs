//! Virtio 1.3, 5.1: network device.

/// The device finishes checksums.
pub const F_CSUM: u64 = 1;
/// The driver takes frames with unfinished checksums.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The driver can change what it takes.
pub const F_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// The configuration has an MTU.
pub const F_MTU: u64 = 1 << 3;
/// The configuration has an address.
pub const F_MAC: u64 = 1 << 5;
/// The driver takes large TCP over IPv4.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// The driver takes large TCP over IPv6.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// The device takes large TCP over IPv4.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// The device takes large TCP over IPv6.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// A frame may fill several buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// The configuration has the state of the link.
pub const F_STATUS: u64 = 1 << 16;
/// There is a queue for orders.
pub const F_CTRL_VQ: u64 = 1 << 17;
/// Orders about what is received.
pub const F_CTRL_RX: u64 = 1 << 18;
/// Orders about VLANs.
pub const F_CTRL_VLAN: u64 = 1 << 19;
/// More orders about what is received.
pub const F_CTRL_RX_EXTRA: u64 = 1 << 20;
/// Several pairs of queues.
pub const F_MQ: u64 = 1 << 22;
/// Orders about the address.
pub const F_CTRL_MAC_ADDR: u64 = 1 << 23;

/// Header: the checksum is unfinished.
pub const HDR_NEEDS_CSUM: u8 = 1;
/// Header: the checksum was looked at.
pub const HDR_DATA_VALID: u8 = 2;
/// Header: not to be cut.
pub const GSO_NONE: u8 = 0;
/// Header: large TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Header: large TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Header: congestion was notified, a modifier of the above.
pub const GSO_ECN: u8 = 0x80;
/// The header with the number of buffers.
pub const HEADER_BYTES: usize = 12;
/// The header of legacy drivers that do not merge buffers.
pub const SHORT_HEADER_BYTES: usize = 10;

/// Configuration: the link is up.
pub const S_LINK_UP: u16 = 1;

/// Orders about what is received.
pub const CTRL_RX: u8 = 0;
/// Orders about addresses.
pub const CTRL_MAC: u8 = 1;
/// Orders about VLANs.
pub const CTRL_VLAN: u8 = 2;
/// Orders about pairs of queues.
pub const CTRL_MQ: u8 = 4;
/// Orders about what the driver takes.
pub const CTRL_GUEST_OFFLOADS: u8 = 5;
/// The order was followed.
pub const ACK_OK: u8 = 0;
/// It was not.
pub const ACK_ERR: u8 = 1;

/// An Ethernet header, a VLAN tag and the largest IP packet.
pub const FRAME_BYTES_MAX: usize = 14 + 4 + 65535;
/// An Ethernet header.
pub const FRAME_BYTES_MIN: usize = 14;
