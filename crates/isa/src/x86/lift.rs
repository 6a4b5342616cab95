//! From bytes to IR: the block loop, operands, and what all chapters share.

use std::mem;

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, OpKind, Register};

use super::X86;
use super::chapters;
use super::dead_flags::{self, Verdict};
use super::debug::SINGLE_STEPPED;
use super::helpers::helper;
use super::mode::Mode;
use super::state::{self, CS, DS, ES, FS, GS, RSP, SS};
use crate::front_end::{Event, Fetch, Host, Key};
use crate::ir::{Code, FlagKind, Ir, Mem, Type, Value};

/// The longest instruction.
const INSN_BYTES_MAX: usize = 15;

/// Exceptions by vector number.
pub mod exception {
    /// Divide error.
    pub const DE: u16 = 0;
    /// Debug.
    pub const DB: u16 = 1;
    /// Breakpoint.
    pub const BP: u16 = 3;
    /// Overflow.
    pub const OF: u16 = 4;
    /// Bound range exceeded.
    pub const BR: u16 = 5;
    /// Invalid opcode.
    pub const UD: u16 = 6;
    /// Device not available.
    pub const NM: u16 = 7;
    /// Double fault.
    pub const DF: u16 = 8;
    /// Invalid task-state segment.
    pub const TS: u16 = 10;
    /// Segment not present.
    pub const NP: u16 = 11;
    /// Stack fault.
    pub const SS: u16 = 12;
    /// General protection.
    pub const GP: u16 = 13;
    /// Page fault.
    pub const PF: u16 = 14;
    /// x87 error.
    pub const MF: u16 = 16;
    /// Alignment check.
    pub const AC: u16 = 17;
    /// SIMD error.
    pub const XM: u16 = 19;
    /// Not the guest's: an interrupt that waited can be taken now.
    pub const INTERRUPT_DUE: u16 = 0x100;
}

/// What a row does.
pub type Lifter = fn(&mut Lift);

/// An address: a value and a displacement that memory operations fold.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The linear address without the displacement.
    pub base: Value,
    /// Added to it.
    pub displacement: i32,
}

/// One instruction being lifted.
pub struct Lift<'a> {
    /// The block.
    pub ir: &'a mut Ir,
    /// The instruction.
    pub insn: Instruction,
    /// The block's mode.
    pub mode: Mode,
    /// A whole system, or a program on one.
    pub system: bool,
    /// What the back end can do.
    pub host: Host,
    /// See `X86`.
    pub wide_vectors: bool,
    /// The instruction has VEX: results clear what is above them.
    pub vex: bool,
    /// The instruction has an MMX register.
    pub mmx: bool,
    /// `Mode::upper_halves` as it is here.
    pub upper_halves: bool,
    /// The instruction's linear address.
    pub pc: u64,
    /// Where lifting goes on if the block does not end.
    pub next: u64,
    /// What POP adds to RSP before it computes an address with it.
    pub rsp_bias: i64,
}

/// Lifts a superblock: direct jumps forward and not-taken branches are followed.
pub fn block(key: Key, front_end: &X86, fetch: &mut dyn Fetch, ir: &mut Ir) {
    let mode = Mode::from_bits(key.mode);
    if mode.trap_due {
        ir.insn(key.pc, 1);
        let (pc, none) = (ir.imm(key.pc as i64), ir.imm(0));
        let due = ir.get(state::TRAP_DUE);
        ir.put(state::PC, pc);
        ir.put(state::TRAP_DUE, none);
        return ir.raise(exception::DB, due);
    }
    if mode.interrupt_due {
        ir.insn(key.pc, 1);
        let (pc, nothing) = (ir.imm(key.pc as i64), ir.imm(0));
        ir.put(state::PC, pc);
        return ir.raise(exception::INTERRUPT_DUE, nothing);
    }
    let mut at = At { pc: key.pc, upper_halves: mode.upper_halves };
    loop {
        let mut bytes = [0; WINDOW_BYTES];
        let mut window = Window::at(at.pc, &mode, &mut bytes, fetch);
        lift_window(&mut at, &mode, front_end, &mut window, ir);
        if ir.ended() {
            if mode.code_bits == 64 {
                drop_dead_flags(key.pc, &mode, &mut window, fetch, ir);
            }
            return;
        }
    }
}

