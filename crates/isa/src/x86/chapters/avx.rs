//! AVX, AVX2 and F16C: arithmetic, volume 1, 5.13 to 5.16. Most rows are those of SSE with other
//! operands; what crosses halves or changes widths has a meaning of its own here.

use iced_x86::{Mnemonic as M, OpKind};

use super::Row;
use super::sse::{
    binary, binary_by, binary_imm, compare, compare_strings, from_integer, ptest, set_test_flags,
    shift, to_integer, unary, unary_imm, unary_shift, whole,
};
use crate::ir::{Cmp, Code, FlagKind, Ir, Lane, Round, Type, Value};
use crate::x86::helpers::Software;
use crate::x86::lift::Lift;
use crate::x86::vectors::Vector;

pub const ROWS: &[Row] = &[
    (M::Vpand, |l| binary(l, Lane::And)),
    (M::Vpandn, |l| binary(l, Lane::AndNot)),
    (M::Vpor, |l| binary(l, Lane::Or)),
    (M::Vpxor, |l| binary(l, Lane::Xor)),
    (M::Vandps, |l| binary(l, Lane::And)),
    (M::Vandpd, |l| binary(l, Lane::And)),
    (M::Vandnps, |l| binary(l, Lane::AndNot)),
    (M::Vandnpd, |l| binary(l, Lane::AndNot)),
    (M::Vorps, |l| binary(l, Lane::Or)),
    (M::Vorpd, |l| binary(l, Lane::Or)),
    (M::Vxorps, |l| binary(l, Lane::Xor)),
    (M::Vxorpd, |l| binary(l, Lane::Xor)),
    (M::Vpaddb, |l| binary(l, Lane::Add8)),
    (M::Vpaddw, |l| binary(l, Lane::Add16)),
    (M::Vpaddd, |l| binary(l, Lane::Add32)),
    (M::Vpaddq, |l| binary(l, Lane::Add64)),
    (M::Vpsubb, |l| binary(l, Lane::Sub8)),
    (M::Vpsubw, |l| binary(l, Lane::Sub16)),
    (M::Vpsubd, |l| binary(l, Lane::Sub32)),
    (M::Vpsubq, |l| binary(l, Lane::Sub64)),
    (M::Vpaddsb, |l| binary(l, Lane::AddSatS8)),
    (M::Vpaddsw, |l| binary(l, Lane::AddSatS16)),
    (M::Vpaddusb, |l| binary(l, Lane::AddSatU8)),
    (M::Vpaddusw, |l| binary(l, Lane::AddSatU16)),
    (M::Vpsubsb, |l| binary(l, Lane::SubSatS8)),
    (M::Vpsubsw, |l| binary(l, Lane::SubSatS16)),
    (M::Vpsubusb, |l| binary(l, Lane::SubSatU8)),
    (M::Vpsubusw, |l| binary(l, Lane::SubSatU16)),
    (M::Vpavgb, |l| binary(l, Lane::AvgU8)),
    (M::Vpavgw, |l| binary(l, Lane::AvgU16)),
    (M::Vpsadbw, |l| binary(l, Lane::SumAbsDiff)),
    (M::Vpmullw, |l| binary(l, Lane::Mul16)),
    (M::Vpmulld, |l| binary(l, Lane::Mul32)),
    (M::Vpmulhw, |l| binary(l, Lane::MulHiS16)),
    (M::Vpmulhuw, |l| binary(l, Lane::MulHiU16)),
    (M::Vpmulhrsw, |l| binary(l, Lane::MulRound16)),
    (M::Vpmuludq, |l| binary(l, Lane::MulWideU32)),
    (M::Vpmuldq, |l| binary(l, Lane::MulWideS32)),
    (M::Vpmaddwd, |l| binary(l, Lane::MulAdd16)),
    (M::Vpmaddubsw, |l| binary(l, Lane::MulAddU8S8)),
    (M::Vpsignb, |l| binary(l, Lane::Sign8)),
    (M::Vpsignw, |l| binary(l, Lane::Sign16)),
    (M::Vpsignd, |l| binary(l, Lane::Sign32)),
    (M::Vpminsb, |l| binary(l, Lane::MinS8)),
    (M::Vpminsw, |l| binary(l, Lane::MinS16)),
    (M::Vpminsd, |l| binary(l, Lane::MinS32)),
    (M::Vpminub, |l| binary(l, Lane::MinU8)),
    (M::Vpminuw, |l| binary(l, Lane::MinU16)),
    (M::Vpminud, |l| binary(l, Lane::MinU32)),
    (M::Vpmaxsb, |l| binary(l, Lane::MaxS8)),
    (M::Vpmaxsw, |l| binary(l, Lane::MaxS16)),
    (M::Vpmaxsd, |l| binary(l, Lane::MaxS32)),
    (M::Vpmaxub, |l| binary(l, Lane::MaxU8)),
    (M::Vpmaxuw, |l| binary(l, Lane::MaxU16)),
    (M::Vpmaxud, |l| binary(l, Lane::MaxU32)),
    (M::Vpcmpeqb, |l| binary(l, Lane::Eq8)),
    (M::Vpcmpeqw, |l| binary(l, Lane::Eq16)),
    (M::Vpcmpeqd, |l| binary(l, Lane::Eq32)),
    (M::Vpcmpeqq, |l| binary(l, Lane::Eq64)),
    (M::Vpcmpgtb, |l| binary(l, Lane::GtS8)),
    (M::Vpcmpgtw, |l| binary(l, Lane::GtS16)),
    (M::Vpcmpgtd, |l| binary(l, Lane::GtS32)),
    (M::Vpcmpgtq, |l| binary(l, Lane::GtS64)),
    (M::Vphaddw, |l| whole(l, Lane::HAdd16)),
    (M::Vphaddd, |l| whole(l, Lane::HAdd32)),
    (M::Vphaddsw, |l| whole(l, Lane::HAddSat16)),
    (M::Vphsubw, |l| whole(l, Lane::HSub16)),
    (M::Vphsubd, |l| whole(l, Lane::HSub32)),
    (M::Vphsubsw, |l| whole(l, Lane::HSubSat16)),
    (M::Vpunpcklbw, |l| whole(l, Lane::ZipLo8)),
    (M::Vpunpcklwd, |l| whole(l, Lane::ZipLo16)),
    (M::Vpunpckldq, |l| whole(l, Lane::ZipLo32)),
    (M::Vpunpcklqdq, |l| whole(l, Lane::ZipLo64)),
    (M::Vpunpckhbw, |l| whole(l, Lane::ZipHi8)),
    (M::Vpunpckhwd, |l| whole(l, Lane::ZipHi16)),
    (M::Vpunpckhdq, |l| whole(l, Lane::ZipHi32)),
    (M::Vpunpckhqdq, |l| whole(l, Lane::ZipHi64)),
    (M::Vunpcklps, |l| whole(l, Lane::ZipLo32)),
    (M::Vunpckhps, |l| whole(l, Lane::ZipHi32)),
    (M::Vunpcklpd, |l| whole(l, Lane::ZipLo64)),
    (M::Vunpckhpd, |l| whole(l, Lane::ZipHi64)),
    (M::Vpacksswb, |l| whole(l, Lane::NarrowS16S8)),
    (M::Vpackssdw, |l| whole(l, Lane::NarrowS32S16)),
    (M::Vpackuswb, |l| whole(l, Lane::NarrowS16U8)),
    (M::Vpackusdw, |l| whole(l, Lane::NarrowS32U16)),
    (M::Vpshufb, |l| whole(l, Lane::Shuffle8)),
    (M::Vaddps, |l| whole(l, Lane::FAdd32)),
    (M::Vaddpd, |l| whole(l, Lane::FAdd64)),
    (M::Vsubps, |l| whole(l, Lane::FSub32)),
    (M::Vsubpd, |l| whole(l, Lane::FSub64)),
    (M::Vmulps, |l| whole(l, Lane::FMul32)),
    (M::Vmulpd, |l| whole(l, Lane::FMul64)),
    (M::Vdivps, |l| whole(l, Lane::FDiv32)),
    (M::Vdivpd, |l| whole(l, Lane::FDiv64)),
    (M::Vminps, |l| whole(l, Lane::FMin32)),
    (M::Vminpd, |l| whole(l, Lane::FMin64)),
    (M::Vmaxps, |l| whole(l, Lane::FMax32)),
    (M::Vmaxpd, |l| whole(l, Lane::FMax64)),
    (M::Vaddsubps, |l| whole(l, Lane::FAddSub32)),
    (M::Vaddsubpd, |l| whole(l, Lane::FAddSub64)),
    (M::Vhaddps, |l| whole(l, Lane::FHAdd32)),
    (M::Vhaddpd, |l| whole(l, Lane::FHAdd64)),
    (M::Vhsubps, |l| whole(l, Lane::FHSub32)),
    (M::Vhsubpd, |l| whole(l, Lane::FHSub64)),
    (M::Vaddss, |l| whole(l, Lane::FAddLow32)),
    (M::Vaddsd, |l| whole(l, Lane::FAddLow64)),
    (M::Vsubss, |l| whole(l, Lane::FSubLow32)),
    (M::Vsubsd, |l| whole(l, Lane::FSubLow64)),
    (M::Vmulss, |l| whole(l, Lane::FMulLow32)),
    (M::Vmulsd, |l| whole(l, Lane::FMulLow64)),
    (M::Vdivss, |l| whole(l, Lane::FDivLow32)),
    (M::Vdivsd, |l| whole(l, Lane::FDivLow64)),
    (M::Vminss, |l| whole(l, Lane::FMinLow32)),
    (M::Vminsd, |l| whole(l, Lane::FMinLow64)),
    (M::Vmaxss, |l| whole(l, Lane::FMaxLow32)),
    (M::Vmaxsd, |l| whole(l, Lane::FMaxLow64)),
    (M::Vsqrtss, |l| whole(l, Lane::FSqrtLow32)),
    (M::Vsqrtsd, |l| whole(l, Lane::FSqrtLow64)),
    (M::Vrcpss, |l| whole(l, Lane::FReciprocalLow32)),
    (M::Vrsqrtss, |l| whole(l, Lane::FReciprocalSqrtLow32)),
    (M::Vcvtss2sd, |l| whole(l, Lane::FConvertLow32to64)),
    (M::Vcvtsd2ss, |l| whole(l, Lane::FConvertLow64to32)),
    (M::Vaesenc, |l| by_halves(l, Lane::AesEnc)),
    (M::Vaesenclast, |l| by_halves(l, Lane::AesEncLast)),
    (M::Vaesdec, |l| by_halves(l, Lane::AesDec)),
    (M::Vaesdeclast, |l| by_halves(l, Lane::AesDecLast)),
    (M::Vpabsb, |l| unary(l, Lane::Abs8)),
    (M::Vpabsw, |l| unary(l, Lane::Abs16)),
    (M::Vpabsd, |l| unary(l, Lane::Abs32)),
    (M::Vphminposuw, |l| unary(l, Lane::HMinU16)),
    (M::Vsqrtps, |l| unary(l, Lane::FSqrt32)),
    (M::Vsqrtpd, |l| unary(l, Lane::FSqrt64)),
    (M::Vrcpps, |l| unary(l, Lane::FReciprocal32)),
    (M::Vrsqrtps, |l| unary(l, Lane::FReciprocalSqrt32)),
    (M::Vcvtdq2ps, |l| unary(l, Lane::FFrom32)),
    (M::Vcvtdq2pd, |l| widen(l, Lane::FFromLow32to64, 8)),
    (M::Vcvtps2dq, |l| unary(l, Lane::FTo32)),
    (M::Vcvttps2dq, |l| unary(l, Lane::FToZero32)),
    (M::Vcvtpd2dq, |l| narrow(l, Lane::F64To32)),
    (M::Vcvttpd2dq, |l| narrow(l, Lane::F64ToZero32)),
    (M::Vcvtps2pd, |l| widen(l, Lane::F32To64, 8)),
    (M::Vcvtpd2ps, |l| narrow(l, Lane::F64ToF32)),
    (M::Vmovsldup, |l| unary(l, Lane::DupLo32)),
    (M::Vmovshdup, |l| unary(l, Lane::DupHi32)),
    (M::Vmovddup, |l| unary(l, Lane::DupLo64)),
    (M::Vpmovsxbw, |l| widen(l, Lane::WidenS8, 8)),
    (M::Vpmovsxbd, |l| widen(l, Lane::WidenS8to32, 4)),
    (M::Vpmovsxbq, |l| widen(l, Lane::WidenS8to64, 2)),
    (M::Vpmovsxwd, |l| widen(l, Lane::WidenS16, 8)),
    (M::Vpmovsxwq, |l| widen(l, Lane::WidenS16to64, 4)),
    (M::Vpmovsxdq, |l| widen(l, Lane::WidenS32, 8)),
    (M::Vpmovzxbw, |l| widen(l, Lane::WidenU8, 8)),
    (M::Vpmovzxbd, |l| widen(l, Lane::WidenU8to32, 4)),
    (M::Vpmovzxbq, |l| widen(l, Lane::WidenU8to64, 2)),
    (M::Vpmovzxwd, |l| widen(l, Lane::WidenU16, 8)),
    (M::Vpmovzxwq, |l| widen(l, Lane::WidenU16to64, 4)),
    (M::Vpmovzxdq, |l| widen(l, Lane::WidenU32, 8)),
    (M::Vaesimc, |l| unary(l, Lane::AesInvMixColumns)),
    (M::Vshufps, |l| binary_imm(l, Lane::ShuffleF32)),
    (M::Vshufpd, |l| binary_imm(l, Lane::ShuffleF64)),
    (M::Vpalignr, |l| binary_imm(l, Lane::AlignBytes)),
    (M::Vpblendw, |l| binary_imm(l, Lane::BlendImm16)),
    (M::Vblendps, |l| binary_imm(l, Lane::BlendImm32)),
    (M::Vblendpd, |l| binary_imm(l, Lane::BlendImm64)),
    (M::Vmpsadbw, |l| binary_imm(l, Lane::MultiSumAbsDiff)),
    (M::Vdpps, |l| binary_imm(l, Lane::FDot32)),
    (M::Vdppd, |l| binary_imm(l, Lane::FDot64)),
    (M::Vroundss, |l| binary_imm(l, Lane::FRoundLow32)),
    (M::Vroundsd, |l| binary_imm(l, Lane::FRoundLow64)),
    (M::Vpclmulqdq, |l| by_halves(l, Lane::ClMul)),
    (M::Vpshufd, |l| unary_imm(l, Lane::Shuffle32)),
    (M::Vpshuflw, |l| unary_imm(l, Lane::ShuffleLo16)),
    (M::Vpshufhw, |l| unary_imm(l, Lane::ShuffleHi16)),
    (M::Vroundps, |l| unary_imm(l, Lane::FRound32)),
    (M::Vroundpd, |l| unary_imm(l, Lane::FRound64)),
    (M::Vaeskeygenassist, |l| unary_imm(l, Lane::AesKeygen)),
    (M::Vpsllw, |l| shift(l, Lane::Shl16, Lane::Shl16By)),
    (M::Vpslld, |l| shift(l, Lane::Shl32, Lane::Shl32By)),
    (M::Vpsllq, |l| shift(l, Lane::Shl64, Lane::Shl64By)),
    (M::Vpsrlw, |l| shift(l, Lane::ShrU16, Lane::ShrU16By)),
    (M::Vpsrld, |l| shift(l, Lane::ShrU32, Lane::ShrU32By)),
    (M::Vpsrlq, |l| shift(l, Lane::ShrU64, Lane::ShrU64By)),
    (M::Vpsraw, |l| shift(l, Lane::ShrS16, Lane::ShrS16By)),
    (M::Vpsrad, |l| shift(l, Lane::ShrS32, Lane::ShrS32By)),
    (M::Vpslldq, |l| unary_shift(l, Lane::ShlBytes)),
    (M::Vpsrldq, |l| unary_shift(l, Lane::ShrBytes)),
    (M::Vcomiss, |l| compare(l, Type::F32, FlagKind::FpCompareSignal)),
    (M::Vcomisd, |l| compare(l, Type::F64, FlagKind::FpCompareSignal)),
    (M::Vucomiss, |l| compare(l, Type::F32, FlagKind::FpCompare)),
    (M::Vucomisd, |l| compare(l, Type::F64, FlagKind::FpCompare)),
    (M::Vptest, ptest),
    (M::Vcvtsi2ss, |l| from_integer(l, Type::F32)),
    (M::Vcvtsi2sd, |l| from_integer(l, Type::F64)),
    (M::Vcvtss2si, |l| to_integer(l, Type::F32, Round::Dynamic)),
    (M::Vcvtsd2si, |l| to_integer(l, Type::F64, Round::Dynamic)),
    (M::Vcvttss2si, |l| to_integer(l, Type::F32, Round::Zero)),
    (M::Vcvttsd2si, |l| to_integer(l, Type::F64, Round::Zero)),
    (M::Vpcmpistri, |l| compare_strings(l, false, false)),
    (M::Vpcmpistrm, |l| compare_strings(l, false, true)),
    (M::Vpcmpestri, |l| compare_strings(l, true, false)),
    (M::Vpcmpestrm, |l| compare_strings(l, true, true)),
    (M::Vpcmpestri64, |l| compare_strings(l, true, false)),
    (M::Vpcmpestrm64, |l| compare_strings(l, true, true)),
    // with more predicates than SSE has
    (M::Vcmpps, |l| compare_lanes(l, Lane::FCompare32)),
    (M::Vcmppd, |l| compare_lanes(l, Lane::FCompare64)),
    (M::Vcmpss, |l| compare_lanes(l, Lane::FCompareLow32)),
    (M::Vcmpsd, |l| compare_lanes(l, Lane::FCompareLow64)),
    // blends by a register
    (M::Vpblendvb, |l| blend(l, Lane::Blend8)),
    (M::Vblendvps, |l| blend(l, Lane::Blend32)),
    (M::Vblendvpd, |l| blend(l, Lane::Blend64)),
    (M::Vpblendd, |l| binary_imm(l, Lane::BlendImm32)),
    // tests of signs
    (M::Vtestps, |l| test_signs(l, Lane::Test32, Lane::Mask32)),
    (M::Vtestpd, |l| test_signs(l, Lane::Test64, Lane::Mask64)),
    // shifts of each lane by its own count
    (M::Vpsllvd, |l| each(l, Lane::ShlEach32, Software::ShlEach32)),
    (M::Vpsllvq, |l| each(l, Lane::ShlEach64, Software::ShlEach64)),
    (M::Vpsrlvd, |l| each(l, Lane::ShrUEach32, Software::ShrUEach32)),
    (M::Vpsrlvq, |l| each(l, Lane::ShrUEach64, Software::ShrUEach64)),
    (M::Vpsravd, |l| each(l, Lane::ShrSEach32, Software::ShrSEach32)),
    // permutations
    (M::Vpermilps, |l| permute_in_halves(l, Type::F32)),
    (M::Vpermilpd, |l| permute_in_halves(l, Type::F64)),
    (M::Vpermd, permute_words),
    (M::Vpermps, permute_words),
    (M::Vpermq, permute_quarters),
    (M::Vpermpd, permute_quarters),
    (M::Vperm2f128, permute_halves),
    (M::Vperm2i128, permute_halves),
    // half precision
    (M::Vcvtph2ps, from_half),
    (M::Vcvtps2ph, to_half),
];

