//! `-cpu` and `-smp`: what the guest reads, what monitors say, and how it is refused.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::{reference, rom_with};
use crate::monitor::Machine;

/// Leaves and subleaves that are dumped.
const LEAVES: &[(u32, u32)] = &[
    (0, 0),
    (1, 0),
    (4, 0),
    (4, 2),
    (4, 3),
    (7, 0),
    (7, 1),
    (0xb, 0),
    (0xb, 1),
    (0xb, 2),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0002, 0),
    (0x8000_0003, 0),
    (0x8000_0004, 0),
    (0x8000_0008, 0),
];

/// Real-mode code that writes the answers to port 0xe9, four registers a leaf, and then leaves by
/// port 0xf4. The table of leaves lies behind the code.
fn dump_code() -> Vec<u8> {
    #[rustfmt::skip]
    let mut code = vec![
        0xbe, 0, 0,             // mov si, table
        0xbd, LEAVES.len() as u8, 0, // mov bp, count
        // next:
        0x66, 0xad,             // lodsd
        0x66, 0x89, 0xc7,       // mov edi, eax
        0x66, 0xad,             // lodsd
        0x66, 0x89, 0xc1,       // mov ecx, eax
        0x66, 0x89, 0xf8,       // mov eax, edi
        0x0f, 0xa2,             // cpuid
        0x66, 0x52, 0x66, 0x51, 0x66, 0x53, 0x66, 0x50, // push edx, ecx, ebx, eax
        0xb9, 16, 0,            // mov cx, 16
        0x89, 0xe3,             // mov bx, sp
        // byte:
        0x36, 0x8a, 0x07,       // mov al, ss:[bx]
        0xe6, 0xe9,             // out 0xe9, al
        0x43,                   // inc bx
        0xe2, 0xf8,             // loop byte
        0x83, 0xc4, 16,         // add sp, 16
        0x4d,                   // dec bp
        0x75, 0xd2,             // jnz next
        0xb0, 0x10, 0xe6, 0xf4, // mov al, 0x10; out 0xf4, al
        0xf4,                   // hlt
    ];
    let table = 0x7c00 + code.len();
    code[1..3].copy_from_slice(&(table as u16).to_le_bytes());
    for (leaf, subleaf) in LEAVES {
        code.extend(leaf.to_le_bytes());
        code.extend(subleaf.to_le_bytes());
    }
    code
}

/// What a guest with these options reads.
fn dumped(mut command: Command, options: &[&str], name: &str) -> Vec<[u32; 4]> {
    let folder = tests::scratch(name);
    let (rom, out) = (folder.join("rom"), folder.join("out"));
    fs::write(&rom, rom_with(&dump_code())).unwrap();
    let character = format!("file,id=dump,path={}", out.display());
    let status = command
        .args(["-display", "none", "-nodefaults", "-no-reboot", "-chardev", &character])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=dump"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios", rom.to_str().unwrap()])
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0x21), "the guest has come to its end");
    let bytes = fs::read(&out).unwrap();
    fs::remove_dir_all(folder).unwrap();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let answer = |bytes: &[u8]| {
        let words: Vec<u32> = bytes.chunks(4).map(word).collect();
        words.try_into().unwrap()
    };
    bytes.chunks(16).map(answer).collect()
}

fn ours() -> Command {
    let mut command = tests::hostel();
    command.arg("qemu-system-x86_64");
    command
}

/// Features that only one of the two implements, so that the other leaves them out: SVM, PCID and
/// what no translator of ours has, by leaf and register.
const DIFFERENT: &[(u32, usize, u32)] = &[
    (1, 2, 1 << 3 | 1 << 17 | 1 << 24), // MONITOR, PCID, TSC-deadline
    (4, 3, 7),                          // how caches of several levels hang together
    (7, 1, 1 << 10 | 1 << 14 | 1 << 20 | 1 << 23 | 1 << 24), // INVPCID, MPX, SMAP, CLFLUSHOPT, CLWB
    (7, 2, 1 << 2 | 1 << 3 | 1 << 9 | 1 << 16 | 1 << 31), // UMIP, PKU, VAES, LA57, PKS
    (7, 3, 1 << 26 | 1 << 29),          // SPEC_CTRL, ARCH_CAPABILITIES
    (0x8000_0001, 2, 1 << 2 | 1 << 4 | 1 << 6), // SVM, CR8LEG, SSE4A
    (0x8000_0001, 3, 1 << 11 | 1 << 22 | 3 << 30), // SYSCALL outside of 64-bit code, MMXEXT, 3DNOW
    (0x8000_0008, 0, u32::MAX),         // of addresses of 32-bit models
    (0x8000_0008, 1, u32::MAX),
];

