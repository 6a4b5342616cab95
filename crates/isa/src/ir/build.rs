//! The builder: a block under construction.

use super::lane::Lane;
use super::op::{AtomicOp, Code, Op};
use super::types::{
    Cmp, Cond, FlagKind, FpRule, Mem, MinMaxRule, PackedRule, Reg, Saturate, Type, Value,
};
use crate::front_end::Event;

/// State is cut into words of this many bytes for forwarding.
const WORD: usize = 8;

/// State beyond this many words is not forwarded.
const WORDS: usize = 512;

/// What the builder knows of a word of guest state.
#[derive(Clone, Copy)]
struct Known {
    /// Valid only in this generation.
    generation: u32,
    reg: Reg,
    value: Value,
}

/// One block of operations, and the builder that appends to it.
///
/// Reused for every block: `begin` clears it without giving memory back.
pub struct Ir {
    ops: Vec<Op>,
    known: Box<[Known; WORDS]>,
    generation: u32,
    start: u64,
    end: u64,
    page_bits: u32,
    insns: u32,
    insns_max: u32,
    side_exits: u32,
    peeked: bool,
    ended: bool,
}

impl Default for Ir {
    fn default() -> Self {
        let nothing = Known { generation: 0, reg: Reg::new(0, Type::None), value: Value::NONE };
        Self {
            ops: Vec::with_capacity(1024),
            known: Box::new([nothing; WORDS]),
            generation: 1,
            start: 0,
            end: 0,
            page_bits: 12,
            insns: 0,
            insns_max: Self::INSNS_MAX,
            side_exits: 0,
            peeked: false,
            ended: false,
        }
    }
}

/// The face towards the engine.
impl Ir {
    /// The most guest instructions in a block.
    pub const INSNS_MAX: u32 = 64;

    /// A block stops following code when it has so many operations.
    pub const OPS_MAX: usize = 900;

    /// A block follows code behind so many conditional exits: each one taken wastes what was
    /// translated behind it, and that code is translated again from where it is entered.
    pub const SIDE_EXITS_MAX: u32 = 3;

    /// Clears everything for a block at `pc` of at most `insns_max` instructions.
    pub fn begin(&mut self, pc: u64, page_bits: u32, insns_max: u32) {
        self.ops.clear();
        self.forget();
        (self.start, self.end, self.page_bits) = (pc, pc, page_bits);
        (self.insns, self.insns_max, self.ended) = (0, insns_max, false);
        (self.side_exits, self.peeked) = (0, false);
    }

    /// The operations.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The operations, for optimisations that replace them in place.
    pub fn ops_mut(&mut self) -> &mut [Op] {
        &mut self.ops
    }

    /// The guest code the block was made from: first byte and behind the last one.
    pub fn code_range(&self) -> (u64, u64) {
        (self.start, self.end)
    }

    /// The exit that is operation `index` goes to code that overwrites all relaxed registers
    /// (`Layout::relaxed`) before it reads one. The front end looked at code on the block's own
    /// page only.
    pub fn relaxed_dead_at(&mut self, index: usize) {
        let op = &mut self.ops[index];
        debug_assert!(matches!(op.code, Code::Exit | Code::ExitIf | Code::Call));
        op.aux |= 1;
        self.peeked = true;
    }

    /// Whether the block depends on more code of its page than its own.
    pub fn peeked(&self) -> bool {
        self.peeked
    }

    /// How many guest instructions.
    pub fn insns(&self) -> u32 {
        self.insns
    }
}

/// Structure.
impl Ir {
    /// A guest instruction of `bytes` begins.
    pub fn insn(&mut self, pc: u64, bytes: u32) {
        self.insns += 1;
        self.end = self.end.max(pc.wrapping_add(u64::from(bytes)));
        self.immediate(Code::InsnStart, Type::None, bytes as u16, Value::NONE, pc);
    }

    /// Whether the block may go on at `pc`: room left, forward, on the same page.
    pub fn may_follow(&self, pc: u64) -> bool {
        !self.ended
            && self.insns < self.insns_max
            && self.side_exits < Self::SIDE_EXITS_MAX
            && self.ops.len() < Self::OPS_MAX
            && pc >= self.end
            && pc >> self.page_bits == self.start >> self.page_bits
    }

