//! x86's registers, 32 and 64 bits.

use gdb::{Description, Feature, Register};
use isa::x86::{CS, DS, ES, FS, GS, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, SS, X86};
use jit::Vcpu;

const NAMES: [(&str, usize); 8] = [
    ("ax", RAX),
    ("bx", RBX),
    ("cx", RCX),
    ("dx", RDX),
    ("si", RSI),
    ("di", RDI),
    ("bp", RBP),
    ("sp", RSP),
];
/// gdb's order for 32 bits.
const NARROW: [usize; 8] = [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI];
const SEGMENTS: [(&str, usize); 6] =
    [("cs", CS), ("ss", SS), ("ds", DS), ("es", ES), ("fs", FS), ("gs", GS)];

const VECTOR_TYPES: &str = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\
<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>\
<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>\
<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\
<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>\
<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>\
<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>\
<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>";

fn general(long: bool) -> Vec<(String, usize)> {
    let name = |number: usize| {
        let known = NAMES.iter().find(|(_, of)| *of == number);
        known.map_or_else(
            || format!("r{number}"),
            |(name, _)| format!("{}{name}", if long { 'r' } else { 'e' }),
        )
    };
    if long {
        NAMES.iter().map(|(_, number)| *number).chain(8..16).map(|n| (name(n), n)).collect()
    } else {
        NARROW.iter().map(|&number| (name(number), number)).collect()
    }
}

fn vectors(long: bool) -> usize {
    if long { 16 } else { 8 }
}

/// What gdb is told.
pub fn description(long: bool) -> Description {
    let bits = if long { 64 } else { 32 };
    let mut core: Vec<Register> = general(long)
        .into_iter()
        .map(|(name, number)| match number {
            RSP | RBP => Register::typed(name, bits, "data_ptr"),
            _ => Register::typed(name, bits, if long { "int64" } else { "int32" }),
        })
        .collect();
    core.push(Register::typed(if long { "rip" } else { "eip" }, bits, "code_ptr"));
    core.push(Register::typed("eflags", 32, "int32"));
    core.extend(SEGMENTS.iter().map(|(name, _)| Register::typed(*name, 32, "int32")));
    core.extend((0..8).map(|index| Register::typed(format!("st{index}"), 80, "i387_ext")));
    let control = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];
    core.extend(control.map(|name| Register::number(name, 32)));
    let mut sse: Vec<Register> = (0..vectors(long))
        .map(|index| Register::typed(format!("xmm{index}"), 128, "vec128"))
        .collect();
    sse.push(Register::number("mxcsr", 32));
    let mut features = vec![
        Feature { name: "org.gnu.gdb.i386.core", types: "", registers: core },
        Feature { name: "org.gnu.gdb.i386.sse", types: VECTOR_TYPES, registers: sse },
    ];
    if long {
        let bases = ["fs_base", "gs_base"].map(|name| Register::typed(name, 64, "int64"));
        let name = "org.gnu.gdb.i386.segments";
        features.push(Feature { name, types: "", registers: bases.to_vec() });
    }
    let architecture = if long { "i386:x86-64" } else { "i386" };
    Description { architecture, system: Some("GNU/Linux"), features }
}

/// The tag word with two bits a register, by place on the stack's own numbering.
fn tags(empty: u64) -> u64 {
    (0..8).map(|number| if empty >> number & 1 != 0 { 3 << (2 * number) } else { 0 }).sum()
}

pub fn read(vcpu: &Vcpu<X86>, long: bool) -> Vec<u8> {
    let state = vcpu.state();
    let word = if long { 8 } else { 4 };
    let mut bytes = Vec::new();
    let mut put = |value: u64, count: usize| bytes.extend(&value.to_le_bytes()[..count]);
    general(long).iter().for_each(|&(_, number)| put(state.gpr[number], word));
    put(state.pc, word);
    put(state.flags & isa::ir::STATUS | state.eflags | 2, 4);
    SEGMENTS.iter().for_each(|&(_, number)| put(state.segments[number].selector, 4));
    for index in 0..8 {
        let [low, high] = state.x87[(state.x87_top as usize + index) & 7];
        put(low, 8);
        put(high, 2);
    }
    let status = state.x87_status & !(7 << 11) | (state.x87_top & 7) << 11;
    [state.x87_control, status, tags(state.x87_empty), 0, 0, 0, 0, 0]
        .into_iter()
        .for_each(|value| put(value, 4));
    for vector in &state.vectors[..vectors(long)] {
        put(vector[0], 8);
        put(vector[1], 8);
    }
    put(vcpu.fp_control().into(), 4);
    if long {
        put(state.segments[FS].base, 8);
        put(state.segments[GS].base, 8);
    }
    bytes
}

pub fn write(vcpu: &mut Vcpu<X86>, values: &[u8], long: bool) {
    let word = if long { 8 } else { 4 };
    let mut rest = values;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count.min(rest.len()));
        rest = tail;
        let mut bytes = [0; 8];
        bytes[..head.len()].copy_from_slice(head);
        u64::from_le_bytes(bytes)
    };
    let state = vcpu.state_mut();
    general(long).iter().for_each(|&(_, number)| state.gpr[number] = take(word));
    state.pc = take(word);
    let flags = take(4);
    const CHANGEABLE: u64 = isa::x86::eflags::DF;
    state.flags = flags & isa::ir::STATUS;
    state.eflags = state.eflags & !CHANGEABLE | flags & CHANGEABLE;
    SEGMENTS.iter().for_each(|_| _ = take(4)); // selectors stay: gdb cannot load descriptors
    for index in 0..8 {
        state.x87[(state.x87_top as usize + index) & 7] = [take(8), take(2)];
    }
    state.x87_control = take(4);
    let status = take(4);
    (state.x87_status, state.x87_top) = (status & !(7 << 11), status >> 11 & 7);
    let tags = take(4);
    state.x87_empty = (0..8).filter(|number| tags >> (2 * number) & 3 == 3).map(|n| 1 << n).sum();
    (0..5).for_each(|_| _ = take(4));
    for vector in &mut state.vectors[..vectors(long)] {
        (vector[0], vector[1]) = (take(8), take(8));
    }
    let mxcsr = take(4) as u32;
    if long {
        state.segments[FS].base = take(8);
        state.segments[GS].base = take(8);
    }
    vcpu.set_fp_control(mxcsr);
}
