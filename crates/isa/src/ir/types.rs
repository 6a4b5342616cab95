//! The small types of the IR: value types, registers, memory access, conditions, FP rules.

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
pub enum Type {
    /// No value: the type of an operation that is done for its effect.
    #[default]
    None,
    /// A truth value, 0 or 1, from comparisons.
    Bool,
    /// 8 bits.
    I8,
    /// 16 bits.
    I16,
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
    /// 128 bits: a pair of `I64`, made by `pair`, taken apart by `lo` and `hi`.
    I128,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// A 128-bit vector; its lanes are named by the operation.
    V128,
    /// A 256-bit vector. Same operations as `V128`, twice as wide.
    V256,
    /// Condition flags that name their producer; never bits until someone reads them.
    Flags,
}

impl Type {
    /// The size in guest state and memory; a `Flags` cell is a 64-bit image (see [`FlagKind`]).
    pub const fn bytes(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Bool | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 | Self::Flags => 8,
            Self::I128 | Self::V128 => 16,
            Self::V256 => 32,
        }
    }

    /// The width of an integer type.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bool => 1,
            other => other.bytes() * 8,
        }
    }

    /// `I8` to `I64`.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    /// Lives in a host vector register.
    pub const fn is_vector(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::V128 | Self::V256)
    }

    /// All ones in this integer type.
    pub const fn mask(self) -> u64 {
        match self.bits() {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }

    /// The integer type of so many bytes.
    pub const fn integer(bytes: u32) -> Self {
        match bytes {
            1 => Self::I8,
            2 => Self::I16,
            4 => Self::I32,
            8 => Self::I64,
            16 => Self::I128,
            _ => panic!("integers have 1, 2, 4, 8 or 16 bytes"),
        }
    }
}

/// A value: the index of the operation that defines it. Values live for one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// The absent operand.
    pub const NONE: Self = Self(u32::MAX);

    /// Whether this is an operand at all.
    pub const fn is_some(self) -> bool {
        self.0 != u32::MAX
    }

    /// As an index into the block's operations.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A piece of guest state: so many bytes at an offset into the state structure.
///
/// Narrow registers overlap wide ones as in the guest: on x86, AL is `I8` at RAX's offset and AH
/// `I8` one byte further. Writing a narrow one leaves the other bytes alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Reg {
    /// Byte offset into the front end's state structure.
    pub offset: u16,
    /// How many bytes, and what they mean.
    pub ty: Type,
}

impl Reg {
    /// `Reg::new(offset_of!(State, field), Type::I64)`.
    pub const fn new(offset: usize, ty: Type) -> Self {
        assert!(offset < 1 << 16, "guest state is smaller than 64 KiB");
        Self { offset: offset as u16, ty }
    }

    /// The same bytes, or the low ones of them, as another type.
    pub const fn as_type(self, ty: Type) -> Self {
        Self { offset: self.offset, ty }
    }
}

/// How a memory operation accesses memory. Packed into an operation's 16-bit `aux`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mem(pub u16);

impl Mem {
    const SIGNED: u16 = 1 << 3;
    const BIG_ENDIAN: u16 = 1 << 4;
    const ALIGNED: u16 = 1 << 5;
    const INDEX_SHIFT: u16 = 8;

    /// A little-endian access of so many bytes (1, 2, 4, 8, 16, 32) at any alignment, zero-extended
    /// to the operation's type, ordered as an ordinary access of the host.
    pub const fn new(bytes: u32) -> Self {
        assert!(bytes.is_power_of_two() && bytes <= 32);
        Self(bytes.trailing_zeros() as u16)
    }

    /// The loaded value is sign-extended to the operation's type.
    pub const fn signed(self) -> Self {
        Self(self.0 | Self::SIGNED)
    }

    /// The bytes stand in memory in big-endian order.
    pub const fn big_endian(self) -> Self {
        Self(self.0 | Self::BIG_ENDIAN)
    }

    /// An address that is not a multiple of the size faults (`Access::Unaligned`).
    pub const fn aligned(self) -> Self {
        Self(self.0 | Self::ALIGNED)
    }

    /// With acquire (load) or release (store) order; a sequentially consistent store is followed
    /// by `fence`.
    ///
    /// Every access on a TSO host has that order, so nothing is kept: the method exists so that
    /// front ends say what they mean, and for the day of a weaker host.
    pub const fn ordered(self) -> Self {
        Self(self.0 | 1 << 6)
    }

    /// The MMU index: which of the guest's privilege views translates the address. 0 is the one of
    /// the block's own mode; the front end gives the others their meaning (`FrontEnd::walk`).
    pub const fn index(self, index: u16) -> Self {
        assert!(index < 4);
        Self(self.0 & !(3 << Self::INDEX_SHIFT) | index << Self::INDEX_SHIFT)
    }

