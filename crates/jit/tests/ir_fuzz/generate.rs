//! Random blocks: every operation, on values of the right types.

use isa::Event;
use isa::ir::{
    AtomicOp, CARRY, Cmp, Code, Cond, FlagKind, Form, FpRule, Ir, Lane, Mem, MinMaxRule, NanRule,
    OVERFLOW, PARITY, PackedRule, Reg, Repeat, Round, SIGN, STATUS, Saturate, Type, Value, ZERO,
};
use jit::Features;

use crate::guest::{
    CODE, ENDING, FLAGS, PC, POINTERS, REPEAT, REPEAT_DOWN, REPEAT_FILL, REPEAT_HELPER, RETURNING,
    general, vector,
};
use crate::random::Random;

/// One random block.
#[derive(Clone)]
pub struct Case {
    pub seed: u64,
    /// How many steps.
    pub steps: usize,
    /// Those left out, to find the ones that matter.
    pub skipped: Vec<bool>,
    pub features: Features,
    /// Bits of the flags that the block defines.
    pub flags: u64,
    pub listing: String,
}

/// Appends the block at `pc`.
pub fn block(ir: &mut Ir, pc: u64, case: &mut Case) {
    let mut writer = Writer::new(ir, pc, case.features);
    for step in 0..case.steps {
        if !case.skipped[step] && !writer.ir.ended() {
            writer.random = Random::new(case.seed ^ (step as u64) << 40);
            writer.step();
        }
    }
    writer.random = Random::new(!case.seed);
    if !writer.ir.ended() {
        writer.end();
    }
    case.flags = writer.flags_ever;
    case.listing = ir.to_string();
}

const INTEGERS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const FLOATS: [Type; 2] = [Type::F32, Type::F64];

struct Writer<'a> {
    ir: &'a mut Ir,
    pc: u64,
    next: u64,
    random: Random,
    features: Features,
    /// Values to use, by type.
    pool: Vec<(Type, Value)>,
    /// Flags values and their defined bits.
    flags: Vec<(Value, u64)>,
    /// The defined bits of the flags in state, now and at the worst.
    flags_now: u64,
    flags_ever: u64,
}

impl<'a> Writer<'a> {
    fn new(ir: &'a mut Ir, pc: u64, features: Features) -> Self {
        ir.insn(pc, 4);
        Self {
            ir,
            pc,
            next: pc + 4,
            random: Random::new(1),
            features,
            pool: Vec::new(),
            flags: Vec::new(),
            flags_now: STATUS,
            flags_ever: STATUS,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.random.below(all.len())]
    }

    fn keep(&mut self, value: Value) {
        let ty = self.ir.ty(value);
        self.pool.push((ty, value));
    }

    /// A value of this type: a recent one, any one, a register or a constant.
    fn any(&mut self, ty: Type) -> Value {
        let found: Vec<Value> =
            self.pool.iter().filter(|(of, _)| *of == ty).map(|(_, value)| *value).collect();
        let choice = self.below(8);
        match choice {
            0..=5 if !found.is_empty() => {
                let back = if choice < 4 { found.len().min(3) } else { found.len() };
                found[found.len() - 1 - self.below(back)]
            }
            6 if ty.is_integer() => {
                let value = self.random.word();
                self.ir.constant(ty, value)
            }
            _ => self.fresh(ty),
        }
    }

    /// From state.
    fn fresh(&mut self, ty: Type) -> Value {
        let n = self.below(16);
        match ty {
            Type::Bool => {
                let (a, b) = (self.fresh(Type::I32), self.fresh(Type::I32));
                let cmp = self.one_of(&Cmp::ALL);
                self.ir.compare(cmp, a, b)
            }
            Type::F32 | Type::F64 | Type::V128 => self.ir.get(vector(n).as_type(ty)),
            _ => self.ir.get(general(n).as_type(ty)),
        }
    }

    fn integer(&mut self) -> Type {
        self.one_of(&[Type::I8, Type::I16, Type::I32, Type::I32, Type::I64, Type::I64, Type::I64])
    }

    fn word_type(&mut self) -> Type {
        self.one_of(&[Type::I32, Type::I64])
    }

    fn any_flags(&mut self) -> (Value, u64) {
        match self.flags.len() {
            count if count > 0 && self.below(4) != 0 => {
                let back = self.below(count.min(3));
                self.flags[count - 1 - back]
            }
            _ => (self.ir.get(FLAGS), self.flags_now),
        }
    }