/// How far a block is lifted.
struct At {
    pc: u64,
    upper_halves: bool,
}

/// Lifts until the block ends or leaves the window.
fn lift_window(at: &mut At, mode: &Mode, front_end: &X86, window: &mut Window<'_>, ir: &mut Ir) {
    let X86 { system, host, wide_vectors } = *front_end;
    let mut lift = Lift {
        ir,
        insn: Instruction::default(),
        mode: *mode,
        system,
        host,
        wide_vectors,
        vex: false,
        mmx: false,
        upper_halves: at.upper_halves,
        pc: at.pc,
        next: at.pc,
        rsp_bias: 0,
    };
    while !lift.ir.ended() {
        let pc = lift.next;
        let decoded = window.instruction(pc, &mut lift.insn);
        if lift.ir.insns() > 0 && matches!(decoded, Decoded::Illegal | Decoded::Unreadable(_)) {
            return lift.ir.exit(pc); // it is a block's first instruction next time
        }
        match decoded {
            Decoded::Instruction => {}
            Decoded::Illegal => lift.insn = Instruction::default(),
            Decoded::Unreadable(missing) => {
                return lift.ir.fetch_fault(state::PC, pc, missing);
            }
            Decoded::Elsewhere => break,
        }
        lift.ir.insn(pc, lift.insn.len().max(1) as u32);
        lift.pc = pc;
        lift.next = pc.wrapping_add(lift.insn.len() as u64);
        (lift.vex, lift.rsp_bias) = (false, 0);
        if mode.breakpoints {
            let at = lift.ir.imm(pc as i64);
            lift.ir.helper(helper::CHECK_BREAKPOINT, at, Value::NONE, Value::NONE);
        }
        chapters::lift(&mut lift);
        if mem::take(&mut lift.mmx) {
            lift.enter_mmx();
        }
        let next = lift.next;
        if !lift.ir.ended() {
            if mode.single_step || mode.shadow {
                end_after_one(lift.ir, mode, next);
            } else if !lift.ir.may_follow(next) {
                lift.ir.exit(next);
            }
        }
    }
    (at.pc, at.upper_halves) = (lift.next, lift.upper_halves);
}

/// Exits behind which the flags are overwritten need not write them.
fn drop_dead_flags(
    start: u64,
    mode: &Mode,
    window: &mut Window<'_>,
    fetch: &mut dyn Fetch,
    ir: &mut Ir,
) {
    for index in 0..ir.ops().len() {
        let op = ir.ops()[index];
        let direct = matches!(op.code, Code::Exit | Code::ExitIf | Code::Call);
        if direct && flags_are_dead(start, op.immediate(), mode, window, fetch) {
            ir.relaxed_dead_at(index);
        }
    }
}

fn flags_are_dead(
    start: u64,
    mut pc: u64,
    mode: &Mode,
    window: &mut Window<'_>,
    fetch: &mut dyn Fetch,
) -> bool {
    let mut flags = dead_flags::Flags::new();
    let mut left = dead_flags::INSNS_MAX;
    loop {
        if let Some(known) = flags_end(start, &mut pc, &mut left, &mut flags, window) {
            return known;
        }
        let mut bytes = [0; WINDOW_BYTES];
        let mut window = Window::at(pc, mode, &mut bytes, fetch);
        if let Some(known) = flags_end(start, &mut pc, &mut left, &mut flags, &mut window) {
            return known;
        }
    }
}

/// Whether the flags are dead, as far as a window shows it.
fn flags_end(
    start: u64,
    pc: &mut u64,
    left: &mut usize,
    flags: &mut dead_flags::Flags,
    window: &mut Window<'_>,
) -> Option<bool> {
    let mut insn = Instruction::default();
    while *left > 0 {
        // The last instruction of a page may reach into the next.
        let on_page = |pc: u64| (pc ^ start) >> 12 == 0;
        if !on_page(*pc) || !on_page(*pc + INSN_BYTES_MAX as u64) {
            return Some(false);
        }
        match window.instruction(*pc, &mut insn) {
            Decoded::Instruction => {}
            Decoded::Elsewhere => return None,
            Decoded::Illegal | Decoded::Unreadable(_) => return Some(false),
        }
        *left -= 1;
        match flags.pass(&insn) {
            Verdict::Alive => return Some(false),
            Verdict::Dead => return Some(true),
            Verdict::Further(next) => *pc = next,
        }
    }
    Some(false)
}