    /// Bytes accessed.
    pub const fn bytes(self) -> u32 {
        1 << (self.0 & 7)
    }

    /// Sign-extended?
    pub const fn is_signed(self) -> bool {
        self.0 & Self::SIGNED != 0
    }

    /// Big-endian?
    pub const fn is_big_endian(self) -> bool {
        self.0 & Self::BIG_ENDIAN != 0
    }

    /// Checked for alignment?
    pub const fn is_aligned(self) -> bool {
        self.0 & Self::ALIGNED != 0
    }

    /// The MMU index.
    pub const fn mmu_index(self) -> u16 {
        self.0 >> Self::INDEX_SHIFT & 3
    }
}

/// A comparison of two integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Signed less.
    LtS,
    /// Signed greater or equal.
    GeS,
    /// Signed less or equal.
    LeS,
    /// Signed greater.
    GtS,
    /// Unsigned less.
    LtU,
    /// Unsigned greater or equal.
    GeU,
    /// Unsigned less or equal.
    LeU,
    /// Unsigned greater.
    GtU,
}

impl Cmp {
    /// Every comparison, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::Eq,
        Self::Ne,
        Self::LtS,
        Self::GeS,
        Self::LeS,
        Self::GtS,
        Self::LtU,
        Self::GeU,
        Self::LeU,
        Self::GtU,
    ];

    /// The comparison of the operation's `aux`.
    pub const fn from_aux(aux: u16) -> Self {
        Self::ALL[aux as usize]
    }

    /// True when this one is false. Its neighbour: even and odd numbers are opposites.
    pub const fn inverse(self) -> Self {
        Self::ALL[self as usize ^ 1]
    }

    /// The same with the operands exchanged.
    pub const fn swapped(self) -> Self {
        match self {
            Self::Eq | Self::Ne => self,
            Self::LtS => Self::GtS,
            Self::GtS => Self::LtS,
            Self::GeS => Self::LeS,
            Self::LeS => Self::GeS,
            Self::LtU => Self::GtU,
            Self::GtU => Self::LtU,
            Self::GeU => Self::LeU,
            Self::LeU => Self::GeU,
        }
    }

    /// The meaning, on operands that were truncated to `ty`.
    pub const fn holds(self, ty: Type, a: u64, b: u64) -> bool {
        let shift = 64 - ty.bits();
        let (sa, sb) = ((a << shift) as i64 >> shift, (b << shift) as i64 >> shift);
        let (a, b) = (a & ty.mask(), b & ty.mask());
        match self {
            Self::Eq => a == b,
            Self::Ne => a != b,
            Self::LtS => sa < sb,
            Self::GeS => sa >= sb,
            Self::LeS => sa <= sb,
            Self::GtS => sa > sb,
            Self::LtU => a < b,
            Self::GeU => a >= b,
            Self::LeU => a <= b,
            Self::GtU => a > b,
        }
    }
}

/// A condition on flags. The first sixteen are x86's, in the order of its encoding; `Hi` and `Ls`
/// are for guests whose carry means "no borrow".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[rustfmt::skip]
pub enum Cond {
    /// Overflow.
    O,
    /// No overflow.
    No,
    /// Carry set.
    C,
    /// Carry clear.
    Nc,
    /// Zero.
    Z,
    /// Not zero.
    Nz,
    /// Carry or zero: unsigned less or equal when carry is a borrow.
    Be,
    /// Neither: unsigned greater when carry is a borrow.
    A,
    /// Sign set.
    S,
    /// Sign clear.
    Ns,
    /// Parity even.
    P,
    /// Parity odd.
    Np,
    /// Sign differs from overflow: signed less.
    L,
    /// Signed greater or equal.
    Ge,
    /// Signed less or equal.
    Le,
    /// Signed greater.
    G,
    /// Carry set and not zero: unsigned greater when carry is "no borrow".
    Hi,
    /// Carry clear or zero.
    Ls,
}

impl Cond {
    /// Every condition, in the order of its number.
    #[rustfmt::skip]
    pub const ALL: [Self; 18] = [
        Self::O, Self::No, Self::C, Self::Nc, Self::Z, Self::Nz, Self::Be, Self::A, Self::S,
        Self::Ns, Self::P, Self::Np, Self::L, Self::Ge, Self::Le, Self::G, Self::Hi, Self::Ls,
    ];

    /// The condition of the operation's `aux`.
    pub const fn from_aux(aux: u16) -> Self {
        Self::ALL[aux as usize]
    }

