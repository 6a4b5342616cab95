//! Saved FPU state: FNSTENV, FNSAVE, FXSAVE and their opposites.

use super::{DONE, load, protection, store};
use crate::front_end::{GuestMemory, HelperResult, Stop};
use crate::x86::state::State;

/// The bits of MXCSR that exist.
pub const MXCSR_MASK: u64 = 0xffff;

impl State {
    /// The status word with TOP in it.
    #[must_use]
    pub fn x87_status_word(&self) -> u64 {
        self.x87_status & !(7 << 11) | self.x87_top << 11
    }

    /// Takes a status word apart.
    pub fn set_x87_status_word(&mut self, word: u64) {
        self.x87_top = word >> 11 & 7;
        self.x87_status = word & 0xffff & !(7 << 11);
        self.summarise();
    }

    /// Two bits a register: valid, zero, special, empty.
    fn tag_word(&self) -> u64 {
        (0..8).fold(0, |word, at| word | self.tag(at) << (2 * at))
    }

    fn tag(&self, at: usize) -> u64 {
        let [significand, exponent] = self.x87[at];
        match exponent & 0x7fff {
            _ if self.x87_empty >> at & 1 != 0 => 3,
            0 if significand == 0 => 1,
            0 | 0x7fff => 2,
            _ if significand >> 63 == 0 => 2,
            _ => 0,
        }
    }
}

/// FNSTENV, or FNSAVE with 0x100: address, word size.
pub fn store_environment(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, what, _]: [u64; 3],
) -> HelperResult {
    let (word, save) = (what & 0xff, what & 0x100 != 0);
    let bytes = word as u32;
    let fields = [state.x87_control, state.x87_status_word(), state.tag_word(), 0, 0, 0, 0];
    for (at, field) in fields.into_iter().enumerate() {
        let filled = if word == 4 { field | 0xffff_0000 } else { field };
        let value = if at < 3 { filled } else { 0 };
        store(memory, address.wrapping_add(at as u64 * word), bytes, value)?;
    }
    if save {
        let base = address.wrapping_add(7 * word);
        for i in 0..8 {
            let [low, high] = state.x87[((state.x87_top + i) & 7) as usize];
            let place = base.wrapping_add(10 * i);
            store(memory, place, 8, low)?;
            store(memory, place.wrapping_add(8), 2, high)?;
        }
        state.initialise_x87();
    } else {
        state.x87_control |= 0x3f; // all exceptions are masked afterwards
    }
    DONE
}

/// FLDENV, or FRSTOR with 0x100: address, word size.
pub fn load_environment(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, what, _]: [u64; 3],
) -> HelperResult {
    let (word, restore) = (what & 0xff, what & 0x100 != 0);
    let field =
        |memory: &mut dyn GuestMemory, at: u64| load(memory, address.wrapping_add(at * word), 2);
    let control = field(memory, 0)?;
    let status = field(memory, 1)?;
    let tags = field(memory, 2)?;
    let mut registers = state.x87;
    if restore {
        let base = address.wrapping_add(7 * word);
        for i in 0..8 {
            let place = base.wrapping_add(10 * i);
            let words = [load(memory, place, 8)?, load(memory, place.wrapping_add(8), 2)?];
            registers[(((status >> 11) + i) & 7) as usize] = words;
        }
    }
    state.x87 = registers;
    state.x87_control = control | 0x40;
    state.set_x87_status_word(status);
    state.x87_empty =
        (0..8).filter(|at| tags >> (2 * at) & 3 == 3).fold(0, |empty, at| empty | 1 << at);
    DONE
}

const FXSAVE_REGISTERS: u64 = 32;
/// Where vector registers begin.
pub const FXSAVE_VECTORS: u64 = 160;

fn check_alignment(address: u64) -> Result<(), Stop> {
    if address.is_multiple_of(16) { Ok(()) } else { protection(0) }
}

/// The first part of a saved state: control words and x87 registers. MXCSR and its mask lie at 24.
pub fn image(state: &State, mxcsr: u64) -> [u8; FXSAVE_VECTORS as usize] {
    let mut image = [0_u8; FXSAVE_VECTORS as usize];
    image[0..2].copy_from_slice(&(state.x87_control as u16).to_le_bytes());
    image[2..4].copy_from_slice(&(state.x87_status_word() as u16).to_le_bytes());
    image[4] = !(state.x87_empty as u8);
    image[24..28].copy_from_slice(&(mxcsr as u32).to_le_bytes());
    image[28..32].copy_from_slice(&(MXCSR_MASK as u32).to_le_bytes());
    for i in 0..8 {
        let [low, high] = state.x87[((state.x87_top + i) & 7) as usize];
        let at = (FXSAVE_REGISTERS + 16 * i) as usize;
        image[at..at + 8].copy_from_slice(&low.to_le_bytes());
        image[at + 8..at + 10].copy_from_slice(&(high as u16).to_le_bytes());
    }
    image
}

/// The control words and registers of the x87 from such a part.
pub fn load_image(state: &mut State, image: &[u8; FXSAVE_VECTORS as usize]) {
    let word = |at: usize| u64::from(u16::from_le_bytes([image[at], image[at + 1]]));
    state.x87_control = word(0) | 0x40;
    state.set_x87_status_word(word(2));
    state.x87_empty = u64::from(!image[4]);
    for i in 0..8 {
        let at = (FXSAVE_REGISTERS + 16 * i) as usize;
        let low = (0..8).fold(0, |low, byte| low | u64::from(image[at + byte]) << (8 * byte));
        state.x87[((state.x87_top + i) & 7) as usize] = [low, word(at + 8)];
    }
}

/// MXCSR in a saved state; general protection when it has bits that do not exist.
pub fn saved_mxcsr(image: &[u8; FXSAVE_VECTORS as usize]) -> Result<u64, Stop> {
    let bytes = [image[24], image[25], image[26], image[27]];
    let mxcsr = u64::from(u32::from_le_bytes(bytes));
    if mxcsr & !MXCSR_MASK != 0 { protection(0) } else { Ok(mxcsr) }
}

/// FXSAVE: address, MXCSR, how many vector registers.
pub fn save(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, mxcsr, vectors]: [u64; 3],
) -> HelperResult {
    check_alignment(address)?;
    memory.write(address, &image(state, mxcsr), 0).map_err(super::memory_fault)?;
    for (n, vector) in state.vectors.iter().enumerate().take(vectors as usize) {
        let place = address.wrapping_add(FXSAVE_VECTORS + 16 * n as u64);
        store(memory, place, 8, vector[0])?;
        store(memory, place.wrapping_add(8), 8, vector[1])?;
    }
    DONE
}

/// FXRSTOR: address, how many vector registers. Gives the new MXCSR.
pub fn restore(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, vectors, _]: [u64; 3],
) -> HelperResult {
    check_alignment(address)?;
    let mut image = [0_u8; FXSAVE_VECTORS as usize];
    memory.read(address, &mut image, 0).map_err(super::memory_fault)?;
    let mxcsr = saved_mxcsr(&image)?;
    let mut loaded = state.vectors;
    for (n, vector) in loaded.iter_mut().enumerate().take(vectors as usize) {
        let place = address.wrapping_add(FXSAVE_VECTORS + 16 * n as u64);
        vector[0] = load(memory, place, 8)?;
        vector[1] = load(memory, place.wrapping_add(8), 8)?;
    }
    state.vectors = loaded;
    load_image(state, &image);
    Ok(mxcsr)
}
