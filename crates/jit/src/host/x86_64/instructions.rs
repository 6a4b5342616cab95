//! Single host instructions as functions, for the interpreter: what the processor itself makes of
//! two operands under an MXCSR. The compiler's own assembler encodes them, so tier 1's encoder and
//! register allocation meet an answer they had no part in.
#![expect(unsafe_code)]
// UNSAFETY: an instruction by its name is inline assembly.

use std::arch::asm;
use std::arch::x86_64::__m128i;
use std::mem::transmute;

use isa::ir::Lane;

/// A meaning: MXCSR, whose sticky bits it may set, and up to three operands.
pub type Instruction = fn(&mut u32, u128, u128, u128) -> u128;

fn vector(value: u128) -> __m128i {
    // SAFETY: both are sixteen bytes for which every pattern is valid.
    unsafe { transmute(value) }
}

fn number(value: __m128i) -> u128 {
    // SAFETY: as for `vector`.
    unsafe { transmute(value) }
}

/// The calling thread's MXCSR.
fn host_control() -> u32 {
    let mut control = 0_u32;
    // SAFETY: stores MXCSR to a place that is valid.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack)) };
    control
}

fn set_host_control(control: u32) {
    // SAFETY: loads MXCSR; what is loaded masks all exceptions.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, readonly)) };
}

/// Does something under the guest's MXCSR: helpers that use the host's FP unit on its behalf.
pub fn under_control<R>(control: &mut u32, act: impl FnOnce() -> R) -> R {
    let host = host_control();
    set_host_control(*control);
    let result = act();
    *control = host_control();
    set_host_control(host);
    result
}

/// A row is a lane operation and its instruction. `x` comes as the first operand and leaves as the
/// result, `y` is the second, `z` (`three`) the third; `mask` has the third in XMM0.
macro_rules! rows {
    ($($lane:ident $form:ident $text:literal;)*) => {
        mod lanes {
            #![allow(non_snake_case, reason = "functions carry the rows' names")]
            use super::*;
            $(instruction!($lane $form $text);)*
        }

        const BY_LANE: [Option<Instruction>; Lane::ALL.len()] = {
            let mut table: [Option<Instruction>; Lane::ALL.len()] = [None; Lane::ALL.len()];
            $(table[Lane::$lane as usize] = Some(lanes::$lane);)*
            table
        };
    };
}

macro_rules! instruction {
    ($name:ident two $text:literal) => {
        #[doc = $text]
        pub fn $name(control: &mut u32, a: u128, b: u128, _: u128) -> u128 {
            let (mut x, y, host) = (vector(a), vector(b), host_control());
            // SAFETY: one instruction on registers; MXCSR is put back.
            unsafe {
                asm!(
                    "ldmxcsr [{control}]", $text, "# {y}", "stmxcsr [{control}]", "ldmxcsr [{host}]",
                    control = in(reg) control, host = in(reg) &raw const host,
                    x = inout(xmm_reg) x, y = in(xmm_reg) y, options(nostack),
                );
            }
            number(x)
        }
    };
    ($name:ident integer $text:literal) => {
        #[doc = $text]
        pub fn $name(control: &mut u32, a: u128, _: u128, _: u128) -> u128 {
            let (mut x, host) = (vector(0), host_control());
            // SAFETY: one instruction on registers; MXCSR is put back.
            unsafe {
                asm!(
                    "ldmxcsr [{control}]", $text, "stmxcsr [{control}]", "ldmxcsr [{host}]",
                    control = in(reg) control, host = in(reg) &raw const host,
                    x = inout(xmm_reg) x, y = in(reg) a as u64, options(nostack),
                );
            }
            number(x)
        }
    };
    ($name:ident three $text:literal) => {
        #[doc = $text]
        pub fn $name(control: &mut u32, a: u128, b: u128, c: u128) -> u128 {
            let (mut x, y, z, host) = (vector(a), vector(b), vector(c), host_control());
            // SAFETY: one instruction on registers; MXCSR is put back.
            unsafe {
                asm!(
                    "ldmxcsr [{control}]", $text, "stmxcsr [{control}]", "ldmxcsr [{host}]",
                    control = in(reg) control, host = in(reg) &raw const host,
                    x = inout(xmm_reg) x, y = in(xmm_reg) y, z = in(xmm_reg) z, options(nostack),
                );
            }
            number(x)
        }
    };
    ($name:ident mask $text:literal) => {
        #[doc = $text]
        pub fn $name(_: &mut u32, a: u128, b: u128, c: u128) -> u128 {
            let (mut x, y, z) = (vector(a), vector(b), vector(c));
            // SAFETY: one instruction on registers.
            unsafe {
                asm!(
                    $text, x = inout(xmm_reg) x, y = in(xmm_reg) y, in("xmm0") z,
                    options(nostack, pure, nomem),
                );
            }
            number(x)
        }
    };
    ($name:ident flags $text:literal) => {
        #[doc = $text]
        pub fn $name(control: &mut u32, a: u128, b: u128, _: u128) -> u128 {
            let (x, y, host) = (vector(a), vector(b), host_control());
            let flags: u64;
            // SAFETY: one comparison; MXCSR is put back and the stack balanced.
            unsafe {
                asm!(
                    "ldmxcsr [{control}]", $text, "pushfq", "pop {flags}",
                    "stmxcsr [{control}]", "ldmxcsr [{host}]",
                    control = in(reg) control, host = in(reg) &raw const host,
                    x = in(xmm_reg) x, y = in(xmm_reg) y, flags = out(reg) flags,
                );
            }
            u128::from(flags)
        }
    };
}

