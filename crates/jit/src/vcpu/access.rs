//! What slow accesses do: RAM, code, devices, atomics.

use isa::{Access, Event, FrontEnd, GuestMemory, MemoryFault, Stop};

use super::{Context, view::View};
use crate::host::x86_64::tier1::SlowAccess;
use crate::host::x86_64::vcpu_block as layout;
use crate::raw::{self, BlockPointer};
use crate::space::{Space, fault};

impl<F: FrontEnd> Context<F> {
    pub(super) fn note_large(&self, address: u64, page_bits: u8) {
        if page_bits <= 12 {
            return;
        }
        let mask = (1 << page_bits) - 1;
        let mut large = self.large.get();
        let (start, end) = &mut large[(address >> 63) as usize];
        (*start, *end) = ((*start).min(address & !mask), (*end).max(address | mask));
        self.large.set(large);
    }

    /// Where a slow access goes: RAM, which the TLB then knows, or a device.
    pub(super) fn place(
        &self,
        address: u64,
        access: Access,
        view: u16,
    ) -> Result<Place, MemoryFault> {
        let translation = self.walk(address, access, view)?;
        self.note_large(address, translation.page_bits);
        let physical = translation.physical;
        let Some(page) = self.bus().page(physical & !0xfff) else {
            return Ok(Place::Device(physical));
        };
        // Under the lock: who translates code of this page meanwhile forbids writes after this.
        let translator = self.engine.translator.lock();
        let code = translator.pages.contains_key(&(physical >> 12));
        let writable = translation.write && page.writable && !code;
        let (read, virtual_page) = (translation.read, address & !0xfff);
        if !self.is_watched_page(address) {
            self.block.remember_page(view, virtual_page, page.address, read, writable);
            self.local.note_page(view, virtual_page, translation.global);
        }
        drop(translator);
        let host = page.address + (physical & 0xfff);
        Ok(match access {
            Access::Write if !page.writable => Place::Device(physical),
            Access::Write if code => Place::Code { host, physical },
            _ => Place::Ram { host, physical },
        })
    }

    pub(super) fn load(&self, address: u64, bytes: u32, view: u16) -> Result<u64, MemoryFault> {
        if (address & 0xfff) + u64::from(bytes) > 0x1000 {
            return self.load_pieces(address, bytes, view);
        }
        if let Some(host) = self.block.known_page(view, address, false) {
            return Ok(raw::host_load(host, bytes));
        }
        self.watch(address, u64::from(bytes), Access::Read)?;
        Ok(match self.place(address, Access::Read, view)? {
            Place::Ram { host, .. } | Place::Code { host, .. } => raw::host_load(host, bytes),
            Place::Device(physical) => self.bus().read(physical, bytes),
        })
    }

    pub(super) fn load_pieces(
        &self,
        address: u64,
        bytes: u32,
        view: u16,
    ) -> Result<u64, MemoryFault> {
        let mut value = 0;
        for index in 0..bytes {
            let byte = self.load(address.wrapping_add(u64::from(index)), 1, view)?;
            value |= byte << (8 * index);
        }
        Ok(value)
    }

    /// `Ok(false)`: the store hits translated code that is gone now; do it again, alone.
    pub(super) fn store(
        &self,
        address: u64,
        bytes: u32,
        value: u64,
        view: u16,
    ) -> Result<(), MemoryFault> {
        if (address & 0xfff) + u64::from(bytes) > 0x1000 {
            return self.store_pieces(address, bytes, value, view);
        }
        if let Some(host) = self.block.known_page(view, address, true) {
            raw::host_store(host, bytes, value);
            return Ok(());
        }
        self.watch(address, u64::from(bytes), Access::Write)?;
        match self.place(address, Access::Write, view)? {
            Place::Ram { host, physical } | Place::Code { host, physical } => {
                raw::host_store(host, bytes, value);
                // Also where no code was: another vCPU may have translated what stood there until
                // now, since we looked.
                self.engine.invalidate(physical, physical + u64::from(bytes));
            }
            Place::Device(physical) => {
                self.bus().write(physical, bytes, value);
                // A register may change the map (flash shows its status instead of its contents),
                // and the next instruction must see it: a flush asked of all is due here at once.
                if self.block.is_asked(BlockPointer::REQUEST_FLUSH) {
                    View { context: self }.flush_tlb(None, None);
                }
            }
        }
        Ok(())
    }

    pub(super) fn store_pieces(
        &self,
        address: u64,
        bytes: u32,
        value: u64,
        view: u16,
    ) -> Result<(), MemoryFault> {
        self.watch(address, u64::from(bytes), Access::Write)?;
        // Both pages must accept the store before anything is written.
        self.place(address, Access::Write, view)?;
        self.place(address.wrapping_add(u64::from(bytes) - 1), Access::Write, view)?;
        for index in 0..bytes {
            let at = address.wrapping_add(u64::from(index));
            self.store(at, 1, value >> (8 * index) & 0xff, view)?;
        }
        Ok(())
    }

