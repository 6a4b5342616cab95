//! The interpreter: what a block of IR means, said as plainly as possible.
//!
//! It is the oracle for tier 1 and for every optimisation of the IR: slow, without a register
//! allocator, without caches. A new operation is one row in the match of its kind (a lane
//! operation without an immediate: one row in `host/x86_64/instructions.rs`).

mod flags;
mod float;
mod integer;
mod lanes;
mod memory;

use isa::ir::{
    Cmp, Code, Cond, FlagKind, Form, Lane, MinMaxRule, Op, PackedRule, Repeat, Type, Value,
};
use isa::{Access, Event, GuestMemory, MemoryFault, Stop};

use flags::Operands;

/// What a block needs of the world.
pub trait Machine {
    /// Reads guest state; so many bytes as `into` has.
    fn get(&self, offset: u32, into: &mut [u8]);
    /// Writes guest state.
    fn put(&mut self, offset: u32, from: &[u8]);
    /// FP control and sticky status.
    fn fp_control(&mut self) -> &mut u32;
    /// Guest memory.
    fn memory(&mut self) -> &mut dyn GuestMemory;
    /// Whether the block's code is no longer what it was lifted from.
    fn code_changed(&mut self) -> bool;
    /// Calls a helper.
    fn helper(&mut self, number: u16, arguments: [u64; 3]) -> Result<u64, Stop>;
}

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// At this pc, in the same mode.
    To(u64),
    /// pc is in state, and perhaps a new mode.
    Lookup,
    /// An event. pc is in state.
    Event(Event),
}

/// A value: the bytes of its type, the rest zero.
type Bits = [u128; 2];

/// Runs blocks; keeps its memory between them.
#[derive(Default)]
pub struct Interpreter {
    values: Vec<Bits>,
    /// pc of the current instruction.
    pc: u64,
    /// Code of the block may have changed: it ends before the next instruction.
    stale: bool,
    /// The block's code.
    code: (u64, u64),
    /// Where pc lies in state.
    pc_at: u32,
}

/// One run of a block.
struct Run<'a, M: Machine> {
    own: &'a mut Interpreter,
    ops: &'a [Op],
    machine: &'a mut M,
}

/// What ends a block early.
enum Leave {
    Stop(Stop),
    To(u64),
    Lookup,
}

impl From<MemoryFault> for Leave {
    fn from(fault: MemoryFault) -> Self {
        Self::Stop(Stop::Event(Event::Memory(fault)))
    }
}

impl Interpreter {
    /// Runs the operations of a block made from guest code at `code`.
    pub fn run<M: Machine>(
        &mut self,
        ops: &[Op],
        code: (u64, u64),
        pc_at: u16,
        machine: &mut M,
    ) -> Outcome {
        self.values.clear();
        (self.pc, self.stale, self.code) = (code.0, false, code);
        self.pc_at = u32::from(pc_at);
        let mut run = Run { own: self, ops, machine };
        for op in ops {
            match run.step(op) {
                Ok(value) => run.own.values.push(value),
                Err(Leave::To(pc)) => {
                    run.set_pc(pc);
                    return Outcome::To(pc);
                }
                Err(Leave::Lookup) | Err(Leave::Stop(Stop::Lookup)) => return Outcome::Lookup,
                Err(Leave::Stop(Stop::Event(event))) => return Outcome::Event(event),
            }
        }
        unreachable!("a block ends with an exit");
    }
}

/// An integer as a value.
fn int(value: u64) -> Result<Bits, Leave> {
    Ok([value.into(), 0])
}

