//! Registers as chapter 13 of the manual numbers them.

pub const CONTROL: u64 = 0x0000;
pub const STATUS: u64 = 0x0008;
pub const EEPROM_CONTROL: u64 = 0x0010;
pub const EEPROM_READ: u64 = 0x0014;
pub const PHY: u64 = 0x0020; // MDIC
pub const CAUSES: u64 = 0x00c0; // reading clears
pub const CAUSES_SET: u64 = 0x00c8;
pub const MASK_SET: u64 = 0x00d0;
pub const MASK_CLEAR: u64 = 0x00d8;
pub const RECEIVE_CONTROL: u64 = 0x0100;
pub const TRANSMIT_CONTROL: u64 = 0x0400;
pub const RECEIVE_BASE_LOW: u64 = 0x2800;
pub const RECEIVE_BASE_HIGH: u64 = 0x2804;
pub const RECEIVE_BYTES: u64 = 0x2808;
pub const RECEIVE_HEAD: u64 = 0x2810;
pub const RECEIVE_TAIL: u64 = 0x2818;
pub const TRANSMIT_BASE_LOW: u64 = 0x3800;
pub const TRANSMIT_BASE_HIGH: u64 = 0x3804;
pub const TRANSMIT_BYTES: u64 = 0x3808;
pub const TRANSMIT_HEAD: u64 = 0x3810;
pub const TRANSMIT_TAIL: u64 = 0x3818;
pub const STATISTICS: u64 = 0x4000; // reading clears
pub const STATISTICS_END: u64 = 0x4128;
pub const GOOD_RECEIVED: u64 = 0x4074;
pub const GOOD_TRANSMITTED: u64 = 0x4080;
pub const MULTICAST: u64 = 0x5200; // 128 words of a hash table
pub const MULTICAST_END: u64 = 0x5400;
pub const ADDRESSES: u64 = 0x5400; // 16 pairs
pub const ADDRESSES_END: u64 = 0x5480;
pub const VLANS: u64 = 0x5600; // 128 words, a bit for each VLAN
pub const VLANS_END: u64 = 0x5800;

/// What is only kept: flow control, delays, wake-up, packet buffers, LEDs.
pub const KEPT: &[u64] = &[
    0x0018, 0x0028, 0x002c, 0x0030, 0x0038, 0x00c4, 0x0170, 0x0178, 0x0410, 0x0458, 0x0e00, 0x1000,
    0x2160, 0x2168, 0x2820, 0x2828, 0x282c, 0x3820, 0x3828, 0x382c, 0x5000, 0x5008, 0x5800, 0x5808,
    0x5810, 0x5820, 0x5838, 0x5900,
];

pub const CONTROL_RESET: u32 = 1 << 26;
pub const CONTROL_PHY_RESET: u32 = 1 << 31;

pub const STATUS_FULL_DUPLEX: u32 = 1;
pub const STATUS_LINK: u32 = 2;
pub const STATUS_GIGABIT: u32 = 1 << 7;

pub const CAUSE_SENT: u32 = 1; // descriptor written back
pub const CAUSE_ALL_SENT: u32 = 2;
pub const CAUSE_LINK: u32 = 4;
pub const CAUSE_FEW_BUFFERS: u32 = 1 << 4;
pub const CAUSE_OVERRUN: u32 = 1 << 6;
pub const CAUSE_RECEIVED: u32 = 1 << 7;
pub const CAUSE_PHY: u32 = 1 << 9;

pub const RECEIVE_ON: u32 = 1 << 1;
pub const RECEIVE_ALL_UNICAST: u32 = 1 << 3;
pub const RECEIVE_ALL_MULTICAST: u32 = 1 << 4;
pub const RECEIVE_LONG: u32 = 1 << 5;
pub const RECEIVE_BROADCAST: u32 = 1 << 15;
pub const RECEIVE_VLAN_FILTER: u32 = 1 << 18;
pub const RECEIVE_LARGER: u32 = 1 << 25; // sizes are 16 times as large
pub const RECEIVE_STRIP: u32 = 1 << 26; // without the check sequence

pub const TRANSMIT_ON: u32 = 1 << 1;

pub const ADDRESS_VALID: u32 = 1 << 31;

/// Bytes of a descriptor.
pub const DESCRIPTOR: u64 = 16;