/// The instruction that a lane operation without an immediate is named after.
pub fn of_lane(lane: Lane) -> Option<Instruction> {
    BY_LANE[lane as usize]
}

instruction!(compare_quiet_32 flags "ucomiss {x}, {y}");
instruction!(compare_quiet_64 flags "ucomisd {x}, {y}");
instruction!(compare_signal_32 flags "comiss {x}, {y}");
instruction!(compare_signal_64 flags "comisd {x}, {y}");
instruction!(round_32 two "roundss {x}, {y}, 4");
instruction!(round_64 two "roundsd {x}, {y}, 4");
instruction!(half_of_single two "vcvtps2ph {x}, {x}, 4");
instruction!(single_of_integer integer "cvtsi2ss {x}, {y}");
instruction!(double_of_integer integer "cvtsi2sd {x}, {y}");
instruction!(dot_32 two "dpps {x}, {y}, 0xff");
instruction!(dot_64 two "dppd {x}, {y}, 0x33");
instruction!(aes_key two "aeskeygenassist {x}, {x}, 0");

instruction!(sha1_rounds_0 two "sha1rnds4 {x}, {y}, 0");
instruction!(sha1_rounds_1 two "sha1rnds4 {x}, {y}, 1");
instruction!(sha1_rounds_2 two "sha1rnds4 {x}, {y}, 2");
instruction!(sha1_rounds_3 two "sha1rnds4 {x}, {y}, 3");

/// Four rounds of SHA-1, by what they do.
pub const SHA1_ROUNDS: [Instruction; 4] =
    [sha1_rounds_0, sha1_rounds_1, sha1_rounds_2, sha1_rounds_3];

