//! Vector operands: MMX, XMM and YMM registers, and memory.
//!
//! On a host with 256-bit registers a YMM register is one value, and blocks come in two variants:
//! while all upper halves are known to be zero, which is nearly always, an SSE instruction writes
//! its register as the host's VEX form does, upper half included. Otherwise it has to leave that
//! half alone, which costs a blend. On other hosts upper halves are memory, and what is 256 bits
//! wide is done twice.

use iced_x86::OpKind;

use super::helpers::{Fused, Operation, SCRATCH, Software, helper};
use super::lift::{Address, Lift};
use super::state;
use crate::ir::{Ir, Type, Value};

/// A vector of 128 or 256 bits, in as many values as the host needs for it.
#[derive(Clone, Copy, Debug)]
pub enum Vector {
    /// 128 bits, or fewer.
    Narrow(Value),
    /// 256 bits.
    Wide(Value),
    /// The halves of 256 bits.
    Pair(Value, Value),
}

impl Vector {
    /// Does something with each value.
    pub fn map(self, ir: &mut Ir, mut change: impl FnMut(&mut Ir, Value) -> Value) -> Self {
        match self {
            Self::Narrow(a) => Self::Narrow(change(ir, a)),
            Self::Wide(a) => Self::Wide(change(ir, a)),
            Self::Pair(low, high) => {
                let low = change(ir, low);
                Self::Pair(low, change(ir, high))
            }
        }
    }

    /// Does something with each value and the one of another vector that belongs to it; a narrow
    /// one belongs to both halves.
    pub fn zip(
        self,
        ir: &mut Ir,
        other: Self,
        mut combine: impl FnMut(&mut Ir, Value, Value) -> Value,
    ) -> Self {
        match (self, other) {
            (Self::Narrow(a), Self::Narrow(b)) => Self::Narrow(combine(ir, a, b)),
            (Self::Wide(a), Self::Wide(b) | Self::Narrow(b)) => Self::Wide(combine(ir, a, b)),
            (Self::Pair(low, high), other) => {
                let (other_low, other_high) = other.halves(ir);
                let low = combine(ir, low, other_low);
                Self::Pair(low, combine(ir, high, other_high))
            }
            (_, other) => unreachable!("{other:?} is wider than the first operand"),
        }
    }

    /// The halves; of a narrow vector, itself twice.
    pub fn halves(self, ir: &mut Ir) -> (Value, Value) {
        match self {
            Self::Narrow(a) => (a, a),
            Self::Wide(a) => {
                let low = ir.low_half(a);
                (low, ir.high_half(a))
            }
            Self::Pair(low, high) => (low, high),
        }
    }
}

