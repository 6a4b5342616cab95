//! What integer operations mean.

use isa::ir::{Code, Type, compute};

/// Sign-extends from a type.
pub fn signed(ty: Type, value: u64) -> i64 {
    let shift = 64 - ty.bits();
    (value << shift) as i64 >> shift
}

/// Two operands of a type, or a value and a count.
pub fn binary(code: Code, ty: Type, a: u64, b: u64) -> u64 {
    if let Some(value) = compute(code, ty, a, b) {
        return value;
    }
    let (bits, mask) = (ty.bits(), ty.mask());
    let (wide_a, wide_b) = (u128::from(a), u128::from(b));
    let (sa, sb) = (i128::from(signed(ty, a)), i128::from(signed(ty, b)));
    let value = match code {
        Code::MulHiS => (sa.wrapping_mul(sb) >> bits) as u64,
        Code::MulHiU => ((wide_a * wide_b) >> bits) as u64,
        Code::MulHiSU => (sa.wrapping_mul(wide_b as i128) >> bits) as u64,
        Code::DivS if b == 0 => u64::MAX,
        Code::DivS => (sa / sb) as u64,
        Code::DivU => a.checked_div(b).unwrap_or(u64::MAX),
        Code::RemS if b == 0 => a,
        Code::RemS => (sa % sb) as u64,
        Code::RemU => a.checked_rem(b).unwrap_or(a),
        Code::RotL => rotated(bits, a, b % u64::from(bits)),
        Code::RotR => rotated(bits, a, (u64::from(bits) - b % u64::from(bits)) % u64::from(bits)),
        Code::Pext => gathered(a, b),
        Code::Pdep => scattered(a, b),
        Code::ClMul => product(a, b) as u64,
        Code::ClMulHi => (product(a, b) >> 64) as u64,
        code => unreachable!("{code:?} has not two integer operands"),
    };
    value & mask
}

/// One operand of a type.
pub fn unary(code: Code, ty: Type, a: u64) -> u64 {
    let bits = ty.bits();
    let value = match code {
        Code::Neg => a.wrapping_neg(),
        Code::Not => !a,
        Code::Clz => u64::from(a.leading_zeros() - (64 - bits)),
        Code::Ctz => u64::from(a.trailing_zeros().min(bits)),
        Code::Popcnt => u64::from(a.count_ones()),
        Code::Bswap => a.swap_bytes() >> (64 - bits),
        Code::BitRev => a.reverse_bits() >> (64 - bits),
        code => unreachable!("{code:?} has not one integer operand"),
    };
    value & ty.mask()
}

/// `a + b + c` or `a - b - c`; `ShlDouble` and `ShrDouble`.
pub fn ternary(code: Code, ty: Type, a: u64, b: u64, c: u64) -> u64 {
    let bits = ty.bits();
    let count = (c % u64::from(bits)) as u32;
    let (wide_a, wide_b) = (u128::from(a), u128::from(b));
    let value = match code {
        Code::Adc => a.wrapping_add(b).wrapping_add(c),
        Code::Sbb => a.wrapping_sub(b).wrapping_sub(c),
        Code::ShlDouble => ((wide_a << bits | wide_b) << count >> bits) as u64,
        Code::ShrDouble => ((wide_b << bits | wide_a) >> count) as u64,
        code => unreachable!("{code:?} has not three integer operands"),
    };
    value & ty.mask()
}

fn rotated(bits: u32, a: u64, count: u64) -> u64 {
    if count == 0 { a } else { a << count | a >> (u64::from(bits) - count) }
}

fn gathered(a: u64, mask: u64) -> u64 {
    let chosen = (0..64).filter(|bit| mask >> bit & 1 != 0);
    chosen.enumerate().fold(0, |sum, (to, from)| sum | (a >> from & 1) << to)
}

fn scattered(a: u64, mask: u64) -> u64 {
    let chosen = (0..64).filter(|bit| mask >> bit & 1 != 0);
    chosen.enumerate().fold(0, |sum, (from, to)| sum | (a >> from & 1) << to)
}

/// The product without carries.
pub fn product(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |sum, bit| sum ^ u128::from(a) << bit)
}

/// CRC-32 over the bytes of `data`, bit by bit.
pub fn crc32(castagnoli: bool, crc: u32, ty: Type, data: u64) -> u32 {
    let polynomial = if castagnoli { 0x82f6_3b78 } else { 0xedb8_8320 };
    let mut crc = u64::from(crc) ^ data & ty.mask();
    for _ in 0..ty.bits() {
        crc = if crc & 1 != 0 { crc >> 1 ^ polynomial } else { crc >> 1 };
    }
    crc as u32
}

/// Quotient and remainder of the double-width `high:low`, or nothing when there is none.
pub fn divide_wide(sign: bool, ty: Type, low: u64, high: u64, by: u64) -> Option<(u64, u64)> {
    let (bits, mask) = (ty.bits(), ty.mask());
    let dividend = u128::from(high) << bits | u128::from(low);
    if by == 0 {
        return None;
    }
    if !sign {
        let (quotient, rest) = (dividend / u128::from(by), dividend % u128::from(by));
        let fits = quotient <= u128::from(mask);
        return fits.then_some((quotient as u64, rest as u64));
    }
    let shift = 128 - 2 * bits;
    let dividend = (dividend << shift) as i128 >> shift;
    let by = i128::from(signed(ty, by));
    let quotient = dividend.checked_div(by)?;
    let fits = i128::from(signed(ty, quotient as u64)) == quotient;
    fits.then_some((quotient as u64 & mask, dividend.wrapping_rem(by) as u64 & mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_as_documented() {
        let min = 1 << 63;
        for (code, a, b, expected) in [
            (Code::DivS, min, u64::MAX, min),
            (Code::RemS, min, u64::MAX, 0),
            (Code::DivS, 7, 0, u64::MAX),
            (Code::RemU, 7, 0, 7),
            (Code::MulHiS, u64::MAX, u64::MAX, 0),
            (Code::MulHiSU, u64::MAX, u64::MAX, u64::MAX),
            (Code::MulHiU, u64::MAX, u64::MAX, u64::MAX - 1),
            (Code::Pext, 0xabcd, 0xff00, 0xab),
            (Code::Pdep, 0xab, 0xff00, 0xab00),
        ] {
            assert_eq!(binary(code, Type::I64, a, b), expected, "{code:?} {a:#x} {b:#x}");
        }
        assert_eq!(divide_wide(true, Type::I8, 0, 0x80, 1), None);
        assert_eq!(divide_wide(true, Type::I8, 0x80, 0xff, 1), Some((0x80, 0)));
        assert_eq!(divide_wide(true, Type::I64, 0, min, u64::MAX), None);
        assert_eq!(crc32(true, 0xffff_ffff, Type::I8, 0x61) ^ 0xffff_ffff, 0xc1d0_4330);
    }
}
