//! The registers, and the rings of descriptors in guest memory.

use std::collections::BTreeMap;

use memory::FlatView;

use super::eeprom::Eeprom;
use super::frame::{Context, FRAME_BYTES_MAX, Sum, cut};
use super::spec::*;

/// A frame is filled up to this, without its check sequence.
const FRAME_BYTES_MIN: usize = 60;
/// Longer ones are let in only where the driver says so.
const FRAME_BYTES_USUAL: usize = 1518;

/// What came of the wish to receive a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It lies in memory.
    Taken,
    /// It is not wanted.
    Dropped,
    /// There are no buffers.
    NoRoom,
}

/// A ring's registers.
#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    base: u64,
    bytes: u32,
    head: u32,
    tail: u32,
}

device::saved!(Ring { base, bytes, head, tail });

impl Ring {
    fn count(&self) -> u32 {
        self.bytes / DESCRIPTOR as u32
    }

    fn address(&self) -> u64 {
        self.base.wrapping_add(u64::from(self.head) * DESCRIPTOR)
    }

    fn advance(&mut self) {
        self.head = if self.head + 1 >= self.count() { 0 } else { self.head + 1 };
    }

    /// Descriptors that the driver has given; none where the registers make no sense.
    fn ready(&self) -> u32 {
        let count = self.count();
        if self.head >= count || self.tail >= count {
            return 0;
        }
        (self.tail + count - self.head) % count
    }

    fn set_base(&mut self, high: bool, value: u32) {
        self.base = match high {
            false => self.base & !0xffff_ffff | u64::from(value & !15),
            true => self.base & 0xffff_ffff | u64::from(value) << 32,
        };
    }
}

/// A frame that is put together from descriptors.
#[derive(Default)]
struct Assembly {
    bytes: Vec<u8>,
    is_cut: bool,
    sums: (bool, bool),
    broken: bool,
}

device::saved!(Assembly { bytes, is_cut, sums, broken });

/// The chip.
pub struct Chip {
    control: u32,
    eeprom: Eeprom,
    eeprom_read: u32,
    phy: [u16; 32],
    phy_command: u32,
    causes: u32,
    mask: u32,
    receive_control: u32,
    transmit_control: u32,
    receive: Ring,
    transmit: Ring,
    kept: BTreeMap<u64, u32>,
    multicast: [u32; 128],
    vlans: [u32; 128],
    addresses: [u32; 32],
    counted: (u32, u32),
    link: bool,
    context: Context,
    cut_context: Context,
    assembly: Assembly,
    mac: [u8; 6],
}

device::saved!(Chip {
    control,
    eeprom,
    eeprom_read,
    phy,
    phy_command,
    causes,
    mask,
    receive_control,
    transmit_control,
    receive,
    transmit,
    kept,
    multicast,
    vlans,
    addresses,
    counted,
    context,
    cut_context,
    assembly,
});

impl Chip {
    pub fn new(mac: [u8; 6], link: bool) -> Self {
        let mut chip = Self {
            control: 0,
            eeprom: Eeprom::new(mac),
            eeprom_read: 0,
            phy: [0; 32],
            phy_command: 0,
            causes: 0,
            mask: 0,
            receive_control: 0,
            transmit_control: 0,
            receive: Ring::default(),
            transmit: Ring::default(),
            kept: BTreeMap::new(),
            multicast: [0; 128],
            vlans: [0; 128],
            addresses: [0; 32],
            counted: (0, 0),
            link,
            context: Context::default(),
            cut_context: Context::default(),
            assembly: Assembly::default(),
            mac,
        };
        chip.reset();
        chip
    }