    fn step(&mut self) {
        match self.below(35) {
            0..=3 => self.put(),
            4 => {
                let ty = self.one_of(&[Type::I8, Type::I16, Type::I32, Type::I64, Type::V128]);
                let value = self.fresh(ty);
                self.keep(value);
            }
            5..=8 => self.binary(),
            9 => self.shift(),
            10 => self.unary(),
            11 => self.ternary(),
            12 => self.width(),
            13 => self.field(),
            14 => self.choice(),
            15..=17 => self.make_flags(),
            18 => self.use_flags(),
            19..=21 => self.memory(),
            22 => self.atomic(),
            23..=24 => self.float(),
            25 => self.float_conversion(),
            26..=28 => self.lanes(),
            29 => self.vector_move(),
            30 => self.packed(),
            31 => self.special(),
            32 => self.leave(),
            33 => self.repeat(),
            _ => {
                self.ir.insn(self.next, 4);
                self.next += 4;
            }
        }
    }

    fn put(&mut self) {
        let n = self.below(16);
        match self.below(10) {
            0..=3 if !POINTERS.contains(&n) => {
                let value = self.any(Type::I64);
                self.ir.put(general(n), value);
            }
            4 | 5 if !POINTERS.contains(&n) => {
                let ty = self.one_of(&INTEGERS);
                let value = self.any(ty);
                let high = if ty == Type::I8 { self.below(2) } else { 0 };
                self.ir.put(Reg::new(usize::from(general(n).offset) + high, ty), value);
            }
            6 | 7 => {
                let value = self.any(Type::V128);
                self.ir.put(vector(n), value);
            }
            8 => {
                let ty = self.one_of(&FLOATS);
                let value = self.any(ty);
                let lanes = 16 / ty.bytes() as usize;
                let lane = if self.below(2) == 0 { 0 } else { self.below(lanes) };
                let offset = usize::from(vector(n).offset) + lane * ty.bytes() as usize;
                self.ir.put(Reg::new(offset, ty), value);
            }
            _ => {
                let (value, defined) = self.any_flags();
                self.ir.put(FLAGS, value);
                self.flags_now = defined;
                self.flags_ever &= defined;
            }
        }
    }

    fn binary(&mut self) {
        use Code as C;
        let code = self.one_of(&[
            C::Add,
            C::Add,
            C::Sub,
            C::Sub,
            C::Mul,
            C::And,
            C::Or,
            C::Xor,
            C::AndNot,
            C::MulHiS,
            C::MulHiU,
            C::MulHiSU,
            C::DivS,
            C::DivU,
            C::RemS,
            C::RemU,
        ]);
        let ty = self.integer();
        let (a, b) = (self.any(ty), self.any(ty));
        let value = match code {
            C::Add => self.ir.add(a, b),
            C::Sub => self.ir.sub(a, b),
            code => self.ir.alu(code, a, b),
        };
        self.keep(value);
    }

    fn count(&mut self, ty: Type) -> Value {
        match self.below(3) {
            0 => {
                let count_type = self.one_of(&[Type::I8, ty]);
                self.any(count_type)
            }
            _ => {
                let count = self.below(64) as u64;
                self.ir.constant(Type::I8, count)
            }
        }
    }

    fn shift(&mut self) {
        use Code as C;
        let code = self.one_of(&[C::Shl, C::ShrU, C::ShrS, C::RotL, C::RotR]);
        let ty = self.integer();
        let (a, count) = (self.any(ty), self.count(ty));
        let value = self.ir.alu(code, a, count);
        self.keep(value);
    }

    fn unary(&mut self) {
        use Code as C;
        let code = self.one_of(&[C::Neg, C::Not, C::Clz, C::Ctz, C::Popcnt, C::Bswap, C::BitRev]);
        let ty = self.integer();
        let a = self.any(ty);
        let value = self.ir.unary(code, a);
        self.keep(value);
    }

    fn ternary(&mut self) {
        use Code as C;
        let code = self.one_of(&[C::Adc, C::Sbb, C::ShlDouble, C::ShrDouble]);
        let value = match code {
            C::Adc | C::Sbb => {
                let ty = self.integer();
                let (a, b, c) = (self.any(ty), self.any(ty), self.any(Type::Bool));
                self.ir.ternary(code, a, b, c)
            }
            _ => {
                let ty = self.one_of(&[Type::I16, Type::I32, Type::I64]);
                let (a, b) = (self.any(ty), self.any(ty));
                // Beyond the width the host's instruction is undefined.
                let count = match (ty, self.below(2)) {
                    (Type::I16, _) => {
                        let count = self.below(16) as u64;
                        self.ir.constant(Type::I8, count)
                    }
                    (_, 0) => self.any(Type::I8),
                    _ => self.count(ty),
                };
                self.ir.ternary(code, a, b, count)
            }
        };
        self.keep(value);
    }

