//! The operations.

use super::build::form_has_imm;
use super::lane::Lane;
use super::types::{Type, Value};

/// One operation: sixteen bytes. What `aux`, `a`, `b` and `c` mean depends on the code; operands
/// are values unless the code's documentation says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Op {
    /// What is done.
    pub code: Code,
    /// The type of the result (for `put`, `store` and comparisons: of the operand).
    pub ty: Type,
    /// Details: condition, memory access, lane operation, ...
    pub aux: u16,
    /// First operand.
    pub a: Value,
    /// Second operand.
    pub b: Value,
    /// Third operand.
    pub c: Value,
}

const _: () = assert!(size_of::<Op>() == 16);

impl Op {
    /// The 64-bit immediate of `Const`, `InsnStart` and the exits, which lies in `b` and `c`.
    pub const fn immediate(&self) -> u64 {
        self.b.0 as u64 | (self.c.0 as u64) << 32
    }

    /// The displacement of `Load`, `Store` and `Lea`, which lies in `c`.
    pub const fn displacement(&self) -> i32 {
        self.c.0 as i32
    }

    /// The operands that are values.
    #[inline]
    pub fn operands(&self) -> Operands {
        let mut used = self.code.info().operands;
        if matches!(self.code, Code::Lanes | Code::Packed)
            && form_has_imm(Lane::from_aux(self.aux & 0xfff).row().form)
        {
            used &= 0b011;
        }
        Operands { all: [self.a, self.b, self.c, Value::NONE], used }
    }
}

/// See `Op::operands`.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    all: [Value; 4],
    /// Bit set of those still to come.
    used: u8,
}

impl Iterator for Operands {
    type Item = Value;

    #[inline]
    fn next(&mut self) -> Option<Value> {
        while self.used != 0 {
            let value = self.all[self.used.trailing_zeros() as usize & 3];
            self.used &= self.used - 1;
            if value.is_some() {
                return Some(value);
            }
        }
        None
    }
}

/// What the passes must know about an operation code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// The name in listings.
    pub name: &'static str,
    /// Bits 0 to 2: `a`, `b`, `c` are values.
    pub operands: u8,
    /// Must be done even when the result is unused.
    pub effect: bool,
    /// May leave the block with a fault: guest state must be exact before it.
    pub faults: bool,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident $name:literal $operands:literal $effect:ident $faults:ident;)*) => {
        /// Operation codes.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Code { $($(#[doc = $doc])+ $code),* }

        const INFO: &[Info] = &[$(Info {
            name: $name, operands: $operands, effect: codes!($effect), faults: codes!($faults),
        }),*];

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$code),*];
        }
    };
    (effect) => { true };
    (pure) => { false };
    (faults) => { true };
    (safe) => { false };
}

impl Code {
    /// What the passes must know.
    pub const fn info(self) -> &'static Info {
        &INFO[self as usize]
    }
}