impl Lift<'_> {
    /// Whether operand `i` is an MMX register.
    pub fn is_mmx(&self, i: u32) -> bool {
        self.insn.op_kind(i) == OpKind::Register && self.insn.op_register(i).is_mm()
    }

    /// Reads a vector operand: an XMM or MMX register, or as many bytes of memory, zero-extended.
    pub fn read_vector(&mut self, i: u32) -> Value {
        if self.insn.op_kind(i) == OpKind::Register {
            let number = self.vector(i);
            if self.is_mmx(i) {
                self.mmx = true;
                let low = self.ir.get(state::mmx(number));
                return self.ir.zero_upper(low);
            }
            return self.ir.get(state::xmm(number));
        }
        let (bytes, at) = (self.bytes(i), self.address());
        if bytes == 16 {
            return self.load(Type::V128, at);
        }
        let low = self.load(Type::integer(bytes), at);
        self.widen_to_vector(low)
    }

    /// A vector whose low lane is an integer of any width.
    fn widen_to_vector(&mut self, low: Value) -> Value {
        match self.ir.ty(low) {
            Type::I32 | Type::I64 => self.ir.zero_upper(low),
            _ => {
                let low = self.ir.zext(Type::I32, low);
                self.ir.zero_upper(low)
            }
        }
    }

    /// Reads the low lane of a vector operand, or memory, as a number.
    pub fn read_scalar(&mut self, i: u32, ty: Type) -> Value {
        if self.is_memory(i) {
            let at = self.address();
            return self.load(ty, at);
        }
        let value = self.read_vector(i);
        self.ir.scalar(ty, value)
    }

    /// Writes a vector register: in an MMX register the low half, with the FPU's tags made valid.
    pub fn write_vector(&mut self, i: u32, value: Value) {
        let number = self.vector(i);
        if !self.is_mmx(i) {
            return self.set_xmm(number, value);
        }
        let low = self.ir.lo(value);
        self.ir.put(state::mmx(number), low);
        let ones = self.ir.constant(Type::I16, 0xffff);
        self.ir.put(state::mmx_exponent(number), ones);
        self.mmx = true;
    }

    /// Instructions with MMX registers make all FPU registers valid and ST(0) the first one.
    pub fn enter_mmx(&mut self) {
        let zero = self.ir.imm(0);
        self.ir.put(state::X87_TOP, zero);
        self.ir.put(state::X87_EMPTY, zero);
    }

    /// Writes XMM register `n`. The upper half is cleared by VEX, and left alone without.
    pub fn set_xmm(&mut self, n: usize, value: Value) {
        if !self.host.wide {
            self.ir.put(state::xmm(n), value);
            if self.vex {
                let zero = self.ir.constant(Type::V128, 0);
                self.ir.put(state::upper_half(n), zero);
            }
        } else if self.vex || !self.upper_halves {
            let whole = self.ir.widen(value);
            self.ir.put(state::ymm(n), whole);
        } else {
            self.ir.put(state::xmm(n), value);
        }
    }

    /// From here on upper halves may be other than zero.
    pub fn use_upper_halves(&mut self) {
        if self.host.wide && !self.upper_halves {
            self.change_variant(true);
        }
    }

    /// Says in state and to the engine whether upper halves may be other than zero.
    pub fn change_variant(&mut self, upper_halves: bool) {
        let value = self.ir.imm(i64::from(upper_halves));
        self.ir.put(state::UPPER_HALVES, value);
        self.ir.variant(upper_halves);
        self.upper_halves = upper_halves;
    }

    /// Whether operand `i` has 256 bits.
    pub fn is_wide(&self, i: u32) -> bool {
        self.bytes(i) == 32
    }

    /// Reads a vector operand of any width.
    pub fn read_lanes(&mut self, i: u32) -> Vector {
        if !self.is_wide(i) {
            return Vector::Narrow(self.read_vector(i));
        }
        if self.is_memory(i) {
            let at = self.address();
            return self.load_wide(at);
        }
        self.ymm(self.vector(i))
    }

    /// Reads YMM register `n`.
    pub fn ymm(&mut self, n: usize) -> Vector {
        if self.host.wide {
            return Vector::Wide(self.ir.get(state::ymm(n)));
        }
        let low = self.ir.get(state::xmm(n));
        Vector::Pair(low, self.ir.get(state::upper_half(n)))
    }

    /// Loads 256 bits.
    pub fn load_wide(&mut self, at: Address) -> Vector {
        if self.host.wide {
            return Vector::Wide(self.load(Type::V256, at));
        }
        let low = self.load(Type::V128, at);
        let above = self.above(at);
        Vector::Pair(low, self.load(Type::V128, above))
    }

    fn above(&mut self, at: Address) -> Address {
        match at.displacement.checked_add(16) {
            Some(displacement) => Address { displacement, ..at },
            None => Address { base: self.ir.add_imm(at.base, 16), ..at },
        }
    }

    /// Stores a vector.
    pub fn store_lanes(&mut self, at: Address, vector: Vector) {
        match vector {
            Vector::Narrow(value) | Vector::Wide(value) => self.store(at, value),
            Vector::Pair(low, high) => {
                self.store(at, low);
                let above = self.above(at);
                self.store(above, high);
            }
        }
    }

    /// Writes a vector register.
    pub fn write_lanes(&mut self, i: u32, vector: Vector) {
        match vector {
            Vector::Narrow(value) => self.write_vector(i, value),
            vector => self.set_ymm(self.vector(i), vector),
        }
    }

    /// Writes YMM register `n`.
    pub fn set_ymm(&mut self, n: usize, vector: Vector) {
        match vector {
            Vector::Narrow(value) => self.set_xmm(n, value),
            Vector::Wide(value) => {
                self.use_upper_halves();
                self.ir.put(state::ymm(n), value);
            }
            Vector::Pair(low, high) => {
                self.ir.put(state::xmm(n), low);
                self.ir.put(state::upper_half(n), high);
            }
        }
    }

    /// 256 bits of two halves.
    pub fn join(&mut self, low: Value, high: Value) -> Vector {
        match self.host.wide {
            true => Vector::Wide(self.ir.join(low, high)),
            false => Vector::Pair(low, high),
        }
    }

    /// The number of the first source: with VEX the destination may be another register.
    pub fn first_source(&self) -> u32 {
        u32::from(self.vex)
    }

    /// Operand `i` as software finds it: a register's number, or scratch state, where memory is
    /// loaded to.
    fn place(&mut self, i: u32) -> u8 {
        if !self.is_memory(i) {
            return self.vector(i) as u8;
        }
        let value = self.read_lanes(i);
        let (low, high) = value.halves(self.ir);
        self.ir.put(state::scratch(0), low);
        self.ir.put(state::scratch(1), high);
        SCRATCH
    }

    /// An operation that the host has no instruction for, on two vector operands, by helper.
    pub fn in_software(&mut self, software: Software, sources: [u32; 2], imm: u8) {
        let [a, b] = sources;
        let destination = self.vector(0) as u8;
        self.call_software(software, [a, b, b], imm, destination);
    }

    /// The same to scratch state, of which the low half is the result.
    pub fn in_scratch(&mut self, software: Software, sources: [u32; 2], imm: u8) -> Value {
        let [a, b] = sources;
        self.call_software(software, [a, b, b], imm, SCRATCH);
        self.ir.get(state::scratch(0))
    }

    /// A fused operation by helper: `x * y + z`.
    pub fn fused_in_software(&mut self, fused: Fused, operands: [u32; 3]) {
        let destination = self.vector(0) as u8;
        self.call_software(Software::Fused, operands, fused.0, destination);
    }

    fn call_software(&mut self, software: Software, sources: [u32; 3], imm: u8, to: u8) {
        let wide = (0..self.insn.op_count())
            .any(|i| self.insn.op_kind(i) == OpKind::Register && self.insn.op_register(i).is_ymm());
        // Only one operand can be memory; it may be named more than once.
        let mut places = [0; 3];
        for (index, source) in sources.into_iter().enumerate() {
            places[index] = match sources[..index].iter().position(|earlier| *earlier == source) {
                Some(earlier) => places[earlier],
                None => self.place(source),
            };
        }
        let clears_above = self.vex;
        let operation = Operation { software, sources: places, to, imm, wide, clears_above };
        if wide && to != SCRATCH {
            self.use_upper_halves();
        }
        let what = self.ir.imm(operation.pack() as i64);
        let control = self.ir.fp_control_get();
        let control = self.ir.zext(Type::I64, control);
        let control = self.ir.helper(helper::VECTOR, what, control, Value::NONE);
        if software.is_floating() {
            let control = self.ir.trunc(Type::I32, control);
            self.ir.fp_control_put(control);
        }
    }
}