#[test]
fn guests_read_the_models_and_topologies_of_the_reference() {
    let Some(reference) = reference() else { tests::skip!("the reference QEMU was not fetched") };
    for (number, options) in [
        &["-cpu", "qemu64"][..],
        &["-cpu", "Nehalem", "-smp", "4,sockets=2,cores=2"],
        &["-cpu", "Haswell", "-smp", "12,sockets=2,cores=3,threads=2"],
        &["-cpu", "EPYC", "-smp", "4"],
        &["-cpu", "kvm64,+sse4_1,model-id=a name,family=6,vendor=GenuineIntel"],
        &["-cpu", "486"],
        &["-cpu", "Skylake-Client-v3,-avx2,level=11", "-smp", "8,dies=2,cores=2,threads=2"],
    ]
    .into_iter()
    .enumerate()
    {
        let theirs = dumped(Command::new(&reference), options, &format!("cpuid-ref-{number}"));
        let seen = dumped(ours(), options, &format!("cpuid-{number}"));
        assert_eq!(seen.len(), LEAVES.len());
        for ((leaf, subleaf), (ours, theirs)) in LEAVES.iter().zip(seen.iter().zip(&theirs)) {
            for register in 0..4 {
                let differs = DIFFERENT.iter().filter(|(at, of, _)| (at, *of) == (leaf, register));
                let mask = !differs.map(|(.., bits)| bits).fold(0, |all, bits| all | bits);
                let (own, other) = (ours[register] & mask, theirs[register] & mask);
                assert_eq!(
                    own, other,
                    "{options:?}: leaf {leaf:#x}.{subleaf} register {register}: {own:#x}, {other:#x}"
                );
            }
        }
    }
}

/// What is said on standard error, and whether the machine was refused.
fn said(options: &[&str]) -> (String, Option<i32>) {
    let rom = tests::scratch("processors-rom").join("rom");
    fs::write(&rom, rom_with(&[0xf4])).unwrap();
    let mut child = ours()
        .args(["-display", "none", "-nodefaults", "-S", "-bios", rom.to_str().unwrap()])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        if child.try_wait().unwrap().is_some() {
            break;
        }
    }
    _ = child.kill();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[test]
fn what_is_missing_is_told_and_what_is_wrong_refused() {
    let (text, code) = said(&["-cpu", "Haswell"]);
    let warning = "qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]\n";
    assert!(text.contains(warning), "{text}");
    assert_eq!(code, None, "it runs all the same");
    let (text, code) = said(&["-cpu", "Haswell,enforce"]);
    assert!(
        text.ends_with("qemu-system-x86_64: TCG doesn't support requested features\n"),
        "{text}"
    );
    assert_eq!(code, Some(1));
    let (text, code) = said(&["-cpu", "Haswell-noTSX,-pcid,-tsc-deadline,enforce"]);
    assert_eq!((text.as_str(), code), ("", None), "all of it is there");
    let (text, code) = said(&["-cpu", "Haswell,check=off"]);
    assert_eq!((text.as_str(), code), ("", None));
    for (options, error) in [
        (["-cpu", "foo"], "unable to find CPU model 'foo'"),
        (["-cpu", "Haswell,+bar"], "Property 'Haswell-x86_64-cpu.bar' not found"),
        (["-smp", "2,books=2"], "books > 1 not supported by this machine's CPU topology"),
        (["-smp", "0"], "Invalid CPU topology: CPU topology parameters must be greater than zero"),
    ] {
        let expected = format!("qemu-system-x86_64: {error}\n");
        assert_eq!(said(&options), (expected, Some(1)));
    }
}

