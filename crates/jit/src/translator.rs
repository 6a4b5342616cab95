//! The translator's books: blocks, exits, faults, pages. One lock guards them all.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::ops::Range;

use isa::Key;
use isa::ir::Ir;

use crate::host::x86_64::tier1::Compiler;

/// A block's identity: where its code lies, and what it means there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockKey {
    /// Guest physical address of the first instruction (user mode: its address).
    pub physical: u64,
    /// System mode: the physical page into which an instruction at the end of the first one
    /// reaches, for it need not be the next; else `NO_PAGE`.
    pub second: u64,
    /// Virtual address and mode.
    pub key: Key,
}

/// No page.
pub const NO_PAGE: u64 = u64::MAX;

/// From this offset in a page on, an instruction may reach into the next one: the longest have 15
/// bytes. Blocks that begin before it end on their page.
pub const TAIL: u64 = 0x1000 - 14;

/// A translated block.
pub struct Block {
    pub key: BlockKey,
    /// Where it is entered.
    pub host: u64,
    /// Behind its code.
    pub host_end: u64,
    /// Guest code: physical start, bytes.
    pub bytes: u64,
    /// Depends on all code of its page.
    pub page_wide: bool,
    /// Has only exits that lead out of translated code: neither calls nor returns come of it.
    pub apart: bool,
    /// Sites that jump here.
    pub incoming: Vec<u32>,
    /// Its own direct exits.
    pub exits: Range<u32>,
    /// It counts how often it is entered, and this site leads from its entry to where it goes when it
    /// is hot.
    pub counter: Option<u32>,
    /// Still in the map.
    pub alive: bool,
}

impl Block {
    /// Where its code lies: start and end in its page or pages, and what reaches into a page that
    /// is elsewhere.
    pub fn parts(&self) -> [(u64, u64); 2] {
        let (start, end) = (self.key.physical, self.key.physical + self.bytes);
        let border = (start | 0xfff) + 1;
        if self.key.second == NO_PAGE || end <= border {
            return [(start, end), (0, 0)];
        }
        [(start, border), (self.key.second, self.key.second + (end - border))]
    }
}

/// A direct exit.
pub struct SiteRecord {
    pub target: Key,
    pub place: u64,
    pub stub: u64,
    /// May be linked: not from a block that is used once.
    pub linkable: bool,
    /// The block it is linked to.
    pub linked: Option<u32>,
}

/// Multiplicative hashing: keys are addresses.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map by address.
pub type AddressMap<K, V> = HashMap<K, V, BuildHasherDefault<AddressHasher>>;

/// See the module.
#[derive(Default)]
pub struct Translator {
    pub ir: Ir,
    pub compiler: Compiler,
    /// Bytes of the code cache in use.
    pub used: usize,
    /// Of which stubs.
    pub stubs_end: usize,
    pub blocks: AddressMap<BlockKey, u32>,
    pub list: Vec<Block>,
    pub sites: Vec<SiteRecord>,
    /// (offset in the cache, pc), ascending.
    pub faults: Vec<(u32, u64)>,
    /// Where pinned registers lie in the block's `GPR_SAVE`: from, to (offsets), bit set.
    pub borrows: Vec<(u32, u32, u16)>,
    /// The mode whose tag is zero: the first, and in user mode mostly the only one.
    pub first_mode: Option<u64>,
    /// Makes the other modes' tags, so that no guest can name an address that is another mode's.
    pub secret: RandomState,
    /// Blocks by 4 KiB page of guest code.
    pub pages: AddressMap<u64, Vec<u32>>,
    pub counters: Counters,
}

/// What `info jit` shows.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions in them.
    pub instructions: u64,
    /// Guest bytes in them.
    pub guest_bytes: u64,
    /// Host bytes made of them.
    pub host_bytes: u64,
    /// Blocks invalidated.
    pub invalidated: u64,
    /// Times the cache was full.
    pub flushes: u64,
    /// Exits linked.
    pub links: u64,
    /// Hot blocks that the second tier took over.
    pub promoted: u64,
}

impl Translator {
    /// What tells this mode's entries in jump caches apart, by exclusive or with their pc.
    pub fn mode_tag(&mut self, mode: u64) -> u64 {
        let first = *self.first_mode.get_or_insert(mode);
        if mode == first { 0 } else { self.secret.hash_one(mode) }
    }

    /// The guest instruction that host code at this offset belongs to.
    pub fn pc_of(&self, offset: usize) -> Option<u64> {
        let after = self.faults.partition_point(|&(start, _)| start as usize <= offset);
        self.faults.get(after.checked_sub(1)?).map(|&(_, pc)| pc)
    }

    /// The pinned registers that code at this offset works with.
    pub fn borrowed_at(&self, offset: usize) -> u16 {
        let at = offset as u32;
        let holds = |range: &&(u32, u32, u16)| (range.0..range.1).contains(&at);
        self.borrows.iter().filter(holds).fold(0, |mask, range| mask | range.2)
    }

    /// Counts the block that `ir` is now.
    pub fn count_block(&mut self, guest_bytes: u64, host_bytes: u64) {
        self.counters.blocks += 1;
        self.counters.instructions += u64::from(self.ir.insns());
        self.counters.guest_bytes += guest_bytes;
        self.counters.host_bytes += host_bytes;
    }

    /// Forgets everything but the stubs.
    pub fn clear(&mut self) {
        self.used = self.stubs_end;
        self.blocks.clear();
        self.list.clear();
        self.sites.clear();
        self.faults.clear();
        self.borrows.clear();
        self.pages.clear();
        self.counters.flushes += 1;
    }

    /// What is empty needs no memory.
    pub fn shrink(&mut self) {
        self.blocks.shrink_to_fit();
        self.list.shrink_to_fit();
        self.sites.shrink_to_fit();
        self.faults.shrink_to_fit();
        self.borrows.shrink_to_fit();
        self.pages.shrink_to_fit();
    }

    /// Takes the blocks out that overlap guest code in a page; gives their numbers.
    pub fn take_overlapping(&mut self, start: u64, end: u64) -> Vec<u32> {
        let mut taken = Vec::new();
        for page in start >> 12..=(end - 1) >> 12 {
            let Some(blocks) = self.pages.get_mut(&page) else { continue };
            let list = &self.list;
            blocks.retain(|&number| {
                let block = &list[number as usize];
                let first = block.key.physical;
                let page_wide = block.page_wide && first >> 12 == page;
                let mut parts = block.parts().into_iter();
                let overlaps = page_wide || parts.any(|(from, to)| from < end && to > start);
                if overlaps {
                    taken.push(number);
                }
                !overlaps && block.alive
            });
            if blocks.is_empty() {
                self.pages.remove(&page);
            }
        }
        taken.retain(|&number| self.list[number as usize].alive);
        taken.sort_unstable();
        taken.dedup();
        taken
    }
}