codes! {
    /// Nothing. What optimisation leaves behind.
    Nop "nop" 0b000 pure safe;
    /// A guest instruction begins; immediate = its pc, `aux` = its length.
    InsnStart "insn" 0b000 effect safe;
    /// The immediate. Costs nothing: its users fold it. As `V128`: the low lane, upper lane zero.
    Const "const" 0b000 pure safe;
    /// Reads guest state; `a` = offset.
    Get "get" 0b000 pure safe;
    /// Writes guest state; `a` = offset, `b` = value.
    Put "put" 0b010 effect safe;

    /// The guest state at `a` (offset) of type `ty` is dead here: nobody reads it any more.
    Discard "discard" 0b000 effect safe;

    /// Sum.
    Add "add" 0b011 pure safe;
    /// Difference.
    Sub "sub" 0b011 pure safe;
    /// Product, low half.
    Mul "mul" 0b011 pure safe;
    /// Product of signed numbers, high half.
    MulHiS "mulhs" 0b011 pure safe;
    /// Product of unsigned numbers, high half.
    MulHiU "mulhu" 0b011 pure safe;
    /// Product of a signed and an unsigned number, high half.
    MulHiSU "mulhsu" 0b011 pure safe;
    /// Signed quotient; by zero: all ones; overflow: the dividend.
    DivS "divs" 0b011 pure safe;
    /// Unsigned quotient; by zero: all ones.
    DivU "divu" 0b011 pure safe;
    /// Signed remainder; by zero: the dividend; overflow: zero.
    RemS "rems" 0b011 pure safe;
    /// Unsigned remainder; by zero: the dividend.
    RemU "remu" 0b011 pure safe;
    /// Quotient of the double-width signed number `b:a` (high:low) by `c`; faults with
    /// `Access::Divide` when `c` is zero or the quotient does not fit (x86 IDIV).
    DivWideS "divws" 0b111 effect faults;
    /// Unsigned likewise (x86 DIV).
    DivWideU "divwu" 0b111 effect faults;
    /// The remainder of `DivWideS`; written directly after it with the same operands.
    RemWideS "remws" 0b111 pure safe;
    /// The remainder of `DivWideU`; written directly after it with the same operands.
    RemWideU "remwu" 0b111 pure safe;
    /// Bitwise and.
    And "and" 0b011 pure safe;
    /// Bitwise or.
    Or "or" 0b011 pure safe;
    /// Bitwise exclusive or.
    Xor "xor" 0b011 pure safe;
    /// `a & !b`.
    AndNot "andn" 0b011 pure safe;
    /// Left shift; the count (of any integer type) is taken modulo the width (8 and 16 bits: of 32).
    Shl "shl" 0b011 pure safe;
    /// Unsigned right shift; count as for `Shl`.
    ShrU "shru" 0b011 pure safe;
    /// Signed right shift; count as for `Shl`.
    ShrS "shrs" 0b011 pure safe;
    /// Rotation left by a count modulo the width.
    RotL "rotl" 0b011 pure safe;
    /// Rotation right by a count modulo the width.
    RotR "rotr" 0b011 pure safe;
    /// `a + b + c`, `c` a `Bool`.
    Adc "adc" 0b111 pure safe;
    /// `a - b - c`, `c` a `Bool`.
    Sbb "sbb" 0b111 pure safe;
    /// Negation.
    Neg "neg" 0b001 pure safe;
    /// Complement.
    Not "not" 0b001 pure safe;
    /// Leading zeros; of zero: the width.
    Clz "clz" 0b001 pure safe;
    /// Trailing zeros; of zero: the width.
    Ctz "ctz" 0b001 pure safe;
    /// Ones.
    Popcnt "popcnt" 0b001 pure safe;
    /// Bytes in reverse order.
    Bswap "bswap" 0b001 pure safe;
    /// Bits in reverse order.
    BitRev "bitrev" 0b001 pure safe;
    /// Gathers the bits of `a` under the mask `b`.
    Pext "pext" 0b011 pure safe;
    /// Scatters the low bits of `a` under the mask `b`.
    Pdep "pdep" 0b011 pure safe;
    /// Double shift left: the upper half of `a:b` shifted by `c` modulo the width (SHLD).
    ShlDouble "shld" 0b111 pure safe;
    /// Double shift right: the lower half of `b:a` shifted by `c` (SHRD, EXTR).
    ShrDouble "shrd" 0b111 pure safe;
    /// Sign extension from the operand's type.
    SExt "sext" 0b001 pure safe;
    /// Zero extension from the operand's type (`Bool` too).
    ZExt "zext" 0b001 pure safe;
    /// The low bits. Of a `V256`: its low half as `V128`.
    Trunc "trunc" 0b001 pure safe;
    /// Bits `aux & 0xff` and up, `aux >> 8` of them, zero-extended.
    Extract "extract" 0b001 pure safe;
    /// The same, sign-extended.
    ExtractS "extracts" 0b001 pure safe;
    /// `a` with the low `aux >> 8` bits of `b` at bit `aux & 0xff`.
    Deposit "deposit" 0b011 pure safe;
    /// `a + (b << aux) + displacement`: an address, which memory operations fold.
    Lea "lea" 0b011 pure safe;
    /// Compares integers of type `ty`; `aux` = `Cmp`; the result is `Bool`.
    Compare "cmp" 0b011 pure safe;
    /// `a` (`Bool`) chooses `b` or `c`.
    Select "select" 0b111 pure safe;
    /// The `I128` of low `a` and high `b`.
    Pair "pair" 0b011 pure safe;
    /// The low half of an `I128` or `V128`.
    Lo "lo" 0b001 pure safe;
    /// The high half of an `I128` or `V128`.
    Hi "hi" 0b001 pure safe;
    /// CRC-32 of `a` (accumulator, `I32`) and `b` (`ty`); `aux` 0: CRC-32C (iSCSI), 1: CRC-32.
    Crc32 "crc32" 0b011 pure safe;
    /// Carry-less product, low half.
    ClMul "clmul" 0b011 pure safe;
    /// Carry-less product, high half.
    ClMulHi "clmulh" 0b011 pure safe;

    /// Flags; `aux` = `FlagKind`, `ty` the operands' width. Comparisons of FP numbers raise sticky
    /// exceptions even if nobody reads their flags.
    Flags "flags" 0b111 pure safe;
    /// `aux` = `Cond` on flags `a`; the result is `Bool`.
    Condition "cond" 0b001 pure safe;
    /// The image of flags `a` as an `I64`.
    FlagsImage "image" 0b001 pure safe;

    /// Reads memory at `a + displacement`; `aux` = `Mem`.
    Load "load" 0b001 effect faults;
    /// Writes `b` to memory at `a + displacement`; `aux` = `Mem`.
    Store "store" 0b011 effect faults;
    /// Atomic `old = [a]; [a] = old op b`; `c` = `AtomicOp` as a plain number; result: old.
    Atomic "atomic" 0b011 effect faults;
    /// Atomic compare (`b`) and swap (`c`) at `a`; result: old. `I128` is two words.
    Cas "cas" 0b111 effect faults;
    /// Store-conditional: if `a` equals the low half of the pair `c` (address reserved) and memory
    /// there still holds `c`'s high half, writes `b`; result `Bool`: done. `aux` = `Mem`.
    StoreConditional "sc" 0b111 effect faults;
    /// A full barrier between earlier stores and later loads. Other barriers cost nothing here.
    Fence "fence" 0b000 effect safe;
    /// Zeroes `aux` bytes at `a`, aligned (cbo.zero, DC ZVA).
    ZeroBlock "zero" 0b001 effect faults;

    /// FP sum. `aux` = `FpRule` here and below. FP operations have an effect besides their result:
    /// the sticky exceptions.
    FAdd "fadd" 0b011 effect safe;
    /// FP difference.
    FSub "fsub" 0b011 effect safe;
    /// FP product.
    FMul "fmul" 0b011 effect safe;
    /// FP quotient.
    FDiv "fdiv" 0b011 effect safe;
    /// FP square root.
    FSqrt "fsqrt" 0b001 effect safe;
    /// `a * b + c`, rounded once.
    FMulAdd "fma" 0b111 effect safe;
    /// FP minimum; `aux` = `MinMaxRule`.
    FMin "fmin" 0b011 effect safe;
    /// FP maximum; `aux` = `MinMaxRule`.
    FMax "fmax" 0b011 effect safe;
    /// Sign inverted, whatever the number.
    FNeg "fneg" 0b001 pure safe;
    /// Sign cleared, whatever the number.
    FAbs "fabs" 0b001 pure safe;
    /// FP comparison of `ty`s: `aux` 0 equal (quiet), 1 less, 2 less or equal (signalling), 3
    /// unordered (quiet), 4 less, 5 less or equal (quiet). False for NaN except 3.
    FCompare "fcmp" 0b011 effect safe;
    /// To the other FP format.
    FConvert "fcvt" 0b001 effect safe;
    /// Half (`I16`) to FP `ty`.
    FFromHalf "fromhalf" 0b001 effect safe;
    /// FP to half (`I16`).
    FToHalf "tohalf" 0b001 effect safe;
    /// Signed integer to FP.
    FFromS "fromint" 0b001 effect safe;
    /// Unsigned integer to FP.
    FFromU "fromuint" 0b001 effect safe;
    /// FP to signed integer `ty`; `aux` = `FpRule`, bits 8 and up `Saturate`.
    FToS "toint" 0b001 effect safe;
    /// FP to unsigned integer `ty`; `aux` likewise.
    FToU "touint" 0b001 effect safe;
    /// To an integral FP number; `aux` bit 8: raises inexact.
    FRound "fround" 0b001 effect safe;
    /// The same bits as another type: `I32`/`F32`, `I64`/`F64`.
    Bits "bits" 0b001 pure safe;
    /// Loads the host's FP control and status (MXCSR layout) from `a` (`I32`).
    FpControlPut "putfpcr" 0b001 effect safe;
    /// The host's FP control and sticky status (MXCSR layout).
    FpControlGet "getfpcr" 0b000 effect safe;

    /// A lane operation: `aux` = `Lane`; operands as its row says.
    Lanes "lanes" 0b111 pure safe;
    /// A packed FP operation with Arm's NaN rule or the default NaN: `aux` = `Lane`, and the rule
    /// (`PackedRule`) in bits 12 and up. `V128` only; operands as the row says.
    Packed "packed" 0b111 effect safe;
    /// The low lane of a vector as a scalar FP.
    Scalar "scalar" 0b001 pure safe;
    /// A vector whose low lane is the scalar FP or integer `a` and whose other lanes are zero; as
    /// `V256`: whose low half is the `V128` `a` and whose high half is zero.
    ZeroUpper "vzext" 0b001 pure safe;
    /// `a` with its low lane replaced by the scalar FP `b`.
    SetScalar "setscalar" 0b011 pure safe;
    /// Lane `b` (a plain number) of vector `a` as integer `ty`.
    LaneGet "laneget" 0b001 pure safe;
    /// Vector `a` with lane `c` (a plain number) replaced by integer `b`; `aux` = bytes of the lane.
    LanePut "laneput" 0b011 pure safe;
    /// Every lane = integer `a`; `aux` = bytes of a lane.
    Splat "splat" 0b001 pure safe;

    /// The high half of a `V256` as `V128`.
    HighHalf "highhalf" 0b001 pure safe;
    /// The `V256` of low half `a` and high half `b`, both `V128`.
    Join "join" 0b011 pure safe;
    /// The high halves of `aux` `V256` registers in a row become zero; `a` = offset of the first.
    ClearUppers "clearuppers" 0b000 effect safe;

    /// Exits from here on lead to blocks of the mode with `FrontEnd::VARIANT` set (`aux` 1) or
    /// clear (`aux` 0), whatever this block's own mode is. The front end keeps in state what its
    /// `key` needs to say the same.
    Variant "variant" 0b000 effect safe;
    /// Calls helper `aux` with `a`, `b`, `c` (or none).
    Helper "helper" 0b111 effect faults;
    /// An operation of the FPU, which `a` describes (`fpu::Fields`), with up to two operands: helper
    /// `aux` does it, or the host's own FPU.
    Fpu "fpu" 0b111 effect faults;
    /// Calls a helper that does a repeated string operation, or does it itself as far as it can and
    /// calls the helper for the rest. All operands are plain numbers: see `Repeat`.
    Repeat "repeat" 0b000 effect faults;
    /// Leaves when `a` is true, to immediate = pc, else goes on. Here and in `Exit` and `Call`,
    /// `aux` bit 0: relaxed registers are dead there (`Ir::relaxed_dead_at`).
    ExitIf "exitif" 0b001 effect safe;
    /// To immediate = pc, same mode.
    Exit "exit" 0b000 effect safe;
    /// To pc `a`, same mode.
    ExitIndirect "exitind" 0b001 effect safe;
    /// A call to immediate = pc that will return to the constant `a`.
    Call "call" 0b001 effect safe;
    /// A call to pc `b` that will return to the constant `a`.
    CallIndirect "callind" 0b011 effect safe;
    /// A return to pc `a`.
    Return "ret" 0b001 effect safe;
    /// The block key may have changed: to the run loop, which asks the front end for a new one
    /// (the front end wrote pc).
    ExitMode "exitmode" 0b000 effect safe;
    /// To the run loop with event `aux` (`Event` number) and `a` (`I64`) as information; the front
    /// end wrote pc.
    Raise "raise" 0b001 effect safe;
    /// The same when `a` (`Bool`) is true; `b` is the information, pc the current instruction's.
    RaiseIf "raiseif" 0b011 effect faults;
}

