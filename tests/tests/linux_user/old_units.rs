//! The x87, MMX, the trap flag and segments: what they give in a guest is what this very processor gives.

use std::fs;
use std::process::Command;

use super::folder;

/// What a program prints natively and as a guest, in the widths of which there is a compiler.
fn natively_and_as_guest(name: &str, source: &str) -> Vec<[String; 2]> {
    let folder = folder(name);
    let file = folder.join(format!("{name}.c"));
    fs::write(&file, source).expect("the source can be written");
    let mut found = Vec::new();
    for (compiler, applet) in [("gcc", "qemu-x86_64"), ("i686-linux-gnu-gcc", "qemu-i386")] {
        let Some(compiler) = tests::program(compiler) else { continue };
        let program = folder.join(applet);
        let options = ["-w", "-static", "-mssse3", "-mfpmath=387", "-o"];
        let built = Command::new(compiler).args(options).args([&program, &file]).status();
        assert!(built.expect("the compiler starts").success());
        let native = Command::new(&program).output().expect("it runs natively");
        let ours = tests::hostel().arg(applet).arg(&program).output().expect("hostel starts");
        let text = |bytes| String::from_utf8(bytes).expect("it is text");
        let complaint = text(ours.stderr);
        assert!(native.status.success() && ours.status.success(), "{applet}: {complaint}");
        found.push([text(native.stdout), text(ours.stdout)]);
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
    found
}

/// A line of `x87.c`: what was done to what, the result as exponent and significand in one number,
/// and its sign with the status.
fn x87_line(line: &str) -> (&str, i128, (u64, u64)) {
    let words: Vec<&str> = line.split(' ').collect();
    let asked = &line[..line.len() - words[5..].join(" ").len()];
    let hex = |word: &str| u64::from_str_radix(word, 16).expect("it is hexadecimal");
    let (top, significand, status) = (hex(words[5]), hex(words[6]), hex(words[7]));
    (asked, i128::from(top & 0x7fff) << 64 | i128::from(significand), (top >> 15, status))
}

#[test]
fn numbers_at_the_edges_give_what_this_processor_gives_with_all_its_flags() {
    let found = natively_and_as_guest("x87_corners", include_str!("x87_corners.c"));
    if found.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for [native, ours] in found {
        let differs = native.lines().zip(ours.lines()).find(|(native, ours)| native != ours);
        assert_eq!(differs, None, "operation, control word, first operand");
        assert!(native.lines().count() > 20_000 && native.len() == ours.len());
    }
}

#[test]
fn functions_of_the_x87_are_those_of_this_processor_to_the_last_bit() {
    let found = natively_and_as_guest("x87", include_str!("x87.c"));
    if found.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for [native, ours] in found {
        let lines: Vec<_> = native.lines().zip(ours.lines()).collect();
        assert!(lines.len() > 2000 && native.lines().count() == ours.lines().count());
        let mut same = 0;
        for &(native, ours) in &lines {
            let ((asked, expected, signs), (_, found, found_signs)) =
                (x87_line(native), x87_line(ours));
            // No processor rounds all of them right.
            let close = (expected - found).abs() <= 1;
            assert!(close && signs == found_signs, "{asked}: {native} {ours}");
            same += usize::from(expected == found);
        }
        assert!(same * 10 > lines.len() * 9, "only {same} of {} are the same", lines.len());
    }
}

#[test]
fn mmx_is_that_of_this_processor() {
    let found = natively_and_as_guest("mmx", include_str!("mmx.c"));
    if found.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for [native, ours] in found {
        assert!(native.lines().count() > 3000);
        for (native, ours) in native.lines().zip(ours.lines()) {
            assert_eq!(native, ours);
        }
        assert_eq!(native.len(), ours.len());
    }
}

#[test]
fn single_steps_stop_where_this_processor_stops() {
    let found = natively_and_as_guest("steps", include_str!("steps.c"));
    if found.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for [native, ours] in found {
        assert_eq!(native, ours);
        assert!(native.lines().count() > 20, "{native}");
    }
}

#[test]
fn segments_are_those_of_this_processor() {
    let found = natively_and_as_guest("segments", include_str!("segments.c"));
    if found.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for [native, ours] in found {
        // Kernels can be without local tables; ours then says more.
        assert!(ours.starts_with(&native), "{native}instead of\n{ours}");
        assert!(native.lines().count() >= 6, "{native}");
    }
}