    /// The most instructions this block may have (1 when single-stepping).
    pub fn insns_max(&self) -> u32 {
        self.insns_max
    }

    /// Whether the block has its last operation.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn op(&mut self, code: Code, ty: Type, aux: u16, a: Value, b: Value, c: Value) -> Value {
        debug_assert!(!self.ended, "an operation behind the end of the block");
        let value = Value(self.ops.len() as u32);
        self.ops.push(Op { code, ty, aux, a, b, c });
        value
    }

    fn immediate(&mut self, code: Code, ty: Type, aux: u16, a: Value, value: u64) -> Value {
        self.op(code, ty, aux, a, Value(value as u32), Value((value >> 32) as u32))
    }

    fn one(&mut self, code: Code, ty: Type, aux: u16, a: Value) -> Value {
        self.op(code, ty, aux, a, Value::NONE, Value::NONE)
    }

    fn two(&mut self, code: Code, ty: Type, aux: u16, a: Value, b: Value) -> Value {
        self.op(code, ty, aux, a, b, Value::NONE)
    }

    /// The operation that made a value.
    pub fn def(&self, value: Value) -> &Op {
        &self.ops[value.index()]
    }

    /// A value's type.
    pub fn ty(&self, value: Value) -> Type {
        let op = self.def(value);
        match op.code {
            Code::Compare | Code::Condition | Code::FCompare | Code::StoreConditional => Type::Bool,
            Code::Flags => Type::Flags,
            Code::Crc32 => Type::I32,
            Code::FToHalf => Type::I16,
            _ => op.ty,
        }
    }

    /// The value if it is a constant.
    pub fn as_const(&self, value: Value) -> Option<u64> {
        let op = self.def(value);
        (op.code == Code::Const).then(|| op.immediate())
    }
}

/// Constants and guest state.
impl Ir {
    /// A constant, truncated to the type (any integer type, `Bool`, or `V128`: the low lane).
    pub fn constant(&mut self, ty: Type, value: u64) -> Value {
        self.immediate(Code::Const, ty, 0, Value::NONE, value & ty.mask())
    }

    /// A 64-bit constant.
    pub fn imm(&mut self, value: i64) -> Value {
        self.constant(Type::I64, value as u64)
    }

    /// A 32-bit constant.
    pub fn imm32(&mut self, value: i32) -> Value {
        self.constant(Type::I32, value as u32 as u64)
    }

    /// Reads guest state.
    pub fn get(&mut self, reg: Reg) -> Value {
        let word = usize::from(reg.offset) / WORD;
        if let Some(known) = self.known.get(word).filter(|k| k.generation == self.generation) {
            if known.reg == reg {
                return known.value;
            }
            let value = known.value;
            let narrower = known.reg.offset == reg.offset
                && reg.ty.is_integer()
                && self.ty(value).is_integer()
                && reg.ty.bytes() < known.reg.ty.bytes();
            if narrower {
                return self.trunc(reg.ty, value);
            }
        }
        let offset = Value(u32::from(reg.offset));
        let value = self.one(Code::Get, reg.ty, 0, offset);
        // A wider register must not hide behind a narrower one that was just read.
        self.know(reg, value);
        value
    }

    /// Writes guest state.
    pub fn put(&mut self, reg: Reg, value: Value) {
        debug_assert_eq!(self.ty(value).bytes(), reg.ty.bytes(), "a register has one size");
        let offset = Value(u32::from(reg.offset));
        self.two(Code::Put, reg.ty, 0, offset, value);
        self.forget_overlapping(reg);
        self.know(reg, value);
    }

    /// What `reg` holds is dead from here on.
    pub fn discard(&mut self, reg: Reg) {
        self.forget_overlapping(reg);
        self.one(Code::Discard, reg.ty, 0, Value(u32::from(reg.offset)));
    }

    fn know(&mut self, reg: Reg, value: Value) {
        let generation = self.generation;
        if let Some(known) = self.known.get_mut(usize::from(reg.offset) / WORD) {
            *known = Known { generation, reg, value };
        }
    }

