//! AArch64's registers.

use gdb::{Description, Feature, Register};
use isa::arm64::{Arm64, EXCEPTIONS, mxcsr_of};
use jit::Vcpu;

use crate::abi::arm64::{image, pstate};

const VECTOR_TYPES: &str = "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
<vector id=\"v2u\" type=\"uint64\" count=\"2\"/><vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\
<vector id=\"v4u\" type=\"uint32\" count=\"4\"/><vector id=\"v8u\" type=\"uint16\" count=\"8\"/>\
<vector id=\"v16u\" type=\"uint8\" count=\"16\"/>\
<union id=\"vnd\"><field name=\"f\" type=\"v2d\"/><field name=\"u\" type=\"v2u\"/></union>\
<union id=\"vns\"><field name=\"f\" type=\"v4f\"/><field name=\"u\" type=\"v4u\"/></union>\
<union id=\"vnh\"><field name=\"u\" type=\"v8u\"/></union>\
<union id=\"vnb\"><field name=\"u\" type=\"v16u\"/></union>\
<union id=\"vnq\"><field name=\"u\" type=\"uint128\"/></union>\
<union id=\"aarch64v\"><field name=\"d\" type=\"vnd\"/><field name=\"s\" type=\"vns\"/>\
<field name=\"h\" type=\"vnh\"/><field name=\"b\" type=\"vnb\"/><field name=\"q\" type=\"vnq\"/></union>";

/// What gdb is told.
pub fn description() -> Description {
    let mut core: Vec<Register> =
        (0..31).map(|index| Register::number(format!("x{index}"), 64)).collect();
    core.push(Register::typed("sp", 64, "data_ptr"));
    core.push(Register::typed("pc", 64, "code_ptr"));
    core.push(Register::number("cpsr", 32));
    let mut fpu: Vec<Register> =
        (0..32).map(|index| Register::typed(format!("v{index}"), 128, "aarch64v")).collect();
    fpu.push(Register::number("fpsr", 32));
    fpu.push(Register::number("fpcr", 32));
    let features = vec![
        Feature { name: "org.gnu.gdb.aarch64.core", types: "", registers: core },
        Feature { name: "org.gnu.gdb.aarch64.fpu", types: VECTOR_TYPES, registers: fpu },
    ];
    Description { architecture: "aarch64", system: Some("GNU/Linux"), features }
}

pub fn read(vcpu: &Vcpu<Arm64>) -> Vec<u8> {
    let state = vcpu.state();
    let words = state.x.iter().chain([&state.sp, &state.pc]);
    let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend((pstate(state.flags) as u32).to_le_bytes());
    bytes.extend(state.v.iter().flatten().flat_map(|word| word.to_le_bytes()));
    let mxcsr = vcpu.fp_control();
    let flags: u64 = EXCEPTIONS.iter().map(|(flag, bit)| u64::from(mxcsr >> bit & 1) << flag).sum();
    bytes.extend(((flags | state.qc) as u32).to_le_bytes());
    bytes.extend((state.fpcr as u32).to_le_bytes());
    bytes
}

pub fn write(vcpu: &mut Vcpu<Arm64>, values: &[u8]) {
    let word = |at: usize, bytes: usize| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&values[at..at + bytes]);
        u64::from_le_bytes(word)
    };
    const CPSR: usize = 33 * 8;
    const VECTORS: usize = CPSR + 4;
    const FPSR: usize = VECTORS + 512;
    let state = vcpu.state_mut();
    for (index, register) in state.x.iter_mut().enumerate() {
        *register = word(8 * index, 8);
    }
    (state.sp, state.pc) = (word(31 * 8, 8), word(32 * 8, 8));
    state.flags = image(word(CPSR, 4));
    for (index, lane) in state.v.as_flattened_mut().iter_mut().enumerate() {
        *lane = word(VECTORS + 8 * index, 8);
    }
    let status = word(FPSR, 4);
    state.qc = status & 1 << 27;
    state.fpcr = word(FPSR + 4, 4);
    let flags: u32 =
        EXCEPTIONS.iter().map(|(flag, bit)| ((status >> flag & 1) as u32) << bit).sum();
    let control = mxcsr_of(state.fpcr) | flags;
    vcpu.set_fp_control(control);
}
