//! A vCPU under a debugger: what stops it. See [`crate::stops`].

use isa::{Access, Event, FrontEnd, GuestMemory, MemoryFault};

use super::view::View;
use super::{Context, Exit};

impl<F: FrontEnd> Context<F> {
    /// Whether the page of an address stays out of the TLB.
    pub(super) fn is_watched_page(&self, address: u64) -> bool {
        let stops = &self.engine.stops;
        !self.unwatched.get()
            && ((stops.any() && stops.watches_page(address))
                || self.guests_pages().any(|page| page == address & !0xfff))
    }

    /// The pages that the guest's own debug registers watch; nothing aligned crosses one.
    fn guests_pages(&self) -> impl Iterator<Item = u64> {
        let watches = self.engine.front_end.watches(self.state());
        watches.into_iter().flatten().map(|watched| watched.start & !0xfff)
    }

    /// Looks whether an access hits what is watched. `Err`: it is not done; the instruction is to be
    /// executed alone.
    pub(super) fn watch(
        &self,
        address: u64,
        bytes: u64,
        access: Access,
    ) -> Result<(), MemoryFault> {
        let stops = &self.engine.stops;
        if !self.watches.get() {
            return Ok(());
        }
        let hit = stops.any().then(|| stops.hit(address, bytes, access)).flatten();
        let guests = self.engine.front_end.watch_bits(self.state(), address, bytes, access);
        if hit.is_none() && guests == 0 {
            return Ok(());
        }
        self.hit.set(hit);
        self.guest_hit.set(guests);
        Err(MemoryFault { address, access, detail: 0 })
    }

    /// Translated code is entered.
    pub(super) fn begin_watching(&self) {
        let any = self.engine.stops.any() || self.guests_pages().next().is_some();
        self.watches.set(any && !self.unwatched.get());
    }

    /// It was left. True: it was executed with nothing watched, whose pages the TLB forgets again.
    pub(super) fn end_watching(&self) -> bool {
        self.watches.set(false);
        if !self.unwatched.get() || self.step.get() {
            return false; // not done: once more, alone
        }
        self.unwatched.set(false);
        let pages = self.engine.stops.watched_pages().into_iter().chain(self.guests_pages());
        for page in pages {
            View { context: self }.flush_tlb(Some(page), None);
        }
        true
    }

    /// An event, which may be a breakpoint or a watch, or the guest's own.
    pub(super) fn deliver_stopped(&self, event: Event) -> Option<Exit> {
        let hit = self.hit.get().is_some() || self.guest_hit.get() != 0;
        if let (true, Event::Memory(_)) = (hit, event) {
            self.step.set(true);
            self.unwatched.set(true);
            return None;
        }
        if let Event::Memory(MemoryFault { address, access: Access::Execute, .. }) = event
            && self.engine.stops.has_breakpoint(address)
        {
            let pc = self.engine.front_end.key(self.state()).pc;
            if pc == address {
                return Some(Exit::Breakpoint);
            }
            // In the midst of an instruction, where no program can be stopped.
            self.step.set(true);
            self.unstopped.set(true);
            return None;
        }
        self.deliver(event)
    }
}