    fn forget_overlapping(&mut self, reg: Reg) {
        let (from, to) =
            (usize::from(reg.offset), usize::from(reg.offset) + reg.ty.bytes() as usize);
        let first = (from / WORD).saturating_sub(3); // a V256 begins three words before its last
        let last = (to - 1) / WORD;
        for known in self.known.iter_mut().take(last + 1).skip(first) {
            let start = usize::from(known.reg.offset);
            if start < to && start + known.reg.ty.bytes() as usize > from {
                known.generation = 0;
            }
        }
    }

    /// Forgets all that is known of guest state (a helper may have changed it).
    fn forget(&mut self) {
        self.generation += 1;
    }
}

/// Integer arithmetic. Operands and results have one type, which is that of `a`.
impl Ir {
    fn binary(&mut self, code: Code, a: Value, b: Value) -> Value {
        let ty = self.ty(a);
        debug_assert!(
            is_shift(code) || self.ty(b) == ty,
            "{code:?} of {ty:?} and {:?}",
            self.ty(b)
        );
        if let Some(folded) = self.fold(code, ty, a, b) {
            return folded;
        }
        if let Some(value) = self.bitwise_on_words(code, a, b) {
            return value;
        }
        self.two(code, ty, 0, a, b)
    }

    fn fold(&mut self, code: Code, ty: Type, a: Value, b: Value) -> Option<Value> {
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => {
                let value = compute(code, ty, x, y)?;
                Some(self.constant(ty, value))
            }
            (None, Some(0)) if is_neutral_zero(code) => Some(a),
            (Some(0), None) if matches!(code, Code::Add | Code::Or | Code::Xor) => Some(b),
            _ => None,
        }
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        // (x + constant) + constant
        let op = *self.def(a);
        if let (Code::Add, Some(y)) = (op.code, self.as_const(b))
            && let Some(x) = self.as_const(op.b)
        {
            let sum = self.constant(op.ty, x.wrapping_add(y));
            return self.binary(Code::Add, op.a, sum);
        }
        self.binary(Code::Add, a, b)
    }

    /// `a + constant`.
    pub fn add_imm(&mut self, a: Value, b: i64) -> Value {
        let b = self.constant(self.ty(a), b as u64);
        self.add(a, b)
    }

    /// `a - b`.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary(Code::Sub, a, b)
    }

    /// `a & constant`.
    pub fn and_imm(&mut self, a: Value, b: u64) -> Value {
        let b = self.constant(self.ty(a), b);
        self.binary(Code::And, a, b)
    }

    /// `a << constant`.
    pub fn shl_imm(&mut self, a: Value, b: u32) -> Value {
        let b = self.constant(Type::I8, u64::from(b));
        self.binary(Code::Shl, a, b)
    }

    /// `a >> constant`, unsigned.
    pub fn shr_imm(&mut self, a: Value, b: u32) -> Value {
        let b = self.constant(Type::I8, u64::from(b));
        self.binary(Code::ShrU, a, b)
    }

    /// `a >> constant`, signed.
    pub fn sar_imm(&mut self, a: Value, b: u32) -> Value {
        let b = self.constant(Type::I8, u64::from(b));
        self.binary(Code::ShrS, a, b)
    }

    /// Any other binary operation by its code: `Mul` to `RotR`, `Pext`, `Pdep`, `ClMul`, ...
    pub fn alu(&mut self, code: Code, a: Value, b: Value) -> Value {
        debug_assert!(code.info().operands == 0b011 && !code.info().effect);
        self.binary(code, a, b)
    }

    /// Any unary operation by its code: `Neg`, `Not`, `Clz`, `Ctz`, `Popcnt`, `Bswap`, `BitRev`.
    pub fn unary(&mut self, code: Code, a: Value) -> Value {
        debug_assert!(code.info().operands == 0b001 && !code.info().effect);
        let ty = self.ty(a);
        self.one(code, ty, 0, a)
    }

    /// Any three-operand operation by its code: `Adc`, `Sbb`, `ShlDouble`, `ShrDouble`.
    pub fn ternary(&mut self, code: Code, a: Value, b: Value, c: Value) -> Value {
        let ty = self.ty(a);
        self.op(code, ty, 0, a, b, c)
    }

    /// Divides the double-width `high:low` by `divisor`: quotient and remainder, or the event
    /// `Access::Divide`.
    pub fn div_wide(&mut self, signed: bool, low: Value, high: Value, by: Value) -> (Value, Value) {
        let (quotient, remainder) = match signed {
            true => (Code::DivWideS, Code::RemWideS),
            false => (Code::DivWideU, Code::RemWideU),
        };
        let ty = self.ty(low);
        (self.op(quotient, ty, 0, low, high, by), self.op(remainder, ty, 0, low, high, by))
    }

    /// Whether a 64-bit value is the sign extension of its low word.
    fn is_word(&self, value: Value, depth: u32) -> bool {
        let op = self.def(value);
        if op.ty != Type::I64 || depth == 0 {
            return false;
        }
        match op.code {
            Code::Const => op.immediate() as i64 == i64::from(op.immediate() as i32),
            Code::SExt => self.ty(op.a).bytes() <= 4,
            Code::ZExt => self.ty(op.a).bytes() < 4,
            Code::Load => {
                let mem = Mem(op.aux);
                mem.bytes() < 4 || mem.bytes() == 4 && mem.is_signed()
            }
            Code::And | Code::Or | Code::Xor => {
                self.is_word(op.a, depth - 1) && self.is_word(op.b, depth - 1)
            }
            _ => false,
        }
    }

    /// The word that a 64-bit value extends, if that costs nothing: an `I32` value or a constant.
    fn word_of(&mut self, value: Value) -> Option<Value> {
        let op = *self.def(value);
        match op.code {
            Code::SExt if self.ty(op.a) == Type::I32 => Some(op.a),
            Code::Const if self.is_word(value, 1) => Some(self.constant(Type::I32, op.immediate())),
            _ => None,
        }
    }

    /// Bitwise operations on extended words are extended operations on words: the extension moves
    /// behind them, where the next one meets it.
    fn bitwise_on_words(&mut self, code: Code, a: Value, b: Value) -> Option<Value> {
        let bitwise = matches!(code, Code::And | Code::Or | Code::Xor);
        if !bitwise || self.ty(a) != Type::I64 || self.as_const(a).is_some() {
            return None;
        }
        let a = self.word_of(a)?;
        let b = self.word_of(b)?;
        let word = self.binary(code, a, b);
        Some(self.sext(Type::I64, word))
    }

    /// Sign extension to `ty`.
    pub fn sext(&mut self, ty: Type, a: Value) -> Value {
        let from = self.ty(a);
        let op = *self.def(a);
        if ty == Type::I64 && from == Type::I32 && op.code == Code::Trunc && self.is_word(op.a, 4) {
            return op.a;
        }
        match self.as_const(a) {
            _ if from == ty => a,
            Some(value) => {
                let shift = 64 - from.bits();
                self.constant(ty, ((value << shift) as i64 >> shift) as u64)
            }
            None => self.one(Code::SExt, ty, 0, a),
        }
    }

    /// Zero extension to `ty`, from `Bool` too.
    pub fn zext(&mut self, ty: Type, a: Value) -> Value {
        match self.as_const(a) {
            _ if self.ty(a) == ty => a,
            Some(value) => self.constant(ty, value),
            None => self.one(Code::ZExt, ty, 0, a),
        }
    }

    /// The low bits.
    pub fn trunc(&mut self, ty: Type, a: Value) -> Value {
        let op = *self.def(a);
        match self.as_const(a) {
            _ if self.ty(a) == ty => a,
            Some(value) => self.constant(ty, value),
            None if matches!(op.code, Code::SExt | Code::ZExt) && self.ty(op.a) == ty => op.a,
            None => self.one(Code::Trunc, ty, 0, a),
        }
    }

    /// `bits` bits from bit `low`, zero-extended.
    pub fn extract(&mut self, a: Value, low: u32, bits: u32) -> Value {
        let ty = self.ty(a);
        self.one(Code::Extract, ty, (low | bits << 8) as u16, a)
    }

    /// The same, sign-extended.
    pub fn extract_signed(&mut self, a: Value, low: u32, bits: u32) -> Value {
        let ty = self.ty(a);
        self.one(Code::ExtractS, ty, (low | bits << 8) as u16, a)
    }

    /// `a` with the low `bits` of `b` at bit `low`.
    pub fn deposit(&mut self, a: Value, b: Value, low: u32, bits: u32) -> Value {
        let ty = self.ty(a);
        self.two(Code::Deposit, ty, (low | bits << 8) as u16, a, b)
    }

    /// `base + (index << scale) + displacement`, scale 0 to 3. Also good for sums.
    pub fn lea(&mut self, base: Value, index: Value, scale: u16, displacement: i32) -> Value {
        let ty = self.ty(base);
        self.op(Code::Lea, ty, scale, base, index, Value(displacement as u32))
    }

    /// A comparison.
    pub fn compare(&mut self, cmp: Cmp, a: Value, b: Value) -> Value {
        let ty = self.ty(a);
        debug_assert_eq!(ty, self.ty(b));
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => self.constant(Type::Bool, u64::from(cmp.holds(ty, x, y))),
            (Some(_), None) => self.two(Code::Compare, ty, cmp.swapped() as u16, b, a),
            _ => self.two(Code::Compare, ty, cmp as u16, a, b),
        }
    }

    /// `condition ? a : b`.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        let ty = self.ty(a);
        debug_assert_eq!(ty, self.ty(b));
        match self.as_const(condition) {
            Some(0) => b,
            Some(_) => a,
            None => self.op(Code::Select, ty, 0, condition, a, b),
        }
    }

    /// An `I128` of two `I64`.
    pub fn pair(&mut self, low: Value, high: Value) -> Value {
        self.two(Code::Pair, Type::I128, 0, low, high)
    }

    /// The low half of an `I128` or `V128`.
    pub fn lo(&mut self, pair: Value) -> Value {
        self.one(Code::Lo, Type::I64, 0, pair)
    }

    /// The high half of an `I128` or `V128`.
    pub fn hi(&mut self, pair: Value) -> Value {
        self.one(Code::Hi, Type::I64, 0, pair)
    }

    /// CRC-32 (`castagnoli`: CRC-32C) of accumulator `crc` and `data`.
    pub fn crc32(&mut self, castagnoli: bool, crc: Value, data: Value) -> Value {
        let ty = self.ty(data);
        self.two(Code::Crc32, ty, u16::from(!castagnoli), crc, data)
    }
}