/// Blocks of one instruction: under single step, and in the shadow of STI.
fn end_after_one(ir: &mut Ir, mode: &Mode, pc: u64) {
    let next = ir.imm(pc as i64);
    ir.put(state::PC, next);
    let zero = ir.imm(0);
    ir.put(state::SHADOW, zero);
    if mode.single_step {
        let info = ir.imm(SINGLE_STEPPED as i64);
        ir.raise(exception::DB, info);
    } else {
        ir.exit_mode();
    }
}

/// Operands.
impl Lift<'_> {
    /// Bytes of operand `i`.
    pub fn bytes(&self, i: u32) -> u32 {
        match self.insn.op_kind(i) {
            OpKind::Register => self.insn.op_register(i).size() as u32,
            OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI => self.insn.memory_size().size() as u32,
            OpKind::Immediate8 => 1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
            _ => 8,
        }
    }

    /// The integer type of operand `i`.
    pub fn ty(&self, i: u32) -> Type {
        Type::integer(self.bytes(i))
    }

    /// Whether operand `i` is in memory.
    pub fn is_memory(&self, i: u32) -> bool {
        self.insn.op_kind(i) == OpKind::Memory
    }

    /// The vector register number of operand `i`.
    pub fn vector(&self, i: u32) -> usize {
        self.insn.op_register(i).number()
    }

    /// Reads general, segment or immediate operand `i`, or memory.
    pub fn read(&mut self, i: u32) -> Value {
        match self.insn.op_kind(i) {
            OpKind::Register => {
                let register = self.insn.op_register(i);
                self.read_register(register)
            }
            OpKind::Memory => {
                let (ty, address) = (self.ty(i), self.address());
                self.load(ty, address)
            }
            _ => {
                let (ty, value) = (self.ty(i), self.insn.immediate(i));
                self.ir.constant(ty, value)
            }
        }
    }

    /// Reads operand `i` as type `ty`: an immediate sign-extended, others cut.
    pub fn read_as(&mut self, i: u32, ty: Type) -> Value {
        match self.insn.op_kind(i) {
            OpKind::Register | OpKind::Memory => {
                let value = self.read(i);
                self.ir.trunc(ty, value)
            }
            _ => {
                let value = self.insn.immediate(i);
                self.ir.constant(ty, value)
            }
        }
    }

    /// Reads a register.
    pub fn read_register(&mut self, register: Register) -> Value {
        if register.is_segment_register() {
            let selector = self.ir.get(state::selector(register.number()));
            return self.ir.trunc(Type::I16, selector);
        }
        let number = general_number(register);
        if is_high_byte(register) {
            return self.ir.get(state::high_byte(number));
        }
        let whole = self.ir.get(state::gpr(number));
        self.ir.trunc(Type::integer(register.size() as u32), whole)
    }

    /// Reads general register `n` as type `ty`.
    pub fn gpr(&mut self, n: usize, ty: Type) -> Value {
        let whole = self.ir.get(state::gpr(n));
        self.ir.trunc(ty, whole)
    }

    /// Writes general register `n` with a value of any integer type: 32 bits zero the upper half,
    /// fewer leave the rest.
    pub fn set_gpr(&mut self, n: usize, value: Value) {
        match self.ir.ty(value) {
            Type::I32 => {
                let value = self.ir.zext(Type::I64, value);
                self.ir.put(state::gpr(n), value);
            }
            ty => self.ir.put(state::gpr(n).as_type(ty), value),
        }
    }

    /// Writes a general register.
    pub fn write_register(&mut self, register: Register, value: Value) {
        if is_high_byte(register) {
            self.ir.put(state::high_byte(general_number(register)), value);
        } else {
            self.set_gpr(general_number(register), value);
        }
    }

    /// Writes general operand `i` or memory.
    pub fn write(&mut self, i: u32, value: Value) {
        if self.is_memory(i) {
            let address = self.address();
            self.store(address, value);
        } else {
            self.write_register(self.insn.op_register(i), value);
        }
    }

    /// Replaces operand `i` by what `change` makes of it; `after` then puts what depends on it.
    /// With a LOCK prefix `change` must be one that [`Lift::locked`] knows, so use that first.
    pub fn modify(&mut self, i: u32, change: impl FnOnce(&mut Self, Value) -> Value) {
        if self.is_memory(i) {
            let (ty, address) = (self.ty(i), self.address());
            let old = self.load(ty, address);
            let new = change(self, old);
            self.store(address, new);
        } else {
            let register = self.insn.op_register(i);
            let old = self.read_register(register);
            let new = change(self, old);
            self.write_register(register, new);
        }
    }

    /// Loads `ty`.
    pub fn load(&mut self, ty: Type, at: Address) -> Value {
        self.ir.load(ty, at.base, at.displacement, Mem::new(ty.bytes()))
    }

    /// Stores a value in its own size.
    pub fn store(&mut self, at: Address, value: Value) {
        let bytes = self.ir.ty(value).bytes();
        self.ir.store(at.base, at.displacement, value, Mem::new(bytes));
    }

    /// The address as one value.
    pub fn flatten(&mut self, at: Address) -> Value {
        self.ir.add_imm(at.base, i64::from(at.displacement))
    }
}