    /// As after power-on; the cable stays where it is.
    pub fn reset(&mut self) {
        let (mac, link) = (self.mac, self.link);
        self.control = 0x0014_0240; // gigabit, full duplex, link up
        (self.eeprom_read, self.phy_command) = (0, 1 << 28);
        (self.causes, self.mask) = (0, 0);
        (self.receive_control, self.transmit_control) = (0, 0);
        (self.receive, self.transmit) = (Ring::default(), Ring::default());
        self.kept.clear();
        self.kept.insert(0x1000, 0x0030_0010); // the packet buffer's halves
        (self.multicast, self.vlans, self.addresses) = ([0; 128], [0; 128], [0; 32]);
        self.counted = (0, 0);
        (self.context, self.cut_context) = (Context::default(), Context::default());
        self.assembly = Assembly::default();
        let [a, b, c, d, e, f] = mac;
        self.addresses[0] = u32::from_le_bytes([a, b, c, d]);
        self.addresses[1] = u32::from(u16::from_le_bytes([e, f])) | ADDRESS_VALID;
        self.phy = [0; 32];
        // A Marvell 88E1011, which has agreed on a gigabit.
        for (at, value) in [
            (0, 0x1140),
            (1, 0x7949),
            (2, 0x0141),
            (3, 0x0c20),
            (4, 0x0de1),
            (5, 0x01e1),
            (6, 0x0001),
            (9, 0x0e00),
            (10, 0x3c00),
            (15, 0x3000),
            (16, 0x0360),
            (17, 0xac00),
            (20, 0x0d60),
        ] {
            self.phy[at] = value;
        }
        self.show_link(link);
    }

    fn show_link(&mut self, link: bool) {
        const LINKED: u16 = 0x24; // and both sides have agreed
        const SPECIFIC_LINKED: u16 = 1 << 10;
        self.link = link;
        let set = |register: &mut u16, bits: u16| {
            *register = if link { *register | bits } else { *register & !bits };
        };
        set(&mut self.phy[1], LINKED);
        set(&mut self.phy[17], SPECIFIC_LINKED);
    }

    /// The cable was plugged in or out.
    pub fn set_link(&mut self, link: bool) {
        if self.link != link {
            self.show_link(link);
            self.causes |= CAUSE_LINK;
        }
    }

    /// The interrupt line.
    pub fn irq(&self) -> bool {
        self.causes & self.mask != 0
    }

    fn status(&self) -> u32 {
        const FIXED: u32 = 0x8008_0600;
        let link = if self.link { STATUS_LINK } else { 0 };
        FIXED | STATUS_FULL_DUPLEX | STATUS_GIGABIT | link
    }

    /// Reads a register.
    pub fn read(&mut self, at: u64) -> u32 {
        let index = |start: u64| (at - start) as usize / 4;
        match at {
            CONTROL | 4 => self.control,
            STATUS => self.status(),
            EEPROM_CONTROL => self.eeprom.read(),
            EEPROM_READ => self.eeprom_read,
            PHY => self.phy_command,
            CAUSES => std::mem::take(&mut self.causes),
            CAUSES_SET => self.causes,
            MASK_SET => self.mask,
            RECEIVE_CONTROL => self.receive_control,
            TRANSMIT_CONTROL => self.transmit_control,
            RECEIVE_BASE_LOW => self.receive.base as u32,
            RECEIVE_BASE_HIGH => (self.receive.base >> 32) as u32,
            RECEIVE_BYTES => self.receive.bytes,
            RECEIVE_HEAD => self.receive.head,
            RECEIVE_TAIL => self.receive.tail,
            TRANSMIT_BASE_LOW => self.transmit.base as u32,
            TRANSMIT_BASE_HIGH => (self.transmit.base >> 32) as u32,
            TRANSMIT_BYTES => self.transmit.bytes,
            TRANSMIT_HEAD => self.transmit.head,
            TRANSMIT_TAIL => self.transmit.tail,
            GOOD_RECEIVED => std::mem::take(&mut self.counted.0),
            GOOD_TRANSMITTED => std::mem::take(&mut self.counted.1),
            STATISTICS..STATISTICS_END => 0,
            MULTICAST..MULTICAST_END => self.multicast[index(MULTICAST)],
            ADDRESSES..ADDRESSES_END => self.addresses[index(ADDRESSES)],
            VLANS..VLANS_END => self.vlans[index(VLANS)],
            _ => self.kept.get(&at).copied().unwrap_or(0),
        }
    }

