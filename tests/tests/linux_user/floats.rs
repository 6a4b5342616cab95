//! Floating point inside each guest, held against a software implementation that has nothing to do
//! with any processor. What the architectures do each their own way with NaNs is said here.

use std::fs;
use std::process::Command;

use rustc_apfloat::ieee::{Double, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use super::folder;

const RECORD: usize = 40;
const NAMES: [&str; 14] = [
    "add", "sub", "mul", "div", "fma", "sqrt", "convert", "to i32", "to i64", "from i32",
    "from i64", "less", "equal", "rint",
];
const ROUNDINGS: [Round; 5] = [
    Round::NearestTiesToEven,
    Round::TowardZero,
    Round::TowardPositive,
    Round::TowardNegative,
    Round::NearestTiesToAway,
];

const INVALID: u8 = 1;
const OVERFLOW: u8 = 4;
const UNDERFLOW: u8 = 8;
const INEXACT: u8 = 16;

/// What a guest says it did.
struct Record {
    operation: &'static str,
    wide: bool,
    rounding: Round,
    flags: u8,
    operands: [u64; 3],
    result: u64,
}

impl Record {
    fn of(bytes: &[u8]) -> Self {
        let word = |at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Self {
            operation: NAMES[usize::from(bytes[0])],
            wide: bytes[1] == 64,
            rounding: ROUNDINGS[usize::from(bytes[2])],
            flags: bytes[3],
            operands: [word(8), word(16), word(24)],
            result: word(32),
        }
    }
}

/// What it should have done.
struct Expected {
    /// The bits; of a NaN any.
    result: u64,
    is_nan: bool,
    flags: u8,
    /// Of `flags`, what every architecture agrees on.
    certain: u8,
}

fn flags_of(status: Status) -> u8 {
    let pairs = [
        (Status::INVALID_OP, INVALID),
        (Status::DIV_BY_ZERO, 2),
        (Status::OVERFLOW, OVERFLOW),
        (Status::UNDERFLOW, UNDERFLOW),
        (Status::INEXACT, INEXACT),
    ];
    pairs.iter().filter(|(flag, _)| status.contains(*flag)).fold(0, |flags, (_, bit)| flags | bit)
}

fn number<F: Float>(outcome: StatusAnd<F>) -> Expected {
    let StatusAnd { value, status } = outcome;
    // Whether what was rounded up to the smallest normal number was tiny is a matter of taste, and
    // the oracle does not tell whether what was cut down to the largest was larger.
    let smallest = value.abs().bitwise_eq(F::smallest_normalized());
    let largest = value.abs().bitwise_eq(F::largest());
    Expected {
        result: value.to_bits() as u64,
        is_nan: value.is_nan(),
        flags: flags_of(status),
        certain: !((UNDERFLOW * u8::from(smallest)) | (OVERFLOW * u8::from(largest))),
    }
}

fn integer(outcome: StatusAnd<i128>) -> Expected {
    let StatusAnd { value, status } = outcome;
    let invalid = status.contains(Status::INVALID_OP);
    let flags = if invalid { INVALID } else { flags_of(status) };
    // What an integer that cannot be becomes is each architecture's own affair.
    Expected { result: value as u64, is_nan: invalid, flags, certain: !0 }
}

/// A square root by its square, which is exact in four times the width.
fn is_root<F>(a: F, root: F, rounding: Round, flags: u8) -> bool
where
    F: Float + FloatConvert<Quad>,
{
    if a.is_nan() || a.is_negative() && !a.is_zero() {
        let signals = !a.is_nan() || a.is_signaling();
        return root.is_nan() && flags == u8::from(signals);
    }
    if a.is_zero() || a.is_infinite() {
        return root.bitwise_eq(a) && flags == 0;
    }
    let wide = |value: F| -> Quad { value.convert(&mut false).value };
    let (a, exact) = (wide(a), wide(root));
    let square = |value: Quad| (value * value).value;
    let middle =
        |other: F| ((exact + wide(other)).value * "0.5".parse::<Quad>().expect("it is")).value;
    let (above, below) = (root.next_up().value, root.next_down().value);
    let right = match rounding {
        Round::TowardPositive => square(exact) >= a && square(wide(below)) < a,
        // No root lies in the middle.
        Round::NearestTiesToEven | Round::NearestTiesToAway => {
            square(middle(above)) > a && square(middle(below)) < a
        }
        _ => square(exact) <= a && square(wide(above)) > a,
    };
    right && flags == if square(exact) == a { 0 } else { INEXACT }
}

/// Everything but square roots and changes of width.
fn expected<F: Float>(record: &Record) -> Expected {
    let [a, b, c] = record.operands.map(|bits| F::from_bits(u128::from(bits)));
    let round = record.rounding;
    let truth = |value: bool, invalid: bool| Expected {
        result: value.into(),
        is_nan: false,
        flags: invalid.into(),
        certain: !0,
    };
    let signals = a.is_signaling() || b.is_signaling();
    match record.operation {
        "add" => number(a.add_r(b, round)),
        "sub" => number(a.sub_r(b, round)),
        "mul" => number(a.mul_r(b, round)),
        "div" => number(a.div_r(b, round)),
        "fma" => {
            let mut expected = number(a.mul_add_r(b, c, round));
            if c.is_nan() && (a.is_zero() && b.is_infinite() || a.is_infinite() && b.is_zero()) {
                expected.certain = !INVALID;
            }
            expected
        }
        "to i32" => integer(a.to_i128_r(32, Round::TowardZero, &mut false)),
        "to i64" => integer(a.to_i128_r(64, Round::TowardZero, &mut false)),
        "from i32" => number(F::from_i128_r(i128::from(record.operands[0] as i32), round)),
        "from i64" => number(F::from_i128_r(i128::from(record.operands[0] as i64), round)),
        "less" => truth(a < b, a.is_nan() || b.is_nan()),
        "equal" => truth(a == b, signals),
        _ => {
            let mut outcome = a.round_to_integral(round);
            if !a.is_nan() && !outcome.value.bitwise_eq(a) {
                outcome.status |= Status::INEXACT;
            }
            number(outcome)
        }
    }
}

/// Whether these are the bits of the NaN that an architecture makes.
fn is_right_nan(architecture: &str, record: &Record, wide_result: bool) -> bool {
    let (quiet, default) = match wide_result {
        true => (1u64 << 51, 0x7ff8 << 48),
        false => (1u64 << 22, 0x7fc0 << 16),
    };
    let sign = if wide_result { 1 << 63 } else { 1 << 31 };
    let count = match record.operation {
        "fma" => 3,
        "add" | "sub" | "mul" | "div" => 2,
        "from i32" | "from i64" => 0,
        _ => 1,
    };
    let is_nan = |bits: u64| match record.wide {
        true => bits << 1 > 0x7ff << 53,
        false => (bits as u32) << 1 > 0xff << 24,
    };
    let signals = |bits: u64| bits & if record.wide { 1 << 51 } else { 1 << 22 } == 0;
    let as_result = |bits: u64| match (record.wide, wide_result) {
        (true, false) => ((bits >> 32) & (1 << 31)) | 0x7f80_0000 | ((bits >> 29) & 0x7f_ffff),
        (false, true) => (bits & 1 << 31) << 32 | 0x7ff << 52 | (bits & 0x7f_ffff) << 29,
        _ => bits,
    };
    let nans: Vec<u64> = record.operands[..count].iter().copied().filter(|&n| is_nan(n)).collect();
    let quieted = |bits: u64| as_result(bits) | quiet == record.result;
    match architecture {
        "riscv64" => record.result == default,
        _ if nans.is_empty() => {
            record.result == if architecture == "x86_64" { default | sign } else { default }
        }
        // The invalid product of a multiply-add may be the answer, whatever is added.
        "aarch64" if count == 3 && nans.len() == 1 && record.result == default => true,
        "aarch64" if nans.iter().any(|&nan| signals(nan)) => {
            nans.iter().any(|&nan| signals(nan) && quieted(nan))
        }
        // The compiler may have exchanged the operands.
        _ => nans.iter().any(|&nan| quieted(nan)),
    }
}

fn is_right(architecture: &str, record: &Record) -> bool {
    let [a, ..] = record.operands.map(u128::from);
    let result = u128::from(record.result);
    let Record { rounding, flags, wide, .. } = *record;
    let expected = match (record.operation, wide) {
        ("sqrt", true) => {
            return is_root(Double::from_bits(a), Double::from_bits(result), rounding, flags);
        }
        ("sqrt", false) => {
            return is_root(Single::from_bits(a), Single::from_bits(result), rounding, flags);
        }
        ("convert", true) => {
            let narrow: StatusAnd<Single> = Double::from_bits(a).convert_r(rounding, &mut false);
            number(narrow)
        }
        ("convert", false) => {
            let wide: StatusAnd<Double> = Single::from_bits(a).convert_r(rounding, &mut false);
            number(wide)
        }
        (_, true) => expected::<Double>(record),
        (_, false) => expected::<Single>(record),
    };
    if (flags ^ expected.flags) & expected.certain != 0 {
        return false;
    }
    let to_integer = record.operation.starts_with("to ");
    match expected.is_nan {
        true if to_integer => true,
        true => is_right_nan(architecture, record, wide ^ (record.operation == "convert")),
        false => record.result == expected.result,
    }
}

fn floats_of(architecture: &str, compiler: &str) {
    let Some(compiler) = tests::program(compiler) else {
        tests::skip!("no {compiler} on this machine")
    };
    let folder = folder(&format!("floats-{architecture}"));
    let (source, program) = (folder.join("floats.c"), folder.join("floats"));
    fs::write(&source, include_str!("floats.c")).expect("the source can be written");
    let built = Command::new(compiler)
        .args(["-O1", "-frounding-math", "-ffp-contract=off", "-w", "-static"])
        // What the compiler makes of these knows nothing of signalling NaNs.
        .args(["-fno-builtin-rint", "-fno-builtin-rintf", "-o"])
        .args([&program, &source])
        .arg("-lm")
        .status();
    assert!(built.expect("the compiler starts").success());
    let ours = tests::hostel().arg(format!("qemu-{architecture}")).arg(&program).output();
    let ours = ours.expect("hostel starts");
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    let roundings = if architecture == "riscv64" { 5 } else { 4 };
    assert_eq!(ours.stdout.len(), 900 * NAMES.len() * 2 * roundings * RECORD);
    let wrong: Vec<String> = ours
        .stdout
        .chunks_exact(RECORD)
        .map(Record::of)
        .filter(|record| !is_right(architecture, record))
        .map(|record| {
            let Record { operation, wide, rounding, flags, operands, result } = record;
            format!("{operation} {wide} {rounding:?} {operands:x?} = {result:x}, flags {flags:x}")
        })
        .collect();
    let first = &wrong[..wrong.len().min(20)];
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), first.join("\n"));
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn floats_of_x86_64_are_what_the_standard_says() {
    floats_of("x86_64", "gcc");
}

#[test]
fn floats_of_aarch64_are_what_the_standard_says() {
    floats_of("aarch64", "aarch64-linux-gnu-gcc");
}

#[test]
fn floats_of_riscv64_are_what_the_standard_says() {
    floats_of("riscv64", "riscv64-linux-gnu-gcc");
}