/// The number of the whole register that a general register is a part of.
pub fn general_number(register: Register) -> usize {
    register.full_register().number()
}

/// AH, CH, DH, BH.
pub fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// Addresses.
impl Lift<'_> {
    /// The linear address of the memory operand.
    pub fn address(&mut self) -> Address {
        let offset = self.effective();
        let segment = self.insn.memory_segment().number();
        self.linear(segment, offset)
    }

    /// The offset of the memory operand, as LEA gives it: `I64`, or `I32` or `I16` by address size.
    pub fn effective(&mut self) -> Address {
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        let displacement = self.insn.memory_displacement64();
        if base.is_ip() || (base == Register::None && index == Register::None) {
            let base = self.ir.constant(Type::I64, displacement);
            return Address { base, displacement: 0 };
        }
        let bytes = if base == Register::None { index.size() } else { base.size() };
        let ty = Type::integer(bytes as u32);
        let bias = if base.number() == RSP && base != Register::None { self.rsp_bias } else { 0 };
        let displacement = (displacement as i64).wrapping_add(bias) as i32;
        let scale = self.insn.memory_index_scale().trailing_zeros() as u16;
        let value = match (base, index) {
            (Register::None, index) => {
                let index = self.gpr(index.number(), ty);
                self.ir.shl_imm(index, u32::from(scale))
            }
            (base, Register::None) => self.gpr(base.number(), ty),
            (base, index) => {
                let base = self.gpr(base.number(), ty);
                let index = self.gpr(index.number(), ty);
                self.ir.lea(base, index, scale, 0)
            }
        };
        if ty == Type::I64 {
            return Address { base: value, displacement };
        }
        // Narrow addresses wrap before the segment's base is added.
        let sum = self.ir.add_imm(value, i64::from(displacement));
        Address { base: sum, displacement: 0 }
    }

    /// Adds the base of a segment to an offset of any width.
    pub fn linear(&mut self, segment: usize, offset: Address) -> Address {
        let narrow = self.ir.ty(offset.base);
        let skip = match segment {
            ES | SS | DS => self.mode.flat,
            CS => self.mode.cs_base == 0,
            _ => false,
        };
        if self.mode.is_long() {
            let base = self.ir.zext(Type::I64, offset.base);
            if !matches!(segment, FS | GS) {
                return Address { base, displacement: offset.displacement };
            }
            let segment = self.ir.get(state::segment_base(segment));
            let base = self.ir.alu(crate::ir::Code::Add, segment, base);
            return Address { base, displacement: offset.displacement };
        }
        let offset = match narrow {
            Type::I64 => self.ir.trunc(Type::I32, offset.base),
            _ => self.ir.zext(Type::I32, offset.base),
        };
        let sum = if skip {
            offset
        } else if segment == CS {
            self.ir.add_imm(offset, i64::from(self.mode.cs_base))
        } else {
            let base = self.ir.get(state::segment_base(segment));
            let base = self.ir.trunc(Type::I32, base);
            self.ir.add(base, offset)
        };
        Address { base: self.ir.zext(Type::I64, sum), displacement: 0 }
    }

    /// The linear address of an instruction pointer, which wraps in narrow code.
    pub fn code_address(&self, ip: u64) -> u64 {
        if self.mode.is_long() {
            return ip;
        }
        u64::from((ip as u32).wrapping_add(self.mode.cs_base))
    }
}

