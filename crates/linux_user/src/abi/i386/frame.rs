//! Signal frames, the old one and the one with information, as in the kernel's
//! arch/x86/include/asm/sigframe.h.

use isa::x86::{
    CS, DS, ES, FS, GS, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, SS, State, X86, eflags,
};
use jit::Vcpu;

use super::segments::{CODE_SELECTOR, DATA_SELECTOR, Descriptors};
use super::{Guest, I386};
use crate::guest::Delivery;
use crate::host::Answer;
use crate::memory;
use crate::thread::{RETURNED, Thread, UNBLOCKABLE};

/// Code that ends a handler, as debuggers and unwinders know it: `mov eax,173; int 0x80`, and at
/// `OLD_RETURN` `pop eax; mov eax,119; int 0x80`.
pub const RETURN_CODE: &[u8] = &[
    0xb8, 0xad, 0, 0, 0, 0xcd, 0x80, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x58,
    0xb8, 0x77, 0, 0, 0, 0xcd, 0x80,
];
const OLD_RETURN: u64 = 16;

/// Words of `struct sigcontext`.
const CONTEXT_WORDS: usize = 22;
/// The old frame: return address, signal, context, unused, the mask's second word, code.
const OLD_CONTEXT: u64 = 8;
const OLD_MASK: u64 = OLD_CONTEXT + 4 * CONTEXT_WORDS as u64 + STATE_BYTES;
const OLD_CODE: u64 = OLD_MASK + 4;
const OLD_BYTES: u64 = OLD_CODE + 8;
/// The other: return address, signal, two pointers, information, `ucontext`, code.
const INFO: u64 = 16;
const UCONTEXT: u64 = INFO + 128;
const STACK: u64 = UCONTEXT + 8;
const CONTEXT: u64 = STACK + 12;
const MASK: u64 = CONTEXT + 4 * CONTEXT_WORDS as u64;
const CODE: u64 = MASK + 8;
const BYTES: u64 = CODE + 8;

/// FP state: as FSAVE has it, then as FXSAVE.
const STATE_BYTES: u64 = 624;
const FXSAVE: usize = 112;
const FXSAVE_STACK: usize = FXSAVE + 32;
const FXSAVE_VECTORS: usize = FXSAVE + 160;
const STATUS_AT: usize = 108;

/// Flags that a handler may change.
const USER_FLAGS: u64 = isa::ir::STATUS | eflags::DF | eflags::TF;

/// The order of general registers in `sigcontext`.
const ORDER: [usize; 8] = [RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX];

/// The tag word of FSAVE for a register: valid, zero, special, empty.
fn tag(state: &State, number: usize) -> u64 {
    let [significand, rest] = state.x87[number];
    let exponent = rest & 0x7fff;
    match () {
        () if state.x87_empty >> number & 1 != 0 => 3,
        () if exponent == 0 && significand == 0 => 1,
        () if exponent == 0 || exponent == 0x7fff || significand >> 63 == 0 => 2,
        () => 0,
    }
}

fn fp_state(state: &State, mxcsr: u32) -> [u8; STATE_BYTES as usize] {
    let mut area = [0; STATE_BYTES as usize];
    let mut put = |at: usize, value: u64, bytes: usize| {
        area[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    };
    let status = state.x87_status & !(7 << 11) | (state.x87_top & 7) << 11;
    let tags = (0..8).fold(0, |tags, number| tags | tag(state, number) << (2 * number));
    put(0, state.x87_control | 0xffff_0000, 4);
    put(4, status | 0xffff_0000, 4);
    put(8, tags | 0xffff_0000, 4);
    put(STATUS_AT, status, 2);
    put(FXSAVE, state.x87_control, 2);
    put(FXSAVE + 2, status, 2);
    put(FXSAVE + 4, !state.x87_empty, 1);
    put(FXSAVE + 24, mxcsr.into(), 4);
    put(FXSAVE + 28, 0xffbf, 4);
    for index in 0..8 {
        let [low, high] = state.x87[(state.x87_top as usize + index) & 7];
        for at in [28 + 10 * index, FXSAVE_STACK + 16 * index] {
            put(at, low, 8);
            put(at + 8, high, 2);
        }
        let [low, high, ..] = state.vectors[index];
        put(FXSAVE_VECTORS + 16 * index, low, 8);
        put(FXSAVE_VECTORS + 16 * index + 8, high, 8);
    }
    area
}

fn load_fp_state(vcpu: &mut Vcpu<X86>, area: &[u8; STATE_BYTES as usize]) {
    let word = |at: usize, bytes: usize| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&area[at..at + bytes]);
        u64::from_le_bytes(word)
    };
    vcpu.set_fp_control(word(FXSAVE + 24, 4) as u32);
    let state = vcpu.state_mut();
    state.x87_control = word(FXSAVE, 2);
    state.x87_status = word(FXSAVE + 2, 2) & !(7 << 11);
    state.x87_top = word(FXSAVE + 2, 2) >> 11 & 7;
    state.x87_empty = !word(FXSAVE + 4, 1) & 0xff;
    for index in 0..8 {
        let place = FXSAVE_STACK + 16 * index;
        state.x87[(state.x87_top as usize + index) & 7] = [word(place, 8), word(place + 8, 2)];
        let place = FXSAVE_VECTORS + 16 * index;
        let vector = &mut state.vectors[index];
        (vector[0], vector[1]) = (word(place, 8), word(place + 8, 8));
    }
}