/// The operands of `Code::Repeat`: elements of the operation's type are copied or stored upwards,
/// one after the other, until the count is zero. Index and count cells are whole general registers
/// that move with each element, so that a fault finds them exact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeat {
    /// The helper that does the same, whatever the state; its first argument is `argument`.
    pub helper: u8,
    /// For the helper.
    pub argument: u32,
    /// The cell of the target's address.
    pub target: u16,
    /// The cell of the source's address; with `fill`: of the value.
    pub source: u16,
    /// The cell of the count of elements.
    pub count: u16,
    /// The cell of which a bit says that the operation goes downwards.
    pub down: u16,
    /// That bit.
    pub down_bit: u8,
    /// Stores the value instead of copying.
    pub fill: bool,
    /// Addresses are 32-bit numbers, and wrap.
    pub narrow: bool,
}

impl Repeat {
    const FILL: u16 = 1 << 15;
    const NARROW: u16 = 1 << 14;

    /// What an operation says.
    pub fn of(op: &Op) -> Self {
        let (low, high) = (|word: u32| word as u16, |word: u32| (word >> 16) as u16);
        Self {
            helper: op.aux as u8,
            argument: op.a.0,
            target: low(op.b.0),
            source: high(op.b.0),
            count: low(op.c.0),
            down: high(op.c.0),
            down_bit: (op.aux >> 8 & 31) as u8,
            fill: op.aux & Self::FILL != 0,
            narrow: op.aux & Self::NARROW != 0,
        }
    }

