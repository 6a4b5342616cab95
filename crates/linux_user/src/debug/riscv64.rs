//! RISC-V's registers.

use gdb::{Description, Feature, Register};
use isa::riscv::RiscV;
use jit::Vcpu;

use crate::abi::riscv64::EXCEPTIONS;

const GENERAL: &str = "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 \
                       s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6";
const FLOAT: &str = "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 \
                     fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11";

/// What gdb is told.
pub fn description() -> Description {
    let mut core: Vec<Register> =
        GENERAL.split_whitespace().map(|name| Register::number(name, 64)).collect();
    core.push(Register::typed("pc", 64, "code_ptr"));
    let mut fpu: Vec<Register> =
        FLOAT.split_whitespace().map(|name| Register::typed(name, 64, "ieee_double")).collect();
    fpu.extend(["fflags", "frm", "fcsr"].map(|name| Register::number(name, 32)));
    let features = vec![
        Feature { name: "org.gnu.gdb.riscv.cpu", types: "", registers: core },
        Feature { name: "org.gnu.gdb.riscv.fpu", types: "", registers: fpu },
    ];
    Description { architecture: "riscv:rv64", system: Some("GNU/Linux"), features }
}

pub fn read(vcpu: &Vcpu<RiscV>) -> Vec<u8> {
    let state = vcpu.state();
    let words = state.x.iter().chain([&state.pc]).chain(&state.f);
    let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    let mxcsr = vcpu.fp_control();
    let flags: u32 = EXCEPTIONS.iter().map(|(flag, bit)| (mxcsr >> bit & 1) << flag).sum();
    for value in [flags, state.frm as u32, flags | (state.frm as u32) << 5] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

pub fn write(vcpu: &mut Vcpu<RiscV>, values: &[u8]) {
    let word = |index: usize| {
        u64::from_le_bytes(values[8 * index..].first_chunk().copied().unwrap_or_default())
    };
    let state = vcpu.state_mut();
    for index in 1..32 {
        state.x[index] = word(index);
    }
    state.pc = word(32);
    for index in 0..32 {
        state.f[index] = word(33 + index);
    }
}