fn context(state: &State, delivery: &Delivery, fp: u64) -> [u64; CONTEXT_WORDS] {
    let mut words = [0; CONTEXT_WORDS];
    for (word, number) in words.iter_mut().zip([GS, FS, ES, DS]) {
        *word = state.segments[number].selector & 0xffff;
    }
    for (word, register) in words[4..].iter_mut().zip(ORDER) {
        *word = state.gpr[register];
    }
    words[12] = delivery.exception.number;
    words[13] = delivery.exception.error;
    words[14] = state.pc;
    words[15] = state.segments[CS].selector;
    words[16] = state.flags & isa::ir::STATUS | state.eflags | 2;
    words[17] = state.gpr[RSP];
    words[18] = state.segments[SS].selector;
    words[19] = fp;
    words[20] = delivery.mask & 0xffff_ffff;
    words[21] = delivery.exception.address;
    words
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|&word| (word as u32).to_le_bytes()).collect()
}

/// Builds the frame that the action asks for and enters the handler.
pub fn enter(vcpu: &mut Vcpu<X86>, delivery: &Delivery) -> Result<(), i32> {
    let mxcsr = vcpu.fp_control();
    let state = *vcpu.state();
    let fp = (delivery.stack as u32).wrapping_sub(STATE_BYTES as u32) & !63;
    let bytes = if delivery.informed { BYTES } else { OLD_BYTES };
    let frame = ((fp.wrapping_sub(bytes as u32).wrapping_add(4)) & !15).wrapping_sub(4);
    let (fp, frame) = (u64::from(fp), u64::from(frame));
    memory::write(fp, &fp_state(&state, mxcsr))?;
    let saved = bytes_of(&context(&state, delivery, fp));
    let signal = delivery.signal as u64;
    let (second, third) = if delivery.informed {
        let return_address = delivery.restorer.unwrap_or(delivery.trampoline);
        let head = [return_address, signal, frame + INFO, frame + UCONTEXT];
        memory::write(frame, &bytes_of(&head))?;
        memory::write(frame + INFO, &delivery.info)?;
        let [base, flags, size] = delivery.alternate;
        memory::write(frame + UCONTEXT, &bytes_of(&[0, 0, base, flags, size]))?;
        memory::write(frame + CONTEXT, &saved)?;
        memory::write_word(frame + MASK, delivery.mask, 8)?;
        memory::write(frame + CODE, &RETURN_CODE[..8])?;
        (frame + INFO, frame + UCONTEXT)
    } else {
        let return_address = delivery.restorer.unwrap_or(delivery.trampoline + OLD_RETURN);
        memory::write(frame, &bytes_of(&[return_address, signal]))?;
        memory::write(frame + OLD_CONTEXT, &saved)?;
        memory::write_word(frame + OLD_MASK, delivery.mask >> 32, 4)?;
        memory::write(frame + OLD_CODE, &RETURN_CODE[OLD_RETURN as usize..])?;
        (0, 0)
    };
    let mut flat = X86::user_state(false);
    let state = vcpu.state_mut();
    flat.segments[FS] = state.segments[FS];
    flat.segments[GS] = state.segments[GS];
    flat.segments[CS].selector = CODE_SELECTOR;
    flat.segments[SS].selector = DATA_SELECTOR;
    state.segments = flat.segments;
    state.gpr[RSP] = frame;
    state.gpr[RAX] = signal;
    state.gpr[RDX] = second;
    state.gpr[RCX] = third;
    state.eflags &= !(eflags::DF | eflags::TF);
    state.pc = delivery.handler;
    Ok(())
}

/// Restores what a context says; gives the low half of the mask.
fn restore(vcpu: &mut Vcpu<X86>, descriptors: &Descriptors, context: u64) -> Result<u64, i32> {
    let words = crate::call::narrow::words::<CONTEXT_WORDS>(context)?;
    let mut area = [0; STATE_BYTES as usize];
    if words[19] != 0 {
        memory::read(words[19], &mut area)?;
    }
    let state = vcpu.state_mut();
    for (number, selector) in [GS, FS, ES, DS].into_iter().zip(words) {
        if state.segments[number].selector & 0xffff != selector & 0xffff {
            descriptors.load(state, number, selector & 0xffff);
        }
    }
    for (register, word) in ORDER.into_iter().zip(&words[4..]) {
        state.gpr[register] = *word;
    }
    state.pc = words[14];
    state.flags = words[16] & isa::ir::STATUS;
    state.eflags = state.eflags & !USER_FLAGS | words[16] & USER_FLAGS & !isa::ir::STATUS;
    if words[19] != 0 {
        load_fp_state(vcpu, &area);
    }
    Ok(words[20])
}

/// `rt_sigreturn`: the handler's return took the return address off.
pub fn leave(vcpu: &mut Vcpu<X86>, descriptors: &Descriptors) -> Result<(u64, [u64; 3]), i32> {
    let frame = I386::position(vcpu.state()).1.wrapping_sub(4);
    let mask = memory::read_word(frame + MASK, 8)?;
    let alternate = crate::call::narrow::words::<3>(frame + STACK)?;
    restore(vcpu, descriptors, frame + CONTEXT)?;
    Ok((mask, alternate))
}

/// `sigreturn`: the code took the signal's number off as well.
pub fn sigreturn(thread: &mut Thread<I386>, _: [u64; 6]) -> Answer {
    let frame = I386::position(thread.vcpu.state()).1.wrapping_sub(8);
    let high = memory::read_word(frame + OLD_MASK, 4);
    let low = restore(&mut thread.vcpu, &thread.local, frame + OLD_CONTEXT);
    match (low, high) {
        (Ok(low), Ok(high)) => thread.set_mask((low | high << 32) & !UNBLOCKABLE),
        _ => crate::host::die_of(libc::SIGSEGV),
    }
    Err(RETURNED)
}