rows! {
    And two "pand {x}, {y}";
    AndNot two "pandn {x}, {y}";
    Or two "por {x}, {y}";
    Xor two "pxor {x}, {y}";
    Add8 two "paddb {x}, {y}";
    Add16 two "paddw {x}, {y}";
    Add32 two "paddd {x}, {y}";
    Add64 two "paddq {x}, {y}";
    Sub8 two "psubb {x}, {y}";
    Sub16 two "psubw {x}, {y}";
    Sub32 two "psubd {x}, {y}";
    Sub64 two "psubq {x}, {y}";
    AddSatS8 two "paddsb {x}, {y}";
    AddSatS16 two "paddsw {x}, {y}";
    AddSatU8 two "paddusb {x}, {y}";
    AddSatU16 two "paddusw {x}, {y}";
    SubSatS8 two "psubsb {x}, {y}";
    SubSatS16 two "psubsw {x}, {y}";
    SubSatU8 two "psubusb {x}, {y}";
    SubSatU16 two "psubusw {x}, {y}";
    AvgU8 two "pavgb {x}, {y}";
    AvgU16 two "pavgw {x}, {y}";
    HAdd16 two "phaddw {x}, {y}";
    HAdd32 two "phaddd {x}, {y}";
    HAddSat16 two "phaddsw {x}, {y}";
    HSub16 two "phsubw {x}, {y}";
    HSub32 two "phsubd {x}, {y}";
    HSubSat16 two "phsubsw {x}, {y}";
    SumAbsDiff two "psadbw {x}, {y}";
    Mul16 two "pmullw {x}, {y}";
    Mul32 two "pmulld {x}, {y}";
    MulHiS16 two "pmulhw {x}, {y}";
    MulHiU16 two "pmulhuw {x}, {y}";
    MulRound16 two "pmulhrsw {x}, {y}";
    MulWideU32 two "pmuludq {x}, {y}";
    MulWideS32 two "pmuldq {x}, {y}";
    MulAdd16 two "pmaddwd {x}, {y}";
    MulAddU8S8 two "pmaddubsw {x}, {y}";
    Abs8 two "pabsb {x}, {x}";
    Abs16 two "pabsw {x}, {x}";
    Abs32 two "pabsd {x}, {x}";
    Sign8 two "psignb {x}, {y}";
    Sign16 two "psignw {x}, {y}";
    Sign32 two "psignd {x}, {y}";
    MinS8 two "pminsb {x}, {y}";
    MinS16 two "pminsw {x}, {y}";
    MinS32 two "pminsd {x}, {y}";
    MinU8 two "pminub {x}, {y}";
    MinU16 two "pminuw {x}, {y}";
    MinU32 two "pminud {x}, {y}";
    MaxS8 two "pmaxsb {x}, {y}";
    MaxS16 two "pmaxsw {x}, {y}";
    MaxS32 two "pmaxsd {x}, {y}";
    MaxU8 two "pmaxub {x}, {y}";
    MaxU16 two "pmaxuw {x}, {y}";
    MaxU32 two "pmaxud {x}, {y}";
    Eq8 two "pcmpeqb {x}, {y}";
    Eq16 two "pcmpeqw {x}, {y}";
    Eq32 two "pcmpeqd {x}, {y}";
    Eq64 two "pcmpeqq {x}, {y}";
    GtS8 two "pcmpgtb {x}, {y}";
    GtS16 two "pcmpgtw {x}, {y}";
    GtS32 two "pcmpgtd {x}, {y}";
    GtS64 two "pcmpgtq {x}, {y}";
    HMinU16 two "phminposuw {x}, {x}";
    Shl16By two "psllw {x}, {y}";
    Shl32By two "pslld {x}, {y}";
    Shl64By two "psllq {x}, {y}";
    ShrU16By two "psrlw {x}, {y}";
    ShrU32By two "psrld {x}, {y}";
    ShrU64By two "psrlq {x}, {y}";
    ShrS16By two "psraw {x}, {y}";
    ShrS32By two "psrad {x}, {y}";
    ShlEach32 two "vpsllvd {x}, {x}, {y}";
    ShlEach64 two "vpsllvq {x}, {x}, {y}";
    ShrUEach32 two "vpsrlvd {x}, {x}, {y}";
    ShrUEach64 two "vpsrlvq {x}, {x}, {y}";
    ShrSEach32 two "vpsravd {x}, {x}, {y}";
    ZipLo8 two "punpcklbw {x}, {y}";
    ZipLo16 two "punpcklwd {x}, {y}";
    ZipLo32 two "punpckldq {x}, {y}";
    ZipLo64 two "punpcklqdq {x}, {y}";
    ZipHi8 two "punpckhbw {x}, {y}";
    ZipHi16 two "punpckhwd {x}, {y}";
    ZipHi32 two "punpckhdq {x}, {y}";
    ZipHi64 two "punpckhqdq {x}, {y}";
    Shuffle8 two "pshufb {x}, {y}";
    Blend8 mask "pblendvb {x}, {y}";
    Blend32 mask "blendvps {x}, {y}";
    Blend64 mask "blendvpd {x}, {y}";
    DupLo32 two "movsldup {x}, {x}";
    DupHi32 two "movshdup {x}, {x}";
    DupLo64 two "movddup {x}, {x}";
    NarrowS16S8 two "packsswb {x}, {y}";
    NarrowS32S16 two "packssdw {x}, {y}";
    NarrowS16U8 two "packuswb {x}, {y}";
    NarrowS32U16 two "packusdw {x}, {y}";
    WidenS8 two "pmovsxbw {x}, {x}";
    WidenS8to32 two "pmovsxbd {x}, {x}";
    WidenS8to64 two "pmovsxbq {x}, {x}";
    WidenS16 two "pmovsxwd {x}, {x}";
    WidenS16to64 two "pmovsxwq {x}, {x}";
    WidenS32 two "pmovsxdq {x}, {x}";
    WidenU8 two "pmovzxbw {x}, {x}";
    WidenU8to32 two "pmovzxbd {x}, {x}";
    WidenU8to64 two "pmovzxbq {x}, {x}";
    WidenU16 two "pmovzxwd {x}, {x}";
    WidenU16to64 two "pmovzxwq {x}, {x}";
    WidenU32 two "pmovzxdq {x}, {x}";
    FAdd32 two "addps {x}, {y}";
    FAdd64 two "addpd {x}, {y}";
    FSub32 two "subps {x}, {y}";
    FSub64 two "subpd {x}, {y}";
    FMul32 two "mulps {x}, {y}";
    FMul64 two "mulpd {x}, {y}";
    FDiv32 two "divps {x}, {y}";
    FDiv64 two "divpd {x}, {y}";
    FMin32 two "minps {x}, {y}";
    FMin64 two "minpd {x}, {y}";
    FMax32 two "maxps {x}, {y}";
    FMax64 two "maxpd {x}, {y}";
    FSqrt32 two "sqrtps {x}, {x}";
    FSqrt64 two "sqrtpd {x}, {x}";
    FReciprocal32 two "rcpps {x}, {x}";
    FReciprocalSqrt32 two "rsqrtps {x}, {x}";
    FAddSub32 two "addsubps {x}, {y}";
    FAddSub64 two "addsubpd {x}, {y}";
    FHAdd32 two "haddps {x}, {y}";
    FHAdd64 two "haddpd {x}, {y}";
    FHSub32 two "hsubps {x}, {y}";
    FHSub64 two "hsubpd {x}, {y}";
    FFrom32 two "cvtdq2ps {x}, {x}";
    FFromLow32to64 two "cvtdq2pd {x}, {x}";
    FTo32 two "cvtps2dq {x}, {x}";
    FToZero32 two "cvttps2dq {x}, {x}";
    F64To32 two "cvtpd2dq {x}, {x}";
    F64ToZero32 two "cvttpd2dq {x}, {x}";
    F32To64 two "cvtps2pd {x}, {x}";
    F64ToF32 two "cvtpd2ps {x}, {x}";
    HalfToF32 two "vcvtph2ps {x}, {x}";
    FAddLow32 two "addss {x}, {y}";
    FAddLow64 two "addsd {x}, {y}";
    FSubLow32 two "subss {x}, {y}";
    FSubLow64 two "subsd {x}, {y}";
    FMulLow32 two "mulss {x}, {y}";
    FMulLow64 two "mulsd {x}, {y}";
    FDivLow32 two "divss {x}, {y}";
    FDivLow64 two "divsd {x}, {y}";
    FMinLow32 two "minss {x}, {y}";
    FMinLow64 two "minsd {x}, {y}";
    FMaxLow32 two "maxss {x}, {y}";
    FMaxLow64 two "maxsd {x}, {y}";
    FSqrtLow32 two "sqrtss {x}, {y}";
    FSqrtLow64 two "sqrtsd {x}, {y}";
    FReciprocalLow32 two "rcpss {x}, {y}";
    FReciprocalSqrtLow32 two "rsqrtss {x}, {y}";
    FConvertLow32to64 two "cvtss2sd {x}, {y}";
    FConvertLow64to32 two "cvtsd2ss {x}, {y}";
    MoveLow32 two "movss {x}, {y}";
    MoveLow64 two "movsd {x}, {y}";
    FMulAdd32 three "vfmadd213ps {x}, {y}, {z}";
    FMulAdd64 three "vfmadd213pd {x}, {y}, {z}";
    FMulSub32 three "vfmsub213ps {x}, {y}, {z}";
    FMulSub64 three "vfmsub213pd {x}, {y}, {z}";
    FNegMulAdd32 three "vfnmadd213ps {x}, {y}, {z}";
    FNegMulAdd64 three "vfnmadd213pd {x}, {y}, {z}";
    FNegMulSub32 three "vfnmsub213ps {x}, {y}, {z}";
    FNegMulSub64 three "vfnmsub213pd {x}, {y}, {z}";
    FMulAddSub32 three "vfmaddsub213ps {x}, {y}, {z}";
    FMulAddSub64 three "vfmaddsub213pd {x}, {y}, {z}";
    FMulSubAdd32 three "vfmsubadd213ps {x}, {y}, {z}";
    FMulSubAdd64 three "vfmsubadd213pd {x}, {y}, {z}";
    FMulAddLow32 three "vfmadd213ss {x}, {y}, {z}";
    FMulAddLow64 three "vfmadd213sd {x}, {y}, {z}";
    FMulSubLow32 three "vfmsub213ss {x}, {y}, {z}";
    FMulSubLow64 three "vfmsub213sd {x}, {y}, {z}";
    FNegMulAddLow32 three "vfnmadd213ss {x}, {y}, {z}";
    FNegMulAddLow64 three "vfnmadd213sd {x}, {y}, {z}";
    FNegMulSubLow32 three "vfnmsub213ss {x}, {y}, {z}";
    FNegMulSubLow64 three "vfnmsub213sd {x}, {y}, {z}";
    AesEnc two "aesenc {x}, {y}";
    AesEncLast two "aesenclast {x}, {y}";
    AesDec two "aesdec {x}, {y}";
    AesDecLast two "aesdeclast {x}, {y}";
    AesInvMixColumns two "aesimc {x}, {x}";
    Sha1NextE two "sha1nexte {x}, {y}";
    Sha1Message1 two "sha1msg1 {x}, {y}";
    Sha1Message2 two "sha1msg2 {x}, {y}";
    Sha256Rounds mask "sha256rnds2 {x}, {y}";
    Sha256Message1 two "sha256msg1 {x}, {y}";
    Sha256Message2 two "sha256msg2 {x}, {y}";
    PermuteEachF32 two "vpermilps {x}, {x}, {y}";
    PermuteEachF64 two "vpermilpd {x}, {x}, {y}";
}
