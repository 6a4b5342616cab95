//! Guest memory as helpers, page-table walks and fetches see it.

use isa::{Access, Fetch, FrontEnd, GuestMemory, MemoryFault, Physical};

use super::access::Place;
use super::{Context, NO_LARGE};
use crate::raw;
use crate::space::{Bus, Space, fault};
use crate::stops::Stops;
use crate::translator::{BlockKey, NO_PAGE};

/// Guest memory for helpers.
pub(super) struct View<'a, F: FrontEnd> {
    pub context: &'a Context<F>,
}

impl<F: FrontEnd> View<'_, F> {
    fn is_user(&self) -> bool {
        matches!(self.context.engine.space, Space::User(_))
    }

    fn view(&self, index: u16) -> u16 {
        match index {
            0 => {
                let front_end = &self.context.engine.front_end;
                front_end.mmu_view(front_end.key(self.context.state()).mode)
            }
            index => index,
        }
    }
}

impl<F: FrontEnd> View<'_, F> {
    /// Where an address lies in host memory, if the soft TLB knows it.
    fn at_hand(&self, address: u64, write: bool) -> Option<u64> {
        let known = || self.context.block.known_page(self.view(0), address, write);
        if self.is_user() { None } else { known() }
    }
}

impl<F: FrontEnd> GuestMemory for View<'_, F> {
    fn load(&mut self, address: u64, bytes: u32, index: u16) -> Result<u64, MemoryFault> {
        if !self.is_user() {
            return self.context.load(address, bytes, self.view(index));
        }
        let mut word = [0; 8];
        self.read(address, &mut word[..bytes as usize], index)?;
        Ok(u64::from_le_bytes(word))
    }

    fn store(
        &mut self,
        address: u64,
        bytes: u32,
        value: u64,
        index: u16,
    ) -> Result<(), MemoryFault> {
        if !self.is_user() {
            return self.context.store(address, bytes, value, self.view(index));
        }
        let value = &value.to_le_bytes()[..bytes as usize];
        let on_first = (0x1000 - (address & 0xfff) as usize).min(value.len());
        let (first, second) = value.split_at(on_first);
        // Nothing is written when one of two pages is not there.
        let border = address + on_first as u64;
        let mut kept = [0; 8];
        let kept = &mut kept[..second.len()];
        if !second.is_empty() {
            self.read(border, kept, index).map_err(|_| fault(border, Access::Write))?;
            self.context.write_user(border, second)?;
        }
        let written = self.context.write_user(address, first);
        if written.is_err() && !second.is_empty() {
            self.context.write_user(border, kept)?;
        }
        written
    }

    fn copy_at_hand(&mut self, from: u64, to: u64, bytes: usize) -> bool {
        if self.is_user() {
            // Begun anew after a fault in the midst, which an overlap would not bear.
            let apart = from.abs_diff(to) >= bytes as u64;
            return apart && self.context.engine.copy_in_user(from, to, bytes);
        }
        let (source, target) = (self.at_hand(from, false), self.at_hand(to, true));
        let (Some(source), Some(target)) = (source, target) else { return false };
        raw::host_move(source, target, bytes);
        true
    }

    fn fill_at_hand(&mut self, to: u64, bytes: u32, value: u64, count: usize) -> bool {
        let Some(target) = self.at_hand(to, true) else { return false };
        raw::host_fill(target, bytes, value, count);
        true
    }

    fn read(&mut self, address: u64, into: &mut [u8], index: u16) -> Result<(), MemoryFault> {
        if self.is_user() {
            let bytes = into.len();
            let engine = &self.context.engine;
            return engine
                .copy_from_user(address, into)
                .map_err(|missing| fault(address + (bytes - missing) as u64, Access::Read));
        }
        let view = self.view(index);
        let mut at = address;
        let mut rest = into;
        while !rest.is_empty() {
            let piece = rest.len().min((0x1000 - (at & 0xfff)) as usize);
            let (now, later) = rest.split_at_mut(piece);
            self.context.watch(at, piece as u64, Access::Read)?;
            match self.context.place(at, Access::Read, view)? {
                Place::Ram { host, .. } | Place::Code { host, .. } => raw::host_read(host, now),
                Place::Device(physical) => {
                    for (offset, byte) in (0..).zip(now) {
                        let address = physical.wrapping_add(offset);
                        *byte = self.context.bus().read(address, 1) as u8;
                    }
                }
            }
            at = at.wrapping_add(piece as u64);
            rest = later;
        }
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8], index: u16) -> Result<(), MemoryFault> {
        if self.is_user() {
            return self.context.write_user(address, from);
        }
        let view = self.view(index);
        let last = address.wrapping_add(from.len() as u64).wrapping_sub(1);
        self.context.watch(address, from.len() as u64, Access::Write)?;
        for page in address >> 12..=last >> 12 {
            self.context.place((page << 12).max(address), Access::Write, view)?;
        }
        let mut at = address;
        let mut rest = from;
        while !rest.is_empty() {
            let piece = rest.len().min((0x1000 - (at & 0xfff)) as usize);
            let (now, later) = rest.split_at(piece);
            match self.context.place(at, Access::Write, view)? {
                Place::Ram { host, physical } | Place::Code { host, physical } => {
                    raw::host_write(host, now);
                    self.context.engine.invalidate(physical, physical + piece as u64);
                }
                Place::Device(physical) => {
                    for (offset, &byte) in (0..).zip(now) {
                        let address = physical.wrapping_add(offset);
                        self.context.bus().write(address, 1, u64::from(byte));
                    }
                }
            }
            at = at.wrapping_add(piece as u64);
            rest = later;
        }
        Ok(())
    }

    fn probe(&mut self, address: u64, bytes: u32, access: Access) -> Result<(), MemoryFault> {
        let last = address.wrapping_add(u64::from(bytes.max(1)) - 1);
        if self.is_user() {
            for at in [address, last] {
                match access {
                    Access::Write => self.context.user_host(at, 1).map(|_| ())?,
                    _ => self.load(at, 1, 0).map(|_| ())?,
                }
            }
            return Ok(());
        }
        let view = self.view(0);
        for at in [address, last] {
            self.context.walk(at, access, view)?;
        }
        Ok(())
    }

    fn compare_exchange(
        &mut self,
        address: u64,
        bytes: u32,
        old: u128,
        new: u128,
        index: u16,
    ) -> Result<u128, MemoryFault> {
        let view = if self.is_user() { 0 } else { self.view(index) };
        self.context.compare_exchange(address, bytes, old, new, view)
    }

    fn flush_tlb(&mut self, address: Option<u64>, asid: Option<u16>) {
        if self.is_user() {
            return;
        }
        let Context { local, block, large, .. } = self.context;
        let in_large = |address: u64| {
            let (start, end) = large.get()[(address >> 63) as usize];
            (start..=end).contains(&address)
        };
        match (address, asid) {
            (Some(address), _) if !in_large(address) => {
                block.forget_tlb_page(address);
                local.forget_code_page(*block, address);
            }
            // The TLB has room for one address space only, whatever its number.
            (None, Some(_)) => local.forget_local(*block),
            _ => {
                large.set(NO_LARGE);
                local.forget(*block);
            }
        }
        block.forget_returns();
    }

    fn flush_code(&mut self, address: u64, bytes: u64) {
        if self.is_user() {
            self.context.engine.invalidate(address, address.saturating_add(bytes));
        }
        // System mode sees every store to code pages by itself.
    }

    fn machine_read(&mut self, space: u32, address: u64, bytes: u32) -> u64 {
        match &self.context.engine.space {
            Space::User(user) => user.machine_read(space, address, bytes),
            Space::System(bus) => bus.machine_read(space, address, bytes),
        }
    }

    fn machine_write(&mut self, space: u32, address: u64, bytes: u32, value: u64) {
        if let Space::System(bus) = &self.context.engine.space {
            bus.machine_write(space, address, bytes, value);
        }
    }

    fn clock_ns(&mut self) -> u64 {
        match &self.context.engine.space {
            Space::System(bus) => bus.clock_ns(),
            Space::User(_) => {
                use std::time::Instant;
                thread_local! { static START: Instant = Instant::now(); }
                START.with(|start| start.elapsed().as_nanos() as u64)
            }
        }
    }
}

