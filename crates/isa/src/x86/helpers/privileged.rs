//! Ports, control registers, model-specific registers, TLB maintenance.

use super::registers::read_task;
use super::transfer::{is_canonical, merge_flags, writable_flags};
use super::{DONE, SUPERVISOR, fault, load, memory_fault, protection};
use crate::front_end::{GuestMemory, HelperResult, Stop};
use crate::x86::debug;
use crate::x86::helpers::identity;
use crate::x86::lift::exception;
use crate::x86::mode::{attribute, control, eflags};
use crate::x86::msr;
use crate::x86::state::{CS, FS, GS, RAX, RCX, RDX, State};

/// The machine space of I/O ports.
pub const PORT_SPACE: u32 = 0;
/// The machine space of the local APIC's registers, by MSR number.
pub const APIC_SPACE: u32 = 2;

/// Whether a breakpoint is on the instruction at an address: pc.
pub fn check_breakpoint(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [pc, ..]: [u64; 3],
) -> HelperResult {
    match debug::before_instruction(state, pc) {
        0 => {
            // It is for one instruction, and this is it.
            state.eflags &= !eflags::RF;
            DONE
        }
        bits => fault(exception::DB, bits),
    }
}

/// Virtual-8086 code needs IOPL 3 for PUSHF, POPF, INT and IRET.
pub fn check_iopl(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    if state.eflags & eflags::VM != 0 && state.eflags & eflags::IOPL != eflags::IOPL {
        return protection(0);
    }
    DONE
}

/// POPF: flags, word size.
pub fn pop_flags(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [flags, word, _]: [u64; 3],
) -> HelperResult {
    check_iopl(state, memory, [0; 3])?;
    let cpl = if state.cr[0] & control::CR0_PE == 0 { 0 } else { state.cpl() };
    let writable = writable_flags(state, cpl);
    merge_flags(state, flags & !eflags::RF, writable, word as u32);
    DONE
}

/// CLI (0) and STI (1).
pub fn set_interrupts(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [on, ..]: [u64; 3],
) -> HelperResult {
    let iopl = state.eflags >> 12 & 3;
    if state.cr[0] & control::CR0_PE != 0 && u64::from(state.cpl()) > iopl {
        return protection(0);
    }
    if on == 0 {
        state.eflags &= !eflags::IF;
    } else if state.eflags & eflags::IF == 0 {
        state.eflags |= eflags::IF;
        state.shadow = 1;
    }
    DONE
}

/// Whether the program may use ports: by IOPL, else by the task's bitmap.
pub fn check_port(
    state: &State,
    memory: &mut dyn GuestMemory,
    port: u64,
    bytes: u32,
) -> Result<(), Stop> {
    let protected = state.cr[0] & control::CR0_PE != 0;
    let virtual_8086 = state.eflags & eflags::VM != 0;
    let by_level = u64::from(state.cpl()) <= state.eflags >> 12 & 3;
    if !protected || (by_level && !virtual_8086) {
        return Ok(());
    }
    let limit = u64::from(state.tr.limit);
    let wide = state.tr.attributes & 8 != 0;
    if !wide || limit < 0x67 {
        return protection(0);
    }
    let map = read_task(state, memory, 0x66, 2)?;
    let at = map + port / 8;
    if at + 1 > limit {
        return protection(0);
    }
    let place = state.tr.base.wrapping_add(at);
    let bits = memory.load(place, 2, SUPERVISOR).map_err(memory_fault)?;
    let mask = (1 << bytes) - 1;
    if bits >> (port % 8) & mask != 0 { protection(0) } else { Ok(()) }
}

/// IN: port, bytes.
pub fn port_in(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [port, bytes, _]: [u64; 3],
) -> HelperResult {
    let port = port & 0xffff;
    check_port(state, memory, port, bytes as u32)?;
    let value = memory.machine_read(PORT_SPACE, port, bytes as u32);
    debug::port_accessed(state, port, bytes);
    Ok(value)
}

/// OUT: port, bytes, value.
pub fn port_out(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [port, bytes, value]: [u64; 3],
) -> HelperResult {
    let port = port & 0xffff;
    check_port(state, memory, port, bytes as u32)?;
    memory.machine_write(PORT_SPACE, port, bytes as u32, value);
    debug::port_accessed(state, port, bytes);
    DONE
}

/// MOV from CRn (number) or DRn (number + 16).
pub fn read_control(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [number, ..]: [u64; 3],
) -> HelperResult {
    match number as usize {
        8 => Ok(memory.machine_read(APIC_SPACE, msr::X2APIC_TPR, 8) >> 4 & 15),
        number @ (0 | 2 | 3 | 4) => Ok(state.cr[number]),
        number @ 16..24 => debug_register(state, number - 16).map(|number| state.dr[number]),
        _ => fault(exception::UD, 0),
    }
}

