//! What a vCPU's caches hold of one address space only.
//!
//! A guest that changes its page tables' root forgets everything but global pages. The TLB and the
//! jump cache do not say which of their entries are global: these books do, so that a change of
//! address space costs what was used of the old one, and the kernel's entries stay.

use std::cell::{Cell, RefCell};

use crate::host::x86_64::vcpu_block as layout;
use crate::raw::{self, BlockPointer};

const TLB_ENTRIES: usize = (layout::TLB_VIEWS as usize) << layout::TLB_BITS;
const JUMP_ENTRIES: usize = 1 << layout::JUMPS_BITS;
/// Pages with code share a bit when their numbers are that far apart.
const CODE_PAGES: usize = 4096;

/// Pages whose translation for fetches is remembered.
const FETCH_PAGES: usize = 64;
/// In a remembered physical page: it is global.
const GLOBAL: u64 = 1;

/// A set of small numbers.
struct Set<const WORDS: usize>([Cell<u64>; WORDS]);

impl<const WORDS: usize> Set<WORDS> {
    fn new() -> Self {
        Self([const { Cell::new(0) }; WORDS])
    }

    fn set(&self, number: usize, value: bool) {
        let (word, bit) = (&self.0[number / 64 % WORDS], 1 << (number % 64));
        word.set(if value { word.get() | bit } else { word.get() & !bit });
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64 % WORDS].get() & 1 << (number % 64) != 0
    }

    fn clear(&self) {
        self.0.iter().for_each(|word| word.set(0));
    }

    /// Empties it.
    fn take(&self, mut each: impl FnMut(u32)) {
        for (index, word) in (0..).zip(&self.0) {
            let mut bits = word.take();
            while bits != 0 {
                each(64 * index + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
}

/// The books of one vCPU.
pub(super) struct Local {
    /// TLB entries that are not global.
    pages: Set<{ TLB_ENTRIES / 64 }>,
    /// Entries of the jump cache whose code lies on pages that are not global.
    jumps: Set<{ JUMP_ENTRIES / 64 }>,
    /// Pages, by number, of code that the jump cache may know.
    code: Set<{ CODE_PAGES / 64 }>,
    /// By page number: (virtual page and view, physical page) of recent fetches.
    fetches: RefCell<[(u64, u64); FETCH_PAGES]>,
}

fn code_page(address: u64) -> usize {
    (address >> 12) as usize % CODE_PAGES
}

impl Local {
    pub fn new() -> Self {
        Self {
            pages: Set::new(),
            jumps: Set::new(),
            code: Set::new(),
            fetches: RefCell::new([(u64::MAX, 0); FETCH_PAGES]),
        }
    }

    /// The TLB learned a page.
    pub fn note_page(&self, view: u16, address: u64, global: bool) {
        self.pages.set(raw::tlb_number(view, address) as usize, !global);
    }

    /// The jump cache learned a block, that may reach into a second page.
    pub fn note_jump(&self, pc: u64, view: u16, second: bool) {
        let next = (pc | 0xfff).wrapping_add(1);
        let is_global = |pc| self.fetched(pc, view).is_some_and(|(_, global)| global);
        let global = is_global(pc) && (!second || is_global(next));
        self.jumps.set(raw::jump_entry(pc) as usize, !global);
        self.code.set(code_page(pc), true);
        if second {
            self.code.set(code_page(next), true);
        }
    }

    /// A page was translated for fetches.
    pub fn note_fetch(&self, pc: u64, view: u16, physical: u64, global: bool) {
        let entry = (fetch_tag(pc, view), physical & !0xfff | if global { GLOBAL } else { 0 });
        self.fetches.borrow_mut()[fetch_slot(pc)] = entry;
    }

    /// The physical page of code, and whether it is global, if known.
    pub fn fetched(&self, pc: u64, view: u16) -> Option<(u64, bool)> {
        let (tag, physical) = self.fetches.borrow()[fetch_slot(pc)];
        (tag == fetch_tag(pc, view)).then_some((physical & !0xfff, physical & GLOBAL != 0))
    }

    /// The address space is another one: only what is global stays.
    pub fn forget_local(&self, block: BlockPointer) {
        self.pages.take(|entry| block.forget_tlb_entry(entry));
        self.jumps.take(|entry| block.forget_jump_entry(entry));
        for fetch in &mut *self.fetches.borrow_mut() {
            if fetch.1 & GLOBAL == 0 {
                *fetch = (u64::MAX, 0);
            }
        }
    }

    /// One page is translated anew. The TLB is the caller's.
    pub fn forget_code_page(&self, block: BlockPointer, address: u64) {
        for fetch in &mut *self.fetches.borrow_mut() {
            if fetch.0 >> 2 == address >> 12 {
                *fetch = (u64::MAX, 0);
            }
        }
        if self.code.has(code_page(address)) {
            self.forget_all_jumps(block);
        }
    }

    /// Everything is another one.
    pub fn forget(&self, block: BlockPointer) {
        self.pages.clear();
        block.forget_tlb();
        self.forget_all_jumps(block);
        *self.fetches.borrow_mut() = [(u64::MAX, 0); FETCH_PAGES];
    }

    fn forget_all_jumps(&self, block: BlockPointer) {
        self.jumps.clear();
        self.code.clear();
        block.forget_jumps(0, u64::MAX);
    }
}

fn fetch_tag(pc: u64, view: u16) -> u64 {
    pc >> 12 << 2 | u64::from(view)
}

fn fetch_slot(pc: u64) -> usize {
    (pc >> 12) as usize % FETCH_PAGES
}