/// Flags.
impl Ir {
    /// The flags that `kind` makes of operands of type `ty`; unused operands are `Value::NONE`.
    pub fn flags(&mut self, kind: FlagKind, ty: Type, a: Value, b: Value, c: Value) -> Value {
        self.op(Code::Flags, ty, kind as u16, a, b, c)
    }

    /// A condition of flags.
    pub fn condition(&mut self, cond: Cond, flags: Value) -> Value {
        self.one(Code::Condition, Type::Bool, cond as u16, flags)
    }

    /// The image: bits as in x86 EFLAGS, those outside `STATUS` undefined.
    pub fn flags_image(&mut self, flags: Value) -> Value {
        self.one(Code::FlagsImage, Type::I64, 0, flags)
    }
}

/// Memory.
impl Ir {
    /// Loads from `base + displacement` as type `ty`.
    pub fn load(&mut self, ty: Type, base: Value, displacement: i32, mem: Mem) -> Value {
        debug_assert!(mem.bytes() <= ty.bytes());
        self.op(Code::Load, ty, mem.0, base, Value::NONE, Value(displacement as u32))
    }

    /// Stores the low bytes of `value` to `base + displacement`.
    pub fn store(&mut self, base: Value, displacement: i32, value: Value, mem: Mem) {
        let ty = self.ty(value);
        self.op(Code::Store, ty, mem.0, base, value, Value(displacement as u32));
    }

