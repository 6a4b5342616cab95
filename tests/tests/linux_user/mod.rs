//! User-mode emulation: foreign programs, built by cross compilers, against the reference.

mod architectures;
mod binfmt;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program in C that reaches into every corner: FP, threads, signals, fork, generated code.
const CORNERS: &str = r#"
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static sigjmp_buf back; static volatile int got; static long counter;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *work(void *a) { for (int i = 0; i < 20000; i++) { pthread_mutex_lock(&lock); counter++; pthread_mutex_unlock(&lock); } return a; }
static void fault(int s, siginfo_t *i, void *u) { printf("fault at %p, code %d\n", i->si_addr, i->si_code); siglongjmp(back, 1); }
static void count(int s) { got++; }
int main(int argc, char **argv) {
  printf("%d %s\n", argc, argv[argc - 1]);
  printf("%.17g %.17g %.9g\n", sin(1.0) * exp(2.5), sqrt(2) / 3, (double)1.1f * 3);
  volatile double zero = 0; printf("%g %f %f\n", 1 / zero, fma(1.1, 2.2, 3.3), fmin(1, NAN));
  pthread_t t[8];
  for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, work, 0);
  for (int i = 0; i < 8; i++) pthread_join(t[i], 0);
  printf("%ld\n", counter);
  struct sigaction a = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO}; sigaction(SIGSEGV, &a, 0);
  if (!sigsetjmp(back, 1)) *(volatile int *)16 = 1;
  signal(SIGUSR1, count);
  for (int i = 0; i < 500; i++) kill(getpid(), SIGUSR1);
  printf("%d signals\n", got);
  int p[2]; if (pipe(p)) return 1;
  pid_t child = fork();
  if (!child) { if (write(p[1], "child", 6) < 0) _exit(1); _exit(3); }
  char text[9]; if (read(p[0], text, 6) < 0) return 1;
  int status; waitpid(child, &status, 0);
  printf("%s %d\n", text, WEXITSTATUS(status));
  return 5;
}
"#;

/// Where a test's files go.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("hostel-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
}

fn compile(compiler: &Path, folder: &Path, source: &str) -> PathBuf {
    let (c, program) = (folder.join("program.c"), folder.join("program"));
    fs::write(&c, source).expect("the source can be written");
    let status = Command::new(compiler)
        .args(["-O2", "-static", "-o"])
        .args([&program, &c])
        .args(["-lm", "-lpthread"])
        .status()
        .expect("the compiler starts");
    assert!(status.success());
    program
}

fn same_as_reference(architecture: &str, compiler: &str, reference: &str) {
    let Some(compiler) = tests::program(compiler) else {
        tests::skip!("no {compiler} on this machine")
    };
    let folder = folder(architecture);
    let program = compile(&compiler, &folder, CORNERS);
    let expected = match tests::program(reference) {
        Some(reference) => Command::new(reference).args([&program]).arg("last").output(),
        None if matches!(architecture, "x86_64" | "i386") => {
            Command::new(&program).arg("last").output()
        }
        None => tests::skip!("no {reference} on this machine"),
    };
    let Ok(expected) = expected else { tests::skip!("nothing here runs {architecture}") };
    let ours = tests::hostel()
        .arg(format!("qemu-{architecture}"))
        .arg(&program)
        .arg("last")
        .output()
        .expect("hostel starts");
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text(&ours), text(&expected));
    assert_eq!(ours.status.code(), expected.status.code());
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_riscv64_program_behaves_as_under_the_reference() {
    same_as_reference("riscv64", "riscv64-linux-gnu-gcc", "qemu-riscv64-static");
}

#[test]
fn an_aarch64_program_behaves_as_under_the_reference() {
    same_as_reference("aarch64", "aarch64-linux-gnu-gcc", "qemu-aarch64-static");
}

#[test]
fn an_x86_64_program_behaves_as_natively() {
    same_as_reference("x86_64", "gcc", "no-reference-but-the-processor");
}

#[test]
fn an_i386_program_behaves_as_natively() {
    same_as_reference("i386", "i686-linux-gnu-gcc", "no-reference-but-the-processor");
}

/// Runs an applet on a file; the exit code and what it says.
fn complaint(file: &Path) -> (Option<i32>, String) {
    let output = tests::hostel().arg("qemu-riscv64").arg(file).output().expect("hostel starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn bad_files_get_one_clear_line() {
    let folder = folder("bad-elf");
    let file = folder.join("file");
    let mut header = vec![0u8; 64];
    header[..6].copy_from_slice(b"\x7fELF\x02\x01");
    header[16] = 2; // executable
    header[18] = 243; // RISC-V
    header[32] = 64; // program headers
    header[54] = 56;
    header[56] = 1;
    let with = |segments: &[[u64; 6]]| {
        let mut file = header.clone();
        file[56] = segments.len() as u8;
        for [offset, address, physical, file_bytes, memory_bytes, align] in segments {
            file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
            for word in [offset, address, physical, file_bytes, memory_bytes, align] {
                file.extend(word.to_le_bytes());
            }
        }
        file
    };
    let absurd = with(&[[0, 0x1_0000, 0, 0, 1 << 46, 0x1000]]);
    let wraps = with(&[[u64::MAX; 6]]);
    let shrinks = with(&[[0, 0x1_0000, 0, 0x2000, 0x1000, 0x1000]]);
    let unaligned = with(&[[0x10, 0x1_0000, 0, 0x20, 0x20, 0x1000]]);
    for (contents, message, expected) in [
        (&b"#!/bin/sh\n"[..], "Exec format error", 1),
        (&header[..40], "Exec format error", 1),
        (&header[..], "Invalid ELF program headers", 255),
        (&wraps[..], "ELF segment wraps around memory", 255),
        (&absurd[..], "ELF image is too large", 255),
        (&shrinks[..], "Invalid ELF segment", 255),
        (&unaligned[..], "Invalid ELF segment", 255),
    ] {
        fs::write(&file, contents).expect("the file can be written");
        let (code, stderr) = complaint(&file);
        assert_eq!(code, Some(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
    }
    // Segments that overlap: the later one counts, and what it makes of the program is the
    // program's own trouble, not ours.
    let segment = [0, 0x1_0000, 0, 0x100, 0x3000, 0x1000];
    fs::write(&file, with(&[segment, segment])).expect("the file can be written");
    let (code, stderr) = complaint(&file);
    assert!(code.is_none() && stderr.contains("uncaught target signal"), "{code:?} {stderr}");
    let (code, stderr) = complaint(Path::new("/bin/true"));
    assert_eq!(code, Some(255));
    assert!(stderr.contains("Invalid ELF image for this architecture"), "{stderr}");
    let (code, stderr) = complaint(Path::new("/nowhere/at/all"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Error while loading /nowhere/at/all: No such file"), "{stderr}");
    fs::remove_dir_all(folder).expect("the folder is ours");
}
