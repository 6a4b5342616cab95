//! The x87's transcendental functions: computed with 113 bits, so that rounding to 64 gives what the
//! exact result gives but for the rarest arguments.
//!
//! Angles are reduced by the processor's own approximation of pi, which has 66 bits.

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::LazyLock;

use rustc_apfloat::ieee::{Quad, X87DoubleExtended as F80};
use rustc_apfloat::{Float, FloatConvert, Round};

/// A number of 113 bits.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Wide(Quad);

macro_rules! operators {
    ($($operator:ident $method:ident)*) => {$(
        impl $operator for Wide {
            type Output = Self;

            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0).value)
            }
        }
    )*};
}

operators!(Add add Sub sub Mul mul Div div);

impl Neg for Wide {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl From<F80> for Wide {
    fn from(value: F80) -> Self {
        let mut lost = false;
        Self(value.convert(&mut lost).value)
    }
}

impl Wide {
    fn integer(value: i128) -> Self {
        Self(Quad::from_i128(value).value)
    }

    fn decimal(digits: &str) -> Self {
        let number = Quad::from_str_r(digits, Round::NearestTiesToEven);
        Self(number.map_or(Quad::NAN, |number| number.value))
    }

    /// Times a power of two.
    fn shifted(self, by: i32) -> Self {
        Self(self.0.scalbn(by))
    }

    /// The number itself, for what is done with all numbers alike.
    pub fn number(self) -> Quad {
        self.0
    }

    fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// Adds up terms until they are too small to count; each comes of the one before and its number.
    fn series(first: Self, mut next: impl FnMut(Self, i128) -> [Self; 2]) -> Self {
        let (mut sum, mut power) = (first, first);
        for n in 1..64 {
            let [of_power, term] = next(power, n);
            power = of_power;
            if term.is_zero() || term.0.ilogb() < sum.0.ilogb().saturating_sub(120) {
                break;
            }
            sum = sum + term;
        }
        sum
    }
}

/// Constants that are no machine numbers.
struct Constants {
    pi: Wide,
    /// Half of the 66 bits of pi that processors have.
    half_pi_of_processors: Wide,
    ln_2: Wide,
    log2_e: Wide,
}

static CONSTANTS: LazyLock<Constants> = LazyLock::new(|| Constants {
    pi: Wide::decimal("3.14159265358979323846264338327950288419716939937510582"),
    half_pi_of_processors: Wide::integer(0x3_243f_6a88_85a3_08d3).shifted(-65),
    ln_2: Wide::decimal("0.693147180559945309417232121458176568075500134360255254"),
    log2_e: Wide::decimal("1.44269504088896340735992468100189213742664595415298593"),
});

/// What is left of a finite number beside quarter turns, and how many those are, modulo 4.
fn reduce(angle: F80) -> (Wide, i128) {
    let angle = Wide::from(angle);
    let half_pi = CONSTANTS.half_pi_of_processors;
    let rest = Wide(angle.0.ieee_rem(half_pi.0).value);
    let mut exact = false;
    let turns = ((angle - rest) / half_pi).0.round_to_integral(Round::NearestTiesToEven).value;
    (rest, turns.to_i128_r(80, Round::NearestTiesToEven, &mut exact).value & 3)
}

/// The sine of a small angle so many quarter turns further.
fn turned_sine(rest: Wide, quarters: i128) -> Wide {
    let square = rest * rest;
    // A cosine's terms begin with 1, a sine's with the angle.
    let (first, odd) = if quarters & 1 != 0 { (Wide::integer(1), 0) } else { (rest, 1) };
    let value = Wide::series(first, |term, n| {
        let term = -(term * square) / Wide::integer((2 * n + odd - 1) * (2 * n + odd));
        [term, term]
    });
    if quarters & 2 != 0 { -value } else { value }
}

/// The sine of a finite number.
pub fn sine(angle: F80) -> Wide {
    let (rest, quarters) = reduce(angle);
    turned_sine(rest, quarters)
}

/// The cosine of a finite number: the sine a quarter turn further.
pub fn cosine(angle: F80) -> Wide {
    let (rest, quarters) = reduce(angle);
    turned_sine(rest, quarters + 1)
}

/// The tangent of a finite number.
pub fn tangent(angle: F80) -> Wide {
    let (rest, quarters) = reduce(angle);
    turned_sine(rest, quarters) / turned_sine(rest, quarters + 1)
}

/// 2^x - 1 for a small x.
pub fn power_of_2_less_1(x: F80) -> Wide {
    const HALVINGS: i32 = 6;
    let exponent = (Wide::from(x) * CONSTANTS.ln_2).shifted(-HALVINGS);
    let term = |term: Wide, n: i128| {
        let term = term * exponent / Wide::integer(n + 1);
        [term, term]
    };
    let part = Wide::series(exponent, term);
    // e^2t - 1 = (e^t - 1) (e^t + 1)
    (0..HALVINGS).fold(part, |less_1, _| less_1 * (less_1 + Wide::integer(2)))
}

/// The inverse hyperbolic tangent of something small.
fn artanh(x: Wide) -> Wide {
    let square = x * x;
    Wide::series(x, |power, n| {
        let power = power * square;
        [power, power / Wide::integer(2 * n + 1)]
    })
}

/// The binary logarithm of a positive finite number.
pub fn log_2(x: F80) -> Wide {
    let x = Wide::from(x);
    let mut exponent = x.0.ilogb();
    let mut significand = x.shifted(-exponent);
    if significand > Wide::integer(181).shifted(-7) {
        significand = significand.shifted(-1);
        exponent += 1;
    }
    let one = Wide::integer(1);
    let logarithm = artanh((significand - one) / (significand + one)).shifted(1);
    Wide::integer(exponent.into()) + logarithm * CONSTANTS.log2_e
}

/// log2(1 + x) of a small x above -1.
pub fn log_2_of_1_plus(x: F80) -> Wide {
    let x = Wide::from(x);
    artanh(x / (x + Wide::integer(2))).shifted(1) * CONSTANTS.log2_e
}

/// The angle of the point (x, y). Zeros and infinities are points as IEEE 754 has them.
pub fn arc_tangent(y: F80, x: F80) -> Wide {
    let (height, width) = (Wide::from(y.abs()), Wide::from(x.abs()));
    let half_pi = CONSTANTS.pi.shifted(-1);
    let steep = match (y.is_infinite(), x.is_infinite()) {
        (true, true) => half_pi.shifted(-1),
        _ if y.is_zero() => Wide::integer(0),
        _ if height > width => half_pi - arc_tangent_below_1(width / height),
        _ => arc_tangent_below_1(height / width),
    };
    let angle = if x.is_negative() { CONSTANTS.pi - steep } else { steep };
    if y.is_negative() { -angle } else { angle }
}

fn arc_tangent_below_1(x: Wide) -> Wide {
    const HALVINGS: i32 = 3;
    let one = Wide::integer(1);
    let halved =
        (0..HALVINGS).fold(x, |tangent, _| tangent / (one + root(one + tangent * tangent)));
    let square = halved * halved;
    let angle = Wide::series(halved, |power, n| {
        let power = -(power * square);
        [power, power / Wide::integer(2 * n + 1)]
    });
    angle.shifted(HALVINGS)
}

/// The square root of a number between 1 and 2.
fn root(x: Wide) -> Wide {
    let start = Wide::integer(6).shifted(-2) - (Wide::integer(2) - x).shifted(-1);
    (0..7).fold(start, |root, _| (root + x / root).shifted(-1))
}