    /// Atomic read, modify, write; gives the old contents.
    pub fn atomic(&mut self, op: AtomicOp, address: Value, operand: Value, mem: Mem) -> Value {
        let ty = self.ty(operand);
        self.op(Code::Atomic, ty, mem.0, address, operand, Value(op as u32))
    }

    /// Atomic compare and swap; gives the old contents.
    pub fn cas(&mut self, address: Value, expected: Value, new: Value, mem: Mem) -> Value {
        let ty = self.ty(expected);
        self.op(Code::Cas, ty, mem.0, address, expected, new)
    }

    /// Store-conditional against a reservation, `pair(address, contents)` as loaded; gives `Bool`.
    pub fn store_conditional(&mut self, at: Value, new: Value, reserved: Value, mem: Mem) -> Value {
        let ty = self.ty(new);
        self.op(Code::StoreConditional, ty, mem.0, at, new, reserved)
    }

    /// Orders earlier stores before later loads.
    pub fn fence(&mut self) {
        self.one(Code::Fence, Type::None, 0, Value::NONE);
    }

    /// Zeroes an aligned block of memory.
    pub fn zero_block(&mut self, address: Value, bytes: u16) {
        self.one(Code::ZeroBlock, Type::I64, bytes, address);
    }
}

/// Floating point.
impl Ir {
    /// `FAdd`, `FSub`, `FMul`, `FDiv`.
    pub fn fp(&mut self, code: Code, a: Value, b: Value, rule: FpRule) -> Value {
        let ty = self.ty(a);
        self.two(code, ty, rule.pack(), a, b)
    }

