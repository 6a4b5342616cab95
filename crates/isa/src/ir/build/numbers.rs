//! The builder's floating-point and vector operations.

use super::super::lane::{Form, Lane};
use super::super::op::Code;
use super::super::types::{FpRule, MinMaxRule, PackedRule, Saturate, Type, Value};
use super::Ir;

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

    /// A lane operation whose result has a type of its own: half or twice as wide as an operand, or
    /// of two wide operands and an immediate. Operands that the row has not are `Value::NONE`.
    pub fn lanes_as(&mut self, ty: Type, lane: Lane, operands: [Value; 3], imm: u8) -> Value {
        let [a, b, c] = operands;
        self.op(Code::Lanes, ty, lane as u16, a, b, c).with_imm(self, imm)
    }

    /// The low half of a `V256`.
    pub fn low_half(&mut self, vector: Value) -> Value {
        let op = *self.def(vector);
        match op.code {
            Code::ZeroUpper if self.ty(op.a) == Type::V128 => op.a,
            Code::Join => op.a,
            _ => self.one(Code::Trunc, Type::V128, 0, vector),
        }
    }

    /// The high half of a `V256`.
    pub fn high_half(&mut self, vector: Value) -> Value {
        let op = *self.def(vector);
        match op.code {
            Code::Join => op.b,
            _ => self.one(Code::HighHalf, Type::V128, 0, vector),
        }
    }

    /// The `V256` of two `V128`.
    pub fn join(&mut self, low: Value, high: Value) -> Value {
        self.two(Code::Join, Type::V256, 0, low, high)
    }

    /// The `V256` whose low half is `low` and whose high half is zero.
    pub fn widen(&mut self, low: Value) -> Value {
        self.one(Code::ZeroUpper, Type::V256, 0, low)
    }

    fn lane_type(&self, lane: Lane, a: Value) -> Type {
        match lane.row().form {
            Form::Mask => Type::I32,
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
pub const fn form_has_imm(form: Form) -> bool {
    matches!(form, Form::UnaryImm | Form::UnaryImmReversed | Form::BinaryImm | Form::ShiftImm(_))
}
