//! Tier 1: one backward pass for liveness (`liveness.rs`), one forward pass that emits.
//!
//! Values live in scratch registers, in pinned registers (then they *are* guest state), in a
//! spill slot, or nowhere yet: constants, sums with constants, single-use addresses and
//! comparisons are computed where they are used. The order of events in the forward pass:
//! operands are brought into registers and locked, the result gets a register (the pinned one it
//! will be put into, when nothing between looks at the old contents), the instruction is emitted,
//! and what died is released.

mod class;
mod flags;
mod float;
mod flow;
mod fpu;
mod integer;
mod liveness;
mod memory;
mod packed;
mod registers;
mod repeat;
mod state;
mod survey;
mod vector;

use isa::ir::{Code, Ir, Op, Reg, Type, Value};

use super::Features;
use super::asm::{Asm, Label};
use super::map::HostMap;
use super::stubs::Stubs;
pub use memory::{COUNTS_AS_STORE, SlowAccess};
use registers::{Home, RegisterFile};

/// How guest addresses become host addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mmu {
    /// User mode: guest address + base = host address.
    Identity,
    /// System mode: the soft TLB; the view is that of the block's mode.
    Soft {
        /// `Mem::index(0)`.
        view: u16,
    },
}

/// What the compiler must know besides the IR.
pub struct Target<'a> {
    /// Registers.
    pub map: &'a HostMap,
    /// Stubs.
    pub stubs: Stubs,
    /// Host features.
    pub features: Features,
    /// Memory.
    pub mmu: Mmu,
    /// Where pc lies in state.
    pub pc: u16,
    /// State cells that faults do not need.
    pub relaxed: &'a [Reg],
    /// The address the code will lie at.
    pub base: u64,
    /// The number of the first exit site.
    pub first_site: u32,
    /// Exclusive-or'ed into jump cache tags: tells modes apart. With the variant clear and set.
    pub mode_tags: [u64; 2],
    /// The block's own variant.
    pub variant: bool,
    /// It counts how often it is entered, as the block of this number.
    pub counter: Option<usize>,
}

/// A direct exit.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Where it goes.
    pub target: u64,
    /// In which variant of the mode.
    pub variant: bool,
    /// The address of the displacement to patch.
    pub place: u64,
    /// What it jumps to while it is not linked.
    pub stub: u64,
}

/// Code that is not on the way: emitted behind the block.
#[derive(Clone, Copy, Debug)]
enum Cold {
    /// An exit's stub: says which site it is.
    Link { site: u32 },
    /// The block of this number was entered often enough.
    Hot { from: Label, number: usize },
    /// Leaves because of an exit request, or because a call found the return stack full.
    Kick { from: Label, site: u32 },
    /// A conditional exit that has something to do on its way: to check for an exit request, or to
    /// store the flags that only its target wants.
    Exit { from: Label, target: u64, variant: bool, checks: bool, flags: Option<flags::Image> },
    /// An indirect target is not in the jump cache; it is in `pc`.
    Lookup { from: Label, pc: u8 },
    /// The same of a target known here, whose pc this comes with; or leaves because of an exit
    /// request.
    Far { from: [Label; 2] },
    /// A return that does not match: resets the return stack, then the jump cache.
    Mismatch { from: Label, pc: u8, variant: bool },
    /// `RaiseIf`.
    Raise { from: Label, number: u16, info: u8, constant: u64 },
    /// A slow memory access.
    Slow(memory::Slow),
    /// A repeated string operation that the host cannot do.
    Repeat(repeat::Rest),
    /// A floating-point special case.
    Float(float::Special),
    /// An FPU operation that the helper has to do.
    Fpu(fpu::Rest),
    /// A NaN in a packed floating-point operation.
    Packed(packed::Fix),
}

/// What is known of a value.
#[derive(Clone, Copy)]
struct Fact {
    /// The value behind a mere view (truncation, free extension).
    canon: u32,
    /// The first `put` of it: from there on it is computed, even if it was lazy.
    put_at: u32,
    /// The last operation that uses it; 0 = none.
    last: u32,
    /// Where it can be had besides its register.
    home: Home,
    uses: u16,
    /// The pinned register it is going to be put into.
    hint: u8,
    /// The register it is in.
    place: u8,
    /// Nobody needs it.
    dead: bool,
    /// It is computed where it is used instead of where it stands.
    lazy: Lazy,
    is_flags: bool,
    /// Its operation uses flags that were made before.
    uses_flags: bool,
}

/// Whether a value is computed where it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lazy {
    No,
    /// It would be if it had one use.
    Shared,
    Yes,
}

