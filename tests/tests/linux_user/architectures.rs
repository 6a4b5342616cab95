//! The same programs on every architecture: system calls, storms, gdb.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::folder;

/// An architecture and the compiler that builds for it.
const ARCHITECTURES: [(&str, &str); 4] = [
    ("x86_64", "gcc"),
    ("i386", "i686-linux-gnu-gcc"),
    ("aarch64", "aarch64-linux-gnu-gcc"),
    ("riscv64", "riscv64-linux-gnu-gcc"),
];

/// Builds a source for each architecture that has a compiler here.
fn build(name: &str, source: &str, folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let file = folder.join(format!("{name}.c"));
    fs::write(&file, source).expect("the source can be written");
    let mut programs = Vec::new();
    for (architecture, compiler) in ARCHITECTURES {
        let Some(compiler) = tests::program(compiler) else { continue };
        let program = folder.join(format!("{name}.{architecture}"));
        let built = Command::new(compiler)
            .args(["-g", "-O0", "-w", "-static", "-o"])
            .args([&program, &file])
            .arg("-lpthread")
            .status()
            .expect("the compiler starts");
        assert!(built.success(), "{architecture}");
        programs.push((architecture, program));
    }
    programs
}

fn run(architecture: &str, options: &[&str], program: &Path) -> Output {
    tests::hostel()
        .arg(format!("qemu-{architecture}"))
        .args(options)
        .arg(program)
        .output()
        .expect("hostel starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn system_calls_do_what_the_manual_says() {
    let folder = folder("system-calls");
    let programs = build("calls", include_str!("system_calls.c"), &folder);
    if programs.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for (architecture, program) in programs {
        let output = run(architecture, &[], &program);
        let text = text(&output.stdout);
        let wrong: Vec<&str> = text.lines().filter(|line| line.ends_with(": NO")).collect();
        assert_eq!(wrong, [""; 0], "{architecture}");
        assert!(text.lines().count() > 100 && output.status.success(), "{architecture}: {text}");
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn storms_lose_nothing_ten_times_in_a_row() {
    let folder = folder("storms");
    let programs = build("storm", include_str!("storm.c"), &folder);
    if programs.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    let expected = "signals 1000 sum 1000\nturns 640 counter 12800\nidentities 2\ncancelled 16\nchildren 40\nkills 3000\nchildren of many 30\n";
    // Ten runs in all, in turn on each architecture.
    for (architecture, program) in programs.iter().cycle().take(10) {
        let output = run(architecture, &[], program);
        assert_eq!(text(&output.stdout), expected, "{architecture}: {}", text(&output.stderr));
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn children_share_memory_until_they_become_another_program() {
    let folder = folder("spawn");
    let programs = build("spawn", include_str!("spawn.c"), &folder);
    if programs.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    let expected = "first descriptor 3\nmissing 1\nstatus 7\nwritten 5 status 3 handled 1\n\
                    written 1 killed 9\ngood 200\n";
    for (architecture, program) in programs {
        let output = run(architecture, &[], &program);
        assert_eq!(text(&output.stdout), expected, "{architecture}: {}", text(&output.stderr));
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

/// What gdb is told to do, and what it must then have said.
const CONVERSATION: &str = "set pagination off\nset confirm off\nset width 0\n\
    target remote SOCKET\nbreak add\ncontinue\nbt\nfinish\nprint d\nwatch d\ncontinue\n\
    delete\nbreak work\ncontinue\ninfo threads\ndelete\ncontinue\nset var counter = 42\n\
    print counter\nx/i $pc\nstepi\ninfo auxv\nhandle SIGUSR1 nostop\ncontinue\n";

#[test]
fn gdb_sees_a_program_of_each_architecture() {
    let Some(gdb) = tests::program("gdb-multiarch") else {
        tests::skip!("no gdb-multiarch on this machine");
    };
    let folder = folder("gdb");
    for (architecture, program) in build("debugged", include_str!("debugged.c"), &folder) {
        let socket = folder.join(format!("{architecture}.socket"));
        let script = folder.join("script");
        let commands = CONVERSATION.replace("SOCKET", &socket.display().to_string());
        fs::write(&script, commands).expect("the script can be written");
        let mut guest = tests::hostel()
            .arg(format!("qemu-{architecture}"))
            .arg("-g")
            .args([&socket, &program])
            .stdout(Stdio::piped())
            .spawn()
            .expect("hostel starts");
        for _ in 0..500 {
            if socket.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let said = Command::new(&gdb)
            .args(["-nx", "-batch", "-x"])
            .args([&script, &program])
            .output()
            .expect("gdb starts");
        let said = text(&said.stdout) + &text(&said.stderr);
        if !said.contains("exited with code") {
            guest.kill().expect("it is ours");
        }
        let guest = guest.wait_with_output().expect("hostel ends");
        for part in [
            "add (a=2, b=3)",
            "in main (argc=1",
            "Value returned is $1 = 5",
            "Old value = 1.5",
            "New value = 6.5",
            "hit Breakpoint 3, work (x=0x0)",
            "received signal SIGUSR1",
            "$3 = 42",
            "AT_PHDR",
            "exited with code 07",
        ] {
            assert!(said.contains(part), "{architecture}: no '{part}' in\n{said}");
        }
        assert_eq!(guest.status.code(), Some(7), "{architecture}: {said}");
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

const SHOW: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>
static void cat(const char *path) {
  char text[4096]; int file = open(path, O_RDONLY); if (file < 0) return;
  for (ssize_t n; (n = read(file, text, sizeof text)) > 0;) fwrite(text, 1, n, stdout);
  close(file);
}
int main(int argc, char **argv, char **environment) {
  if (argc > 1 && !strcmp(argv[1], "crash")) *(volatile int *)0x1234 = 1;
  if (argc > 1 && !strcmp(argv[1], "unknown")) { syscall(4711); syscall(4711); return 0; }
  if (argc > 1 && !strcmp(argv[1], "cat")) { cat(argv[2]); return 0; }
  char path[256]; ssize_t n = readlink("/proc/self/exe", path, 255); path[n > 0 ? n : 0] = 0;
  printf("name %s\nexe %s\nA %s B %s\n", argv[0], path, getenv("A"), getenv("B"));
  unsigned char *random = (void *)getauxval(AT_RANDOM); printf("random %d\n", random[0] + 256 * random[8]);
  printf("high %d\n", (unsigned long long)&argc >> 31 != 0);
  char stack[1 << 20]; memset(stack, 1, sizeof stack); printf("stack %d\n", stack[argc]);
  FILE *maps = fopen("/proc/thread-self/maps", "r"); int own = 0, first = 0, vdso = 0; char line[512];
  while (fgets(line, sizeof line, maps)) { own += strstr(line, path) != 0; first += strstr(line, "[stack]") != 0; vdso += strstr(line, "[vdso]") != 0; }
  printf("maps %d %d %d\n", own > 0, first, vdso);
  unsigned long vector[64]; int file = open("/proc/self/auxv", O_RDONLY); n = read(file, vector, sizeof vector);
  int same = 0; for (int i = 0; i < n / sizeof *vector; i += 2) same += vector[i] == AT_ENTRY && vector[i + 1] == getauxval(AT_ENTRY);
  printf("auxv %d\n", same);
  FILE *stat = fopen("/proc/self/stat", "r"); int pid; char name[64]; fscanf(stat, "%d %63s", &pid, name); printf("stat %d %s\n", pid == getpid(), name);
  char command[512] = {0}; file = open("/proc/self/cmdline", O_RDONLY); read(file, command, 511); printf("cmdline %s\n", command);
  FILE *info = fopen("/proc/cpuinfo", "r"); fgets(line, sizeof line, info); printf("cpuinfo %d\n", !strncmp(line, "processor", 9));
  return 0;
}
"#;

#[test]
fn options_and_proc_are_the_programs_own() {
    let folder = folder("options");
    let programs = build("show", SHOW, &folder);
    if programs.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for (architecture, program) in programs {
        let options =
            ["-0", "other", "-E", "A=1", "-E", "B=2", "-U", "B", "-s", "4M", "-seed", "7"];
        let output = run(architecture, &[&options[..], &["-R", "0x70000000"]].concat(), &program);
        let shown = text(&output.stdout);
        let exe = format!("exe {}", program.display());
        let base = format!("stat 1 (show.{architecture})");
        for line in [
            "name other",
            &exe,
            "A 1 B (null)",
            "high 0",
            "stack 1",
            "maps 1 1 1",
            "auxv 1",
            &base,
            "cmdline other",
            "cpuinfo 1",
        ] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{architecture}: no '{line}' in {shown}"
            );
        }
        let again = text(&run(architecture, &["-seed", "7"], &program).stdout);
        let random =
            |text: &str| text.lines().find(|line| line.starts_with("random")).map(String::from);
        assert_eq!(random(&again), random(&shown));
        assert_ne!(random(&text(&run(architecture, &[], &program).stdout)), random(&shown));
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn logs_name_calls_and_crashes() {
    let folder = folder("logs");
    let programs = build("show", SHOW, &folder);
    if programs.is_empty() {
        tests::skip!("no compiler on this machine");
    }
    for (architecture, program) in programs {
        let applet = format!("qemu-{architecture}");
        let with = |options: &[&str], word: &str| {
            let output =
                tests::hostel().arg(&applet).args(options).arg(&program).arg(word).output();
            output.expect("hostel starts")
        };
        let unknown = text(&with(&["-d", "unimp"], "unknown").stderr);
        assert_eq!(unknown.matches("Unsupported syscall: 4711").count(), 1, "{unknown}");
        let log = folder.join(format!("{architecture}.log"));
        let name = log.display().to_string();
        with(&["-strace", "-D", &name], "plain");
        let log = fs::read_to_string(log).expect("it was written");
        assert!(log.contains("\"/proc/self/exe\","), "{architecture}: {log}");
        assert!(log.contains(" exit_group(0)\n"), "{architecture}: {log}");
        let pages = text(&with(&["-d", "page"], "plain").stderr);
        assert!(pages.contains("[stack]"), "{architecture}: {pages}");
        let plain = text(&with(&[], "plain").stdout);
        let single = text(&with(&["-one-insn-per-tb", "-tb-size", "8"], "plain").stdout);
        assert_eq!(single.lines().nth(4), plain.lines().nth(4), "{architecture}");
        let crash = with(&[], "crash");
        let said = text(&crash.stderr);
        assert!(said.contains("uncaught target signal 11 (Segmentation fault) at pc 0x"), "{said}");
        assert!(said.contains("address 0x1234") && said.lines().count() == 1, "{said}");
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(crash.status.signal(), Some(11), "{architecture}");
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn the_prefix_is_looked_at_first() {
    let folder = folder("prefix");
    let programs = build("show", SHOW, &folder);
    let Some((architecture, program)) = programs.first() else {
        tests::skip!("no compiler on this machine");
    };
    let prefix = folder.join("root");
    fs::create_dir_all(prefix.join("etc")).expect("folders can be made");
    fs::write(prefix.join("etc/hostname"), "inside\n").expect("files can be written");
    let cat = |path: &str| {
        let output = tests::hostel()
            .arg(format!("qemu-{architecture}"))
            .arg("-L")
            .args([&prefix, program])
            .args(["cat", path])
            .output()
            .expect("hostel starts");
        text(&output.stdout)
    };
    assert_eq!(cat("/etc/hostname"), "inside\n");
    // What is not there is the host's.
    assert_eq!(cat("/proc/sys/kernel/ostype"), "Linux\n");
    fs::remove_dir_all(folder).expect("the folder is ours");
}