    /// Writes a register. True: the driver may have given descriptors, of either ring.
    pub fn write(&mut self, at: u64, value: u32) -> bool {
        let index = |start: u64| (at - start) as usize / 4;
        match at {
            CONTROL | 4 => {
                self.control = value & !(CONTROL_RESET | CONTROL_PHY_RESET);
                if value & CONTROL_RESET != 0 {
                    self.reset();
                }
            }
            EEPROM_CONTROL => self.eeprom.write(value),
            EEPROM_READ => self.eeprom_read = self.eeprom.word(value),
            PHY => self.phy(value),
            CAUSES => self.causes &= !value,
            CAUSES_SET => self.causes |= value,
            MASK_SET => self.mask |= value,
            MASK_CLEAR => self.mask &= !value,
            RECEIVE_CONTROL => {
                self.receive_control = value;
                return true;
            }
            TRANSMIT_CONTROL => {
                self.transmit_control = value;
                return true;
            }
            RECEIVE_BASE_LOW => self.receive.set_base(false, value),
            RECEIVE_BASE_HIGH => self.receive.set_base(true, value),
            RECEIVE_BYTES => self.receive.bytes = value & 0xf_ff80,
            RECEIVE_HEAD => self.receive.head = value & 0xffff,
            RECEIVE_TAIL => {
                self.receive.tail = value & 0xffff;
                return true;
            }
            TRANSMIT_BASE_LOW => self.transmit.set_base(false, value),
            TRANSMIT_BASE_HIGH => self.transmit.set_base(true, value),
            TRANSMIT_BYTES => self.transmit.bytes = value & 0xf_ff80,
            TRANSMIT_HEAD => self.transmit.head = value & 0xffff,
            TRANSMIT_TAIL => {
                self.transmit.tail = value & 0xffff;
                return true;
            }
            MULTICAST..MULTICAST_END => self.multicast[index(MULTICAST)] = value,
            ADDRESSES..ADDRESSES_END => self.addresses[index(ADDRESSES)] = value,
            VLANS..VLANS_END => self.vlans[index(VLANS)] = value,
            _ if KEPT.contains(&at) => _ = self.kept.insert(at, value),
            _ => {}
        }
        false
    }

    /// A command to the other chip, which drives the wire.
    fn phy(&mut self, value: u32) {
        const WRITE: u32 = 1;
        const READ: u32 = 2;
        const READY: u32 = 1 << 28;
        const TELL: u32 = 1 << 29;
        const WRONG: u32 = 1 << 30;
        let (register, device) = ((value >> 16 & 31) as usize, value >> 21 & 31);
        let mut answer = value & !(READY | WRONG);
        match (device, value >> 26 & 3) {
            (1, READ) => answer = answer & !0xffff | u32::from(self.phy[register]),
            (1, WRITE) => match register {
                // Reset and negotiation are done at once.
                0 => self.phy[0] = value as u16 & !0x8200,
                4 | 9 | 16 | 18 | 20..32 => self.phy[register] = value as u16,
                _ => {}
            },
            _ => answer |= WRONG,
        }
        self.phy_command = answer | READY;
        if value & TELL != 0 {
            self.causes |= CAUSE_PHY;
        }
    }

    /// Takes all frames that the driver has put into the ring.
    pub fn transmit(&mut self, memory: &FlatView) -> Vec<Vec<u8>> {
        const WRITTEN_BACK: u8 = 1;
        let mut frames = Vec::new();
        if self.transmit_control & TRANSMIT_ON == 0 {
            return frames;
        }
        let mut told = false;
        // Once around at most: who turns the ring while it is read waits for the next time.
        for _ in 0..self.transmit.ready() {
            let at = self.transmit.address();
            let mut descriptor = [0; 16];
            memory.read(at, &mut descriptor);
            if self.descriptor(memory, &descriptor, &mut frames) {
                memory.write(at + 12, &[descriptor[12] | WRITTEN_BACK]);
                told = true;
            }
            self.transmit.advance();
        }
        self.causes |= if told { CAUSE_SENT } else { 0 };
        if self.transmit.ready() == 0 {
            self.causes |= CAUSE_ALL_SENT;
        }
        self.counted.1 = self.counted.1.saturating_add(frames.len() as u32);
        frames
    }