    fn width(&mut self) {
        let (x, y) = (self.integer(), self.integer());
        let value = match x.bytes().cmp(&y.bytes()) {
            std::cmp::Ordering::Less if self.below(2) == 0 => {
                let a = self.any(x);
                self.ir.sext(y, a)
            }
            std::cmp::Ordering::Less => {
                let a = self.any(x);
                self.ir.zext(y, a)
            }
            std::cmp::Ordering::Equal => {
                let a = self.any(Type::Bool);
                self.ir.zext(x, a)
            }
            std::cmp::Ordering::Greater => {
                let a = self.any(x);
                self.ir.trunc(y, a)
            }
        };
        self.keep(value);
    }

    fn field(&mut self) {
        let ty = self.one_of(&[Type::I32, Type::I64]);
        let low = self.below(ty.bits() as usize) as u32;
        let bits = 1 + self.below((ty.bits() - low) as usize) as u32;
        let (a, b) = (self.any(ty), self.any(ty));
        let value = match self.below(5) {
            0 => self.ir.extract(a, low, bits),
            1 => self.ir.extract_signed(a, low, bits),
            2 => self.ir.deposit(a, b, low, bits),
            _ => {
                let index = if self.below(3) == 0 { Value::NONE } else { b };
                let (scale, displacement) = (self.below(4) as u16, self.random.word() as i32);
                self.ir.lea(a, index, scale, displacement)
            }
        };
        self.keep(value);
    }

    fn choice(&mut self) {
        if self.below(2) == 0 {
            let (ty, cmp) = (self.integer(), self.one_of(&Cmp::ALL));
            let (a, b) = (self.any(ty), self.any(ty));
            let value = self.ir.compare(cmp, a, b);
            return self.keep(value);
        }
        let all = [Type::I8, Type::I32, Type::I64, Type::Bool, Type::F32, Type::F64, Type::V128];
        let ty = self.one_of(&all);
        let (a, b, c) = (self.any(Type::Bool), self.any(ty), self.any(ty));
        let value = self.ir.select(a, b, c);
        self.keep(value);
    }

    /// Flags, mostly right behind their operation.
    fn make_flags(&mut self) {
        use FlagKind as K;
        let ty = self.integer();
        let (a, b) = (self.any(ty), self.any(ty));
        let kind = FlagKind::ALL[self.below(FlagKind::ALL.len())];
        let behind = self.below(2) == 0;
        let none = Value::NONE;
        let (flags, defined) = match kind {
            K::Add | K::Sub | K::And | K::AddCarry | K::SubCarry => {
                let code = match kind {
                    K::Add | K::AddCarry => Code::Add,
                    K::And => Code::And,
                    _ => Code::Sub,
                };
                if behind {
                    let value = self.ir.alu(code, a, b);
                    self.keep(value);
                }
                (self.ir.flags(kind, ty, a, b, none), STATUS)
            }
            K::Adc | K::Sbb | K::AdcCarry => {
                let c = self.any(Type::Bool);
                if behind {
                    let code = if kind == K::Sbb { Code::Sbb } else { Code::Adc };
                    let value = self.ir.ternary(code, a, b, c);
                    self.keep(value);
                }
                (self.ir.flags(kind, ty, a, b, c), STATUS)
            }
            K::Inc | K::Dec => {
                let (old, of_old) = self.any_flags();
                (self.ir.flags(kind, ty, a, none, old), STATUS & !CARRY | of_old & CARRY)
            }
            K::Shl | K::ShrU | K::ShrS | K::RotL | K::RotR => self.shift_flags(kind, ty, a),
            K::MulU | K::MulS => (self.ir.flags(kind, ty, a, b, none), kind.defined(ty, 0)),
            K::Bit if ty != Type::I8 => {
                let (old, of_old) = self.any_flags();
                (self.ir.flags(kind, ty, a, b, old), of_old | CARRY)
            }
            K::Zero | K::Bit => {
                let (old, of_old) = self.any_flags();
                (self.ir.flags(K::Zero, ty, a, none, old), of_old | ZERO)
            }
            K::Count => (self.ir.flags(kind, ty, a, b, none), STATUS),
            K::FpCompare | K::FpCompareSignal | K::FpCompareArm | K::FpCompareArmSignal => {
                let ty = self.one_of(&FLOATS);
                let (a, b) = (self.any(ty), self.any(ty));
                (self.ir.flags(kind, ty, a, b, none), STATUS)
            }
            K::Image => {
                let a = self.any(Type::I64);
                (self.ir.flags(kind, Type::I64, a, none, none), STATUS)
            }
        };
        self.flags.push((flags, defined));
        if self.below(3) == 0 {
            self.ir.put(FLAGS, flags);
            self.flags_now = defined;
            self.flags_ever &= defined;
        }
    }

