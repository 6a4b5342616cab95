//! User-mode emulation: foreign programs, built by cross compilers, against the reference.

mod architectures;
mod binfmt;
mod floats;
mod old_units;
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

/// YMM registers around signal handlers that use them, and one that a handler changes in its frame.
const UPPER_HALVES: &str = r#"
#define _GNU_SOURCE
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
static int frames, whole;
__attribute__((target("avx2"))) static void handler(int s, siginfo_t *i, void *context) {
  ucontext_t *u = context;
  unsigned char *area = (unsigned char *)u->uc_mcontext.fpregs;
  uint32_t magic1, magic2, extended; uint64_t features, present;
  memcpy(&magic1, area + 464, 4); memcpy(&extended, area + 468, 4); memcpy(&features, area + 472, 8);
  memcpy(&magic2, area + extended - 4, 4); memcpy(&present, area + 512, 8);
  frames++;
  if (magic1 == 0x46505853 && magic2 == 0x46505845 && (features & 7) == 7 && (present & 4)) whole++;
  uint64_t changed = 0x1122334455667788 + frames;
  memcpy(area + 576 + 16 * 3 + 8, &changed, 8);
  __asm__ volatile("vzeroall" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
  __m256i x = _mm256_set1_epi32(frames);
  __asm__ volatile("vpaddd %0, %0, %%ymm9; vmovdqa %%ymm9, %%ymm2" :: "x"(x) : "xmm9", "xmm2");
}
__attribute__((target("avx2"))) int main(void) {
  struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &a, 0);
  uint64_t in[64], out[64];
  for (int n = 0; n < 64; n++) in[n] = 0x9e3779b97f4a7c15 * (n + 1);
  for (int round = 0; round < 300; round++) {
    long pid = getpid(), number = SYS_kill;
    __asm__ volatile(
      ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\nvmovdqu 32*\\n(%2), %%ymm\\n\n.endr\n"
      "syscall\n"
      ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\nvmovdqu %%ymm\\n, 32*\\n(%3)\n.endr\nvzeroupper"
      : "+a"(number) : "D"(pid), "r"(in), "r"(out), "S"((long)SIGUSR1)
      : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
        "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    for (int n = 0; n < 64; n++) {
      uint64_t expected = n == 15 ? 0x1122334455667788 + frames : in[n];
      if (out[n] != expected) { printf("round %d word %d: %lx\n", round, n, (long)out[n]); return 1; }
    }
  }
  for (int kind = 0; kind < 3; kind++) {
    static unsigned char area[1024] __attribute__((aligned(64)));
    memset(area, 0x5a, sizeof area);
    memset(area + 512, 0, 64);
    uint64_t lost[8] = {0};
    __asm__ volatile(
      "vmovdqu (%2), %%ymm5\nvmovdqu 32(%2), %%ymm14\n"
      "cmp $1, %4\nja 2f\nje 1f\nxsave64 (%3)\njmp 3f\n1: xsaveopt64 (%3)\njmp 3f\n2: xsavec64 (%3)\n3:\n"
      "vzeroall\nvpcmpeqd %%ymm6, %%ymm6, %%ymm6\nmov $6, %%eax\nxrstor64 (%3)\n"
      "vmovdqu %%ymm5, (%1)\nvpaddd %%ymm6, %%ymm14, %%ymm14\nvmovdqu %%ymm14, 32(%1)\nvzeroupper"
      : : "a"(6), "r"(lost), "r"(in), "r"(area), "r"(kind), "d"(0)
      : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
        "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    uint64_t w[4]; memcpy(w, area + 512, 16); memcpy(w + 2, area + 576 + 16 * 5, 16);
    printf("%d %d %lx %lx %lx %lx %x", kind, memcmp(lost, in, 32), (long)w[0], (long)w[1], (long)w[2], (long)w[3], area[24]);
    for (int n = 4; n < 8; n++) printf(" %lx", (long)(lost[n] - in[n]));
    printf("\n");
  }
  long random[2] = {0};
  __asm__ volatile("rdrand %0" : "=r"(random[0]) :: "cc");
  __asm__ volatile("rdseed %0" : "=r"(random[1]) :: "cc");
  printf("%d\n", random[0] != random[1]);
  double sum = 0, x[64];
  for (int n = 0; n < 64; n++) x[n] = n / 3.0;
  for (int n = 0; n < 64; n++) sum += x[n] * x[63 - n];
  printf("%d %d %.17g %d\n", frames, whole, sum, __builtin_cpu_supports("avx2"));
  return 0;
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
fn upper_halves_survive_signal_handlers() {
    let Some(compiler) = tests::program("gcc") else { tests::skip!("no gcc on this machine") };
    let folder = folder("upper-halves");
    let program = compile(&compiler, &folder, UPPER_HALVES);
    let natively = Command::new(&program).output().expect("the program starts");
    if !natively.status.success() {
        tests::skip!("this processor has no AVX2");
    }
    let ours = tests::hostel().arg("qemu-x86_64").arg(&program).output().expect("hostel starts");
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text(&ours), text(&natively));
    fs::remove_dir_all(folder).expect("the folder is ours");
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
