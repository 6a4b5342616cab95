//! The code around translated code: entering, leaving, calls into Rust, guarded copies.

use isa::ir::Type;
use isa::ir::fpu::Fpu;

use super::Features;
use super::asm::{Alu, Asm, Mem, Rm, cc, reg};
use super::map::HostMap;
use super::vcpu_block as block;

/// Addresses of the stubs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stubs {
    /// `extern "sysv64" fn(block, target)`: enters translated code; returns when it was left.
    pub enter: u64,
    /// By `reason`: where translated code jumps to be left.
    pub leave: [u64; 8],
    /// Calls the helper that `OPERATION` names; returns, or leaves.
    pub helper: u64,
    /// The same from the middle of code: temporaries survive.
    pub helper_beside: u64,
    /// Does the slow access that `OPERATION` describes; returns, or leaves.
    pub memory: u64,
    /// `extern "sysv64" fn(to, from, bytes) -> bytes not copied`; faults end it early.
    pub copy: u64,
    /// Where the fault handler resumes `copy`.
    pub copy_fault: u64,
    /// Behind the last instruction of `copy`.
    pub copy_end: u64,
    /// Behind all stubs.
    pub end: u64,
}

const CALLEE_SAVED: [u8; 6] = [reg::RBX, reg::RBP, reg::R12, reg::R13, reg::R14, reg::R15];

/// Emits all stubs at the assembler's position.
pub fn emit(asm: &mut Asm, map: &HostMap, features: Features, fsgsbase: bool) -> Stubs {
    let mut stubs = Stubs { enter: asm.here(), ..Stubs::default() };
    enter(asm, map, features, fsgsbase);
    let common = asm.here();
    leave(asm, map, features);
    for (reason, place) in (0..).zip(&mut stubs.leave) {
        *place = asm.here();
        asm.store_imm(4, Mem::gs(block::REASON), reason);
        asm.jmp(common);
    }
    stubs.helper = asm.here();
    let helper = Callee { function: block::HELPER_FUNCTION, keep: false, fpu: map.fpu };
    call_rust(asm, map, features, helper, stubs.leave[6]);
    stubs.helper_beside = asm.here();
    call_rust(asm, map, features, Callee { keep: true, ..helper }, stubs.leave[6]);
    stubs.memory = asm.here();
    let memory = Callee { function: block::MEMORY_FUNCTION, keep: true, fpu: None };
    call_rust(asm, map, features, memory, stubs.leave[6]);
    stubs.copy = asm.here();
    asm.mov(8, reg::RCX, reg::RDX);
    asm.raw(&[0xf3, 0xa4]); // rep movsb
    stubs.copy_fault = asm.here();
    asm.mov(8, reg::RAX, reg::RCX);
    asm.ret();
    stubs.copy_end = asm.here();
    stubs.end = asm.here();
    stubs
}

fn state(offset: u16) -> Mem {
    Mem::gs(block::STATE + u32::from(offset))
}

fn save_pinned(asm: &mut Asm, map: &HostMap, features: Features) {
    for &(offset, host) in &map.gprs {
        asm.store(8, state(offset), host);
    }
    for &(offset, host, ty) in &map.xmms {
        move_vector(asm, features, ty, host, state(offset), true);
    }
}

fn load_pinned(asm: &mut Asm, map: &HostMap, features: Features) {
    for &(offset, host) in &map.gprs {
        asm.load(8, host, state(offset));
    }
    for &(offset, host, ty) in &map.xmms {
        move_vector(asm, features, ty, host, state(offset), false);
    }
}

/// Moves a vector register of a type to or from memory.
pub fn move_vector(asm: &mut Asm, features: Features, ty: Type, xmm: u8, mem: Mem, store: bool) {
    use isa::ir::Encoding;
    let (prefix, load_op, store_op) = match ty {
        Type::F32 => (0xf3, 0x10, 0x11), // movss
        Type::F64 => (0xf2, 0x10, 0x11), // movsd
        _ => (0, 0x10, 0x11),            // movups
    };
    let opcode = if store { store_op } else { load_op };
    let encoding = Encoding { prefix, map: 1, opcode, w: false };
    if features.avx2 {
        asm.v3(encoding, ty == Type::V256, xmm, 0, Rm::Mem(mem));
    } else {
        asm.sse(encoding, xmm, Rm::Mem(mem));
    }
}

fn enter(asm: &mut Asm, map: &HostMap, features: Features, fsgsbase: bool) {
    for register in CALLEE_SAVED {
        asm.push(register);
    }
    if fsgsbase {
        asm.wrgsbase(reg::RDI);
    }
    asm.store(8, Mem::gs(block::HOST_RSP), reg::RSP);
    asm.store(8, Mem::gs(block::SAVED), reg::RSI);
    asm.mxcsr(3, Mem::gs(block::HOST_MXCSR));
    asm.mxcsr(2, Mem::gs(block::GUEST_MXCSR));
    asm.load(8, reg::RSP, Mem::gs(block::RETURNS_RSP));
    if let Some(fpu) = map.fpu {
        set_up_fpu(asm, fpu, false);
    }
    load_pinned(asm, map, features);
    asm.jmp_rm(Rm::Mem(Mem::gs(block::SAVED)));
}