    fn shift_flags(&mut self, kind: FlagKind, ty: Type, a: Value) -> (Value, u64) {
        let rotation = matches!(kind, FlagKind::RotL | FlagKind::RotR);
        let modulo = if ty == Type::I64 { 63 } else { 31 };
        if self.below(2) == 0 && !rotation {
            let count = 1 + self.below(modulo) as u64;
            let by = self.ir.constant(Type::I8, count);
            let code = match kind {
                FlagKind::Shl => Code::Shl,
                FlagKind::ShrU => Code::ShrU,
                _ => Code::ShrS,
            };
            if self.below(2) == 0 {
                let value = self.ir.alu(code, a, by);
                self.keep(value);
            }
            let flags = self.ir.flags(kind, ty, a, by, Value::NONE);
            return (flags, kind.defined(ty, count));
        }
        let (old, of_old) = self.any_flags();
        let by = self.any(Type::I8);
        let by = self.ir.and_imm(by, modulo as u64);
        let defined = match rotation {
            // A multiple of the width that is not zero has a carry too.
            true => STATUS & !OVERFLOW,
            false => SIGN | ZERO | PARITY,
        };
        (self.ir.flags(kind, ty, a, by, old), defined & (of_old | if rotation { CARRY } else { 0 }))
    }

    fn use_flags(&mut self) {
        let (flags, defined) = self.any_flags();
        if self.below(3) == 0 {
            let image = self.ir.flags_image(flags);
            let value = self.ir.and_imm(image, defined);
            return self.keep(value);
        }
        let reads = |cond: Cond| match Cond::from_aux(cond as u16 & !1) {
            Cond::O => OVERFLOW,
            Cond::C => CARRY,
            Cond::Z => ZERO,
            Cond::Be | Cond::Hi => CARRY | ZERO,
            Cond::S => SIGN,
            Cond::P => PARITY,
            Cond::L => SIGN | OVERFLOW,
            _ => SIGN | OVERFLOW | ZERO,
        };
        let cond = self.one_of(&Cond::ALL);
        if reads(cond) & !defined == 0 {
            let value = self.ir.condition(cond, flags);
            self.keep(value);
        }
    }

    /// An address of data, and how far it may be displaced.
    fn address(&mut self) -> Value {
        let base = self.ir.get(general(POINTERS[self.random.below(2)]));
        match self.below(16) {
            0 => {
                // Nothing is there.
                let nowhere = self.below(0x700) as i64;
                self.ir.imm(nowhere)
            }
            1..=4 => {
                let index = self.any(Type::I64);
                let index = self.ir.and_imm(index, 0xff);
                let scale = self.below(4) as u16;
                self.ir.lea(base, index, scale, 0)
            }
            5 | 6 => {
                let index = self.any(Type::I64);
                let index = self.ir.and_imm(index, 0x1ff0);
                self.ir.add(base, index)
            }
            7 => self.ir.add_imm(base, 0x1000 - 32),
            _ => base,
        }
    }

    fn access(&mut self, bytes: u32) -> Mem {
        let mem = Mem::new(bytes).index(self.random.below(4) as u16);
        if self.below(8) == 0 { mem.aligned() } else { mem }
    }

    fn displacement(&mut self) -> i32 {
        match self.below(4) {
            0 => 0,
            1 => self.below(8) as i32 * 8,
            _ => self.below(512) as i32,
        }
    }