/// What hosts have for 128 bits: 256 are done in halves.
fn by_halves(l: &mut Lift, lane: Lane) {
    let imm = if lane == Lane::ClMul { l.insn.immediate8() } else { 0 };
    binary_by(l, |ir, a, b| {
        if ir.ty(a) != Type::V256 {
            return ir.lanes2_imm(lane, a, b, imm);
        }
        let halves = |ir: &mut Ir, value| [ir.low_half(value), ir.high_half(value)];
        let ([a, above_a], [b, above_b]) = (halves(ir, a), halves(ir, b));
        let low = ir.lanes2_imm(lane, a, b, imm);
        let high = ir.lanes2_imm(lane, above_a, above_b, imm);
        ir.join(low, high)
    });
}

/// What only VEX has, lane by lane: on hosts without by helper.
fn each(l: &mut Lift, lane: Lane, software: Software) {
    if l.host.wide {
        return binary(l, lane);
    }
    l.in_software(software, [1, 2], 0);
}

/// From a vector half as wide as the result; the upper half of the result is made of what lies
/// `bytes` further on.
fn widen(l: &mut Lift, lane: Lane, bytes: u8) {
    let value = l.read_vector(1);
    if !l.is_wide(0) {
        let value = l.ir.lanes1(lane, value, 0);
        return l.write_vector(0, value);
    }
    let result = if l.host.wide {
        Vector::Wide(l.ir.lanes_as(Type::V256, lane, [value, Value::NONE, Value::NONE], 0))
    } else {
        let above = l.ir.lanes1(Lane::ShrBytes, value, bytes);
        let low = l.ir.lanes1(lane, value, 0);
        Vector::Pair(low, l.ir.lanes1(lane, above, 0))
    };
    l.write_lanes(0, result);
}

