//! Where a second tier plugs in: counters, regions, patching.
//!
//! With a [`SecondTier`] a block counts how often it is entered. When it gets hot it leaves
//! translated code; the engine gathers its *region*, the blocks that it leads to by exits that were
//! taken, and has their code made anew, in one piece. The old entries then jump to the new ones, so
//! that everything that holds an address of the old code keeps working, and the exits that led
//! there are linked to the new blocks.

use isa::{Fetch, FrontEnd};

use crate::engine::Engine;
use crate::host::x86_64::tier1::{Compiler, Output, Target};
use crate::translator::{BlockKey, Translator};

/// What makes the code of hot regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecondTier {
    /// Tier 1 once more, without counters: hot blocks come to lie together.
    Again {
        /// How often a block is entered before it is hot.
        entries: u32,
    },
}

impl SecondTier {
    /// How often a block is entered before it is hot.
    pub fn entries(self) -> u32 {
        let Self::Again { entries } = self;
        entries.max(1)
    }

    /// The most blocks of a region.
    pub fn region_max(self) -> usize {
        let Self::Again { .. } = self;
        16
    }

    /// Makes the code of one block of a region.
    pub(crate) fn compile<'a>(
        self,
        ir: &isa::ir::Ir,
        compiler: &'a mut Compiler,
        target: &Target<'_>,
    ) -> Output<'a> {
        let Self::Again { .. } = self;
        compiler.compile(ir, target)
    }
}

impl<F: FrontEnd> Engine<F> {
    /// The blocks of a hot block's region, itself first. None if it is none any more.
    pub(crate) fn region(&self, hot: u32) -> Vec<BlockKey> {
        let Some(tier) = self.options.second_tier else { return Vec::new() };
        let translator = self.translator.lock();
        let is_open = |number: u32| {
            let block = translator.list.get(number as usize);
            block.is_some_and(|block| block.alive && block.counter.is_some())
        };
        let mut region = Vec::new();
        if is_open(hot) {
            region.push(hot);
        }
        let mut next = 0;
        while let Some(&number) = region.get(next) {
            next += 1;
            let exits = translator.list[number as usize].exits.clone();
            for site in &translator.sites[exits.start as usize..exits.end as usize] {
                let Some(to) = site.linked.filter(|&to| is_open(to)) else { continue };
                if region.len() < tier.region_max() && !region.contains(&to) {
                    region.push(to);
                }
            }
        }
        region.iter().map(|&number| translator.list[number as usize].key).collect()
    }

    /// Makes the code of one block of a hot region anew. False: there is no room.
    pub(crate) fn promote(&self, key: BlockKey, fetch: &mut dyn Fetch, view: u16) -> bool {
        let mut translator = self.translator.lock();
        let Some(&old) = translator.blocks.get(&key) else { return true };
        let Some(entry) = translator.list[old as usize].counter else { return true };
        if !self.has_room(&translator) {
            return false;
        }
        let insns_max = self.options.insns_max;
        let new = self.translate(&mut translator, key, fetch, view, insns_max, true);
        // Code that cannot be fetched any more will not be entered either.
        if translator.list[new as usize].alive {
            self.replace(&mut translator, old, new, entry);
            translator.counters.promoted += 1;
        }
        true
    }

    /// Everything that leads to the old block leads to the new one.
    fn replace(&self, translator: &mut Translator, old: u32, new: u32, entry: u32) {
        let block = &mut translator.list[old as usize];
        block.alive = false;
        let (pc, from, to) = (block.key.key.pc, block.host, block.host_end);
        let incoming = std::mem::take(&mut block.incoming);
        for site in incoming.into_iter().chain([entry]) {
            self.link_locked(translator, site, new);
        }
        self.forget_jumps(pc, from, to);
    }

    /// Direct exits within a region that has just been made are linked at once.
    pub(crate) fn link_region(&self, region: &[BlockKey]) {
        let mut translator = self.translator.lock();
        let numbers = region.iter().map(|key| (key.key, translator.blocks.get(key).copied()));
        let numbers: Vec<_> = numbers.collect();
        for number in numbers.iter().filter_map(|&(_, number)| number) {
            for site in translator.list[number as usize].exits.clone() {
                let target = translator.sites[site as usize].target;
                let to = numbers.iter().find(|(key, _)| *key == target);
                if let Some(to) = to.and_then(|&(_, number)| number) {
                    self.link_locked(&mut translator, site, to);
                }
            }
        }
    }
}
