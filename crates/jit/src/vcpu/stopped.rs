//! A vCPU under a debugger: what stops it. See [`crate::stops`].

use isa::{Access, Event, FrontEnd, GuestMemory, MemoryFault};

use super::view::View;
use super::{Context, Exit};

impl<F: FrontEnd> Context<F> {
    /// Whether the page of an address stays out of the TLB.
    pub(super) fn is_watched_page(&self, address: u64) -> bool {
        let stops = &self.engine.stops;
        stops.any() && !self.unwatched.get() && stops.watches_page(address)
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
        if !stops.any() || !self.watches.get() {
            return Ok(());
        }
        match stops.hit(address, bytes, access) {
            None => Ok(()),
            Some(watched) => {
                self.hit.set(Some(watched));
                Err(MemoryFault { address, access, detail: 0 })
            }
        }
    }

    /// Translated code is entered.
    pub(super) fn begin_watching(&self) {
        self.watches.set(self.engine.stops.any() && !self.unwatched.get());
    }

    /// It was left. True: it was executed with nothing watched, whose pages the TLB forgets again.
    pub(super) fn end_watching(&self) -> bool {
        self.watches.set(false);
        if !self.unwatched.get() || self.step.get() {
            return false; // not done: once more, alone
        }
        self.unwatched.set(false);
        for page in self.engine.stops.watched_pages() {
            View { context: self }.flush_tlb(Some(page), None);
        }
        true
    }

    /// An event, which may be a breakpoint or a watch, or the guest's own.
    pub(super) fn deliver_stopped(&self, event: Event) -> Option<Exit> {
        if let (Some(_), Event::Memory(_)) = (self.hit.get(), event) {
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