/// To a vector half as wide as the source.
fn narrow(l: &mut Lift, lane: Lane) {
    let result = match l.read_lanes(1) {
        Vector::Narrow(value) => l.ir.lanes1(lane, value, 0),
        Vector::Wide(value) => {
            l.ir.lanes_as(Type::V128, lane, [value, Value::NONE, Value::NONE], 0)
        }
        Vector::Pair(low, high) => {
            let low = l.ir.lanes1(lane, low, 0);
            let high = l.ir.lanes1(lane, high, 0);
            l.ir.lanes2(Lane::ZipLo64, low, high)
        }
    };
    l.write_vector(0, result);
}

/// There are 32 predicates; hosts without VEX have the first eight.
fn compare_lanes(l: &mut Lift, lane: Lane) {
    let imm = l.insn.immediate8() & 31;
    if l.host.wide || imm < 8 {
        return binary_by(l, |ir, a, b| ir.lanes2_imm(lane, a, b, imm));
    }
    let software = match lane {
        Lane::FCompare32 => Software::Compare32,
        Lane::FCompare64 => Software::Compare64,
        Lane::FCompareLow32 => Software::CompareLow32,
        _ => Software::CompareLow64,
    };
    l.in_software(software, [1, 2], imm);
}

fn blend(l: &mut Lift, lane: Lane) {
    let (a, b, mask) = (l.read_lanes(1), l.read_lanes(2), l.read_lanes(3));
    let result = match (a, b, mask) {
        (Vector::Pair(a, above_a), Vector::Pair(b, above_b), Vector::Pair(mask, above_mask)) => {
            let low = l.ir.lanes3(lane, a, b, mask);
            Vector::Pair(low, l.ir.lanes3(lane, above_a, above_b, above_mask))
        }
        (a, b, Vector::Narrow(mask) | Vector::Wide(mask)) => {
            a.zip(l.ir, b, |ir, a, b| ir.lanes3(lane, a, b, mask))
        }
        (_, b, _) => b,
    };
    l.write_lanes(0, result);
}

