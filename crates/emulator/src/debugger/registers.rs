//! x86's registers in the order of QEMU's description for gdb, system registers included.

use std::fmt::Write;
use std::sync::LazyLock;

use gdb::{Description, Feature, Register};
use machine::Registers;
use machine::inspect::{CR0, CR2, CR3, CR4, CR8};

/// gdb's order of the general registers, by x86's numbers.
const GENERAL: [(&str, usize); 8] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
];
/// gdb's order of the segment registers, by x86's numbers.
const SEGMENTS: [(&str, usize); 6] =
    [("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5)];
const FS: usize = 4;
const GS: usize = 5;
const CONTROL: [(&str, usize, &str); 5] = [
    ("cr0", CR0, "x64_cr0"),
    ("cr2", CR2, "int64"),
    ("cr3", CR3, "x64_cr3"),
    ("cr4", CR4, "x64_cr4"),
    ("cr8", CR8, "int64"),
];
const FPU: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];

/// A register of flags: its type's name, its bytes, and names with their lowest and highest bits.
type FlagsType = (&'static str, u32, &'static [(&'static str, u32, u32)]);

#[rustfmt::skip]
const FLAGS: &[FlagsType] = &[
    ("x64_eflags", 4, &[
        ("ID", 21, 21), ("VIP", 20, 20), ("VIF", 19, 19), ("AC", 18, 18), ("VM", 17, 17),
        ("RF", 16, 16), ("NT", 14, 14), ("IOPL", 12, 13), ("OF", 11, 11), ("DF", 10, 10),
        ("IF", 9, 9), ("TF", 8, 8), ("SF", 7, 7), ("ZF", 6, 6), ("AF", 4, 4), ("PF", 2, 2),
        ("CF", 0, 0),
    ]),
    ("x64_cr0", 8, &[
        ("PG", 31, 31), ("CD", 30, 30), ("NW", 29, 29), ("AM", 18, 18), ("WP", 16, 16),
        ("NE", 5, 5), ("ET", 4, 4), ("TS", 3, 3), ("EM", 2, 2), ("MP", 1, 1), ("PE", 0, 0),
    ]),
    ("x64_cr3", 8, &[("PDBR", 12, 63), ("PCID", 0, 11)]),
    ("x64_cr4", 8, &[
        ("PKE", 22, 22), ("SMAP", 21, 21), ("SMEP", 20, 20), ("OSXSAVE", 18, 18),
        ("PCIDE", 17, 17), ("FSGSBASE", 16, 16), ("SMXE", 14, 14), ("VMXE", 13, 13),
        ("LA57", 12, 12), ("UMIP", 11, 11), ("OSXMMEXCPT", 10, 10), ("OSFXSR", 9, 9),
        ("PCE", 8, 8), ("PGE", 7, 7), ("MCE", 6, 6), ("PAE", 5, 5), ("PSE", 4, 4), ("DE", 3, 3),
        ("TSD", 2, 2), ("PVI", 1, 1), ("VME", 0, 0),
    ]),
    ("x64_efer", 8, &[
        ("TCE", 15, 15), ("FFXSR", 14, 14), ("LMSLE", 13, 13), ("SVME", 12, 12), ("NXE", 11, 11),
        ("LMA", 10, 10), ("LME", 8, 8), ("SCE", 0, 0),
    ]),
];

#[rustfmt::skip]
const MXCSR: FlagsType = ("x64_mxcsr", 4, &[
    ("IE", 0, 0), ("DE", 1, 1), ("ZE", 2, 2), ("OE", 3, 3), ("UE", 4, 4), ("PE", 5, 5),
    ("DAZ", 6, 6), ("IM", 7, 7), ("DM", 8, 8), ("ZM", 9, 9), ("OM", 10, 10), ("UM", 11, 11),
    ("PM", 12, 12), ("FZ", 15, 15),
]);

fn flags_xml((name, bytes, fields): &FlagsType, xml: &mut String) {
    _ = write!(xml, "<flags id=\"{name}\" size=\"{bytes}\">");
    for (name, start, end) in *fields {
        _ = write!(xml, "<field name=\"{name}\" start=\"{start}\" end=\"{end}\"/>");
    }
    xml.push_str("</flags>");
}

static CORE_TYPES: LazyLock<String> = LazyLock::new(|| {
    let mut xml = String::new();
    FLAGS.iter().for_each(|flags| flags_xml(flags, &mut xml));
    xml
});

static VECTOR_TYPES: LazyLock<String> = LazyLock::new(|| {
    let lanes = [
        ("v4f", "ieee_single", 4, "v4_float"),
        ("v2d", "ieee_double", 2, "v2_double"),
        ("v16i8", "int8", 16, "v16_int8"),
        ("v8i16", "int16", 8, "v8_int16"),
        ("v4i32", "int32", 4, "v4_int32"),
        ("v2i64", "int64", 2, "v2_int64"),
    ];
    let mut xml = String::new();
    for (name, lane, count, _) in lanes {
        _ = write!(xml, "<vector id=\"{name}\" type=\"{lane}\" count=\"{count}\"/>");
    }
    xml.push_str("<union id=\"vec128\">");
    for (name, _, _, field) in lanes {
        _ = write!(xml, "<field name=\"{field}\" type=\"{name}\"/>");
    }
    xml.push_str("<field name=\"uint128\" type=\"uint128\"/></union>");
    flags_xml(&MXCSR, &mut xml);
    xml
});

/// What gdb is told.
pub fn description() -> Description {
    let mut core: Vec<Register> = GENERAL
        .iter()
        .map(|(name, number)| match number {
            4 | 5 => Register::typed(*name, 64, "data_ptr"),
            _ => Register::typed(*name, 64, "int64"),
        })
        .collect();
    core.extend((8..16).map(|number| Register::typed(format!("r{number}"), 64, "int64")));
    core.push(Register::typed("rip", 64, "code_ptr"));
    core.push(Register::typed("eflags", 32, "x64_eflags"));
    core.extend(SEGMENTS.iter().map(|(name, _)| Register::typed(*name, 32, "int32")));
    core.extend(["fs_base", "gs_base", "k_gs_base"].map(|name| Register::typed(name, 64, "int64")));
    core.extend(CONTROL.iter().map(|(name, _, kind)| Register::typed(*name, 64, kind)));
    core.push(Register::typed("efer", 64, "x64_efer"));
    core.extend((0..8).map(|index| Register::typed(format!("st{index}"), 80, "i387_ext")));
    core.extend(FPU.map(|name| Register::number(name, 32)));
    let mut sse: Vec<Register> =
        (0..16).map(|index| Register::typed(format!("xmm{index}"), 128, "vec128")).collect();
    sse.push(Register::typed("mxcsr", 32, "x64_mxcsr"));
    Description {
        architecture: "i386:x86-64",
        system: None,
        features: vec![
            Feature { name: "org.gnu.gdb.i386.core", types: &CORE_TYPES, registers: core },
            Feature { name: "org.gnu.gdb.i386.sse", types: &VECTOR_TYPES, registers: sse },
        ],
    }
}

/// The tag word with two bits a register: empty ones have ones.
fn tags(valid: u8) -> u64 {
    (0..8).map(|number| if valid >> number & 1 == 0 { 3 << (2 * number) } else { 0 }).sum()
}

/// One behind the other.
pub fn to_bytes(registers: &Registers) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |value: u64, count: usize| bytes.extend(&value.to_le_bytes()[..count]);
    let general = &registers.general;
    GENERAL.iter().for_each(|(_, number)| put(general[*number], 8));
    general[8..].iter().for_each(|value| put(*value, 8));
    put(registers.rip, 8);
    put(registers.rflags, 4);
    let segments = &registers.segments;
    SEGMENTS.iter().for_each(|(_, number)| put(segments[*number].selector.into(), 4));
    put(segments[FS].base, 8);
    put(segments[GS].base, 8);
    put(registers.kernel_gs_base, 8);
    CONTROL.iter().for_each(|(_, place, _)| put(registers.control[*place], 8));
    put(registers.efer, 8);
    for [low, high] in registers.x87 {
        put(low, 8);
        put(high, 2);
    }
    put(registers.x87_control.into(), 4);
    put(registers.x87_status.into(), 4);
    put(tags(registers.x87_valid), 4);
    (0..5).for_each(|_| put(0, 4));
    for [low, high] in registers.vectors {
        put(low, 8);
        put(high, 8);
    }
    put(registers.mxcsr.into(), 4);
    bytes
}

/// Changes registers to what stands in `bytes`.
pub fn from_bytes(registers: &mut Registers, bytes: &[u8]) {
    let mut rest = bytes;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count.min(rest.len()));
        rest = tail;
        let mut bytes = [0; 8];
        bytes[..head.len()].copy_from_slice(head);
        u64::from_le_bytes(bytes)
    };
    GENERAL.iter().for_each(|(_, number)| registers.general[*number] = take(8));
    registers.general[8..].iter_mut().for_each(|value| *value = take(8));
    registers.rip = take(8);
    registers.rflags = take(4);
    for (_, number) in SEGMENTS {
        registers.segments[number].selector = take(4) as u16;
    }
    registers.segments[FS].base = take(8);
    registers.segments[GS].base = take(8);
    registers.kernel_gs_base = take(8);
    CONTROL.iter().for_each(|(_, place, _)| registers.control[*place] = take(8));
    registers.efer = take(8);
    registers.x87.iter_mut().for_each(|register| *register = [take(8), take(2)]);
    registers.x87_control = take(4) as u16;
    registers.x87_status = take(4) as u16;
    let tags = take(4);
    let valid = (0..8).filter(|number| tags >> (2 * number) & 3 != 3);
    registers.x87_valid = valid.map(|number| 1 << number).sum();
    (0..5).for_each(|_| _ = take(4));
    registers.vectors.iter_mut().for_each(|register| *register = [take(8), take(8)]);
    registers.mxcsr = take(4) as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_way_to_gdb_and_back() {
        let mut before = Registers { rip: 0x1234_5678_9abc, rflags: 0x246, ..Registers::default() };
        before.general = std::array::from_fn(|index| 0x1111 * index as u64);
        before.segments[2].selector = 0x18;
        before.control = [1, 2, 3, 4, 5];
        (before.x87_valid, before.x87_status) = (0xc0, 0x3000);
        before.x87[1] = [7, 0x3fff];
        before.vectors[15] = [8, 9];
        before.mxcsr = 0x1f80;
        let bytes = to_bytes(&before);
        let bits: usize = description().registers().map(|register| register.bits).sum();
        assert_eq!(bytes.len() * 8, bits, "the description is of all of them");
        let mut after = Registers::default();
        from_bytes(&mut after, &bytes);
        assert_eq!(after, before);
    }
}
