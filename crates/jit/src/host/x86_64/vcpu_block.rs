//! The vCPU block: what translated code reaches behind the GS base.
//!
//! One mapping per vCPU: a header, the guest's registers, the jump cache, the soft TLB, the stack
//! of return addresses. Offsets are constants in translated code, so the layout is this list.

/// The block's own address.
pub const SELF: u32 = 0x00;
/// Non-zero: leave translated code at the next check (32 bits).
pub const EXIT_REQUEST: u32 = 0x08;
/// RSP of the Rust caller.
pub const HOST_RSP: u32 = 0x10;
/// RSP of an empty return stack.
pub const RETURNS_TOP: u32 = 0x18;
/// No call pushes below this RSP. All ones while somebody asks for an exit, so that calls see both
/// at once.
pub const RETURNS_LIMIT: u32 = 0x20;
/// RSP while out of translated code.
pub const RETURNS_RSP: u32 = 0x28;
/// MXCSR while out of translated code (32 bits).
pub const GUEST_MXCSR: u32 = 0x30;
/// MXCSR of Rust code (32 bits).
pub const HOST_MXCSR: u32 = 0x34;
/// Passing MXCSR between registers (32 bits).
pub const TEMPORARY: u32 = 0x38;
/// Why translated code was left (`Reason`).
pub const REASON: u32 = 0x40;
/// What belongs to the reason: the exit site, the pc, the event.
pub const DETAIL: u32 = 0x48;
/// More of it.
pub const DETAIL2: u32 = 0x50;
/// Operands of helpers and slow memory accesses: three words, then which one (32 bits).
pub const ARGUMENTS: u32 = 0x58;
/// The fourth: the helper's number or the slow access (`SlowAccess`).
pub const OPERATION: u32 = ARGUMENTS + 24;
/// The function behind helper calls: `extern "sysv64" fn(block, helper) -> leave`.
pub const HELPER_FUNCTION: u32 = 0x88;
/// The function behind slow memory accesses: `extern "sysv64" fn(block, operation) -> leave`.
pub const MEMORY_FUNCTION: u32 = 0x90;
/// The Rust side's own pointer.
pub const CONTEXT: u32 = 0x98;
/// Written by the fault handler: address, RIP, kind.
pub const FAULT_ADDRESS: u32 = 0xa0;
/// RIP of a fault.
pub const FAULT_RIP: u32 = 0xa8;
/// Kind of a fault: bit 0 write, bit 1 execute, bit 2 divide, bits 8.. signal code.
pub const FAULT_KIND: u32 = 0xb0;
/// Where an instruction keeps pinned registers that it needs itself.
pub const SAVED: u32 = 0xc0;
/// The return address of a call into Rust, for the pc of a fault.
pub const RETURN_RIP: u32 = 0xe0;

/// The host FPU's control word: the guest's with all exceptions masked (16 bits).
pub const FPU_CONTROL: u32 = 0xe8;
/// Not zero while the guest has an FPU exception that is not masked (32 bits).
pub const FPU_CAREFUL: u32 = 0xec;

/// General registers around slow memory accesses.
pub const GPR_SAVE: u32 = 0x100;
/// Vector registers around slow memory accesses.
pub const XMM_SAVE: u32 = 0x180;
/// Results of helpers and slow accesses; the value of a slow store. 32 bytes.
pub const RESULT: u32 = 0x380;
/// Further operands of slow atomic accesses. 32 bytes.
pub const RESULT2: u32 = 0x3a0;
/// Values that lost their register.
pub const SPILL: u32 = 0x400;
/// Bytes of a spill slot.
pub const SPILL_BYTES: u32 = 32;
/// How many.
pub const SPILL_SLOTS: u32 = 64;
/// Constants for FP and vector operations.
pub const CONSTANTS: u32 = 0xc00;