/// The stack.
impl Lift<'_> {
    /// RSP, ESP or SP by the stack's width.
    pub fn stack_type(&self) -> Type {
        match (self.mode.is_long(), self.mode.wide_stack) {
            (true, _) => Type::I64,
            (false, true) => Type::I32,
            (false, false) => Type::I16,
        }
    }

    /// `RSP + bias` in the stack's width.
    pub fn stack_pointer(&mut self, bias: i64) -> Value {
        let pointer = self.gpr(RSP, self.stack_type());
        self.ir.add_imm(pointer, bias)
    }

    /// The linear address of `RSP + bias`.
    pub fn stack_address(&mut self, bias: i64) -> Address {
        if self.mode.is_long() {
            let base = self.ir.get(state::gpr(RSP));
            return Address { base, displacement: bias as i32 };
        }
        let base = self.stack_pointer(bias);
        self.linear(SS, Address { base, displacement: 0 })
    }

    /// Adds to RSP; after the last operation that may fault.
    pub fn move_stack(&mut self, by: i64) {
        let pointer = self.stack_pointer(by);
        self.set_gpr(RSP, pointer);
    }

    /// Pushes a value in its own size.
    pub fn push(&mut self, value: Value) {
        let bytes = i64::from(self.ir.ty(value).bytes());
        let at = self.stack_address(-bytes);
        self.store(at, value);
        self.move_stack(-bytes);
    }

    /// What lies `depth` bytes above the top of the stack; the caller moves RSP.
    pub fn peek(&mut self, ty: Type, depth: i64) -> Value {
        let at = self.stack_address(depth);
        self.load(ty, at)
    }
}

/// Flags, events and ends.
impl Lift<'_> {
    /// Writes the arithmetic flags.
    pub fn set_flags(&mut self, kind: FlagKind, ty: Type, a: Value, b: Value, c: Value) {
        let flags = self.ir.flags(kind, ty, a, b, c);
        self.ir.put(state::FLAGS, flags);
    }

    /// The arithmetic flags.
    pub fn flags(&mut self) -> Value {
        self.ir.get(state::FLAGS)
    }

    /// The arithmetic flags of a bitwise result.
    pub fn set_logic_flags(&mut self, result: Value) {
        let ty = self.ir.ty(result);
        self.set_flags(FlagKind::And, ty, result, result, Value::NONE);
    }

    /// Ends the block with an exception at this instruction.
    pub fn fault(&mut self, vector: u16, error: u64) {
        self.raise(vector, self.pc, error);
    }

    /// Ends the block with an event; pc will be `pc`.
    pub fn raise(&mut self, number: u16, pc: u64, info: u64) {
        self.put_pc(pc);
        let info = self.ir.imm(info as i64);
        self.ir.raise(number, info);
    }

    /// An instruction that does not exist.
    pub fn illegal(&mut self) {
        if self.system {
            self.fault(exception::UD, 0);
        } else {
            self.raise(Event::ILLEGAL, self.pc, 0);
        }
    }

    /// Writes pc.
    pub fn put_pc(&mut self, pc: u64) {
        let pc = self.ir.imm(pc as i64);
        self.ir.put(state::PC, pc);
    }

    /// Ends the block behind the load of a segment register.
    pub fn end_segment(&mut self, register: Register) {
        if register == Register::SS { self.end_in_shadow() } else { self.end_mode() }
    }

    /// Ends the block behind this instruction, whose effect may have changed the mode.
    pub fn end_mode(&mut self) {
        if self.mode.single_step {
            return self.raise(exception::DB, self.next, SINGLE_STEPPED);
        }
        if self.mode.shadow {
            let zero = self.ir.imm(0);
            self.ir.put(state::SHADOW, zero);
        }
        self.put_pc(self.next);
        self.ir.exit_mode();
    }

    /// Likewise behind MOV SS and POP SS, which hold a trap back until the next instruction is done.
    pub fn end_in_shadow(&mut self) {
        self.put_pc(self.next);
        self.ir.exit_mode();
    }

    /// An unconditional jump to a known place.
    pub fn jump(&mut self, target: u64) {
        let alone = self.mode.single_step || self.mode.shadow;
        if alone || self.ir.may_follow(target) {
            self.next = target;
        } else {
            self.ir.exit(target);
        }
    }

    /// A jump, call or return to a place in `target`, a linear address. Under single step the block
    /// must end in the trap, so the target goes through pc.
    pub fn indirect(&mut self, target: Value, end: impl FnOnce(&mut Ir, Value)) {
        if self.mode.single_step || self.mode.shadow || self.mode.breakpoints {
            self.ir.put(state::PC, target);
            let zero = self.ir.imm(0);
            self.ir.put(state::SHADOW, zero);
            if self.mode.single_step {
                let info = self.ir.imm(SINGLE_STEPPED as i64);
                self.ir.raise(exception::DB, info);
            } else {
                self.ir.exit_mode();
            }
        } else {
            end(self.ir, target);
        }
    }
}