    /// The square root.
    pub fn fsqrt(&mut self, a: Value, rule: FpRule) -> Value {
        let ty = self.ty(a);
        self.one(Code::FSqrt, ty, rule.pack(), a)
    }

    /// `a * b + c` rounded once.
    pub fn fmul_add(&mut self, a: Value, b: Value, c: Value, rule: FpRule) -> Value {
        let ty = self.ty(a);
        self.op(Code::FMulAdd, ty, rule.pack(), a, b, c)
    }

    /// `FMin` or `FMax`.
    pub fn fminmax(&mut self, code: Code, a: Value, b: Value, rule: MinMaxRule) -> Value {
        let ty = self.ty(a);
        self.two(code, ty, rule as u16, a, b)
    }

    /// A comparison: see `Code::FCompare` for `kind`.
    pub fn fcompare(&mut self, kind: u16, a: Value, b: Value) -> Value {
        let ty = self.ty(a);
        self.two(Code::FCompare, ty, kind, a, b)
    }

    /// `FConvert`, `FFromS`, `FFromU`, `FFromHalf`: to the FP type `ty`.
    pub fn fconvert(&mut self, code: Code, ty: Type, a: Value, rule: FpRule) -> Value {
        self.one(code, ty, rule.pack(), a)
    }

    /// `FToS` or `FToU`: to the integer type `ty`.
    pub fn fto_int(
        &mut self,
        code: Code,
        ty: Type,
        a: Value,
        rule: FpRule,
        saturate: Saturate,
    ) -> Value {
        self.one(code, ty, rule.pack() | (saturate as u16) << 8, a)
    }

    /// To an integral number; `inexact` says whether that raises the inexact flag.
    pub fn fround(&mut self, a: Value, rule: FpRule, inexact: bool) -> Value {
        let ty = self.ty(a);
        self.one(Code::FRound, ty, rule.pack() | u16::from(inexact) << 8, a)
    }

    /// The same bits as integer or FP of the same size.
    pub fn bits(&mut self, ty: Type, a: Value) -> Value {
        let op = *self.def(a);
        if op.code == Code::Bits && self.ty(op.a) == ty {
            return op.a;
        }
        self.one(Code::Bits, ty, 0, a)
    }

    /// Loads FP control and sticky status, in the layout of MXCSR.
    pub fn fp_control_put(&mut self, mxcsr: Value) {
        self.one(Code::FpControlPut, Type::I32, 0, mxcsr);
    }

    /// FP control and sticky status, in the layout of MXCSR.
    pub fn fp_control_get(&mut self) -> Value {
        self.one(Code::FpControlGet, Type::I32, 0, Value::NONE)
    }
}