/// MOV to CRn (number) or DRn (number + 16): number, value.
pub fn write_control(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [number, value, _]: [u64; 3],
) -> HelperResult {
    match number {
        0 => write_cr0(state, memory, value),
        2 => {
            state.cr[2] = value;
            DONE
        }
        3 => write_cr3(state, memory, value),
        4 => write_cr4(state, memory, value),
        8 if value & !15 != 0 => protection(0),
        8 => {
            memory.machine_write(APIC_SPACE, msr::X2APIC_TPR, 8, value << 4);
            DONE
        }
        16..24 => write_debug(state, memory, number as usize - 16, value),
        _ => fault(exception::UD, 0),
    }
}

/// The debug register that an access means: DR4 and DR5 are other names of DR6 and DR7, unless they
/// do not exist.
fn debug_register(state: &State, number: usize) -> Result<usize, Stop> {
    if matches!(number, 4 | 5) && state.cr[4] & control::CR4_DE != 0 {
        return fault(exception::UD, 0);
    }
    if state.dr[7] & debug::GENERAL_DETECT != 0 {
        return fault(exception::DB, debug::REGISTER_ACCESS);
    }
    Ok(if matches!(number, 4 | 5) { number + 2 } else { number })
}

fn write_debug(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    number: usize,
    value: u64,
) -> HelperResult {
    let number = debug_register(state, number)?;
    if number >= 6 && value >> 32 != 0 {
        return protection(0);
    }
    let before = debug::watched(state);
    state.dr[number] = match number {
        6 => value & 0xe00f | 0xffff_0ff0,
        7 => value & 0xffff_2bff | 0x400,
        _ => value,
    };
    state.eflags &= !eflags::RF;
    let after = debug::watched(state);
    if before != after {
        for watched in before.into_iter().chain(after).flatten() {
            memory.flush_tlb(Some(watched.start & !0xfff), None);
        }
    }
    DONE
}

/// Bits of CR0 that exist.
const CR0_MASK: u64 = 0xe005_003f;
const CR0_ET: u64 = 1 << 4;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;

fn write_cr0(state: &mut State, memory: &mut dyn GuestMemory, value: u64) -> HelperResult {
    let new = value & CR0_MASK | CR0_ET;
    let bad_cache = new & CR0_NW != 0 && new & CR0_CD == 0;
    let paging = new & control::CR0_PG != 0;
    if value >> 32 != 0 || bad_cache || (paging && new & control::CR0_PE == 0) {
        return protection(0);
    }
    let old = state.cr[0];
    if paging && old & control::CR0_PG == 0 && state.efer & control::EFER_LME != 0 {
        let long_code = state.segments[CS].attributes & attribute::L != 0;
        if state.cr[4] & control::CR4_PAE == 0 || long_code {
            return protection(0);
        }
        state.efer |= control::EFER_LMA;
    }
    if !paging && old & control::CR0_PG != 0 {
        let long_code = state.segments[CS].attributes & attribute::L != 0;
        if state.is_long_mode() && long_code {
            return protection(0);
        }
        state.efer &= !control::EFER_LMA;
    }
    state.cr[0] = new;
    let watched = control::CR0_PG | control::CR0_WP | control::CR0_PE;
    if (old ^ new) & watched != 0 {
        memory.flush_tlb(None, None);
    }
    if new & control::CR0_PE == 0 && old & control::CR0_PE != 0 {
        // Back in real mode privilege level is 0, whatever the stack segment said.
        state.segments[crate::x86::state::SS].attributes &= !(3 << 5);
    }
    DONE
}

const CR3_NO_FLUSH: u64 = 1 << 63;

fn write_cr3(state: &mut State, memory: &mut dyn GuestMemory, value: u64) -> HelperResult {
    let tagged = state.cr[4] & control::CR4_PCIDE != 0;
    let value = value & !CR3_NO_FLUSH;
    if state.is_long_mode() && value >> 52 != 0 {
        return protection(0);
    }
    state.cr[3] = if state.is_long_mode() { value } else { value & 0xffff_ffff };
    let number = if tagged { (value & 0xfff) as u16 } else { 0 };
    // Even if the guest would keep this number's translations: the TLB holds those of one only.
    memory.flush_tlb(None, Some(number));
    DONE
}

/// VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, PCIDE, OSXSAVE,
/// SMEP, SMAP.
const CR4_MASK: u64 = 0x0037_0fff;

fn write_cr4(state: &mut State, memory: &mut dyn GuestMemory, value: u64) -> HelperResult {
    let old = state.cr[4];
    let leaves_pae = state.is_long_mode() && value & control::CR4_PAE == 0;
    let enters_pcid = value & !old & control::CR4_PCIDE != 0;
    let bad_pcid = enters_pcid && (!state.is_long_mode() || state.cr[3] & 0xfff != 0);
    if value & !CR4_MASK != 0 || leaves_pae || bad_pcid {
        return protection(0);
    }
    state.cr[4] = value;
    let watched = control::CR4_PSE
        | control::CR4_PAE
        | control::CR4_PGE
        | control::CR4_PCIDE
        | control::CR4_SMEP
        | control::CR4_SMAP;
    if (old ^ value) & watched != 0 {
        memory.flush_tlb(None, None);
    }
    DONE
}