/// A piece of the code ahead.
struct Window<'a> {
    start: u64,
    valid: usize,
    /// No more can be read behind it.
    ends: bool,
    decoder: Decoder<'a>,
    /// The decoder's position, by address.
    at: u64,
    cs_base: u64,
}

/// Enough for most blocks and for the targets of their exits.
const WINDOW_BYTES: usize = 256;

enum Decoded {
    Instruction,
    Illegal,
    /// The first address that cannot be read.
    Unreadable(u64),
    /// Not in the window, or not all of it.
    Elsewhere,
}

impl<'a> Window<'a> {
    /// The code at `pc`: to the end of its page, and beyond it when an instruction may cross.
    fn at(pc: u64, mode: &Mode, bytes: &'a mut [u8; WINDOW_BYTES], fetch: &mut dyn Fetch) -> Self {
        let mut valid = fetch.fetch(pc, bytes).min(WINDOW_BYTES);
        if valid > 0 && valid < INSN_BYTES_MAX {
            let next = pc.wrapping_add(valid as u64);
            let room = &mut bytes[valid..];
            valid += fetch.fetch(next, room).min(room.len());
        }
        let cs_base = u64::from(mode.cs_base);
        let ip = pc.wrapping_sub(cs_base);
        let options = DecoderOptions::NONE;
        let decoder = Decoder::with_ip(mode.code_bits, &bytes[..valid], ip, options);
        Self { start: pc, valid, ends: valid < INSN_BYTES_MAX, decoder, at: pc, cs_base }
    }

    fn instruction(&mut self, pc: u64, insn: &mut Instruction) -> Decoded {
        let offset = pc.wrapping_sub(self.start) as usize;
        let whole = offset.checked_add(INSN_BYTES_MAX).is_some_and(|end| end <= self.valid);
        if !(whole || self.ends && offset == 0) {
            return Decoded::Elsewhere;
        }
        if pc != self.at {
            if self.decoder.set_position(offset).is_err() {
                return Decoded::Elsewhere;
            }
            self.decoder.set_ip(pc.wrapping_sub(self.cs_base));
        }
        self.decoder.decode_out(insn);
        self.at = pc.wrapping_add(insn.len() as u64);
        match self.decoder.last_error() {
            DecoderError::None => Decoded::Instruction,
            DecoderError::NoMoreBytes => Decoded::Unreadable(pc.wrapping_add(self.valid as u64)),
            _ => Decoded::Illegal,
        }
    }
}