    pub(super) fn slow(&self, access: SlowAccess) -> Result<(), Stop> {
        let address = self.block.word(layout::ARGUMENTS);
        let (bytes, view) = (access.bytes(), access.view());
        let event = |error| Stop::Event(Event::Memory(error));
        if access.aligned() && !address.is_multiple_of(u64::from(bytes)) {
            return Err(event(fault(address, Access::Unaligned)));
        }
        if access.is_cas() {
            return self.slow_cas(address, bytes, view).map_err(event);
        }
        if access.is_refill() {
            return self.refill(address, bytes, view);
        }
        let width = bytes.min(8);
        if access.is_write() && self.hits_code(address, bytes, view).map_err(event)? {
            // The store may change the very block it stands in: once more, alone.
            self.step.set(true);
            return Err(Stop::Lookup);
        }
        for offset in (0..bytes).step_by(width as usize) {
            let at = address.wrapping_add(u64::from(offset));
            let word = layout::RESULT + offset;
            if access.is_write() {
                self.store(at, width, self.block.word(word), view).map_err(event)?;
            } else {
                let value = self.load(at, width, view).map_err(event)?;
                self.block.set_word(word, value);
            }
        }
        Ok(())
    }

    /// Invalidates the code a store is about to change. Not again for the store that is executed
    /// alone because of it: then no code is left.
    pub(super) fn hits_code(
        &self,
        address: u64,
        bytes: u32,
        view: u16,
    ) -> Result<bool, MemoryFault> {
        let Place::Code { physical, .. } = self.place(address, Access::Write, view)? else {
            return Ok(false);
        };
        let mut translator = self.engine.translator.lock();
        Ok(self.engine.invalidate_locked(&mut translator, physical, physical + u64::from(bytes)))
    }

    /// An atomic operation needs its page in the TLB.
    pub(super) fn refill(&self, address: u64, bytes: u32, view: u16) -> Result<(), Stop> {
        let event = |error| Stop::Event(Event::Memory(error));
        let crosses = (address & 0xfff) + u64::from(bytes) > 0x1000;
        if crosses {
            return Err(event(fault(address, Access::Unaligned)));
        }
        self.watch(address, u64::from(bytes), Access::Write).map_err(event)?;
        if self.is_watched_page(address) {
            // Executed alone, for which the page may be known.
            self.step.set(true);
            self.unwatched.set(true);
            return Err(Stop::Lookup);
        }
        match self.place(address, Access::Write, view).map_err(event)? {
            Place::Ram { .. } => Ok(()),
            Place::Code { physical, .. } => {
                let page = physical & !0xfff;
                self.engine.invalidate(page, page + 0x1000);
                self.step.set(true);
                Err(Stop::Lookup)
            }
            // Atomics on devices do not exist: an access fault is what buses answer.
            Place::Device(_) => Err(event(fault(address, Access::Write))),
        }
    }

    pub(super) fn slow_cas(&self, address: u64, bytes: u32, view: u16) -> Result<(), MemoryFault> {
        let wide = |offset: u32| {
            u128::from(self.block.word(offset)) | u128::from(self.block.word(offset + 8)) << 64
        };
        let mask = if bytes == 16 { u128::MAX } else { (1 << (8 * bytes)) - 1 };
        let (old, new) = (wide(layout::RESULT) & mask, wide(layout::RESULT2) & mask);
        let seen = self.compare_exchange(address, bytes, old, new, view)?;
        self.block.set_word(layout::RESULT, seen as u64);
        if bytes == 16 {
            self.block.set_word(layout::RESULT + 8, (seen >> 64) as u64);
        }
        Ok(())
    }

    pub(super) fn compare_exchange(
        &self,
        address: u64,
        bytes: u32,
        old: u128,
        new: u128,
        view: u16,
    ) -> Result<u128, MemoryFault> {
        if !address.is_multiple_of(u64::from(bytes)) {
            return Err(fault(address, Access::Unaligned));
        }
        self.watch(address, u64::from(bytes), Access::Write)?;
        let mut code = None;
        let host = match &self.engine.space {
            Space::User(_) => self.user_host(address, bytes)?,
            Space::System(_) => match self.place(address, Access::Write, view)? {
                Place::Ram { host, physical } | Place::Code { host, physical } => {
                    code = Some(physical);
                    host
                }
                Place::Device(_) => return Err(fault(address, Access::Write)),
            },
        };
        let seen = match bytes {
            16 => raw::host_cas_wide(host, old, new),
            _ => u128::from(raw::host_cas(host, bytes, old as u64, new as u64)),
        };
        // Now, or another vCPU could translate the old code in between; it may have done so even if
        // there was none before.
        if let Some(physical) = code {
            self.engine.invalidate(physical, physical + u64::from(bytes));
        }
        Ok(seen)
    }

    /// User mode: the address, once it is known to be writable.
    pub(super) fn user_host(&self, address: u64, bytes: u32) -> Result<u64, MemoryFault> {
        let mut word = [0; 16];
        let word = &mut word[..bytes as usize];
        let missing = |_| fault(address, Access::Write);
        self.engine.copy_from_user(address, word).map_err(missing)?;
        self.write_user(address, word)?;
        Ok(address)
    }

    /// User mode: writes, lifting our own protection of code.
    pub(super) fn write_user(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        let mut done = 0;
        while let Err(missing) = self.engine.copy_to_user(address + done as u64, &from[done..]) {
            done = from.len() - missing;
            let at = address + done as u64;
            if !self.engine.written_code(at) {
                return Err(fault(at, Access::Write));
            }
        }
        Ok(())
    }
}

/// What stands at an address.
pub(super) enum Place {
    /// RAM at a host address.
    Ram { host: u64, physical: u64 },
    /// RAM that code was translated from.
    Code { host: u64, physical: u64 },
    /// A device, or ROM that is written.
    Device(u64),
}