/// The guest's registers.
pub const STATE: u32 = 0x1000;
/// The most they may take.
pub const STATE_BYTES_MAX: u32 = 0x3000;
/// The jump cache: entries of (tag, host address).
pub const JUMPS: u32 = 0x4000;
/// log2 of its entries.
pub const JUMPS_BITS: u32 = 13;
/// The soft TLB: `TLB_VIEWS` tables of entries (read tag, write tag, addend, spare).
pub const TLB: u32 = JUMPS + (16 << JUMPS_BITS);
/// log2 of the entries of one view.
pub const TLB_BITS: u32 = 10;
/// Bytes of an entry.
pub const TLB_ENTRY: u32 = 32;
/// MMU views.
pub const TLB_VIEWS: u32 = 4;
/// Bytes of one view's table.
pub const TLB_BYTES: u32 = TLB_ENTRY << TLB_BITS;
/// The stack of return addresses, growing down to here.
pub const RETURNS: u32 = TLB + TLB_VIEWS * TLB_BYTES;
/// Its bytes.
pub const RETURNS_BYTES: u32 = 0x8000;
/// How often blocks may still be entered until they are hot (32 bits each), where blocks count.
pub const COUNTERS: u32 = RETURNS + RETURNS_BYTES;
/// How many counters there are: blocks far from each other share them.
pub const COUNTERS_COUNT: u32 = 0x400;
/// The whole block.
pub const BYTES: u32 = COUNTERS + 4 * COUNTERS_COUNT;

/// Offsets into `CONSTANTS`, 16 bytes each.
pub mod constant {
    /// Sign bit of F32 / of F64, in all lanes.
    pub const SIGN: [u32; 2] = [0x00, 0x10];
    /// All but the sign.
    pub const MAGNITUDE: [u32; 2] = [0x20, 0x30];
    /// The canonical NaN.
    pub const NAN: [u32; 2] = [0x40, 0x50];
    /// 2^63.
    pub const TWO_63: [u32; 2] = [0x60, 0x70];
    /// Arm's flag images after an FP comparison: greater, equal, less, unordered (8 bytes each).
    pub const ARM_COMPARE: u32 = 0x80;
    /// 2^32.
    pub const TWO_32: [u32; 2] = [0xa0, 0xb0];
    /// -1.
    pub const MINUS_ONE: [u32; 2] = [0xc0, 0xd0];
    /// 2^64.
    pub const TWO_64: [u32; 2] = [0xe0, 0xf0];
    /// The overflow bit of a flags image.
    pub const OVERFLOW: u32 = 0x100;
}

/// The contents of `CONSTANTS`.
pub fn constants() -> Vec<u64> {
    use isa::ir::{CARRY, OVERFLOW, SIGN, ZERO};
    let f32s = |bits: u32| u64::from(bits) << 32 | u64::from(bits);
    let (two_63_single, two_63_double) = (2f32.powi(63).to_bits(), 2f64.powi(63).to_bits());
    let pairs = [
        f32s(1 << 31),
        1 << 63,
        f32s(!(1 << 31)),
        !(1 << 63),
        f32s(0x7fc0_0000),
        0x7ff8_0000_0000_0000,
        f32s(two_63_single),
        two_63_double,
    ];
    let mut words: Vec<u64> = pairs.iter().flat_map(|&word| [word, word]).collect();
    words.extend([CARRY, ZERO | CARRY, SIGN, CARRY | OVERFLOW]);
    for (single, double) in
        [(2f32.powi(32), 2f64.powi(32)), (-1f32, -1f64), (2f32.powi(64), 2f64.powi(64))]
    {
        let (single, double) = (f32s(single.to_bits()), double.to_bits());
        words.extend([single, single, double, double]);
    }
    words.push(OVERFLOW);
    words
}

/// Why translated code was left.
#[allow(missing_docs, reason = "names say it")]
pub mod reason {
    /// A direct exit that is not linked yet; detail = site.
    pub const LINK: u32 = 0;
    /// An exit request was seen at an exit; detail = site.
    pub const KICK: u32 = 1;
    /// An indirect target that is not in the jump cache; pc is in state.
    pub const LOOKUP: u32 = 2;
    /// The block key may have changed; pc is in state.
    pub const MODE: u32 = 3;
    /// An event; detail = number, detail2 = information; pc is in state.
    pub const EVENT: u32 = 4;
    /// A host signal in translated code.
    pub const FAULT: u32 = 5;
    /// A helper or slow access stopped; Rust knows why.
    pub const STOP: u32 = 6;
    /// A block was entered often enough; detail = its number, pc is in state.
    pub const HOT: u32 = 7;
}