    fn memory(&mut self) {
        let (address, displacement) = (self.address(), self.displacement());
        let ty = self.one_of(&[
            Type::I8,
            Type::I16,
            Type::I32,
            Type::I64,
            Type::I64,
            Type::F32,
            Type::F64,
            Type::V128,
        ]);
        if self.below(2) == 0 {
            let value = self.any(ty);
            let mut mem = self.access(ty.bytes());
            if ty.is_integer() && self.below(4) == 0 {
                mem = mem.big_endian();
            }
            return self.ir.store(address, displacement, value, mem);
        }
        let bytes = match ty {
            Type::V128 => self.one_of(&[4, 8, 16, 16]),
            ty if ty.is_integer() => 1 << self.below(ty.bytes().trailing_zeros() as usize + 1),
            ty => ty.bytes(),
        };
        let mut mem = self.access(bytes);
        if ty.is_integer() {
            mem = if self.below(3) == 0 { mem.signed() } else { mem };
            mem = if self.below(4) == 0 { mem.big_endian() } else { mem };
        }
        let value = self.ir.load(ty, address, displacement, mem);
        self.keep(value);
    }

    fn atomic(&mut self) {
        let ty = self.integer();
        let mem = Mem::new(ty.bytes());
        let base = self.ir.get(general(POINTERS[self.random.below(2)]));
        let displacement = self.below(32) as i64 * 16;
        let address = match self.below(12) {
            0 => self.ir.imm(displacement),
            _ => self.ir.add_imm(base, displacement),
        };
        match self.below(8) {
            0..=3 => {
                let kind = self.one_of(&AtomicOp::ALL);
                let operand = self.any(ty);
                let old = self.ir.atomic(kind, address, operand, mem);
                if self.below(3) != 0 {
                    self.keep(old);
                }
            }
            4 | 5 => {
                let new = self.any(ty);
                let expected = match self.below(2) {
                    0 => self.any(ty),
                    _ => self.ir.load(ty, address, 0, mem),
                };
                let old = self.ir.cas(address, expected, new, mem);
                self.keep(old);
            }
            6 => {
                let ty = self.word_type();
                let mem = Mem::new(ty.bytes());
                let loaded = self.ir.load(Type::I64, address, 0, mem);
                let at = if self.below(4) == 0 { self.any(Type::I64) } else { address };
                let pair = self.ir.pair(at, loaded);
                let new = self.any(ty);
                let done = self.ir.store_conditional(address, new, pair, mem);
                self.keep(done);
            }
            _ => {
                let [a, b, c, d] = [Type::I64; 4].map(|ty| self.any(ty));
                let (expected, new) = (self.ir.pair(a, b), self.ir.pair(c, d));
                let old = self.ir.cas(address, expected, new, Mem::new(16).aligned());
                let (low, high) = (self.ir.lo(old), self.ir.hi(old));
                self.keep(low);
                self.keep(high);
            }
        }
    }

    fn rule(&mut self) -> FpRule {
        let nan = self.one_of(&[NanRule::X86, NanRule::Default, NanRule::Arm, NanRule::Power]);
        let round = match self.below(4) {
            0 => self.one_of(&[Round::Nearest, Round::Down, Round::Up, Round::Zero]),
            _ => Round::Dynamic,
        };
        FpRule::new(nan).rounding(round)
    }

    fn float(&mut self) {
        use Code as C;
        let (ty, rule) = (self.one_of(&FLOATS), self.rule());
        let (a, b, c) = (self.any(ty), self.any(ty), self.any(ty));
        let value = match self.below(12) {
            0 => self.ir.fsqrt(a, rule),
            1 if self.features.fma => self.ir.fmul_add(a, b, c, rule),
            2 | 3 => {
                let code = self.one_of(&[C::FMin, C::FMax]);
                let rule = self.one_of(&[MinMaxRule::X86, MinMaxRule::Number, MinMaxRule::Nan]);
                self.ir.fminmax(code, a, b, rule)
            }
            4 => {
                let code = self.one_of(&[C::FNeg, C::FAbs]);
                self.ir.unary(code, a)
            }
            5 | 6 => {
                let kind = self.below(6) as u16;
                self.ir.fcompare(kind, a, b)
            }
            _ => {
                let code = self.one_of(&[C::FAdd, C::FSub, C::FMul, C::FDiv]);
                self.ir.fp(code, a, b, rule)
            }
        };
        self.keep(value);
    }

