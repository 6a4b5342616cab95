//! The encodings: every opcode of every map, with the prefixes that select among instructions, in a
//! register and a memory form.

use std::collections::HashSet;

use crate::World;
use iced_x86::{
    Decoder, DecoderError, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic,
    Register,
};

/// An instruction to be tried.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub undefined_flags: u64,
    /// Its operand in memory must be aligned.
    pub aligned: bool,
    /// A gather: bytes of its offsets, which are in register 2.
    pub offset_bytes: Option<usize>,
}

impl Case {
    /// Gathers stay within the data.
    pub fn prepare(&self, world: &mut World) {
        let Some(bytes) = self.offset_bytes else { return };
        for word in &mut world.vectors[2] {
            let small = |shift: u32| ((*word >> shift & 15) as i64 - 8) as u64;
            *word = match bytes {
                4 => small(0) & 0xffff_ffff | small(32) << 32,
                _ => small(0),
            };
        }
    }
}

/// RSI with a displacement of 32, or registers 3 and 1.
const MODRM: [&[u8]; 2] = [&[0x46, 0x20], &[0xcb]];
/// The same with offsets in register 2, times four.
const MODRM_GATHER: &[u8] = &[0x44, 0x96, 0x10];
const IMMEDIATES: [[u8; 8]; 3] = [
    [0x01; 8],
    [0x25, 0x13, 0x85, 0x40, 0, 0, 0, 0],
    [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

/// Every encoding that has a row.
pub fn all() -> Vec<Case> {
    let implemented: HashSet<Mnemonic> = isa::x86::implemented().collect();
    let mut cases = Vec::new();
    for prefix in [&[][..], &[0x66], &[0xf2], &[0xf3]] {
        for rex in [&[][..], &[0x48]] {
            for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
                for opcode in 0..=255_u8 {
                    let head = [prefix, rex, map, &[opcode]].concat();
                    of_opcode(&head, &MODRM, &implemented, &mut cases);
                }
            }
        }
    }
    for opcode in 0..=255 {
        with_vex(opcode, &implemented, &mut cases);
    }
    cases
}

/// All maps, prefixes and widths of VEX, with register 4 or none as the further source.
fn with_vex(opcode: u8, implemented: &HashSet<Mnemonic>, cases: &mut Vec<Case>) {
    const MORE_SOURCES: [u8; 2] = [!4 & 15, 15];
    for map in 1..=3_u8 {
        for prefix in 0..4_u8 {
            for (w, length) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                for source in MORE_SOURCES {
                    let last = w << 7 | source << 3 | length << 2 | prefix;
                    let head = [0xc4, 0xe0 | map, last, opcode];
                    let before = cases.len();
                    of_opcode(&head, &MODRM, implemented, cases);
                    of_opcode(&head, &[MODRM_GATHER], implemented, cases);
                    if cases.len() != before {
                        break; // without a further source it is invalid or another register
                    }
                }
            }
        }
    }
}

fn of_opcode(
    head: &[u8],
    modrms: &[&[u8]],
    implemented: &HashSet<Mnemonic>,
    cases: &mut Vec<Case>,
) {
    let mut seen = HashSet::new();
    for digit in 0..8_u8 {
        for modrm in modrms {
            for immediate in IMMEDIATES {
                let mut bytes = head.to_vec();
                bytes.push(modrm[0] & !0x38 | digit << 3);
                bytes.extend(&modrm[1..]);
                bytes.extend(immediate);
                let Some(insn) = decode(&bytes) else { continue };
                bytes.truncate(insn.len());
                let gathers = insn.memory_index().is_vector_register();
                let other = !implemented.contains(&insn.mnemonic()) || is_elsewhere(&insn);
                if other || !host_has(&insn) || gathers != (*modrm == MODRM_GATHER) {
                    continue;
                }
                if gathers && digit == 2 || insn.op_count() > 2 && gathers && digit == 4 {
                    continue; // two of its registers are one
                }
                // With a register in that field, one digit is enough.
                let variant = (insn.code(), modrm.len(), bytes.last().copied());
                if seen.insert(variant) {
                    cases.push(Case {
                        name: format!("{:?}", insn.code()),
                        bytes,
                        undefined_flags: undefined_flags(&insn),
                        aligned: needs_alignment(&insn),
                        offset_bytes: gathers.then(|| offset_bytes(&insn)),
                    });
                }
            }
        }
    }
}

/// Bytes of a gather's offsets: it has them in its name.
fn offset_bytes(insn: &Instruction) -> usize {
    use Mnemonic as M;
    match insn.mnemonic() {
        M::Vpgatherdd | M::Vpgatherdq | M::Vgatherdps | M::Vgatherdpd => 4,
        _ => 8,
    }
}

/// Without VEX, vectors in memory lie where they must, but for moves that say otherwise.
fn needs_alignment(insn: &Instruction) -> bool {
    use Mnemonic as M;
    match insn.mnemonic() {
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => false,
        M::Pcmpistri | M::Pcmpistrm | M::Pcmpestri | M::Pcmpestrm => false,
        M::Pcmpestri64 | M::Pcmpestrm64 => false,
        M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntdqa => true,
        M::Vmovntps | M::Vmovntpd | M::Vmovntdq => true,
        M::Cmpxchg16b => true,
        _ => insn.encoding() == EncodingKind::Legacy && insn.memory_size().size() == 16,
    }
}

