//! The ports, and DMA with guest memory.

use std::sync::Arc;

use device::{Device, Fields, Io, StateError, ones};
use memory::AddressSpace;
use parking_lot::Mutex;

use super::chip::{Chip, Command, Outcome};
use super::items::Files;

/// What the upper half of the DMA register reads as: "QEMU CFG".
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Zeros are written so many at a time.
const ZEROS: [u8; 4096] = [0; 4096];

struct State {
    chip: Chip,
    files: Files,
    /// The upper half of the request's address, until the lower one starts it.
    dma_high: u32,
}

/// The device.
///
/// Lock order: `state` is held while an item is made, which may look at other chips; so no chip
/// may call this with a lock of its own held. Guest memory is accessed without it.
pub struct FwCfg {
    state: Mutex<State>,
    memory: Arc<AddressSpace>,
}

impl FwCfg {
    /// The device with these items. It puts them into `memory`.
    pub fn new(files: Files, memory: Arc<AddressSpace>) -> Arc<Self> {
        let state = State { chip: Chip::default(), files, dma_high: 0 };
        Arc::new(Self { state: Mutex::new(state), memory })
    }

    /// Looks at the items, or changes them.
    pub fn with_files<T>(&self, change: impl FnOnce(&mut Files) -> T) -> T {
        change(&mut self.state.lock().files)
    }

    fn request(&self, address: u64) {
        let view = self.memory.view();
        let mut bytes = [0; 16];
        view.read(address, &mut bytes);
        let command = Command::from_bytes(bytes);
        let outcome = {
            let State { chip, files, .. } = &mut *self.state.lock();
            chip.begin(files, command)
        };
        let control = match outcome {
            Outcome::ToGuest(to, bytes, zeros) => {
                view.write(to, &bytes);
                let (mut to, mut left) = (to.wrapping_add(bytes.len() as u64), zeros);
                while left > 0 {
                    let part = left.min(ZEROS.len() as u64);
                    view.write(to, &ZEROS[..part as usize]);
                    (to, left) = (to.wrapping_add(part), left - part);
                }
                0
            }
            Outcome::FromGuest(from, length) => {
                let mut bytes = vec![0; length];
                view.read(from, &mut bytes);
                let State { chip, files, .. } = &mut *self.state.lock();
                chip.take(files, &bytes);
                0
            }
            Outcome::Done(control) => control,
        };
        view.write(address, &control.to_be_bytes());
    }
}

impl Device for FwCfg {
    fn reset(&self) {
        let mut state = self.state.lock();
        (state.chip, state.dma_high) = (Chip::default(), 0);
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let State { chip, files, dma_high } = &mut *self.state.lock();
        let mut place = chip.place();
        fields.item("place", &mut place)?;
        fields.item("dma_high", dma_high)?;
        files.transfer(fields)?;
        if fields.is_loading() {
            chip.set_place(files, place);
        }
        Ok(())
    }
}

/// The selector at 0x510 and the data at 0x511.
pub struct SelectorPorts(pub Arc<FwCfg>);

impl Io for SelectorPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        match offset {
            1 => ones(size) & !0xff | u64::from(self.0.state.lock().chip.read()),
            _ => ones(size),
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        if offset == 0 && size >= 2 {
            let State { chip, files, .. } = &mut *self.0.state.lock();
            chip.select(files, value as u16);
        }
    }
}

/// The big-endian address of a DMA request at 0x514.
pub struct DmaPorts(pub Arc<FwCfg>);

impl Io for DmaPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let bytes = DMA_SIGNATURE.to_be_bytes();
        let byte = |at: u64| u64::from(bytes.get((offset + at) as usize).copied().unwrap_or(0));
        (0..u64::from(size)).map(|at| byte(at) << (8 * at)).sum()
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let word = (value as u32).swap_bytes();
        match (offset, size) {
            (0, 4) => self.0.state.lock().dma_high = word,
            (4, 4) => {
                let high = std::mem::take(&mut self.0.state.lock().dma_high);
                self.0.request(u64::from(high) << 32 | u64::from(word));
            }
            (0, 8) => self.0.request(value.swap_bytes()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use memory::{Owner, Ram, Region};

    use super::super::items::{Source, key};
    use super::*;

    fn fixture() -> (Arc<FwCfg>, Arc<AddressSpace>) {
        let memory = Arc::new(AddressSpace::new());
        let ram = Arc::new(Ram::new("ram", 0x10000).unwrap());
        memory.add(Region::new("ram", 0, 0x10000, Owner::Ram(ram)));
        let mut files = Files::default();
        files.set(key::SIGNATURE, *b"QEMU");
        files.add("etc/x", Source::Written(vec![0; 8], Box::new(|_| {})));
        (FwCfg::new(files, Arc::clone(&memory)), memory)
    }

    #[test]
    fn a_request_moves_an_item_and_its_control_word_is_cleared() {
        let (device, memory) = fixture();
        let ports = DmaPorts(device);
        assert_eq!(ports.read(0, 4).to_le_bytes()[..4], *b"QEMU");
        let view = memory.view();
        view.write(0x100, &[0, 0, 0, 10, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 2, 0]);
        view.write(0x200, &[7; 6]);
        ports.write(4, 4, u64::from(0x100_u32.swap_bytes()));
        let mut bytes = [0; 6];
        view.read(0x200, &mut bytes);
        assert_eq!((&bytes, view.read_value(0x100, 4)), (b"QEMU\0\0", 0));
    }

    #[test]
    fn random_accesses_break_nothing() {
        let (device, memory) = fixture();
        let ports: [Arc<dyn Io>; 2] =
            [Arc::new(SelectorPorts(Arc::clone(&device))), Arc::new(DmaPorts(Arc::clone(&device)))];
        let mut seed = 7_u64;
        for round in 0..20_000_u64 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let value = seed >> 20;
            memory.view().write_value(
                value & 0xfff8,
                8,
                seed.rotate_left(13) & 0xff1f_ffff_1f00_ffff,
            );
            let port = &ports[(seed >> 62 & 1) as usize];
            let size = 1 << (seed >> 59 & 3);
            if round % 2 == 0 {
                port.write(seed >> 56 & 7, size, (value & 0xffff).swap_bytes() >> 32 | value << 40);
            } else {
                _ = port.read(seed >> 56 & 7, size);
            }
        }
        device.reset();
        let selector = &ports[0];
        selector.write(0, 2, 0);
        assert_eq!(selector.read(1, 1), u64::from(b'Q'));
    }
}
