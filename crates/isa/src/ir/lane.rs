//! The lane operations: SIMD as a table.
//!
//! A row names an operation on whole vectors, its operands, and the host instruction that has this
//! very meaning (a VEX encoding; without AVX the back end uses the two-operand form). The meaning
//! of a row is that of the x86 instruction, per 128-bit half in a `V256` (rows that change widths or
//! cross halves have operand and result types as the instruction has: `Ir::lanes_as`). Guests compose the rest
//! (NEON's pairwise operations, widening multiplications, ...) from rows; x86's own rare ones are
//! simply further rows. A row needs no other change than its line here and one in `jit`'s
//! interpreter.

use super::types::Type;

/// The operands of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Form {
    /// `op(a)`.
    Unary,
    /// `op(a)` with an 8-bit immediate in `c`.
    UnaryImm,
    /// `op(a, b)`.
    Binary,
    /// `op(a, b)` with an 8-bit immediate in `c`.
    BinaryImm,
    /// `op(a, b, c)`: blend `a`, `b` by mask `c`.
    Ternary,
    /// `a * b + c` and its relatives: host FMA.
    Fma,
    /// `op(a)` shifted by the constant in `c`: opcode group with `/digit`.
    ShiftImm(u8),
    /// `op(a)` giving an `I32` mask in a general register; of two operands: `op(a, b)`.
    Mask,
    /// As `UnaryImm`; the host instruction has its source where others have their result.
    UnaryImmReversed,
}

/// The host instruction of a row: prefix (0, 0x66, 0xf3, 0xf2), map (1, 2, 3), opcode, VEX.W.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Encoding {
    /// Mandatory prefix.
    pub prefix: u8,
    /// Opcode map: 1 = 0f, 2 = 0f 38, 3 = 0f 3a.
    pub map: u8,
    /// Opcode byte.
    pub opcode: u8,
    /// VEX.W.
    pub w: bool,
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneRow {
    /// The name in listings: the host's mnemonic.
    pub name: &'static str,
    /// Operands.
    pub form: Form,
    /// The host instruction.
    pub encoding: Encoding,
    /// The widest type for which the row exists on an AVX2 host.
    pub widest: Type,
    /// `a` and `b` may be exchanged.
    pub commutes: bool,
    /// The host has the two-operand form only.
    pub legacy: bool,
}

macro_rules! lanes {
    ($($lane:ident $name:literal $form:tt $prefix:literal $map:literal $opcode:literal $flags:literal;)*) => {
        /// Lane operations, named after the host instruction whose meaning they have.
        #[allow(missing_docs, reason = "the name in the table is the documentation")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum Lane { $($lane),* }

        impl Lane {
            /// Every operation, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$lane),*];
        }

        const ROWS: &[LaneRow] = &[$(LaneRow {
            name: $name,
            form: lanes!($form),
            encoding: Encoding {
                prefix: $prefix, map: $map, opcode: $opcode, w: has($flags, b'w'),
            },
            widest: if has($flags, b'x') { Type::V128 } else { Type::V256 },
            commutes: has($flags, b'c'),
            legacy: has($flags, b'l'),
        }),*];
    };
    (u) => { Form::Unary };
    (ui) => { Form::UnaryImm };
    (b) => { Form::Binary };
    (bi) => { Form::BinaryImm };
    (t) => { Form::Ternary };
    (f) => { Form::Fma };
    (s2) => { Form::ShiftImm(2) };
    (s3) => { Form::ShiftImm(3) };
    (s4) => { Form::ShiftImm(4) };
    (s6) => { Form::ShiftImm(6) };
    (s7) => { Form::ShiftImm(7) };
    (m) => { Form::Mask };
    (ur) => { Form::UnaryImmReversed };
}

/// Flags of a row: `c` commutes, `w` VEX.W, `x` 128 bits only, `l` no VEX form.
const fn has(flags: &str, letter: u8) -> bool {
    let (flags, mut i) = (flags.as_bytes(), 0);
    while i < flags.len() {
        if flags[i] == letter {
            return true;
        }
        i += 1;
    }
    false
}