/// Vectors.
impl Ir {
    /// A lane operation of one operand; `imm` as its row says.
    pub fn lanes1(&mut self, lane: Lane, a: Value, imm: u8) -> Value {
        let ty = self.lane_type(lane, a);
        self.op(Code::Lanes, ty, lane as u16, a, Value::NONE, Value::NONE).with_imm(self, imm)
    }

    /// A lane operation of two operands.
    pub fn lanes2(&mut self, lane: Lane, a: Value, b: Value) -> Value {
        let ty = self.lane_type(lane, a);
        self.op(Code::Lanes, ty, lane as u16, a, b, Value::NONE)
    }

    /// A lane operation of two operands and an immediate.
    pub fn lanes2_imm(&mut self, lane: Lane, a: Value, b: Value, imm: u8) -> Value {
        let ty = self.lane_type(lane, a);
        self.op(Code::Lanes, ty, lane as u16, a, b, Value::NONE).with_imm(self, imm)
    }

    /// A lane operation of three operands.
    pub fn lanes3(&mut self, lane: Lane, a: Value, b: Value, c: Value) -> Value {
        let ty = self.lane_type(lane, a);
        self.op(Code::Lanes, ty, lane as u16, a, b, c)
    }

    /// A packed FP operation of one to three operands, or of one and `imm`, with a NaN rule.
    pub fn packed(&mut self, lane: Lane, rule: PackedRule, operands: [Value; 3], imm: u8) -> Value {
        let [a, b, c] = operands;
        let value = self.op(Code::Packed, Type::V128, lane as u16 | (rule as u16) << 12, a, b, c);
        value.with_imm(self, imm)
    }

    fn lane_type(&self, lane: Lane, a: Value) -> Type {
        match lane.row().form {
            super::Form::Mask => Type::I32,
            _ => self.ty(a),
        }
    }

    /// The low lane as a scalar `ty`.
    pub fn scalar(&mut self, ty: Type, vector: Value) -> Value {
        self.one(Code::Scalar, ty, 0, vector)
    }

    /// A `V128` whose low lane is `a` (FP or integer), the others zero.
    pub fn zero_upper(&mut self, a: Value) -> Value {
        self.one(Code::ZeroUpper, Type::V128, 0, a)
    }

    /// `vector` with its low lane replaced by the scalar `b`.
    pub fn set_scalar(&mut self, vector: Value, b: Value) -> Value {
        self.two(Code::SetScalar, Type::V128, 0, vector, b)
    }

    /// Lane `index` as integer `ty`.
    pub fn lane_get(&mut self, ty: Type, vector: Value, index: u32) -> Value {
        self.op(Code::LaneGet, ty, 0, vector, Value(index), Value::NONE)
    }

    /// `vector` with lane `index` replaced by integer `a` of the lane's type.
    pub fn lane_put(&mut self, vector: Value, a: Value, index: u32) -> Value {
        let bytes = self.ty(a).bytes() as u16;
        self.op(Code::LanePut, Type::V128, bytes, vector, a, Value(index))
    }

    /// Every lane = `a`, of the lane's type.
    pub fn splat(&mut self, ty: Type, a: Value) -> Value {
        let bytes = self.ty(a).bytes() as u16;
        self.one(Code::Splat, ty, bytes, a)
    }
}

impl Value {
    fn with_imm(self, ir: &mut Ir, imm: u8) -> Self {
        let form = Lane::from_aux(ir.ops[self.index()].aux & 0xfff).row().form;
        if form_has_imm(form) {
            ir.ops[self.index()].c = Self(u32::from(imm));
        }
        self
    }
}

/// Whether `c` of a lane operation is a plain number instead of a value.
pub(super) const fn form_has_imm(form: super::Form) -> bool {
    use super::Form;
    matches!(form, Form::UnaryImm | Form::BinaryImm | Form::ShiftImm(_))
}