/// Tier 1's working memory, reused from block to block.
#[derive(Default)]
pub struct Compiler {
    asm: Asm,
    /// What is known of each value.
    values: Vec<Fact>,
    /// Conditional exits, last first, that store this flags value on their way out.
    sunk: Vec<(u32, Value)>,
    /// The block has an exit to its own beginning.
    loops: bool,
    gprs: RegisterFile,
    xmms: RegisterFile,
    spills: u64,
    /// Values whose home is a state cell.
    cells: Vec<u32>,
    /// The flags value that the host's flags hold.
    eflags: Option<flags::HostFlags>,
    /// With the pc of the instruction, where it matters.
    cold: Vec<(u64, Cold)>,
    sites: Vec<Site>,
    /// (offset of code, pc) of instructions that may fault.
    faults: Vec<(u32, u64)>,
    /// Pinned registers that the operation at hand works with.
    borrowed: u16,
    borrowed_since: u32,
    /// Vector registers that the operation at hand works with beyond the scratch ones, and the
    /// spill slots that keep their contents.
    borrowed_xmms: Vec<(u8, u8)>,
    /// Code in which pinned registers were borrowed: from, to (offsets), which.
    borrows: Vec<(u32, u32, u16)>,
    /// Upper halves of vector registers may be other than zero somewhere in the block.
    wide: bool,
    /// The host knows that all upper halves are zero.
    uppers_clear: bool,
    /// The variant of the mode that exits lead to.
    variant: bool,
    /// The instruction being compiled.
    pc: u64,
    insn_noted: bool,
    /// The operation being compiled.
    at: u32,
}

/// What a compilation gives.
pub struct Output<'a> {
    /// The code.
    pub code: &'a [u8],
    /// Its direct exits.
    pub sites: &'a [Site],
    /// Where guest instructions that may fault begin, by offset.
    pub faults: &'a [(u32, u64)],
    /// Where pinned registers lie in `GPR_SAVE` instead: from, to (offsets), bit set.
    pub borrows: &'a [(u32, u32, u16)],
    /// Which of the sites leads from the block's entry to a better block, if it counts.
    pub entry: Option<u32>,
}

/// One compilation: the working memory with what it works on.
struct Job<'a> {
    c: &'a mut Compiler,
    ops: &'a [Op],
    t: &'a Target<'a>,
    start: u64,
}

impl Compiler {
    /// Compiles a block.
    pub fn compile(&mut self, ir: &Ir, target: &Target<'_>) -> Output<'_> {
        self.prepare(target);
        let (start, _) = ir.code_range();
        let mut job = Job { c: self, ops: ir.ops(), t: target, start };
        job.liveness();
        let entry = target.counter.map(|number| job.count_entry(number));
        job.emit();
        job.emit_cold();
        if let Some((_, on)) = entry {
            self.asm.patch(self.sites[0].place, on);
        }
        Output {
            code: self.asm.bytes(),
            sites: &self.sites,
            faults: &self.faults,
            borrows: &self.borrows,
            entry: entry.map(|(site, _)| site),
        }
    }

    fn prepare(&mut self, target: &Target<'_>) {
        self.asm.begin(target.base);
        self.values.clear();
        self.gprs.reset(target.map.scratch_mask);
        self.xmms.reset(0xf000);
        self.sunk.clear();
        self.spills = 0;
        self.cells.clear();
        self.eflags = None;
        self.cold.clear();
        self.sites.clear();
        self.faults.clear();
        self.borrows.clear();
        self.borrowed = 0;
        self.borrowed_xmms.clear();
        self.insn_noted = false;
        self.variant = target.variant;
        self.wide = target.variant;
        self.uppers_clear = false;
    }
}

/// Whether this 32-bit operation leaves the upper half of its register zero.
fn is_clean(op: &Op) -> bool {
    op.ty == Type::I32
        && matches!(
            op.code,
            Code::Add
                | Code::Sub
                | Code::Mul
                | Code::And
                | Code::Or
                | Code::Xor
                | Code::Shl
                | Code::ShrU
                | Code::ShrS
                | Code::RotL
                | Code::RotR
                | Code::Neg
                | Code::Not
                | Code::Load
                | Code::Select
                | Code::Extract
                | Code::Popcnt
                | Code::Clz
                | Code::Ctz
                | Code::Bswap
                | Code::Lea
                | Code::DivS
                | Code::DivU
                | Code::RemS
                | Code::RemU
        )
}

/// The passes.
impl Job<'_> {
    fn op(&self, value: Value) -> &Op {
        &self.ops[value.index()]
    }

    /// The value behind views.
    fn canon(&self, value: Value) -> u32 {
        self.c.values[value.index()].canon
    }

