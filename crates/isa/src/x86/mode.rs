//! The mode of a block: everything on which the meaning or decoding of its code depends.

use super::debug;
use super::state::{CS, DS, ES, SHADOW_OF_STACK, SS, State};

/// Flags outside the arithmetic ones.
pub mod eflags {
    /// Single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts on.
    pub const IF: u64 = 1 << 9;
    /// Strings run downwards.
    pub const DF: u64 = 1 << 10;
    /// I/O privilege level.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume: no instruction breakpoint.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check, and SMAP's override.
    pub const AC: u64 = 1 << 18;
    /// CPUID exists.
    pub const ID: u64 = 1 << 21;
}

/// Bits of CR0, CR4 and EFER that decide something.
pub mod control {
    /// CR0: protected mode.
    pub const CR0_PE: u64 = 1;
    /// CR0: FPU instructions fault.
    pub const CR0_EM: u64 = 1 << 2;
    /// CR0: task switched.
    pub const CR0_TS: u64 = 1 << 3;
    /// CR0: FPU errors are exceptions, not interrupts.
    pub const CR0_NE: u64 = 1 << 5;
    /// CR0: the supervisor respects read-only pages.
    pub const CR0_WP: u64 = 1 << 16;
    /// CR0: paging.
    pub const CR0_PG: u64 = 1 << 31;
    /// CR4: breakpoints on ports, and no DR4 and DR5.
    pub const CR4_DE: u64 = 1 << 3;
    /// CR4: 4 MiB pages.
    pub const CR4_PSE: u64 = 1 << 4;
    /// CR4: 64-bit page-table entries.
    pub const CR4_PAE: u64 = 1 << 5;
    /// CR4: global pages.
    pub const CR4_PGE: u64 = 1 << 7;
    /// CR4: SSE.
    pub const CR4_OSFXSR: u64 = 1 << 9;
    /// CR4: address-space numbers.
    pub const CR4_PCIDE: u64 = 1 << 17;
    /// CR4: XSAVE.
    pub const CR4_OSXSAVE: u64 = 1 << 18;
    /// CR4: the supervisor executes no user page.
    pub const CR4_SMEP: u64 = 1 << 20;
    /// CR4: the supervisor accesses no user page.
    pub const CR4_SMAP: u64 = 1 << 21;
    /// EFER: SYSCALL.
    pub const EFER_SCE: u64 = 1;
    /// EFER: long mode wanted.
    pub const EFER_LME: u64 = 1 << 8;
    /// EFER: long mode on.
    pub const EFER_LMA: u64 = 1 << 10;
    /// EFER: no-execute.
    pub const EFER_NXE: u64 = 1 << 11;
}

/// Descriptor attributes, as in [`super::state::Segment::attributes`].
pub mod attribute {
    /// Code or data, not a system segment.
    pub const S: u32 = 1 << 4;
    /// Present.
    pub const P: u32 = 1 << 7;
    /// 64-bit code.
    pub const L: u32 = 1 << 13;
    /// 32-bit code, or a 32-bit stack.
    pub const D: u32 = 1 << 14;
    /// The limit counts pages.
    pub const G: u32 = 1 << 15;
}

/// Decoded mode bits. The base of CS is part of it, so that it is a constant in translated code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// 16, 32 or 64.
    pub code_bits: u32,
    /// The stack pointer is ESP rather than SP (in 64-bit code: RSP).
    pub wide_stack: bool,
    /// ES, SS and DS begin at 0.
    pub flat: bool,
    /// Current privilege level.
    pub cpl: u8,
    /// Real or virtual-8086 mode: segments are paragraphs.
    pub paragraphs: bool,
    /// FPU, MMX and SSE instructions fault with "device not available".
    pub fpu_off: bool,
    /// SSE instructions exist.
    pub sse: bool,
    /// VEX instructions exist.
    pub avx: bool,
    /// Some upper half of a vector register may be other than zero.
    pub upper_halves: bool,
    /// Trap after each instruction.
    pub single_step: bool,
    /// No interrupt before the next instruction is done.
    pub shadow: bool,
    /// The supervisor may access user pages although SMAP is on.
    pub smap_override: bool,
    /// An interrupt waits and the processor is open to it.
    pub interrupt_due: bool,
    /// A debug exception waits that belongs to what was executed last.
    pub trap_due: bool,
    /// Each instruction is looked for among the breakpoints in the debug registers.
    pub breakpoints: bool,
    /// The base of CS.
    pub cs_base: u32,
}

const CODE_64: u64 = 1;
const CODE_32: u64 = 1 << 1;
const WIDE_STACK: u64 = 1 << 2;
const FLAT: u64 = 1 << 3;
const CPL_SHIFT: u32 = 4;
const PARAGRAPHS: u64 = 1 << 6;
const FPU_OFF: u64 = 1 << 7;
const NO_SSE: u64 = 1 << 8;
const SINGLE_STEP: u64 = 1 << 9;
const SHADOW: u64 = 1 << 10;
const SMAP_OVERRIDE: u64 = 1 << 11;
const INTERRUPT_DUE: u64 = 1 << 12;
const AVX: u64 = 1 << 13;
/// See `Mode::upper_halves`.
pub const UPPER_HALVES: u64 = 1 << 14;
const TRAP_DUE: u64 = 1 << 15;
const BREAKPOINTS: u64 = 1 << 16;
const CS_BASE_SHIFT: u32 = 32;

