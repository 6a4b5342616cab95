//! What the passes ask of every operation, in one byte by its code.

use isa::ir::{Code, Op, Value};

use super::is_exit;

/// May leave the block with a fault.
pub const FAULTS: u8 = 1;
/// `is_exit`.
pub const EXIT: u8 = 2;
/// Makes a value of values, and that is all.
pub const PURE: u8 = 4;
/// Which operands are values is not said by the code alone.
const FORMS: u8 = 8;
/// Its value may be computed where it is used.
pub const LAZY: u8 = 16;
/// Of the three bits that say which operands are values.
const OPERANDS: u32 = 5;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut index = 0;
    while index < Code::ALL.len() {
        let code = Code::ALL[index];
        classes[code as usize] = class(code);
        index += 1;
    }
    classes
};

const fn class(code: Code) -> u8 {
    let info = code.info();
    let pure = !info.effect && !info.faults && !matches!(code, Code::Get | Code::Flags);
    let lazy = matches!(
        code,
        Code::Const
            | Code::Pair
            | Code::Compare
            | Code::Condition
            | Code::Add
            | Code::Lea
            | Code::FCompare
    );
    let mut class = info.operands << OPERANDS;
    if info.faults {
        class |= FAULTS;
    }
    if is_exit(code) {
        class |= EXIT;
    }
    if pure {
        class |= PURE;
    }
    if matches!(code, Code::Lanes | Code::Packed) {
        class |= FORMS;
    }
    if lazy {
        class |= LAZY;
    }
    class
}

/// An operation's class.
#[inline(always)]
pub fn of(op: &Op) -> u8 {
    CLASSES[op.code as u8 as usize]
}

/// The operands that are values, and `Value::NONE` in the place of others.
#[inline(always)]
pub fn operands(op: &Op, class: u8) -> [Value; 3] {
    if class & FORMS != 0 {
        return operands_by_form(op);
    }
    let is_value = |slot: u32| class >> (OPERANDS + slot) & 1 != 0;
    [
        if is_value(0) { op.a } else { Value::NONE },
        if is_value(1) { op.b } else { Value::NONE },
        if is_value(2) { op.c } else { Value::NONE },
    ]
}

#[cold]
fn operands_by_form(op: &Op) -> [Value; 3] {
    let mut operands = op.operands();
    std::array::from_fn(|_| operands.next().unwrap_or(Value::NONE))
}