/// What newer processors have must be asked for; the others are told by the oldest we run on.
fn host_has(insn: &Instruction) -> bool {
    use iced_x86::CpuidFeature as C;
    use std::is_x86_feature_detected as has;
    insn.cpuid_features().iter().all(|feature| match feature {
        C::AVX => has!("avx"),
        C::AVX2 => has!("avx2"),
        C::FMA => has!("fma"),
        C::F16C => has!("f16c"),
        C::SHA => has!("sha"),
        C::BMI1 => has!("bmi1"),
        C::BMI2 => has!("bmi2"),
        C::ADX => has!("adx"),
        C::MOVBE => has!("movbe"),
        C::AES => has!("aes"),
        C::PCLMULQDQ => has!("pclmulqdq"),
        C::VAES | C::VPCLMULQDQ => false,
        _ => true,
    })
}

fn decode(bytes: &[u8]) -> Option<Instruction> {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let insn = decoder.decode();
    (decoder.last_error() == DecoderError::None).then_some(insn)
}

/// What this test cannot try: it would leave, fault, or need state that is not compared.
fn is_elsewhere(insn: &Instruction) -> bool {
    use Mnemonic as M;
    let control = insn.flow_control() != FlowControl::Next || insn.is_privileged();
    let registers = (0..insn.op_count()).map(|i| insn.op_register(i));
    let other_state = registers.into_iter().any(|register| {
        register.is_mm()
            || register.is_st()
            || register.is_segment_register()
            || register == Register::RSP
            || register == Register::ESP
            || register == Register::SP
            || register == Register::SPL
    });
    let string_count = insn.has_rep_prefix() || insn.has_repne_prefix();
    let memory = insn.memory_base();
    let far_memory = insn.op_count() > 0
        && (0..insn.op_count()).any(|i| insn.op_kind(i) == iced_x86::OpKind::Memory)
        && !matches!(memory, Register::RSI);
    control
        || other_state
        || far_memory
        || (string_count && insn.is_string_instruction())
        || insn.is_stack_instruction() && !matches!(insn.mnemonic(), M::Push | M::Pop)
        || insn.cpuid_features().iter().any(|feature| {
            use iced_x86::CpuidFeature as C;
            matches!(feature, C::FPU | C::FPU287 | C::FPU387 | C::FXSR | C::FSGSBASE)
                || matches!(feature, C::XSAVE | C::XSAVEOPT | C::XSAVEC)
        })
        || matches!(
            insn.mnemonic(),
            M::Div
                | M::Idiv
                | M::Rdtsc
                | M::Rdtscp
                | M::Rdpid
                | M::Rdrand
                | M::Rdseed
                | M::Cpuid
                | M::Xgetbv
                | M::Sgdt
                | M::Sidt
                | M::Sldt
                | M::Str
                | M::Smsw
                | M::Std
                | M::Cld
                | M::In
                | M::Out
                | M::Ldmxcsr
                | M::Stmxcsr
                | M::Maskmovdqu
                | M::Vldmxcsr
                | M::Vstmxcsr
                | M::Vmaskmovdqu
                | M::Xlatb
                | M::Lar
                | M::Lsl
                | M::Verr
                | M::Verw
                | M::Pushfq
                | M::Popfq
                | M::Pushf
                | M::Popf
                | M::Cmpxchg16b
                | M::Wrfsbase
                | M::Wrgsbase
                | M::Emms
                | M::Clflush
                | M::Clflushopt
                | M::Clwb
                | M::Lss
                | M::Lfs
                | M::Lgs
                | M::Bt
                | M::Bts
                | M::Btr
                | M::Btc
        ) && !is_bit_test_by_immediate(insn)
}

/// Bit strings in memory reach anywhere; with an immediate or a register they do not.
fn is_bit_test_by_immediate(insn: &Instruction) -> bool {
    use Mnemonic as M;
    let bit_test = matches!(insn.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc);
    let memory = insn.op0_kind() == iced_x86::OpKind::Memory;
    bit_test && (!memory || insn.op1_kind() != iced_x86::OpKind::Register)
}

/// The flags that the manual leaves undefined, as EFLAGS bits.
fn undefined_flags(insn: &Instruction) -> u64 {
    use iced_x86::RflagsBits as R;
    use isa::ir::{ADJUST, CARRY, OVERFLOW, PARITY, SIGN, ZERO};
    let undefined = insn.rflags_undefined();
    let mut bits = 0;
    for (flag, bit) in [
        (R::OF, OVERFLOW),
        (R::SF, SIGN),
        (R::ZF, ZERO),
        (R::AF, ADJUST),
        (R::CF, CARRY),
        (R::PF, PARITY),
    ] {
        if undefined & flag != 0 {
            bits |= bit;
        }
    }
    // By CL the count may be anything: overflow is defined for one, carry below the width.
    if matches!(
        insn.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shld
            | Mnemonic::Shrd
    ) {
        bits |= OVERFLOW | ADJUST;
        let narrow = insn.op0_register().size() < 4 || insn.memory_size().size() < 4;
        if narrow {
            bits |= CARRY;
        }
    }
    bits
}
