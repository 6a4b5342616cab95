//! From descriptors, which the guest writes, to segments, which can be trusted to be memory.

use memory::FlatView;

use super::Area;
use super::chain::Segment;

/// The driver has broken the rules; the device asks for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A descriptor in a table: address, length, flags, next.
pub(super) const DESCRIPTOR_BYTES: u64 = 16;
/// The longest chain, indirect descriptors included. Drivers stay below it (Linux: 1024 pages of a
/// request and two more are offered only to devices that say they can).
const SEGMENTS_MAX: usize = 1024;
/// The longest indirect table.
const TABLE_ENTRIES_MAX: u64 = 1024;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    bytes: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn parse(bytes: [u8; 16]) -> Self {
        let value = u128::from_le_bytes(bytes);
        Self {
            address: value as u64,
            bytes: (value >> 64) as u32,
            flags: (value >> 96) as u16,
            next: (value >> 112) as u16,
        }
    }
}

/// Where to look for descriptors' memory, and whether indirect ones are agreed on.
pub(super) struct Walk<'a> {
    pub view: &'a FlatView,
    pub indirect: bool,
}

impl Walk<'_> {
    /// Follows a chain of a split ring; the number of segments that the device reads.
    pub fn split(
        &self,
        table: &Area,
        size: u16,
        head: u16,
        segments: &mut Vec<Segment>,
    ) -> Result<usize, Broken> {
        let mut readable = 0;
        let mut next = head;
        // Each descriptor is visited once at most, so a loop ends here.
        for _ in 0..size {
            if next >= size {
                return Err(Broken);
            }
            let mut bytes = [0; 16];
            let place = table.offset + u64::from(next) * DESCRIPTOR_BYTES;
            if !table.ram().read(place, &mut bytes) {
                return Err(Broken);
            }
            let descriptor = Descriptor::parse(bytes);
            if descriptor.flags & INDIRECT != 0 {
                if descriptor.flags & NEXT != 0 {
                    return Err(Broken);
                }
                self.indirect(descriptor, true, segments, &mut readable)?;
                return Ok(readable);
            }
            self.add(descriptor, segments, &mut readable)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(readable);
            }
            next = descriptor.next;
        }
        Err(Broken)
    }

    /// Follows the table behind an indirect descriptor: by links in a split ring, else in order.
    fn indirect(
        &self,
        outer: Descriptor,
        linked: bool,
        segments: &mut Vec<Segment>,
        readable: &mut usize,
    ) -> Result<(), Broken> {
        let bytes = u64::from(outer.bytes);
        let entries = bytes / DESCRIPTOR_BYTES;
        let whole = bytes.is_multiple_of(DESCRIPTOR_BYTES);
        if !self.indirect || !whole || !(1..=TABLE_ENTRIES_MAX).contains(&entries) {
            return Err(Broken);
        }
        if outer.address.checked_add(bytes).is_none() {
            return Err(Broken);
        }
        let mut next = 0;
        for _ in 0..entries {
            let mut bytes = [0; 16];
            let address = outer.address + next * DESCRIPTOR_BYTES;
            if next >= entries || !self.view.read_memory(address, &mut bytes) {
                return Err(Broken);
            }
            let descriptor = Descriptor::parse(bytes);
            if descriptor.flags & INDIRECT != 0 {
                return Err(Broken);
            }
            self.add(descriptor, segments, readable)?;
            let ends = if linked { descriptor.flags & NEXT == 0 } else { next + 1 == entries };
            if ends {
                return Ok(());
            }
            next = if linked { u64::from(descriptor.next) } else { next + 1 };
        }
        Err(Broken)
    }

    fn add(
        &self,
        descriptor: Descriptor,
        segments: &mut Vec<Segment>,
        readable: &mut usize,
    ) -> Result<(), Broken> {
        let Descriptor { address, bytes, flags, .. } = descriptor;
        let write = flags & WRITE != 0;
        // What the device reads comes first.
        if !write && segments.len() > *readable {
            return Err(Broken);
        }
        if bytes == 0 {
            return Ok(());
        }
        if segments.len() == SEGMENTS_MAX || !self.view.is_memory(address, u64::from(bytes), write)
        {
            return Err(Broken);
        }
        segments.push(Segment { address, bytes });
        *readable += usize::from(!write);
        Ok(())
    }
}
