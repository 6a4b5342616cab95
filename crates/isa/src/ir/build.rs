//! The builder: a block under construction.

mod integer;
mod numbers;

use super::fpu::Fields;
use super::op::{AtomicOp, Code, Op, Repeat};
use super::types::{Cond, FlagKind, Mem, Reg, Type, Value};
use crate::front_end::Event;
pub use integer::compute;
pub(super) use numbers::form_has_imm;

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
            if (known.reg.ty, reg.ty) == (Type::V256, Type::V128) && known.reg.offset == reg.offset
            {
                return self.low_half(value);
            }
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

    /// The high halves of `count` `V256` registers from `first` on become zero.
    pub fn clear_uppers(&mut self, first: Reg, count: u16) {
        for n in 0..count {
            self.forget_overlapping(Reg { offset: first.offset + 32 * n, ty: Type::V256 });
        }
        self.one(Code::ClearUppers, Type::None, count, Value(u32::from(first.offset)));
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

/// Helpers and exits.
impl Ir {
    /// Calls helper number `helper`; operands are `I64` or `Value::NONE`.
    pub fn helper(&mut self, helper: usize, a: Value, b: Value, c: Value) -> Value {
        let value = self.op(Code::Helper, Type::I64, helper as u16, a, b, c);
        self.forget();
        value
    }

    /// An operation of the FPU, with the helper that can do it.
    pub fn fpu(&mut self, helper: usize, what: Fields, first: Value, second: Value) -> Value {
        let what = self.imm(what.0 as i64);
        let value = self.op(Code::Fpu, Type::I64, helper as u16, what, first, second);
        self.forget();
        value
    }

    /// A repeated string operation on elements of type `ty`.
    pub fn repeat(&mut self, ty: Type, repeat: &Repeat) {
        let Op { code, ty, aux, a, b, c } = repeat.op(ty);
        self.op(code, ty, aux, a, b, c);
        self.forget();
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

    /// Exits from here on lead to blocks of this mode with `FrontEnd::VARIANT` set or clear.
    pub fn variant(&mut self, set: bool) {
        self.one(Code::Variant, Type::None, u16::from(set), Value::NONE);
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

    /// The block's first instruction cannot be fetched, from this address on. `pc_reg` is pc in
    /// state.
    pub fn fetch_fault(&mut self, pc_reg: Reg, pc: u64, missing: u64) {
        self.fetch_event(Event::FETCH, pc_reg, [pc, missing]);
    }

    /// The block's first instruction is not where instructions may be.
    pub fn misaligned_fetch(&mut self, pc_reg: Reg, pc: u64) {
        self.fetch_event(Event::MISALIGNED_FETCH, pc_reg, [pc, pc]);
    }

    fn fetch_event(&mut self, number: u16, pc_reg: Reg, [pc, address]: [u64; 2]) {
        let value = self.constant(Type::I64, pc);
        self.put(pc_reg, value);
        let address = self.constant(Type::I64, address);
        self.raise(number, address);
    }
}
