//! What lane operations mean. Rows without an immediate are host instructions (one row each in
//! `host/x86_64/instructions.rs`), applied to each half of a `V256`; rows with one, and those that
//! look across halves, are here.

use isa::ir::{Form, Lane, PackedRule, Round, Type};

use super::float::{self, Format};
use super::integer;
use crate::host::x86_64::instructions as host;

/// A vector: a `V128` is the first half, and the second is zero.
pub type Vector = [u128; 2];

/// Lane `index` of so many bytes.
fn lane(bytes: u32, vector: u128, index: u32) -> u64 {
    (vector >> (8 * bytes * index)) as u64 & mask(bytes)
}

fn mask(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}

/// A half made of lanes.
fn lanes(bytes: u32, mut make: impl FnMut(u32) -> u64) -> u128 {
    (0..16 / bytes)
        .fold(0, |sum, index| sum | u128::from(make(index) & mask(bytes)) << (8 * bytes * index))
}

/// The operation on vectors of `ty`; a mask is the low word of the result.
pub fn apply(control: &mut u32, row: Lane, ty: Type, operands: [Vector; 3], imm: u8) -> Vector {
    let [a, b, c] = operands;
    let wide = ty == Type::V256;
    if let Some(result) = across(row, wide, a, b, imm) {
        return result;
    }
    if let Form::Mask = row.row().form {
        return [masked(row, wide, a, b), 0];
    }
    if let Some((source_lane, result_lane)) = widths(row) {
        return changed_width(control, row, wide, a, source_lane, result_lane);
    }
    let mut half = |index: usize| match host::of_lane(row) {
        Some(instruction) => instruction(control, a[index], b[index], c[index]),
        None => with_immediate(control, row, a[index], b[index], imm, index),
    };
    let low = half(0);
    [low, if wide { half(1) } else { 0 }]
}

/// Signs to a mask, and `Test`.
fn masked(row: Lane, wide: bool, a: Vector, b: Vector) -> u128 {
    if row == Lane::Test {
        let zero = |x: Vector| x[0] == 0 && (!wide || x[1] == 0);
        let both = zero([a[0] & b[0], a[1] & b[1]]);
        let rest = zero([!a[0] & b[0], !a[1] & b[1]]);
        return u128::from(both) | u128::from(rest) << 1;
    }
    let bytes = match row {
        Lane::Mask8 => 1,
        Lane::Mask32 => 4,
        _ => 8,
    };
    let count = 16 / bytes;
    let signs = |half: u128| {
        (0..count)
            .fold(0, |sum, index| sum | (lane(bytes, half, index) >> (8 * bytes - 1)) << index)
    };
    u128::from(signs(a[0]) | if wide { signs(a[1]) << count } else { 0 })
}

/// Operations that look across the halves of a `V256`.
fn across(row: Lane, wide: bool, a: Vector, b: Vector, imm: u8) -> Option<Vector> {
    let words = |half: u128| [lane(8, half, 0), lane(8, half, 1)];
    Some(match row {
        Lane::Permute2x128 => {
            let choose = |control: u8| match control {
                0x8.. => 0,
                control => [a[0], a[1], b[0], b[1]][usize::from(control & 3)],
            };
            [choose(imm & 0xf & 0xb), choose(imm >> 4 & 0xb)]
        }
        Lane::PermuteEach32 => {
            let word = |index: u32| lane(4, b[index as usize / 4], index % 4);
            let half = |from: u128| lanes(4, |index| word(lane(4, from, index) as u32 & 7));
            [half(a[0]), half(a[1])]
        }
        Lane::Permute64 => {
            let all = [words(a[0]), words(a[1])].concat();
            let choose = |index: u32| all[usize::from(imm >> (2 * index) & 3)];
            [lanes(8, choose), lanes(8, |index| choose(index + 2))]
        }
        Lane::Broadcast8 | Lane::Broadcast16 | Lane::Broadcast32 | Lane::Broadcast64 => {
            let bytes = match row {
                Lane::Broadcast8 => 1,
                Lane::Broadcast16 => 2,
                Lane::Broadcast32 => 4,
                _ => 8,
            };
            let half = lanes(bytes, |_| lane(bytes, a[0], 0));
            [half, if wide { half } else { 0 }]
        }
        _ => return None,
    })
}