#[test]
fn monitors_tell_of_models_and_features() {
    let options =
        ["-M", "q35", "-S", "-cpu", "Nehalem,-ssse3", "-smp", "3,maxcpus=4,dies=2", "-kernel"];
    let kernel = tests::asset_file("kernel-12/boot", "vmlinuz");
    let Some(kernel) = kernel else { tests::skip!("the Debian 12 kernel was not fetched") };
    let options: Vec<&str> = options.into_iter().chain([kernel.to_str().unwrap()]).collect();
    let mut machine = Machine::start("models", &options);
    let models = machine.good("query-cpu-definitions", json!({}));
    let model = |name: &str| {
        let found = models.as_array().unwrap().iter().find(|model| model["name"] == name);
        found.unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!(model("Haswell")["alias-of"], "Haswell-v1");
    assert_eq!(model("Haswell")["unavailable-features"], json!(["pcid", "hle", "rtm"]));
    assert_eq!(model("EPYC-Rome-v2")["typename"], "EPYC-Rome-v2-x86_64-cpu");
    assert!(models.as_array().unwrap().len() > 150);
    let expanded = machine.good(
        "query-cpu-model-expansion",
        json!({"type": "full", "model": {"name": "Haswell", "props": {"avx2": false}}}),
    );
    let props = &expanded["model"]["props"];
    assert_eq!(
        (&props["avx"], &props["avx2"], &props["family"]),
        (&json!(true), &json!(false), &json!(6))
    );
    let refusal = machine
        .bad("query-cpu-model-expansion", json!({"type": "static", "model": {"name": "foo"}}));
    assert!(refusal.contains("foo"), "{refusal}");
    let path = "/machine/unattached/device[2]";
    let mut get =
        |property: &str| machine.good("qom-get", json!({"path": path, "property": property}));
    assert_eq!(get("type"), "Nehalem-x86_64-cpu");
    assert_eq!(
        (get("sse4.2"), get("ssse3"), get("avx")),
        (json!(true), json!(false), json!(false))
    );
    assert_eq!(
        (get("apic-id"), get("die-id"), get("unavailable-features")),
        (json!(2), json!(1), json!([]))
    );
    let list = machine.good("qom-list", json!({"path": path}));
    let bools = list.as_array().unwrap().iter().filter(|entry| entry["type"] == "bool").count();
    assert!(bools > 200, "{bools}");
    let slots = machine.good("query-hotpluggable-cpus", json!({}));
    let slot = json!({"props": {"core-id": 1, "thread-id": 0, "die-id": 1, "socket-id": 0},
        "vcpus-count": 1, "type": "Nehalem-x86_64-cpu"});
    assert_eq!((slots.as_array().unwrap().len(), &slots[0]), (4, &slot));
    let types = machine.good("qom-list-types", json!({"implements": "x86_64-cpu"}));
    assert!(
        types
            .as_array()
            .unwrap()
            .contains(&json!({"name": "max-x86_64-cpu", "parent": "x86_64-cpu"}))
    );
}

#[test]
fn the_list_of_models_is_the_references() {
    let list = |mut command: Command| {
        let output = command.args(["-cpu", "help"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("\nRecognized CPUID flags:").next().unwrap_or_default().to_owned()
    };
    let seen = list(ours());
    assert!(seen.starts_with("Available CPUs:\n  486 "), "{seen}");
    let Some(reference) = tests::asset("bin/qemu-system-x86_64") else {
        tests::skip!("the reference QEMU 10 was not fetched");
    };
    assert_eq!(seen, list(Command::new(reference)));
}

/// A kernel counts what there is.
#[test]
fn a_kernel_finds_sockets_cores_and_threads() {
    let script = "/bin/busybox mount -t proc proc /proc\n\
        /bin/busybox grep -E 'processor|physical id|core id|siblings|cpu cores|^apicid' /proc/cpuinfo\n\
        /bin/busybox grep -m1 'model name' /proc/cpuinfo\n/bin/busybox poweroff -f";
    let Some((kernel, initrd)) = crate::monitor::kernel("smp-topology", script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    let output = ours()
        .args(["-nographic", "-no-reboot", "-m", "256", "-kernel", &kernel, "-initrd", &initrd])
        .args(["-append", "console=ttyS0 quiet", "-smp", "6,sockets=2,cores=3", "-cpu", "Nehalem"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stdout).replace(['\t', '\r'], "");
    for text in [
        "physical id: 1",
        "core id: 2",
        "siblings: 3",
        "cpu cores: 3",
        "apicid: 6",
        "model name: Intel Core i7 9xx (Nehalem Class Core i7)",
    ] {
        assert!(console.contains(text), "{text}: {console}");
    }
    assert_eq!(console.matches("processor:").count(), 6, "{console}");
}
