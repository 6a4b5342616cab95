//! QEMU's own image tests, from Debian's source package (`cargo xtask fetch qemu-iotests`), with our
//! tools under the names of theirs.
//!
//! The lists are of tests that the reference passes and we do, too. `HOSTEL_IOTESTS=all` runs them
//! all, which takes ten minutes; without it a sample of each format runs. `HOSTEL_IOTESTS="qcow2
//! 026 039"` runs what it says and prints what differs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What passes, by format. The first few words are the sample that always runs.
const PASSING: &[(&str, &str)] = &[
    (
        "qcow2",
        "001 031 042 110 133 134 158 188 198 \
         002 003 004 005 008 009 010 011 012 013 014 015 017 018 019 020 021 022 023 024 025 027 029 \
         032 033 034 035 036 037 038 039 043 047 048 049 050 052 053 054 061 062 063 066 069 072 073 074 079 \
         089 090 097 103 104 105 107 111 114 115 121 122 126 138 150 154 159 170 174 177 179 187 189 \
         190 197 215 217 226 243 251 252 263 265 268 270 272 279 284 287 289 290 292 293 305 313 314 \
         detect-zeroes-registered-buf qcow2-encryption qemu-img-bitmaps regression-vhdx-log",
    ),
    (
        "raw",
        "001 002 049 063 150 226 003 004 005 008 009 010 011 012 021 025 032 033 048 052 159 170",
    ),
    ("vhdx", "001 002 033 063 004 005 008 009 010 011 012 021 025 032 048 052 159 170"),
    ("parallels", "001 002 033 063 251 004 005 008 009 010 011 012 021 025 032 048 052 159 170"),
    (
        "vmdk",
        "001 017 034 126 002 020 251 004 005 008 009 010 011 012 018 019 021 025 032 033 037 069 110",
    ),
    ("vdi", "001 002 063 004 005 008 009 010 011 012 021 025 032 033 048 052 159 170 226"),
    ("vpc", "001 002 063 251 004 005 008 009 010 011 012 021 025 032 033 048 052 159 170 226"),
    ("luks", "001 002 293 004 005 008 009 010 011 012 021 025 032 033"),
];

/// How many of a list run always.
const SAMPLE: usize = 3;

fn script(folder: &Path, name: &str, line: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs tests of a format; what they printed where not all passed.
fn run(format: &str, names: &[&str]) -> Result<(), String> {
    let suite = tests::asset("qemu-iotests/tests/qemu-iotests").unwrap();
    let folder = tests::scratch(&format!("iotests-{format}"));
    let hostel = tests::hostel_path().display().to_string();
    let mut command = Command::new("python3");
    for (variable, tool) in [
        ("QEMU_IMG_PROG", "qemu-img"),
        ("QEMU_IO_PROG", "qemu-io"),
        ("QEMU_NBD_PROG", "qemu-nbd"),
        ("QEMU_PROG", "qemu-system-x86_64"),
    ] {
        let path = script(&folder, tool, &format!("exec {hostel} {tool} \"$@\""));
        command.env(variable, path);
    }
    command.env("QSD_PROG", script(&folder, "no-storage-daemon", "exit 1"));
    let output = command
        .args(["check", "-j", "2", &format!("-{format}")])
        .args(names)
        .env("TEST_DIR", folder.join("scratch"))
        .env("SOCK_DIR", std::env::temp_dir().join(format!("iot-{}-{format}", std::process::id())))
        .current_dir(suite)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("Passed all") {
        return Ok(());
    }
    Err(format!("{format}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn check(format: &str) {
    if tests::asset("qemu-iotests/tests/qemu-iotests/check").is_none() {
        tests::skip!("QEMU's image tests are not fetched");
    }
    if tests::program("python3").is_none() || tests::program("bash").is_none() {
        tests::skip!("there is no python3 or no bash");
    }
    let wish = std::env::var("HOSTEL_IOTESTS").unwrap_or_default();
    let list = PASSING.iter().find(|(name, _)| *name == format).unwrap().1;
    let names: Vec<&str> = match wish.split_once(' ') {
        Some((other, _)) if other != format => return,
        Some((_, names)) => names.split_whitespace().collect(),
        None if wish == "all" => list.split_whitespace().collect(),
        None => list.split_whitespace().take(SAMPLE).collect(),
    };
    if let Err(text) = run(format, &names) {
        panic!("{text}");
    }
}

#[test]
fn qcow2_as_qemu_tests_it() {
    check("qcow2");
}

#[test]
fn raw_as_qemu_tests_it() {
    check("raw");
}

#[test]
fn vhdx_as_qemu_tests_it() {
    check("vhdx");
}

#[test]
fn parallels_as_qemu_tests_it() {
    check("parallels");
}

#[test]
fn vmdk_as_qemu_tests_it() {
    check("vmdk");
}

#[test]
fn vdi_as_qemu_tests_it() {
    check("vdi");
}

#[test]
fn vpc_as_qemu_tests_it() {
    check("vpc");
}

#[test]
fn luks_as_qemu_tests_it() {
    check("luks");
}