/// The lanes' bytes before and after an operation that changes them.
fn widths(row: Lane) -> Option<(u32, u32)> {
    Some(match row {
        Lane::WidenS8 | Lane::WidenU8 => (1, 2),
        Lane::WidenS8to32 | Lane::WidenU8to32 => (1, 4),
        Lane::WidenS8to64 | Lane::WidenU8to64 => (1, 8),
        Lane::WidenS16 | Lane::WidenU16 | Lane::HalfToF32 => (2, 4),
        Lane::WidenS16to64 | Lane::WidenU16to64 => (2, 8),
        Lane::WidenS32 | Lane::WidenU32 | Lane::FFromLow32to64 | Lane::F32To64 => (4, 8),
        Lane::F64To32 | Lane::F64ToZero32 | Lane::F64ToF32 => (8, 4),
        _ => return None,
    })
}

/// Of a `V256`, widening takes the low lanes; narrowing leaves the upper half zero.
fn changed_width(
    control: &mut u32,
    row: Lane,
    wide: bool,
    a: Vector,
    from: u32,
    to: u32,
) -> Vector {
    let instruction = host::of_lane(row).expect("these have instructions");
    let low = instruction(control, a[0], 0, 0);
    if !wide {
        return [low, 0];
    }
    if from < to {
        let taken = 16 / to * from;
        return [low, instruction(control, a[0] >> (8 * taken), 0, 0)];
    }
    [low & u128::from(u64::MAX) | instruction(control, a[1], 0, 0) << 64, 0]
}

/// Operations with an immediate, on one half.
fn with_immediate(control: &mut u32, row: Lane, a: u128, b: u128, imm: u8, half: usize) -> u128 {
    if let Form::ShiftImm(_) = row.row().form {
        return shifted(row, a, u32::from(imm));
    }
    match row {
        Lane::FDot32 | Lane::FDot64 => dot(control, row, a, b, imm),
        Lane::FRound32 | Lane::FRound64 | Lane::FRoundLow32 | Lane::FRoundLow64 => {
            rounded(control, row, a, b, imm)
        }
        Lane::FCompare32 | Lane::FCompare64 | Lane::FCompareLow32 | Lane::FCompareLow64 => {
            compared(control, row, a, b, imm)
        }
        Lane::MultiSumAbsDiff => sums(a, b, imm >> (3 * half)),
        Lane::AesKeygen => {
            let constant = u128::from(imm);
            host::aes_key(control, a, 0, 0) ^ constant << 32 ^ constant << 96
        }
        Lane::ClMul => {
            let (x, y) = (lane(8, a, u32::from(imm & 1)), lane(8, b, u32::from(imm >> 4 & 1)));
            integer::product(x, y)
        }
        _ => chosen(row, a, b, imm, half),
    }
}

fn shifted(row: Lane, a: u128, count: u32) -> u128 {
    let bytes = match row {
        Lane::ShlBytes => return if count < 16 { a << (8 * count) } else { 0 },
        Lane::ShrBytes => return if count < 16 { a >> (8 * count) } else { 0 },
        Lane::Shl16 | Lane::ShrU16 | Lane::ShrS16 => 2,
        Lane::Shl32 | Lane::ShrU32 | Lane::ShrS32 => 4,
        _ => 8,
    };
    let bits = 8 * bytes;
    lanes(bytes, |index| {
        let value = lane(bytes, a, index);
        match row {
            Lane::ShrS16 | Lane::ShrS32 => {
                (integer::signed(Type::integer(bytes), value) >> count.min(bits - 1)) as u64
            }
            _ if count >= bits => 0,
            Lane::Shl16 | Lane::Shl32 | Lane::Shl64 => value << count,
            _ => value >> count,
        }
    })
}

