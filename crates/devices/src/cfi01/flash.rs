//! The chip in memory, with the node that keeps its contents.

use std::sync::{Arc, OnceLock};

use block::Node;
use device::{Device, Fields, Io, StateError};
use memory::{AddressSpace, Owner, Ram, RamError, Region, RegionId};
use parking_lot::Mutex;

use super::chip::{BLOCK_BYTES, Chip, Effect};

/// Why a flash chip cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// No memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// Its contents cannot be read.
    #[error(transparent)]
    Read(block::Error),
}

struct State {
    chip: Chip,
    /// What the guest sees now.
    shows_array: bool,
    /// What was changed and is not in the node yet.
    dirty: Option<(u64, u64)>,
}

/// A flash chip.
///
/// Lock order: `state`, then the address space.
pub struct Flash {
    contents: Arc<Ram>,
    node: Arc<dyn Node>,
    memory: Arc<AddressSpace>,
    region: OnceLock<RegionId>,
    state: Mutex<State>,
}

/// The most that is read at once.
const PIECE_BYTES: usize = 1 << 20;

impl Flash {
    /// A chip with the node's contents, mapped at `start`.
    pub fn new(
        name: &str,
        node: Arc<dyn Node>,
        memory: &Arc<AddressSpace>,
        start: u64,
    ) -> Result<Arc<Self>, FlashError> {
        let bytes = node.size();
        let contents = Arc::new(Ram::new(name, bytes)?);
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < bytes {
            let piece = &mut piece[..PIECE_BYTES.min((bytes - at) as usize)];
            node.read_at(piece, at).map_err(FlashError::Read)?;
            let fits = contents.write(at, piece);
            debug_assert!(fits, "the chip is as large as its node");
            at += piece.len() as u64;
        }
        let chip = Chip::new(bytes, !node.writable());
        let state = Mutex::new(State { chip, shows_array: true, dirty: None });
        let flash = Arc::new(Self {
            contents,
            node,
            memory: Arc::clone(memory),
            region: OnceLock::new(),
            state,
        });
        let owner = flash.owner(true);
        let id = memory.add(Region::new(name, start, bytes, owner).with_priority(1));
        _ = flash.region.set(id);
        Ok(flash)
    }

    /// The contents, for the copy that shows below 1 MiB.
    #[must_use]
    pub fn contents(&self) -> Arc<Ram> {
        Arc::clone(&self.contents)
    }

    fn owner(self: &Arc<Self>, array: bool) -> Owner {
        let registers: Arc<dyn Io> = Arc::new(Registers(Arc::downgrade(self)));
        if array {
            Owner::RomDevice(Arc::clone(&self.contents), registers)
        } else {
            Owner::Io(registers)
        }
    }

    fn write(self: &Arc<Self>, offset: u64, value: u8) {
        let mut state = self.state.lock();
        let effect = state.chip.write(offset, value);
        match effect {
            Effect::None => {}
            Effect::Program(bytes) => {
                for (at, byte) in bytes {
                    let kept = self.contents.read_value(at, 1) & u64::from(byte);
                    self.contents.write_value(at, 1, kept);
                    state.touch(at, at.saturating_add(1).min(self.contents.len()));
                }
            }
            Effect::Erase(at) => {
                if self.contents.fill(at, BLOCK_BYTES, 0xff) {
                    state.touch(at, at + BLOCK_BYTES);
                }
            }
        }
        self.show(&mut state);
    }

    /// Switches between contents and registers, and keeps what was changed when all is done.
    fn show(self: &Arc<Self>, state: &mut State) {
        let array = state.chip.shows_array();
        if array == state.shows_array {
            return;
        }
        state.shows_array = array;
        if array {
            self.keep(state);
        }
        if let Some(id) = self.region.get() {
            self.memory.update(|change| change.set_owner(*id, self.owner(array)));
        }
    }

    fn keep(&self, state: &mut State) {
        let Some((start, end)) = state.dirty.take() else { return };
        let mut bytes = vec![0; (end - start) as usize];
        // A variable store that cannot be written loses what is new; the guest has no way to hear
        // of it after the fact.
        if self.contents.read(start, &mut bytes) && self.node.write_at(&bytes, start).is_ok() {
            _ = self.node.flush();
        }
    }
}

impl State {
    fn touch(&mut self, start: u64, end: u64) {
        if start < end {
            let (low, high) = self.dirty.unwrap_or((start, end));
            self.dirty = Some((low.min(start), high.max(end)));
        }
    }
}

impl Device for Flash {
    fn reset(&self) {
        let mut state = self.state.lock();
        state.chip.reset();
        self.keep(&mut state);
        state.shows_array = true;
        if let Some(id) = self.region.get() {
            let contents = Arc::clone(&self.contents);
            self.memory.update(|change| {
                if let Some(Owner::Io(registers)) = change.owner(*id) {
                    change.set_owner(*id, Owner::RomDevice(contents, registers));
                }
            });
        }
    }
}

impl Flash {
    /// Saves or loads the chip with its contents; what a node keeps of them is written when the
    /// guest next shows them.
    pub fn transfer(self: &Arc<Self>, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let State { chip, dirty, .. } = &mut *state;
        fields.item("chip", chip)?;
        fields.item("dirty", dirty)?;
        let fits = dirty.is_none_or(|(start, end)| start <= end && end <= self.contents.len());
        if !fits {
            *dirty = None;
        }
        fields.check(fits, "dirty")?;
        if self.node.writable() {
            fields.memory("contents", &self.contents);
        }
        if fields.is_loading() {
            if self.node.writable() {
                *dirty = Some((0, self.contents.len()));
            }
            self.show(&mut state);
        }
        Ok(())
    }
}

/// The chip's registers; they lie over its contents.
struct Registers(std::sync::Weak<Flash>);

impl Io for Registers {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let Some(flash) = self.0.upgrade() else { return device::ones(size) };
        let state = flash.state.lock();
        if state.chip.shows_array() {
            return flash.contents.read_value(offset, size);
        }
        let byte = |at: u64| u64::from(state.chip.read(offset + at)) << (8 * at);
        (0..u64::from(size)).map(byte).sum()
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let Some(flash) = self.0.upgrade() else { return };
        // One chip of 8 bits: wider accesses are several.
        for (at, byte) in (0..u64::from(size)).zip(value.to_le_bytes()) {
            flash.write(offset + at, byte);
        }
    }
}