/// Zero and carry as PTEST sets them, of the signs of lanes.
fn test_signs(l: &mut Lift, lane: Lane, signs: Lane) {
    let (a, b) = (l.read_lanes(0), l.read_lanes(1));
    if l.host.wide {
        if let Vector::Narrow(bits) | Vector::Wide(bits) =
            a.zip(l.ir, b, |ir, a, b| ir.lanes2(lane, a, b))
        {
            set_test_flags(l, bits);
        }
        return;
    }
    let bits = [Lane::And, Lane::AndNot].map(|combine| {
        let both = a.zip(l.ir, b, |ir, a, b| ir.lanes2(combine, a, b));
        let (low, high) = both.halves(l.ir);
        let [low, high] = [low, high].map(|half| l.ir.lanes1(signs, half, 0));
        let any = l.ir.alu(Code::Or, low, high);
        let zero = l.ir.imm32(0);
        let none = l.ir.compare(Cmp::Eq, any, zero);
        l.ir.zext(Type::I32, none)
    });
    let carry = l.ir.shl_imm(bits[1], 1);
    let bits = l.ir.alu(Code::Or, bits[0], carry);
    set_test_flags(l, bits);
}

/// VPERMILPS and VPERMILPD, by an immediate or by each lane of a register.
fn permute_in_halves(l: &mut Lift, ty: Type) {
    let single = ty == Type::F32;
    if l.insn.op_kind(2) != OpKind::Immediate8 {
        return match single {
            true => each(l, Lane::PermuteEachF32, Software::PermuteEachF32),
            false => each(l, Lane::PermuteEachF64, Software::PermuteEachF64),
        };
    }
    let mut imm = l.insn.immediate8();
    let wide = l.host.wide;
    let value = l.read_lanes(1).map(l.ir, |ir, a| match (wide, single) {
        (true, true) => ir.lanes1(Lane::PermuteF32, a, imm),
        (true, false) => ir.lanes1(Lane::PermuteF64, a, imm),
        (false, true) => ir.lanes2_imm(Lane::ShuffleF32, a, a, imm),
        (false, false) => {
            let now = imm & 3;
            imm >>= 2;
            ir.lanes2_imm(Lane::ShuffleF64, a, a, now)
        }
    });
    l.write_lanes(0, value);
}

