//! Estimates of reciprocals: the manual's integer arithmetic (shared/functions/float).

const FRACTION: u64 = (1 << 52) - 1;

/// Of 256 to 511: the reciprocal, scaled to the same range.
fn of_reciprocal(a: u64) -> u64 {
    let a = a * 2 + 1;
    ((1 << 19) / a).div_ceil(2)
}

/// Of 128 to 511: the reciprocal square root, scaled to 256 to 511.
fn of_root(a: u64) -> u64 {
    let a = if a < 256 { a * 2 + 1 } else { ((a >> 1 << 1) + 1) * 2 };
    let mut b = 512;
    while a * (b + 1) * (b + 1) < 1 << 28 {
        b += 1;
    }
    b.div_ceil(2)
}

/// URECPE, URSQRTE.
pub fn integer(a: u32, root: bool) -> u32 {
    let (top, least) = (u64::from(a >> 23), if root { 128 } else { 256 });
    if top < least {
        return u32::MAX;
    }
    let estimate = if root { of_root(top) } else { of_reciprocal(top) };
    (estimate as u32) << 23
}

/// FRECPE of a biased exponent and a fraction of 52 bits.
pub fn reciprocal(mut exponent: i64, mut fraction: u64, bias: i64) -> (i64, u64) {
    if exponent == 0 {
        if fraction >> 51 == 0 {
            exponent = -1;
            fraction = fraction << 2 & FRACTION;
        } else {
            fraction = fraction << 1 & FRACTION;
        }
    }
    let estimate = of_reciprocal(256 | fraction >> 44);
    let result = 2 * bias - 1 - exponent;
    let fraction = (estimate & 0xff) << 44;
    match result {
        0 => (0, 1 << 51 | fraction >> 1),
        -1 => (0, 1 << 50 | fraction >> 2),
        _ => (result, fraction),
    }
}

/// FRSQRTE likewise.
pub fn root(mut exponent: i64, mut fraction: u64, bias: i64) -> (i64, u64) {
    if exponent == 0 {
        while fraction >> 51 == 0 {
            fraction <<= 1;
            exponent -= 1;
        }
        fraction = fraction << 1 & FRACTION;
    }
    let scaled = if exponent & 1 == 0 { 256 | fraction >> 44 } else { 128 | fraction >> 45 };
    let estimate = of_root(scaled);
    ((3 * bias - 1 - exponent) >> 1, (estimate & 0xff) << 44)
}