    /// One descriptor. True: the driver wants to be told.
    fn descriptor(
        &mut self,
        memory: &FlatView,
        descriptor: &[u8; 16],
        frames: &mut Vec<Vec<u8>>,
    ) -> bool {
        const END: u32 = 1 << 24;
        const LEGACY_SUM: u32 = 1 << 26;
        const CUT: u32 = 1 << 26;
        const REPORT: u32 = 1 << 27;
        const EXTENDED: u32 = 1 << 29;
        let word = |at: usize| {
            u32::from_le_bytes([
                descriptor[at],
                descriptor[at + 1],
                descriptor[at + 2],
                descriptor[at + 3],
            ])
        };
        let command = word(8);
        let tells = command & REPORT != 0;
        let address = u64::from(word(0)) | u64::from(word(4)) << 32;
        let bytes = match (command & EXTENDED != 0, command >> 20 & 15) {
            (true, 0) => {
                let context = context(descriptor, command, word(12));
                match command & CUT != 0 {
                    true => self.cut_context = context,
                    false => self.context = context,
                }
                return tells;
            }
            (true, _) => command & 0xf_ffff,
            (false, _) => command & 0xffff,
        } as usize;
        let assembly = &mut self.assembly;
        if assembly.bytes.is_empty() && !assembly.broken {
            if command & EXTENDED != 0 {
                assembly.is_cut = command & CUT != 0;
                assembly.sums = (descriptor[13] & 1 != 0, descriptor[13] & 2 != 0);
            } else {
                (assembly.is_cut, assembly.sums) = (false, (false, false));
            }
        }
        if assembly.bytes.len() + bytes > FRAME_BYTES_MAX {
            assembly.broken = true;
        }
        if !assembly.broken {
            let start = assembly.bytes.len();
            assembly.bytes.resize(start + bytes, 0);
            memory.read(address, &mut assembly.bytes[start..]);
        }
        if command & END == 0 {
            return tells;
        }
        let place = (usize::from(descriptor[10]), usize::from(descriptor[13]));
        let legacy = command & EXTENDED == 0 && command & LEGACY_SUM != 0;
        frames.extend(self.finish(legacy.then_some(place)));
        tells
    }

    /// The frames that came of the assembled one. A legacy descriptor says itself where its sum goes
    /// and begins.
    fn finish(&mut self, legacy: Option<(usize, usize)>) -> Vec<Vec<u8>> {
        let Assembly { mut bytes, is_cut, sums, broken } = std::mem::take(&mut self.assembly);
        if broken {
            return Vec::new();
        }
        if let Some((place, start)) = legacy {
            Sum { start, place, last: 0 }.put(&mut bytes);
        }
        if is_cut {
            return cut(&self.cut_context, &bytes);
        }
        if sums.1 {
            self.context.transport.put(&mut bytes);
        }
        if sums.0 {
            self.context.ip.put(&mut bytes);
        }
        vec![bytes]
    }

    /// Whether frames can be received at all now.
    pub fn receives(&self) -> bool {
        self.receive_control & RECEIVE_ON != 0 && self.link
    }

    /// Whether the driver wants a frame.
    fn wants(&self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk::<6>() else { return false };
        let control = self.receive_control;
        let has = |bit: u32| control & bit != 0;
        if has(RECEIVE_VLAN_FILTER) && frame.get(12..14) == Some(&[0x81, 0]) {
            let tag = frame.get(14..16).map_or(0, |tag| u16::from_be_bytes([tag[0], tag[1]]));
            let tag = usize::from(tag & 0xfff);
            if self.vlans[tag >> 5] >> (tag & 31) & 1 == 0 {
                return false;
            }
        }
        let is_group = to[0] & 1 != 0;
        if is_group && has(RECEIVE_ALL_MULTICAST) || !is_group && has(RECEIVE_ALL_UNICAST) {
            return true;
        }
        if *to == [0xff; 6] {
            return has(RECEIVE_BROADCAST);
        }
        let [a, b, c, d, e, f] = *to;
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from(u16::from_le_bytes([e, f])) | ADDRESS_VALID;
        let mask = ADDRESS_VALID | 0xffff;
        if self.addresses.chunks(2).any(|pair| pair[0] == low && pair[1] & mask == high) {
            return true;
        }
        let shift = [4, 3, 2, 0][(control >> 12 & 3) as usize];
        let hash = (u32::from(u16::from_le_bytes([e, f])) >> shift & 0xfff) as usize;
        is_group && self.multicast[hash >> 5] >> (hash & 31) & 1 != 0
    }

    /// Bytes of a receive buffer.
    fn buffer_bytes(&self) -> usize {
        let size = self.receive_control >> 16 & 3;
        match (self.receive_control & RECEIVE_LARGER != 0, size) {
            (true, 1..) => 32_768 >> size,
            _ => 2048 >> size,
        }
    }