    /// True when this one is false.
    pub const fn inverse(self) -> Self {
        Self::ALL[self as usize ^ 1]
    }

    /// The meaning, on a flags image.
    pub const fn holds(self, image: u64) -> bool {
        let (c, z) = (image & CARRY != 0, image & ZERO != 0);
        let (s, o, p) = (image & SIGN != 0, image & OVERFLOW != 0, image & PARITY != 0);
        match self {
            Self::O => o,
            Self::No => !o,
            Self::C => c,
            Self::Nc => !c,
            Self::Z => z,
            Self::Nz => !z,
            Self::Be => c || z,
            Self::A => !c && !z,
            Self::S => s,
            Self::Ns => !s,
            Self::P => p,
            Self::Np => !p,
            Self::L => s != o,
            Self::Ge => s == o,
            Self::Le => z || s != o,
            Self::G => !z && s == o,
            Self::Hi => c && !z,
            Self::Ls => !c || z,
        }
    }
}

/// Carry in a flags image. The image has the bits of x86 EFLAGS, whatever the guest.
pub const CARRY: u64 = 1;
/// Parity of the low byte.
pub const PARITY: u64 = 1 << 2;
/// Carry out of bit 3.
pub const ADJUST: u64 = 1 << 4;
/// Result is zero.
pub const ZERO: u64 = 1 << 6;
/// Result is negative.
pub const SIGN: u64 = 1 << 7;
/// Signed overflow.
pub const OVERFLOW: u64 = 1 << 11;
/// The bits of an image that have a meaning; the others are garbage.
pub const STATUS: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// What produced a flags value: the operation, on operands `a`, `b` and `c` of the value's width.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum FlagKind {
    /// `a + b`.
    Add,
    /// `a - b`; carry is the borrow.
    Sub,
    /// `a + b + c`, `c` a `Bool`.
    Adc,
    /// `a - b - c`, `c` a `Bool`; carry is the borrow.
    Sbb,
    /// `a & b`: carry, overflow and adjust clear. For the flags of a bitwise result `r` pass
    /// `(r, r)`.
    And,
    /// `a + 1`; carry as in the flags `c`.
    Inc,
    /// `a - 1`; carry as in the flags `c`.
    Dec,
    /// `a << b`, `b` an `I8` masked to 5 bits (6 when 64 bits wide); all of `c` when that is zero.
    Shl,
    /// `a >> b` unsigned, count as for `Shl`.
    ShrU,
    /// `a >> b` signed, count as for `Shl`.
    ShrS,
    /// Rotation: carry and overflow only, the rest of `c`; count as for `Shl`.
    RotL,
    /// Rotation right, likewise.
    RotR,
    /// Unsigned product of `a` and `b`: carry and overflow say whether the upper half is needed.
    MulU,
    /// Signed product, likewise.
    MulS,
    /// Carry = bit `b` (modulo the width) of `a`; the rest of `c`.
    Bit,
    /// Zero = (`a` is zero), carry the same, others clear: for lzcnt, tzcnt (`a` = source: carry,
    /// `b` = result: zero).
    Count,
    /// Zero = (`a` is zero), the rest of `c`: for bsf, bsr, cmpxchg8b and the like.
    Zero,
    /// `a + b` for guests whose carry after a subtraction means "no borrow".
    AddCarry,
    /// `a - b`, carry set when there is *no* borrow (Arm, Power).
    SubCarry,
    /// `a + b + c`, `c` a `Bool`, carry as in `AddCarry`; `a - b - !c` is `a + !b + c`.
    AdcCarry,
    /// FP comparison, x86: unordered sets zero, parity, carry; less sets carry; equal sets zero.
    FpCompare,
    /// The same and signalling for quiet NaNs.
    FpCompareSignal,
    /// FP comparison, Arm: less N; equal Z C; greater C; unordered C V.
    FpCompareArm,
    /// The same and signalling for quiet NaNs.
    FpCompareArmSignal,
    /// The flags are the image `a` (an `I64`).
    Image,
}

impl FlagKind {
    /// Every kind, in the order of its number.
    #[rustfmt::skip]
    pub const ALL: [Self; 25] = [
        Self::Add, Self::Sub, Self::Adc, Self::Sbb, Self::And, Self::Inc, Self::Dec, Self::Shl,
        Self::ShrU, Self::ShrS, Self::RotL, Self::RotR, Self::MulU, Self::MulS, Self::Bit,
        Self::Count, Self::Zero, Self::AddCarry, Self::SubCarry, Self::AdcCarry, Self::FpCompare,
        Self::FpCompareSignal, Self::FpCompareArm, Self::FpCompareArmSignal, Self::Image,
    ];