/// Shuffles and blends.
fn chosen(row: Lane, a: u128, b: u128, imm: u8, half: usize) -> u128 {
    let two = |index: u32| u32::from(imm >> (2 * index) & 3);
    let bit = |index: u32| imm >> index & 1 != 0;
    let blend = |bytes: u32, shift: u32| {
        lanes(bytes, |index| lane(bytes, if bit(index + shift) { b } else { a }, index))
    };
    let second = half as u32;
    match row {
        Lane::Shuffle32 | Lane::PermuteF32 => lanes(4, |index| lane(4, a, two(index))),
        Lane::PermuteF64 => lanes(8, |index| lane(8, a, u32::from(bit(index + 2 * second)))),
        Lane::ShuffleLo16 => {
            lanes(2, |index| lane(2, a, if index < 4 { two(index) } else { index }))
        }
        Lane::ShuffleHi16 => {
            lanes(2, |index| lane(2, a, if index < 4 { index } else { 4 + two(index - 4) }))
        }
        Lane::ShuffleF32 => lanes(4, |index| lane(4, if index < 2 { a } else { b }, two(index))),
        Lane::ShuffleF64 => {
            let from = |index: u32| u32::from(bit(index + 2 * second));
            lanes(8, |index| lane(8, if index == 0 { a } else { b }, from(index)))
        }
        Lane::AlignBytes => {
            let byte = |at: u32| match at {
                0..16 => lane(1, b, at),
                16..32 => lane(1, a, at - 16),
                _ => 0,
            };
            lanes(1, |index| byte(index + u32::from(imm)))
        }
        Lane::BlendImm16 => blend(2, 0),
        Lane::BlendImm32 => blend(4, 4 * second),
        Lane::BlendImm64 => blend(8, 2 * second),
        Lane::InsertF32 => {
            let (from, to) = (u32::from(imm >> 6), u32::from(imm >> 4 & 3));
            lanes(4, |index| match (bit(index), index == to) {
                (true, _) => 0,
                (_, true) => lane(4, b, from),
                _ => lane(4, a, index),
            })
        }
        row => unreachable!("{row:?} has no meaning yet"),
    }
}

/// Sums of absolute differences at eight places, of four bytes each.
fn sums(a: u128, b: u128, imm: u8) -> u128 {
    let (place, block) = (u32::from(imm >> 2 & 1) * 4, u32::from(imm & 3) * 4);
    lanes(2, |index| {
        let difference = |k: u32| lane(1, a, place + index + k).abs_diff(lane(1, b, block + k));
        (0..4).map(difference).sum()
    })
}

fn format(row: Lane) -> (Format, Type, u32) {
    match row {
        Lane::FDot32
        | Lane::FRound32
        | Lane::FRoundLow32
        | Lane::FCompare32
        | Lane::FCompareLow32 => (Format::SINGLE, Type::F32, 4),
        _ => (Format::DOUBLE, Type::F64, 8),
    }
}

/// The products that `imm` chooses, summed, in the lanes that it chooses. Which NaN a sum gives is
/// the host's affair, so it makes the sums: lanes that are not chosen come as zeros.
fn dot(control: &mut u32, row: Lane, a: u128, b: u128, imm: u8) -> u128 {
    let (all, bytes): (host::Instruction, u32) = match row {
        Lane::FDot32 => (host::dot_32, 4),
        _ => (host::dot_64, 8),
    };
    let some = |half: u128, imm: u8| {
        lanes(bytes, |index| if imm >> index & 1 != 0 { lane(bytes, half, index) } else { 0 })
    };
    some(all(control, some(a, imm >> 4), some(b, imm >> 4), 0), imm)
}