    /// The operation behind views.
    fn base(&self, value: Value) -> &Op {
        &self.ops[self.canon(value) as usize]
    }

    /// A value's type, as `Ir::ty`.
    fn ty(&self, value: Value) -> Type {
        let op = self.op(value);
        match op.code {
            Code::Compare | Code::Condition | Code::FCompare | Code::StoreConditional => Type::Bool,
            Code::Flags => Type::Flags,
            Code::Crc32 => Type::I32,
            Code::FToHalf => Type::I16,
            _ => op.ty,
        }
    }

    /// The constant behind views, cut to a type.
    fn constant(&self, value: Value, ty: Type) -> Option<u64> {
        let op = self.base(value);
        (op.code == Code::Const && op.ty != Type::V128).then(|| op.immediate() & ty.mask())
    }

    /// The constant as a sign-extended 32-bit immediate of an operation on `ty`.
    fn immediate(&self, value: Value, ty: Type) -> Option<i32> {
        let constant = self.constant(value, ty)?;
        let shift = 64 - ty.bits().max(8);
        i32::try_from((constant << shift) as i64 >> shift).ok()
    }

    /// Computed where it is used instead of where it stands.
    fn is_lazy(&self, index: u32) -> bool {
        self.c.values[index as usize].lazy == Lazy::Yes
    }

    /// The forward pass.
    fn emit(&mut self) {
        for index in 0..self.ops.len() as u32 {
            let fact = &self.c.values[index as usize];
            if fact.dead || fact.lazy == Lazy::Yes {
                continue;
            }
            self.c.at = index;
            let op = self.ops[index as usize];
            self.c.gprs.unlock();
            self.c.xmms.unlock();
            self.lower(index, &op);
            // These two neither use a value nor give one a scratch register.
            if !matches!(op.code, Code::InsnStart | Code::Nop) {
                self.release();
            }
        }
    }

    /// One operation.
    fn lower(&mut self, index: u32, op: &Op) {
        match op.code {
            Code::Nop | Code::Discard | Code::Const | Code::Pair | Code::Trunc => {}
            Code::InsnStart => {
                self.c.pc = op.immediate();
                self.c.insn_noted = false;
            }
            Code::Get => self.get(index, op),
            Code::Put => self.put(op),
            Code::Flags => self.flags(index, op),
            Code::Condition | Code::Compare | Code::FlagsImage => self.boolean(index, op),
            Code::Load
            | Code::Store
            | Code::Atomic
            | Code::Cas
            | Code::StoreConditional
            | Code::Fence
            | Code::ZeroBlock => self.memory(index, op),
            Code::FAdd
            | Code::FSub
            | Code::FMul
            | Code::FDiv
            | Code::FSqrt
            | Code::FMulAdd
            | Code::FMin
            | Code::FMax
            | Code::FNeg
            | Code::FAbs
            | Code::FCompare
            | Code::FConvert
            | Code::FFromHalf
            | Code::FToHalf
            | Code::FFromS
            | Code::FFromU
            | Code::FToS
            | Code::FToU
            | Code::FRound
            | Code::Bits
            | Code::FpControlPut
            | Code::FpControlGet => self.float(index, op),
            Code::Packed => self.packed(index, op),
            Code::Lanes
            | Code::Scalar
            | Code::ZeroUpper
            | Code::SetScalar
            | Code::LaneGet
            | Code::LanePut
            | Code::Splat
            | Code::Lo
            | Code::Hi
            | Code::HighHalf
            | Code::Join
            | Code::ClearUppers => self.vector(index, op),
            Code::Variant => self.c.variant = op.aux != 0,
            Code::Repeat => self.repeat(op),
            Code::Fpu => self.fpu(index, op),
            Code::Helper
            | Code::ExitIf
            | Code::Exit
            | Code::ExitIndirect
            | Code::Call
            | Code::CallIndirect
            | Code::Return
            | Code::ExitMode
            | Code::Raise
            | Code::RaiseIf => self.flow(index, op),
            _ => self.integer(index, op),
        }
    }

    /// The current instruction may fault from here on: remember its pc.
    fn may_fault(&mut self) {
        if !self.c.insn_noted {
            self.c.insn_noted = true;
            self.c.faults.push((self.c.asm.len() as u32, self.c.pc));
        }
    }
}

const fn is_exit(code: Code) -> bool {
    matches!(
        code,
        Code::ExitIf
            | Code::Exit
            | Code::ExitIndirect
            | Code::Call
            | Code::CallIndirect
            | Code::Return
            | Code::ExitMode
            | Code::Raise
    )
}