    /// Puts a frame into the driver's buffers.
    pub fn receive(&mut self, memory: &FlatView, frame: &[u8]) -> Received {
        const DONE: u8 = 1;
        const END: u8 = 2;
        const NOT_SUMMED: u8 = 4;
        const CHECK_SEQUENCE_BYTES: usize = 4;
        let long = self.receive_control & RECEIVE_LONG != 0;
        let most = if long { FRAME_BYTES_MAX } else { FRAME_BYTES_USUAL };
        if !self.wants(frame) || frame.len() > most {
            return Received::Dropped;
        }
        let mut bytes = frame.to_vec();
        bytes.resize(bytes.len().max(FRAME_BYTES_MIN), 0);
        if self.receive_control & RECEIVE_STRIP == 0 {
            bytes.resize(bytes.len() + CHECK_SEQUENCE_BYTES, 0);
        }
        let size = self.buffer_bytes();
        let needed = bytes.len().div_ceil(size) as u32;
        if self.receive.ready() < needed {
            self.causes |= CAUSE_OVERRUN;
            return Received::NoRoom;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let at = self.receive.address();
            let (now, later) = rest.split_at(rest.len().min(size));
            let buffer = memory.read_value(at, 8);
            if buffer != 0 {
                memory.write(buffer, now);
            }
            let status = DONE | NOT_SUMMED | if later.is_empty() { END } else { 0 };
            let length = (now.len() as u16).to_le_bytes();
            memory.write(at + 8, &[length[0], length[1], 0, 0, status, 0, 0, 0]);
            self.receive.advance();
            rest = later;
        }
        self.counted.0 = self.counted.0.saturating_add(1);
        self.causes |= CAUSE_RECEIVED;
        let few = self.receive.count() >> (1 + (self.receive_control >> 8 & 3));
        if self.receive.ready() <= few {
            self.causes |= CAUSE_FEW_BUFFERS;
        }
        Received::Taken
    }
}