/// VPERMD and VPERMPS: words of the second source chosen by the first.
fn permute_words(l: &mut Lift) {
    each(l, Lane::PermuteEach32, Software::PermuteEach32);
}

/// VPERMQ and VPERMPD.
fn permute_quarters(l: &mut Lift) {
    let imm = l.insn.immediate8();
    let source = l.read_lanes(1);
    let result = match source {
        Vector::Wide(value) => Vector::Wide(l.ir.lanes1(Lane::Permute64, value, imm)),
        source => {
            let (low, high) = source.halves(l.ir);
            let half_of = |choice: u8| if choice & 2 == 0 { low } else { high };
            let mut pick = |imm: u8| {
                let (first, second) = (imm & 3, imm >> 2 & 3);
                let lanes = first & 1 | (second & 1) << 1;
                l.ir.lanes2_imm(Lane::ShuffleF64, half_of(first), half_of(second), lanes)
            };
            let low = pick(imm);
            Vector::Pair(low, pick(imm >> 4))
        }
    };
    l.write_lanes(0, result);
}

/// VPERM2F128 and VPERM2I128.
fn permute_halves(l: &mut Lift) {
    let imm = l.insn.immediate8();
    let (a, b) = (l.read_lanes(1), l.read_lanes(2));
    let result = match (a, b) {
        (Vector::Wide(a), Vector::Wide(b)) => {
            Vector::Wide(l.ir.lanes2_imm(Lane::Permute2x128, a, b, imm))
        }
        (a, b) => {
            let ((a, above_a), (b, above_b)) = (a.halves(l.ir), b.halves(l.ir));
            let zero = l.ir.constant(Type::V128, 0);
            let pick = |imm: u8| match imm & 0xb {
                0 => a,
                1 => above_a,
                2 => b,
                3 => above_b,
                _ => zero,
            };
            Vector::Pair(pick(imm), pick(imm >> 4))
        }
    };
    l.write_lanes(0, result);
}

fn from_half(l: &mut Lift) {
    if l.host.half {
        return widen(l, Lane::HalfToF32, 8);
    }
    l.in_software(Software::FromHalf, [1, 1], 0);
}

/// To half precision; a store writes half as many bytes as the source has.
fn to_half(l: &mut Lift) {
    let imm = l.insn.immediate8();
    let bytes = l.bytes(1) / 2;
    let result = if l.host.half {
        let source = match l.read_lanes(1) {
            Vector::Narrow(value) | Vector::Wide(value) | Vector::Pair(value, _) => value,
        };
        l.ir.lanes_as(Type::V128, Lane::F32ToHalf, [source, Value::NONE, Value::NONE], imm)
    } else {
        l.in_scratch(Software::ToHalf, [1, 1], imm)
    };
    if !l.is_memory(0) {
        return l.write_vector(0, result);
    }
    let at = l.address();
    if bytes == 16 {
        return l.store(at, result);
    }
    let low = l.ir.lo(result);
    l.store(at, low);
}