    fn float_conversion(&mut self) {
        use Code as C;
        let (ty, rule) = (self.one_of(&FLOATS), self.rule());
        let a = self.any(ty);
        let other = if ty == Type::F32 { Type::F64 } else { Type::F32 };
        let same = if ty == Type::F32 { Type::I32 } else { Type::I64 };
        let value = match self.below(9) {
            0 => self.ir.fconvert(C::FConvert, other, a, rule),
            1 if self.features.f16c => {
                let half = self.any(Type::I16);
                self.ir.fconvert(C::FFromHalf, ty, half, FpRule::new(NanRule::X86))
            }
            2 if self.features.f16c => {
                self.ir.fconvert(C::FToHalf, Type::I16, a, FpRule::new(NanRule::X86))
            }
            3 | 4 => {
                let code = self.one_of(&[C::FFromS, C::FFromU]);
                let from = self.word_type();
                let number = self.any(from);
                self.ir.fconvert(code, ty, number, rule)
            }
            5 | 6 => {
                let code = self.one_of(&[C::FToS, C::FToU]);
                let to = self.word_type();
                let saturate = match code {
                    C::FToS => {
                        self.one_of(&[Saturate::Indefinite, Saturate::NanZero, Saturate::NanMax])
                    }
                    _ => self.one_of(&[Saturate::NanZero, Saturate::NanMax]),
                };
                let rule = if self.below(4) == 0 { rule.rounding(Round::Away) } else { rule };
                self.ir.fto_int(code, to, a, rule, saturate)
            }
            7 => {
                let rule = if self.below(4) == 0 { rule.rounding(Round::Away) } else { rule };
                let inexact = rule.round != Round::Away && self.below(2) == 0;
                self.ir.fround(a, rule, inexact)
            }
            _ if self.below(2) == 0 => self.ir.bits(same, a),
            _ => {
                let a = self.any(same);
                self.ir.bits(ty, a)
            }
        };
        self.keep(value);
    }

    fn lanes(&mut self) {
        let lane = self.one_of(Lane::ALL);
        let row = lane.row();
        let only_wide = [Lane::Permute2x128, Lane::PermuteEach32, Lane::Permute64];
        if only_wide.contains(&lane) || needs_vex(lane) && !self.features.avx2 {
            return;
        }
        if row.form == Form::Fma && !self.features.fma {
            return;
        }
        if matches!(lane, Lane::HalfToF32 | Lane::F32ToHalf) && !self.features.f16c {
            return;
        }
        if row.legacy && !self.features.sha {
            return;
        }
        let (a, b, c) = (self.any(Type::V128), self.any(Type::V128), self.any(Type::V128));
        let imm = self.random.draw() as u8;
        let value = match row.form {
            Form::Unary => self.ir.lanes1(lane, a, 0),
            Form::UnaryImm | Form::UnaryImmReversed => self.ir.lanes1(lane, a, imm),
            Form::ShiftImm(_) => self.ir.lanes1(lane, a, imm & 0x47),
            Form::Mask if !matches!(lane, Lane::Test | Lane::Test32 | Lane::Test64) => {
                self.ir.lanes1(lane, a, 0)
            }
            Form::Mask | Form::Binary => self.ir.lanes2(lane, a, b),
            Form::BinaryImm => {
                let compares = row.name.starts_with("cmp");
                self.ir.lanes2_imm(lane, a, b, if compares { imm & 7 } else { imm })
            }
            Form::Ternary | Form::Fma => self.ir.lanes3(lane, a, b, c),
        };
        if self.ir.ty(value) == Type::V128 {
            // Unused it need not be done, and then FP rows would leave no sticky bits.
            let n = self.below(16);
            self.ir.put(vector(n), value);
        }
        self.keep(value);
    }

    fn vector_move(&mut self) {
        let ty = self.one_of(&FLOATS);
        let (a, x, int) = (self.any(Type::V128), self.any(ty), self.one_of(&INTEGERS));
        let lane = self.below(16 / int.bytes() as usize) as u32;
        let value = match self.below(11) {
            9 | 10 if self.features.avx2 => return self.halves(),
            0 => self.ir.scalar(ty, a),
            1 => self.ir.zero_upper(x),
            2 => {
                let number = self.any(int);
                self.ir.zero_upper(number)
            }
            3 => self.ir.set_scalar(a, x),
            4 => self.ir.lane_get(int, a, lane),
            5 => {
                let number = self.any(int);
                self.ir.lane_put(a, number, lane)
            }
            6 => {
                let number = self.any(int);
                self.ir.splat(Type::V128, number)
            }
            7 => self.ir.lo(a),
            _ => self.ir.hi(a),
        };
        self.keep(value);
    }