/// Page tables in guest RAM.
pub(super) struct Tables<'a> {
    pub bus: &'a dyn Bus,
}

impl Physical for Tables<'_> {
    fn read(&mut self, address: u64, bytes: u32) -> Option<u64> {
        let page = self.bus.page(address & !0xfff)?;
        Some(raw::host_load(page.address + (address & 0xfff), bytes))
    }

    fn compare_exchange(&mut self, address: u64, bytes: u32, old: u64, new: u64) -> bool {
        let Some(page) = self.bus.page(address & !0xfff).filter(|page| page.writable) else {
            return false;
        };
        let aligned = address.is_multiple_of(u64::from(bytes));
        aligned && raw::host_cas(page.address + (address & 0xfff), bytes, old, new) == old
    }
}

/// Fetches guest code from the pages of a block.
pub(super) struct SystemFetch<'a> {
    pub bus: &'a dyn Bus,
    pub key: BlockKey,
    /// Breakpoints, if they count.
    pub stops: Option<&'a Stops>,
}

impl Fetch for SystemFetch<'_> {
    /// Nothing from pages that are not in the key: the block would not depend on them.
    fn fetch(&mut self, pc: u64, bytes: &mut [u8]) -> usize {
        let physical = match (pc >> 12).wrapping_sub(self.key.key.pc >> 12) {
            0 => self.key.physical & !0xfff | pc & 0xfff,
            1 if self.key.second != NO_PAGE => self.key.second | pc & 0xfff,
            _ => return 0,
        };
        let Some(page) = self.bus.page(physical & !0xfff) else { return 0 };
        let wanted = bytes.len().min((0x1000 - (pc & 0xfff)) as usize);
        let wanted = self.stops.map_or(wanted, |stops| stops.readable(pc, wanted));
        raw::host_read(page.address + (physical & 0xfff), &mut bytes[..wanted]);
        wanted
    }
}
