//! Debian's programs of other architectures, from an unpacked root.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

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

/// The roots have no links from / to /usr, which some of their programs' interpreters need.
fn prefix_of(root: &Path) -> PathBuf {
    if root.join("lib").exists() { root.to_path_buf() } else { root.join("usr") }
}

fn programs_run(architecture: &str, root: &Path) {
    let mut ran = 0;
    let prefix = prefix_of(root);
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
    git_keeps_a_history("i386", "programs-i386");
}

#[test]
fn git_of_arm64_keeps_a_history() {
    git_keeps_a_history("aarch64", "tools-arm64");
}

#[test]
fn git_of_riscv64_keeps_a_history() {
    git_keeps_a_history("riscv64", "tools-riscv64");
}

fn git_keeps_a_history(architecture: &str, asset: &str) {
    let Some(git) = tests::asset(&format!("{asset}/usr/bin/git")) else {
        tests::skip!("the asset {asset} was not fetched");
    };
    let root = tests::asset(asset).expect("it was just there");
    let prefix = prefix_of(&root);
    let folder = super::folder(&format!("git-{architecture}"));
    std::fs::write(folder.join("file"), "text\n").expect("files can be written");
    let run = |arguments: &[&str]| {
        let output = tests::hostel()
            .args([&format!("qemu-{architecture}"), "-L"])
            .args([&prefix, &git])
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

/// A tool of an asset with some input: what it writes.
fn filter(
    architecture: &str,
    root: &Path,
    tool: &str,
    arguments: &[&str],
    input: &[u8],
) -> Vec<u8> {
    filter_with("LC_ALL=C", architecture, root, tool, arguments, input)
}

/// The same with a variable of the environment.
fn filter_with(
    variable: &str,
    architecture: &str,
    root: &Path,
    tool: &str,
    arguments: &[&str],
    input: &[u8],
) -> Vec<u8> {
    let mut child = tests::hostel()
        .args([&format!("qemu-{architecture}"), "-L"])
        .arg(prefix_of(root))
        .args(["-E", variable])
        .arg(root.join("usr/bin").join(tool))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hostel starts");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let output = std::thread::scope(|scope| {
        // A tool that reads nothing may be gone before it gets all; its output tells.
        scope.spawn(move || _ = stdin.write_all(input));
        child.wait_with_output().expect("it ends")
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {complaint}");
    output.stdout
}

/// Text that compresses, but not to nothing.
fn sample() -> Vec<u8> {
    (0..40_000u64).flat_map(|n| format!("{} {n}\n", n * n % 7919).into_bytes()).collect()
}

fn xz_gives_back(architecture: &str, asset: &str) {
    let Some(root) = tests::asset(asset) else {
        tests::skip!("the asset {asset} was not fetched");
    };
    let text = sample();
    let packed = filter(architecture, &root, "xz", &["-1", "-c"], &text);
    assert!(packed.len() < text.len() / 2, "{} of {}", packed.len(), text.len());
    assert!(filter(architecture, &root, "xz", &["-d", "-c"], &packed) == text);
}

#[test]
fn xz_of_arm64_gives_back_what_it_was_given() {
    xz_gives_back("aarch64", "tools-arm64");
}

#[test]
fn xz_of_riscv64_gives_back_what_it_was_given() {
    xz_gives_back("riscv64", "tools-riscv64");
}

#[test]
fn luajit_of_arm64_compiles_at_run_time() {
    let Some(root) = tests::asset("tools-arm64") else {
        tests::skip!("the asset tools-arm64 was not fetched");
    };
    let script = "local s, t = 0, {} for i = 1, 3e6 do s = s + i % 7; t[i % 64] = s * 0.5 end \
                  print(string.format('%d %.1f', s, t[63]) .. ' ' .. tostring((jit.status())))";
    let said = filter("aarch64", &root, "luajit", &["-e", script], b"");
    assert_eq!(String::from_utf8_lossy(&said), "8999997 4499997.0 true\n");
}

#[test]
fn tcc_of_arm64_compiles_a_program_and_runs_it() {
    let Some(root) = tests::asset("tools-arm64") else {
        tests::skip!("the asset tools-arm64 was not fetched");
    };
    let source = "#include <stdio.h>\n\
                  static int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }\n\
                  int main(void) { double s = 0; for (int i = 1; i < 1000; i++) s += 1.0 / i;\n\
                  printf(\"%d %.6f\\n\", fibonacci(20), s); return 0; }\n";
    let path = |part: &str| root.join("usr").join(part).display().to_string();
    let libraries = path("lib/aarch64-linux-gnu");
    let options = [
        format!("-B{libraries}/tcc"),
        format!("-L{libraries}"),
        format!("-I{}", path("include")),
        format!("-I{}", path("include/aarch64-linux-gnu")),
    ];
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(["-run", "-"]);
    let said = filter("aarch64", &root, "tcc", &arguments, source.as_bytes());
    assert_eq!(String::from_utf8_lossy(&said), "6765 7.484471\n");
}

/// The same with the processor's extensions for it and, by a switch of its own, without them.
#[test]
fn openssl_of_arm64_digests_the_same_with_and_without_extensions() {
    let Some(root) = tests::asset("tools-arm64") else {
        tests::skip!("the asset tools-arm64 was not fetched");
    };
    let text = sample();
    let key = "-K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let mut lines: Vec<String> = ["sha1", "sha256", "sha512", "sha3-256", "sm3", "blake2b512"]
        .map(|name| format!("dgst -r -{name}"))
        .into();
    for cipher in ["aes-256-ctr", "aes-256-cbc", "chacha20"] {
        lines.push(format!("enc -{cipher} {key} -iv 000102030405060708090a0b0c0d0e0f"));
    }
    lines.push(format!("enc -sm4-cbc {} -iv 000102030405060708090a0b0c0d0e0f", &key[..35]));
    for line in lines {
        let arguments: Vec<&str> = line.split(' ').collect();
        let fast = filter("aarch64", &root, "openssl", &arguments, &text);
        let plain = filter_with("OPENSSL_armcap=0", "aarch64", &root, "openssl", &arguments, &text);
        assert!(fast == plain && !fast.is_empty(), "{line}");
    }
}

/// The root with compilers, interpreters and Python's own tests.
fn suite() -> Option<PathBuf> {
    tests::asset("suite-arm64")
}

/// A folder where the root's places have the names that programs know.
fn prefix_in(folder: &Path, root: &Path) -> PathBuf {
    let prefix = folder.join("prefix");
    if !prefix.exists() {
        std::fs::create_dir(&prefix).expect("the folder is ours");
        for (name, place) in
            [("usr", "usr"), ("etc", "etc"), ("lib", "usr/lib"), ("bin", "usr/bin")]
        {
            symlink(root.join(place), prefix.join(name)).expect("the folder is ours");
        }
    }
    prefix
}

/// A program of the suite: what it says.
fn of_suite(root: &Path, program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = tests::hostel()
        .args(["qemu-aarch64", "-L"])
        .arg(prefix_in(folder, root))
        .arg(root.join("usr/bin").join(program))
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C")
        .output()
        .expect("hostel starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}\n{said}");
    said.into_owned()
}

/// The driver runs the preprocessor, the compiler, the assembler and the linker, all of them guests.
#[test]
fn gcc_of_arm64_makes_a_program_that_runs() {
    let Some(root) = suite() else { tests::skip!("the asset suite-arm64 was not fetched") };
    let folder = super::folder("gcc-arm64");
    let source = "#include <stdio.h>\n#include <stdlib.h>\n\
                  static int less(const void *a, const void *b) { return *(int *)a - *(int *)b; }\n\
                  int main(void) { int n[100]; long sum = 0;\n\
                  for (int i = 0; i < 100; i++) n[i] = i * 7919 % 101;\n\
                  qsort(n, 100, sizeof *n, less);\n\
                  for (int i = 0; i < 100; i++) sum += n[i] * i;\n\
                  printf(\"%ld\\n\", sum); return 0; }\n";
    std::fs::write(folder.join("sort.c"), source).expect("files can be written");
    let sysroot = format!("--sysroot={}", prefix_in(&folder, &root).display());
    let arguments = [&sysroot, "-O2", "-static", "-o", "sort", "sort.c"];
    of_suite(&root, "aarch64-linux-gnu-gcc-14", &arguments, &folder);
    let output = tests::hostel().arg("qemu-aarch64").arg(folder.join("sort")).output();
    assert_eq!(output.expect("hostel starts").stdout, b"331530\n");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn programs_of_other_languages_run() {
    let Some(root) = suite() else { tests::skip!("the asset suite-arm64 was not fetched") };
    let folder = super::folder("languages-arm64");
    std::fs::write(folder.join("data"), "{\"a\": [1, {\"b\": \"c\"}]}\n").expect("it can be");
    let found = of_suite(&root, "rg", &["--count-matches", "[abc]", "data"], &folder);
    assert_eq!(found, "3\n", "in Rust");
    let flat = of_suite(&root, "gron", &["data"], &folder);
    assert!(flat.ends_with("json.a[1] = {};\njson.a[1].b = \"c\";\n"), "in Go: {flat}");
    let script = "let s = 0; for (let i = 0; i < 2e6; i++) s += i % 7; \
                  console.log(s, process.arch, [3, 1, 2].sort().join(), \
                  require('crypto').createHash('sha256').update('x').digest('hex').slice(0, 8))";
    let said = of_suite(&root, "node", &["-e", script], &folder);
    assert_eq!(said, "5999995 arm64 1,2,3 2d711642\n", "in JavaScript");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

/// Chapters of Python's own tests: what they say of the language, of numbers, of the system.
const CHAPTERS: &[&str] = &[
    "test_grammar",
    "test_int",
    "test_float",
    "test_math",
    "test_struct",
    "test_list",
    "test_hashlib",
    "test_json",
    "test_thread",
    "test_fork1",
    "test_mmap",
    "test_select",
    "test_epoll",
    "test_fcntl",
    "test_pty",
];

#[test]
fn python_of_arm64_passes_its_own_tests() {
    let Some(root) = suite() else { tests::skip!("the asset suite-arm64 was not fetched") };
    let folder = super::folder("python-arm64");
    let mut arguments = vec!["-m", "test", "--timeout", "300"];
    arguments.extend(CHAPTERS);
    let said = of_suite(&root, "python3", &arguments, &folder);
    assert!(said.contains("Result: SUCCESS"), "{said}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