fn context(descriptor: &[u8; 16], command: u32, last: u32) -> Context {
    let byte = |at: usize| usize::from(descriptor[at]);
    let half = |at: usize| usize::from(u16::from_le_bytes([descriptor[at], descriptor[at + 1]]));
    Context {
        ip: Sum { start: byte(0), place: byte(1), last: half(2) },
        transport: Sum { start: byte(4), place: byte(5), last: half(6) },
        header_bytes: (last >> 8 & 0xff) as usize,
        segment_bytes: (last >> 16) as usize,
        is_tcp: command >> 24 & 1 != 0,
        is_ip4: command >> 25 & 1 != 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use memory::{AddressSpace, Owner, Ram, Region};

    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn memory() -> Arc<FlatView> {
        let space = AddressSpace::new();
        let ram = Arc::new(Ram::new("ram", 1 << 20).expect("memory"));
        space.add(Region::new("ram", 0, 1 << 20, Owner::Ram(ram)));
        space.view()
    }

    fn descriptor(address: u64, command: u32, upper: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&command.to_le_bytes());
        bytes[12..].copy_from_slice(&upper.to_le_bytes());
        bytes
    }

    #[test]
    fn frames_go_out_of_the_ring_and_the_driver_is_told() {
        let (mut chip, memory) = (Chip::new(MAC, true), memory());
        memory.write(0x2000, b"hello, ");
        memory.write(0x3000, b"world");
        memory.write(0x1000, &descriptor(0x2000, 7, 0));
        // End, report status.
        memory.write(0x1010, &descriptor(0x3000, 5 | 0x09 << 24, 0));
        chip.write(TRANSMIT_BASE_LOW, 0x1000);
        chip.write(TRANSMIT_BYTES, 128);
        chip.write(MASK_SET, CAUSE_SENT);
        assert!(chip.write(TRANSMIT_TAIL, 2));
        assert!(chip.transmit(&memory).is_empty(), "it is off");
        assert!(chip.write(TRANSMIT_CONTROL, TRANSMIT_ON));
        assert_eq!(chip.transmit(&memory), [b"hello, world".to_vec()]);
        assert_eq!((memory.read_value(0x101c, 1), memory.read_value(0x100c, 1)), (1, 0));
        assert!(chip.irq());
        assert_eq!(chip.read(CAUSES) & CAUSE_SENT, CAUSE_SENT);
        assert!(!chip.irq(), "reading has cleared it");
        assert_eq!((chip.read(TRANSMIT_HEAD), chip.read(GOOD_TRANSMITTED)), (2, 1));
    }

    #[test]
    fn frames_come_in_as_far_as_they_are_wanted() {
        let (mut chip, memory) = (Chip::new(MAC, true), memory());
        for slot in 0..8 {
            memory.write(0x1000 + 16 * slot, &descriptor(0x4000 + 0x800 * slot, 0, 0));
        }
        chip.write(RECEIVE_BASE_LOW, 0x1000);
        chip.write(RECEIVE_BYTES, 128);
        chip.write(RECEIVE_TAIL, 2);
        chip.write(RECEIVE_CONTROL, RECEIVE_ON | RECEIVE_STRIP);
        assert!(chip.receives());
        let mut frame = vec![7; 100];
        frame[..6].copy_from_slice(&[2, 2, 2, 2, 2, 2]);
        assert_eq!(chip.receive(&memory, &frame), Received::Dropped);
        frame[..6].fill(0xff);
        assert_eq!(chip.receive(&memory, &frame), Received::Dropped, "no broadcasts");
        frame[..6].copy_from_slice(&MAC);
        assert_eq!(chip.receive(&memory, &frame), Received::Taken);
        assert_eq!((memory.read_value(0x1008, 2), memory.read_value(0x100c, 1)), (100, 7));
        assert_eq!(memory.read_value(0x4000 + 50, 1), 7);
        frame.truncate(20);
        assert_eq!(chip.receive(&memory, &frame), Received::Taken);
        assert_eq!(memory.read_value(0x1018, 2), 60, "short ones are filled up");
        assert_eq!(chip.receive(&memory, &frame), Received::NoRoom);
        // A group's hash: bits 4 to 15 of the address's end.
        chip.write(RECEIVE_TAIL, 4);
        frame[..6].copy_from_slice(&[0x01, 0, 0x5e, 0, 0x10, 0x32]);
        assert_eq!(chip.receive(&memory, &frame), Received::Dropped);
        let hash = 0x3210 >> 4;
        chip.write(MULTICAST + 4 * (hash >> 5), 1 << (hash & 31));
        assert_eq!(chip.receive(&memory, &frame), Received::Taken);
    }

    #[test]
    fn the_phy_shows_the_link() {
        let mut chip = Chip::new(MAC, true);
        let read = |chip: &mut Chip, register: u32| {
            chip.write(PHY, 2 << 26 | 1 << 21 | register << 16);
            chip.read(PHY) & 0xffff
        };
        assert_eq!((read(&mut chip, 2), read(&mut chip, 1) & 4), (0x141, 4));
        chip.set_link(false);
        assert_eq!((read(&mut chip, 1) & 4, chip.read(STATUS) & STATUS_LINK), (0, 0));
        assert_eq!(chip.read(CAUSES), CAUSE_LINK);
        chip.write(PHY, 2 << 26 | 2 << 21);
        assert_ne!(chip.read(PHY) & 1 << 30, 0, "there is one only");
    }

    #[test]
    fn random_writes_do_no_harm() {
        let (mut chip, memory) = (Chip::new(MAC, true), memory());
        let mut seed = 77_u64;
        for _ in 0..200_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let value = (seed >> 20) as u32;
            let at = match seed >> 60 {
                0..4 => [RECEIVE_TAIL, TRANSMIT_TAIL, TRANSMIT_BYTES, RECEIVE_BYTES]
                    [(seed >> 58 & 3) as usize],
                4 => {
                    memory.write(u64::from(value & 0xf_fff0), &seed.to_le_bytes());
                    continue;
                }
                _ => u64::from(value >> 8 & 0x5fff) & !3,
            };
            let value = if matches!(at, TRANSMIT_BASE_LOW | RECEIVE_BASE_LOW) {
                value & 0xf_ffff
            } else {
                value
            };
            if at == CONTROL {
                continue;
            }
            if chip.write(at, value & if seed & 64 == 0 { 0xff } else { u32::MAX })
                && seed & 0xf00 == 0
            {
                let frames = chip.transmit(&memory);
                assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
            }
            chip.read(at);
            if seed & 0xff == 0 {
                chip.receive(&memory, &seed.to_le_bytes().repeat(40));
            }
        }
    }
}
