//! SSE to SSE4.2, AES and PCLMULQDQ: arithmetic, volume 1, 5.5 to 5.12. Nearly every row is one lane
//! operation, because the lane operations have the meaning of these very instructions.

use iced_x86::Mnemonic as M;

use super::Row;
use crate::ir::{Cmp, Code, FlagKind, FpRule, Ir, Lane, NanRule, Round, Saturate, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::Lift;
use crate::x86::state::{self, RAX, RCX, RDX};
use crate::x86::vectors::Vector;

pub const ROWS: &[Row] = &[
    // lane by lane, in MMX registers too
    (M::Pand, |l| binary(l, Lane::And)),
    (M::Pandn, |l| binary(l, Lane::AndNot)),
    (M::Por, |l| binary(l, Lane::Or)),
    (M::Pxor, |l| binary(l, Lane::Xor)),
    (M::Andps, |l| binary(l, Lane::And)),
    (M::Andpd, |l| binary(l, Lane::And)),
    (M::Andnps, |l| binary(l, Lane::AndNot)),
    (M::Andnpd, |l| binary(l, Lane::AndNot)),
    (M::Orps, |l| binary(l, Lane::Or)),
    (M::Orpd, |l| binary(l, Lane::Or)),
    (M::Xorps, |l| binary(l, Lane::Xor)),
    (M::Xorpd, |l| binary(l, Lane::Xor)),
    (M::Paddb, |l| binary(l, Lane::Add8)),
    (M::Paddw, |l| binary(l, Lane::Add16)),
    (M::Paddd, |l| binary(l, Lane::Add32)),
    (M::Paddq, |l| binary(l, Lane::Add64)),
    (M::Psubb, |l| binary(l, Lane::Sub8)),
    (M::Psubw, |l| binary(l, Lane::Sub16)),
    (M::Psubd, |l| binary(l, Lane::Sub32)),
    (M::Psubq, |l| binary(l, Lane::Sub64)),
    (M::Paddsb, |l| binary(l, Lane::AddSatS8)),
    (M::Paddsw, |l| binary(l, Lane::AddSatS16)),
    (M::Paddusb, |l| binary(l, Lane::AddSatU8)),
    (M::Paddusw, |l| binary(l, Lane::AddSatU16)),
    (M::Psubsb, |l| binary(l, Lane::SubSatS8)),
    (M::Psubsw, |l| binary(l, Lane::SubSatS16)),
    (M::Psubusb, |l| binary(l, Lane::SubSatU8)),
    (M::Psubusw, |l| binary(l, Lane::SubSatU16)),
    (M::Pavgb, |l| binary(l, Lane::AvgU8)),
    (M::Pavgw, |l| binary(l, Lane::AvgU16)),
    (M::Psadbw, |l| binary(l, Lane::SumAbsDiff)),
    (M::Pmullw, |l| binary(l, Lane::Mul16)),
    (M::Pmulld, |l| binary(l, Lane::Mul32)),
    (M::Pmulhw, |l| binary(l, Lane::MulHiS16)),
    (M::Pmulhuw, |l| binary(l, Lane::MulHiU16)),
    (M::Pmulhrsw, |l| binary(l, Lane::MulRound16)),
    (M::Pmuludq, |l| binary(l, Lane::MulWideU32)),
    (M::Pmuldq, |l| binary(l, Lane::MulWideS32)),
    (M::Pmaddwd, |l| binary(l, Lane::MulAdd16)),
    (M::Pmaddubsw, |l| binary(l, Lane::MulAddU8S8)),
    (M::Psignb, |l| binary(l, Lane::Sign8)),
    (M::Psignw, |l| binary(l, Lane::Sign16)),
    (M::Psignd, |l| binary(l, Lane::Sign32)),
    (M::Pminsb, |l| binary(l, Lane::MinS8)),
    (M::Pminsw, |l| binary(l, Lane::MinS16)),
    (M::Pminsd, |l| binary(l, Lane::MinS32)),
    (M::Pminub, |l| binary(l, Lane::MinU8)),
    (M::Pminuw, |l| binary(l, Lane::MinU16)),
    (M::Pminud, |l| binary(l, Lane::MinU32)),
    (M::Pmaxsb, |l| binary(l, Lane::MaxS8)),
    (M::Pmaxsw, |l| binary(l, Lane::MaxS16)),
    (M::Pmaxsd, |l| binary(l, Lane::MaxS32)),
    (M::Pmaxub, |l| binary(l, Lane::MaxU8)),
    (M::Pmaxuw, |l| binary(l, Lane::MaxU16)),
    (M::Pmaxud, |l| binary(l, Lane::MaxU32)),
    (M::Pcmpeqb, |l| binary(l, Lane::Eq8)),
    (M::Pcmpeqw, |l| binary(l, Lane::Eq16)),
    (M::Pcmpeqd, |l| binary(l, Lane::Eq32)),
    (M::Pcmpeqq, |l| binary(l, Lane::Eq64)),
    (M::Pcmpgtb, |l| binary(l, Lane::GtS8)),
    (M::Pcmpgtw, |l| binary(l, Lane::GtS16)),
    (M::Pcmpgtd, |l| binary(l, Lane::GtS32)),
    (M::Pcmpgtq, |l| binary(l, Lane::GtS64)),
    // across the whole register
    (M::Phaddw, |l| whole(l, Lane::HAdd16)),
    (M::Phaddd, |l| whole(l, Lane::HAdd32)),
    (M::Phaddsw, |l| whole(l, Lane::HAddSat16)),
    (M::Phsubw, |l| whole(l, Lane::HSub16)),
    (M::Phsubd, |l| whole(l, Lane::HSub32)),
    (M::Phsubsw, |l| whole(l, Lane::HSubSat16)),
    (M::Punpcklbw, |l| whole(l, Lane::ZipLo8)),
    (M::Punpcklwd, |l| whole(l, Lane::ZipLo16)),
    (M::Punpckldq, |l| whole(l, Lane::ZipLo32)),
    (M::Punpcklqdq, |l| whole(l, Lane::ZipLo64)),
    (M::Punpckhbw, |l| whole(l, Lane::ZipHi8)),
    (M::Punpckhwd, |l| whole(l, Lane::ZipHi16)),
    (M::Punpckhdq, |l| whole(l, Lane::ZipHi32)),
    (M::Punpckhqdq, |l| whole(l, Lane::ZipHi64)),
    (M::Unpcklps, |l| whole(l, Lane::ZipLo32)),
    (M::Unpckhps, |l| whole(l, Lane::ZipHi32)),
    (M::Unpcklpd, |l| whole(l, Lane::ZipLo64)),
    (M::Unpckhpd, |l| whole(l, Lane::ZipHi64)),
    (M::Packsswb, |l| whole(l, Lane::NarrowS16S8)),
    (M::Packssdw, |l| whole(l, Lane::NarrowS32S16)),
    (M::Packuswb, |l| whole(l, Lane::NarrowS16U8)),
    (M::Packusdw, |l| whole(l, Lane::NarrowS32U16)),
    (M::Pshufb, |l| whole(l, Lane::Shuffle8)),
    (M::Addps, |l| whole(l, Lane::FAdd32)),
    (M::Addpd, |l| whole(l, Lane::FAdd64)),
    (M::Subps, |l| whole(l, Lane::FSub32)),
    (M::Subpd, |l| whole(l, Lane::FSub64)),
    (M::Mulps, |l| whole(l, Lane::FMul32)),
    (M::Mulpd, |l| whole(l, Lane::FMul64)),
    (M::Divps, |l| whole(l, Lane::FDiv32)),
    (M::Divpd, |l| whole(l, Lane::FDiv64)),
    (M::Minps, |l| whole(l, Lane::FMin32)),
    (M::Minpd, |l| whole(l, Lane::FMin64)),
    (M::Maxps, |l| whole(l, Lane::FMax32)),
    (M::Maxpd, |l| whole(l, Lane::FMax64)),
    (M::Addsubps, |l| whole(l, Lane::FAddSub32)),
    (M::Addsubpd, |l| whole(l, Lane::FAddSub64)),
    (M::Haddps, |l| whole(l, Lane::FHAdd32)),
    (M::Haddpd, |l| whole(l, Lane::FHAdd64)),
    (M::Hsubps, |l| whole(l, Lane::FHSub32)),
    (M::Hsubpd, |l| whole(l, Lane::FHSub64)),
    (M::Addss, |l| whole(l, Lane::FAddLow32)),
    (M::Addsd, |l| whole(l, Lane::FAddLow64)),
    (M::Subss, |l| whole(l, Lane::FSubLow32)),
    (M::Subsd, |l| whole(l, Lane::FSubLow64)),
    (M::Mulss, |l| whole(l, Lane::FMulLow32)),
    (M::Mulsd, |l| whole(l, Lane::FMulLow64)),
    (M::Divss, |l| whole(l, Lane::FDivLow32)),
    (M::Divsd, |l| whole(l, Lane::FDivLow64)),
    (M::Minss, |l| whole(l, Lane::FMinLow32)),
    (M::Minsd, |l| whole(l, Lane::FMinLow64)),
    (M::Maxss, |l| whole(l, Lane::FMaxLow32)),
    (M::Maxsd, |l| whole(l, Lane::FMaxLow64)),
    (M::Sqrtss, |l| whole(l, Lane::FSqrtLow32)),
    (M::Sqrtsd, |l| whole(l, Lane::FSqrtLow64)),
    (M::Rcpss, |l| whole(l, Lane::FReciprocalLow32)),
    (M::Rsqrtss, |l| whole(l, Lane::FReciprocalSqrtLow32)),
    (M::Cvtss2sd, |l| whole(l, Lane::FConvertLow32to64)),
    (M::Cvtsd2ss, |l| whole(l, Lane::FConvertLow64to32)),
    (M::Aesenc, |l| whole(l, Lane::AesEnc)),
    (M::Aesenclast, |l| whole(l, Lane::AesEncLast)),
    (M::Aesdec, |l| whole(l, Lane::AesDec)),
    (M::Aesdeclast, |l| whole(l, Lane::AesDecLast)),
    (M::Pabsb, |l| unary(l, Lane::Abs8)),
    (M::Pabsw, |l| unary(l, Lane::Abs16)),
    (M::Pabsd, |l| unary(l, Lane::Abs32)),
    (M::Phminposuw, |l| unary(l, Lane::HMinU16)),
    (M::Sqrtps, |l| unary(l, Lane::FSqrt32)),
    (M::Sqrtpd, |l| unary(l, Lane::FSqrt64)),
    (M::Rcpps, |l| unary(l, Lane::FReciprocal32)),
    (M::Rsqrtps, |l| unary(l, Lane::FReciprocalSqrt32)),
    (M::Cvtdq2ps, |l| unary(l, Lane::FFrom32)),
    (M::Cvtdq2pd, |l| unary(l, Lane::FFromLow32to64)),
    (M::Cvtps2dq, |l| unary(l, Lane::FTo32)),
    (M::Cvttps2dq, |l| unary(l, Lane::FToZero32)),
    (M::Cvtpd2dq, |l| unary(l, Lane::F64To32)),
    (M::Cvttpd2dq, |l| unary(l, Lane::F64ToZero32)),
    (M::Cvtps2pd, |l| unary(l, Lane::F32To64)),
    (M::Cvtpd2ps, |l| unary(l, Lane::F64ToF32)),
    (M::Movsldup, |l| unary(l, Lane::DupLo32)),
    (M::Movshdup, |l| unary(l, Lane::DupHi32)),
    (M::Movddup, |l| unary(l, Lane::DupLo64)),
    (M::Pmovsxbw, |l| unary(l, Lane::WidenS8)),
    (M::Pmovsxbd, |l| unary(l, Lane::WidenS8to32)),
    (M::Pmovsxbq, |l| unary(l, Lane::WidenS8to64)),
    (M::Pmovsxwd, |l| unary(l, Lane::WidenS16)),
    (M::Pmovsxwq, |l| unary(l, Lane::WidenS16to64)),
    (M::Pmovsxdq, |l| unary(l, Lane::WidenS32)),
    (M::Pmovzxbw, |l| unary(l, Lane::WidenU8)),
    (M::Pmovzxbd, |l| unary(l, Lane::WidenU8to32)),
    (M::Pmovzxbq, |l| unary(l, Lane::WidenU8to64)),
    (M::Pmovzxwd, |l| unary(l, Lane::WidenU16)),
    (M::Pmovzxwq, |l| unary(l, Lane::WidenU16to64)),
    (M::Pmovzxdq, |l| unary(l, Lane::WidenU32)),
    (M::Aesimc, |l| unary(l, Lane::AesInvMixColumns)),
    // with an immediate
    (M::Shufps, |l| binary_imm(l, Lane::ShuffleF32)),
    (M::Shufpd, |l| binary_imm(l, Lane::ShuffleF64)),
    (M::Palignr, align),
    (M::Pblendw, |l| binary_imm(l, Lane::BlendImm16)),
    (M::Blendps, |l| binary_imm(l, Lane::BlendImm32)),
    (M::Blendpd, |l| binary_imm(l, Lane::BlendImm64)),
    (M::Mpsadbw, |l| binary_imm(l, Lane::MultiSumAbsDiff)),
    (M::Dpps, |l| binary_imm(l, Lane::FDot32)),
    (M::Dppd, |l| binary_imm(l, Lane::FDot64)),
    (M::Cmpps, |l| compare_lanes(l, Lane::FCompare32)),
    (M::Cmppd, |l| compare_lanes(l, Lane::FCompare64)),
    (M::Cmpss, |l| compare_lanes(l, Lane::FCompareLow32)),
    (M::Roundss, |l| binary_imm(l, Lane::FRoundLow32)),
    (M::Roundsd, |l| binary_imm(l, Lane::FRoundLow64)),
    (M::Pclmulqdq, |l| binary_imm(l, Lane::ClMul)),
    (M::Pshufd, |l| unary_imm(l, Lane::Shuffle32)),
    (M::Pshufw, |l| unary_imm(l, Lane::ShuffleLo16)),
    (M::Pshuflw, |l| unary_imm(l, Lane::ShuffleLo16)),
    (M::Pshufhw, |l| unary_imm(l, Lane::ShuffleHi16)),
    (M::Roundps, |l| unary_imm(l, Lane::FRound32)),
    (M::Roundpd, |l| unary_imm(l, Lane::FRound64)),
    (M::Aeskeygenassist, |l| unary_imm(l, Lane::AesKeygen)),
    // shifts
    (M::Psllw, |l| shift(l, Lane::Shl16, Lane::Shl16By)),
    (M::Pslld, |l| shift(l, Lane::Shl32, Lane::Shl32By)),
    (M::Psllq, |l| shift(l, Lane::Shl64, Lane::Shl64By)),
    (M::Psrlw, |l| shift(l, Lane::ShrU16, Lane::ShrU16By)),
    (M::Psrld, |l| shift(l, Lane::ShrU32, Lane::ShrU32By)),
    (M::Psrlq, |l| shift(l, Lane::ShrU64, Lane::ShrU64By)),
    (M::Psraw, |l| shift(l, Lane::ShrS16, Lane::ShrS16By)),
    (M::Psrad, |l| shift(l, Lane::ShrS32, Lane::ShrS32By)),
    (M::Pslldq, |l| unary_shift(l, Lane::ShlBytes)),
    (M::Psrldq, |l| unary_shift(l, Lane::ShrBytes)),
    // blends by XMM0
    (M::Pblendvb, |l| blend(l, Lane::Blend8)),
    (M::Blendvps, |l| blend(l, Lane::Blend32)),
    (M::Blendvpd, |l| blend(l, Lane::Blend64)),
    // comparisons that set flags
    (M::Comiss, |l| compare(l, Type::F32, FlagKind::FpCompareSignal)),
    (M::Comisd, |l| compare(l, Type::F64, FlagKind::FpCompareSignal)),
    (M::Ucomiss, |l| compare(l, Type::F32, FlagKind::FpCompare)),
    (M::Ucomisd, |l| compare(l, Type::F64, FlagKind::FpCompare)),
    (M::Ptest, ptest),
    // between numbers and general registers
    (M::Cvtsi2ss, |l| from_integer(l, Type::F32)),
    (M::Cvtsi2sd, |l| from_integer(l, Type::F64)),
    (M::Cvtss2si, |l| to_integer(l, Type::F32, Round::Dynamic)),
    (M::Cvtsd2si, |l| to_integer(l, Type::F64, Round::Dynamic)),
    (M::Cvttss2si, |l| to_integer(l, Type::F32, Round::Zero)),
    (M::Cvttsd2si, |l| to_integer(l, Type::F64, Round::Zero)),
    // between numbers and MMX registers
    (M::Cvtpi2ps, |l| from_mmx(l, Lane::FFrom32)),
    (M::Cvtpi2pd, |l| from_mmx(l, Lane::FFromLow32to64)),
    (M::Cvtps2pi, |l| low_to_mmx(l, Lane::FTo32)),
    (M::Cvttps2pi, |l| low_to_mmx(l, Lane::FToZero32)),
    (M::Cvtpd2pi, |l| unary(l, Lane::F64To32)),
    (M::Cvttpd2pi, |l| unary(l, Lane::F64ToZero32)),
    // strings in registers
    (M::Pcmpistri, |l| compare_strings(l, false, false)),
    (M::Pcmpistrm, |l| compare_strings(l, false, true)),
    (M::Pcmpestri, |l| compare_strings(l, true, false)),
    (M::Pcmpestrm, |l| compare_strings(l, true, true)),
    (M::Pcmpestri64, |l| compare_strings(l, true, false)),
    (M::Pcmpestrm64, |l| compare_strings(l, true, true)),
];

/// CMPSD, which a string instruction shares its name with.
pub fn cmpsd(l: &mut Lift) {
    compare_lanes(l, Lane::FCompareLow64);
}

/// Without VEX there are eight predicates, and the immediate's other bits do not count.
fn compare_lanes(l: &mut Lift, lane: Lane) {
    let imm = l.insn.immediate8() & 7;
    binary_by(l, |ir, a, b| ir.lanes2_imm(lane, a, b, imm));
}

/// `operand 0 = combine(first source, second source)`.
pub fn binary_by(l: &mut Lift, combine: impl FnMut(&mut Ir, Value, Value) -> Value) {
    let first = l.first_source();
    let (a, b) = (l.read_lanes(first), l.read_lanes(first + 1));
    let value = a.zip(l.ir, b, combine);
    l.write_lanes(0, value);
}

pub fn binary(l: &mut Lift, lane: Lane) {
    binary_by(l, |ir, a, b| ir.lanes2(lane, a, b));
}

/// A row whose meaning depends on the register's width.
pub fn whole(l: &mut Lift, lane: Lane) {
    if l.is_mmx(0) { across_mmx(l, lane) } else { binary(l, lane) }
}

/// The same with MMX registers: what 64 bits make is found in what 128 make of the operands' halves.
fn across_mmx(l: &mut Lift, lane: Lane) {
    let (a, b) = (l.read_vector(0), l.read_vector(1));
    let upper = match lane {
        Lane::ZipHi8 => Some(Lane::ZipLo8),
        Lane::ZipHi16 => Some(Lane::ZipLo16),
        Lane::ZipHi32 => Some(Lane::ZipLo32),
        _ => None,
    };
    let value = match lane {
        Lane::ZipLo8 | Lane::ZipLo16 | Lane::ZipLo32 => l.ir.lanes2(lane, a, b),
        Lane::Shuffle8 => {
            let places = l.ir.imm(0x8787_8787_8787_8787_u64 as i64);
            let places = l.ir.zero_upper(places);
            let places = l.ir.lanes2(Lane::And, b, places);
            l.ir.lanes2(lane, a, places)
        }
        _ => match upper {
            Some(lower) => {
                let whole = l.ir.lanes2(lower, a, b);
                let upper = l.ir.hi(whole);
                l.ir.zero_upper(upper)
            }
            None => {
                let both = l.ir.lanes2(Lane::ZipLo64, a, b);
                l.ir.lanes2(lane, both, both)
            }
        },
    };
    l.write_vector(0, value);
}

/// PALIGNR.
fn align(l: &mut Lift) {
    if !l.is_mmx(0) {
        return binary_imm(l, Lane::AlignBytes);
    }
    let (above, below) = (l.read_vector(0), l.read_vector(1));
    let both = l.ir.lanes2(Lane::ZipLo64, below, above);
    let value = l.ir.lanes1(Lane::ShrBytes, both, l.insn.immediate8());
    l.write_vector(0, value);
}

/// From the integers of an MMX register or 64 bits of memory.
fn from_mmx(l: &mut Lift, lane: Lane) {
    let source = l.read_vector(1);
    let value = l.ir.lanes1(lane, source, 0);
    let value = match lane {
        Lane::FFrom32 => {
            let old = l.read_vector(0);
            l.ir.lanes2(Lane::MoveLow64, old, value)
        }
        _ => value,
    };
    l.write_vector(0, value);
}

/// To an MMX register, from the low 64 bits: others must not leave exceptions behind.
fn low_to_mmx(l: &mut Lift, lane: Lane) {
    let source = l.read_vector(1);
    let low = l.ir.lo(source);
    let low = l.ir.zero_upper(low);
    let value = l.ir.lanes1(lane, low, 0);
    l.write_vector(0, value);
}

pub fn unary(l: &mut Lift, lane: Lane) {
    let value = l.read_lanes(1).map(l.ir, |ir, a| ir.lanes1(lane, a, 0));
    l.write_lanes(0, value);
}

pub fn binary_imm(l: &mut Lift, lane: Lane) {
    let mut imm = Halves::new(lane, l.insn.immediate8());
    binary_by(l, |ir, a, b| {
        let wide = ir.ty(a) == Type::V256;
        ir.lanes2_imm(lane, a, b, imm.next(wide))
    });
}

pub fn unary_imm(l: &mut Lift, lane: Lane) {
    let mut imm = Halves::new(lane, l.insn.immediate8());
    let value = l.read_lanes(1).map(l.ir, |ir, a| {
        let wide = ir.ty(a) == Type::V256;
        ir.lanes1(lane, a, imm.next(wide))
    });
    l.write_lanes(0, value);
}

/// The immediate of each half of an operation that is done half by half.
struct Halves {
    imm: u8,
    /// Further bits for the upper half.
    bits: u8,
}

impl Halves {
    fn new(lane: Lane, imm: u8) -> Self {
        let bits = match lane {
            Lane::ShuffleF64 | Lane::BlendImm64 => 2,
            Lane::BlendImm32 => 4,
            Lane::MultiSumAbsDiff => 3,
            _ => 0,
        };
        Self { imm, bits }
    }

    fn next(&mut self, wide: bool) -> u8 {
        let imm = self.imm;
        if !wide {
            self.imm >>= self.bits;
        }
        imm
    }
}

pub fn unary_shift(l: &mut Lift, lane: Lane) {
    let (from, imm) = (l.first_source(), l.insn.immediate8());
    let value = l.read_lanes(from).map(l.ir, |ir, a| ir.lanes1(lane, a, imm));
    l.write_lanes(0, value);
}

pub fn shift(l: &mut Lift, by_constant: Lane, by_register: Lane) {
    if l.insn.op_kind(l.insn.op_count() - 1) == iced_x86::OpKind::Immediate8 {
        unary_shift(l, by_constant);
    } else {
        binary(l, by_register);
    }
}

fn blend(l: &mut Lift, lane: Lane) {
    let (a, b) = (l.read_vector(0), l.read_vector(1));
    let mask = l.ir.get(state::xmm(0));
    let value = l.ir.lanes3(lane, a, b, mask);
    l.write_vector(0, value);
}

pub fn compare(l: &mut Lift, ty: Type, kind: FlagKind) {
    let (a, b) = (l.read_scalar(0, ty), l.read_scalar(1, ty));
    l.set_flags(kind, ty, a, b, Value::NONE);
}

/// Zero when the operands share no bit, carry when the second has no bit that the first lacks.
pub fn ptest(l: &mut Lift) {
    let (a, b) = (l.read_lanes(0), l.read_lanes(1));
    let bits = match a.zip(l.ir, b, |ir, a, b| ir.lanes2(Lane::Test, a, b)) {
        Vector::Narrow(bits) | Vector::Wide(bits) => bits,
        Vector::Pair(low, high) => l.ir.alu(Code::And, low, high),
    };
    set_test_flags(l, bits);
}

/// Zero and carry from the two bits of a `Test` row.
pub fn set_test_flags(l: &mut Lift, bits: Value) {
    let bits = l.ir.zext(Type::I64, bits);
    let zero = l.ir.and_imm(bits, 1);
    let zero = l.ir.shl_imm(zero, 6);
    let carry = l.ir.shr_imm(bits, 1);
    let image = l.ir.alu(Code::Or, zero, carry);
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

const RULE: FpRule = FpRule::new(NanRule::X86);

pub fn from_integer(l: &mut Lift, ty: Type) {
    let first = l.first_source();
    let (old, value) = (l.read_vector(first), l.read(first + 1));
    let number = l.ir.fconvert(Code::FFromS, ty, value, RULE);
    let value = l.ir.set_scalar(old, number);
    l.write_vector(0, value);
}

pub fn to_integer(l: &mut Lift, from: Type, round: Round) {
    let (ty, number) = (l.ty(0), l.read_scalar(1, from));
    let rule = RULE.rounding(round);
    let value = l.ir.fto_int(Code::FToS, ty, number, rule, Saturate::Indefinite);
    l.write(0, value);
}

/// The four string comparisons, by helper. It leaves index or mask, and flags, in scratch state.
pub fn compare_strings(l: &mut Lift, lengths: bool, mask: bool) {
    let (a, b) = (l.read_vector(0), l.read_vector(1));
    l.ir.put(state::scratch(0), a);
    l.ir.put(state::scratch(1), b);
    let what = i64::from(l.insn.immediate8()) | i64::from(lengths) << 8 | i64::from(mask) << 9;
    let what = l.ir.imm(what);
    let mut both_lengths = Value::NONE;
    if lengths {
        // EAX and EDX, or RAX and RDX with REX.W; beyond 16 they count as 16 in either width.
        let ty = match l.insn.mnemonic() {
            M::Pcmpestri64 | M::Pcmpestrm64 | M::Vpcmpestri64 | M::Vpcmpestrm64 => Type::I64,
            _ => Type::I32,
        };
        let [length_a, length_b] = [RAX, RDX].map(|n| {
            let value = l.gpr(n, ty);
            let value = l.ir.sext(Type::I64, value);
            clamp_length(l, value)
        });
        let shifted = l.ir.shl_imm(length_b, 8);
        both_lengths = l.ir.alu(Code::Or, length_a, shifted);
    }
    let index = l.ir.helper(helper::COMPARE_STRINGS, what, both_lengths, Value::NONE);
    if mask {
        let value = l.ir.get(state::scratch(0));
        l.set_xmm(0, value);
    } else {
        let index = l.ir.trunc(Type::I32, index);
        l.set_gpr(RCX, index);
    }
}

/// The absolute value, at most 16.
fn clamp_length(l: &mut Lift, value: Value) -> Value {
    let negative = l.ir.unary(Code::Neg, value);
    let zero = l.ir.imm(0);
    let below = l.ir.compare(Cmp::LtS, value, zero);
    let value = l.ir.select(below, negative, value);
    let most = l.ir.imm(16);
    let beyond = l.ir.compare(Cmp::GtU, value, most);
    l.ir.select(beyond, most, value)
}