fn leave(asm: &mut Asm, map: &HostMap, features: Features) {
    asm.store(8, Mem::gs(block::RETURNS_RSP), reg::RSP);
    save_pinned(asm, map, features);
    if let Some(fpu) = map.fpu {
        drain_fpu(asm, fpu);
    }
    asm.load(8, reg::RSP, Mem::gs(block::HOST_RSP));
    asm.mxcsr(3, Mem::gs(block::GUEST_MXCSR));
    asm.mxcsr(2, Mem::gs(block::HOST_MXCSR));
    if features.avx2 {
        asm.raw(&[0xc5, 0xf8, 0x77]); // vzeroupper
    }
    for register in CALLEE_SAVED.into_iter().rev() {
        asm.pop(register);
    }
    asm.ret();
}

/// What is called.
#[derive(Clone, Copy)]
struct Callee {
    /// Where its address is.
    function: u32,
    /// The caller's temporaries survive (slow memory accesses stand in the middle of them).
    keep: bool,
    /// It may look at the guest's FPU, and change it.
    fpu: Option<Fpu>,
}

/// What the host's FPU has to tell becomes part of the guest's state. Uses RAX.
fn drain_fpu(asm: &mut Asm, fpu: Fpu) {
    asm.x87(0xdd, 7, Mem::gs(block::TEMPORARY)); // fnstsw
    asm.load(1, reg::RAX, Mem::gs(block::TEMPORARY));
    asm.alu_imm(4, Alu::And, Rm::Reg(reg::RAX), EXCEPTIONS);
    let nothing = asm.jcc(cc::E);
    asm.alu_mem(4, Alu::Or, state(fpu.status), reg::RAX);
    asm.raw(&[0xdb, 0xe2]); // fnclex
    asm.bind(nothing);
}

/// The host's FPU works as the guest's control word says; it may do so already, unless it is not
/// `known` to be as it was left. Uses RAX and RCX.
fn set_up_fpu(asm: &mut Asm, fpu: Fpu, known: bool) {
    asm.load(2, reg::RAX, state(fpu.control));
    asm.mov(4, reg::RCX, reg::RAX);
    asm.alu_imm(4, Alu::And, Rm::Reg(reg::RCX), EXCEPTIONS);
    asm.alu_imm(4, Alu::Xor, Rm::Reg(reg::RCX), EXCEPTIONS);
    asm.store(4, Mem::gs(block::FPU_CAREFUL), reg::RCX);
    asm.alu_imm(4, Alu::Or, Rm::Reg(reg::RAX), EXCEPTIONS);
    let as_it_is = known.then(|| {
        asm.alu(2, Alu::Cmp, reg::RAX, Rm::Mem(Mem::gs(block::FPU_CONTROL)));
        asm.jcc(cc::E)
    });
    asm.store(2, Mem::gs(block::FPU_CONTROL), reg::RAX);
    asm.x87(0xd9, 5, Mem::gs(block::FPU_CONTROL)); // fldcw
    if let Some(label) = as_it_is {
        asm.bind(label);
    }
}

/// The exceptions in status and control words.
pub const EXCEPTIONS: i32 = 0x3f;

fn call_rust(asm: &mut Asm, map: &HostMap, features: Features, callee: Callee, stop: u64) {
    let Callee { function, keep, fpu } = callee;
    save_pinned(asm, map, features);
    if keep {
        for &register in &map.scratch {
            asm.store(8, Mem::gs(block::GPR_SAVE + 8 * u32::from(register)), register);
        }
        for register in 12..16 {
            let place = Mem::gs(block::XMM_SAVE + 32 * u32::from(register));
            move_vector(asm, features, vector_type(features), register, place, true);
        }
    }
    if let Some(fpu) = fpu {
        drain_fpu(asm, fpu);
    }
    // The vCPU's stack of return addresses is small: Rust runs on the thread's.
    asm.load(4, reg::RSI, Mem::gs(block::OPERATION));
    asm.load(8, reg::RDI, Mem::gs(block::SELF));
    asm.load(8, reg::RAX, Mem::at(reg::RSP, 0));
    asm.store(8, Mem::gs(block::RETURN_RIP), reg::RAX);
    asm.store(8, Mem::gs(block::RETURNS_RSP), reg::RSP);
    asm.mov(8, reg::RBX, reg::RSP);
    asm.load(8, reg::RSP, Mem::gs(block::HOST_RSP));
    asm.alu_imm(8, Alu::And, Rm::Reg(reg::RSP), -16);
    if features.avx2 {
        asm.raw(&[0xc5, 0xf8, 0x77]); // vzeroupper: Rust code is SSE
    }
    asm.call_rm(Rm::Mem(Mem::gs(function)));
    asm.mov(8, reg::RSP, reg::RBX);
    asm.test(4, reg::RAX, reg::RAX);
    let go_on = asm.jcc(cc::E);
    // Stopping: state is exact, pinned registers come from it so that leaving stores them again.
    load_pinned(asm, map, features);
    asm.lea(8, reg::RSP, Mem::at(reg::RSP, 8));
    asm.jmp(stop);
    asm.bind(go_on);
    if let Some(fpu) = fpu {
        set_up_fpu(asm, fpu, true);
    }
    load_pinned(asm, map, features);
    if keep {
        for &register in &map.scratch {
            asm.load(8, register, Mem::gs(block::GPR_SAVE + 8 * u32::from(register)));
        }
        for register in 12..16 {
            let place = Mem::gs(block::XMM_SAVE + 32 * u32::from(register));
            move_vector(asm, features, vector_type(features), register, place, false);
        }
    }
    asm.ret();
}

fn vector_type(features: Features) -> Type {
    if features.avx2 { Type::V256 } else { Type::V128 }
}