    /// Halves made whole, worked on, and taken apart.
    fn halves(&mut self) {
        use Lane as L;
        let [a, b, c] = [Type::V128; 3].map(|ty| self.any(ty));
        let x = self.ir.join(a, b);
        let y = if self.below(2) == 0 { self.ir.widen(c) } else { self.ir.join(c, a) };
        let lane = self.one_of(&[L::Add32, L::And, L::Sub8, L::ZipLo32, L::Shuffle8, L::Shl16By]);
        let sum = match self.below(4) {
            0 => self.ir.lanes2_imm(L::Permute2x128, x, y, self.random.draw() as u8),
            1 => {
                let operands = [c, Value::NONE, Value::NONE];
                self.ir.lanes_as(Type::V256, L::WidenU8, operands, 0)
            }
            _ => self.ir.lanes2(lane, x, y),
        };
        let value = if self.below(2) == 0 { self.ir.high_half(sum) } else { self.ir.low_half(sum) };
        self.keep(value);
    }

    fn packed(&mut self) {
        use Lane as L;
        let [a, b, c] = [Type::V128; 3].map(|ty| self.any(ty));
        let none = Value::NONE;
        let plain = [PackedRule::Arm, PackedRule::Default];
        let min_max = [PackedRule::MinMax, PackedRule::MinMaxDefault];
        let value = match self.below(6) {
            0 if self.features.fma => {
                let (lane, rule) =
                    (self.one_of(&[L::FMulAdd32, L::FMulAdd64]), self.one_of(&plain));
                self.ir.packed(lane, rule, [a, b, c], 0)
            }
            1 | 2 => {
                let all = [L::FMin32, L::FMin64, L::FMax32, L::FMax64];
                let (lane, rule) = (self.one_of(&all), self.one_of(&min_max));
                self.ir.packed(lane, rule, [a, b, none], 0)
            }
            3 => {
                let (lane, rule) = (self.one_of(&[L::FSqrt32, L::FSqrt64]), self.one_of(&plain));
                self.ir.packed(lane, rule, [a, none, none], 0)
            }
            _ => {
                let all = [
                    L::FAdd32,
                    L::FAdd64,
                    L::FSub32,
                    L::FSub64,
                    L::FMul32,
                    L::FMul64,
                    L::FDiv32,
                    L::FDiv64,
                ];
                let (lane, rule) = (self.one_of(&all), self.one_of(&plain));
                self.ir.packed(lane, rule, [a, b, none], 0)
            }
        };
        self.keep(value);
    }

    /// What fits nowhere else.
    fn special(&mut self) {
        use Code as C;
        let value = match self.below(8) {
            0 => {
                let (ty, signed) = (self.integer(), self.below(2) == 0);
                let (low, high, by) = (self.any(ty), self.any(ty), self.any(ty));
                let zero = self.ir.constant(ty, 0);
                let high = match self.below(4) {
                    0 => high,
                    _ if signed => {
                        let sign = self.ir.constant(Type::I8, u64::from(ty.bits() - 1));
                        self.ir.alu(C::ShrS, low, sign)
                    }
                    _ => zero,
                };
                let (quotient, remainder) = self.ir.div_wide(signed, low, high, by);
                self.keep(quotient);
                remainder
            }
            1 => {
                let (ty, castagnoli) = (self.integer(), self.below(2) == 0);
                let (crc, data) = (self.any(Type::I32), self.any(ty));
                self.ir.crc32(castagnoli, crc, data)
            }
            2 => {
                let code = self.one_of(&[C::ClMul, C::ClMulHi]);
                let (a, b) = (self.any(Type::I64), self.any(Type::I64));
                self.ir.alu(code, a, b)
            }
            3 if self.features.bmi2 => {
                let (ty, code) = (self.word_type(), self.one_of(&[C::Pext, C::Pdep]));
                let (a, b) = (self.any(ty), self.any(ty));
                self.ir.alu(code, a, b)
            }
            4 => {
                let value = self.any(Type::I32);
                let value = self.ir.and_imm(value, 0xe03f);
                let masks = self.ir.imm32(0x1f80);
                let value = self.ir.alu(C::Or, value, masks);
                return self.ir.fp_control_put(value);
            }
            5 => {
                // All but "denormal operand", which no guest reads through these operations.
                let status = self.ir.fp_control_get();
                self.ir.and_imm(status, 0xfffd)
            }
            6 => return self.ir.fence(),
            _ => {
                let base = self.ir.get(general(POINTERS[0]));
                let offset = self.below(16) as i64 * 64;
                let address = self.ir.add_imm(base, offset);
                return self.ir.zero_block(address, 64);
            }
        };
        self.keep(value);
    }