impl Mode {
    /// The mode that a state is in.
    #[must_use]
    pub fn of(state: &State) -> u64 {
        let code = &state.segments[CS];
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        let long = state.efer & control::EFER_LMA != 0 && code.attributes & attribute::L != 0;
        let wide_stack = state.segments[SS].attributes & attribute::D != 0;
        let bases = state.segments[ES].base | state.segments[SS].base | state.segments[DS].base;
        let virtual_8086 = state.eflags & eflags::VM != 0;
        let paragraphs = state.cr[0] & control::CR0_PE == 0 || virtual_8086;
        let supervisor = state.cpl() < 3;
        let vex = state.cr[4] & control::CR4_OSXSAVE != 0 && state.xcr0 & 6 == 6 && !paragraphs;
        bit(long, CODE_64)
            | bit(code.attributes & attribute::D != 0, CODE_32)
            | bit(long || wide_stack, WIDE_STACK)
            | bit(long || bases == 0, FLAT)
            | u64::from(state.cpl()) << CPL_SHIFT
            | bit(paragraphs, PARAGRAPHS)
            | bit(state.cr[0] & (control::CR0_TS | control::CR0_EM) != 0, FPU_OFF)
            | bit(state.cr[4] & control::CR4_OSFXSR == 0, NO_SSE)
            | bit(vex, AVX)
            | bit(state.upper_halves != 0, UPPER_HALVES)
            | bit(state.eflags & eflags::TF != 0, SINGLE_STEP)
            | bit(state.shadow != 0, SHADOW)
            | bit(supervisor && state.eflags & eflags::AC != 0, SMAP_OVERRIDE)
            | bit(state.interrupt_waits != 0 && state.is_open_to_interrupts(), INTERRUPT_DUE)
            | bit(state.trap_due != 0 && state.shadow != SHADOW_OF_STACK, TRAP_DUE)
            | bit(debug::looks_at_instructions(state), BREAKPOINTS)
            | bit(!long, state.segments[CS].base << CS_BASE_SHIFT)
    }

    /// Takes the bits apart.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let has = |bit: u64| bits & bit != 0;
        Self {
            code_bits: if has(CODE_64) {
                64
            } else if has(CODE_32) {
                32
            } else {
                16
            },
            wide_stack: has(WIDE_STACK),
            flat: has(FLAT),
            cpl: (bits >> CPL_SHIFT & 3) as u8,
            paragraphs: has(PARAGRAPHS),
            fpu_off: has(FPU_OFF),
            sse: !has(NO_SSE),
            avx: has(AVX),
            upper_halves: has(UPPER_HALVES),
            single_step: has(SINGLE_STEP),
            shadow: has(SHADOW),
            smap_override: has(SMAP_OVERRIDE),
            interrupt_due: has(INTERRUPT_DUE),
            trap_due: has(TRAP_DUE),
            breakpoints: has(BREAKPOINTS),
            cs_base: (bits >> CS_BASE_SHIFT) as u32,
        }
    }

    /// 64-bit code.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.code_bits == 64
    }
}

impl State {
    /// Current privilege level: that of the stack segment, which is 0 in real mode and 3 in
    /// virtual-8086 mode.
    #[must_use]
    pub fn cpl(&self) -> u8 {
        (self.segments[SS].attributes >> 5 & 3) as u8
    }

    /// Whether the processor takes maskable interrupts now.
    #[must_use]
    pub fn is_open_to_interrupts(&self) -> bool {
        self.eflags & eflags::IF != 0 && self.shadow == 0 && self.trap_due == 0
    }

    /// All flags together, as PUSHF and interrupts see them.
    #[must_use]
    pub fn all_flags(&self) -> u64 {
        self.flags & crate::ir::STATUS | self.eflags | super::state::ALWAYS_ONE
    }

    /// Writes all flags; the caller has decided which may change.
    pub fn set_all_flags(&mut self, flags: u64) {
        self.flags = flags & crate::ir::STATUS;
        self.eflags = flags & !crate::ir::STATUS | super::state::ALWAYS_ONE;
    }

    /// EIP or RIP: the program counter without the base of CS.
    #[must_use]
    pub fn ip(&self) -> u64 {
        let long =
            self.efer & control::EFER_LMA != 0 && self.segments[CS].attributes & attribute::L != 0;
        if long { self.pc } else { self.pc.wrapping_sub(self.segments[CS].base) & 0xffff_ffff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_is_sixteen_bit_code_with_the_base_as_a_constant() {
        let mode = Mode::from_bits(Mode::of(&State::default()));
        assert_eq!((mode.code_bits, mode.cs_base, mode.cpl), (16, 0xffff_0000, 0));
        assert!(mode.paragraphs && !mode.wide_stack && !mode.sse);
    }

    #[test]
    fn long_mode_ignores_bases_and_d() {
        let mut state = State { efer: control::EFER_LMA, ..State::default() };
        state.cr[0] |= control::CR0_PE;
        state.segments[CS].attributes |= attribute::L;
        state.segments[DS].base = 0x1000;
        let mode = Mode::from_bits(Mode::of(&state));
        assert_eq!((mode.code_bits, mode.cs_base, mode.flat), (64, 0, true));
    }
}