    /// The operation on elements of type `ty`.
    pub(super) fn op(&self, ty: Type) -> Op {
        let pair = |low: u16, high: u16| Value(u32::from(low) | u32::from(high) << 16);
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let aux = u16::from(self.helper)
            | u16::from(self.down_bit & 31) << 8
            | flag(self.fill, Self::FILL)
            | flag(self.narrow, Self::NARROW);
        let (a, b) = (Value(self.argument), pair(self.target, self.source));
        Op { code: Code::Repeat, ty, aux, a, b, c: pair(self.count, self.down) }
    }
}

/// The operation of `Code::Atomic`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[rustfmt::skip]
pub enum AtomicOp {
    /// Sum.
    Add,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Exchange.
    Xchg,
    /// Signed minimum.
    MinS,
    /// Signed maximum.
    MaxS,
    /// Unsigned minimum.
    MinU,
    /// Unsigned maximum.
    MaxU,
    /// `old & !b`.
    AndNot,
}

impl AtomicOp {
    /// Every operation, in the order of its number.
    #[rustfmt::skip]
    pub const ALL: [Self; 10] = [
        Self::Add, Self::And, Self::Or, Self::Xor, Self::Xchg, Self::MinS, Self::MaxS, Self::MinU,
        Self::MaxU, Self::AndNot,
    ];

    /// The new memory contents.
    pub fn apply(self, ty: Type, old: u64, b: u64) -> u64 {
        use super::types::Cmp;
        let choose = |cmp: Cmp| if cmp.holds(ty, old, b) { old } else { b };
        ty.mask()
            & match self {
                Self::Add => old.wrapping_add(b),
                Self::And => old & b,
                Self::Or => old | b,
                Self::Xor => old ^ b,
                Self::Xchg => b,
                Self::MinS => choose(Cmp::LtS),
                Self::MaxS => choose(Cmp::GtS),
                Self::MinU => choose(Cmp::LtU),
                Self::MaxU => choose(Cmp::GtU),
                Self::AndNot => old & !b,
            }
    }
}