    /// A comparison of FP numbers, which has an effect besides: the sticky exceptions.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::FpCompare | Self::FpCompareSignal | Self::FpCompareArm | Self::FpCompareArmSignal
        )
    }

    /// The kind in a `Flags` operation's `aux`.
    pub const fn from_aux(aux: u16) -> Self {
        Self::ALL[(aux & 0xff) as usize]
    }

    /// The bits of an image that mean something, for operands of this type and, of a shift or
    /// rotation, this count. The others are whatever the host leaves there.
    pub const fn defined(self, ty: Type, count: u64) -> u64 {
        let count = count & if ty.bits() == 64 { 63 } else { 31 };
        match self {
            Self::MulU | Self::MulS => CARRY | OVERFLOW,
            Self::Shl | Self::ShrU | Self::ShrS if count != 0 => {
                let overflow = if count == 1 { OVERFLOW } else { 0 };
                let carry = if count < ty.bits() as u64 { CARRY } else { 0 };
                SIGN | ZERO | PARITY | overflow | carry
            }
            Self::RotL | Self::RotR if count > 1 => STATUS & !OVERFLOW,
            _ => STATUS,
        }
    }
}

/// Rounding of an FP operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// Down.
    Down,
    /// Up.
    Up,
    /// Toward zero.
    Zero,
    /// To nearest, ties away from zero.
    Away,
    /// As the guest's control register says: the host's MXCSR while in translated code.
    #[default]
    Dynamic,
}

impl Round {
    /// Every mode, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Nearest, Self::Down, Self::Up, Self::Zero, Self::Away, Self::Dynamic];
}

/// Which NaN an FP operation gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum NanRule {
    /// x86: the first operand's NaN made quiet, else the second's; a new one is negative.
    X86,
    /// Always the canonical positive quiet NaN (RISC-V; Arm with FPCR.DN).
    Default,
    /// Arm: signalling NaNs first, then quiet, in operand order; a new one is positive.
    Arm,
    /// Power: operand order; a new one is positive.
    Power,
}

/// What an FP to integer conversion gives for NaN and what does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Saturate {
    /// x86: the smallest signed integer ("integer indefinite").
    Indefinite,
    /// Arm: the nearest integer; NaN gives 0.
    NanZero,
    /// RISC-V: the nearest integer; NaN gives the largest.
    NanMax,
}

/// Minimum and maximum of FP numbers differ where NaNs and zeros meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum MinMaxRule {
    /// x86: the second operand when either is NaN or both are zeros.
    X86,
    /// IEEE 754-2019 minimumNumber: the number when one is NaN; -0 < +0 (RISC-V).
    Number,
    /// NaN wins; -0 < +0 (Arm FMIN, FMAX).
    Nan,
    /// IEEE 754-2008 minNum: the number when the other is a quiet NaN (Arm FMINNM).
    ArmNumber,
}

/// The rules of one FP operation. Packed into `aux`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FpRule {
    /// Rounding.
    pub round: Round,
    /// NaN.
    pub nan: NanRule,
}

impl FpRule {
    /// Rounds as the guest's control register says.
    pub const fn new(nan: NanRule) -> Self {
        Self { round: Round::Dynamic, nan }
    }

    /// With a rounding of its own.
    pub const fn rounding(self, round: Round) -> Self {
        Self { round, nan: self.nan }
    }

    /// For `aux`.
    pub const fn pack(self) -> u16 {
        self.round as u16 | (self.nan as u16) << 3
    }

    /// From `aux`.
    pub const fn unpack(aux: u16) -> Self {
        let nan = match aux >> 3 & 3 {
            0 => NanRule::X86,
            1 => NanRule::Default,
            2 => NanRule::Arm,
            _ => NanRule::Power,
        };
        Self { round: Round::ALL[(aux & 7) as usize], nan }
    }
}

/// The NaN rule of a packed FP operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum PackedRule {
    /// Arm: signalling NaNs first, then quiet, in operand order (of a fused operation: the addend
    /// first); a new one is positive.
    Arm,
    /// Always the canonical NaN.
    Default,
    /// Of a minimum or maximum: as `Arm`, and -0 < +0.
    MinMax,
    /// Of a minimum or maximum: as `Default`, and -0 < +0.
    MinMaxDefault,
}

impl PackedRule {
    /// The rule in a `Packed` operation's `aux`.
    pub const fn from_aux(aux: u16) -> Self {
        match aux >> 12 {
            0 => Self::Arm,
            1 => Self::Default,
            2 => Self::MinMax,
            _ => Self::MinMaxDefault,
        }
    }
}
