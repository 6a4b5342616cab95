//! Debian's programs of other architectures, from an unpacked root.

use std::path::Path;

/// Program, arguments, and what it prints.
const PROGRAMS: [(&str, &[&str], &str); 6] = [
    ("usr/bin/dash", &["-c", "for i in 1 2 3; do echo $((i * 7)); done"], "7\n14\n21\n"),
    ("usr/bin/sort", &["-r", "/proc/self/cmdline"], ""),
    (
        "usr/bin/perl",
        &[
            "-e",
            "my %h; $h{$_ % 7}++ for 1..10000; print join(',', map {$h{$_}} sort keys %h), `echo -n sub`",
        ],
        "1428,1429,1429,1429,1429,1428,1428sub",
    ),
    (
        "usr/bin/python3",
        &[
            "-c",
            "import hashlib, math, threading, re\n\
          found = []\n\
          threads = [threading.Thread(target=lambda n=n: found.append(n * n)) for n in range(8)]\n\
          [t.start() for t in threads]; [t.join() for t in threads]\n\
          print(hashlib.sha256(b'x').hexdigest()[:8], round(math.sin(1), 9), 2**200 % 997, sum(found), re.sub('a+', 'b', 'caat'))",
        ],
        "2d711642 0.841470985 124 140 cbt\n",
    ),
    (
        "usr/bin/sqlite3",
        &[
            ":memory:",
            "create table t(a, b); insert into t values (1, 2.5), (2, 3.5); select sum(b), avg(a) from t",
        ],
        "6.0|1.5\n",
    ),
    (
        "usr/bin/openssl",
        &["dgst", "-sha256", "-hmac", "key", "/dev/null"],
        "HMAC-SHA2-256(/dev/null)= 5d5d139563c95b5967b9bd9a8c9b233a9dedb45072794cd232dc1b74832607d0\n",
    ),
];

fn programs_run(architecture: &str, root: &Path) {
    let mut ran = 0;
    // The roots have no links from / to /usr, which some of their programs' interpreters need.
    let prefix = if root.join("lib").exists() { root.to_path_buf() } else { root.join("usr") };
    for (program, arguments, expected) in PROGRAMS {
        let program = [root.join(program), root.join(program.trim_start_matches("usr/"))]
            .into_iter()
            .find(|path| path.exists());
        let Some(program) = program else { continue };
        let output = tests::hostel()
            .arg(format!("qemu-{architecture}"))
            .arg("-L")
            .arg(&prefix)
            .args(["-E", "LC_ALL=C"])
            .arg(&program)
            .args(arguments)
            .output()
            .expect("hostel starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complaint}", program.display());
        if !expected.is_empty() {
            assert_eq!(said, expected, "{}: {complaint}", program.display());
        }
        ran += 1;
    }
    assert!(ran >= 3, "the root has its programs");
}

#[test]
fn debians_i386_programs_run() {
    let Some(root) = tests::asset("programs-i386") else {
        tests::skip!("the asset programs-i386 was not fetched");
    };
    programs_run("i386", &root);
}

#[test]
fn debians_arm64_programs_run() {
    let Some(root) = tests::asset("programs-arm64") else {
        tests::skip!("the asset programs-arm64 was not fetched");
    };
    programs_run("aarch64", &root);
}

#[test]
fn debians_riscv64_programs_run() {
    let Some(root) = tests::asset("programs-riscv64") else {
        tests::skip!("the asset programs-riscv64 was not fetched");
    };
    programs_run("riscv64", &root);
}

#[test]
fn git_of_i386_keeps_a_history() {
    let Some(git) = tests::asset("programs-i386/usr/bin/git") else {
        tests::skip!("the asset programs-i386 was not fetched");
    };
    let root = tests::asset("programs-i386").expect("it was just there");
    let folder = super::folder("git-i386");
    std::fs::write(folder.join("file"), "text\n").expect("files can be written");
    let run = |arguments: &[&str]| {
        let output = tests::hostel()
            .args(["qemu-i386", "-L"])
            .args([&root, &git])
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(&folder)
            .env("HOME", &folder)
            .output()
            .expect("hostel starts");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(&["init", "-q", "."]);
    run(&["add", "file"]);
    run(&["commit", "-q", "-m", "first"]);
    assert!(run(&["log", "--oneline"]).ends_with(" first\n"));
    assert_eq!(run(&["status", "--short"]), "");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
