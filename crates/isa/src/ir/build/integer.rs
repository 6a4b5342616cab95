//! The builder's integer operations, folded where they depend on constants only.

use super::super::op::Code;
use super::super::types::{Cmp, Mem, Type, Value};
use super::Ir;

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
