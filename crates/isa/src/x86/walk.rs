//! Page-table walks: 32-bit, PAE and four-level, with accessed and dirty bits.

use super::events::{NOT_CANONICAL, page_error};
use super::helpers::transfer::is_canonical;
use super::mode::control;
use super::state::State;
use crate::front_end::{Access, MemoryFault, Physical, Translation};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// The address in a 64-bit entry. CPUID says 40 bits; the rest is reserved.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const RESERVED: u64 = 0x000f_ff00_0000_0000;

/// The shape of the tables.
struct Shape {
    /// Bytes of an entry.
    bytes: u32,
    /// Levels from the root.
    levels: u32,
    /// Address bits an index has.
    index_bits: u32,
    root: u64,
}

impl Shape {
    fn of(state: &State) -> Self {
        if state.is_long_mode() {
            return Self { bytes: 8, levels: 4, index_bits: 9, root: state.cr[3] & ADDRESS };
        }
        if state.cr[4] & control::CR4_PAE != 0 {
            return Self { bytes: 8, levels: 3, index_bits: 9, root: state.cr[3] & 0xffff_ffe0 };
        }
        Self { bytes: 4, levels: 2, index_bits: 10, root: state.cr[3] & 0xffff_f000 }
    }
}

/// The MMU views, as `FrontEnd::mmu_view` numbers them.
pub mod view {
    /// Of level 3.
    pub const USER: u16 = 0;
    /// Of the other levels; also of descriptor tables and inner stacks, whoever needs them.
    pub const SUPERVISOR: u16 = 1;
    /// Likewise, with SMAP overridden by EFLAGS.AC.
    pub const SUPERVISOR_OVERRIDE: u16 = 2;
}

/// Translates one linear address.
pub fn walk(
    state: &State,
    memory: &mut dyn Physical,
    address: u64,
    access: Access,
    mmu_index: u16,
) -> Result<Translation, MemoryFault> {
    let address = if state.is_long_mode() {
        if !is_canonical(address) {
            return Err(MemoryFault { address, access, detail: NOT_CANONICAL });
        }
        address
    } else {
        address & 0xffff_ffff
    };
    if state.cr[0] & control::CR0_PG == 0 {
        return Ok(Translation {
            physical: address,
            page_bits: 21,
            read: true,
            write: true,
            execute: true,
            global: true,
        });
    }
    let shape = Shape::of(state);
    let mut walker = Walker { state, memory, address, access, user: mmu_index == view::USER };
    walker.descend(&shape, mmu_index)
}

struct Walker<'a> {
    state: &'a State,
    memory: &'a mut dyn Physical,
    address: u64,
    access: Access,
    user: bool,
}

impl Walker<'_> {
    fn descend(&mut self, shape: &Shape, mmu_index: u16) -> Result<Translation, MemoryFault> {
        let no_execute_on = self.state.efer & control::EFER_NXE != 0;
        let (mut table, mut rights, mut no_execute) = (shape.root, WRITE | USER, false);
        for level in (0..shape.levels).rev() {
            let shift = 12 + level * shape.index_bits;
            // The root of PAE has four entries without rights.
            let pae_root = shape.levels == 3 && level == 2;
            let mask = if pae_root { 3 } else { (1 << shape.index_bits) - 1 };
            let place = table + (self.address >> shift & mask) * u64::from(shape.bytes);
            let entry = self.memory.read(place, shape.bytes).unwrap_or(0);
            if entry & PRESENT == 0 {
                return Err(self.fault(0));
            }
            let bad_execute = shape.bytes == 8 && !no_execute_on && entry & NO_EXECUTE != 0;
            if bad_execute || (shape.bytes == 8 && entry & RESERVED != 0) {
                return Err(self.fault(page_error::PROTECTION | page_error::RESERVED));
            }
            let large_possible = match (shape.levels, level) {
                (4, 2 | 1) | (3, 1) => true,
                (2, 1) => self.state.cr[4] & control::CR4_PSE != 0,
                _ => false,
            };
            if !pae_root {
                rights &= entry;
                no_execute |= shape.bytes == 8 && entry & NO_EXECUTE != 0;
            }
            let leaf = level == 0 || (large_possible && entry & LARGE != 0);
            if leaf {
                let allowed = self.check(rights, no_execute, mmu_index)?;
                return self.finish(shape, place, entry, shift, allowed);
            }
            if !pae_root {
                self.mark(place, shape.bytes, entry, ACCESSED);
            }
            table = if shape.bytes == 8 { entry & ADDRESS } else { entry & 0xffff_f000 };
        }
        Err(self.fault(0))
    }

    /// What the rights on the way allow: read, write, execute. A fault when that is not enough.
    fn check(
        &self,
        rights: u64,
        no_execute: bool,
        mmu_index: u16,
    ) -> Result<[bool; 3], MemoryFault> {
        let user_page = rights & USER != 0;
        let cr4 = self.state.cr[4];
        let override_smap = mmu_index == view::SUPERVISOR_OVERRIDE;
        let smap = !self.user && user_page && cr4 & control::CR4_SMAP != 0 && !override_smap;
        let smep = !self.user && user_page && cr4 & control::CR4_SMEP != 0;
        let reachable = if self.user { user_page } else { !smap };
        let protects = self.user || self.state.cr[0] & control::CR0_WP != 0;
        let write = reachable && (rights & WRITE != 0 || !protects);
        let execute = (!self.user || user_page) && !no_execute && !smep;
        let allowed = match self.access {
            Access::Write => write,
            Access::Execute => execute,
            _ => reachable,
        };
        if allowed {
            Ok([reachable, write, execute])
        } else {
            Err(self.fault(page_error::PROTECTION))
        }
    }

    fn finish(
        &mut self,
        shape: &Shape,
        place: u64,
        entry: u64,
        shift: u32,
        [read, write, execute]: [bool; 3],
    ) -> Result<Translation, MemoryFault> {
        let writes = self.access == Access::Write;
        self.mark(place, shape.bytes, entry, if writes { ACCESSED | DIRTY } else { ACCESSED });
        let dirty = writes || entry & DIRTY != 0;
        let page_mask = (1 << shift) - 1;
        let frame = if shape.bytes == 8 {
            entry & ADDRESS & !page_mask
        } else if shift > 12 {
            // 4 MiB pages keep bits 32 to 39 of the address in bits 13 to 20.
            entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
        } else {
            entry & 0xffff_f000
        };
        Ok(Translation {
            physical: frame | self.address & page_mask,
            page_bits: shift as u8,
            read,
            // Without the dirty bit the first write must walk again.
            write: write && dirty,
            execute,
            global: entry & GLOBAL != 0 && self.state.cr[4] & control::CR4_PGE != 0,
        })
    }

    /// Sets bits of an entry. When another processor was faster, its entry stands: the bits are
    /// hints to the system, and the next walk sets them.
    fn mark(&mut self, place: u64, bytes: u32, entry: u64, bits: u64) {
        if entry & bits != bits {
            self.memory.compare_exchange(place, bytes, entry, entry | bits);
        }
    }

    fn fault(&self, error: u64) -> MemoryFault {
        let fetch_shown =
            self.state.efer & control::EFER_NXE != 0 || self.state.cr[4] & control::CR4_SMEP != 0;
        let by_access = match self.access {
            Access::Write => page_error::WRITE,
            Access::Execute if fetch_shown => page_error::FETCH,
            _ => 0,
        };
        let user = if self.user { page_error::USER } else { 0 };
        MemoryFault { address: self.address, access: self.access, detail: error | by_access | user }
    }
}