    /// Copies or fills some of the data, near page borders and overlapping too; now and then where
    /// no memory is.
    fn repeat(&mut self) {
        let ty = self.one_of(&INTEGERS);
        let fill = self.below(2) == 0;
        let [_, count, source, target, direction] = REPEAT;
        let pointer = self.ir.get(general(POINTERS[1]));
        let mut near = 4096 + self.below(3900) as i64;
        for cell in [source, target] {
            let place = self.ir.add_imm(pointer, near);
            self.ir.put(general(cell), place);
            near = match self.below(3) {
                0 => near + self.below(32) as i64 - 16,
                1 => 8192 - 64 - self.below(64) as i64,
                _ => 4096 + self.below(3900) as i64,
            };
        }
        if self.below(16) == 0 {
            let nowhere = self.ir.imm(0x1008);
            let cell = self.one_of(&[source, target]);
            self.ir.put(general(cell), nowhere);
        }
        let most = if self.below(4) == 0 { 3900 } else { 64 };
        let elements = self.below(most / ty.bytes() as usize);
        let elements = self.ir.imm(elements as i64);
        self.ir.put(general(count), elements);
        let fill_bit = if fill { REPEAT_FILL } else { 0 };
        let repeat = Repeat {
            helper: REPEAT_HELPER,
            argument: ty.bytes() | fill_bit,
            target: general(target).offset,
            source: general(if fill { REPEAT[0] } else { source }).offset,
            count: general(count).offset,
            down: general(direction).offset,
            down_bit: REPEAT_DOWN,
            fill,
            narrow: false,
        };
        self.ir.repeat(ty, &repeat);
        let pointer = self.ir.get(general(POINTERS[1]));
        self.ir.put(general(POINTERS[0]), pointer);
    }

    /// Side exits, exceptions and helpers.
    fn leave(&mut self) {
        match self.below(4) {
            0 => {
                let condition = self.any(Type::Bool);
                let to = self.target();
                if self.ir.as_const(condition).is_none() {
                    self.ir.exit_if(condition, to);
                }
            }
            1 => {
                let (a, b) = (self.any(Type::I64), self.any(Type::I64));
                let seven = self.ir.imm(7);
                let condition = self.ir.compare(Cmp::Eq, a, seven);
                if self.ir.as_const(condition).is_none() {
                    self.ir.raise_if(condition, 99, b);
                }
            }
            _ => {
                let [a, b, c] = [Type::I64; 3].map(|ty| self.any(ty));
                let helper = self.below(6).saturating_sub(3);
                let c = if self.below(2) == 0 { Value::NONE } else { c };
                let value = self.ir.helper(helper, a, b, c);
                self.keep(value);
            }
        }
    }

    /// A pc where the case ends: near before or behind, or on another page.
    fn target(&mut self) -> u64 {
        let page = self.pc & !0xfff;
        match self.below(4) {
            0 => page | ENDING,
            1 => page | (0xf00 + ENDING),
            2 => page + 0x5000 + ENDING,
            _ => CODE - 0x10_0000 + ENDING,
        }
    }

    fn end(&mut self) {
        let (to, back) = (self.target(), self.target());
        let to_value = self.ir.imm(to as i64);
        let dynamic = {
            // Not a constant for the builder.
            let pointer = self.ir.get(general(POINTERS[1]));
            let zero = self.ir.sub(pointer, pointer);
            self.ir.alu(Code::Or, zero, to_value)
        };
        match self.below(8) {
            0 => self.ir.exit(to),
            1 => self.ir.exit_indirect(dynamic),
            2 | 3 => {
                // The callee returns to where it should, or elsewhere.
                let link = self.ir.imm(if self.random.below(2) == 0 { back } else { to } as i64);
                self.ir.put(general(1), link);
                let callee = (self.pc & !0xfff) + 0xe00 + RETURNING;
                match self.below(2) {
                    0 => self.ir.call(callee, back),
                    _ => {
                        let callee = self.ir.imm(callee as i64);
                        let zero = self.ir.sub(dynamic, to_value);
                        let callee = self.ir.add(zero, callee);
                        self.ir.call_indirect(callee, back);
                    }
                }
            }
            4 => self.ir.ret(dynamic),
            5 => {
                self.ir.put(PC, dynamic);
                self.ir.exit_mode();
            }
            _ => {
                self.ir.put(PC, to_value);
                let info = self.any(Type::I64);
                let number = if self.random.below(2) == 0 { 5 } else { Event::SYSTEM_CALL };
                self.ir.raise(number, info);
            }
        }
    }
}

/// Rows whose instruction has no form without VEX.
fn needs_vex(lane: Lane) -> bool {
    let row = lane.row();
    row.form == Form::Fma || row.name.starts_with('v')
}