/// INVLPG: linear address.
pub fn invalidate(
    _: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    memory.flush_tlb(Some(address), None);
    DONE
}

/// INVPCID: address of the descriptor, type.
pub fn invalidate_pcid(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [place, kind, _]: [u64; 3],
) -> HelperResult {
    let number = load(memory, place, 8)?;
    let address = load(memory, place.wrapping_add(8), 8)?;
    if number >> 12 != 0 || (kind == 0 && !is_canonical(address)) {
        return protection(0);
    }
    if number != 0 && state.cr[4] & control::CR4_PCIDE == 0 && kind < 2 {
        return protection(0);
    }
    match kind {
        0 => memory.flush_tlb(Some(address), Some(number as u16)),
        1 | 3 => memory.flush_tlb(None, Some(number as u16)),
        2 => memory.flush_tlb(None, None),
        _ => return protection(0),
    }
    DONE
}

/// XSETBV.
pub fn write_xcr(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    if state.cr[4] & control::CR4_OSXSAVE == 0 {
        return fault(exception::UD, 0);
    }
    let value = state.gpr[RDX] << 32 | state.gpr[RAX] & 0xffff_ffff;
    let sse_without_avx = value & 4 != 0 && value & 2 == 0;
    if state.gpr[RCX] as u32 != 0 || value & !7 != 0 || value & 1 == 0 || sse_without_avx {
        return protection(0);
    }
    state.xcr0 = value;
    DONE
}

/// RDMSR.
pub fn read_msr(state: &mut State, memory: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    let number = state.gpr[RCX] as u32;
    let value = match number {
        msr::TSC => identity::time_stamp(state, memory),
        msr::TSC_ADJUST => state.msr.tsc_offset,
        msr::FS_BASE => state.segments[FS].base,
        msr::GS_BASE => state.segments[GS].base,
        msr::EFER => state.efer,
        _ if msr::is_apic(number) => {
            let value = memory.machine_read(APIC_SPACE, u64::from(number), 8);
            let armed = number == msr::TSC_DEADLINE && value != 0;
            if armed { value.wrapping_add(state.msr.tsc_offset) } else { value }
        }
        _ => match msr::plain(&mut state.msr, number) {
            Some(value) => *value,
            None => msr::constant(number).map_or_else(|| protection(0), Ok)?,
        },
    };
    (state.gpr[RAX], state.gpr[RDX]) = (value & 0xffff_ffff, value >> 32);
    DONE
}

/// WRMSR.
pub fn write_msr(state: &mut State, memory: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    let number = state.gpr[RCX] as u32;
    let value = state.gpr[RDX] << 32 | state.gpr[RAX] & 0xffff_ffff;
    if msr::is_address(number) && !is_canonical(value) {
        return protection(0);
    }
    match number {
        msr::TSC => {
            let now = identity::time_stamp(state, memory);
            state.msr.tsc_offset = state.msr.tsc_offset.wrapping_add(value.wrapping_sub(now));
        }
        msr::TSC_ADJUST => state.msr.tsc_offset = value,
        msr::FS_BASE => state.segments[FS].base = value,
        msr::GS_BASE => state.segments[GS].base = value,
        msr::EFER => return write_efer(state, memory, value),
        _ if msr::is_apic(number) => {
            // The machine counts without this processor's offset.
            let armed = number == msr::TSC_DEADLINE && value != 0;
            let value = if armed { value.wrapping_sub(state.msr.tsc_offset) } else { value };
            memory.machine_write(APIC_SPACE, u64::from(number), 8, value);
        }
        _ => match msr::plain(&mut state.msr, number) {
            Some(place) => *place = value,
            None if msr::constant(number).is_some() || msr::ignores_writes(number) => {}
            None => return protection(0),
        },
    }
    DONE
}

const EFER_MASK: u64 =
    control::EFER_SCE | control::EFER_LME | control::EFER_LMA | control::EFER_NXE;

fn write_efer(state: &mut State, memory: &mut dyn GuestMemory, value: u64) -> HelperResult {
    let changes_lme = (state.efer ^ value) & control::EFER_LME != 0;
    if value & !EFER_MASK != 0 || (changes_lme && state.cr[0] & control::CR0_PG != 0) {
        return protection(0);
    }
    let changes_nx = (state.efer ^ value) & control::EFER_NXE != 0;
    state.efer = value & !control::EFER_LMA | state.efer & control::EFER_LMA;
    if changes_nx {
        memory.flush_tlb(None, None);
    }
    DONE
}