/// Helpers and exits.
impl Ir {
    /// Calls helper number `helper`; operands are `I64` or `Value::NONE`.
    pub fn helper(&mut self, helper: usize, a: Value, b: Value, c: Value) -> Value {
        let value = self.op(Code::Helper, Type::I64, helper as u16, a, b, c);
        self.forget();
        value
    }

    /// Leaves to `pc` when `condition` holds.
    pub fn exit_if(&mut self, condition: Value, pc: u64) {
        match self.as_const(condition) {
            Some(0) => {}
            Some(_) => self.exit(pc),
            None => {
                self.side_exits += 1;
                self.immediate(Code::ExitIf, Type::None, 0, condition, pc);
            }
        }
    }

    /// To `pc`, same mode.
    pub fn exit(&mut self, pc: u64) {
        self.immediate(Code::Exit, Type::None, 0, Value::NONE, pc);
        self.ended = true;
    }

    /// To the pc in `target`.
    pub fn exit_indirect(&mut self, target: Value) {
        match self.as_const(target) {
            Some(pc) => self.exit(pc),
            None => {
                self.one(Code::ExitIndirect, Type::None, 0, target);
                self.ended = true;
            }
        }
    }

    /// Calls `pc`, to come back at `back`.
    pub fn call(&mut self, pc: u64, back: u64) {
        let back = self.constant(Type::I64, back);
        self.immediate(Code::Call, Type::None, 0, back, pc);
        self.ended = true;
    }

    /// Calls the pc in `target`, to come back at `back`.
    pub fn call_indirect(&mut self, target: Value, back: u64) {
        if let Some(pc) = self.as_const(target) {
            return self.call(pc, back);
        }
        let back = self.constant(Type::I64, back);
        self.two(Code::CallIndirect, Type::None, 0, back, target);
        self.ended = true;
    }

    /// Returns to the pc in `target`.
    pub fn ret(&mut self, target: Value) {
        self.one(Code::Return, Type::None, 0, target);
        self.ended = true;
    }

    /// To the run loop for a new key; the front end has put pc.
    pub fn exit_mode(&mut self) {
        self.one(Code::ExitMode, Type::None, 0, Value::NONE);
        self.ended = true;
    }

    /// To the run loop with an event: one of `Event`'s numbers or the front end's exception. The
    /// front end has put pc.
    pub fn raise(&mut self, number: u16, info: Value) {
        self.one(Code::Raise, Type::None, number, info);
        self.ended = true;
    }

    /// An exception of the current instruction when `condition` holds; pc is then its own.
    pub fn raise_if(&mut self, condition: Value, number: u16, info: Value) {
        self.two(Code::RaiseIf, Type::None, number, condition, info);
    }

    /// The block's first instruction cannot be fetched. `pc_reg` is pc in state.
    pub fn fetch_fault(&mut self, pc_reg: Reg, pc: u64) {
        let value = self.constant(Type::I64, pc);
        self.put(pc_reg, value);
        self.raise(Event::FETCH, value);
    }
}

const fn is_shift(code: Code) -> bool {
    matches!(code, Code::Shl | Code::ShrU | Code::ShrS | Code::RotL | Code::RotR)
}

const fn is_neutral_zero(code: Code) -> bool {
    is_shift(code) || matches!(code, Code::Add | Code::Sub | Code::Or | Code::Xor | Code::AndNot)
}

/// The meaning of an integer operation on constants, as far as the builder folds it.
pub fn compute(code: Code, ty: Type, a: u64, b: u64) -> Option<u64> {
    let bits = ty.bits();
    // Narrow shifts take their count modulo 32, as x86 does.
    let count = (b & if bits == 64 { 63 } else { 31 }) as u32;
    let signed = (a << (64 - bits)) as i64 >> (64 - bits);
    let value = match code {
        Code::Add => a.wrapping_add(b),
        Code::Sub => a.wrapping_sub(b),
        Code::Mul => a.wrapping_mul(b),
        Code::And => a & b,
        Code::Or => a | b,
        Code::Xor => a ^ b,
        Code::AndNot => a & !b,
        Code::Shl => a << count,
        Code::ShrU => a >> count,
        Code::ShrS => (signed >> count) as u64,
        _ => return None,
    };
    Some(value & ty.mask())
}
