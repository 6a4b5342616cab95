//! The encodings: every opcode of every map, with the prefixes that select among instructions, in a
//! register and a memory form.

use std::collections::HashSet;

use iced_x86::{
    Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic, Register,
};

/// An instruction to be tried.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub undefined_flags: u64,
}

/// RSI with a displacement of 16, or registers 3 and 1.
const MODRM: [&[u8]; 2] = [&[0x46, 0x10], &[0xcb]];
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
                    of_opcode(&head, &implemented, &mut cases);
                }
            }
        }
    }
    cases
}

fn of_opcode(head: &[u8], implemented: &HashSet<Mnemonic>, cases: &mut Vec<Case>) {
    let mut seen = HashSet::new();
    for digit in 0..8_u8 {
        for modrm in MODRM {
            for immediate in IMMEDIATES {
                let mut bytes = head.to_vec();
                bytes.push(modrm[0] & !0x38 | digit << 3);
                bytes.extend(&modrm[1..]);
                bytes.extend(immediate);
                let Some(insn) = decode(&bytes) else { continue };
                bytes.truncate(insn.len());
                if !implemented.contains(&insn.mnemonic()) || is_elsewhere(&insn) {
                    continue;
                }
                // With a register in that field, one digit is enough.
                let variant = (insn.code(), modrm.len(), bytes.last().copied());
                if seen.insert(variant) {
                    cases.push(Case {
                        name: format!("{:?}", insn.code()),
                        bytes,
                        undefined_flags: undefined_flags(&insn),
                    });
                }
            }
        }
    }
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
            matches!(feature, C::FPU | C::FPU287 | C::FPU387 | C::FXSR | C::XSAVE | C::FSGSBASE)
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
                | M::Xlatb
                | M::Rcpps
                | M::Rcpss
                | M::Rsqrtps
                | M::Rsqrtss
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
