//! `qemu-system-x86_64`: whole machines on the translator.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Generous for an unoptimised build on a busy machine; a hang is what it is for.
const BOOT_MAX: Duration = Duration::from_secs(240);

/// Boots a Debian kernel with busybox and this init script; the exit code and the serial console.
fn boot(name: &str, kernel: &str, options: &[&str], script: &str) -> Option<(i32, String)> {
    boot_and_type(name, kernel, options, script, "")
}

/// The same with something typed on the console: all at once, before the guest even listens.
fn boot_and_type(
    name: &str,
    kernel: &str,
    options: &[&str],
    script: &str,
    typed: &str,
) -> Option<(i32, String)> {
    let busybox = tests::asset("busybox-amd64/bin/busybox")?;
    let kernel = tests::asset_file(&format!("{kernel}/boot"), "vmlinuz")?;
    let folder = tests::scratch(name);
    let initrd = folder.join("initrd");
    tests::initramfs::write(&initrd, &busybox, script).expect("the RAM disk can be written");
    let mut child = tests::hostel()
        .args(["qemu-system-x86_64", "-nographic", "-no-reboot", "-m", "256", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hostel starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(typed.as_bytes()).expect("the emulator reads");
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(BOOT_MAX);
    drop(stdin); // open until here: an end of input is not what is tested
    fs::remove_dir_all(folder).expect("the scratch folder is ours");
    let Ok(output) = output else {
        _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("the machine did not end within {} s", BOOT_MAX.as_secs());
    };
    let Output { status, stdout, stderr } = output.expect("hostel's output can be read");
    let errors = String::from_utf8_lossy(&stderr);
    assert_eq!(errors, "", "nothing on standard error");
    Some((status.code().unwrap_or(-1), String::from_utf8_lossy(&stdout).into_owned()))
}

const MOUNT: &str = "/bin/busybox mount -t proc proc /proc";
const POWER_OFF: &str = "/bin/busybox poweroff -f";

#[test]
fn debian_12_boots_to_busybox_and_powers_off() {
    let script = format!("{MOUNT}\necho \"count $((6 * 7))\"\n/bin/busybox uname -m\n{POWER_OFF}");
    let Some((code, console)) = boot("debian-12", "kernel-12", &[], &script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    assert!(console.contains("count 42\r\n") && console.contains("x86_64"), "{console}");
    assert!(console.contains("reboot: Power down"), "{console}");
    assert_eq!(code, 0);
}

#[test]
fn four_cpus_work_in_parallel() {
    let script = format!(
        "{MOUNT}\n/bin/busybox grep -c ^processor /proc/cpuinfo\n\
         for i in 1 2 3 4; do (i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; echo \"loop $i\") & \
         done\nwait\n{POWER_OFF}"
    );
    let Some((code, console)) = boot("four-cpus", "kernel-12", &["-smp", "4"], &script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    assert!(console.lines().any(|line| line == "4"), "all four CPUs are there: {console}");
    assert_eq!(console.matches("loop 300").count(), 4, "{console}");
    assert_eq!(code, 0);
}

#[test]
fn debian_13_boots_to_busybox_on_two_cpus() {
    // With SMAP the kernel opens and closes the way to programs' pages at each copy.
    let script = format!("{MOUNT}\n/bin/busybox grep -c ' smap ' /proc/cpuinfo\n{POWER_OFF}");
    let options = ["-smp", "2", "-cpu", "max,smap=on"];
    let Some((code, console)) = boot("debian-13", "kernel-13", &options, &script) else {
        tests::skip!("the Debian 13 kernel or busybox was not fetched");
    };
    let counted = console.lines().any(|line| line == "2");
    assert!(counted && console.contains("Power down"), "{console}");
    assert_eq!(code, 0);
}

#[test]
fn what_is_typed_reaches_the_guest() {
    let script = format!(
        "while read word; do echo \"got $word\"; [ $word = end ] && break; done\n{POWER_OFF}"
    );
    let typed = "x\n".repeat(40) + "end\n";
    let Some((code, console)) = boot_and_type("typing", "kernel-12", &[], &script, &typed) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    assert!(console.contains("got end\r\n"), "{console}");
    assert_eq!(code, 0);
}

#[test]
fn a_reboot_ends_the_machine_with_no_reboot() {
    let script = format!("{MOUNT}\necho once\n/bin/busybox reboot -f");
    let Some((code, console)) = boot("reboot", "kernel-12", &[], &script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    assert_eq!((code, console.matches("once\r\n").count()), (0, 1), "{console}");
}

#[test]
fn unknown_options_are_refused_by_name_and_leave_nothing() {
    for (arguments, text) in [
        (&["-foo"][..], "qemu-system-x86_64: -foo: invalid option\n"),
        (
            &["-kernel", "k", "-device", "foo"],
            "qemu-system-x86_64: -device foo: 'foo' is not a valid device model name\n",
        ),
        (&["-kernel", "/no/such/kernel"], "could not load kernel '/no/such/kernel'"),
    ] {
        let output = tests::hostel().arg("qemu-system-x86_64").args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(text), "'{stderr}' lacks '{text}'");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    }
}

#[test]
fn the_version_line_is_what_scripts_parse() {
    let output = tests::hostel().args(["qemu-system-x86_64", "--version"]).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.starts_with("QEMU emulator version 10.0."), "{stdout}");
    assert!(stdout.contains("(Hostel "), "{stdout}");
}