impl Lane {
    /// The row.
    pub const fn row(self) -> &'static LaneRow {
        &ROWS[self as usize]
    }

    /// The operation in a `Lanes` operation's `aux`.
    pub const fn from_aux(aux: u16) -> Self {
        Self::ALL[aux as usize]
    }
}

// name   mnemonic   form prefix map opcode flags
lanes! {
    // bitwise
    And "pand" b 0x66 1 0xdb "c";
    AndNot "pandn" b 0x66 1 0xdf ""; // !a & b
    Or "por" b 0x66 1 0xeb "c";
    Xor "pxor" b 0x66 1 0xef "c";
    Test "ptest" m 0x66 2 0x17 ""; // (a & b == 0) | (!a & b == 0) << 1
    Test32 "vtestps" m 0x66 2 0x0e ""; // of the sign bits
    Test64 "vtestpd" m 0x66 2 0x0f "";
    // integer sums
    Add8 "paddb" b 0x66 1 0xfc "c";
    Add16 "paddw" b 0x66 1 0xfd "c";
    Add32 "paddd" b 0x66 1 0xfe "c";
    Add64 "paddq" b 0x66 1 0xd4 "c";
    Sub8 "psubb" b 0x66 1 0xf8 "";
    Sub16 "psubw" b 0x66 1 0xf9 "";
    Sub32 "psubd" b 0x66 1 0xfa "";
    Sub64 "psubq" b 0x66 1 0xfb "";
    AddSatS8 "paddsb" b 0x66 1 0xec "c";
    AddSatS16 "paddsw" b 0x66 1 0xed "c";
    AddSatU8 "paddusb" b 0x66 1 0xdc "c";
    AddSatU16 "paddusw" b 0x66 1 0xdd "c";
    SubSatS8 "psubsb" b 0x66 1 0xe8 "";
    SubSatS16 "psubsw" b 0x66 1 0xe9 "";
    SubSatU8 "psubusb" b 0x66 1 0xd8 "";
    SubSatU16 "psubusw" b 0x66 1 0xd9 "";
    AvgU8 "pavgb" b 0x66 1 0xe0 "c";
    AvgU16 "pavgw" b 0x66 1 0xe3 "c";
    HAdd16 "phaddw" b 0x66 2 0x01 "";
    HAdd32 "phaddd" b 0x66 2 0x02 "";
    HAddSat16 "phaddsw" b 0x66 2 0x03 "";
    HSub16 "phsubw" b 0x66 2 0x05 "";
    HSub32 "phsubd" b 0x66 2 0x06 "";
    HSubSat16 "phsubsw" b 0x66 2 0x07 "";
    SumAbsDiff "psadbw" b 0x66 1 0xf6 "c";
    MultiSumAbsDiff "mpsadbw" bi 0x66 3 0x42 "";
    // integer products
    Mul16 "pmullw" b 0x66 1 0xd5 "c";
    Mul32 "pmulld" b 0x66 2 0x40 "c";
    MulHiS16 "pmulhw" b 0x66 1 0xe5 "c";
    MulHiU16 "pmulhuw" b 0x66 1 0xe4 "c";
    MulRound16 "pmulhrsw" b 0x66 2 0x0b "c";
    MulWideU32 "pmuludq" b 0x66 1 0xf4 "c";
    MulWideS32 "pmuldq" b 0x66 2 0x28 "c";
    MulAdd16 "pmaddwd" b 0x66 1 0xf5 "c";
    MulAddU8S8 "pmaddubsw" b 0x66 2 0x04 "";
    // signs, minima, comparisons
    Abs8 "pabsb" u 0x66 2 0x1c "";
    Abs16 "pabsw" u 0x66 2 0x1d "";
    Abs32 "pabsd" u 0x66 2 0x1e "";
    Sign8 "psignb" b 0x66 2 0x08 "";
    Sign16 "psignw" b 0x66 2 0x09 "";
    Sign32 "psignd" b 0x66 2 0x0a "";
    MinS8 "pminsb" b 0x66 2 0x38 "c";
    MinS16 "pminsw" b 0x66 1 0xea "c";
    MinS32 "pminsd" b 0x66 2 0x39 "c";
    MinU8 "pminub" b 0x66 1 0xda "c";
    MinU16 "pminuw" b 0x66 2 0x3a "c";
    MinU32 "pminud" b 0x66 2 0x3b "c";
    MaxS8 "pmaxsb" b 0x66 2 0x3c "c";
    MaxS16 "pmaxsw" b 0x66 1 0xee "c";
    MaxS32 "pmaxsd" b 0x66 2 0x3d "c";
    MaxU8 "pmaxub" b 0x66 1 0xde "c";
    MaxU16 "pmaxuw" b 0x66 2 0x3e "c";
    MaxU32 "pmaxud" b 0x66 2 0x3f "c";
    Eq8 "pcmpeqb" b 0x66 1 0x74 "c";
    Eq16 "pcmpeqw" b 0x66 1 0x75 "c";
    Eq32 "pcmpeqd" b 0x66 1 0x76 "c";
    Eq64 "pcmpeqq" b 0x66 2 0x29 "c";
    GtS8 "pcmpgtb" b 0x66 1 0x64 "";
    GtS16 "pcmpgtw" b 0x66 1 0x65 "";
    GtS32 "pcmpgtd" b 0x66 1 0x66 "";
    GtS64 "pcmpgtq" b 0x66 2 0x37 "";
    HMinU16 "phminposuw" u 0x66 2 0x41 "x";
    Mask8 "pmovmskb" m 0x66 1 0xd7 "";
    Mask32 "movmskps" m 0x00 1 0x50 "";
    Mask64 "movmskpd" m 0x66 1 0x50 "";
    // shifts: by a constant, by the low 64 bits of `b`, lane by lane
    Shl16 "psllw" s6 0x66 1 0x71 "";
    Shl32 "pslld" s6 0x66 1 0x72 "";
    Shl64 "psllq" s6 0x66 1 0x73 "";
    ShrU16 "psrlw" s2 0x66 1 0x71 "";
    ShrU32 "psrld" s2 0x66 1 0x72 "";
    ShrU64 "psrlq" s2 0x66 1 0x73 "";
    ShrS16 "psraw" s4 0x66 1 0x71 "";
    ShrS32 "psrad" s4 0x66 1 0x72 "";
    ShlBytes "pslldq" s7 0x66 1 0x73 "";
    ShrBytes "psrldq" s3 0x66 1 0x73 "";
    Shl16By "psllw" b 0x66 1 0xf1 "";
    Shl32By "pslld" b 0x66 1 0xf2 "";
    Shl64By "psllq" b 0x66 1 0xf3 "";
    ShrU16By "psrlw" b 0x66 1 0xd1 "";
    ShrU32By "psrld" b 0x66 1 0xd2 "";
    ShrU64By "psrlq" b 0x66 1 0xd3 "";
    ShrS16By "psraw" b 0x66 1 0xe1 "";
    ShrS32By "psrad" b 0x66 1 0xe2 "";
    ShlEach32 "vpsllvd" b 0x66 2 0x47 "";
    ShlEach64 "vpsllvq" b 0x66 2 0x47 "w";
    ShrUEach32 "vpsrlvd" b 0x66 2 0x45 "";
    ShrUEach64 "vpsrlvq" b 0x66 2 0x45 "w";
    ShrSEach32 "vpsravd" b 0x66 2 0x46 "";
    // order of lanes
    ZipLo8 "punpcklbw" b 0x66 1 0x60 "";
    ZipLo16 "punpcklwd" b 0x66 1 0x61 "";
    ZipLo32 "punpckldq" b 0x66 1 0x62 "";
    ZipLo64 "punpcklqdq" b 0x66 1 0x6c "";
    ZipHi8 "punpckhbw" b 0x66 1 0x68 "";
    ZipHi16 "punpckhwd" b 0x66 1 0x69 "";
    ZipHi32 "punpckhdq" b 0x66 1 0x6a "";
    ZipHi64 "punpckhqdq" b 0x66 1 0x6d "";
    Shuffle8 "pshufb" b 0x66 2 0x00 "";
    Shuffle32 "pshufd" ui 0x66 1 0x70 "";
    ShuffleLo16 "pshuflw" ui 0xf2 1 0x70 "";
    ShuffleHi16 "pshufhw" ui 0xf3 1 0x70 "";
    ShuffleF32 "shufps" bi 0x00 1 0xc6 "";
    ShuffleF64 "shufpd" bi 0x66 1 0xc6 "";
    AlignBytes "palignr" bi 0x66 3 0x0f "";
    BlendImm16 "pblendw" bi 0x66 3 0x0e "";
    BlendImm32 "blendps" bi 0x66 3 0x0c "";
    BlendImm64 "blendpd" bi 0x66 3 0x0d "";
    Blend8 "pblendvb" t 0x66 3 0x4c "";
    Blend32 "blendvps" t 0x66 3 0x4a "";
    Blend64 "blendvpd" t 0x66 3 0x4b "";
    InsertF32 "insertps" bi 0x66 3 0x21 "x";
    DupLo32 "movsldup" u 0xf3 1 0x12 "";
    DupHi32 "movshdup" u 0xf3 1 0x16 "";
    DupLo64 "movddup" u 0xf2 1 0x12 "";
    // widths
    NarrowS16S8 "packsswb" b 0x66 1 0x63 "";
    NarrowS32S16 "packssdw" b 0x66 1 0x6b "";
    NarrowS16U8 "packuswb" b 0x66 1 0x67 "";
    NarrowS32U16 "packusdw" b 0x66 2 0x2b "";
    WidenS8 "pmovsxbw" u 0x66 2 0x20 "";
    WidenS8to32 "pmovsxbd" u 0x66 2 0x21 "";
    WidenS8to64 "pmovsxbq" u 0x66 2 0x22 "";
    WidenS16 "pmovsxwd" u 0x66 2 0x23 "";
    WidenS16to64 "pmovsxwq" u 0x66 2 0x24 "";
    WidenS32 "pmovsxdq" u 0x66 2 0x25 "";
    WidenU8 "pmovzxbw" u 0x66 2 0x30 "";
    WidenU8to32 "pmovzxbd" u 0x66 2 0x31 "";
    WidenU8to64 "pmovzxbq" u 0x66 2 0x32 "";
    WidenU16 "pmovzxwd" u 0x66 2 0x33 "";
    WidenU16to64 "pmovzxwq" u 0x66 2 0x34 "";
    WidenU32 "pmovzxdq" u 0x66 2 0x35 "";
    // packed FP; NaNs by x86's rule
    FAdd32 "addps" b 0x00 1 0x58 "";
    FAdd64 "addpd" b 0x66 1 0x58 "";
    FSub32 "subps" b 0x00 1 0x5c "";
    FSub64 "subpd" b 0x66 1 0x5c "";
    FMul32 "mulps" b 0x00 1 0x59 "";
    FMul64 "mulpd" b 0x66 1 0x59 "";
    FDiv32 "divps" b 0x00 1 0x5e "";
    FDiv64 "divpd" b 0x66 1 0x5e "";
    FMin32 "minps" b 0x00 1 0x5d "";
    FMin64 "minpd" b 0x66 1 0x5d "";
    FMax32 "maxps" b 0x00 1 0x5f "";
    FMax64 "maxpd" b 0x66 1 0x5f "";
    FSqrt32 "sqrtps" u 0x00 1 0x51 "";
    FSqrt64 "sqrtpd" u 0x66 1 0x51 "";
    FReciprocal32 "rcpps" u 0x00 1 0x53 "";
    FReciprocalSqrt32 "rsqrtps" u 0x00 1 0x52 "";
    FAddSub32 "addsubps" b 0xf2 1 0xd0 "";
    FAddSub64 "addsubpd" b 0x66 1 0xd0 "";
    FHAdd32 "haddps" b 0xf2 1 0x7c "";
    FHAdd64 "haddpd" b 0x66 1 0x7c "";
    FHSub32 "hsubps" b 0xf2 1 0x7d "";
    FHSub64 "hsubpd" b 0x66 1 0x7d "";
    FDot32 "dpps" bi 0x66 3 0x40 "";
    FDot64 "dppd" bi 0x66 3 0x41 "x";
    FRound32 "roundps" ui 0x66 3 0x08 "";
    FRound64 "roundpd" ui 0x66 3 0x09 "";
    FCompare32 "cmpps" bi 0x00 1 0xc2 "";
    FCompare64 "cmppd" bi 0x66 1 0xc2 "";
    FFrom32 "cvtdq2ps" u 0x00 1 0x5b "";
    FFromLow32to64 "cvtdq2pd" u 0xf3 1 0xe6 "";
    FTo32 "cvtps2dq" u 0x66 1 0x5b "";
    FToZero32 "cvttps2dq" u 0xf3 1 0x5b "";
    F64To32 "cvtpd2dq" u 0xf2 1 0xe6 "";
    F64ToZero32 "cvttpd2dq" u 0x66 1 0xe6 "";
    F32To64 "cvtps2pd" u 0x00 1 0x5a "";
    F64ToF32 "cvtpd2ps" u 0x66 1 0x5a "";
    HalfToF32 "vcvtph2ps" u 0x66 2 0x13 "";
    F32ToHalf "vcvtps2ph" ur 0x66 3 0x1d "";
    // the low lane of `b`, the others of `a`: what x86's scalar forms do, NaN rule included
    FAddLow32 "addss" b 0xf3 1 0x58 "x";
    FAddLow64 "addsd" b 0xf2 1 0x58 "x";
    FSubLow32 "subss" b 0xf3 1 0x5c "x";
    FSubLow64 "subsd" b 0xf2 1 0x5c "x";
    FMulLow32 "mulss" b 0xf3 1 0x59 "x";
    FMulLow64 "mulsd" b 0xf2 1 0x59 "x";
    FDivLow32 "divss" b 0xf3 1 0x5e "x";
    FDivLow64 "divsd" b 0xf2 1 0x5e "x";
    FMinLow32 "minss" b 0xf3 1 0x5d "x";
    FMinLow64 "minsd" b 0xf2 1 0x5d "x";
    FMaxLow32 "maxss" b 0xf3 1 0x5f "x";
    FMaxLow64 "maxsd" b 0xf2 1 0x5f "x";
    FSqrtLow32 "sqrtss" b 0xf3 1 0x51 "x";
    FSqrtLow64 "sqrtsd" b 0xf2 1 0x51 "x";
    FReciprocalLow32 "rcpss" b 0xf3 1 0x53 "x";
    FReciprocalSqrtLow32 "rsqrtss" b 0xf3 1 0x52 "x";
    FCompareLow32 "cmpss" bi 0xf3 1 0xc2 "x";
    FCompareLow64 "cmpsd" bi 0xf2 1 0xc2 "x";
    FRoundLow32 "roundss" bi 0x66 3 0x0a "x";
    FRoundLow64 "roundsd" bi 0x66 3 0x0b "x";
    FConvertLow32to64 "cvtss2sd" b 0xf3 1 0x5a "x";
    FConvertLow64to32 "cvtsd2ss" b 0xf2 1 0x5a "x";
    MoveLow32 "movss" b 0xf3 1 0x10 "x";
    MoveLow64 "movsd" b 0xf2 1 0x10 "x";
    // fused: a * b + c in the 213 form, `a` = multiplicand, `b` = multiplier, `c` = addend
    FMulAdd32 "vfmadd" f 0x66 2 0xa8 "";
    FMulAdd64 "vfmadd" f 0x66 2 0xa8 "w";
    FMulSub32 "vfmsub" f 0x66 2 0xaa "";
    FMulSub64 "vfmsub" f 0x66 2 0xaa "w";
    FNegMulAdd32 "vfnmadd" f 0x66 2 0xac "";
    FNegMulAdd64 "vfnmadd" f 0x66 2 0xac "w";
    FNegMulSub32 "vfnmsub" f 0x66 2 0xae "";
    FNegMulSub64 "vfnmsub" f 0x66 2 0xae "w";
    FMulAddSub32 "vfmaddsub" f 0x66 2 0xa6 "";
    FMulAddSub64 "vfmaddsub" f 0x66 2 0xa6 "w";
    FMulSubAdd32 "vfmsubadd" f 0x66 2 0xa7 "";
    FMulSubAdd64 "vfmsubadd" f 0x66 2 0xa7 "w";
    FMulAddLow32 "vfmaddss" f 0x66 2 0xa9 "x";
    FMulAddLow64 "vfmaddsd" f 0x66 2 0xa9 "xw";
    FMulSubLow32 "vfmsubss" f 0x66 2 0xab "x";
    FMulSubLow64 "vfmsubsd" f 0x66 2 0xab "xw";
    FNegMulAddLow32 "vfnmaddss" f 0x66 2 0xad "x";
    FNegMulAddLow64 "vfnmaddsd" f 0x66 2 0xad "xw";
    FNegMulSubLow32 "vfnmsubss" f 0x66 2 0xaf "x";
    FNegMulSubLow64 "vfnmsubsd" f 0x66 2 0xaf "xw";
    // cryptography
    AesEnc "aesenc" b 0x66 2 0xdc "x";
    AesEncLast "aesenclast" b 0x66 2 0xdd "x";
    AesDec "aesdec" b 0x66 2 0xde "x";
    AesDecLast "aesdeclast" b 0x66 2 0xdf "x";
    AesInvMixColumns "aesimc" u 0x66 2 0xdb "x";
    AesKeygen "aeskeygenassist" ui 0x66 3 0xdf "x";
    ClMul "pclmulqdq" bi 0x66 3 0x44 "x";
    Sha1Rounds "sha1rnds4" bi 0x00 3 0xcc "xl";
    Sha1NextE "sha1nexte" b 0x00 2 0xc8 "xl";
    Sha1Message1 "sha1msg1" b 0x00 2 0xc9 "xl";
    Sha1Message2 "sha1msg2" b 0x00 2 0xca "xl";
    Sha256Rounds "sha256rnds2" t 0x00 2 0xcb "xl"; // c = what the instruction has in XMM0
    Sha256Message1 "sha256msg1" b 0x00 2 0xcc "xl";
    Sha256Message2 "sha256msg2" b 0x00 2 0xcd "xl";
    // AVX2's own
    Permute2x128 "vperm2i128" bi 0x66 3 0x46 "";
    PermuteEach32 "vpermd" b 0x66 2 0x36 ""; // lanes of b chosen by a
    Permute64 "vpermq" ui 0x66 3 0x00 "w";
    Broadcast8 "vpbroadcastb" u 0x66 2 0x78 "";
    Broadcast16 "vpbroadcastw" u 0x66 2 0x79 "";
    Broadcast32 "vpbroadcastd" u 0x66 2 0x58 "";
    Broadcast64 "vpbroadcastq" u 0x66 2 0x59 "";
    PermuteF32 "vpermilps" ui 0x66 3 0x04 "";
    PermuteF64 "vpermilpd" ui 0x66 3 0x05 "";
    PermuteEachF32 "vpermilps" b 0x66 2 0x0c "";
    PermuteEachF64 "vpermilpd" b 0x66 2 0x0d "";
}