impl<M: Machine> Run<'_, M> {
    fn set_pc(&mut self, pc: u64) {
        self.machine.put(self.own.pc_at, &pc.to_le_bytes());
    }

    /// A value's type, as `Ir::ty`.
    fn ty(&self, value: Value) -> Type {
        let op = &self.ops[value.index()];
        match op.code {
            Code::Compare | Code::Condition | Code::FCompare | Code::StoreConditional => Type::Bool,
            Code::Flags => Type::Flags,
            Code::Crc32 => Type::I32,
            Code::FToHalf => Type::I16,
            _ => op.ty,
        }
    }

    /// A value; zero for operands that are absent or plain numbers, whose meaning nobody asks.
    fn bits(&self, value: Value) -> Bits {
        self.own.values.get(value.index()).copied().unwrap_or_default()
    }

    /// The low word, of the value's own type.
    fn word(&self, value: Value) -> u64 {
        self.bits(value)[0] as u64
    }

    fn step(&mut self, op: &Op) -> Result<Bits, Leave> {
        use Code as C;
        match op.code {
            // Which variant the next block is of, state says too.
            C::Nop | C::Discard | C::Variant => int(0),
            C::ClearUppers => self.clear_uppers(op),
            C::InsnStart => self.instruction(op),
            C::Const => int(op.immediate()),
            C::Get | C::Put => self.state(op),
            C::Load
            | C::Store
            | C::Atomic
            | C::Cas
            | C::StoreConditional
            | C::Fence
            | C::ZeroBlock => self.access(op),
            C::Flags | C::Condition | C::FlagsImage | C::Compare | C::FCompare => self.boolean(op),
            C::FAdd
            | C::FSub
            | C::FMul
            | C::FDiv
            | C::FSqrt
            | C::FMulAdd
            | C::FMin
            | C::FMax
            | C::FNeg
            | C::FAbs
            | C::FRound
            | C::FConvert
            | C::FFromHalf
            | C::FToHalf
            | C::FFromS
            | C::FFromU
            | C::FToS
            | C::FToU
            | C::Bits
            | C::FpControlPut
            | C::FpControlGet => self.float(op),
            C::Lanes
            | C::Packed
            | C::Scalar
            | C::ZeroUpper
            | C::SetScalar
            | C::LaneGet
            | C::LanePut
            | C::Splat
            | C::Lo
            | C::Hi
            | C::HighHalf
            | C::Join
            | C::Pair => self.vector(op),
            C::Helper
            | C::Fpu
            | C::Repeat
            | C::ExitIf
            | C::Exit
            | C::ExitIndirect
            | C::Call
            | C::CallIndirect
            | C::Return
            | C::ExitMode
            | C::Raise
            | C::RaiseIf => self.flow(op),
            _ => self.integer(op),
        }
    }

    fn instruction(&mut self, op: &Op) -> Result<Bits, Leave> {
        if self.own.stale {
            return Err(Leave::To(op.immediate()));
        }
        self.own.pc = op.immediate();
        int(0)
    }

    fn state(&mut self, op: &Op) -> Result<Bits, Leave> {
        let mut bytes = [0; 32];
        let count = op.ty.bytes() as usize;
        if op.code == Code::Get {
            self.machine.get(op.a.0, &mut bytes[..count]);
            return Ok(from_bytes(bytes));
        }
        bytes = to_bytes(self.bits(op.b));
        self.machine.put(op.a.0, &bytes[..count]);
        int(0)
    }

    fn clear_uppers(&mut self, op: &Op) -> Result<Bits, Leave> {
        for n in 0..u32::from(op.aux) {
            self.machine.put(op.a.0 + 32 * n + 16, &[0; 16]);
        }
        int(0)
    }

    fn integer(&mut self, op: &Op) -> Result<Bits, Leave> {
        let ty = op.ty;
        let (a, b, c) = (self.word(op.a), self.word(op.b), self.word(op.c));
        let (low, bits) = (u32::from(op.aux & 0xff), u32::from(op.aux >> 8));
        int(match op.code {
            Code::Select => return Ok(self.bits(if a != 0 { op.b } else { op.c })),
            Code::Trunc if ty == Type::V128 => return Ok([self.bits(op.a)[0], 0]),
            Code::Neg
            | Code::Not
            | Code::Clz
            | Code::Ctz
            | Code::Popcnt
            | Code::Bswap
            | Code::BitRev => integer::unary(op.code, ty, a),
            Code::Adc | Code::Sbb | Code::ShlDouble | Code::ShrDouble => {
                integer::ternary(op.code, ty, a, b, c)
            }
            Code::DivWideS | Code::DivWideU => {
                let signed = op.code == Code::DivWideS;
                let result = integer::divide_wide(signed, ty, a, b, c);
                result.ok_or_else(|| self.fault(0, Access::Divide))?.0
            }
            Code::RemWideS | Code::RemWideU => {
                let signed = op.code == Code::RemWideS;
                integer::divide_wide(signed, ty, a, b, c).map_or(0, |(_, rest)| rest)
            }
            Code::SExt => integer::signed(self.ty(op.a), a) as u64 & ty.mask(),
            Code::ZExt => a,
            Code::Trunc => a & ty.mask(),
            Code::Extract => a >> low & ones(bits),
            Code::ExtractS => ((a >> low << (64 - bits)) as i64 >> (64 - bits)) as u64 & ty.mask(),
            Code::Deposit => (a & !(ones(bits) << low) | (b & ones(bits)) << low) & ty.mask(),
            Code::Lea => {
                let sum = a.wrapping_add(b << op.aux);
                sum.wrapping_add(op.displacement() as u64) & ty.mask()
            }
            Code::Crc32 => u64::from(integer::crc32(op.aux == 0, a as u32, ty, b)),
            code => integer::binary(code, ty, a, b),
        })
    }

    /// The current instruction faults.
    fn fault(&mut self, address: u64, access: Access) -> Leave {
        self.set_pc(self.own.pc);
        MemoryFault { address, access, detail: 0 }.into()
    }

    fn boolean(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (a, b) = (self.word(op.a), self.word(op.b));
        int(match op.code {
            Code::Flags => self.image(op),
            Code::FlagsImage => a,
            Code::Condition => u64::from(Cond::from_aux(op.aux).holds(a)),
            Code::Compare => u64::from(Cmp::from_aux(op.aux).holds(op.ty, a, b)),
            _ => {
                let control = self.machine.fp_control();
                u64::from(float::comparison(control, op.aux, op.ty, a, b))
            }
        })
    }

    fn image(&mut self, op: &Op) -> u64 {
        let kind = FlagKind::from_aux(op.aux);
        let (ty, a, b, c) = (op.ty, self.word(op.a), self.word(op.b), self.word(op.c));
        let (arm, signal) = match kind {
            FlagKind::FpCompare => (false, false),
            FlagKind::FpCompareSignal => (false, true),
            FlagKind::FpCompareArm => (true, false),
            FlagKind::FpCompareArmSignal => (true, true),
            kind => return flags::image(kind, Operands { ty, a, b, c }),
        };
        let host = float::compared(self.machine.fp_control(), ty, signal, a, b);
        flags::of_comparison(arm, host)
    }

    fn float(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (ty, aux) = (op.ty, op.aux);
        let (a, b, c) = (self.word(op.a), self.word(op.b), self.word(op.c));
        let format = float::Format::of(ty);
        let from = if op.a.is_some() { self.ty(op.a) } else { Type::None };
        let control = self.machine.fp_control();
        int(match op.code {
            Code::FMulAdd => float::fused(control, ty, aux, [a, b, c]),
            Code::FMin | Code::FMax => {
                let rule = min_max_rule(aux);
                float::min_max(control, rule, ty, op.code == Code::FMax, a, b)
            }
            Code::FNeg => a ^ format.sign(),
            Code::FAbs => a & !format.sign(),
            Code::FRound => float::round(control, ty, aux, a),
            Code::FConvert => float::converted(control, ty, aux, a),
            Code::FFromHalf => float::from_half(control, ty, a),
            Code::FToHalf => float::to_half(control, from, a),
            Code::FFromS => {
                let a = integer::signed(from, a) as u64;
                float::from_integer(control, false, ty, aux, a)
            }
            Code::FFromU => float::from_integer(control, true, ty, aux, a),
            Code::FToS | Code::FToU => {
                float::to_integer(control, op.code == Code::FToU, from, ty, aux, a)
            }
            Code::Bits => a,
            Code::FpControlPut => {
                *control = a as u32;
                0
            }
            Code::FpControlGet => u64::from(*control),
            code => float::arithmetic(control, code, ty, aux, a, b),
        })
    }

    fn vector(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (a, b) = (self.bits(op.a), self.bits(op.b));
        Ok(match op.code {
            Code::Lanes => {
                let row = Lane::from_aux(op.aux);
                let (c, imm) = self.third(row, op);
                let wide = op.ty == Type::V256 || self.ty(op.a) == Type::V256;
                let ty = if wide { Type::V256 } else { Type::V128 };
                lanes::apply(self.machine.fp_control(), row, ty, [a, b, c], imm)
            }
            Code::Packed => {
                let (row, rule) = (Lane::from_aux(op.aux & 0xfff), PackedRule::from_aux(op.aux));
                let (c, imm) = self.third(row, op);
                let operands = [a[0], b[0], c[0]];
                [lanes::packed(self.machine.fp_control(), row, rule, operands, imm), 0]
            }
            Code::Scalar => [a[0] & ones_wide(op.ty.bits()), 0],
            Code::ZeroUpper => [a[0] & ones_wide(self.ty(op.a).bits()), 0],
            Code::SetScalar => {
                let low = ones_wide(self.ty(op.b).bits());
                [a[0] & !low | b[0] & low, a[1]]
            }
            Code::LaneGet => {
                let bytes = to_bytes(a);
                let (count, at) = (op.ty.bytes() as usize, op.b.0 as usize);
                let mut word = [0; 32];
                word[..count].copy_from_slice(&bytes[count * at..count * (at + 1)]);
                from_bytes(word)
            }
            Code::LanePut => {
                let mut bytes = to_bytes(a);
                let (count, at) = (usize::from(op.aux), op.c.0 as usize);
                bytes[count * at..count * (at + 1)].copy_from_slice(&to_bytes(b)[..count]);
                from_bytes(bytes)
            }
            Code::Splat => {
                let mut bytes = to_bytes(a);
                let (count, all) = (usize::from(op.aux), op.ty.bytes() as usize);
                (count..all).for_each(|at| bytes[at] = bytes[at - count]);
                from_bytes(bytes)
            }
            Code::Pair => [a[0] | b[0] << 64, 0],
            Code::HighHalf => [a[1], 0],
            Code::Join => [a[0], b[0]],
            Code::Lo => [a[0] & u128::from(u64::MAX), 0],
            _ => [a[0] >> 64, 0],
        })
    }

    /// The third operand, or the immediate in its place.
    fn third(&self, row: Lane, op: &Op) -> (Bits, u8) {
        match row.row().form {
            Form::UnaryImm | Form::UnaryImmReversed | Form::BinaryImm | Form::ShiftImm(_) => {
                ([0; 2], op.c.0 as u8)
            }
            _ => (self.bits(op.c), 0),
        }
    }

    fn flow(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (a, b, c) = (self.word(op.a), self.word(op.b), self.word(op.c));
        let raise = |info| Leave::Stop(Stop::Event(Event::from_raise(op.aux, info)));
        match op.code {
            Code::ExitIf if a == 0 => int(0),
            Code::ExitIf | Code::Exit | Code::Call => Err(Leave::To(op.immediate())),
            Code::ExitIndirect | Code::Return => Err(Leave::To(a)),
            Code::CallIndirect => Err(Leave::To(b)),
            Code::ExitMode => Err(Leave::Lookup),
            Code::Raise => Err(raise(a)),
            Code::RaiseIf if a == 0 => int(0),
            Code::RaiseIf => {
                self.set_pc(self.own.pc);
                Err(raise(b))
            }
            _ => {
                self.set_pc(self.own.pc);
                let (number, arguments) = match op.code {
                    Code::Repeat => {
                        let Repeat { helper, argument, .. } = Repeat::of(op);
                        (helper.into(), [argument.into(), 0, 0])
                    }
                    _ => (op.aux, [a, b, c]),
                };
                let value = self.machine.helper(number, arguments).map_err(Leave::Stop)?;
                // It may have written anywhere.
                self.own.stale |= self.machine.code_changed();
                int(value)
            }
        }
    }
}

fn min_max_rule(aux: u16) -> MinMaxRule {
    match aux {
        0 => MinMaxRule::X86,
        1 => MinMaxRule::Number,
        2 => MinMaxRule::Nan,
        _ => MinMaxRule::ArmNumber,
    }
}

fn ones(bits: u32) -> u64 {
    u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0)
}

fn ones_wide(bits: u32) -> u128 {
    u128::MAX >> (128 - bits.min(128))
}

fn to_bytes([low, high]: Bits) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&low.to_le_bytes());
    bytes[16..].copy_from_slice(&high.to_le_bytes());
    bytes
}

fn from_bytes(bytes: [u8; 32]) -> Bits {
    let half = |from: usize| {
        let mut half = [0; 16];
        half.copy_from_slice(&bytes[from..from + 16]);
        u128::from_le_bytes(half)
    };
    [half(0), half(16)]
}
