//! `hostel binfmt`, on paper and, in a namespace with its own table, for real.

use std::process::Command;

#[test]
fn print_shows_the_line_and_writes_nothing() {
    let output = tests::hostel().args(["binfmt", "enable", "riscv64", "i386", "--print"]).output();
    let output = output.expect("hostel starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(":qemu-riscv64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00"));
    assert!(lines[0].contains("\\x02\\x00\\xf3\\x00:") && lines[0].ends_with("/qemu-riscv64:F"));
    assert!(lines[1].contains("\\x46\\x01\\x01\\x01\\x00") && lines[1].contains("\\x03\\x00:"));
}

#[test]
fn mistakes_get_one_clear_line() {
    let output = tests::hostel().args(["binfmt", "enable", "vax"]).output().expect("hostel starts");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        text,
        "error: unknown architecture 'vax'; known are aarch64, i386, riscv64, x86_64\n"
    );
}

const SCRIPT: &str = "set -e
mount -t tmpfs none /run
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || { echo no binfmt_misc; exit; }
$HOSTEL binfmt enable aarch64 --preserve-argv0
$HOSTEL binfmt status aarch64
(exec -a called $PROGRAM)
chroot $FOLDER /program # where nothing of this machine is
$HOSTEL binfmt disable aarch64
$HOSTEL binfmt status aarch64
";

#[test]
fn foreign_programs_start_by_name() {
    let Some(compiler) = tests::program("aarch64-linux-gnu-gcc") else {
        tests::skip!("no aarch64-linux-gnu-gcc on this machine");
    };
    let folder = super::folder("binfmt");
    let source =
        "#include <stdio.h>\nint main(int c, char **v) { printf(\"name %s\\n\", v[0]); }\n";
    let program = super::compile(&compiler, &folder, source);
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "bash", "-c", SCRIPT])
        .env("HOSTEL", tests::hostel_path())
        .env("PROGRAM", &program)
        .env("FOLDER", &folder)
        .output();
    let Ok(output) = output else { tests::skip!("no unshare on this machine") };
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if said.contains("no binfmt_misc") || complaint.contains("unshare") {
        tests::skip!("no binfmt_misc in a namespace of one's own here");
    }
    let lines: Vec<&str> = said.lines().collect();
    let registered = "aarch64  enabled /run/hostel/binfmt/qemu-aarch64 PF";
    let expected = [registered, "name called", "name /program", "aarch64  not registered"];
    assert_eq!(lines, expected, "{complaint}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