fn rounded(control: &mut u32, row: Lane, a: u128, b: u128, imm: u8) -> u128 {
    let (format, _, bytes) = format(row);
    let round = match imm & 7 {
        0 => Round::Nearest,
        1 => Round::Down,
        2 => Round::Up,
        3 => Round::Zero,
        _ => Round::Dynamic,
    };
    let mut one = |value: u64| float::to_integral(control, format, round, imm & 8 == 0, value);
    match row {
        Lane::FRound32 | Lane::FRound64 => lanes(bytes, |index| one(lane(bytes, a, index))),
        _ => {
            let low = one(lane(bytes, b, 0));
            lanes(bytes, |index| if index == 0 { low } else { lane(bytes, a, index) })
        }
    }
}

/// `cmpps` and its relatives, with AVX's 32 predicates.
fn compared(control: &mut u32, row: Lane, a: u128, b: u128, imm: u8) -> u128 {
    let (_, ty, bytes) = format(row);
    let mut one = |index: u32| {
        let (x, y) = (lane(bytes, a, index), lane(bytes, b, index));
        if predicate(control, ty, imm & 31, x, y) { u64::MAX } else { 0 }
    };
    match row {
        Lane::FCompare32 | Lane::FCompare64 => lanes(bytes, one),
        _ => {
            let low = one(0);
            lanes(bytes, |index| if index == 0 { low } else { lane(bytes, a, index) })
        }
    }
}

fn predicate(control: &mut u32, ty: Type, imm: u8, a: u64, b: u64) -> bool {
    use isa::ir::{CARRY, PARITY, ZERO};
    // Less and less-or-equal signal in the first half of each sixteen; the second sixteen turn
    // all of that around.
    let ordering = matches!(imm & 3, 1 | 2);
    let signal = ordering != (imm >= 16);
    let flags = float::compared(control, ty, signal, a, b);
    let unordered = flags & PARITY != 0;
    let equal = !unordered && flags & ZERO != 0;
    let less = !unordered && flags & CARRY != 0;
    match imm & 15 {
        0 => equal,
        1 => less,
        2 => less || equal,
        3 => unordered,
        4 => !equal,
        5 => !less,
        6 => !(less || equal),
        7 => !unordered,
        8 => equal || unordered,
        9 => less || unordered,
        10 => less || equal || unordered,
        11 => false,
        12 => !equal && !unordered,
        13 => !less && !unordered,
        14 => !less && !equal && !unordered,
        _ => true,
    }
}

/// `Packed`: the row's operation, and what the rule makes of NaNs.
pub fn packed(
    control: &mut u32,
    row: Lane,
    rule: PackedRule,
    operands: [u128; 3],
    imm: u8,
) -> u128 {
    let (ty, bytes) = if is_double(row) { (Type::F64, 8) } else { (Type::F32, 4) };
    let format = Format::of(ty);
    let [a, b, c] = operands;
    if matches!(rule, PackedRule::MinMax | PackedRule::MinMaxDefault) {
        let max = matches!(row, Lane::FMax32 | Lane::FMax64);
        let default = rule == PackedRule::MinMaxDefault;
        return lanes(bytes, |index| {
            let (x, y) = (lane(bytes, a, index), lane(bytes, b, index));
            float::packed_min_max(control, default, ty, max, x, y)
        });
    }
    let of = [[a, 0], [b, 0], [c, 0]];
    let [result, _] = apply(control, row, Type::V128, of, imm);
    lanes(bytes, |index| {
        let [x, y, z] = operands.map(|operand| lane(bytes, operand, index));
        let result = lane(bytes, result, index);
        match row.row().form {
            Form::Fma => float::packed_fused(control, rule, format, result, [x, y, z]),
            Form::Unary | Form::UnaryImm => float::packed(rule, format, result, &[x]),
            _ => float::packed(rule, format, result, &[x, y]),
        }
    })
}

/// Packed doubles have prefix 0x66, fused ones VEX.W.
fn is_double(row: Lane) -> bool {
    match row.row().form {
        Form::Fma => row.row().encoding.w,
        Form::UnaryImm => row == Lane::FRound64,
        _ => row.row().encoding.prefix == 0x66,
    }
}
